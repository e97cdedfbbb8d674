"""Delivery: in what form the commands of one turn go out, and when their replies count.

The terms of each command decide: writes for exactly-once go in batches through the journal, all
others as they are. With `acks` a WAIT follows, and the replies count when enough replicas have
confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from operator import attrgetter

from txharedis.counter import Counter
from txharedis.errors import LinkLost, NotReplicated, OutcomeUnknown
from txharedis.interfaces import Clock, Link, Waiter, pack, wait_command
from txharedis.journal import BATCH_BYTES, BATCH_COMMANDS, INEXACT, Journal, Ran, read_replies
from txharedis.options import RIDES
from txharedis.pending import Command, PendingCommands
from txharedis.replies import is_demotion, journal_denied, of_script_only

__all__ = ["Delivery"]

_AS_THEY_ARE = frozenset({0, RIDES})
# A server that takes no writes now makes no journal: each command has its own answer then.
_NO_WRITES = ("OOM ", "MISCONF ", "NOREPLICAS ")
_TRY_AGAIN = 60.0  # seconds after which a journal is tried where it was denied
_ITS_BATCH, _PACKED = attrgetter("batch"), attrgetter("packed")


class Delivery:
    """How the commands of one client go out.

    `counter` is the key in which writes are counted, None for not at all; `own_db` the database of
    our keys; `ack_timeout` in seconds. `denied(error)` is called when a server will not have our
    journal: what was meant for it goes out as it is then.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        own_db: int,
        counter: str | None,
        ack_timeout: float,
        denied: Callable[[Exception], None],
    ) -> None:
        self.clock = clock
        self.journal = Journal(own_db, counter)
        self.send_whole = False  # the next batch brings the text of its script
        self.in_flight = 0  # batches
        self._counter = Counter(None if counter is None else (counter, own_db))
        self._ack_timeout = ack_timeout
        self._denied = denied
        self._denied_until = 0.0
        self._last: _Batch | None = None  # the newest that was written

    def write(self, link: Link, commands: Sequence[Command]) -> int | None:
        """Write these in their order and in one piece; None when the link is gone.

        Returns how many were written. The others may be so when all that is in flight is answered:
        a batch that is refused as a whole goes again, and a plain write behind it would have been
        run before it.
        """
        packed: list[bytes] = []
        waiters: list[Waiter] = []
        kinds = [command.kind for command in commands]
        if _AS_THEY_ARE.issuperset(kinds):
            if self.in_flight:
                commands = list(takewhile(lambda command: command.read, commands))
                if not commands:
                    return 0
            self._add_plainly(link, commands, packed, waiters)
            return len(commands) if link.send(packed, waiters) else None
        batches: list[_Batch] = []
        units, count = self._batches(commands, kinds) or self._units(commands)
        if not units:
            return 0
        for unit in units:
            if isinstance(unit, _Batch):
                self._add_batch(link, unit, packed, waiters)
                batches.append(unit)
                continue
            acks = max(command.kind for command in unit) >> 1  # a read that rides has none
            if acks > 0 and not all(command.read for command in unit):
                run = _ConfirmedRun(unit, acks)
                self._add_plainly(link, unit, packed, waiters, [run] * len(unit))
                self._add_wait(acks, run, packed, waiters)
            else:
                self._add_plainly(link, unit, packed, waiters)
        sent = link.send(packed, waiters)
        for batch in batches:
            batch.written(self.clock.seconds() if sent else None)
        return count if sent else None

    def _batches(
        self, commands: Sequence[Command], kinds: Sequence[int]
    ) -> tuple[list[_Batch | list[Command]], int] | None:
        """As `_units`, where all are new writes for the journal, on the same terms, and small.

        That is what most turns are; None where this one is not.
        """
        kind, count = kinds[0], len(kinds)
        if (
            not kind & 1
            or kind == RIDES
            or kinds.count(kind) < count
            or any(map(_ITS_BATCH, commands))
            or sum(map(len, map(_PACKED, commands))) > BATCH_BYTES
            or self.clock.seconds() < self._denied_until
        ):
            return None
        pieces = range(0, count, BATCH_COMMANDS)
        acks = kind >> 1
        batches = (_Batch(self, tuple(commands[at : at + BATCH_COMMANDS]), acks) for at in pieces)
        return [*batches], count

    def _units(self, commands: Sequence[Command]) -> tuple[list[_Batch | list[Command]], int]:
        """Batches, those that go again among them, and runs of commands that go as they are.

        With the number of commands in them, see `write`.
        """
        units: list[_Batch | list[Command]] = []
        count = 0
        behind = self.in_flight > 0  # whether a batch stands before
        again: set[_Batch] = set()
        run: list[Command] = []
        kind, size = RIDES, 0
        may_keep = self.clock.seconds() >= self._denied_until

        def close() -> None:
            nonlocal behind
            if run and kind & 1 and kind != RIDES and may_keep:
                units.append(_Batch(self, tuple(run), kind >> 1))
                behind = True
            elif run:
                units.append(run.copy())
            run.clear()

        for command in commands:
            if command.batch is not None:
                close()
                kind, size = RIDES, 0
                if command.batch not in again:
                    again.add(command.batch)
                    units.append(command.batch)
                    behind = True
                count += 1
                continue
            size += len(command.packed)
            full = len(run) == BATCH_COMMANDS or size > BATCH_BYTES
            other = command.kind != kind and RIDES not in (kind, command.kind)
            if other or (full and kind & 1):
                close()
                kind, size = RIDES, len(command.packed)
            if behind and not command.read and not (command.kind & 1 and may_keep):
                break
            count += 1
            if command.kind != RIDES:
                kind = command.kind
            run.append(command)
        close()
        return units, count

    def _add_plainly(
        self,
        link: Link,
        commands: Sequence[Command],
        packed: list[bytes],
        waiters: list[Waiter],
        instead: Sequence[Waiter] | None = None,
    ) -> None:
        packed += [command.packed for command in commands]
        waiters += commands if instead is None else instead
        count = self._counter.counting(link, [command.read for command in commands].count(False))
        if count is not None:
            packed.append(count[0])
            waiters.append(count[1])

    def _add_batch(
        self, link: Link, batch: _Batch, packed: list[bytes], waiters: list[Waiter]
    ) -> None:
        last, self._last = self._last, batch
        batch.after = last.number if last is not None and last.in_flight else 0
        batch.take_off()
        now = self.clock.seconds()
        packed.append(self.journal.encode(batch, link.db, now, whole=self.send_whole))
        waiters.append(batch)
        self.send_whole = False
        if batch.acks:
            self._add_wait(batch.acks, batch, packed, waiters)

    def _add_wait(
        self, acks: int, waiter: Waiter, packed: list[bytes], waiters: list[Waiter]
    ) -> None:
        packed.append(pack(wait_command(acks, self._ack_timeout)))
        waiters.append(waiter)

    def deny(self, error: Exception) -> None:
        """A server will not have our journal."""
        self._denied_until = self.clock.seconds() + _TRY_AGAIN
        self._denied(error)


