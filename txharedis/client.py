"""HAClient: the Redis commands; it submits them, nothing else.

It stands below the service that owns it: of the service it knows only what `Group` says.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail

from txharedis.errors import UnsupportedCommand
from txharedis.interfaces import Args
from txharedis.methods import CommandMethods
from txharedis.options import Options, Terms
from txharedis.topology import Topology

__all__ = ["Group", "HAClient"]


class Group(Protocol):
    """What a client needs of the service behind it."""

    @property
    def options(self) -> Options: ...

    @property
    def master(self) -> str | None: ...

    @property
    def topology(self) -> Topology: ...

    def submit(self, args: Args, packed: bytes, terms: Terms) -> Deferred[object]: ...

    def when_ready(self) -> Deferred[None]: ...

    def drain(self) -> Coroutine[Deferred[Any], Any, None]: ...

    def stopService(self) -> Deferred[object]: ...


class HAClient(CommandMethods):
    """A client of a highly available group: any Redis client, only that its server does not die.

    It has every method of txredisapi with its signature and its reply conversion, and every other
    command of the servers under its own name: `client.xadd("s", "*", "f", "v")`,
    `client.config_get("maxmemory")`. `execute_command("ANY", ...)` sends what has no name here.
    All return Deferreds; FailoverService.submit lists how they can fail.

    Arguments are str (encoded with `charset`), bytes, int, float (in full, as repr writes it), or
    anything else as its str; None is an InvalidData error.
    """

    def __init__(self, group: Group, terms: Terms | None = None) -> None:
        super().__init__(group.options)
        self._group = group
        self._terms = group.options.terms if terms is None else terms

    def __repr__(self) -> str:
        return f"<HAClient of {self._group!r}>"

    @property
    def master(self) -> str | None:
        """The node that commands go to, as "host:port"; None while there is none."""
        return self._group.master

    @property
    def topology(self) -> Topology:
        """The picture of the group, as of the newest survey: frozen values."""
        return self._group.topology

    def when_ready(self) -> Deferred[HAClient]:
        """Fires with this client when commands flow to a master.

        Fails with WouldDiscardData, AccessDenied or UnfitNodes when a person has to act first, and
        with ServiceStopped.
        """
        return self._group.when_ready().addCallback(lambda _: self)

    whenConnected = when_ready  # txredisapi's name for it

    def _send(self, args: Args, packed: bytes) -> Deferred[Any]:
        return self._group.submit(args, packed, self._terms)

    # txredisapi keeps the state of transactions and pipelines in the connection. Here nobody has
    # one for himself, and the service says so.

    def multi(self, keys: object = None) -> Deferred[Any]:
        return self.execute_command("MULTI")

    def watch(self, keys: Any) -> Deferred[Any]:
        return self.execute_command("WATCH", *([keys] if isinstance(keys, str) else keys))

    def commit(self) -> Deferred[Any]:
        return self.execute_command("EXEC")

    def discard(self) -> Deferred[Any]:
        return self.execute_command("DISCARD")

    def pipeline(self) -> Deferred[Any]:
        """Not here, and not needed: the commands of one reactor turn leave in one write."""
        return fail(UnsupportedCommand("no pipeline(): commands of one turn leave in one write"))

    execute_pipeline = pipeline

    def shutdown(self) -> Deferred[Any]:
        """Shut the master down: the others then replace it."""
        return self.execute_command("SHUTDOWN")

    def quit(self) -> Deferred[None]:
        """Wait until all commands are answered, then close; fires when the last link is gone."""

        async def drain_and_stop() -> None:
            await self._group.drain()
            await self._group.stopService()

        return Deferred.fromCoroutine(drain_and_stop())

    def disconnect(self) -> Deferred[object]:
        """Close now: what is pending fails with ServiceStopped; fires when the links are gone."""
        return self._group.stopService()
