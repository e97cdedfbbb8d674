"""The reads that replicas may answer: where they go, and that each Deferred fires once."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import hiredis
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txharedis.commands import describe
from txharedis.delivery import Delivery
from txharedis.errors import NoMaster, OutcomeUnknown, QueueFull, ResponseError, ServiceStopped
from txharedis.interfaces import Waiter, pack
from txharedis.log import ClientLog
from txharedis.options import Options
from txharedis.pending import PendingCommands
from txharedis.reads.lag import OwnWrites, Replication
from txharedis.reads.reading import ReplicaReads
from txharedis.replies import not_executed
from txharedis.topology import Address, NodeView, Role, Status

A, B = "a" * 40, "b" * 40
ADDRESSES = [Address("n", port) for port in (1, 2, 3)]
MASTER, FIRST, SECOND = ADDRESSES


class FakeNode:
    """A node with what it last said, and a command link that keeps what is written."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.status = Status.UP
        self.run_id = f"run{address.port}"
        self.linked = True
        self.db = 0
        self.replication: Replication | None = None
        self.round_trip: float | None = None
        self.watched: list[float] = []
        self.asked = 0
        self.writes: list[list[list[bytes]]] = []
        self.waiting: deque[tuple[list[bytes], Waiter]] = deque()

    def serves(self, run_id: str) -> bool:
        return self.linked and run_id == self.run_id

    def after_read(self, call: Callable[[], object]) -> bool:
        return False  # nothing is being handed out

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool:
        if not self.linked:
            return False
        words = [unpacked(one) for one in packed]
        self.writes.append(words)
        self.waiting.extend(zip(words, waiters, strict=True))
        return True

    def watch_replication(self, every: float) -> None:
        self.watched.append(every)

    def ask_replication(self) -> None:
        self.asked += 1

    def answer(self, *replies: object) -> None:
        for reply in replies:
            self.waiting.popleft()[1].settle(reply)

    def lose(self) -> None:
        """The link dies as links do: who waits is told before the node knows."""
        waiting, self.waiting = self.waiting, deque()
        for _, waiter in waiting:
            waiter.lost()
        self.linked = False

    @property
    def reads(self) -> list[list[bytes]]:
        return [words for write in self.writes for words in write if words[0] != b"INFO"]


