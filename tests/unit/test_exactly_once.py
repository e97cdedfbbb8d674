"""Writes that are counted once, whatever is lost: the queue against a server that keeps a journal.

Links die at any point, what was written may be read late, replicas with less of the history become
masters, callers cancel and run out of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from tests.unit.journals import JournalServer, ServerLink
from tests.unit.test_pending import Caller
from txharedis.commands import JOURNALLED, PLAIN, RIDING
from txharedis.delivery import Delivery
from txharedis.errors import (
    NoMaster,
    NotReplicated,
    OutcomeUnknown,
    QueueFull,
    ServiceStopped,
    WouldDiscardData,
)
from txharedis.interfaces import pack
from txharedis.options import Terms
from txharedis.pending import PendingCommands
from txharedis.replies import not_executed


@dataclass
class Given:
    """A command that was given: RPUSH of its own number, or a read."""

    number: int
    read: bool
    journalled: bool
    acks: int
    caller: Caller
    excused: bool = False  # it was answered, and what it wrote was lost with a master

    @property
    def value(self) -> bytes:
        return b"%d" % self.number

    @property
    def succeeded(self) -> bool:
        return self.caller.fired and isinstance(self.caller.outcome, int)


class ExactlyOnceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.server = JournalServer()
        self.link = ServerLink(self.server)
        self.link.alive = False
        self.late: list[bytes] = []
        self.given: list[Given] = []
        self.ever: set[bytes] = set()  # all that any server has run
        self.refused = False
        self.pending = PendingCommands(
            self.clock,
            Delivery(self.clock, own_db=15, counter="n", ack_timeout=1.0, denied=lambda _: None),
            max_pending=60,
            max_pending_bytes=10_000,
            terms=Terms(delivery="exactly-once", timeout=10.0),
            convert=None,
            may_retry=not_executed,
            turned_away=lambda _: None,
        )

    # Callers.

    @rule(
        kinds=st.lists(
            st.sampled_from(["journalled"] * 4 + ["plain", "riding", "other read"]),
            min_size=1,
            max_size=6,
        ),
        acks=st.sampled_from([0, 0, 1]),
    )
    def add(self, kinds: list[str], acks: int) -> None:
        for kind in kinds:
            number = len(self.given)
            read = kind in ("riding", "other read")
            args: tuple[Any, ...] = ("RPUSH", "log", number)
            if read:
                args = ("LLEN", "log") if kind == "riding" else ("LRANGE", "log", 0, -1)
            fit = {"journalled": JOURNALLED, "riding": RIDING}.get(kind, PLAIN)
            terms = Terms(delivery="exactly-once", acks=acks, timeout=10.0)
            deferred = self.pending.add(args, pack(args), read, terms=terms, fit=fit)
            self.given.append(Given(number, read, kind == "journalled", acks, Caller(deferred)))

    @rule(which=st.integers(0, 10))
    def cancel(self, which: int) -> None:
        waiting = [given for given in self.given if not given.caller.fired]
        if waiting:
            caller = waiting[which % len(waiting)].caller
            caller.deferred.cancel()
            assert isinstance(caller.outcome, CancelledError)

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.0, 0.1, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # The link.

    @precondition(lambda self: not self.link.alive)
    @rule()
    def connect(self) -> None:
        self.link = ServerLink(self.server)
        self.pending.open(self.link)

    @precondition(lambda self: self.link.alive)
    @rule()
    def reopen(self) -> None:
        self.pending.open(self.link)

    @rule()
    def close(self) -> None:
        self.pending.close()

    @precondition(lambda self: self.link.unread)
    @rule(many=st.integers(1, 4))
    def execute(self, many: int) -> None:
        self.link.execute(many)
        self.ever.update(self.server.values())

    @precondition(lambda self: self.link.replies)
    @rule(many=st.integers(1, 4))
    def deliver(self, many: int) -> None:
        self.link.deliver(many)

    @rule(arrives_late=st.booleans())
    def die(self, arrives_late: bool) -> None:
        late = self.link.die()
        if arrives_late:
            self.late += late

    @precondition(lambda self: self.link.alive)
    @rule(before=st.integers(0, 6))
    def all_is_answered(self, before: int) -> None:
        """By a server that ceases to be a master after so many commands."""
        self.clock.advance(0)
        self.execute(before)
        self.server.read_only = before < 6
        self.execute(1000)
        self.deliver(1000)

    @precondition(lambda self: self.late)
    @rule(many=st.integers(1, 4))
    def late_bytes(self, many: int) -> None:
        for _ in range(min(many, len(self.late))):
            self.server.execute(self.late.pop(0))
        self.ever.update(self.server.values())

    # Servers.

    @rule(missing=st.integers(0, 5))
    def fail_over(self, missing: int) -> None:
        self.link.die()
        self.late.clear()
        prefix = max(self.server.confirmed, len(self.server.past) - 1 - missing)
        old = set(self.server.values())
        self.server = self.server.promoted(prefix)
        lost = old - set(self.server.values())
        for given in self.given:
            if given.value in lost and given.succeeded:
                assert not given.acks, "a confirmed write was lost"
                given.excused = True

    @rule()
    def flush_all(self) -> None:
        self.server.flush()
        for given in self.given:
            given.excused = given.excused or given.caller.fired or given.value in self.ever

    @rule()
    def script_flush(self) -> None:
        self.server.knows_script = False

    @rule(may=st.booleans())
    def replication(self, may: bool) -> None:
        self.server.replicates = may

    @rule(may=st.sampled_from([True, True, False]))
    def writable(self, may: bool) -> None:
        self.server.read_only = not may

    @rule(may=st.sampled_from([True, True, True, False]))
    def rights(self, may: bool) -> None:
        self.server.denies = not may

    # The owner.

    @rule(refused=st.sampled_from([True, False, False]))
    def refuse(self, refused: bool) -> None:
        self.pending.refuse((lambda: WouldDiscardData("decide")) if refused else None)

    # What has to hold.

    @invariant()
    def what_has_to_hold(self) -> None:
        values = self.server.values()
        assert len(set(values)) == len(values), "run twice"
        journalled = [v for v in values if self.given[int(v)].journalled]
        assert journalled == sorted(journalled, key=int), "out of order"
        for given in self.given:
            assert len(given.caller.outcomes) <= 1
            if given.caller.fired and not given.read:
                self.check(given, values)
        assert self.pending._count >= self.pending._in_flight >= 0
        assert (self.pending._count == 0) == (self.pending._bytes == 0)

    def check(self, given: Given, values: list[bytes]) -> None:
        match given.caller.outcome:
            case int(place):
                if not given.excused:
                    assert given.value in values, "answered, and not there"
                    assert values[place - 1] == given.value
            case NotReplicated() as error:
                assert error.executed is True
                assert given.acks
                assert given.value in self.ever
            case OutcomeUnknown():
                pass
            case NoMaster() | QueueFull() | WouldDiscardData() as error:
                assert error.executed is False
                assert given.value not in self.ever, "it was executed"
            case CancelledError():
                pass
            case other:
                raise AssertionError(other)

    def teardown(self) -> None:
        self.pending.refuse(None)
        self.server.read_only = self.server.denies = False
        self.clock.advance(0)
        for _ in range(200):
            if not len(self.pending):
                break
            if not self.link.alive:
                self.connect()
            self.pending.open(self.link)
            self.clock.advance(0)
            self.link.execute()
            self.ever.update(self.server.values())
            self.link.deliver()
            self.what_has_to_hold()
        assert len(self.pending) == 0
        assert self.pending._bytes == 0
        assert self.pending._in_flight == 0
        assert self.pending.when_idle().called
        assert all(len(given.caller.outcomes) == 1 for given in self.given)
        self.clock.advance(60.0)
        self.pending.stop(lambda executed: ServiceStopped("stopped", executed))
        assert self.clock.getDelayedCalls() == []


ExactlyOnceMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None
)
TestExactlyOnce = ExactlyOnceMachine.TestCase
