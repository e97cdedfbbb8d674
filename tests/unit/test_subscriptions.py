"""Where subscriptions are, how they move, and which gaps are told."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from tests.unit.pubsub import A, B, Ear, M, World
from txharedis.errors import AccessDenied, ResponseError, ServiceStopped
from txharedis.pubsub.messages import Message
from txharedis.pubsub.subscriber import SubscriberProtocol


def outcome(deferred: Any) -> Any:
    """What it fired with, or the exception; None while it has not."""
    if not deferred.called:
        return None
    results: list[Any] = []
    deferred.addBoth(results.append)
    return getattr(results[0], "value", results[0])


def subscribed(world: World, *channels: str) -> Ear:
    ear = Ear()
    done = world.subscriptions.subscribe(channels or ("c",), ear)
    world.run()
    assert outcome(done)
    return ear


def test_waits_for_a_node_and_goes_to_a_replica() -> None:
    world = World()
    done = world.subscriptions.subscribe("c", print)
    world.run()
    assert world.reactor.dials == []
    world.start(A).run()
    assert outcome(done) == ["subscribe", "c", 1]
    assert world.where("c") == [A]


def test_goes_to_the_master_when_there_is_no_replica() -> None:
    world = World().start()
    subscribed(world)
    assert world.where("c") == [M]


def test_what_is_asked_for_in_one_turn_leaves_in_one_write() -> None:
    world = World().start(A)
    subscribed(world, "first")
    for name in ("x", "y", "z"):
        world.subscriptions.subscribe(name, print)
    [dial] = world.servers[A].links
    world.reactor.advance(0)
    assert dial.commands() == [[b"SUBSCRIBE", name] for name in (b"x", b"y", b"z")]


def test_the_link_is_there_only_while_there_are_subscriptions() -> None:
    world = World().start(A)
    subscribed(world, "c", "d")
    left = world.subscriptions.unsubscribe("c")
    world.run()
    assert outcome(left) == ["unsubscribe", "c", 1]
    assert world.servers[A].links
    left = world.subscriptions.unsubscribe()
    world.run()
    assert outcome(left) == ["unsubscribe", "d", 0]
    assert not world.servers[A].links
    world.advance(5.0)
    assert not world.reactor.getDelayedCalls()
    ear = subscribed(world)
    world.publish("c", "again")
    world.run()
    assert ear.data == ["again"]
    assert world.gaps == []


def test_a_refused_channel_takes_nothing_with_it() -> None:
    world = World().start(A)
    ear = subscribed(world, "fine")
    world.servers[A].refused = {b"secret"}
    refused = world.subscriptions.subscribe(["public", "secret"], print)
    world.run()
    assert isinstance(outcome(refused), ResponseError)
    assert world.where("public") == []
    world.publish("fine", "x")
    world.run()
    assert ear.data == ["x"]


def test_withdrawn_before_it_was_confirmed() -> None:
    world = World()
    done = world.subscriptions.subscribe("c", print)
    left = world.subscriptions.unsubscribe("c")
    assert isinstance(outcome(done), CancelledError)
    assert outcome(left) == ["unsubscribe", "c", 0]
    cancelled = world.subscriptions.subscribe("d", print)
    cancelled.cancel()
    assert isinstance(outcome(cancelled), CancelledError)
    world.start(A).run()
    assert world.reactor.dials == []


def test_refusal_of_the_group_fails_those_who_wait_and_those_who_come() -> None:
    world = World()
    waits = world.subscriptions.subscribe("c", print)
    world.subscriptions.refuse(AccessDenied("no"))
    comes = world.subscriptions.subscribe("d", print)
    assert isinstance(outcome(waits), AccessDenied)
    assert isinstance(outcome(comes), AccessDenied)
    world.subscriptions.refuse(None)
    world.start(A)
    subscribed(world)


def test_what_is_asked_for_twice_is_not_taken_back_with_the_first() -> None:
    world = World().start(A)
    ear = Ear()
    first = world.subscriptions.subscribe("c", ear)
    second = world.subscriptions.subscribe("c", ear)
    first.cancel()
    assert isinstance(outcome(first), CancelledError)
    world.run()
    assert outcome(second) == ["subscribe", "c", 1]
    world.publish("c", "x")
    world.run()
    assert ear.data == ["x"]


def test_a_refused_subscription_takes_nothing_from_another_of_the_same_callback() -> None:
    world = World().start(A)
    world.servers[A].refused = {b"secret"}
    ear = Ear()
    refused = world.subscriptions.subscribe(["secret", "c"], ear)
    fine = world.subscriptions.subscribe("c", ear)
    world.run()
    assert isinstance(outcome(refused), ResponseError)
    assert outcome(fine) == ["subscribe", "c", 1]
    fine.cancel()
    world.publish("c", "x")
    world.run()
    assert ear.data == ["x"]


def test_subscribed_again_it_waits_for_the_new_confirmation() -> None:
    world = World().start(A)
    subscribed(world, "c", "d")
    world.subscriptions.unsubscribe("c")
    world.reactor.advance(0)  # UNSUBSCRIBE is on its way
    again = world.subscriptions.subscribe("c", print)
    assert outcome(again) is None
    world.run()
    assert outcome(again) == ["subscribe", "c", 2]


@pytest.mark.parametrize("ask", ["subscribe", "unsubscribe"])
def test_those_who_are_told_of_the_end_may_ask_again(ask: str) -> None:
    world = World().start(A)
    subscribed(world, "c", "d")
    answers: list[Any] = []

    def ask_again(_: object) -> None:
        more = (print,) if ask == "subscribe" else ()
        answers.append(getattr(world.subscriptions, ask)("d", *more))

    world.subscriptions.unsubscribe("c").addErrback(ask_again)
    world.subscriptions.close()
    [again] = answers
    if ask == "subscribe":
        assert isinstance(outcome(again), ServiceStopped)
    else:
        assert outcome(again) == ["unsubscribe", "d", 0]


def test_close_fails_those_who_wait_and_drops_the_link() -> None:
    world = World().start(A)
    subscribed(world)
    world.servers[A].silent = True
    waits = world.subscriptions.subscribe("d", print)
    leaves = world.subscriptions.unsubscribe("c")
    world.run()
    closed = world.subscriptions.close()
    assert isinstance(outcome(waits), ServiceStopped)
    assert isinstance(outcome(leaves), ServiceStopped)
    world.run()
    assert closed.called
    assert not world.reactor.getDelayedCalls()
    assert isinstance(outcome(world.subscriptions.subscribe("c", print)), ServiceStopped)


# The planned move


def moving(world: World) -> Ear:
    """Subscriptions on the master, and a replica that can take them; both pass on when told."""
    world.start()
    ear = subscribed(world)
    world.slow = {A, M}
    world.servers[A].stream.clear()
    world.subscriptions.place(M, [A])
    world.run()
    assert world.where("c") == [A, M]
    return ear


@pytest.mark.parametrize("first", [A, M])
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_each_message_once_and_in_order_whoever_is_ahead(first: Any, ahead: int) -> None:
    world = World()
    ear = moving(world)  # the marker is on its way to both
    for number in range(3):
        world.publish("c", number)
    second = A if first is M else M
    world.servers[first].pass_on(1 + ahead)
    world.servers[second].pass_on()
    world.servers[first].pass_on()
    world.run()
    assert ear.data == [0, 1, 2]
    assert world.where("c") == [A]
    world.publish("c", 3)
    world.servers[A].pass_on()
    assert ear.data == [0, 1, 2, 3]
    assert ear.messages[-1] == Message("c", 3, None, "n:1")
    assert world.gaps == []


def test_what_both_show_before_the_marker_comes_from_the_old_one() -> None:
    world = World().start()
    ear = subscribed(world)
    world.slow = {A, M}
    world.servers[A].silent = True  # it has yet to confirm
    world.subscriptions.place(M, [A])
    world.run()
    world.publish("c", "before")
    world.servers[A].stream.clear()
    world.servers[A].silent = False
    world.publish("c", "both")
    world.run()
    world.publish("c", "after")
    for node in (A, M):
        world.servers[node].pass_on()
    world.run()
    assert ear.data == ["before", "both", "after"]
    assert world.gaps == []


def test_the_new_node_that_shows_no_marker_is_given_up() -> None:
    world = World()
    ear = moving(world)
    world.servers[M].pass_on()
    world.publish("c", "x")
    world.servers[M].pass_on()
    assert ear.data == []  # it may be the new one's
    world.advance(1.1)
    assert ear.data == ["x"]
    assert world.where("c") == [M]
    assert world.gaps == []


def test_the_old_node_that_shows_no_marker_is_left_with_a_gap() -> None:
    world = World()
    ear = moving(world)
    since = world.reactor.seconds()
    world.publish("c", "x")
    world.servers[A].pass_on()
    assert ear.data == []
    world.advance(1.1)
    assert ear.data == ["x"]
    assert world.where("c") == [A]
    [gap] = world.gaps
    assert gap.since <= since
    assert gap.until == gap.at == pytest.approx(since + 1.0, abs=0.2)


def test_the_old_node_dies_before_it_shows_the_marker() -> None:
    world = World()
    ear = moving(world)
    world.publish("c", "x")
    world.servers[M].die()
    world.run()
    assert ear.data == []
    world.servers[A].pass_on()
    world.run()
    assert ear.data == ["x"]
    assert len(world.gaps) == 1


def test_the_new_node_dies_after_it_has_shown_the_marker() -> None:
    world = World()
    ear = moving(world)
    world.publish("c", "x")
    world.servers[A].pass_on()
    world.servers[A].die()
    world.run()
    world.servers[M].pass_on()
    assert ear.data == ["x"]
    assert world.gaps == []


def test_a_new_master_during_the_move_ends_it() -> None:
    world = World()
    ear = moving(world)
    world.servers[M].pass_on()
    world.publish("c", "x")
    world.servers[M].pass_on()
    world.master = B
    world.subscriptions.follow(B, "run2")
    world.run()
    assert ear.data == ["x"]
    assert world.where("c") == [M]
    world.servers[A].pass_on()
    world.servers[M].pass_on()
    assert ear.data == ["x"]


def test_a_subscription_during_the_move_waits_for_its_end() -> None:
    world = World()
    moving(world)
    ear = Ear()
    done = world.subscriptions.subscribe("d", ear)
    gone = world.subscriptions.unsubscribe("c")
    world.run()
    assert outcome(done) is None
    assert outcome(gone) is None
    for node in (A, M):
        world.servers[node].pass_on()
    world.run()
    assert outcome(done) == ["subscribe", "d", 1]
    assert outcome(gone)[:2] == ["unsubscribe", "c"]
    assert (world.where("c"), world.where("d")) == ([], [A])


def test_all_unsubscribe_during_the_move() -> None:
    world = World()
    moving(world)
    gone = world.subscriptions.unsubscribe()
    world.slow = set()
    world.run()
    assert outcome(gone) == ["unsubscribe", "c", 0]
    assert not any(server.links for server in world.servers.values())


def test_a_node_that_refuses_what_the_old_one_gives_is_not_moved_to() -> None:
    world = World().start()
    ear = subscribed(world)
    world.servers[A].refused = {b"c"}
    world.subscriptions.place(M, [A])
    world.run()
    assert world.where("c") == [M]
    world.publish("c", "x")
    world.run()
    assert ear.data == ["x"]


# Unplanned


def test_a_dead_node_is_replaced_and_nothing_is_delivered_until_a_marker_came() -> None:
    world = World().start(A, B)
    ear = subscribed(world)
    [here] = world.where("c")
    there = B if here is A else A
    world.publish("c", "x")
    world.run()
    world.advance(3.0)
    world.slow = {there}
    world.publish("c", "late")  # here it comes, there it is still on its way
    world.servers[here].pass_on()
    world.servers[here].die()
    died = world.reactor.seconds()
    world.run()
    assert world.where("c") == [there]
    world.publish("c", "after")  # the marker
    world.servers[there].pass_on(1)
    assert ear.data == ["x", "late"]
    world.servers[there].pass_on()
    assert ear.data == ["x", "late", "after"]
    [gap] = world.gaps
    assert died - 1.2 <= gap.since <= died
    assert gap.until >= died


def test_on_gap_is_called_once_for_each_callback_and_not_for_what_was_not_confirmed() -> None:
    world = World().start(A, B)
    told: list[Any] = []
    world.subscriptions.subscribe(["c", "d"], print, told.append)
    world.run()
    [here] = world.where("c")
    world.servers[here].die()
    world.subscriptions.subscribe("e", print, lambda gap: told.append("wrong"))
    world.run()
    assert told == world.gaps
    assert len(told) == 1


def test_a_gap_does_not_end_before_everything_is_confirmed() -> None:
    world = World().start()
    subscribed(world, "c", "d")
    world.subscriptions.psubscribe("p*", print)
    world.run()
    server = world.servers[M]
    server.silent = True
    for dial in [*server.links]:
        dial.lose()
    world.advance(1.0)
    [(dial, names)] = server.links.items()
    dial.commands()
    dial.answer("OK")
    world.run()
    *first, last = dial.commands()
    for verb, name in first:
        names.append(name)
        dial.answer([verb.lower(), name, len(names)])
    world.advance(2.0)
    assert world.gaps == []
    names.append(last[1])
    dial.answer([last[0].lower(), last[1], len(names)])
    server.silent = False
    world.advance(1.0)
    assert len(world.gaps) == 1


def test_a_silent_link_is_replaced() -> None:
    world = World(heartbeat=1.0, down_after=3.0).start(A, B)
    subscribed(world)
    [here] = world.where("c")
    silent_since = world.reactor.seconds()
    world.servers[here].silent = True
    world.slow = {here}
    world.advance(2.9)
    assert world.where("c") == [here]
    world.advance(2.0)
    assert here not in world.where("c")
    [gap] = world.gaps
    assert gap.since <= silent_since
    assert gap.until <= silent_since + 4.5


def test_a_node_that_passes_nothing_on_is_left() -> None:
    world = World(heartbeat=1.0, down_after=3.0).start(A, B)
    subscribed(world)
    [here] = world.where("c")
    cut = world.reactor.seconds()
    world.slow = {here}  # it answers PING, though
    world.advance(6.5)
    assert here not in world.where("c")
    [gap] = world.gaps
    assert gap.since <= cut
    assert gap.until <= cut + 3.0 + 1.0 + 2 * 1.1 + 0.1


def test_a_node_that_is_down_by_its_control_link_is_left_at_once() -> None:
    world = World().start(A, B)
    subscribed(world)
    [here] = world.where("c")
    world.servers[here].silent = True
    world.servers[here].up = False
    world.subscriptions.forsake(here)
    world.run()
    assert here not in world.where("c")


def test_the_only_node_is_redialled() -> None:
    world = World().start()
    ear = subscribed(world)
    world.servers[M].die()
    world.run()
    world.advance(1.0)
    world.servers[M].up = True
    world.subscriptions.redial_now(M)
    world.run()
    world.advance(0.5)
    world.publish("c", "x")
    world.run()
    assert ear.data == ["x"]
    assert len(world.gaps) == 1


def test_a_new_master_is_a_gap_until_a_marker_of_its_own_came() -> None:
    world = World().start(A, B)
    ear = subscribed(world)
    [here] = world.where("c")
    other = B if here is A else A
    world.advance(2.0)
    world.master = None
    died = world.reactor.seconds()
    world.servers[M].die()
    world.advance(0.5)
    assert world.gaps == []
    world.slow = {here}
    world.master = other
    world.subscriptions.follow(other, "run2")
    world.run()
    assert world.gaps == []
    world.servers[here].pass_on()
    [gap] = world.gaps
    assert died - 1.2 <= gap.since <= died
    assert world.where("c") == [here]
    world.publish("c", "x")
    world.servers[here].pass_on()
    assert ear.data == ["x"]


def test_a_replica_that_loses_its_master_has_two_seconds() -> None:
    world = World().start(A, B)
    subscribed(world)
    [here] = world.where("c")
    other = B if here is A else A
    world.subscriptions.place(M, [other])
    world.advance(1.5)
    assert world.where("c") == [here]
    world.subscriptions.place(M, [A, B])
    world.advance(3.0)
    assert world.where("c") == [here]
    world.subscriptions.place(M, [other])
    world.advance(3.5)
    assert world.where("c") == [other]
    assert world.gaps == []  # its marker came all the same


def test_a_lost_marker_is_a_gap() -> None:
    world = World().start(A)
    subscribed(world)
    world.advance(2.0)
    before = world.reactor.seconds()
    world.slow = {A}
    world.advance(1.2)
    lost = [text for channel, text in world.servers[A].stream]
    assert lost
    world.servers[A].stream.clear()
    world.slow = set()
    world.advance(1.2)
    [gap] = world.gaps
    assert gap.since <= before <= gap.until


@pytest.mark.parametrize(
    ("info", "gap"),
    [
        (b"repl_backlog_active:1\r\nrepl_backlog_first_byte_offset:1\r\n", False),
        (b"repl_backlog_active:1\r\nrepl_backlog_first_byte_offset:100000\r\n", True),
        (b"repl_backlog_active:0\r\nrepl_backlog_first_byte_offset:0\r\n", True),
        (b"", True),
    ],
)
def test_a_full_resync_between_two_markers(info: bytes, gap: bool) -> None:
    world = World().start(A)
    subscribed(world)
    world.advance(2.0)
    world.servers[A].info = info
    world.full_syncs += 1
    world.advance(3.0)
    assert len(world.gaps) == gap


@pytest.mark.parametrize("why", ["lost", "without"])
def test_a_full_resync_of_nobody_knows_whom_is_a_gap(why: str) -> None:
    world = World().start(A)
    subscribed(world)
    world.advance(3.0)
    getattr(world, why).add(A)
    world.full_syncs += 1
    world.advance(3.0)
    assert len(world.gaps) == 1


def test_refused_after_a_reconnect_it_is_asked_for_again() -> None:
    world = World().start()
    ear = subscribed(world, "c", "d")
    world.servers[M].refused = {b"d"}
    for dial in [*world.servers[M].links]:
        dial.lose()
    world.advance(2.0)
    assert (world.where("c"), world.where("d")) == ([M], [])
    world.publish("d", "lost")
    world.run()
    world.servers[M].refused = set()
    published = world.reactor.seconds()
    world.advance(2.0)
    assert world.where("d") == [M]
    world.publish("d", "x")
    world.run()
    assert ear.data == ["x"]
    assert any(gap.since <= published <= gap.until for gap in world.gaps)


def test_what_was_refused_and_unsubscribed_is_no_gap_later() -> None:
    world = World().start()
    subscribed(world, "c", "d")
    world.servers[M].refused = {b"d"}
    for dial in [*world.servers[M].links]:
        dial.lose()
    world.advance(2.0)
    [gap] = world.gaps
    world.subscriptions.unsubscribe("d")
    world.advance(2.0)
    world.servers[M].refused = set()
    subscribed(world, "d")
    world.advance(2.0)
    assert world.gaps == [gap]


def test_a_marker_that_is_refused_for_the_moment_is_asked_for_again() -> None:
    world = World().start(A)
    marker = world.subscriptions._seating._continuity.marker
    world.servers[A].refused, world.servers[A].refusal = {marker}, "BUSY"
    subscribed(world)
    world.servers[A].refused = set()
    world.advance(2.0)
    assert world.where(marker.decode()) == [A]
    assert marker in dict(world.published)


@pytest.mark.parametrize("what", ["publish", "subscribe"])
def test_without_the_right_to_markers_the_links_alone_count(what: str) -> None:
    world = World()
    if what == "publish":
        world.denied = ResponseError("NOPERM no")
    world.start(A)
    marker = world.subscriptions._seating._continuity.marker
    if what == "subscribe":
        for server in world.servers.values():
            server.refused = {marker}
    ear = subscribed(world)
    world.advance(10.0)
    died = world.reactor.seconds()
    world.servers[A].die()
    world.run()
    assert world.where("c") == [M]
    world.publish("c", "x")
    world.run()
    assert ear.data == ["x"]
    [gap] = world.gaps
    assert died - 3.0 <= gap.since <= died
    world.servers[A].up = True
    world.advance(2.0)
    world.subscriptions.place(M, [A])
    world.run()
    assert world.where("c") == [A]


@pytest.mark.parametrize("what", ["publish", "subscribe"])
def test_markers_are_used_when_the_right_is_granted(what: str) -> None:
    world = World()
    if what == "publish":
        world.denied = ResponseError("NOPERM no")
    world.start()
    if what == "subscribe":
        world.servers[M].refused = {world.subscriptions._seating._continuity.marker}
    ear = subscribed(world)
    world.advance(5.0)
    world.denied, world.servers[M].refused = None, set()
    world.advance(5.0)
    world.subscriptions.place(M, [A])
    world.run()
    world.publish("c", "x")
    world.run()
    assert world.where("c") == [A]
    assert ear.data == ["x"]
    assert world.gaps == []  # as each move is without markers


# The wire


def test_confirmations_that_do_not_fit_close_the_link() -> None:
    world = World().start(A)
    subscribed(world)
    [dial] = world.servers[A].links
    protocol = dial.protocol
    assert isinstance(protocol, SubscriberProtocol)
    world.servers[A].silent = True
    world.subscriptions.subscribe("d", print)
    world.run()
    dial.answer([b"subscribe", b"other", 3])
    assert dial.aborted


def test_what_nobody_asked_for_closes_the_link() -> None:
    world = World().start(A)
    subscribed(world)
    [dial] = world.servers[A].links
    dial.answer("OK")
    assert dial.aborted


def test_closing_the_client_from_a_callback_ends_the_deliveries() -> None:
    world = World().start(A)
    heard: list[Any] = []

    def hear(message: Message) -> None:
        heard.append(message.data)
        world.subscriptions.close()

    world.subscriptions.subscribe("c", hear)
    world.run()
    [dial] = world.servers[A].links
    world.slow = {A}
    dial.answer([b"message", b"c", b"1"], [b"message", b"c", b"2"])
    assert heard == [1]
    world.run()
    assert not world.reactor.getDelayedCalls()


def test_a_client_that_is_told_of_a_settled_group_stays_on_its_replica() -> None:
    world = World().start(A, B)
    subscribed(world)
    [here] = world.where("c")
    other = B if here is A else A
    # The survey found it all done by another client: who follows the new master is known at once.
    world.servers[M].die()
    world.master = other
    world.subscriptions.place(other, [here])
    world.subscriptions.follow(other, "run2")
    world.advance(6.0)
    assert world.where("c") == [here]
    assert len(world.servers[here].links) == 1
    assert len(world.gaps) == 1


def test_a_master_that_does_not_answer_is_not_held_against_the_replica() -> None:
    world = World().start(A)
    ear = subscribed(world)
    world.hung = True
    world.advance(10.0)
    assert world.where("c") == [A]
    world.hung = False
    world.publish("c", "x")
    world.advance(2.0)
    assert ear.data == ["x"]