def unpacked(packed: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(packed)
    words: list[bytes] = reader.gets()
    return words


class FakeGroup(dict[Address, Any]):
    def __iter__(self) -> Any:
        return iter(self.values())


class Reads:
    """ReplicaReads over three fake nodes, of which the first is the master."""

    def __init__(self, *, known: bool = True, **options: Any) -> None:
        self.clock = Clock()
        self.options = Options(**{"charset": None, "convert_numbers": False, **options})
        self.group: Any = FakeGroup({address: FakeNode(address) for address in ADDRESSES})
        self.master: NodeView | None = self.view(MASTER)
        self.turned_away: list[Exception] = []
        self.pending = PendingCommands(
            self.clock,
            Delivery(self.clock, own_db=15, counter=None, ack_timeout=1.0, denied=lambda _: None),
            max_pending=self.options.max_pending,
            max_pending_bytes=self.options.max_pending_bytes,
            terms=self.options.terms,
            convert=None,
            may_retry=not_executed,
            turned_away=self.turned_away.append,
        )
        self.pending.open(self.group[MASTER])
        self.reads = ReplicaReads(
            self.clock, self.group, self.options, self.pending, ClientLog(), lambda: self.master
        )
        if known:
            self.reads._replicas.watch()
            self.say(MASTER, is_master=True)
            self.say(FIRST)
            self.say(SECOND)

    @staticmethod
    def view(address: Address, run_id: str = "") -> NodeView:
        return NodeView(address, run_id or f"run{address.port}", Role.MASTER, ping_period=1)

    def node(self, address: Address) -> FakeNode:
        node: FakeNode = self.group[address]
        return node

    def say(self, address: Address, **values: Any) -> None:
        """What a node says of itself when it is asked now."""
        now = self.clock.seconds()
        fields: dict[str, Any] = {"offset": 100, "replid": A, "asked_at": now, **values}
        if not fields.get("is_master"):
            fields = {"link_up": True, "last_io": 0, **fields}
        self.node(address).replication = Replication(**fields)
        self.reads.heard(self.group[address])

    def read(self, line: str = "GET k", policy: str = "replica", **terms: Any) -> Caller:
        args = line.split()
        info = describe(args)
        assert info.replica
        asked = replace(self.options.terms, read_from=policy, **terms)
        return Caller(self.reads.add(args, pack(tuple(args)), info, asked))

    def turn(self) -> None:
        self.clock.advance(0)

    def used(self, policy: str = "replica", times: int = 12) -> set[Address]:
        """Who gets some reads, of nodes that answer at once."""
        used = set()
        for _ in range(times):
            caller = self.read(policy=policy)
            self.turn()
            for address in ADDRESSES:
                if self.node(address).waiting:
                    used.add(address)
                    self.node(address).answer(b"v")
            if not caller.outcomes:
                caller.deferred.cancel()
        return used

    def done(self) -> None:
        """Nothing is left behind."""
        assert len(self.pending) == 0
        self.pending.stop(lambda executed: ServiceStopped("stopped", executed))
        self.reads.stop()
        assert not self.clock.getDelayedCalls()


class Caller:
    """Somebody who waits for one read, and counts."""

    def __init__(self, deferred: Deferred[object]) -> None:
        self.deferred = deferred
        self.outcomes: list[Any] = []
        deferred.addBoth(self._fired)

    def _fired(self, outcome: object) -> None:
        self.outcomes.append(outcome.value if isinstance(outcome, Failure) else outcome)


# Which nodes


@pytest.mark.parametrize(
    ("policy", "used"),
    [
        ("master", {MASTER}),
        ("master_preferred", {MASTER}),
        ("replica", {FIRST, SECOND}),
        ("replica_preferred", {FIRST, SECOND}),
        ("any", {MASTER, FIRST, SECOND}),
    ],
)
def test_policies(policy: str, used: set[Address]) -> None:
    reads = Reads()
    assert reads.used(policy) == used
    reads.done()


def test_the_nearest() -> None:
    reads = Reads()
    for address, trip in zip(ADDRESSES, (0.003, 0.002, None), strict=True):
        reads.node(address).round_trip = trip
    assert reads.used("nearest") == {FIRST}
    reads.node(MASTER).round_trip = 0.0005
    assert reads.used("nearest") == {MASTER}
    reads.node(SECOND).round_trip = 0.00045
    assert reads.used("nearest") == {MASTER}
    reads.done()


UNFIT: list[dict[str, Any]] = [
    {"link_up": False},
    {"syncing": True},
    {"last_io": 3},
    {"replid": B},
    {"is_master": True},
]


@pytest.mark.parametrize("values", UNFIT)
def test_a_replica_that_says_so_is_not_used(values: dict[str, Any]) -> None:
    reads = Reads()
    reads.say(FIRST, **values)
    assert reads.used() == {SECOND}
    reads.done()


@pytest.mark.parametrize(
    "change",
    [
        {"status": Status.DROPPED},
        {"linked": False},
        {"run_id": "another"},
        {"replication": None},
        {"db": 5},
    ],
)
def test_a_replica_in_that_state_is_not_used(change: dict[str, Any]) -> None:
    reads = Reads()
    for name, value in change.items():
        setattr(reads.node(FIRST), name, value)
    if "run_id" in change:
        reads.node(FIRST).serves = lambda run_id: run_id == "run2"  # type: ignore[method-assign]
    assert reads.used() == {SECOND}
    reads.done()


def test_what_was_said_long_ago_is_not_known() -> None:
    reads = Reads()
    reads.clock.advance(2.0)
    reads.say(MASTER, is_master=True)
    reads.say(SECOND)
    reads.clock.advance(1.5)
    assert reads.used() == {SECOND}
    reads.done()


@pytest.mark.parametrize(("limit", "used"), [(9, {SECOND}), (10, {FIRST, SECOND})])
def test_max_lag_in_bytes(limit: int, used: set[Address]) -> None:
    reads = Reads(max_lag=limit)
    reads.say(FIRST, offset=90)
    assert reads.used() == used
    reads.done()


def test_max_lag_in_time() -> None:
    reads = Reads(max_lag="400ms")
    assert reads.node(FIRST).watched == [0.1]
    for offset in (200, 300, 400, 500):
        reads.clock.advance(0.1)
        reads.say(MASTER, is_master=True, offset=offset)
        reads.say(FIRST, offset=150)
        reads.say(SECOND, offset=offset - 1)
    # The first has what the master had when it was last known to have 100: 0.4 s ago.
    assert reads.used() == {FIRST, SECOND}
    reads.clock.advance(0.01)
    assert reads.used() == {SECOND}
    reads.done()


def test_another_master_has_to_speak_before_anybody_is_known_to_follow_it() -> None:
    reads = Reads()
    reads.master = reads.view(FIRST)
    asked = reads.node(SECOND).asked
    reads.reads.master_changed()
    assert reads.node(SECOND).asked == asked + 1
    assert reads.used("replica_preferred") == {MASTER}  # where the queue leads in this test
    reads.say(FIRST, is_master=True, replid=B, offset=120)
    assert reads.used("replica_preferred") == {MASTER}
    reads.say(SECOND, replid=B, offset=120)
    assert reads.used("replica_preferred") == {SECOND}
    reads.done()


def test_a_master_that_has_restarted_says_nothing_of_whom_we_follow() -> None:
    reads = Reads(max_lag=0)
    reads.node(MASTER).run_id = "another"
    reads.say(MASTER, is_master=True, replid=B, offset=0)
    reads.say(FIRST, replid=B, offset=0)  # and has lost its data to it
    assert reads.used() == {SECOND}
    reads.done()


@pytest.mark.parametrize(("told", "used"), [(1, {SECOND}), (0, {FIRST, SECOND})])
def test_a_master_that_was_not_told_to_speaks_every_ten_seconds(
    told: int, used: set[Address]
) -> None:
    reads = Reads()
    reads.master = replace(reads.view(MASTER), ping_period=told)
    reads.say(FIRST, last_io=9)
    assert reads.used() == used
    reads.done()


def test_while_there_is_no_master_the_links_are_down() -> None:
    reads = Reads(max_lag="1s")
    reads.master = None
    reads.pending.close()
    reads.say(FIRST, link_up=False, last_io=-1)
    reads.say(SECOND, link_up=False, syncing=True)
    assert reads.used("master_preferred") == {FIRST}
    assert reads.used("replica") == {FIRST}
    reads.clock.advance(0.9)
    reads.say(FIRST, link_up=False)
    assert reads.used("any") == {FIRST}
    reads.clock.advance(0.2)
    reads.say(FIRST, link_up=False)
    assert reads.used("replica") == set()  # nobody knows any more how late it is
    reads.done()


# The first reads


@pytest.mark.parametrize("policy", ["replica", "replica_preferred"])
def test_the_first_reads_wait_until_the_nodes_have_spoken(policy: str) -> None:
    reads = Reads(known=False)
    assert not reads.node(FIRST).watched
    caller = reads.read(policy=policy)
    assert reads.node(FIRST).watched == [1.0]
    reads.turn()
    assert not any(reads.node(address).writes for address in ADDRESSES)
    reads.say(MASTER, is_master=True)
    reads.say(FIRST)
    reads.turn()
    reads.turn()
    reads.node(FIRST).answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


def test_the_first_reads_do_not_wait_for_long() -> None:
    reads = Reads(known=False)
    caller = reads.read(policy="replica_preferred")
    reads.clock.advance(0.5)
    reads.turn()
    reads.node(MASTER).answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


def test_an_option_asks_from_the_start() -> None:
    reads = Reads(known=False, read_from="any", heartbeat=0.5)
    reads.reads.start()
    assert [reads.node(address).watched for address in ADDRESSES] == [[0.5]] * 3
    other = Reads(known=False)
    other.reads.start()
    assert not other.node(FIRST).watched
    other.done()
    reads.done()


# On their way


def test_the_reads_of_one_turn_leave_in_one_write_per_node() -> None:
    reads = Reads()
    callers = [reads.read(f"GET k{number}") for number in range(10)]
    assert not reads.node(FIRST).writes
    reads.turn()
    assert [len(reads.node(address).writes) for address in ADDRESSES] == [0, 1, 1]
    for address in (FIRST, SECOND):
        node = reads.node(address)
        node.answer(*[words[1] for words, _ in node.waiting])
    assert [caller.outcomes for caller in callers] == [[b"k%d" % n] for n in range(10)]
    reads.done()


@pytest.mark.parametrize(
    ("reply", "value"), [(b"7", 7), (b"text", "text"), (None, None), ([b"1", [b"x"]], [1, ["x"]])]
)
def test_replies_are_converted(reply: object, value: object) -> None:
    reads = Reads(charset="utf-8", convert_numbers=True)
    caller = reads.read()
    reads.turn()
    [node] = [node for node in reads.group.values() if node.waiting]
    node.answer(reply)
    assert caller.outcomes == [value]
    reads.done()


@pytest.mark.parametrize("policy", ["replica", "replica_preferred", "any"])
def test_when_a_link_dies_its_reads_go_elsewhere(policy: str) -> None:
    reads = Reads()
    callers = [reads.read(policy=policy) for _ in range(9)]
    reads.turn()
    reads.node(FIRST).lose()
    reads.turn()
    reads.turn()
    for address in (MASTER, SECOND):
        node = reads.node(address)
        node.answer(*[b"v"] * len(node.waiting))
    assert [caller.outcomes for caller in callers] == [[b"v"]] * 9
    reads.done()


@pytest.mark.parametrize(
    "error", ["LOADING x", "MASTERDOWN x", "ERR max number of clients reached", "READONLY x"]
)
def test_a_node_that_turns_a_read_away_is_not_asked_until_it_has_spoken(error: str) -> None:
    reads = Reads()
    caller = reads.read()
    reads.turn()
    [away] = [address for address in (FIRST, SECOND) if reads.node(address).waiting]
    other = SECOND if away == FIRST else FIRST
    reads.node(away).answer(ResponseError(error))
    for _ in range(3):
        reads.turn()
    reads.node(other).answer(b"v")
    assert caller.outcomes == [b"v"]
    assert reads.used() == {other}
    reads.say(away)
    assert reads.used() == {FIRST, SECOND}
    reads.done()


def test_a_link_that_is_gone_is_noticed_when_it_is_written_to() -> None:
    reads = Reads()
    for address in (FIRST, SECOND):
        reads.node(address).serves = lambda run_id: True  # type: ignore[method-assign]
        reads.node(address).linked = False
    caller = reads.read()
    for _ in range(5):
        reads.turn()
    assert not caller.outcomes
    reads.node(SECOND).linked = True
    reads.reads.ready(reads.group[SECOND])
    for _ in range(3):
        reads.turn()
    reads.node(SECOND).answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


def test_with_no_replica_a_read_waits_without_keeping_the_reactor_busy() -> None:
    reads = Reads()
    reads.say(FIRST, link_up=False)
    reads.say(SECOND, link_up=False)
    caller = reads.read()
    for _ in range(3):
        reads.turn()
    assert not reads.clock.getDelayedCalls()
    reads.say(SECOND)
    for _ in range(3):
        reads.turn()
    reads.node(SECOND).answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


@pytest.mark.parametrize("first", [MASTER, SECOND])
@pytest.mark.parametrize("policy", ["any", "nearest", "replica_preferred", "master_preferred"])
def test_without_a_node_the_others_wait_for_the_first_that_comes(
    policy: str, first: Address
) -> None:
    reads = Reads()
    reads.master = None
    reads.pending.close()
    for address in (FIRST, SECOND):
        reads.node(address).linked = False
    caller = reads.read(policy=policy)
    reads.turn()
    reads.turn()
    assert not reads.clock.getDelayedCalls()
    if first == MASTER:
        reads.master = reads.view(MASTER)
        reads.pending.open(reads.group[MASTER])
        reads.reads.news()
    else:
        reads.node(SECOND).linked = True
        reads.reads.ready(reads.group[SECOND])
    for _ in range(3):
        reads.turn()
    reads.node(first).answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("policy", ["any", "nearest", "replica_preferred", "master_preferred"])
def test_a_replica_answers_what_the_master_was_to_answer_when_it_died(
    policy: str, lost: bool
) -> None:
    reads = Reads()
    for address in (FIRST, SECOND):
        reads.node(address).linked = False
    caller = reads.read(policy=policy)
    reads.turn()
    assert len(reads.node(MASTER).waiting) == 1
    if lost:
        reads.node(MASTER).lose()
    else:  # it hangs, and its replies are awaited
        reads.pending.close()
    reads.master = None
    reads.node(FIRST).linked = True
    reads.reads.news()
    for _ in range(3):
        reads.turn()
    reads.node(FIRST).answer(b"v")
    assert caller.outcomes == [b"v"]
    if not lost:
        reads.node(MASTER).answer(b"late")
        assert caller.outcomes == [b"v"]
    reads.done()


def test_what_only_the_master_can_answer_stays_with_it() -> None:
    reads = Reads()
    caller = reads.read("SORT l", policy="replica")
    reads.turn()
    [node] = [node for node in reads.group.values() if node.waiting]
    node.answer(ResponseError("ERR unknown command"))
    reads.turn()
    reads.node(MASTER).lose()
    reads.master = None
    reads.reads.news()
    for _ in range(3):
        reads.turn()
    assert not any(node.waiting for node in reads.group.values())
    reads.node(MASTER).linked = True
    reads.pending.open(reads.group[MASTER])
    reads.node(MASTER).answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


# Names


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("get k", "get k"),
        ("sort l BY w_* GET #", "SORT_RO l BY w_* GET #"),
        ("BITFIELD b GET u8 0", "BITFIELD_RO b GET u8 0"),
        ("GEORADIUS g 0 0 1 km", "GEORADIUS_RO g 0 0 1 km"),
    ],
)
def test_a_replica_is_told_the_name_it_knows(line: str, sent: str) -> None:
    reads = Reads()
    reads.read(line)
    reads.turn()
    [node] = [node for node in reads.group.values() if node.writes]
    assert node.reads == [sent.encode().split()]
    node.answer(b"v")
    reads.done()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("sort l", "ERR unknown command 'SORT_RO'"),
        ("sort l", "NOPERM this user has no permissions"),
        ("EVALSHA_RO sha 0", "NOSCRIPT No matching script."),
    ],
)
def test_what_a_replica_does_not_know_goes_to_the_master(line: str, error: str) -> None:
    reads = Reads()
    caller = reads.read(line)
    reads.turn()
    [node] = [node for node in reads.group.values() if node.waiting]
    node.answer(ResponseError(error))
    reads.turn()
    assert reads.node(MASTER).reads == [line.encode().split()]
    reads.node(MASTER).answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


