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
        self.may_doubt = False  # whether the journal may fail to tell what became of a write
        self.was_denied = False  # whether writes went without it
        self.ever: set[bytes] = set()  # what any server has run
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
            st.sampled_from(["journalled"] * 4 + ["plain", "plain", "riding", "riding", "read"]),
            min_size=1,
            max_size=6,
        ),
        acks=st.sampled_from([0, 0, 1]),
        turns=st.booleans(),
    )
    def add(self, kinds: list[str], acks: int, turns: bool) -> None:
        """All in one turn of the reactor, or each in its own."""
        for kind in kinds:
            if turns:
                self.clock.advance(0)
            number = len(self.given)
            read = kind in ("riding", "read")
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

    @rule(seconds=st.sampled_from([0.1, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.may_doubt = True  # of what was sent and not answered
        self.clock.advance(seconds)

    @rule()
    def refuse(self) -> None:
        """For a moment."""
        self.may_doubt = True
        self.pending.refuse(lambda: WouldDiscardData("decide"))
        self.pending.refuse(None)

    # The link.

    @rule(executed=st.integers(0, 8), delivered=st.integers(0, 8))
    def flow(self, executed: int, delivered: int) -> None:
        """What waits is written, so many are executed, and so many of the replies come."""
        if not self.link.alive:
            self.link = ServerLink(self.server)
        self.pending.open(self.link)
        self.clock.advance(0)
        self.execute(executed)
        self.link.deliver(delivered)

    def execute(self, many: int) -> None:
        self.link.execute(many)
        self.ever.update(self.server.values())

    @precondition(lambda self: self.link.unread)
    @rule(executed=st.integers(0, 3))
    def demoted(self, executed: int) -> None:
        """The server ceases to be a master after so many commands more."""
        self.execute(executed)
        self.server.read_only = True
        self.execute(100)
        self.link.deliver(100)

    @precondition(lambda self: self.link.alive)
    @rule(arrives_late=st.booleans())
    def die(self, arrives_late: bool) -> None:
        late = self.link.die()
        if arrives_late:
            self.late += late

    @precondition(lambda self: self.late)
    @rule(many=st.integers(1, 4))
    def late_bytes(self, many: int) -> None:
        for _ in range(min(many, len(self.late))):
            self.server.execute(self.late.pop(0))
        self.ever.update(self.server.values())

    # Servers.

    @rule(missing=st.integers(0, 5))
    def fail_over(self, missing: int) -> None:
        # The journal may be lost with all that was answered: then nobody knows.
        self.may_doubt = self.may_doubt or missing > 0
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

    @precondition(lambda self: self.server.state["lists"])
    @rule()
    def flush_all(self) -> None:
        self.may_doubt = True
        self.server.flush()
        for given in self.given:
            given.excused = given.excused or given.caller.fired or given.value in self.ever

    @rule(what=st.sampled_from(["", "", "script", "replicates", "read only", "denies"]))
    def server_is(self, what: str) -> None:
        """In this state, and well otherwise."""
        server = self.server
        server.knows_script = server.knows_script and what != "script"
        server.replicates = what != "replicates"
        server.read_only = what == "read only"
        server.denies = what == "denies"
        self.may_doubt = self.may_doubt or server.denies
        self.was_denied = self.was_denied or server.denies

    # What has to hold.

    @invariant()
    def what_has_to_hold(self) -> None:
        values = self.server.values()
        assert len(set(values)) == len(values), "run twice"
        journalled = [v for v in values if self.given[int(v)].journalled]
        # What went plainly can be overtaken: one is refused, and the next one run, when a server is
        # demoted and promoted again in between.
        assert self.was_denied or journalled == sorted(journalled, key=int), "out of order"
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
                assert self.may_doubt or not given.journalled, "the journal knows"
            case NoMaster() | QueueFull() | WouldDiscardData() as error:
                assert error.executed is False
                assert given.value not in self.ever, "it was executed"
            case CancelledError():
                pass
            case other:
                raise AssertionError(other)

    def teardown(self) -> None:
        self.server_is("")
        for _ in range(200):
            if not len(self.pending):
                break
            self.flow(1000, 1000)
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
    max_examples=150, stateful_step_count=50, deadline=None, derandomize=True
)
TestExactlyOnce = ExactlyOnceMachine.TestCase
