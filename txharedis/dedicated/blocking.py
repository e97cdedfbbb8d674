"""Blocking: commands for whose reply the server waits, on links of their own.

They go on waiting on the next master after a failover, and one that was cancelled takes nothing
away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import hiredis
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed

from txharedis.alarm import Alarm
from txharedis.commands import JOURNALLED
from txharedis.counter import count_command
from txharedis.dedicated.links import DedicatedLink, DedicatedLinks, DedicatedTerms
from txharedis.dedicated.waits import at_timeout, new_entries, timeout_of, undo
from txharedis.errors import (
    HARedisError,
    LinkLost,
    NoMaster,
    NotReplicated,
    OutcomeUnknown,
    ResponseError,
    ServiceStopped,
)
from txharedis.interfaces import Args, Clock, pack, wait_command
from txharedis.log import ClientLog
from txharedis.pending import PendingCommands

__all__ = ["Blocking"]

STOP_TIME = 0.5
"""Seconds that a stop gives the servers to take back what was waiting there."""

FIRST_TRY = 0.5
"""Seconds that a first link may take, also for a command that would wait for less."""
_AGAIN = object()


class Blocking:
    """The blocking commands of one client."""

    def __init__(
        self,
        clock: Clock,
        links: DedicatedLinks,
        pending: PendingCommands,
        log: ClientLog,
        terms: DedicatedTerms,
        ack_timeout: float,
    ) -> None:
        self.clock = clock
        self.ack_timeout = ack_timeout
        self.links = links
        self.pending = pending
        self.log = log
        self.terms = terms
        self.stopped = False
        self._commands: dict[_Blocked, None] = {}
        self._idle: list[Deferred[None]] = []

    def __len__(self) -> int:
        """How many are waiting, those that are being taken back among them."""
        return len(self._commands)

    def submit(
        self, name: str, args: Args, packed: bytes, db: int, *, read: bool, acks: int = 0
    ) -> Deferred[Any]:
        """Run a blocking command; `name` is its name in capitals, `packed` how `args` are sent.

        The Deferred fires with the converted reply, or fails with what DedicatedLinks.take and the
        server say, or with NotReplicated when fewer than `acks` replicas have confirmed. Cancelling
        it makes the server give up the waiting; what it had taken already is put back.
        """
        if self.stopped:
            return fail(ServiceStopped("the service was stopped"))
        command = _Blocked(self, name, args, _words(packed), db, read, acks)
        self._commands[command] = None
        Deferred.fromCoroutine(command.run()).addBoth(lambda _: self._over(command))
        return command.deferred

    def when_idle(self) -> Deferred[None]:
        """Fires when none is waiting."""
        if not self._commands:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def stop(self) -> Deferred[None]:
        """Fail all with ServiceStopped, and take back what waits on the servers.

        The Deferred fires when that is done, or after STOP_TIME.
        """
        self.stopped = True
        for command in tuple(self._commands):
            command.stop()
        done = self.when_idle()
        done.addTimeout(STOP_TIME, cast(Any, self.clock), lambda _, __: None)
        return done

    def _over(self, command: _Blocked) -> None:
        self._commands.pop(command, None)
        if not self._commands:
            idle, self._idle = self._idle, []
            for deferred in idle:
                if not deferred.called:
                    deferred.callback(None)


class _Blocked:
    """One blocking command, from its submission until nothing of it is left.

    `deferred` is the caller's. When the caller has given up, `run` goes on until the server has
    done so too.
    """

    def __init__(
        self,
        owner: Blocking,
        name: str,
        args: Args,
        words: list[bytes],
        db: int,
        read: bool,
        acks: int,
    ) -> None:
        self.deferred: Deferred[object] = Deferred(lambda _: self._give_up())
        self._owner = owner
        self._name = name
        self._args = args
        self._words = words
        self._db = db
        self._read = read
        self._acks = acks
        self._abandoned = False
        self._timeout = timeout_of(name, words)
        self._started = owner.clock.seconds()
        self._waiting_for: Deferred[Any] | None = None  # not yet on a link: it can be cancelled
        self._link: DedicatedLink | None = None  # where it waits
        self._issued_at = 0.0
        self._unblocking: Deferred[None] | None = None
        self._answered = Alarm(owner.clock)
        self._stray = False  # an unblocking may still be on its way to the link

    async def run(self) -> None:
        try:
            reply = await self._reply()
        except Exception as error:  # the caller's, whatever it is
            reply = error
        if not self.deferred.called:
            if isinstance(reply, Exception):
                self.deferred.errback(reply)
            else:
                self.deferred.callback(self._owner.terms.value(reply))

    def stop(self) -> None:
        """The client is being closed."""
        if not self.deferred.called:
            executed = None if self._link is not None else False
            self.deferred.errback(ServiceStopped("the service was stopped", executed))
        self._give_up()

    def _give_up(self) -> None:
        if not self._abandoned:
            self._abandoned = True
            if self._waiting_for is not None:
                self._waiting_for.cancel()
            elif self._link is not None:
                self._unblocking = Deferred.fromCoroutine(self._unblock(self._link))

    # The reply.

    async def _reply(self) -> object:
        least = FIRST_TRY
        try:
            if self._name in ("WAIT", "WAITAOF") or new_entries(self._name, self._words):
                # What this client sent before has to be done before.
                await self._earlier_commands()
            while not self._abandoned:
                link = await self._in_time(self._owner.links.take(self._db), least)
                least = 0.0
                reply = await self._try(link)
                if reply is not _AGAIN:
                    return reply
        except TimeoutError:
            return at_timeout(self._name)
        raise CancelledError

    async def _try(self, link: DedicatedLink) -> object:
        """The reply of one link, or _AGAIN when it is to be had from another one."""
        try:
            reply = await self._issue(link)
        except LinkLost:
            self._owner.links.discard(link)
            young = self._owner.clock.seconds() - self._issued_at < 0.1
            if young and not self._abandoned:
                self._answered.news = False
                await self._answered.sleep(0.05)  # it may be lost again: no busy loop
            return _AGAIN
        if self._abandoned or not self._goes_again(reply):
            return reply
        self._owner.terms.turned_away(cast(Exception, reply))
        return _AGAIN

    def _goes_again(self, reply: object) -> bool:
        """Whether the node is the one to wait on no more; not, when a person has unblocked it."""
        return (
            isinstance(reply, Exception)
            and "via CLIENT UNBLOCK" not in str(reply)
            and self._owner.terms.may_retry(reply)
        )

    def _left(self) -> float | None:
        """Seconds that are left of its time, None when it waits for ever."""
        if self._timeout is None or not self._timeout.seconds:
            return None
        return self._started + self._timeout.seconds - self._owner.clock.seconds()

    async def _in_time(self, waiting: Deferred[Any], least: float) -> Any:
        """Wait for this until the time is over, or at least so long; TimeoutError after that."""
        left = self._left()
        if left is not None:
            waiting.addTimeout(max(least, left), cast(Any, self._owner.clock))
        self._waiting_for = waiting
        try:
            return await waiting
        finally:
            self._waiting_for = None

    async def _earlier_commands(self) -> None:
        ping = ("PING",)
        while True:
            try:
                await self._in_time(self._owner.pending.add(ping, pack(ping), True), FIRST_TRY)
            except ResponseError:
                return  # an answer too
            except (NoMaster, OutcomeUnknown):
                continue  # after `command_timeout`, which is not meant for what blocks
            return

    # On a link.

    async def _issue(self, link: DedicatedLink) -> object:
        """Write it and return the raw reply; the link is given back, whatever was the reply."""
        self._issued_at = self._owner.clock.seconds()
        self._link = link
        before = self._own_write()
        replies: list[object] = [None]
        try:
            await self._fix_new_entries(link)
            if not self._abandoned:
                replies = await self._ask(link, before)
        finally:
            self._link = None
            self._answered.wake()
        *refusals, reply = replies
        for refusal in refusals:
            if isinstance(refusal, Exception):
                reply = refusal
        took = reply.reply if isinstance(reply, NotReplicated) else reply
        executed = took is not None and not isinstance(took, Exception)
        if executed and not self._read and not before and self._owner.terms.counter is not None:
            link.exchange(count_command(self._owner.terms.counter, 1)).addErrback(lambda _: None)
        if executed and self._abandoned:
            await self._put_back(link, took)
        await self._settled(link)
        return reply

    async def _ask(self, link: DedicatedLink, before: Sequence[Args]) -> list[object]:
        """Write it, and what stands before it; with acks, a WAIT behind it."""
        if not self._acks:
            return await link.exchange(*before, self._with_time_left())
        # WAIT speaks of the newest write of its link, and what another client's push has let go is
        # none of those: one that changes nothing stands for it.
        assert self._owner.terms.counter is not None
        stand_in = count_command(self._owner.terms.counter, 0)
        wait = wait_command(self._acks, self._owner.ack_timeout)
        written: object
        waited: object
        try:
            *replies, written, waited = await link.exchange(
                *before, self._with_time_left(), stand_in, wait
            )
            if isinstance(written, Exception):
                waited = written
        except LinkLost as error:
            replies, waited = list(error.replies[: len(before) + 1]), error
            if len(replies) <= len(before):
                raise
        reply = replies[-1]
        if reply is not None and not isinstance(reply, Exception):
            replies[-1] = NotReplicated.of(self._args, reply, self._acks, waited) or reply
        return replies

    async def _settled(self, link: DedicatedLink) -> None:
        """Give the link back, when nothing can reach it that was meant for this command."""
        if self._unblocking is not None:
            await self._unblocking
        if self._stray:
            self._owner.links.discard(link)
        else:
            self._owner.links.give_back(link)

    def _with_time_left(self) -> Args:
        left = self._left()
        if left is None or self._timeout is None:
            return self._words
        return self._timeout.replaced(self._words, left)

    def _own_write(self) -> Sequence[Args]:
        """WAIT speaks of the writes of its own link: one that changes nothing, after all others."""
        if self._name not in ("WAIT", "WAITAOF"):
            return ()
        if self._owner.terms.counter is None:
            return [("PUBLISH", "haredis:wait", "")]
        return [count_command(self._owner.terms.counter, 0)]

    async def _fix_new_entries(self, link: DedicatedLink) -> None:
        """Put the newest ids for `$`, which would be another moment when it is issued again."""
        asked = new_entries(self._name, self._words)
        if asked:
            replies = await link.exchange(
                *((b"XREVRANGE", stream, b"+", b"-", b"COUNT", 1) for stream in asked.values())
            )
            for index, reply in zip(asked, replies, strict=True):
                match reply:
                    case []:
                        self._words[index] = b"0-0"
                    case [[bytes(newest), *_]]:
                        self._words[index] = newest

    # Taking it back.

    async def _unblock(self, link: DedicatedLink) -> None:
        """Make the server answer now.

        It is asked again until there is an answer: the command may reach the server after this,
        which goes over another link. Where that is not allowed, the command waits for its own end.
        """
        client_id = await link.client_id()
        delay = 0.005
        while self._link is link and client_id is not None:
            control = link.node.control
            if control is not None:
                try:
                    [reply] = await control.exchange(
                        ["CLIENT", "UNBLOCK", client_id], timeout=STOP_TIME
                    )
                except LinkLost:
                    self._stray = True
                else:
                    if isinstance(reply, Exception):
                        return
            if self._link is link:
                self._answered.news = False
                await self._answered.sleep(delay)
                delay = min(2 * delay, 1.0)

    async def _put_back(self, link: DedicatedLink, reply: object) -> None:
        command = undo(self._name, self._words, reply)
        if command is None:
            return
        try:
            try:
                packed = pack(tuple(command))
                await self._owner.pending.add(command, packed, False, self._db, fit=JOURNALLED)
            except HARedisError as error:
                if error.executed is not False:
                    raise
                # The queue takes no more; this link does.
                [answer] = await link.exchange(command)
                if isinstance(answer, Exception):
                    raise answer from None
        except (HARedisError, ResponseError) as error:
            self._owner.log.error(
                "what a cancelled {name} took from {key} could not be put back: {error}",
                name=self._name,
                key=command[1],
                error=str(error),
            )


def _words(packed: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(packed)
    return cast(list[bytes], reader.gets())