def test_the_queue_is_not_idle_while_a_read_changes_its_place() -> None:
    reads = Reads(max_pending=1)
    idle = []
    reads.read("SORT k")
    reads.pending.when_idle().addCallback(idle.append)
    reads.turn()
    [node] = [node for node in reads.group.values() if node.waiting]
    node.answer(ResponseError("ERR unknown command"))
    reads.turn()
    reads.node(MASTER).lose()
    reads.master = None
    reads.reads.news()
    reads.turn()
    assert idle == []
    reads.reads.stop()
    reads.pending.stop(lambda executed: ServiceStopped("", executed))
    assert idle == [None]


def test_a_read_that_was_taken_finds_room_elsewhere_in_a_full_queue() -> None:
    reads = Reads(max_pending=1)
    for address in (FIRST, SECOND):
        reads.node(address).linked = False
    caller = reads.read(policy="any")
    reads.turn()
    reads.pending.close()  # the master hangs, and its reply is awaited
    reads.master = None
    reads.node(FIRST).linked = True
    reads.reads.news()
    reads.turn()
    reads.turn()
    reads.node(FIRST).answer(b"v")
    assert caller.outcomes == [b"v"]
    assert len(reads.pending) == 1
    reads.node(MASTER).answer(b"late")
    reads.done()


