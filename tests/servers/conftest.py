"""Servers and proxies for one test each, and a check that the test leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.process import ProcessReader, ProcessWriter
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.support import eventually

if TYPE_CHECKING:
    from tests.failovers import Holder
    from tests.groups import WatchedClient
    from tests.lossy import One
    from tests.monitors import Monitor
    from txharedis.testing.proxy import Network, TcpProxy
    from txharedis.testing.servers import LocalServer, ServerProgram

MakeServers = Callable[..., Awaitable[list["LocalServer"]]]
MakeProxy = Callable[["LocalServer"], "TcpProxy"]
MakeNetwork = Callable[[Sequence["LocalServer"]], "Network"]
Watch = Callable[..., "WatchedClient"]
Holders = Callable[..., "Holder"]
Monitors = Callable[..., Awaitable["Monitor"]]
Form = Callable[..., Awaitable[None]]

GRACE = 1.0
"""How long, in seconds, connections that were told to close may take to be closed."""


def in_use(reactor: Any) -> set[Any]:
    """The calls that wait in the reactor, and the sockets and pipes it watches."""
    calls = {call for call in reactor.getDelayedCalls() if call.active()}
    return calls | set(reactor.getReaders()) | set(reactor.getWriters())


async def nothing_but(reactor: Any, allowed: Callable[[Any], bool]) -> None:
    """Return when all that is in use is allowed; raise an AssertionError that names the rest."""

    def left() -> list[str]:
        return sorted(str(thing) for thing in in_use(reactor) if not allowed(thing))

    try:
        await eventually(lambda: not left(), GRACE)
    except AssertionError:
        raise AssertionError("left in the reactor:\n  " + "\n  ".join(left())) from None


@pytest_twisted.async_yield_fixture(autouse=True)
async def nothing_left_behind(reactor: Any) -> AsyncIterator[list[LocalServer]]:
    """After all other fixtures: no delayed call, socket or pipe that was not there before.

    Yields a list: the servers put into it are stopped at the end. They still run while links are
    looked for, because the end of a server would end the links that were left.
    """
    before = in_use(reactor)
    servers: list[LocalServer] = []
    yield servers
    try:
        pipes = (ProcessReader, ProcessWriter)
        await nothing_but(reactor, lambda thing: thing in before or isinstance(thing, pipes))
    finally:
        await stop_all(servers)
    await nothing_but(reactor, lambda thing: thing in before)


@pytest.fixture
def make_servers(
    reactor: Any,
    server_program: ServerProgram,
    tmp_path: Path,
    nothing_left_behind: list[LocalServer],
) -> MakeServers:
    """`await make_servers(3, options=(...))`: started servers, stopped after the test."""
    from txharedis.testing.servers import start_group

    async def make(
        count: int = 1,
        *,
        options: Sequence[str] = (),
        distinct_sources: bool = False,
        auth: Sequence[str] = (),
        tls: Any = None,
    ) -> list[LocalServer]:
        servers = await start_group(
            reactor,
            server_program,
            tmp_path / f"group{len(nothing_left_behind)}",
            count,
            options=options,
            distinct_sources=distinct_sources,
            auth=auth,
            tls=tls,
        )
        nothing_left_behind.extend(servers)
        return servers

    return make


@pytest_twisted.async_yield_fixture
async def server(make_servers: MakeServers) -> AsyncIterator[LocalServer]:
    """One started server."""
    [only] = await make_servers(1)
    yield only


@pytest_twisted.async_yield_fixture
async def trio(make_servers: MakeServers) -> AsyncIterator[list[LocalServer]]:
    """Three started servers that know nothing of each other."""
    yield await make_servers(3)


@pytest_twisted.async_yield_fixture
async def proxies(reactor: Any, nothing_left_behind: object) -> AsyncIterator[MakeProxy]:
    """`proxies(server)`: a started proxy in front of a server, stopped after the test."""
    from txharedis.testing.proxy import TcpProxy

    made: list[TcpProxy] = []

    def make(server: LocalServer) -> TcpProxy:
        proxy = TcpProxy(reactor, server.port)
        proxy.start()
        made.append(proxy)
        return proxy

    yield make
    await stop_all(made)


@pytest.fixture
def one(server: LocalServer, proxies: MakeProxy, watch: Watch) -> One:
    """One server behind a proxy, and a client of exactly-once that knows the proxy."""
    from tests.lossy import One

    return One(server, proxies, watch)


@pytest_twisted.async_yield_fixture
async def networks(reactor: Any, nothing_left_behind: object) -> AsyncIterator[MakeNetwork]:
    """`networks(servers)`: started proxies in front of servers, stopped after the test."""
    from txharedis.testing.proxy import Network

    made: list[Network] = []

    def make(servers: Sequence[LocalServer]) -> Network:
        network = Network(reactor, servers)
        network.start()
        made.append(network)
        return network

    yield make
    await stop_all(made)


@pytest_twisted.async_yield_fixture
async def watch(reactor: Any, nothing_left_behind: object) -> AsyncIterator[Watch]:
    """`watch(nodes, **options)`: a client, its events recorded, disconnected after the test.

    `nodes` are servers, or addresses as create_client takes them; `source` is the address from
    which it dials, or `dialler` the reactor that dials for it. No failure may be logged.
    """
    from tests.groups import WatchedClient
    from txharedis import create_client
    from txharedis.testing.proxy import FromAddress

    failures: list[str] = []
    made: list[WatchedClient] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(f"{formatEvent(event)}\n{event['log_failure'].getTraceback()}")

    def make(
        nodes: Sequence[LocalServer | str] | str,
        *,
        source: str | None = None,
        dialler: Any = reactor,
        **options: Any,
    ) -> WatchedClient:
        watched = WatchedClient()
        places = (
            nodes if isinstance(nodes, str) else [getattr(node, "address", node) for node in nodes]
        )
        if source:
            dialler = FromAddress(reactor, source)
        watched.client = create_client(places, reactor=dialler, on_event=watched.tell, **options)
        made.append(watched)
        return watched

    globalLogPublisher.addObserver(observe)
    yield make
    await DeferredList([watched.client.disconnect() for watched in made])
    globalLogPublisher.removeObserver(observe)
    assert not failures


@pytest.fixture
def form(watch: Watch) -> Form:
    """`await form(servers)`: make them one group, the first its master, and leave them alone.

    `nodes` are the addresses by which they know each other, if not their own.
    """
    from tests.groups import OWN_DB, at_once, meta_of

    async def make(servers: Sequence[LocalServer], nodes: Sequence[str] | None = None) -> None:
        places = list(nodes or [server.address for server in servers])
        host, port = places[0].split(":")

        async def joined(server: LocalServer) -> bool:
            return bool(await meta_of(server) and await server.call("GET", "formed", db=OWN_DB))

        async def follows(server: LocalServer) -> bool:
            return (await server.info("replication"))["master_link_status"] == "up"

        await at_once(server.call("SLAVEOF", host, port) for server in servers[1:])
        founder = watch(places)
        await founder.client.when_ready()
        for server in servers[1:]:
            await eventually(lambda server=server: follows(server))
        # A replica that had a full resync says that its link is up, and yet can go without news
        # for a second: the master begins to send them when it has been acknowledged something.
        await servers[0].call("SET", "formed", 1, db=OWN_DB)
        for server in servers[1:]:
            await eventually(lambda server=server: joined(server))
        await founder.client.disconnect()

    return make


@pytest_twisted.async_yield_fixture
async def group(trio: list[LocalServer], form: Form) -> AsyncIterator[list[LocalServer]]:
    """Three servers that are one group already: the first is the master. No client is there."""
    await form(trio)
    yield trio


@pytest_twisted.async_yield_fixture
async def holders(reactor: Any, nothing_left_behind: object) -> AsyncIterator[Holders]:
    """`holders(nodes, at, signal, **options)`: a client in a process of its own, ended after."""
    from tests.failovers import Holder

    made: list[Holder] = []

    def make(
        nodes: Sequence[LocalServer], at: str, number: int, *, blind: bool = False, **options: Any
    ) -> Holder:
        made.append(Holder(reactor, nodes, at, number, blind=blind, **options))
        return made[-1]

    yield make
    for holder in made:
        await holder.close()


async def stop_all(
    things: Sequence[LocalServer] | Sequence[TcpProxy] | Sequence[Network],
) -> None:
    await DeferredList([Deferred.fromCoroutine(thing.stop()) for thing in things])


@pytest_twisted.async_yield_fixture
async def monitors(nothing_left_behind: object) -> AsyncIterator[Monitors]:
    """`await monitors(servers, "--no-elect")`: a monitor that serves, ended after the test."""
    from tests.monitors import Monitor

    made: list[Monitor] = []

    async def make(
        servers: Sequence[LocalServer], *words: str, http: str = "", **variables: str
    ) -> Monitor:
        nodes = [server.address for server in servers]
        made.append(Monitor(nodes, *words, http=http, **variables))
        return await made[-1].started()

    yield make
    for monitor in made:
        await monitor.stop()