class _Batch:
    """Writes, and reads among them, that go through the journal under one number.

    It stays one batch until all of it is answered or given up, on whatever master.
    """

    def __init__(self, delivery: Delivery, commands: tuple[Command, ...], acks: int) -> None:
        self.number = delivery.journal.number()
        self.commands = commands
        self.acks = acks
        self.after = 0
        self.in_flight = False
        self.sent_at: float | None = None  # when it was first sent
        self.lost_once = False  # some server may have run it
        self._delivery = delivery
        self._replies: list[object] = []
        for command in commands:
            command.batch = self

    @property
    def _queue(self) -> PendingCommands:
        return self.commands[0].queue

    def take_off(self) -> None:
        """It is on a link from here on."""
        self.in_flight = True
        self._delivery.in_flight += 1

    def _land(self) -> None:
        if self.in_flight:
            self.in_flight = False
            self._delivery.in_flight -= 1

    def written(self, now: float | None) -> None:
        """It was written now; None: it was not, the link is gone."""
        if now is None:
            self._land()
        elif self.sent_at is None:
            self.sent_at = now

    def given_up(self) -> None:
        """Somebody no longer waits: it is over when nobody waits for any of its writes."""
        if any(command.deferred is not None and not command.read for command in self.commands):
            return
        self._over()

    def _over(self) -> None:
        self._delivery.journal.settle(self.number)
        for command in self.commands:
            command.batch = None

    # As a waiter, for the reply of the script and for that of WAIT.

    def settle(self, reply: object) -> None:
        self._replies.append(reply)
        if len(self._replies) < (2 if self.acks else 1):
            return
        answer, *confirmed = self._replies
        self._replies = []
        self._land()
        if isinstance(answer, list):
            self._answered(answer, confirmed[0] if confirmed else 0)
        elif isinstance(answer, Exception):
            self._refused(answer)
        else:
            self._unknown(f"the journal answered {answer!r}")

    def lost(self) -> None:
        self._replies = []
        self._land()
        self.lost_once = self._delivery.journal.reply_lost = True
        for command in self.commands:
            if command.sent:
                self._queue.lost(command)
        self.given_up()

    def _answered(self, answer: list[object], confirmed: object) -> None:
        outcome = read_replies(answer)
        if outcome.ran == Ran.NOT_YET:
            self._go_again()
            return
        if outcome.ran in (Ran.UNKNOWN, Ran.SETTLED):
            self._unknown("its journal is gone")
            return
        self._delivery.journal.answered()
        if is_demotion(confirmed):
            assert isinstance(confirmed, Exception)
            self.lost_once = True
            for command in self._in_flight():
                command.uncertain = not command.read
                self._queue.turned_away(command, confirmed)
            return
        if outcome.ran == Ran.BEFORE_UNCONFIRMED:
            confirmed = 0
        self._over()
        odd = outcome.odd
        enough = not self.acks or (isinstance(confirmed, int) and confirmed >= self.acks)
        for place, (command, reply) in enumerate(zip(self.commands, outcome.replies, strict=True)):
            if not command.sent:
                continue
            if enough and not odd and not isinstance(reply, Exception):
                command.settle(reply)
            else:
                self._settle_one(command, reply, odd.get(place), confirmed)

    def _settle_one(
        self, command: Command, reply: object, odd: bytes | None, confirmed: object
    ) -> None:
        if odd is not None:
            why = "is beyond 2^53" if odd == INEXACT else "was lost, and is too large to be kept"
            self._queue.failed(command, _ran(command, f"its reply {why}"))
        elif isinstance(reply, Exception) and of_script_only(reply):
            # It was not executed. Nearly always it is refused outside of a script, too, in other
            # words; what stood behind it was run, and must not be run behind what followed.
            _make_plain(command)
            self._queue.again(command, aside=True)
        elif isinstance(reply, Exception) or command.read:
            command.settle(reply)
        else:
            self._queue.confirmed(command, reply, self.acks, confirmed)

    def _refused(self, error: Exception) -> None:
        """The script did not run, or raised before it had run any command."""
        if str(error).startswith("NOSCRIPT"):
            self._delivery.send_whole = True
            self._go_again()
        elif self._queue.may_retry(error):
            for command in self._in_flight():
                self._queue.turned_away(command, error)
        elif self.lost_once:
            self._unknown(f"another server refused: {error}")
        elif journal_denied(error) or str(error).startswith(_NO_WRITES):
            if journal_denied(error):
                self._delivery.deny(error)
            in_flight = self._in_flight()
            self._over()
            for command in in_flight:
                _make_plain(command)
                self._queue.again(command)
        else:
            in_flight = self._in_flight()
            self._over()
            for command in in_flight:
                command.settle(type(error)(*error.args))

    def _go_again(self) -> None:
        for command in self._in_flight():
            self._queue.again(command)

    def _unknown(self, why: str) -> None:
        in_flight = self._in_flight()
        self._over()
        for command in in_flight:
            if command.read:
                self._queue.again(command)
            else:
                self._queue.failed(command, _unknown(command, why))

    def _in_flight(self) -> list[Command]:
        return [command for command in self.commands if command.sent]