@pytest.mark.parametrize("error", ["NOPERM no", "ERR unknown command 'GET'", "BUSY x"])
def test_other_errors_are_the_callers(error: str) -> None:
    reads = Reads()
    caller = reads.read()
    reads.turn()
    [node] = [node for node in reads.group.values() if node.waiting]
    node.answer(ResponseError(error))
    assert str(caller.outcomes[0]) == error
    reads.done()


# Bounds, timeouts, cancelling, stopping


def test_bounds_hold_for_all_together() -> None:
    reads = Reads(max_pending=3)
    first = [reads.read(), reads.read()]
    write = Caller(reads.pending.add(("SET",), pack(("SET",)), False))
    for policy in ("replica", "any", "master"):
        [error] = reads.read(policy=policy).outcomes
        assert isinstance(error, QueueFull)
    idle = reads.pending.when_idle()
    reads.turn()
    for node in reads.group.values():
        node.answer(*[b"v"] * len(node.waiting))
    assert [caller.outcomes for caller in [*first, write]] == [[b"v"]] * 3
    assert idle.called
    reads.done()


def test_a_read_that_nobody_takes_fails_in_time_and_names_the_policy() -> None:
    reads = Reads(command_timeout=0.7)
    for address in (FIRST, SECOND):
        reads.node(address).linked = False
    caller = reads.read()
    reads.clock.advance(0.6)
    later = reads.read()
    reads.clock.advance(0.1)
    [error] = caller.outcomes
    assert isinstance(error, NoMaster)
    assert "read_from='replica'" in str(error)
    assert not later.outcomes
    reads.clock.advance(0.6)
    assert isinstance(later.outcomes[0], NoMaster)
    reads.done()


