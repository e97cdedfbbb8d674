"""Outlet: long pieces wait here, because a transport joins, and so copies, what waits in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

__all__ = ["Outlet"]

_AT_ONCE = 128 * 1024  # bytes that Twisted sends at once, at most


@implementer(IPushProducer)
class Outlet:
    """Gives a transport its pieces, in their order, as fast as it sends them.

    While it is `busy` all that is written has to go through it.
    """

    def __init__(self, transport: Any) -> None:
        self.busy = False
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._paused = False

    def write(self, pieces: Iterable[bytes]) -> None:
        self._pieces.extend(pieces)
        if not self.busy:
            self.busy = True
            self._paused = False
            self._transport.registerProducer(self, True)
            self._go_on()

    def _go_on(self) -> None:
        while self._pieces and not self._paused:
            self._transport.write(b"".join(self._next()))
        if self.busy and not self._pieces:
            self.busy = False
            self._transport.unregisterProducer()

    def _next(self) -> list[bytes]:
        """One piece, or several that are sent together; one alone is not copied."""
        some = [self._pieces.popleft()]
        size = len(some[0])
        while self._pieces and (size := size + len(self._pieces[0])) <= _AT_ONCE:
            some.append(self._pieces.popleft())
        return some

    # What the transport calls.

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._go_on()

    def stopProducing(self) -> None:
        self._pieces.clear()
        self._paused = True