class _ConfirmedRun:
    """Commands that went out as they are, with one WAIT for `acks` replicas behind them."""

    def __init__(self, commands: Sequence[Command], acks: int) -> None:
        self._commands = commands
        self._acks = acks
        self._answered = 0
        self._unconfirmed: list[tuple[Command, object]] = []  # with their replies

    def settle(self, reply: object) -> None:
        if self._answered < len(self._commands):
            command = self._commands[self._answered]
            self._answered += 1
            if command.read or isinstance(reply, Exception):
                command.settle(reply)
            else:
                self._unconfirmed.append((command, reply))
            return
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        for command, its in unconfirmed:
            command.queue.confirmed(command, its, self._acks, reply)

    def lost(self) -> None:
        # It waits for several replies: the first that is lost is the end of all.
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        unanswered, self._answered = self._commands[self._answered :], len(self._commands)
        why = LinkLost("its link was lost")
        for command, its in unconfirmed:
            command.queue.lost(command, NotReplicated.of(command.args, its, self._acks, why))
        for command in unanswered:
            command.queue.lost(command)


def _make_plain(command: Command) -> None:
    command.kind = 0 if command.kind == RIDES else command.kind & ~1


def _unknown(command: Command, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{command.name} was sent and {why}: it may have been executed", command.args
    )


def _ran(command: Command, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{command.name} was executed, but {why}", command.args, executed=True)