def test_a_read_that_is_not_answered_fails_in_time() -> None:
    reads = Reads(command_timeout=0.5)
    caller = reads.read()
    reads.turn()
    reads.clock.advance(0.5)
    [error] = caller.outcomes
    assert isinstance(error, OutcomeUnknown)
    assert error.command == ("GET", "k")
    [node] = [node for node in reads.group.values() if node.waiting]
    node.answer(b"late")
    reads.done()


def test_the_time_counts_from_the_beginning_when_a_read_comes_to_the_master() -> None:
    reads = Reads(command_timeout=0.5)
    caller = reads.read("SORT k")
    reads.turn()
    reads.clock.advance(0.3)
    [node] = [node for node in reads.group.values() if node.waiting]
    node.answer(ResponseError("ERR unknown command"))
    reads.turn()
    reads.clock.advance(0.2)
    assert isinstance(caller.outcomes[0], OutcomeUnknown)
    reads.node(MASTER).answer(b"late")
    reads.done()


@pytest.mark.parametrize("when", ["at once", "sent", "waiting", "at the master"])
def test_cancelling(when: str) -> None:
    reads = Reads()
    if when == "waiting":
        reads.node(FIRST).linked = reads.node(SECOND).linked = False
    caller = reads.read("SORT k")
    if when != "at once":
        reads.turn()
    if when == "at the master":
        [node] = [node for node in reads.group.values() if node.waiting]
        node.answer(ResponseError("ERR unknown command"))
    caller.deferred.cancel()
    assert isinstance(caller.outcomes[0], CancelledError)
    reads.turn()
    for node in reads.group.values():
        node.answer(*[b"late"] * len(node.waiting))
    assert len(caller.outcomes) == 1
    reads.done()


