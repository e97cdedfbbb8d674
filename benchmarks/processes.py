"""Contestants in processes of their own: each order is a line of JSON, and so is its answer.

They do nothing before they are ordered to, so they take turns with the others. Lines that do not
begin with "{" are talk.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

__all__ = ["PeerFailed", "PeerProcess"]

GRACE = 5.0
"""Seconds that a process may take to end."""


class PeerFailed(Exception):
    """A contestant in another process answered with an error, ended, or said nothing in time."""


class PeerProcess(ProcessProtocol):
    """A process that takes orders. It ends when its standard input does."""

    transport: Any

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: deque[Deferred[dict[str, Any]]] = deque()
        self._output = b""
        self._errors = b""
        self._running = False
        self._ended: Deferred[None] = Deferred()
        self._reactor: Any = None

    @classmethod
    def start(cls, reactor: Any, name: str, words: Sequence[str]) -> PeerProcess:
        """Start that program, at the same priority."""
        peer = cls(name)
        peer._reactor = reactor
        peer._running = True
        reactor.spawnProcess(peer, words[0], list(words), env=dict(os.environ))
        return peer

    @classmethod
    def python(cls, reactor: Any, name: str, module: str, *words: str) -> PeerProcess:
        """Start a module of ours."""
        return cls.start(reactor, name, [sys.executable, "-m", module, *words])

    def ask(self, timeout: float, **order: Any) -> Deferred[dict[str, Any]]:
        """Give an order; fires with the answer, or fails with PeerFailed.

        `timeout` is in seconds; a process that has not answered by then is killed.
        """
        answer: Deferred[dict[str, Any]] = Deferred()
        if not self._running:
            answer.errback(PeerFailed(f"{self.name} has ended{self._tail()}"))
            return answer
        self._waiting.append(answer)
        late = self._reactor.callLater(timeout, self._late, timeout)
        self.transport.write(json.dumps(order).encode() + b"\n")

        def answered(result: Any) -> Any:
            if late.active():
                late.cancel()
            return result

        return answer.addBoth(answered)

    async def close(self) -> None:
        """Let it end; kill it when it does not."""
        if self._running:
            late = self._reactor.callLater(GRACE, self._kill)
            self.transport.closeStdin()
            await self._ended
            if late.active():
                late.cancel()

    def _late(self, seconds: float) -> None:
        self._errors += b"no answer within %d s" % seconds
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def _tail(self) -> str:
        text = self._errors.decode(errors="replace").strip()
        return f": {text.splitlines()[-1]}" if text else ""

    def outReceived(self, data: bytes) -> None:
        *lines, self._output = (self._output + data).split(b"\n")
        for line in lines:
            if line.startswith(b"{") and self._waiting:
                answer = json.loads(line)
                waiting = self._waiting.popleft()
                if "error" in answer:
                    waiting.errback(PeerFailed(answer["error"]))
                else:
                    waiting.callback(answer)

    def errReceived(self, data: bytes) -> None:
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        self._running = False
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each.errback(PeerFailed(f"{self.name} has ended{self._tail()}"))
        self._ended.callback(None)
