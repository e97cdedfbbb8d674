"""Blocking commands: issued again on the next master, and taken back when they are cancelled."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.fakes import Dial
from tests.unit.masters import FakeMasters, FakeQueue, outcome
from txharedis.commands import describe
from txharedis.dedicated.blocking import FIRST_TRY, STOP_TIME, Blocking
from txharedis.errors import (
    AccessDenied,
    NoMaster,
    NotReplicated,
    OutcomeUnknown,
    QueueFull,
    ResponseError,
    ServiceStopped,
)
from txharedis.interfaces import pack

COUNT = b"EVAL"


class FakeLog:
    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []

    def error(self, line: str, **fields: Any) -> None:
        self.errors.append(fields)


class FakeControl:
    """The control link of a node: takes CLIENT UNBLOCK, and answers when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.replies: list[Deferred[Any]] = []

    def exchange(self, *commands: Any, timeout: float | None = None) -> Deferred[Any]:
        self.asked += [tuple(command) for command in commands]
        self.replies.append(Deferred())
        return self.replies[-1]


class Played(FakeMasters):
    """Blocking commands on fake masters, the first of which is there."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.queue = FakeQueue()
        self.log = FakeLog()
        queue: Any = self.queue
        log: Any = self.log
        self.blocking = Blocking(self.reactor, self.links, queue, log, self.terms, 1.0)
        self.lead_to(1)
        self.control = FakeControl()
        node: Any = self.nodes[1]
        node.control = self.control

    def submit(self, text: str) -> Deferred[Any]:
        args = tuple(text.split())
        info = describe(args)
        return self.blocking.submit(info.name, args, pack(args), 0, read=info.read)

    def blocked(self, text: str) -> tuple[Deferred[Any], Dial]:
        """A command that was issued, and the link on which it waits."""
        reply = self.submit(text)
        dial = self.accept()
        [command] = dial.commands()
        assert command[0] == text.encode().split()[0]
        return reply, dial


def names(dial: Dial) -> list[bytes]:
    return [command[0] for command in dial.commands()]


def test_the_reply_is_converted_and_the_pop_counted_on_its_link() -> None:
    played = Played()
    reply, dial = played.blocked("BLPOP q 0")
    got = outcome(reply)
    dial.answer([b"q", b"7"])
    assert got == [["q", 7]]
    [count] = dial.commands()
    assert count[0] == COUNT
    assert count[2:] == [b"1", b"haredis:opcounter", b"15", b"1"]
    # The next one goes over the same link.
    played.submit("BLPOP q 0")
    assert names(dial) == [b"BLPOP"]


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("BLPOP q 0", None),
        ("BLPOP q 0", ResponseError("WRONGTYPE no list")),
        ("XREAD BLOCK 0 STREAMS s 0", [[b"s", []]]),
    ],
)
def test_what_writes_nothing_is_not_counted(command: str, answer: object) -> None:
    played = Played()
    reply, dial = played.blocked(command)
    got = outcome(reply)
    dial.answer(answer)
    assert len(got) == 1
    assert dial.commands() == []


def test_nothing_is_counted_without_a_counter() -> None:
    played = Played(counter=None)
    reply, dial = played.blocked("BLPOP q 0")
    outcome(reply)
    dial.answer([b"q", b"x"])
    assert dial.commands() == []


def test_it_is_issued_again_with_the_time_that_is_left() -> None:
    played = Played()
    reply, dial = played.blocked("BLPOP q 10")
    got = outcome(reply)
    played.reactor.advance(4)
    dial.lose()
    played.links.drop()
    played.reactor.advance(1.5)
    assert not played.dialling
    played.lead_to(2)
    dial = played.accept()
    assert dial.commands() == [[b"BLPOP", b"q", b"4.500"]]
    played.links.drop()
    played.reactor.advance(4.6)
    assert got == [None]
    played.reactor.advance(60)
    assert len(played.blocking) == len(played.links) == 0
    assert played.reactor.getDelayedCalls() == []


def test_one_without_end_is_issued_again_as_it_was() -> None:
    played = Played()
    _, dial = played.blocked("XREADGROUP GROUP g c BLOCK 0 STREAMS s >")
    played.reactor.advance(1000)
    dial.lose()
    played.accept()
    assert played.reactor.dial.commands() == [b"XREADGROUP GROUP g c BLOCK 0 STREAMS s >".split()]


def test_a_link_that_dies_at_once_makes_no_busy_loop() -> None:
    played = Played()
    _, dial = played.blocked("BLPOP q 0")
    dial.lose()
    assert not played.dialling
    played.reactor.advance(0.06)
    assert len(played.dialling) == 1


@pytest.mark.parametrize(
    "error",
    [
        "UNBLOCKED force unblock from blocking operation, instance state changed",
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
    ],
)
def test_what_was_turned_away_waits_for_the_next_master(error: str) -> None:
    played = Played()
    reply, dial = played.blocked("BLPOP q 0")
    got = outcome(reply)
    dial.answer(ResponseError(error))
    assert played.turned_away == [error]
    assert got == []
    played.lead_to(2)
    dial = played.accept()
    assert dial.commands() == [[b"BLPOP", b"q", b"0"]]
    dial.answer([b"q", b"x"])
    assert got == [["q", "x"]]


def test_who_is_unblocked_by_a_person_hears_of_it() -> None:
    played = Played()
    reply, dial = played.blocked("BLPOP q 0")
    got = outcome(reply)
    dial.answer(ResponseError("UNBLOCKED client unblocked via CLIENT UNBLOCK"))
    assert "UNBLOCKED" in str(got[0])
    assert played.turned_away == []


def test_a_short_timeout_does_not_end_before_a_server_was_asked() -> None:
    played = Played()
    reply = played.submit("BLPOP q 0.01")
    got = outcome(reply)
    played.reactor.advance(FIRST_TRY / 2)
    dial = played.accept()
    assert dial.commands() == [[b"BLPOP", b"q", b"0.001"]]
    dial.answer([b"q", b"x"])
    assert got == [["q", "x"]]

    played.links.lead_to(None)
    got = outcome(played.submit("BLPOP q 0.01"))
    played.reactor.advance(FIRST_TRY)
    assert got == [None]


def test_the_newest_id_is_found_out_once() -> None:
    played = Played()
    reply = played.submit("XREAD BLOCK 0 STREAMS a b $ $")
    # Behind all that this client sent before.
    assert played.queue.commands == [("PING",)]
    assert not played.dialling
    played.queue.deferreds[0].callback("PONG")
    dial = played.accept()
    assert [command[:2] for command in dial.commands()] == [
        [b"XREVRANGE", b"a"],
        [b"XREVRANGE", b"b"],
    ]
    dial.answer([[b"5-1", [b"f", b"v"]]], [])
    issued = [b"XREAD", b"BLOCK", b"0", b"STREAMS", b"a", b"b", b"5-1", b"0-0"]
    assert dial.commands() == [issued]
    played.reactor.advance(1)
    dial.lose()
    assert played.accept().commands() == [issued]
    assert not reply.called


def test_the_servers_own_error_comes_when_there_is_no_newest_id() -> None:
    played = Played()
    got = outcome(played.submit("XREAD BLOCK 0 STREAMS a $"))
    played.queue.deferreds[0].errback(ResponseError("MISCONF"))  # an answer too
    dial = played.accept()
    dial.commands()
    dial.answer(ResponseError("WRONGTYPE"))
    assert dial.commands() == [b"XREAD BLOCK 0 STREAMS a $".split()]
    dial.answer(ResponseError("WRONGTYPE"))
    assert str(got[0]) == "WRONGTYPE"


def test_wait_speaks_of_a_write_behind_all_others() -> None:
    played = Played()
    got = outcome(played.submit("WAIT 2 100"))
    assert not played.dialling
    played.queue.deferreds[0].callback("PONG")
    dial = played.accept()
    count, wait = dial.commands()
    assert count[0] == COUNT
    assert count[-1] == b"0"
    assert wait == [b"WAIT", b"2", b"100"]
    dial.answer(5, 2)
    assert got == [2]
    assert dial.commands() == []


def test_wait_in_single_mode_writes_no_key() -> None:
    played = Played(counter=None)
    outcome(played.submit("WAITAOF 1 0 100"))
    played.queue.deferreds[0].callback("PONG")
    assert names(played.accept()) == [b"PUBLISH", b"WAITAOF"]


def test_wait_without_its_write_is_an_error() -> None:
    played = Played()
    got = outcome(played.submit("WAIT 2 100"))
    played.queue.deferreds[0].callback("PONG")
    played.accept().answer(ResponseError("NOREPLICAS Not enough"), 0)
    assert str(got[0]).startswith("NOREPLICAS")


def test_wait_has_the_end_of_its_time_too() -> None:
    played = Played()
    got = outcome(played.submit("WAIT 2 1000"))
    played.queue.deferreds[0].callback("PONG")
    played.links.drop()
    played.reactor.advance(1.1)
    assert got == [0]


def test_a_verdict_fails_what_waits_behind_the_queue() -> None:
    played = Played()
    got = outcome(played.submit("WAIT 2 0"))
    played.queue.deferreds[0].errback(AccessDenied("none"))
    assert isinstance(got[0], AccessDenied)


# Cancelling


def test_cancelled_before_it_was_sent() -> None:
    played = Played()
    played.links.lead_to(None)
    for text in ("BLPOP q 0", "WAIT 1 0"):
        reply = played.submit(text)
        outcome(reply)
        reply.cancel()
    assert len(played.blocking) == len(played.links) == 0


def test_cancelled_it_is_unblocked_until_it_answers_and_the_link_is_used_again() -> None:
    played = Played()
    reply, dial = played.blocked("BLPOP q 0")
    got = outcome(reply)
    reply.cancel()
    assert len(got) == 1
    assert played.control.asked == [("CLIENT", "UNBLOCK", 100)]
    played.control.replies[0].callback([0])  # it has not come to the server yet
    played.reactor.advance(0.01)
    assert len(played.control.asked) == 2
    dial.answer(None)
    # Not before this is answered: it would end the next command.
    assert outcome(played.links.take(0)) == []
    played.control.replies[1].callback([1])
    assert len(played.dialling) == 1
    assert len(played.blocking) == 0
    assert len(played.links) == 1
    played.reactor.advance(0)
    assert not dial.over


def test_a_link_that_an_unblocking_may_still_reach_is_not_used_again() -> None:
    from txharedis.errors import LinkLost

    played = Played()
    reply, dial = played.blocked("BLPOP q 0")
    outcome(reply)
    reply.cancel()
    played.control.replies[0].errback(LinkLost("no answer"))
    played.reactor.advance(0.01)
    played.control.replies[1].callback([1])
    dial.answer(None)
    assert dial.aborted
    assert len(played.blocking) == 0


def test_without_a_control_link_it_is_tried_again_later() -> None:
    played = Played()
    node: Any = played.nodes[1]
    node.control = None
    reply, _ = played.blocked("BLPOP q 0")
    outcome(reply)
    reply.cancel()
    node.control = played.control
    played.reactor.advance(0.01)
    assert len(played.control.asked) == 1


@pytest.mark.parametrize("error", [NoMaster("1 s"), OutcomeUnknown("1 s", ("PING",))])
@pytest.mark.parametrize("command", ["WAIT 1 0", "XREAD BLOCK 0 STREAMS s $"])
def test_the_time_of_other_commands_does_not_end_it(command: str, error: Exception) -> None:
    played = Played()
    got = outcome(played.submit(command))
    played.queue.deferreds[0].errback(error)
    assert got == []
    assert played.queue.commands == [("PING",)] * 2
    played.queue.deferreds[1].callback("PONG")
    dial = played.accept()
    assert dial.commands()


def test_what_it_had_taken_is_put_back_and_waited_for() -> None:
    played = Played()
    reply, dial = played.blocked("BLPOP p q 0")
    outcome(reply)
    reply.cancel()
    idle = played.blocking.when_idle()
    dial.answer([b"q", b"\xff 1"])
    assert names(dial) == [COUNT]
    assert played.queue.commands == [(b"LPUSH", b"q", b"\xff 1")]
    assert played.queue.dbs == [0]  # where it was taken, whatever is selected by now
    played.control.replies[0].callback([0])
    assert not idle.called
    played.queue.deferreds[0].callback(1)
    assert idle.called


@pytest.mark.parametrize("error", [QueueFull("full"), ServiceStopped("over")])
def test_when_the_queue_takes_no_more_the_same_link_takes_it(error: Exception) -> None:
    played = Played()
    reply, dial = played.blocked("BRPOP q 0")
    outcome(reply)
    played.queue.refuse = lambda: error
    reply.cancel()
    dial.answer([b"q", b"x"])
    assert dial.commands()[-1] == [b"RPUSH", b"q", b"x"]
    played.control.replies[0].callback([0])
    dial.answer(1, 1)
    assert len(played.blocking) == 0
    assert played.log.errors == []


def test_what_could_not_be_put_back_is_said() -> None:
    played = Played()
    reply, dial = played.blocked("BRPOP q 0")
    outcome(reply)
    played.queue.refuse = lambda: OutcomeUnknown("lost", ())
    reply.cancel()
    dial.answer([b"q", b"x"])
    played.control.replies[0].callback([0])
    assert played.log.errors == [{"name": "BRPOP", "key": b"q", "error": "lost"}]
    assert len(played.blocking) == 0


def test_where_unblocking_is_not_allowed_it_waits_for_its_end() -> None:
    played = Played()
    reply, dial = played.blocked("BLPOP q 0")
    outcome(reply)
    reply.cancel()
    played.control.replies[0].callback([ResponseError("NOPERM no right")])
    played.reactor.advance(100)
    assert len(played.control.asked) == 1
    assert len(played.blocking) == 1
    dial.answer([b"q", b"x"])
    assert played.queue.commands == [(b"LPUSH", b"q", b"x")]


def test_cancelled_while_it_finds_out_the_newest_id_nothing_is_issued() -> None:
    played = Played()
    reply = played.submit("XREAD BLOCK 0 STREAMS a $")
    outcome(reply)
    played.queue.deferreds[0].callback("PONG")
    dial = played.accept()
    dial.commands()
    reply.cancel()
    dial.answer([])
    assert dial.commands() == []
    played.control.replies[0].callback([0])
    assert len(played.blocking) == 0
    assert len(played.links) == 0


def test_cancelled_and_its_link_lost_it_is_over() -> None:
    played = Played()
    reply, dial = played.blocked("BLPOP q 0")
    outcome(reply)
    reply.cancel()
    dial.lose()
    played.control.replies[0].callback([0])
    assert len(played.blocking) == len(played.links) == 0
    assert played.reactor.getDelayedCalls() == []


# Stopping


def test_a_stop_takes_back_what_waits() -> None:
    played = Played()
    reply, dial = played.blocked("BLPOP q 0")
    got = outcome(reply)
    played.links.refuse(lambda: ServiceStopped("over"))
    played.queue.refuse = lambda: ServiceStopped("over")
    stopped = played.blocking.stop()
    assert isinstance(got[0], ServiceStopped)
    assert got[0].executed is None
    dial.answer([b"q", b"x"])
    assert not stopped.called
    played.control.replies[0].callback([0])
    dial.answer(1, 1)
    assert stopped.called
    assert isinstance(outcome(played.submit("BLPOP q 0"))[0], ServiceStopped)
    assert dial.aborted


def test_a_stop_does_not_wait_long() -> None:
    played = Played()
    reply, _ = played.blocked("BLPOP q 0")
    outcome(reply)
    waiting = outcome(played.submit("BLPOP p 0"))
    played.links.refuse(lambda: ServiceStopped("over"))
    stopped = played.blocking.stop()
    assert isinstance(waiting[0], ServiceStopped)
    assert waiting[0].executed is False
    played.reactor.advance(STOP_TIME)
    assert stopped.called
    played.links.close()
    played.control.replies[0].callback([0])
    assert len(played.blocking) == 0
    played.reactor.advance(0)
    assert played.reactor.getDelayedCalls() == []


def test_a_stop_without_commands_is_over_at_once() -> None:
    played = Played()
    assert played.blocking.stop().called
    assert played.reactor.getDelayedCalls() == []


def test_more_than_max_dedicated_are_refused() -> None:
    played = Played(max_dedicated=1)
    played.blocked("BLPOP q 0")
    assert isinstance(outcome(played.submit("BLPOP q 0"))[0], QueueFull)


def test_wait_says_nothing_while_what_was_sent_before_is_not_answered() -> None:
    played = Played()
    got = outcome(played.submit("WAIT 1 2000"))
    played.reactor.advance(2.1)
    assert got == [0]
    assert played.reactor.dials == []


def acknowledged(acks: int = 1) -> tuple[list[object], Dial]:
    played, args = Played(), ("BLPOP", "q", 0)
    got = outcome(played.blocking.submit("BLPOP", args, pack(args), 0, read=False, acks=acks))
    dial = played.accept()
    assert [command[0] for command in dial.commands()] == [b"BLPOP", b"EVAL", b"WAIT"]
    return got, dial


def test_with_acks_the_reply_waits_for_the_replicas() -> None:
    got, dial = acknowledged()
    dial.answer([b"q", b"x"])
    assert not got
    dial.answer(8, 1)
    assert got == [["q", "x"]]


def test_what_too_few_replicas_confirmed_is_not_hidden() -> None:
    got, dial = acknowledged(2)
    dial.answer([b"q", b"x"], 8, 1)
    [error] = got
    assert isinstance(error, NotReplicated)
    assert (error.executed, error.reply, error.replicas) == (True, [b"q", b"x"], 1)
    assert error.command == ("BLPOP", "q", 0)
    assert str(error).startswith("BLPOP was executed on the master, and 1 of 2 replicas")


def test_without_a_write_of_its_own_a_confirmation_says_nothing() -> None:
    got, dial = acknowledged()
    dial.answer([b"q", b"x"], ResponseError("NOREPLICAS Not enough good replicas to write."), 1)
    [error] = got
    assert isinstance(error, NotReplicated)
    assert (error.reply, error.replicas) == ([b"q", b"x"], 0)
    assert "NOREPLICAS" in str(error)


@pytest.mark.parametrize("more", [(), (8,)])
def test_what_was_popped_is_told_when_the_link_dies_before_the_confirmation(
    more: tuple[int, ...],
) -> None:
    got, dial = acknowledged()
    dial.answer([b"q", b"x"], *more)
    dial.lose()
    [error] = got
    assert isinstance(error, NotReplicated)
    assert (error.reply, error.replicas) == ([b"q", b"x"], 0)


def test_a_timeout_needs_no_confirmation() -> None:
    got, dial = acknowledged()
    dial.answer(None, 8, 0)
    assert got == [None]