def test_stopped_before_the_first_read() -> None:
    reads = Reads(known=False)
    reads.pending.stop(lambda executed: ServiceStopped("stopped", executed))
    reads.reads.stop()
    assert isinstance(reads.read().outcomes[0], ServiceStopped)
    reads.done()


def test_stopping_fails_what_waits_and_what_was_sent() -> None:
    reads = Reads()
    sent = reads.read()
    reads.turn()
    queued = reads.read()
    for node in reads.group.values():
        node.linked = False
    waiting = reads.read()
    reads.turn()
    queued_later = reads.read()
    reads.pending.stop(lambda executed: ServiceStopped("stopped", executed))
    reads.reads.stop()
    for node in reads.group.values():
        node.lose()
    assert [caller.outcomes[0].executed for caller in (sent, queued, waiting, queued_later)] == [
        None,
        False,
        False,
        False,
    ]
    assert isinstance(reads.read().outcomes[0], ServiceStopped)
    reads.done()


def test_a_refused_group_refuses_what_waits() -> None:
    reads = Reads()
    for address in (FIRST, SECOND):
        reads.node(address).linked = False
    caller = reads.read()
    reads.turn()
    reads.pending.refuse(lambda: NoMaster("a person has to act"))
    reads.reads.news()
    reads.turn()
    assert str(caller.outcomes[0]) == "a person has to act"
    reads.done()


