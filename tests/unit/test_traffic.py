"""Whom the commands go to, and what is done to those that are on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from txharedis.errors import OutcomeUnknown, ResponseError, UnfitNodes
from txharedis.group import Memory
from txharedis.interfaces import Waiter
from txharedis.options import Options
from txharedis.topology import Address, NodeView, Role, Status
from txharedis.traffic import Traffic

NODES = [Address("127.0.0.1", port) for port in (7001, 7002, 7003)]


class FakeNode:
    """A node whose command link leads to the incarnation `run_id`."""

    status = Status.UP
    view: NodeView | None = None

    def __init__(self) -> None:
        self.run_id = ""
        self.waiters: list[Waiter] = []
        self.sent = 0

    def serves(self, run_id: str) -> bool:
        return run_id in ("", self.run_id)

    def after_read(self, call: Callable[[], object]) -> bool:
        return False  # nothing is being handed out

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool:
        self.waiters += waiters
        self.sent += len(packed)
        return True

    def abort(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.lost()


class FakeGroup(dict[Address, Any]):
    lease = 1.0

    def lease_left(self) -> float:
        return self.lease


def traffic_of(clock: Any, group: Any, news: Any = lambda: None) -> Traffic:
    """As the service makes it: one node alone has at-most-once."""
    options = Options().fitted(group)
    return Traffic(clock, group, options, news, lambda _: None)


def master(run_id: str) -> NodeView:
    return NodeView(NODES[0], run_id, Role.MASTER)


@pytest.mark.parametrize(("nodes", "kept"), [(1, True), (3, False)])
def test_in_single_mode_a_restart_costs_nothing_that_went_to_the_new_link(
    nodes: int, kept: bool
) -> None:
    """The command link may be there before the news that the server is another incarnation."""
    clock: Any = Clock()
    group: Any = FakeGroup({address: FakeNode() for address in NODES[:nodes]})
    node = group[NODES[0]]
    traffic = traffic_of(clock, group)
    node.run_id = "old"
    traffic.use(master("old"))
    reply = traffic.pending.add(("INCR", "k"), b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n", False)
    clock.advance(0)
    sent = [waiter for waiter in node.waiters if hasattr(waiter, "deferred")]
    assert len(sent) == 1
    node.run_id = "new"
    assert traffic.use(master("new"))
    errors: list[Any] = []
    reply.addErrback(errors.append)
    if kept:
        assert node.waiters == sent
        sent[0].settle(1)
        assert reply.result == 1
    else:
        # Of a group it is another master: what the old one still answers reaches nobody.
        assert errors[0].check(OutcomeUnknown)
    traffic.stop()
    assert not clock.getDelayedCalls()


def test_after_a_lost_quorum_only_a_survey_opens_it_again() -> None:
    clock: Any = Clock()
    group: Any = FakeGroup({address: FakeNode() for address in NODES})
    news: list[str] = []
    traffic = traffic_of(clock, group, lambda: news.append("news"))
    node = group[NODES[0]]
    node.run_id = "r"
    traffic.use(master("r"))
    reply = traffic.pending.add(("INCR", "k"), b"packed", False)
    reply.addErrback(lambda failure: failure.trap(OutcomeUnknown))
    clock.advance(0)
    assert node.waiters
    group.lease = 0.0
    clock.advance(1.0)
    assert news == ["news"]
    assert traffic.master is None
    assert traffic.pending.held
    assert not node.waiters  # what is still answered reaches nobody
    group.lease = 1.0
    traffic.open()  # a sign of life
    assert traffic.pending.held
    traffic.use(master("r"))
    assert not traffic.pending.held
    traffic.stop()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("heard", [False, True])
def test_what_was_due_while_the_process_slept_waits_for_the_lease(heard: bool) -> None:
    clock: Any = Clock()
    group: Any = FakeGroup({address: FakeNode() for address in NODES})
    traffic = traffic_of(clock, group)
    node = group[NODES[0]]
    traffic.use(master(""))
    reply = traffic.pending.add(("INCR", "k"), b"packed", False)
    reply.addErrback(lambda _: None)
    group.lease = 1.0 if heard else 0.0
    clock.advance(100.0)
    assert bool(node.sent) is heard
    assert traffic.pending.held is not heard
    traffic.stop()
    assert not clock.getDelayedCalls()


def test_while_a_quorum_is_heard_the_lease_is_prolonged() -> None:
    clock: Any = Clock()
    group: Any = FakeGroup({address: FakeNode() for address in NODES})
    traffic = traffic_of(clock, group)
    traffic.use(master(""))
    clock.pump([1.0] * 5)
    assert not traffic.pending.held
    traffic.stop()
    assert not clock.getDelayedCalls()


def test_the_memory_is_never_lowered_to_nothing() -> None:
    clock: Any = Clock()
    group: Any = FakeGroup({address: FakeNode() for address in NODES})
    traffic = traffic_of(clock, group)
    traffic.use(replace(master("r"), replid="a"))
    assert traffic.memory == Memory(0, "", "a")
    traffic.use(replace(master("r"), epoch=5, group="g", replid="a"))
    assert traffic.memory == Memory(5, "g", "a")
    traffic.use(replace(master("r"), replid="b"))  # flushed
    assert traffic.memory == Memory(5, "g", "b")
    traffic.use(replace(master("r"), epoch=1, group="h", replid="c"))
    assert traffic.memory == Memory(1, "h", "c")
    traffic.stop()


def test_links_of_single_callers_go_as_the_traffic_goes() -> None:
    clock: Any = Clock()
    group: Any = FakeGroup({address: FakeNode() for address in NODES})
    traffic = traffic_of(clock, group)
    told: list[str] = []

    class Links:
        def lead_to(self, node: Any, run_id: str = "") -> None:
            told.append("nobody" if node is None else f"{run_id} at {node is group[NODES[0]]}")

        def drop(self) -> None:
            told.append("drop")

        def refuse(self, why: Any) -> None:
            told.append("allow" if why is None else f"refuse: {why()}")

    links: Any = Links()
    traffic.links = links
    group[NODES[0]].run_id = "r"
    traffic.use(master("r"))
    traffic.turned_away(ResponseError("READONLY"))
    traffic.open()
    group.lease = 0.0
    clock.advance(1.0)
    traffic.refuse(UnfitNodes("cluster"))
    traffic.refuse(None)
    traffic.stop()
    assert told == [
        "r at True",
        "nobody",
        "r at True",
        "nobody",
        "drop",
        "refuse: cluster",
        "allow",
        "refuse: the service was stopped",
    ]


def test_in_single_mode_any_incarnation_will_do_for_single_callers() -> None:
    clock: Any = Clock()
    group: Any = FakeGroup({NODES[0]: FakeNode()})
    traffic = traffic_of(clock, group)
    traffic.use(master("r"))
    assert traffic.links._run_id == ""
    traffic.stop()


def test_on_hold_nothing_is_sent_until_it_is_let_go_or_another_master_is_used() -> None:
    clock: Any = Clock()
    group: Any = FakeGroup({address: FakeNode() for address in NODES})
    node = group[NODES[0]]
    node.run_id = "a"
    traffic = Traffic(clock, group, Options(), lambda: None, lambda _: None)
    traffic.use(master("a"))
    first = traffic.pending.add(("INCR", "k"), b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n", False)
    clock.advance(0)
    held = Deferred.fromCoroutine(traffic.hold(5.0))
    second = traffic.pending.add(("INCR", "k"), b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n", False)
    traffic.open()  # as with each sign of life
    clock.advance(0)
    assert node.sent == 3  # the first, its count, and what comes behind
    assert traffic.pending.held
    # What was sent is answered: it was turned away, and keeps its place.
    *before, last = node.waiters
    node.waiters = []
    for waiter in before:
        waiter.settle(ResponseError("READONLY You can't write against a read only replica."))
    assert not held.called
    last.settle("PONG")
    assert held.called
    assert node.sent == 3
    node.run_id = "b"
    traffic.use(master("b"))
    assert node.sent > 3
    for waiter, reply in zip(list(node.waiters), (1, 2), strict=False):
        waiter.settle(reply)
    assert [first.result, second.result] == [1, 2]
    assert not [call for call in clock.getDelayedCalls() if call.getTime() == 5.0]


def test_a_hold_ends_when_nothing_is_answered_or_the_link_is_lost() -> None:
    clock: Any = Clock()
    group: Any = FakeGroup({address: FakeNode() for address in NODES})
    node = group[NODES[0]]
    node.run_id = "a"
    traffic = Traffic(clock, group, Options(), lambda: None, lambda _: None)
    traffic.use(master("a"))
    held = Deferred.fromCoroutine(traffic.hold(5.0))
    clock.advance(4.9)
    assert not held.called
    clock.advance(0.1)
    assert held.called
    traffic.let_go()
    assert not traffic.pending.held
    held = Deferred.fromCoroutine(traffic.hold(5.0))
    node.abort()
    assert held.called
