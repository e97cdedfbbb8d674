"""Clients whose links are led through proxies of the test, and what happens to bytes there.

The servers know each other, and the client knows them, by their own addresses: only what the
client sends and hears goes through a proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from zope.interface import directlyProvides, providedBy

from tests.groups import OWN_DB, answer
from tests.support import PATIENCE, eventually

if TYPE_CHECKING:
    from txharedis import HAClient
    from txharedis.testing.proxy import TcpProxy
    from txharedis.testing.servers import LocalServer

__all__ = [
    "ONCE",
    "Detour",
    "SILENT",
    "LatePipe",
    "One",
    "behind",
    "journals",
    "lose_replies",
    "outcomes",
    "run_unheard",
]

ONCE = {"delivery": "exactly-once"}

SILENT = {"down_after": PATIENCE}
"""Options of a client that does not take a server for dead whose replies are kept back."""


async def outcomes(replies: Sequence[Deferred[Any]]) -> list[Any]:
    """What they fire with, replies and errors."""
    told = await answer(DeferredList(list(replies), consumeErrors=True))
    return [result if succeeded else result.value for succeeded, result in told]


async def journals(server: LocalServer) -> list[bytes]:
    """The names of the journals on this server."""
    found: list[bytes] = await server.call("KEYS", "haredis:journal:*", db=OWN_DB)
    return found


class Detour:
    """A reactor that dials another port where one of `ports` is meant; the rest is its own."""

    def __init__(self, reactor: Any, ports: Mapping[int, int]) -> None:
        self._reactor = reactor
        self._ports = ports
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(self, host: str, port: int, *args: Any, **named: Any) -> Any:
        return self._reactor.connectTCP(host, self._ports.get(port, port), *args, **named)


def behind(reactor: Any, servers: Sequence[LocalServer], proxies: Sequence[Any]) -> Detour:
    """The dialler of a client that reaches each server through its proxy."""
    ports = {server.port: proxy.port for server, proxy in zip(servers, proxies, strict=True)}
    return Detour(reactor, ports)


async def run_unheard(
    client: HAClient,
    proxy: TcpProxy,
    server: LocalServer,
    give: Callable[[], Sequence[Deferred[Any]]],
) -> Sequence[Deferred[Any]]:
    """What `give` gives to the client is executed on the server, and no reply gets through.

    Returns its Deferreds when all of it was executed; the proxy keeps the replies back.
    """
    await answer(client.when_ready())
    proxy.stall(to_target=False)
    replies = give()
    # In the form of the others: a plain write would wait for the batches before it.
    mark = uuid4().hex  # of this call: another client may have marked its own before
    marked = client.with_options(acks=0).set("given", mark)
    marked.addErrback(lambda _: None)  # the end of the test may come first

    async def executed() -> bool:
        return bool(await server.call("GET", "given") == mark.encode())

    await eventually(executed)
    return replies


def lose_replies(proxy: TcpProxy) -> None:
    """Reset all links through the proxy, with what it has kept back; new ones work."""
    proxy.cut()
    proxy.restore()


class One:
    """One server behind a proxy, and a client of exactly-once that knows the proxy."""

    def __init__(self, server: LocalServer, proxies: Callable[[Any], TcpProxy], watch: Any) -> None:
        self.server = server
        self.proxy = proxies(server)
        self.watched = watch([self.proxy.address], reconnect_delay=0.01, **SILENT, **ONCE)
        self.client = self.watched.client

    async def unheard(self, give: Callable[[HAClient], Sequence[Deferred[Any]]]) -> list[Any]:
        """Deferreds of what was executed, their replies kept back."""
        replies = await run_unheard(self.client, self.proxy, self.server, lambda: give(self.client))
        return list(replies)

    def lose(self) -> None:
        lose_replies(self.proxy)


class LatePipe:
    """A proxy whose links can lose their client and keep what it has sent, for later.

    After `hold()` the bytes of the links that are there go no further, and `cut()` resets the
    clients' ends of all links while the server's ends stay. `release()` lets the server have what
    was held, and returns when it has read, and answered, all of it.
    """

    def __init__(self, reactor: Any, server: LocalServer) -> None:
        self._reactor = reactor
        self._server = server
        self._pairs: list[_Pair] = []
        factory: Any = Factory.forProtocol(lambda: _Pair(self._dial, self._pairs.append).client)
        factory.noisy = False
        self._listener = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port: int = self._listener.getHost().port

    def _dial(self, end: Protocol) -> Any:
        factory: Any = Factory.forProtocol(lambda: end)
        factory.noisy = False
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._server.port)
        return endpoint.connect(factory)

    def hold(self) -> None:
        """Keep back, from now on, what comes on the links that are there."""
        for pair in self._pairs:
            pair.holding = True

    @property
    def held(self) -> int:
        """How many bytes are kept back."""
        return sum(len(pair.held) for pair in self._pairs if pair.holding)

    def cut(self) -> None:
        """Reset the clients' ends."""
        for pair in self._pairs:
            pair.client.transport.abortConnection()

    async def release(self) -> None:
        """Let what was held arrive."""
        late = [pair for pair in self._pairs if pair.holding]
        for pair in late:
            pair.release()
        for pair in late:
            await eventually(lambda pair=pair: pair.caught_up)

    async def stop(self) -> None:
        """Close everything; return when it is closed."""
        await self._listener.stopListening()
        for pair in self._pairs:
            pair.abort()
        await eventually(lambda: not any(pair.ends for pair in self._pairs))


_LAST = b"*2\r\n$4\r\nECHO\r\n$14\r\nlate-pipe-ends\r\n"


class _Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, dial: Callable[[Protocol], Any], opened: Callable[[_Pair], None]) -> None:
        self.holding = False
        self.held = b""
        self.answers = b""
        self.ends = 0
        self._released = False
        self.client = _End(self._from_client, self._accepted, self._closed)
        self.server = _End(self._from_server, self._reached, self._closed)
        self._dial = dial
        self._opened = opened
        self._early = b""

    @property
    def caught_up(self) -> bool:
        return b"late-pipe-ends" in self.answers or self.server.gone

    def release(self) -> None:
        self._released = True
        self.server.transport.write(self.held + _LAST)

    def abort(self) -> None:
        for end in (self.client, self.server):
            if end.transport is not None:
                end.transport.abortConnection()

    def _accepted(self) -> None:
        self.ends += 1
        self._opened(self)
        self._dial(self.server).addErrback(lambda _: self.client.transport.abortConnection())

    def _reached(self) -> None:
        self.ends += 1
        self.server.transport.write(self._early)

    def _closed(self) -> None:
        self.ends -= 1
        if self.server.gone or not self.holding:
            self.abort()

    def _from_client(self, data: bytes) -> None:
        if self.holding:
            self.held += data
        elif self.server.transport is None:
            self._early += data
        else:
            self.server.transport.write(data)

    def _from_server(self, data: bytes) -> None:
        if self.client.gone:
            self.answers = (self.answers + data)[-100_000:]
        else:
            self.client.transport.write(data)


class _End(Protocol):
    transport: Any

    def __init__(
        self, receive: Callable[[bytes], None], made: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self.dataReceived = receive  # type: ignore[method-assign]
        self.connectionMade = made  # type: ignore[method-assign]
        self.gone = False
        self._lost = lost

    def connectionLost(self, reason: Any = None) -> None:
        self.gone = True
        self._lost()
