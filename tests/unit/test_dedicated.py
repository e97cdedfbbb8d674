"""Links for one caller each: where they lead, who gets one, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from tests.unit.masters import FakeMasters, outcome
from txharedis.dedicated.links import IDLE_KEPT, IDLE_SECONDS, DedicatedLink
from txharedis.errors import LinkLost, QueueFull, ResponseError, ServiceStopped


def taken(masters: FakeMasters, db: int = 0) -> Any:
    """A link that was dialled for this."""
    got = outcome(masters.links.take(db))
    masters.accept()
    [link] = got
    assert isinstance(link, DedicatedLink)
    return link


def test_a_link_is_dialled_when_there_is_a_master() -> None:
    masters = FakeMasters()
    got = outcome(masters.links.take(3))
    assert not masters.dialling
    masters.lead_to(1)
    dial = masters.dialling[0].accept()
    assert dial.commands() == [[b"SELECT", b"3"], [b"INFO", b"server"]]
    dial.answer("OK", b"run_id:r1\r\n")
    [link] = got
    assert (link.db, link.run_id) == (3, "r1")
    client_id = outcome(link.client_id())
    assert client_id == []
    dial.answer(7)
    assert client_id == outcome(link.client_id()) == [7]


def test_a_link_whose_id_is_not_told_has_none() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    got = outcome(masters.links.take(0))
    dial = masters.dialling[0].accept()
    dial.answer("OK", b"run_id:r1\r\n", ResponseError("NOPERM no right"))
    assert outcome(got[0].client_id()) == [None]


def test_a_link_that_was_given_back_is_used_again_in_its_database() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    link = taken(masters)
    masters.links.give_back(link)
    other = taken(masters, 1)
    assert other is not link
    assert outcome(masters.links.take(0)) == [link]
    assert len(masters.reactor.dials) == 2


def test_a_link_that_was_given_back_goes_to_who_waits_longest() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    link = taken(masters)
    first, second = outcome(masters.links.take(0)), outcome(masters.links.take(0))
    masters.links.give_back(link)
    assert first == [link]
    assert second == []


def test_idle_links_are_few_and_not_for_ever() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    links = [taken(masters) for _ in range(IDLE_KEPT + 3)]
    for link in links:
        masters.links.give_back(link)
    masters.reactor.advance(0)
    alive = [dial for dial in masters.reactor.dials if not dial.over]
    assert len(alive) == IDLE_KEPT
    masters.reactor.advance(IDLE_SECONDS)
    masters.reactor.advance(0)
    assert all(dial.over for dial in masters.reactor.dials)
    assert masters.reactor.getDelayedCalls() == []


def test_a_link_that_is_dead_is_not_kept() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    idle, used = taken(masters), taken(masters)
    masters.links.give_back(idle)
    for dial in masters.reactor.dials:
        dial.lose()
    masters.links.give_back(used)
    assert outcome(masters.links.take(0)) == []
    assert len(masters.dialling) == 1


def test_no_more_than_max_dedicated_have_one_or_wait() -> None:
    masters = FakeMasters(max_dedicated=2)
    waiting = masters.links.take(0)
    oldest = outcome(masters.links.take(0))
    [error] = outcome(masters.links.take(0))
    assert isinstance(error, QueueFull)
    assert "max_dedicated=2" in str(error)
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()
    masters.lead_to(1)
    masters.accept()
    assert outcome(masters.links.take(0)) == []
    assert isinstance(outcome(masters.links.take(0))[0], QueueFull)
    masters.links.discard(oldest[0])
    assert outcome(masters.links.take(0)) == []


def test_dropping_tells_the_users_at_once_and_late_replies_reach_nobody() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    link, idle = taken(masters), taken(masters)
    masters.links.give_back(idle)
    reply = outcome(link.exchange(["BLPOP", "q", 0]))
    dials = list(masters.reactor.dials)
    waiting = outcome(masters.links.take(9))
    masters.links.drop()
    assert isinstance(reply[0], LinkLost)
    assert all(dial.aborted for dial in dials)
    dials[0].deliver(b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n")
    assert len(reply) == 1
    masters.reactor.advance(0)
    masters.reactor.advance(5)
    assert not masters.dialling
    assert waiting == []
    masters.lead_to(2)
    masters.accept()
    assert waiting[0].run_id == "r2"


def test_a_pause_keeps_what_is_there_and_gives_out_nothing() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    used, idle = taken(masters), taken(masters)
    masters.links.give_back(idle)
    dialled = outcome(masters.links.take(1))
    masters.links.lead_to(None)
    waiting = outcome(masters.links.take(0))
    masters.accept()  # what was on its way arrives
    masters.links.give_back(used)
    assert waiting == dialled == []
    masters.lead_to(1)
    assert waiting[0] in (used, idle)
    assert dialled[0].db == 1
    assert len(masters.reactor.dials) == 3


def test_links_to_another_incarnation_are_not_used() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    used, idle = taken(masters), taken(masters)
    masters.links.give_back(idle)
    masters.lead_to(1, "new")
    assert masters.reactor.dials[1].aborted
    masters.links.give_back(used)
    assert masters.reactor.dials[0].aborted
    got = outcome(masters.links.take(0))
    # One that leads to the old incarnation after all is dropped, and dialled again a moment later.
    masters.accept("r")
    assert got == []
    masters.reactor.advance(0)
    assert not masters.dialling
    masters.reactor.advance(1)
    masters.accept("new")
    assert got[0].run_id == "new1"


def test_failed_dials_are_repeated_more_and_more_slowly() -> None:
    masters = FakeMasters(reconnect_delay=0.1, reconnect_max=0.4)
    masters.lead_to(1)
    got = outcome(masters.links.take(0))
    waits = []
    for _ in range(4):
        masters.dialling[0].refuse()
        before = masters.reactor.seconds()
        while not masters.dialling:
            masters.reactor.advance(0.01)
        waits.append(round(masters.reactor.seconds() - before, 2))
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.4], abs=0.015)
    masters.dialling[0].refuse()
    masters.lead_to(2)  # at once
    masters.accept()
    assert got[0].run_id == "r2"


@pytest.mark.parametrize(
    ("reply", "again"),
    [
        ("NOAUTH Authentication required.", False),
        ("ERR DB index is out of range", False),
        ("LOADING the dataset", True),
        ("ERR max number of clients reached", True),
    ],
)
def test_what_a_server_refuses_for_good_reaches_the_caller(reply: str, again: bool) -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    got, other = outcome(masters.links.take(0)), outcome(masters.links.take(0))
    masters.dialling[0].accept().answer(ResponseError(reply), b"run_id:r1\r\n")
    masters.reactor.advance(0)
    if again:
        assert got == other == []
        masters.reactor.advance(1)
        assert len(masters.dialling) == 2
    else:
        assert [str(error) for error in (*got, *other)] == [reply, reply]
        assert got[0] is not other[0]


def test_who_waits_is_refused_and_who_comes() -> None:
    masters = FakeMasters()
    waiting = outcome(masters.links.take(0))
    masters.links.refuse(lambda: ServiceStopped("over"))
    assert isinstance(waiting[0], ServiceStopped)
    assert isinstance(outcome(masters.links.take(0))[0], ServiceStopped)
    masters.links.refuse(None)
    masters.lead_to(1)
    assert taken(masters)


def test_closing_fires_when_the_last_link_is_gone() -> None:
    masters = FakeMasters()
    assert masters.links.close().called
    masters.lead_to(1)
    idle, _used = taken(masters), taken(masters)
    masters.links.give_back(idle)
    outcome(masters.links.take(1))
    masters.links.refuse(lambda: ServiceStopped("over"))
    closed = masters.links.close()
    assert not closed.called
    masters.reactor.advance(0)
    assert closed.called
    assert masters.reactor.getDelayedCalls() == []


def test_a_cancelled_caller_leaves_the_link_to_the_next_one() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    waiting = masters.links.take(0)
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()
    masters.accept()
    assert isinstance(outcome(masters.links.take(0))[0], DedicatedLink)


def test_a_silent_node_drops_its_links() -> None:
    masters = FakeMasters()
    masters.lead_to(1)
    link = taken(masters)
    reply = outcome(link.exchange(["BLPOP", "q", 0]))
    masters.nodes[1]._drop_links()
    assert isinstance(reply[0], LinkLost)


def test_who_gets_a_link_may_pause_all_at_once() -> None:
    masters = FakeMasters()
    first, second = masters.links.take(0), masters.links.take(0)
    first.addCallback(lambda _: masters.links.lead_to(None))
    got = outcome(second)
    masters.lead_to(1)
    masters.accept()
    masters.accept()
    assert got == []
    masters.lead_to(1)
    assert len(got) == 1
