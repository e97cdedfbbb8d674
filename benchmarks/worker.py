"""The other end of `processes`, on Twisted: a process that takes orders from its standard input."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO

__all__ = ["Worker"]


class Worker(Protocol):
    """Subclasses say what an order does, and what the end of the orders does.

    `over` fires when `end` is done.
    """

    transport: Any

    def __init__(self) -> None:
        self.over: Deferred[None] = Deferred()
        self._input = b""

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """The answer; an exception is an answer too."""
        raise NotImplementedError

    async def end(self) -> None:
        """There will be no more orders."""

    def run(self, reactor: Any) -> Deferred[None]:
        """Take orders; fires when all is over."""
        StandardIO(self, reactor=reactor)
        return self.over

    def dataReceived(self, data: bytes) -> None:
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            Deferred.fromCoroutine(self._answer(json.loads(line)))

    async def _answer(self, order: dict[str, Any]) -> None:
        try:
            answer = await self.obey(order)
        except Exception as error:
            answer = {"error": repr(error)}
        self.transport.write(json.dumps(answer).encode() + b"\n")

    def connectionLost(self, reason: object = None) -> None:
        Deferred.fromCoroutine(self.end()).chainDeferred(self.over)
