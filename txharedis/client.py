"""HAClient: the Redis commands; it submits them, nothing else.

It stands below the service that owns it: of the service it knows only what `Group` says.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail

from txharedis.errors import UnsupportedCommand
from txharedis.events import SubscriptionGap
from txharedis.interfaces import Args
from txharedis.messages import Message
from txharedis.methods import CommandMethods
from txharedis.options import Options, Terms
from txharedis.streams import Channels, MessageStream
from txharedis.topology import Topology

__all__ = ["Group", "HAClient"]


_Names = str | bytes | Iterable[str | bytes]


class Group(Protocol):
    """What a client needs of the service behind it."""

    @property
    def options(self) -> Options: ...

    @property
    def master(self) -> str | None: ...

    @property
    def topology(self) -> Topology: ...

    @property
    def subscriptions(self) -> Channels: ...

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

    # Subscriptions. They are kept across failovers, on a link of their own.

    def subscribe(
        self,
        channels: _Names,
        on_message: Callable[[Message], object],
        on_gap: Callable[[SubscriptionGap], object] | None = None,
    ) -> Deferred[list[Any]]:
        """Call `on_message(message)` for each message of the channels, in their order.

        `channels` is one str or bytes, or several. `on_gap(gap)` is called when messages may have
        been missed. What a callback raises, or a coroutine or Deferred that it returns fails with,
        is logged. One callback counts once for a channel.

        The Deferred fires when the server has confirmed, with ["subscribe", the last channel, the
        number of subscriptions]. It waits while there is no node, and fails with
          ResponseError      the server refuses one of the channels (then none of them is kept);
          AccessDenied, UnfitNodes, WouldDiscardData   as commands do;
          CancelledError     it was unsubscribed, or cancelled, before;
          ServiceStopped     the client was closed.
        Bad channels raise InvalidData, what cannot be called a TypeError; both name the value.
        """
        return self._group.subscriptions.subscribe(channels, on_message, on_gap)

    def psubscribe(
        self,
        patterns: _Names,
        on_message: Callable[[Message], object],
        on_gap: Callable[[SubscriptionGap], object] | None = None,
    ) -> Deferred[list[Any]]:
        """As subscribe, for all channels that match the patterns."""
        return self._group.subscriptions.psubscribe(patterns, on_message, on_gap)

    def ssubscribe(
        self,
        channels: _Names,
        on_message: Callable[[Message], object],
        on_gap: Callable[[SubscriptionGap], object] | None = None,
    ) -> Deferred[list[Any]]:
        """As subscribe, for what is published with SPUBLISH; servers before 7.0 refuse it."""
        return self._group.subscriptions.ssubscribe(channels, on_message, on_gap)

    def unsubscribe(
        self,
        channels: _Names | None = None,
        on_message: Callable[[Message], object] | None = None,
    ) -> Deferred[list[Any]]:
        """Call `on_message` (all callbacks when None) for the channels (all when None) no more.

        No callback is called after this returns. The Deferred fires when the server has confirmed,
        with ["unsubscribe", the last channel, the number of subscriptions left].
        """
        return self._group.subscriptions.unsubscribe(channels, on_message)

    def punsubscribe(
        self,
        patterns: _Names | None = None,
        on_message: Callable[[Message], object] | None = None,
    ) -> Deferred[list[Any]]:
        """Undo psubscribe, as unsubscribe does subscribe."""
        return self._group.subscriptions.punsubscribe(patterns, on_message)

    def sunsubscribe(
        self,
        channels: _Names | None = None,
        on_message: Callable[[Message], object] | None = None,
    ) -> Deferred[list[Any]]:
        """Undo ssubscribe, as unsubscribe does subscribe."""
        return self._group.subscriptions.sunsubscribe(channels, on_message)

    def messages(
        self,
        *names: str | bytes,
        buffer: int = 1000,
        on_gap: Callable[[SubscriptionGap], object] | None = None,
    ) -> MessageStream:
        """Messages to iterate over; names with one of *?[ are patterns.

            async with client.messages("news", "log.*") as stream:
                async for message in stream: ...

        `buffer` messages are kept for a slow reader, then the oldest is dropped, and
        `stream.dropped` counts it. Entering waits for the server's confirmation and fails as
        subscribe does; leaving unsubscribes. When the client is closed, the iteration raises
        ServiceStopped after what was kept.
        """
        return self._group.subscriptions.messages(names, buffer, on_gap)

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