# Databases


def test_a_read_is_of_the_database_in_which_it_was_given() -> None:
    reads = Reads()
    old = reads.read()
    reads.pending.db = 5
    new = reads.read()
    reads.turn()
    assert not reads.node(FIRST).waiting or reads.node(FIRST).reads == [[b"GET", b"k"]]
    assert len(reads.node(FIRST).reads + reads.node(SECOND).reads) == 1
    [node] = [node for node in reads.group.values() if node.waiting]
    node.answer(b"old")
    assert old.outcomes == [b"old"]
    reads.turn()
    assert not new.outcomes
    reads.node(SECOND).db = 5
    reads.reads.ready(reads.group[SECOND])
    for _ in range(3):
        reads.turn()
    reads.node(SECOND).answer(b"new")
    assert new.outcomes == [b"new"]
    reads.done()


def test_what_waits_for_an_old_database_goes_to_the_master() -> None:
    reads = Reads()
    for address in (FIRST, SECOND):
        reads.node(address).linked = False
    caller = reads.read()
    reads.turn()
    reads.pending.db = 5
    reads.say(FIRST)
    for _ in range(3):
        reads.turn()
    reads.node(MASTER).answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


# Own writes


def place(offset: int, replid: str = A, role: str = "master", **more: object) -> bytes:
    fields = {
        "role": role,
        "master_replid": replid,
        "master_repl_offset": offset,
        "slave_repl_offset": offset,
        **more,
    }
    return "\r\n".join(f"{name}:{value}" for name, value in fields.items()).encode()


