"""The queue: order, delivery, bounds, timeouts, and that each Deferred fires exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txharedis.counter import COUNT_SCRIPT, COUNT_SHA1
from txharedis.delivery import Delivery
from txharedis.errors import (
    HARedisError,
    NoMaster,
    OutcomeUnknown,
    QueueFull,
    ResponseError,
    ServiceStopped,
    WouldDiscardData,
)
from txharedis.interfaces import Waiter
from txharedis.options import Terms
from txharedis.pending import PendingCommands
from txharedis.replies import not_executed

READONLY = ResponseError("READONLY You can't write against a read only replica.")
WRONGTYPE = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


class FakeLink:
    """Keeps what is written; answers when told to."""

    def __init__(self, db: int = 0) -> None:
        self.db = db
        self.alive = True
        self.batches: list[list[bytes]] = []
        self.waiting: deque[tuple[bytes, Waiter]] = deque()
        self.reading = False  # whether replies are being handed out
        self.afterwards: list[Callable[[], object]] = []

    def after_read(self, call: Callable[[], object]) -> bool:
        if self.reading:
            self.afterwards.append(call)
        return self.reading

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool:
        if not self.alive:
            return False
        assert len(packed) == len(waiters)
        self.batches.append(list(packed))
        self.waiting.extend(zip(packed, waiters, strict=True))
        return True

    @property
    def written(self) -> list[bytes]:
        return [packed for batch in self.batches for packed in batch]

    def answer(self, *replies: object) -> None:
        for reply in replies:
            self.waiting.popleft()[1].settle(reply)

    def answer_all(self, reply: object = b"OK") -> None:
        while self.waiting:
            self.answer(reply)

    def die(self) -> None:
        self.alive = False
        waiting, self.waiting = self.waiting, deque()
        for _, waiter in waiting:
            waiter.lost()


def plain_delivery(clock: Clock, counter: str | None = None) -> Delivery:
    return Delivery(clock, own_db=15, counter=counter, ack_timeout=1.0, denied=lambda _: None)


class Queue:
    """A queue with what its owner keeps beside it."""

    def __init__(
        self, *, writes_again: bool = False, timeout: float | None = None, **options: Any
    ) -> None:
        self.clock = Clock()
        self.turned_away: list[Exception] = []
        arguments: dict[str, Any] = {
            "max_pending": 1000,
            "max_pending_bytes": 1_000_000,
            "convert": None,
            "may_retry": not_executed,
            "turned_away": self.turned_away.append,
            **options,
        }
        terms = Terms(delivery="at-least-once" if writes_again else "at-most-once", timeout=timeout)
        self.pending = PendingCommands(
            self.clock, plain_delivery(self.clock), terms=terms, **arguments
        )
        self.added = 0

    def add(self, name: str = "", *, read: bool = False) -> Caller:
        self.added += 1
        name = name or f"{'r' if read else 'w'}{self.added}"
        return Caller(self.pending.add((name, "k"), name.encode(), read))

    def open(self, db: int = 0) -> FakeLink:
        link = FakeLink(db)
        self.pending.open(link)
        return link

    def turn(self) -> None:
        """Let one turn of the reactor pass."""
        self.clock.advance(0)

    @property
    def timers(self) -> int:
        return len(self.clock.getDelayedCalls())


class Caller:
    """Somebody who waits for one command, and counts."""

    def __init__(self, deferred: Deferred[object]) -> None:
        self.deferred = deferred
        self.outcomes: list[object] = []
        deferred.addBoth(self._fired)

    def _fired(self, outcome: object) -> None:
        self.outcomes.append(outcome.value if isinstance(outcome, Failure) else outcome)

    @property
    def fired(self) -> bool:
        return bool(self.outcomes)

    @property
    def outcome(self) -> Any:
        (outcome,) = self.outcomes
        return outcome


# Order


def test_commands_wait_until_there_is_a_link_and_go_out_in_one_write() -> None:
    queue = Queue()
    callers = [queue.add(), queue.add(), queue.add()]
    assert queue.timers == 0
    link = queue.open()
    assert link.batches == [[b"w1", b"w2", b"w3"]]
    link.answer(b"1", b"2", b"3")
    assert [caller.outcome for caller in callers] == [b"1", b"2", b"3"]
    assert len(queue.pending) == 0


def test_commands_of_one_turn_go_out_in_one_write() -> None:
    queue = Queue()
    link = queue.open()
    queue.add()
    queue.add()
    assert link.batches == []
    queue.turn()
    queue.add()
    queue.turn()
    assert link.batches == [[b"w1", b"w2"], [b"w3"]]


def test_commands_given_while_replies_are_handed_out_go_out_behind_all_of_them() -> None:
    queue = Queue()
    link = queue.open()
    link.reading = True
    queue.add()
    queue.add()
    assert (link.batches, queue.timers, len(link.afterwards)) == ([], 0, 1)
    link.reading = False
    link.afterwards.pop()()
    assert link.batches == [[b"w1", b"w2"]]
    queue.add()
    assert (queue.timers, link.afterwards) == (1, [])
    queue.turn()
    assert link.batches[1:] == [[b"w3"]]


def test_what_was_given_while_a_link_died_goes_out_on_the_next_once() -> None:
    queue = Queue()
    first = queue.open()
    first.reading = True
    queue.add()
    first.die()
    queue.pending.close()
    second = queue.open()
    first.afterwards.pop()()
    assert (first.batches, second.batches) == ([], [[b"w1"]])


def test_the_order_is_kept_over_a_closed_gate() -> None:
    queue = Queue()
    link = queue.open()
    queue.add()
    queue.turn()
    queue.add()
    queue.pending.close()
    queue.turn()
    queue.add()
    assert link.batches == [[b"w1"]]
    queue.pending.open(link)
    assert link.batches == [[b"w1"], [b"w2", b"w3"]]


def test_a_lost_link_gives_back_what_may_go_again_before_what_was_never_sent() -> None:
    queue = Queue(writes_again=True)
    first = queue.open()
    queue.add()
    queue.add(read=True)
    queue.turn()
    queue.add()
    first.die()
    assert queue.pending.held
    second = queue.open()
    assert second.batches == [[b"w1", b"r2", b"w3"]]


def test_a_link_found_dead_has_written_nothing() -> None:
    queue = Queue()
    link = queue.open()
    link.alive = False
    callers = [queue.add(), queue.add()]
    queue.turn()
    assert queue.pending.held
    assert not any(caller.fired for caller in callers)
    assert queue.open().batches == [[b"w1", b"w2"]]


def test_what_was_turned_away_goes_first_and_waits_for_the_other_replies() -> None:
    queue = Queue()
    link = queue.open()
    for _ in range(3):
        queue.add()
    queue.turn()
    link.answer(READONLY)
    assert queue.turned_away == [READONLY]
    assert queue.pending.held
    queue.add()
    queue.pending.open(link)  # the same link: the other two are still unanswered
    queue.turn()
    assert len(link.batches) == 1
    link.answer(READONLY)
    queue.pending.open(link)
    link.answer(READONLY)
    assert len(link.batches) == 1
    assert len(queue.turned_away) == 3
    queue.pending.open(link)
    assert link.batches[1:] == [[b"w1", b"w2", b"w3", b"w4"]]


def test_a_read_behind_what_was_turned_away_goes_again() -> None:
    """It would have read what that writes."""
    queue = Queue()
    before, write, read, other = (
        queue.add("r0", read=True),
        queue.add("w1"),
        queue.add("r2", read=True),
        queue.add("w3"),
    )
    link = queue.open()
    link.answer(b"0", READONLY, b"stale")
    assert before.outcome == b"0"
    assert not read.fired
    link.answer(b"OK")  # a write that was executed is not written again
    assert other.outcome == b"OK"
    again = queue.open()
    assert again.written == [b"w1", b"r2"]
    again.answer(b"OK", b"fresh")
    assert (write.outcome, read.outcome) == (b"OK", b"fresh")
    assert len(queue.pending) == 0


def test_a_cancelled_read_behind_what_was_turned_away_does_not_go_again() -> None:
    queue = Queue()
    queue.add("w1")
    read = queue.add("r2", read=True)
    link = queue.open()
    read.deferred.cancel()
    link.answer(READONLY, b"stale")
    assert queue.open().written == [b"w1"]
    assert len(queue.pending) == 1


def test_a_batch_is_turned_away_once() -> None:
    queue = Queue()
    link = queue.open()
    for _ in range(3):
        queue.add()
    queue.turn()
    link.answer_all(READONLY)
    assert queue.turned_away == [READONLY]
    assert queue.open().batches == [[b"w1", b"w2", b"w3"]]


@pytest.mark.parametrize("cancelled", [1, 200])
def test_what_waited_behind_the_turned_away_is_sent_when_those_are_cancelled(
    cancelled: int,
) -> None:
    queue = Queue()
    link = queue.open()
    refused = [queue.add() for _ in range(cancelled)]
    queue.add("other")
    queue.turn()
    link.answer(*[READONLY] * cancelled)
    queue.pending.open(link)
    queue.add("later")
    queue.turn()
    for caller in refused:
        caller.deferred.cancel()
    link.answer(b"OK")
    queue.turn()
    assert link.batches[1:] == [[b"later"]]


# Delivery


@pytest.mark.parametrize(
    ("writes_again", "again"), [(False, [b"r1", b"r3"]), (True, [b"r1", b"w2", b"r3"])]
)
def test_which_commands_go_again_after_their_reply_was_lost(
    writes_again: bool, again: list[bytes]
) -> None:
    queue = Queue(writes_again=writes_again)
    first = queue.open()
    callers = [queue.add(read=True), queue.add(), queue.add(read=True)]
    queue.turn()
    first.die()
    assert [caller.fired for caller in callers] == [False, not writes_again, False]
    second = queue.open()
    assert second.written == again
    second.answer_all()
    assert all(len(caller.outcomes) == 1 for caller in callers)


def test_an_unknown_outcome_names_the_command() -> None:
    queue = Queue()
    link = queue.open()
    caller = queue.add("incr")
    queue.turn()
    link.die()
    assert isinstance(caller.outcome, OutcomeUnknown)
    assert caller.outcome.command == ("incr", "k")
    assert caller.outcome.executed is None
    assert "incr" in str(caller.outcome)
    assert len(queue.pending) == 0


def test_an_error_of_the_command_itself_is_the_callers() -> None:
    queue = Queue()
    link = queue.open()
    caller, other = queue.add(), queue.add()
    queue.turn()
    link.answer(WRONGTYPE, b"OK")
    assert caller.outcome is WRONGTYPE
    assert other.outcome == b"OK"
    assert queue.turned_away == []


def test_replies_are_converted_and_errors_are_not() -> None:
    queue = Queue(convert=lambda reply: ("converted", reply))
    link = queue.open()
    callers = [queue.add(), queue.add()]
    queue.turn()
    link.answer(b"1", WRONGTYPE)
    assert [caller.outcome for caller in callers] == [("converted", b"1"), WRONGTYPE]


# The count of the writes


def unpacked(packed: bytes) -> object:
    reader = hiredis.Reader()
    reader.feed(packed)
    return reader.gets()


def counted() -> tuple[PendingCommands, FakeLink]:
    clock = Clock()
    pending = PendingCommands(
        clock,
        plain_delivery(clock, "counter"),
        max_pending=9,
        max_pending_bytes=99,
        terms=Terms(),
        convert=None,
        may_retry=not_executed,
        turned_away=lambda _: None,
    )
    link = FakeLink()
    pending.add(("SET",), b"w1", False)
    pending.add(("GET",), b"r2", True)
    pending.add(("SET",), b"w3", False)
    pending.open(link)
    return pending, link


def test_the_writes_of_a_batch_are_counted_behind_it() -> None:
    pending, link = counted()
    *rest, count = link.written
    expected = [b"EVALSHA", COUNT_SHA1.encode(), b"1", b"counter", b"15", b"2"]
    assert unpacked(count) == expected
    assert rest == [b"w1", b"r2", b"w3"]
    link.answer(b"OK", b"OK", b"OK", 2)
    assert len(pending) == 0
    pending.add(("GET",), b"r4", True)
    pending.open(link)
    assert link.batches[-1] == [b"r4"]


def test_a_server_that_lost_the_script_is_given_it_again() -> None:
    _, link = counted()
    link.answer(b"OK", b"OK", b"OK", ResponseError("NOSCRIPT No matching script."))
    expected = [b"EVAL", COUNT_SCRIPT, b"1", b"counter", b"15", b"2"]
    assert unpacked(link.written[-1]) == expected


def test_a_count_that_is_denied_is_not_asked_for_each_time() -> None:
    pending, link = counted()
    link.answer(b"OK", b"OK", b"OK", ResponseError("NOPERM User app has no permissions"))
    del link.batches[:]
    for _ in range(1001):
        pending.add(("SET",), b"w", False)
        pending.open(link)
        link.answer(b"OK")
    counts = [batch for batch in link.batches if b"EVALSHA" in batch[-1]]
    assert len(counts) == 1
    assert link.batches[-1] == counts[0]


def test_a_refused_or_lost_count_is_nobodys_error() -> None:
    pending, link = counted()
    link.answer(b"OK", b"OK", b"OK", READONLY)
    assert not pending.held
    pending, link = counted()
    link.die()
    assert len(pending) == 1  # the read


# Cancellation


def test_a_cancelled_unsent_command_is_never_written() -> None:
    queue = Queue()
    caller, other = queue.add(), queue.add()
    caller.deferred.cancel()
    assert isinstance(caller.outcome, CancelledError)
    assert len(queue.pending) == 1
    assert queue.open().written == [b"w2"]
    assert not other.fired


@pytest.mark.parametrize("reply", [b"OK", WRONGTYPE, READONLY])
def test_a_cancelled_sent_command_counts_until_it_is_answered(reply: object) -> None:
    queue = Queue()
    link = queue.open()
    caller = queue.add()
    queue.turn()
    caller.deferred.cancel()
    assert len(queue.pending) == 1
    link.answer(reply)
    assert len(queue.pending) == 0
    assert isinstance(caller.outcome, CancelledError)
    assert queue.turned_away == []
    assert queue.open().written == []


def test_a_cancelled_sent_command_does_not_go_again() -> None:
    queue = Queue(writes_again=True)
    link = queue.open()
    caller = queue.add()
    queue.turn()
    caller.deferred.cancel()
    link.die()
    assert len(queue.pending) == 0
    assert queue.open().written == []
    assert isinstance(caller.outcome, CancelledError)


def kept_by(pending: PendingCommands) -> int:
    """How many commands the queue holds on to, in whichever of its deques."""
    return sum(len(value) for value in vars(pending).values() if isinstance(value, deque))


@pytest.mark.parametrize("timeout", [None, 3600.0])
def test_cancelled_commands_are_not_kept(timeout: float | None) -> None:
    queue = Queue(timeout=timeout)
    first = queue.add("stays")
    for _ in range(100_000):
        deferred = queue.pending.add(("w",), b"w", False)
        deferred.addErrback(lambda _: None)
        deferred.cancel()
    assert len(queue.pending) == 1
    assert kept_by(queue.pending) < 1000
    assert queue.open().written == [b"stays"]
    assert not first.fired


def test_answered_commands_are_not_kept_until_their_deadline() -> None:
    queue = Queue(timeout=3600.0)
    link = queue.open()
    for _ in range(10_000):
        queue.pending.add(("w",), b"w", False)
        queue.turn()
        link.answer(b"OK")
    assert kept_by(queue.pending) < 1000
    assert queue.timers == 1


# Bounds


def test_the_number_of_commands_is_bounded_and_free_again() -> None:
    queue = Queue(max_pending=2)
    callers = [queue.add(), queue.add()]
    full = queue.add()
    assert isinstance(full.outcome, QueueFull)
    assert full.outcome.executed is False
    assert "max_pending=2" in str(full.outcome)
    callers[0].deferred.cancel()
    third = queue.add()
    assert not third.fired
    link = queue.open()
    assert isinstance(queue.add().outcome, QueueFull)  # the sent ones count
    link.answer(b"OK")
    assert not queue.add().fired
    assert link.written == [b"w2", b"w4"]


def test_the_bytes_are_bounded_and_free_again() -> None:
    queue = Queue(max_pending_bytes=10)
    assert not queue.add("x" * 6).fired
    full = queue.add("x" * 5).outcome
    assert isinstance(full, QueueFull)
    assert "1 commands (6 bytes) already wait, this one has 5 bytes" in str(full)
    assert not queue.add("x" * 4).fired
    link = queue.open()
    link.answer(b"OK")
    assert not queue.add("x" * 6).fired
    assert isinstance(queue.add("x").outcome, QueueFull)
    link.die()
    assert not queue.add("x" * 4).fired


def test_one_command_over_the_bound_is_refused() -> None:
    queue = Queue(max_pending_bytes=10)
    assert isinstance(queue.add("x" * 11).outcome, QueueFull)
    assert len(queue.pending) == 0


# Timeouts


def test_an_unsent_command_times_out_with_no_master() -> None:
    queue = Queue(timeout=2.0)
    caller = queue.add()
    queue.clock.advance(1.9)
    assert not caller.fired
    queue.clock.advance(0.1)
    assert isinstance(caller.outcome, NoMaster)
    assert caller.outcome.executed is False
    assert len(queue.pending) == 0
    assert queue.timers == 0
    assert queue.open().written == []


def test_a_sent_command_times_out_with_an_unknown_outcome() -> None:
    queue = Queue(timeout=2.0)
    link = queue.open()
    caller = queue.add()
    queue.turn()
    queue.clock.advance(2.0)
    assert isinstance(caller.outcome, OutcomeUnknown)
    assert caller.outcome.command == ("w1", "k")
    link.answer(b"OK")  # late: it reaches nobody
    assert len(queue.pending) == 0


def test_one_timer_serves_all_deadlines() -> None:
    queue = Queue(timeout=2.0)
    callers = []
    for _ in range(5):
        callers.append(queue.add())
        assert queue.timers == 1
        queue.clock.advance(0.25)
    queue.clock.advance(0.75)
    assert [caller.fired for caller in callers] == [True, False, False, False, False]
    queue.clock.advance(0.5)
    assert [caller.fired for caller in callers] == [True, True, True, False, False]
    assert queue.timers == 1
    queue.clock.advance(9)
    assert all(isinstance(caller.outcome, NoMaster) for caller in callers)
    assert queue.timers == 0


def test_a_command_that_is_answered_does_not_time_out() -> None:
    queue = Queue(timeout=2.0)
    link = queue.open()
    caller = queue.add()
    queue.turn()
    link.answer(b"OK")
    queue.clock.advance(2.0)
    assert caller.outcome == b"OK"
    assert queue.timers == 0


def test_the_time_counts_over_a_failover() -> None:
    queue = Queue(timeout=2.0, writes_again=True)
    link = queue.open()
    caller = queue.add()
    queue.turn()
    queue.clock.advance(1.0)
    link.die()
    queue.clock.advance(1.0)
    # It was sent once, on a link that died: nobody knows.
    assert isinstance(caller.outcome, OutcomeUnknown)


# Refusing and stopping


def why() -> HARedisError:
    return WouldDiscardData("n:3 holds 7 keys")


def stopped(executed: bool | None) -> HARedisError:
    return ServiceStopped("stopped", executed)


def test_refuse_fails_what_waits_and_what_comes_until_it_is_taken_back() -> None:
    queue = Queue()
    waiting = queue.add()
    queue.pending.refuse(why)
    assert isinstance(waiting.outcome, WouldDiscardData)
    assert isinstance(queue.add().outcome, WouldDiscardData)
    assert len(queue.pending) == 0
    queue.pending.refuse(None)
    queue.add("now")
    assert queue.open().written == [b"now"]


def test_refuse_leaves_what_was_sent() -> None:
    queue = Queue()
    link = queue.open()
    sent = queue.add()
    queue.turn()
    waiting = queue.add()
    queue.pending.refuse(why)
    assert waiting.fired
    assert not sent.fired
    link.answer(b"OK")
    assert sent.outcome == b"OK"


@pytest.mark.parametrize("end", ["turned away", "lost"])
def test_what_would_go_again_is_refused_too(end: str) -> None:
    queue = Queue(writes_again=True)
    link = queue.open()
    sent = queue.add()
    queue.turn()
    queue.pending.refuse(why)
    if end == "lost":
        link.die()
    else:
        link.answer(READONLY)
    assert isinstance(sent.outcome, WouldDiscardData if end == "turned away" else OutcomeUnknown)
    assert len(queue.pending) == 0


def test_stop_says_what_is_known_of_each_command() -> None:
    queue = Queue(timeout=5.0)
    link = queue.open()
    sent = queue.add()
    queue.turn()
    waiting = queue.add()
    queue.pending.stop(stopped)
    assert not sent.fired
    link.die()
    assert isinstance(sent.outcome, ServiceStopped)
    assert isinstance(waiting.outcome, ServiceStopped)
    assert (sent.outcome.executed, waiting.outcome.executed) == (None, False)
    assert isinstance(queue.add().outcome, ServiceStopped)
    assert len(queue.pending) == 0
    assert queue.timers == 0


def test_reads_do_not_outlive_a_stop() -> None:
    queue = Queue(writes_again=True)
    link = queue.open()
    sent = queue.add(read=True)
    queue.turn()
    queue.pending.stop(stopped)
    link.die()
    assert isinstance(sent.outcome, ServiceStopped)


def test_a_command_turned_away_after_a_stop_was_not_executed() -> None:
    queue = Queue()
    link = queue.open()
    sent = queue.add()
    queue.turn()
    queue.pending.stop(stopped)
    link.answer(READONLY)
    assert isinstance(sent.outcome, ServiceStopped)
    assert sent.outcome.executed is False
    assert len(queue.pending) == 0


def test_a_command_answered_after_a_stop_has_its_answer() -> None:
    queue = Queue()
    link = queue.open()
    sent = queue.add()
    queue.turn()
    queue.pending.stop(stopped)
    link.answer(b"OK")
    assert sent.outcome == b"OK"


# Idle


def test_idle_at_once_when_nothing_is_pending() -> None:
    assert Queue().pending.when_idle().called


@pytest.mark.parametrize("end", ["answer", "die", "cancel", "refuse", "stop", "expire"])
def test_idle_when_the_last_command_is_done(end: str) -> None:
    queue = Queue(timeout=5.0)
    caller = queue.add()
    idle = queue.pending.when_idle()
    assert not idle.called
    match end:
        case "answer":
            queue.open().answer(b"OK")
        case "die":
            queue.open().die()
        case "cancel":
            caller.deferred.cancel()
        case "refuse":
            queue.pending.refuse(why)
        case "stop":
            queue.pending.stop(stopped)
        case "expire":
            queue.clock.advance(5.0)
    assert idle.called
    assert caller.fired


def test_idle_only_when_a_cancelled_sent_command_is_answered() -> None:
    queue = Queue()
    link = queue.open()
    caller = queue.add()
    queue.turn()
    idle = queue.pending.when_idle()
    caller.deferred.cancel()
    assert not idle.called
    link.answer(b"OK")
    assert idle.called


def test_idle_when_what_was_turned_away_is_cancelled() -> None:
    queue = Queue()
    turned_away, other = queue.add("w1"), queue.add("w2")
    link = queue.open()
    idle = Caller(queue.pending.when_idle())
    link.answer(READONLY)
    turned_away.deferred.cancel()
    queue.open()
    assert not idle.fired
    link.answer(b"OK")
    assert other.outcome == b"OK"
    assert idle.fired


def test_not_idle_while_a_callback_submits_more() -> None:
    queue = Queue()
    link = queue.open()
    caller = queue.add()
    queue.turn()
    caller.deferred.addCallback(lambda _: queue.add("more"))
    idle = queue.pending.when_idle()
    link.answer(b"OK")
    assert not idle.called
    queue.turn()
    link.answer(b"OK")
    assert idle.called


# Callbacks that do things


def test_a_callback_may_submit() -> None:
    queue = Queue()
    link = queue.open()
    caller = queue.add()
    queue.turn()
    caller.deferred.addCallback(lambda _: queue.add("more"))
    link.answer(b"OK")
    queue.turn()
    assert link.batches == [[b"w1"], [b"more"]]


def test_a_callback_may_cancel_another() -> None:
    queue = Queue()
    link = queue.open()
    first, sent = queue.add(), queue.add()
    queue.turn()
    unsent = queue.add()

    def cancel(_: object) -> None:
        sent.deferred.cancel()
        unsent.deferred.cancel()

    first.deferred.addCallback(cancel)
    link.answer(b"OK", b"OK")
    queue.turn()
    assert isinstance(sent.outcome, CancelledError)
    assert isinstance(unsent.outcome, CancelledError)
    assert len(queue.pending) == 0
    assert link.written == [b"w1", b"w2"]


@pytest.mark.parametrize("end", ["refuse", "stop", "die", "expire"])
def test_a_callback_may_cancel_what_is_about_to_fail(end: str) -> None:
    queue = Queue(timeout=5.0)
    callers = [queue.add(), queue.add(), queue.add()]
    callers[0].deferred.addBoth(lambda _: callers[1].deferred.cancel())
    idle = queue.pending.when_idle()
    match end:
        case "refuse":
            queue.pending.refuse(why)
        case "stop":
            queue.pending.stop(stopped)
        case "die":
            queue.open().die()
        case "expire":
            queue.clock.advance(5.0)
    assert [len(caller.outcomes) for caller in callers] == [1, 1, 1]
    assert isinstance(callers[1].outcome, CancelledError)
    assert len(queue.pending) == 0
    assert idle.called
    # The bounds are right again: exactly max_pending more fit.
    queue.pending.refuse(None)
    more = [queue.add() for _ in range(1001)]
    assert [caller.fired for caller in more] == [False] * 1000 + [True]


@pytest.mark.parametrize("end", ["answer", "refuse", "die", "expire"])
def test_a_callback_may_stop_the_queue(end: str) -> None:
    queue = Queue(timeout=5.0)
    callers = [queue.add(), queue.add(), queue.add()]
    link = FakeLink()

    def stop(_: object) -> None:
        queue.pending.stop(stopped)
        link.die()

    callers[0].deferred.addBoth(stop)
    if end != "refuse":
        queue.pending.open(link)
    queue.clock.advance(1.0)
    queue.add()
    match end:
        case "answer":
            link.answer(b"OK")
        case "refuse":
            queue.pending.refuse(why)
        case "die":
            link.die()
        case "expire":
            queue.clock.advance(4.0)
    assert [len(caller.outcomes) for caller in callers] == [1, 1, 1]
    assert len(queue.pending) == 0
    assert queue.timers == 0


def test_turned_away_may_open_at_once() -> None:
    queue = Queue()
    other = FakeLink()
    queue = Queue(turned_away=lambda _: queue.pending.open(other))
    link = queue.open()
    caller = queue.add()
    queue.turn()
    link.answer(READONLY)
    assert other.written == [b"w1"]
    other.answer(b"OK")
    assert caller.outcome == b"OK"


# Anything, in any order, against a model


class Sent:
    """What the model knows of one command."""

    def __init__(self, number: int, read: bool) -> None:
        self.number = number
        self.read = read
        self.writes = 0
        self.turned_away = 0
        self.answered = False
        self.cancelled = False
        self.caller: Caller

    @property
    def open(self) -> bool:
        return not self.caller.fired


class ModelLink(FakeLink):
    """Checks the order of what is written."""

    def __init__(self, machine: QueueMachine) -> None:
        super().__init__()
        self.machine = machine

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool:
        in_flight = [int(bytes_) for bytes_, _ in self.waiting]
        if not super().send(packed, waiters):
            return False
        numbers = [int(bytes_) for bytes_ in packed]
        assert numbers == sorted(set(numbers)), "one batch, in the order of submission"
        assert all(before < numbers[0] for before in in_flight), "none overtakes"
        waiting = [s.number for s in self.machine.commands if s.open and not self._is_sent(s)]
        assert set(waiting) <= set(numbers), "none is left behind"
        for number in numbers:
            self.machine.commands[number].writes += 1
        return True

    def _is_sent(self, sent: Sent) -> bool:
        return any(int(bytes_) == sent.number for bytes_, _ in self.waiting)


class QueueMachine(RuleBasedStateMachine):
    """Callers, a link that answers, turns away and dies at any time, and a clock."""

    writes_again = False

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(
            writes_again=self.writes_again, timeout=10.0, max_pending=50, max_pending_bytes=100
        )
        self.link = ModelLink(self)
        self.link.alive = False
        self.commands: list[Sent] = []
        self.refused = False

    @rule(read=st.booleans(), reaction=st.sampled_from(["", "", "", "add", "cancel", "die"]))
    def add(self, read: bool, reaction: str) -> None:
        self.submit(read).caller.deferred.addBoth(lambda _: self.react(reaction))

    def submit(self, read: bool) -> Sent:
        sent = Sent(len(self.commands), read)
        packed = b"%d" % sent.number
        sent.caller = Caller(self.queue.pending.add((str(sent.number),), packed, read))
        self.commands.append(sent)
        if sent.caller.fired:
            assert isinstance(sent.caller.outcome, (QueueFull, WouldDiscardData))
            assert isinstance(sent.caller.outcome, WouldDiscardData) == self.refused
        return sent

    def react(self, reaction: str) -> None:
        match reaction:
            case "add" if len(self.commands) < 200:
                self.submit(read=False)
            case "cancel":
                self.cancel(0)
            case "die":
                self.die()

    @rule(which=st.integers(0, 10))
    def cancel(self, which: int) -> None:
        waiting = [sent for sent in self.commands if sent.open]
        if waiting:
            sent = waiting[which % len(waiting)]
            sent.cancelled = True
            sent.caller.deferred.cancel()
            assert isinstance(sent.caller.outcome, CancelledError)

    @rule()
    def turn(self) -> None:
        self.queue.turn()

    @rule(seconds=st.sampled_from([0.1, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.queue.clock.advance(seconds)

    @precondition(lambda self: not self.link.alive)
    @rule()
    def connect(self) -> None:
        self.link = ModelLink(self)
        self.queue.pending.open(self.link)

    @precondition(lambda self: self.link.alive)
    @rule()
    def reopen(self) -> None:
        self.queue.pending.open(self.link)

    @rule()
    def close(self) -> None:
        self.queue.pending.close()

    @rule()
    def die(self) -> None:
        self.link.die()

    @precondition(lambda self: self.link.waiting)
    @rule(turned_away=st.sampled_from([False, False, True]), many=st.integers(1, 5))
    def answer(self, turned_away: bool, many: int) -> None:
        for _ in range(min(many, len(self.link.waiting))):
            if not self.link.waiting:
                break  # a callback let the link die
            sent = self.commands[int(self.link.waiting[0][0])]
            sent.turned_away += turned_away
            sent.answered = sent.answered or not turned_away
            self.link.answer(READONLY if turned_away else b"OK")

    @precondition(lambda self: not self.refused)
    @rule()
    def refuse(self) -> None:
        self.refused = True
        self.queue.pending.refuse(why)

    @precondition(lambda self: self.refused)
    @rule()
    def take_back(self) -> None:
        self.refused = False
        self.queue.pending.refuse(None)

    @invariant()
    def each_fires_at_most_once_and_for_a_reason(self) -> None:
        for sent in self.commands:
            assert len(sent.caller.outcomes) <= 1
            if not self.writes_again and not sent.read:
                assert sent.writes <= 1 + sent.turned_away
            if sent.open:
                continue
            match sent.caller.outcome:
                case b"OK":
                    assert sent.answered
                case NoMaster() | QueueFull() | WouldDiscardData():
                    # A read goes again when a write before it was turned away: its answer is old.
                    if not sent.read:
                        assert not sent.answered
                        assert sent.writes == sent.turned_away, "it may have been executed"
                case OutcomeUnknown():
                    assert sent.writes > 0
                case CancelledError():
                    pass
                case other:
                    raise AssertionError(other)

    @invariant()
    def the_counts_are_right(self) -> None:
        unsent = [s for s in self.commands if s.open]
        gone = [b for b, _ in self.link.waiting if not self.commands[int(b)].open]
        assert len(self.queue.pending) == len(unsent) + len(gone)

    def teardown(self) -> None:
        self.queue.pending.refuse(None)
        if self.link.alive:
            self.queue.pending.open(self.link)
        for _ in range(500):
            if not len(self.queue.pending):
                break
            if not self.link.alive:
                self.connect()
            self.queue.turn()
            self.answer(False, 5) if self.link.waiting else self.reopen()
        assert all(len(sent.caller.outcomes) == 1 for sent in self.commands)
        assert len(self.queue.pending) == 0
        assert self.queue.pending.when_idle().called
        self.queue.clock.advance(60.0)
        assert self.queue.timers == 0


class AtLeastOnceMachine(QueueMachine):
    writes_again = True


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
AtLeastOnceMachine.TestCase.settings = QueueMachine.TestCase.settings
TestAtMostOnce = QueueMachine.TestCase
TestAtLeastOnce = AtLeastOnceMachine.TestCase
