"""Pipeline: commands that are kept, and then given to the queue all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from txredisapi import RedisError

from txharedis.errors import UnsupportedCommand
from txharedis.interfaces import Args
from txharedis.methods import CommandMethods
from txharedis.options import Options

__all__ = ["Pipeline"]


class Pipeline(CommandMethods):
    """What `client.pipeline()` gives: it keeps commands until `execute_pipeline()`.

    Their Deferreds fire after that. They are executed like all commands of the client: they leave
    in one write, in their order, and wait for the next master when there is none. `send` gives one
    command to the client; `pipelining` tells whether commands are kept. After `execute_pipeline()`
    they are not, until `pipeline()` is called again.
    """

    def __init__(self, options: Options, send: Callable[[Args, bytes], Deferred[Any]]) -> None:
        super().__init__(options)
        self._give = send
        self._kept: list[tuple[Args, bytes, Deferred[Any]]] = []
        self._replies: list[Deferred[Any]] = []
        self.pipelining = True

    def __repr__(self) -> str:
        return f"<Pipeline of {len(self._kept)} commands>"

    def pipeline(self) -> Deferred[Any]:
        """Keep commands from here on; fires with this one."""
        self.pipelining = True
        return succeed(self)

    def execute_pipeline(self) -> Deferred[list[Any]]:
        """Execute what was kept; fires with the list of the replies.

        When one fails, this fails with twisted's FirstError of the first that did, as txredisapi
        does; the others are executed nevertheless. Without `pipeline()` before, it fails with
        txredisapi.RedisError.
        """
        if not self.pipelining:
            return fail(RedisError("execute_pipeline() before pipeline()"))
        self.pipelining = False
        kept, self._kept = self._kept, []
        replies, self._replies = self._replies, []
        together = DeferredList(replies, fireOnOneErrback=True, consumeErrors=True)
        for args, packed, reply in kept:
            if not reply.called:
                self._give(args, packed).chainDeferred(reply)
        return together.addCallback(lambda outcomes: [value for _, value in outcomes])

    def execute_command(self, *args: Any, **options: Any) -> Deferred[Any]:
        """Keep any command, see CommandMethods.execute_command; cancelled, it is not executed."""
        reply = super().execute_command(*args, **options)
        if self.pipelining:
            self._replies.append(reply)
        return reply

    def _send(self, args: Args, packed: bytes) -> Deferred[Any]:
        if not self.pipelining:
            return self._give(args, packed)
        reply: Deferred[Any] = Deferred(lambda _: None)
        self._kept.append((args, packed, reply))
        return reply

    def multi(self, keys: object = None) -> Deferred[Any]:
        """Not here."""
        return fail(UnsupportedCommand("not in a pipeline: it is a method of the client"))

    watch = monitor = quit = shutdown = multi
