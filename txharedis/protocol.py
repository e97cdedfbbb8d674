"""The wire: txredisapi's protocol with hiredis in both directions.

Replies come back raw: bytes, int, None, list, or a ResponseError as a value. Whoever sent the
commands decides what they mean.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import hiredis
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from txredisapi import HiredisProtocol, ResponseError

from txharedis.errors import AccessDenied, LinkLost
from txharedis.interfaces import LONG, Args, Clock, Timer, Waiter, pack
from txharedis.options import Options
from txharedis.outlet import Outlet
from txharedis.replies import redacted
from txharedis.rights import denied
from txharedis.tls import refusal, speaks_tls
from txharedis.topology import Address

__all__ = ["Malformed", "NodeProtocol", "greeting"]


Result = TypeVar("Result")

#: Bytes read at once: usually, and while they come faster than they are read.
_USUAL_READ, _LARGE_READ = 64 * 1024, 256 * 1024


class Malformed(Exception):
    """Bytes that are not RESP."""


class NodeProtocol(HiredisProtocol):
    """One link to one node.

    On connecting it sends `handshake` and calls `ready(self, replies)` when all of it was answered
    without an error, or `refused(error, replies)` with the first error among them, and closes; also
    when there is no agreement on TLS. A handshake that takes longer than `timeout` seconds is
    aborted. After that, whatever comes without being asked for closes the link.

    With `last_may_be_denied` the want of a right for the last command of the handshake is no
    reason to refuse: `ready` finds the error among the replies.
    """

    def __init__(
        self,
        clock: Clock,
        handshake: Sequence[Args],
        timeout: float,
        ready: Callable[[NodeProtocol, list[object]], None],
        refused: Callable[[Exception, list[object]], None],
        *,
        last_may_be_denied: bool = False,
    ) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._reader = hiredis.Reader(protocolError=Malformed, replyError=ResponseError)
        self.callLater = clock.callLater
        self._clock = clock
        self._handshake = handshake
        self._timeout = timeout
        self._deadline: Timer | None = None
        self._when_ready = ready
        self._when_refused = refused
        self._last_may_be_denied = last_may_be_denied
        self._waiting: deque[Waiter] = deque()
        self._dead = self._lost = False
        self._reading = False
        self._after_read: list[Callable[[], object]] = []
        self.db = 0  # the selected database, for those who care
        self.owed: list[Args] = []  # what puts settings back, as long as it is not answered
        self._when_unasked: Callable[[object], None] | None = None
        self._ended: Deferred[None] | None = None  # for who listens
        # Being connected is no word from the server: the kernel accepts for one that hangs.
        self.last_heard = -math.inf

    def connectionMade(self) -> None:
        self._outlet = Outlet(self.transport)
        # What the reactor would call after another poll. TLS has none.
        self._write_now = getattr(self.transport, "doWrite", None)
        self._deadline = self._clock.callLater(self._timeout, self.abort)
        d = self.exchange(*self._handshake)
        d.addCallbacks(self._shaken, self._cut_off)
        d.addErrback(self._broken)

    def _shaken(self, replies: list[object]) -> None:
        self._stop_deadline()
        if not self._is_refusal(replies):
            self.connected = 1
            self._ready = True
            self._when_ready(self, replies)

    def _cut_off(self, failure: Failure) -> None:
        # A server with too many clients says so in one line, whatever it was asked, and closes.
        if isinstance(failure.value, LinkLost):
            self._is_refusal(failure.value.replies)

    def _is_refusal(self, replies: Sequence[object]) -> bool:
        firm = len(self._handshake) - 1
        for place, reply in enumerate(replies):
            if place == firm and self._last_may_be_denied and denied(reply):
                continue
            if isinstance(reply, Exception):
                self.abort()
                self._when_refused(redacted(reply), list(replies))
                return True
        return False

    def _broken(self, failure: Failure) -> None:
        # A defect of ours: say so through the link's end instead of going on half-made.
        self.abort()
        failure.raiseException()

    def _stop_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def exchange(
        self, *commands: Args, timeout: float | None = None, or_drop: bool = False
    ) -> Deferred[list[object]]:
        """Write commands together.

        The Deferred fires with their replies, error replies among them as values, or fails with
        LinkLost, also when there is no answer within `timeout` seconds. With `or_drop` the link is
        dropped then: a server that holds writes back (CLIENT PAUSE, its own FAILOVER) answers
        nothing behind one, and would be taken for dead.
        """
        waiter = _Exchange(len(commands))
        packed = [pack(tuple(args)) for args in commands]
        if timeout is not None:
            late = self._clock.callLater(timeout, self._give_up, waiter, timeout, or_drop)
            waiter.deferred.addBoth(_cancel, late)
        if not self.send(packed, [waiter] * len(packed)):
            waiter.lost()
        return waiter.deferred

    def paid(self, commands: Sequence[Args]) -> None:
        """These are owed no longer."""
        for command in commands:
            self.owed.remove(command)

    def _give_up(self, waiter: _Exchange, seconds: float, drop: bool) -> None:
        self._dead = self._dead or drop  # who hears of it writes nothing more here
        waiter.give_up(seconds)
        if drop:
            self.abort()

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool:
        """Write encoded commands in one piece; each waiter gets one reply, in order.

        Returns False, and writes nothing, when the link is gone.
        """
        if self._dead:
            return False
        self._waiting.extend(waiters)
        if sum(map(len, packed)) < LONG * len(packed) and not self._outlet.busy:
            self.transport.write(b"".join(packed))
            if self._write_now is not None and not self.transport.disconnecting:
                self._write_now()
        else:
            self._outlet.write(packed)
        return True

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        self.last_heard = self._clock.seconds()
        if self._dead:
            return
        self.transport.bufferSize = _USUAL_READ if len(data) < _USUAL_READ else _LARGE_READ
        self._reader.feed(data)
        gets = self._reader.gets
        waiting = self._waiting
        self._reading = True
        try:
            reply = gets()
            while reply is not False and not self._dead:
                if waiting:
                    waiting.popleft().settle(reply)
                else:
                    self.unasked(reply)
                reply = gets()
        except Malformed:
            self.abort()
            if not self._ready and speaks_tls(data):
                self._when_refused(AccessDenied("TLS: the node expects it (tls=True)"), [])
        except Exception:
            self.abort()  # a defect of whoever was told: the reactor drops the link
            raise
        finally:
            self._reading = False
            after, self._after_read = self._after_read, []
            for call in after:
                call()

    def after_read(self, call: Callable[[], object]) -> bool:
        """See Link."""
        if self._reading:
            self._after_read.append(call)
        return self._reading

    def unasked(self, reply: object) -> None:
        """A reply that nobody waits for: the streams are out of step, so the link is useless.

        Unless somebody listens to what comes unasked.
        """
        if self._when_unasked is None:
            self.abort()
        else:
            self._when_unasked(reply)

    def listen(self, heard: Callable[[object], None]) -> Deferred[None]:
        """From here on `heard(reply)` is called with each reply that nobody waits for.

        The Deferred fires when the link is lost.
        """
        self._when_unasked = heard
        self._ended = Deferred()
        return self._ended

    def abort(self) -> None:
        """Drop the link at once.

        Those who wait are told before this returns, and replies that are still on their way reach
        nobody.
        """
        self._dead = True
        if not self._lost:
            self.transport.abortConnection()
        self._lose_waiters()

    def connectionLost(self, why: Failure) -> None:
        self._dead = self._lost = True
        self._stop_deadline()
        denial = "" if self._ready else refusal(why.value)
        super().connectionLost(why)
        if denial:
            self._when_refused(AccessDenied(denial), [])
        self._lose_waiters()

    def _lose_waiters(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            waiter.lost()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.callback(None)


def greeting(options: Options, db: int, node: Address) -> list[Args]:
    """The first commands of every handshake with this node: who we are, and our database.

    txredisapi could send them itself, but it stops redialling for ever when one of them fails.
    """
    commands: list[Args] = []
    password = options.password_of(node)
    if password is not None:
        user = [] if options.username is None else [options.username]
        commands.append(["AUTH", *user, password])
    commands.append(["SELECT", db])
    return commands


class _Exchange:
    """Collects the replies of some commands."""

    def __init__(self, count: int) -> None:
        self.deferred: Deferred[list[object]] = Deferred(lambda _: None)
        self._count = count
        self._replies: list[object] = []

    def settle(self, reply: object) -> None:
        self._replies.append(reply)
        if len(self._replies) == self._count and not self.deferred.called:
            self.deferred.callback(self._replies)

    def lost(self) -> None:
        if not self.deferred.called:
            error = LinkLost("the link was lost before the reply")
            error.replies = self._replies
            self.deferred.errback(error)

    def give_up(self, seconds: float) -> None:
        if not self.deferred.called:
            self.deferred.errback(LinkLost(f"no answer within {seconds:.2f} s"))


def _cancel(result: Result, call: Timer) -> Result:
    if call.active():
        call.cancel()
    return result
