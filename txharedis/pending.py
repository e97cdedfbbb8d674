"""Commands on their way: queued, written, answered; and what becomes of them when a link dies.

A caller's Deferred lives here, never on a link, so it survives any number of masters.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from txharedis.commands import PLAIN
from txharedis.deadlines import Deadlines
from txharedis.errors import HARedisError, NoMaster, NotReplicated, OutcomeUnknown, QueueFull
from txharedis.interfaces import Args, Clock, Link, Timer, pack
from txharedis.options import Terms

__all__ = ["Command", "PendingCommands", "Writer"]


class Command:
    """One command of a caller, from its submission until its Deferred fires.

    `deferred` is None once the caller no longer waits. `db` is the database that it is meant for,
    whatever is selected by the time it is written. `sent` tells whether it is on a link now,
    `uncertain` that it is a write whose reply was lost once: it may have been executed. `kind` says
    in what form it goes out (see Terms.kinds), `batch` is the one of the journal that it is in.
    """

    __slots__ = (
        "args",
        "batch",
        "db",
        "deferred",
        "kind",
        "packed",
        "queue",
        "read",
        "sent",
        "terms",
        "uncertain",
    )

    def __init__(
        self,
        queue: PendingCommands,
        args: Args,
        packed: bytes,
        read: bool,
        terms: Terms,
        fit: int,
    ) -> None:
        self.queue = queue
        self.terms = terms
        self.kind = terms.kinds[fit]
        self.batch: Any = None
        self.db = queue._db  # not through the property: this is run for every command
        self.args = args
        self.packed = packed
        self.read = read
        self.sent = self.uncertain = False
        self.deferred: Deferred[object] | None = Deferred(self._cancel)

    @property
    def name(self) -> str:
        """As its caller wrote it."""
        return str(self.args[0]) if self.args else "?"

    def _cancel(self, deferred: Deferred[object]) -> None:
        self.queue.cancelled(self)

    def settle(self, reply: object) -> None:
        """It was answered."""
        queue = self.queue
        deferred = self.deferred
        if isinstance(reply, Exception):
            if deferred is not None and queue.may_retry(reply):
                queue.turned_away(self, reply)
            else:
                queue.failed(self, reply)
        elif queue._overtaken and self.read and deferred is not None:
            # Something before it was turned away, and it would have read what that wrote.
            queue.again(self)
        else:
            queue._in_flight -= 1
            self.sent = False
            queue._count -= 1
            queue._bytes -= len(self.packed)
            if deferred is not None:
                self.deferred = None
                convert = queue._convert
                deferred.callback(reply if convert is None else convert(reply))
            if not queue._in_flight:
                queue._drained()

    def lost(self) -> None:
        self.queue.lost(self)


class Writer(Protocol):
    """Whoever puts commands on a link in the form in which they go out."""

    def write(self, link: Link, commands: Sequence[Command]) -> int | None:
        """Returns how many of them, None when the link is gone.

        The others have to wait until all that is in flight is answered.
        """


class _Select:
    """Selects a database on the link of a queue."""

    def __init__(self, queue: PendingCommands, link: Link, db: int) -> None:
        self._queue = queue
        self._link = link
        self._db = db

    def send(self) -> bool:
        return self._link.send([pack(("SELECT", self._db))], [self])

    def settle(self, reply: object) -> None:
        if isinstance(reply, Exception):
            self._queue.not_selected(self._db, reply)
        else:
            self._link.db = self._db
            self._queue.selected()

    def lost(self) -> None:
        self._queue.close()
        self._queue.selected()


class PendingCommands:
    """The queue of one client.

    `open(link)` lets commands flow, in their order, those that have to go again first; `close()`
    holds them back. `convert` makes the caller's value of a raw reply. `may_retry(error)` says
    which error replies mean that another node, or this one later, should run the command;
    `turned_away(error)` is called when one came, after the queue has closed itself.

    `db` is the database of the commands that are added. Another one may be set at any time: each
    command is run in the database in which it was given, now or after a failover.
    """

    def __init__(
        self,
        clock: Clock,
        delivery: Writer,
        *,
        max_pending: int,
        max_pending_bytes: int,
        terms: Terms,
        convert: Callable[[object], object] | None,
        may_retry: Callable[[Exception], bool],
        turned_away: Callable[[Exception], None],
        db: int = 0,
    ) -> None:
        self._clock = clock
        self._delivery = delivery
        self._db = db
        self._several = False  # whether there ever was another database
        self.good_until = math.inf  # nothing is written after this time, on the clock
        self._selecting = False
        self._max_pending = max_pending
        self._max_bytes = max_pending_bytes
        self._terms = terms
        self._convert = convert
        self.may_retry = may_retry
        self._tell_turned_away = turned_away
        self._link: Link | None = None
        self._queued: deque[Command] = deque()  # never written, in order
        self._returned: deque[Command] = deque()  # to be written again, in order, before those
        self._dropped = 0  # cancelled commands that still stand in the two
        self._overtaken = False  # whether what stands behind some returned one was run
        self._behind_flight = False  # whether the queued wait for all that is in flight
        self._in_flight = 0
        self._count = 0
        self._bytes = 0
        self._flush_due = False
        self._flush_call: Timer | None = None
        self._deadlines = Deadlines(clock, self._expire)
        self._refusal: Callable[[], HARedisError] | None = None
        self._stopped: Callable[[bool | None], HARedisError] | None = None
        self._idle: list[Deferred[None]] = []
        self.redispatched = 0  # how many went back into the queue for another master, or link

    def __len__(self) -> int:
        """How many commands are waiting or unanswered."""
        return self._count

    def __repr__(self) -> str:
        gate = "open" if self._link is not None else "held"
        return f"<PendingCommands {self._count} pending, {self._in_flight} in flight, {gate}>"

    @property
    def held(self) -> bool:
        """Whether commands are held back."""
        return self._link is None

    @property
    def size(self) -> int:
        """The bytes of the commands that are waiting or unanswered."""
        return self._bytes

    @property
    def db(self) -> int:
        """The database of the commands that are added."""
        return self._db

    @db.setter
    def db(self, db: int) -> None:
        self._several = self._several or db != self._db
        self._db = db

    def add(
        self,
        args: Args,
        packed: bytes,
        read: bool,
        db: int | None = None,
        terms: Terms | None = None,
        fit: int = PLAIN,
        *,
        reserved: bool = False,
    ) -> Deferred[object]:
        """Take a command; the Deferred fires with its converted reply.

        `db` is the database that it is meant for, None for the present one. `terms` are those of
        the queue when None; `fit` is CommandInfo's; `reserved` tells that there is room for it
        already, which it takes over. It fails with QueueFull when a bound is reached, or with what
        `refuse` was given.
        """
        if terms is None:
            terms = self._terms
        # `reserve`, without a call more for every command.
        size = len(packed)
        if reserved:
            if self._refusal is not None:
                self.release(size)
                return fail(self._refusal())
        elif (
            self._refusal is not None
            or self._count >= self._max_pending
            or self._bytes + size > self._max_bytes
        ):
            return fail(self._no_room(size))
        else:
            self._count += 1
            self._bytes += size
        command = Command(self, args, packed, read, terms, fit)
        if db is not None and db != self._db:
            self._several = True
            command.db = db
        self._queued.append(command)
        if self._link is not None and not self._flush_due:
            self._flush_soon(self._link)
        if terms.timeout is not None:
            self._deadlines.add(command, terms.timeout)
        assert command.deferred is not None
        return command.deferred

    def reserve(self, size: int) -> HARedisError | None:
        """Make room for a command of so many bytes, here or elsewhere, or say why there is none.

        What is elsewhere is pending too, until `release`.
        """
        if (
            self._refusal is not None
            or self._count >= self._max_pending
            or self._bytes + size > self._max_bytes
        ):
            return self._no_room(size)
        self.keep(size)
        return None

    def keep(self, size: int) -> None:
        """Make room, beyond the bounds too: for a command that was taken and changes its place."""
        self._count += 1
        self._bytes += size

    def _no_room(self, size: int) -> HARedisError:
        if self._refusal is not None:
            return self._refusal()
        return QueueFull(
            f"{self._count} commands ({self._bytes} bytes) already wait, this one has "
            f"{size} bytes "
            f"(max_pending={self._max_pending}, max_pending_bytes={self._max_bytes})"
        )

    def release(self, size: int) -> None:
        """A command elsewhere is answered, or has come back."""
        self._count -= 1
        self._bytes -= size
        if not self._count:
            self._drained()

    @property
    def refusal(self) -> HARedisError | None:
        """What `refuse` says, or `stop`; None while commands are taken."""
        return None if self._refusal is None else self._refusal()

    def open(self, link: Link) -> None:
        """Let commands flow to this link, beginning with those that wait."""
        self._link = link
        self._flush()

    def close(self) -> None:
        """Hold commands back; what is in flight may still be answered."""
        self._link = None

    def refuse(self, why: Callable[[], HARedisError] | None) -> None:
        """Fail what is not on a link, and all that comes, with `why()`; None takes it back.

        A write that was on a link that died fails with OutcomeUnknown instead.
        """
        self._refusal = why
        if why is not None:
            for command in self._take_unsent():
                if command.deferred is not None:  # a callback may have cancelled it by now
                    self._give_up(command, why())
            if not self._in_flight:
                self._drained()

    def stop(self, why: Callable[[bool | None], HARedisError]) -> None:
        """Take no more; fail all that waits with `why(False)`.

        What is in flight fails with `why(None)` when the caller aborts the link, after this.
        """
        self.close()
        self._stopped = why
        self.refuse(lambda: why(False))
        self._deadlines.stop()
        if self._flush_call is not None and self._flush_call.active():
            self._flush_call.cancel()
        self._flush_call = None
        self._flush_due = False

    def when_idle(self) -> Deferred[None]:
        """Fires when nothing is waiting or unanswered."""
        if not self._count:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    # What happens to one command that is on a link.

    def confirmed(self, command: Command, reply: object, acks: int, replicas: object) -> None:
        """It was answered, and this is what WAIT has answered to `acks`."""
        error = NotReplicated.of(command.args, reply, acks, replicas) if acks else None
        if error is None:
            command.settle(reply)
        else:
            self.failed(command, error)

    def failed(self, command: Command, error: Exception) -> None:
        """It has come to an end with this."""
        self._off_link(command)
        self._finish(command, error)
        if not self._in_flight:
            self._drained()

    def again(self, command: Command, *, aside: bool = False) -> None:
        """It was not executed, and goes again.

        With `aside` the reads behind it keep their replies: they do not depend on it.
        """
        self._off_link(command)
        self._return(command, aside=aside)
        if not self._in_flight:
            self._drained()

    def turned_away(self, command: Command, error: Exception) -> None:
        """The server will not run it, but another one will, or this one later."""
        self._off_link(command)
        self.redispatched += 1
        self._return(command)
        if self._link is not None:
            self.close()
            self._tell_turned_away(error)
        if not self._in_flight:
            self._drained()

    def lost(self, command: Command, error: Exception | None = None) -> None:
        """Its link has ended before its reply, or before all of it.

        `error` is what it fails with when it cannot go again, None for OutcomeUnknown.
        """
        self.close()
        self._off_link(command)
        if self._stopped is not None:
            self._finish(command, self._stopped(None))
        elif command.deferred is not None and (
            command.read or command.batch is not None or command.terms.delivery == "at-least-once"
        ):
            command.uncertain = not command.read
            self.redispatched += 1
            self._return(command)
        else:
            self._finish(command, error or _outcome_unknown(command, "its link was lost"))
        if not self._in_flight:
            self._drained()

    def _off_link(self, command: Command) -> None:
        self._in_flight -= 1
        command.sent = False

    def cancelled(self, command: Command) -> None:
        command.deferred = None
        if not command.sent:
            self._count -= 1
            self._bytes -= len(command.packed)
            self._dropped += 1
            if self._dropped > 32 + (len(self._queued) + len(self._returned)) // 2:
                self._compact()
            if command.batch is not None:
                command.batch.given_up()
            if not self._count:
                self._drained()

    def _return(self, command: Command, *, aside: bool = False) -> None:
        if command.deferred is None:
            self._give_up(command, CancelledError())
        elif self._refusal is None:
            self._returned.append(command)
            self._overtaken = self._overtaken or not aside
        else:
            self._give_up(command, self._refusal())

    def _give_up(self, command: Command, error: Exception) -> None:
        """It is on no link, and ends with `error`, if that is the whole truth."""
        self._finish(command, self._not_sent(command, error))
        if command.batch is not None:
            command.batch.given_up()

    def _not_sent(self, command: Command, error: Exception) -> Exception:
        """What a command that is on no link fails with: `error`, if that is the whole truth."""
        if not command.uncertain:
            return error
        if self._stopped is not None:
            return self._stopped(None)
        return _outcome_unknown(command, "its link was lost")

    def _finish(self, command: Command, error: Exception) -> None:
        self._count -= 1
        self._bytes -= len(command.packed)
        deferred, command.deferred = command.deferred, None
        if deferred is not None:
            deferred.errback(error)

    def _drained(self) -> None:
        """Nothing is in flight."""
        if not self._count and self._idle:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)
        if self._link is not None and (self._returned or (self._queued and not self._flush_due)):
            self._flush()

    # How they go out.

    def _flush_soon(self, link: Link) -> None:
        """What is given in one turn goes out in one piece: behind the replies that are being handed
        out now, or else in the reactor's next turn."""
        self._flush_due = True
        if not link.after_read(self._flush_turn):
            self._flush_call = self._clock.callLater(0, self._flush_turn)

    def _flush_turn(self) -> None:
        self._flush_due = False
        self._flush_call = None
        self._flush()

    def _flush(self) -> None:
        if self._link is None or self._selecting:
            return
        # A command that has to go again waits until the link has answered all the others, some of
        # which may have to go again too: the order of submission is kept.
        if self._in_flight and (self._returned or self._behind_flight):
            return
        if self._clock.seconds() > self.good_until:
            return  # the process has slept: whoever let them flow has to look first
        batch = self._take_unsent()
        if self._several:
            batch = self._of_one_database(self._link, batch)
        if not batch:
            return
        count = self._delivery.write(self._link, batch)
        if count is None:
            self._returned.extend(batch)
            self.close()
            return
        if count < len(batch):
            self._behind_flight = True
            self._queued.extendleft(reversed(batch[count:]))
            batch = batch[:count]
        for command in batch:
            command.sent = True
        self._in_flight += len(batch)
        if self._queued:
            self._flush()  # those of another database

    # Databases.

    def _of_one_database(self, link: Link, batch: list[Command]) -> list[Command]:
        """What can go now; the others wait until their database has been selected on the link."""
        here = list(takewhile(lambda command: command.db == link.db, batch))
        later = batch[len(here) :]
        self._queued.extendleft(reversed(later))
        if later and not here:
            self._selecting = True
            if not _Select(self, link, later[0].db).send():
                self._selecting = False
                self.close()
        return here

    def selected(self) -> None:
        """A SELECT was answered, or lost."""
        self._selecting = False
        self._flush()

    def not_selected(self, db: int, error: Exception) -> None:
        """The server refuses the database: nothing that was meant for it may be run elsewhere."""
        if self.may_retry(error):
            self._selecting = False
            if self._link is not None:
                self.close()
                self._tell_turned_away(error)
            return
        unsent = self._take_unsent()
        self._queued.extend(command for command in unsent if command.db != db)
        for command in unsent:
            if command.db == db and command.deferred is not None:
                again = type(error)(*error.args)  # an exception collects its raiser's traceback
                self._give_up(command, again)
        if not self._in_flight:
            self._drained()
        self.selected()

    def _take_unsent(self) -> list[Command]:
        batch = [*self._returned, *self._queued]
        if self._dropped:
            batch = [command for command in batch if command.deferred is not None]
        self._returned.clear()
        self._queued.clear()
        self._dropped = 0
        self._overtaken = self._behind_flight = False
        return batch

    def _compact(self) -> None:
        _drop_done(self._returned)
        _drop_done(self._queued)
        self._dropped = 0

    # Timeouts.

    def _expire(self, command: Command) -> None:
        deferred = command.deferred
        assert deferred is not None
        timeout = command.terms.timeout
        # Said while it is still in its batch, if it is in one.
        error: Exception
        if command.sent:
            error = _outcome_unknown(command, f"no reply within {timeout} s")
        else:
            error = NoMaster(f"no master took the command within {timeout} s")
            error = self._not_sent(command, error)
        self.cancelled(command)
        deferred.errback(error)


def _drop_done(commands: deque[Command]) -> None:
    kept = [command for command in commands if command.deferred is not None]
    commands.clear()
    commands.extend(kept)


def _outcome_unknown(command: Command, why: str) -> OutcomeUnknown:
    text = f"{command.name} was sent and {why}: it may have been executed"
    if command.terms.delivery == "exactly-once" and command.batch is None and not command.read:
        text += " (it cannot go through the journal, so its delivery is at-most-once)"
    return OutcomeUnknown(text, command.args)