class Writer(Reads):
    """Reads of a view that writes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.own = OwnWrites()

    def ask(self) -> Caller:
        caller = self.read(own_writes=self.own)
        self.turn()
        return caller

    def wrote(self, answered: bool = True) -> None:
        self.own.begin()
        if answered:
            self.own.end(None)

    def covered(self, offset: int = 200) -> None:
        """One write, and the read that asks for its place."""
        self.wrote()
        caller = self.ask()
        self.answer_at_master(b"new", place(offset))
        assert caller.outcomes == [b"new"]
        assert self.own.settled

    def answer_at_master(self, *replies: object) -> None:
        by_name = {b"GET": replies[0], b"INFO": replies[-1]}
        node = self.node(MASTER)
        node.answer(*[by_name[words[0]] for words, _ in node.waiting])

    @property
    def asked(self) -> FakeNode:
        [node] = [node for node in self.group.values() if node.waiting]
        return node


def test_before_the_first_write_nothing_is_to_be_proved() -> None:
    reads = Writer()
    caller = reads.ask()
    assert reads.asked.writes == [[[b"GET", b"k"]]]
    reads.asked.answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


def test_while_a_write_is_unanswered_the_master_answers() -> None:
    reads = Writer()
    reads.wrote(answered=False)
    caller = reads.ask()
    assert reads.node(MASTER).writes == [[[b"GET", b"k"]]]
    reads.node(MASTER).answer(b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


def test_a_replica_proves_in_the_same_write_that_it_has_the_writes() -> None:
    reads = Writer()
    reads.covered(200)
    caller = reads.ask()
    assert reads.asked.address != MASTER
    assert reads.asked.writes == [[[b"INFO", b"replication"], [b"GET", b"k"]]]
    node = reads.asked
    node.answer(place(200, role="slave"), b"new")
    assert caller.outcomes == [b"new"]
    reads.done()


@pytest.mark.parametrize(
    "proof",
    [
        place(199, role="slave"),
        place(900, B, role="slave"),
        ResponseError("LOADING"),
        ResponseError("NOPERM"),
        b"",
    ],
)
def test_what_a_replica_without_proof_says_does_not_count(proof: object) -> None:
    reads = Writer()
    reads.covered(200)
    caller = reads.ask()
    reads.asked.answer(proof, b"old")
    assert not caller.outcomes
    reads.turn()
    reads.answer_at_master(b"new", place(300))
    assert caller.outcomes == [b"new"]
    reads.done()


def test_a_replica_found_behind_is_left_alone_until_it_has_come() -> None:
    reads = Writer()
    reads.covered(200)
    reads.say(SECOND, link_up=False)
    caller = reads.ask()
    reads.asked.answer(place(150, role="slave"), b"old")
    reads.turn()
    reads.answer_at_master(b"new", b"")
    assert caller.outcomes == [b"new"]
    waiting = reads.ask()
    assert not any(node.waiting for node in reads.group.values())
    reads.say(FIRST, offset=180)
    reads.turn()
    assert not reads.node(FIRST).waiting
    reads.say(FIRST, offset=210)
    reads.turn()
    reads.turn()
    reads.node(FIRST).answer(place(210, role="slave"), b"new")
    assert waiting.outcomes == [b"new"]
    reads.done()


def test_after_a_failover_the_place_is_one_of_the_new_history() -> None:
    reads = Writer()
    reads.covered(200)
    caller = reads.ask()
    reads.asked.answer(
        place(500, B, role="slave", master_replid2=A, second_repl_offset=150), b"lost"
    )
    reads.turn()
    reads.answer_at_master(b"what is left", place(520, B))
    assert caller.outcomes == [b"what is left"]
    caller = reads.ask()
    reads.asked.answer(place(520, B, role="slave"), b"v")
    assert caller.outcomes == [b"v"]
    reads.done()


def test_while_no_commands_flow_to_the_master_it_is_not_asked_for_a_place() -> None:
    """Its link may lead to one that has restarted, empty."""
    reads = Writer()
    reads.wrote()
    reads.pending.close()
    reads.ask()
    assert not reads.node(MASTER).writes
    reads.pending.open(reads.group[MASTER])
    assert reads.node(MASTER).writes == [[[b"GET", b"k"]]]
    reads.node(MASTER).answer(b"v")
    assert not reads.own.settled
    reads.ask()
    reads.answer_at_master(b"v", place(300))
    assert reads.own.settled
    reads.done()


@pytest.mark.parametrize("answer", [place(300, role="slave"), ResponseError("BUSY"), None])
def test_who_is_no_master_gives_no_place(answer: object) -> None:
    reads = Writer()
    reads.wrote()
    reads.ask()
    if answer is None:
        reads.node(MASTER).waiting.popleft()[1].lost()
        reads.node(MASTER).answer(b"v")
    else:
        reads.answer_at_master(b"v", answer)
    assert not reads.own.settled
    again = reads.ask()
    reads.answer_at_master(b"v", place(300))
    assert again.outcomes == [b"v"]
    assert reads.own.settled
    reads.done()


# Anything at all


@pytest.mark.parametrize("seed", range(40))
def test_every_read_is_answered_once_whatever_happens(seed: int) -> None:
    """Links die and come back, nodes turn reads away, masters come and go."""
    dice = random.Random(seed)
    reads = Reads(command_timeout=dice.choice([None, 5.0]))
    callers = []
    policies = ["master_preferred", "replica", "replica_preferred", "any", "nearest"]
    for _ in range(300):
        node = reads.node(dice.choice(ADDRESSES))
        match dice.randrange(9):
            case 0 | 1 | 2:
                callers.append(reads.read(policy=dice.choice(policies)))
            case 3:
                reads.turn()
            case 4 if node.waiting:
                node.answer(b"v")
            case 5 if node.waiting and node.address != MASTER:
                node.answer(ResponseError("LOADING"))
            case 6:
                node.lose()
            case 7:
                node.linked = True
                reads.reads.ready(reads.group[node.address])
                if node.address == MASTER:
                    reads.pending.open(reads.group[MASTER])
            case 8:
                reads.say(node.address, is_master=node.address == MASTER)
                reads.clock.advance(0.01)
    for _ in range(20):
        for node in reads.group.values():
            node.linked = True
            reads.say(node.address, is_master=node.address == MASTER)
            reads.reads.ready(reads.group[node.address])
        reads.pending.open(reads.group[MASTER])
        reads.turn()
        for node in reads.group.values():
            node.answer(*[b"v"] * len(node.waiting))
    assert [caller.outcomes for caller in callers] == [[b"v"]] * len(callers)
    reads.clock.advance(10.0)
    reads.done()
