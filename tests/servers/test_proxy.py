"""Proxies forward, stall, cut, refuse and delay; networks partition and heal."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from tests.servers.conftest import MakeNetwork, MakeProxy, MakeServers
from tests.support import eventually
from txharedis.testing.proxy import FromAddress, Network, TcpProxy
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


class Link(Protocol):
    """A plain connection: what arrived, and how it ended."""

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.end: type[BaseException | None] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.end = type(reason.value)

    async def ask(self, line: bytes, reply: bytes) -> None:
        self.received.clear()
        self.transport.write(line + b"\r\n")
        await eventually(lambda: self.received == reply)


Dial = Callable[..., Deferred[Link]]


@pytest_twisted.async_yield_fixture
async def dial(reactor: Any, nothing_left_behind: object) -> AsyncIterator[Dial]:
    """`await dial(port)`: a `Link`, closed after the test."""
    links: list[Link] = []

    def connect(port: int, *, source: str | None = None) -> Deferred[Link]:
        dialler = FromAddress(reactor, source) if source else reactor
        factory: Any = Factory.forProtocol(Link)
        factory.noisy = False
        linked = TCP4ClientEndpoint(dialler, "127.0.0.1", port, timeout=5).connect(factory)
        return linked.addCallback(keep)

    def keep(link: Link) -> Link:
        links.append(link)
        return link

    yield connect
    for link in links:
        link.transport.abortConnection()
    await eventually(lambda: all(link.end for link in links))


async def silence(reactor: Any, *links: Link, seconds: float = 0.15) -> None:
    """For a while nothing arrives on these links, and none of them ends."""
    before = [bytes(link.received) for link in links]
    await deferLater(reactor, seconds)
    assert [link.received for link in links] == before
    assert [link.end for link in links] == [None] * len(links)


@pytest.fixture
def proxy(server: LocalServer, proxies: MakeProxy) -> TcpProxy:
    return proxies(server)


@on_reactor
async def test_forwards_both_ways_and_counts(proxy: TcpProxy, dial: Dial) -> None:
    assert proxy.connections == 0
    first, second = await dial(proxy.port), await dial(proxy.port)
    await first.ask(b"SET k v", b"+OK\r\n")
    await second.ask(b"GET k", b"$1\r\nv\r\n")
    assert proxy.connections == 2
    first.transport.loseConnection()
    await eventually(lambda: proxy.connections == 1)
    await second.ask(b"PING", b"+PONG\r\n")


@on_reactor
async def test_last_bytes_arrive_before_the_end(proxy: TcpProxy, dial: Dial) -> None:
    link = await dial(proxy.port)
    link.transport.write(b"SET k v\r\nPING\r\nQUIT\r\n")
    await eventually(lambda: link.end)
    assert link.received == b"+OK\r\n+PONG\r\n+OK\r\n"
    assert link.end is ConnectionDone
    await eventually(lambda: proxy.connections == 0)


@on_reactor
async def test_large_values_pass_through(proxy: TcpProxy, dial: Dial, server: LocalServer) -> None:
    value = bytes(range(256)).replace(b"\n", b" ").replace(b"\r", b" ") * 40_000
    link = await dial(proxy.port)
    link.transport.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s\r\n" % (len(value), value))
    await eventually(lambda: link.received == b"+OK\r\n")
    assert await server.call("GET", "k") == value
    link.received.clear()
    link.transport.write(b"GET k\r\n")
    await eventually(lambda: link.received == b"$%d\r\n%s\r\n" % (len(value), value))


@on_reactor
async def test_reader_that_stops_slows_the_target(
    proxy: TcpProxy, dial: Dial, server: LocalServer
) -> None:
    value = b"x" * 1_000_000
    await server.call("SET", "k", value)
    link = await dial(proxy.port)
    link.transport.pauseProducing()
    link.transport.write(b"GET k\r\n" * 40)

    async def server_keeps_most() -> bool:
        clients = await server.call("CLIENT", "LIST")
        return any(int(kept) > 20_000_000 for kept in re.findall(rb" omem=(\d+)", clients))

    await eventually(server_keeps_most)
    link.transport.resumeProducing()
    await eventually(lambda: len(link.received) == 40 * len(b"$1000000\r\n%s\r\n" % value))


@on_reactor
async def test_end_of_the_target_ends_the_link(
    proxy: TcpProxy, dial: Dial, server: LocalServer
) -> None:
    link = await dial(proxy.port)
    await link.ask(b"PING", b"+PONG\r\n")
    await server.stop()
    await eventually(lambda: link.end)
    reset = await dial(proxy.port)
    await eventually(lambda: reset.end)
    assert reset.end is ConnectionLost
    await eventually(lambda: proxy.connections == 0)


@on_reactor
async def test_stall_holds_links_and_resume_delivers(
    reactor: Any, proxy: TcpProxy, dial: Dial, server: LocalServer
) -> None:
    old = await dial(proxy.port)
    await old.ask(b"PING", b"+PONG\r\n")
    clients_before = (await server.info("clients"))["connected_clients"]
    proxy.stall()
    new = await dial(proxy.port)
    old.transport.write(b"INCR n\r\n")
    new.transport.write(b"INCR n\r\n")
    await silence(reactor, old, new)
    assert await server.call("GET", "n") is None
    assert (await server.info("clients"))["connected_clients"] == clients_before
    old.received.clear()
    proxy.resume()
    await eventually(lambda: old.received and new.received)
    assert {bytes(old.received), bytes(new.received)} == {b":1\r\n", b":2\r\n"}


@on_reactor
async def test_stalled_replies_only(
    reactor: Any, proxy: TcpProxy, dial: Dial, server: LocalServer
) -> None:
    old = await dial(proxy.port)
    proxy.stall(to_target=False)
    new = await dial(proxy.port)
    for link in (old, new):
        link.transport.write(b"INCR n\r\n")

    async def both_arrived() -> bool:
        return bool(await server.call("GET", "n") == b"2")

    await eventually(both_arrived)
    await silence(reactor, old, new)
    proxy.resume()
    await eventually(lambda: old.received and new.received)


@on_reactor
async def test_stalled_requests_only(reactor: Any, proxy: TcpProxy, dial: Dial) -> None:
    subscriber = await dial(proxy.port)
    await subscriber.ask(b"SUBSCRIBE c", b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    proxy.stall(from_target=False)
    subscriber.received.clear()
    publisher = await dial(proxy.target_port)
    publisher.transport.write(b"PUBLISH c hi\r\n")
    await eventually(lambda: subscriber.received.endswith(b"$2\r\nhi\r\n"))
    subscriber.transport.write(b"PING\r\n")
    await silence(reactor, subscriber)


@on_reactor
async def test_stall_hides_the_death_of_the_target(
    reactor: Any, proxy: TcpProxy, dial: Dial, server: LocalServer
) -> None:
    link = await dial(proxy.port)
    await link.ask(b"PING", b"+PONG\r\n")
    proxy.stall()
    await server.stop()
    await silence(reactor, link)
    proxy.resume()
    await eventually(lambda: link.end)


@on_reactor
async def test_stalled_proxy_can_be_stopped(proxy: TcpProxy, dial: Dial) -> None:
    old = await dial(proxy.port)
    proxy.stall()
    new = await dial(proxy.port)
    await eventually(lambda: proxy.connections == 2)
    await proxy.stop()
    assert proxy.connections == 0
    await eventually(lambda: old.end and new.end)


@on_reactor
async def test_cut_resets_links_old_and_new(proxy: TcpProxy, dial: Dial) -> None:
    old = await dial(proxy.port)
    await old.ask(b"PING", b"+PONG\r\n")
    proxy.cut()
    await eventually(lambda: old.end)
    new = await dial(proxy.port)
    await eventually(lambda: new.end)
    assert old.end is new.end is ConnectionLost
    proxy.restore()
    await (await dial(proxy.port)).ask(b"PING", b"+PONG\r\n")


@on_reactor
async def test_link_aborted_before_its_target_was_dialled_stays_dead(
    proxy: TcpProxy, dial: Dial, server: LocalServer
) -> None:
    proxy.stall()
    link = await dial(proxy.port)
    await eventually(lambda: proxy.connections == 1)
    proxy.cut()
    proxy.restore()
    await eventually(lambda: link.end)
    await eventually(lambda: proxy.connections == 0)
    assert (await server.info("clients"))["connected_clients"] == "1"  # this question's


@on_reactor
async def test_refuse_refuses_until_restored(proxy: TcpProxy, dial: Dial) -> None:
    port = proxy.port
    old = await dial(port)
    await proxy.refuse()
    await eventually(lambda: old.end)
    for _ in range(50):
        with pytest.raises(ConnectionRefusedError):
            await dial(port)
    proxy.restore()
    assert proxy.port == port
    await (await dial(port)).ask(b"PING", b"+PONG\r\n")


@on_reactor
async def test_cut_after_refuse_accepts_and_resets(proxy: TcpProxy, dial: Dial) -> None:
    await proxy.refuse()
    proxy.cut()
    link = await dial(proxy.port)
    await eventually(lambda: link.end)
    assert link.end is ConnectionLost


class OnClock:
    """The real reactor for connections, a `Clock` for time."""

    def __init__(self, reactor: Any) -> None:
        self.clock = Clock()
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.clock if name in ("seconds", "callLater") else self._reactor, name)


@pytest_twisted.async_yield_fixture
async def late(
    reactor: Any, server: LocalServer, nothing_left_behind: object
) -> AsyncIterator[tuple[TcpProxy, Clock]]:
    """A proxy whose delays pass when its clock is advanced; all of them are over in the end."""
    on_clock = OnClock(reactor)
    proxy = TcpProxy(on_clock, server.port)
    proxy.start()
    yield proxy, on_clock.clock
    await proxy.stop()
    assert on_clock.clock.getDelayedCalls() == []


@on_reactor
async def test_late_replies_keep_their_order(
    reactor: Any, late: tuple[TcpProxy, Clock], dial: Dial, server: LocalServer
) -> None:
    proxy, clock = late
    link = await dial(proxy.port)
    proxy.delay(10.0)
    link.transport.write(b"INCR n\r\n")
    await eventually(clock.getDelayedCalls)
    assert await server.call("GET", "n") == b"1"
    clock.advance(9.0)
    proxy.delay(0.0)
    link.transport.write(b"INCR n\r\n")
    await silence(reactor, link)
    clock.advance(1.0)
    await eventually(lambda: link.received == b":1\r\n:2\r\n")
    await link.ask(b"PING", b"+PONG\r\n")


@on_reactor
async def test_late_requests_keep_their_order(
    reactor: Any, late: tuple[TcpProxy, Clock], dial: Dial, server: LocalServer
) -> None:
    proxy, clock = late
    link = await dial(proxy.port)
    proxy.delay(10.0, from_target=False, to_target=True)
    link.transport.write(b"INCR n\r\n")
    await eventually(clock.getDelayedCalls)
    clock.advance(5.0)
    link.transport.write(b"INCR n\r\n")
    await silence(reactor, link)
    assert await server.call("GET", "n") is None
    clock.advance(5.0)
    await eventually(lambda: link.received == b":1\r\n")
    await silence(reactor, link)
    clock.advance(5.0)
    await eventually(lambda: link.received == b":1\r\n:2\r\n")


@on_reactor
async def test_end_of_a_link_is_as_late_as_its_bytes(
    reactor: Any, late: tuple[TcpProxy, Clock], dial: Dial
) -> None:
    proxy, clock = late
    link = await dial(proxy.port)
    proxy.delay(10.0)
    link.transport.write(b"QUIT\r\n")
    await eventually(clock.getDelayedCalls)
    await silence(reactor, link)
    clock.advance(9.9)
    await silence(reactor, link)
    clock.advance(0.2)
    await eventually(lambda: link.end)
    assert link.received == b"+OK\r\n"
    assert link.end is ConnectionDone


@on_reactor
async def test_stalled_bytes_do_not_arrive_when_their_delay_is_over(
    reactor: Any, late: tuple[TcpProxy, Clock], dial: Dial
) -> None:
    proxy, clock = late
    link = await dial(proxy.port)
    proxy.delay(10.0)
    link.transport.write(b"PING\r\n")
    await eventually(clock.getDelayedCalls)
    proxy.stall()
    clock.advance(20.0)
    await silence(reactor, link)
    proxy.resume()
    await eventually(lambda: link.received == b"+PONG\r\n")


@on_reactor
async def test_late_bytes_are_bounded_and_all_arrive(
    reactor: Any, late: tuple[TcpProxy, Clock], dial: Dial, server: LocalServer
) -> None:
    proxy, clock = late
    await server.call("SET", "k", b"x" * 1_000_000)
    link = await dial(proxy.port)
    proxy.delay(1.0)
    link.transport.write(b"GET k\r\n" * 20)
    whole = 20 * len(b"$1000000\r\n\r\n" + b"x" * 1_000_000)

    async def a_step_brings_all() -> bool:
        before = len(link.received)
        clock.advance(1.0)
        await deferLater(reactor, 0)
        assert len(link.received) - before < 4_000_000
        return len(link.received) == whole

    await eventually(a_step_brings_all)


@on_reactor
async def test_stop_with_late_bytes_leaves_no_timer(
    late: tuple[TcpProxy, Clock], dial: Dial
) -> None:
    proxy, clock = late
    link = await dial(proxy.port)
    proxy.delay(60.0)
    link.transport.write(b"PING\r\n")
    await eventually(clock.getDelayedCalls)
    await proxy.stop()
    assert clock.getDelayedCalls() == []
    await eventually(lambda: link.end)


@on_reactor
async def test_from_address_dials_from_there(reactor: Any, server: LocalServer, dial: Dial) -> None:
    link = await dial(server.port, source="127.0.0.77")
    assert link.transport.getHost().host == "127.0.0.77"
    wrapped = FromAddress(reactor, "127.0.0.77")
    assert IReactorTCP.providedBy(wrapped)
    assert IReactorTime.providedBy(wrapped)
    assert wrapped.getDelayedCalls() == reactor.getDelayedCalls()


def test_network_needs_distinct_sources(reactor: Any) -> None:
    class Server:
        port = 1
        source: str | None = None

    with pytest.raises(ValueError, match="source address"):
        Network(reactor, [Server()])
    Server.source = "127.0.0.11"
    with pytest.raises(ValueError, match="source address"):
        Network(reactor, [Server(), Server()])


@on_reactor
async def test_partition_decides_by_source(
    reactor: Any, make_servers: MakeServers, networks: MakeNetwork, dial: Dial
) -> None:
    network = networks(await make_servers(2, distinct_sources=True))
    here, there = network.proxies
    client = "127.0.0.101"
    to_here = await dial(here.port, source=client)
    to_there = await dial(there.port, source=client)
    outside = await dial(there.port)
    network.partition({client, "127.0.0.11"}, {"127.0.0.12"})
    await to_here.ask(b"PING", b"+PONG\r\n")
    await outside.ask(b"PING", b"+PONG\r\n")
    new = await dial(there.port, source=client)
    for link in (to_there, new):
        link.transport.write(b"INCR n\r\n")
    await silence(reactor, to_there, new)
    network.heal()
    await eventually(lambda: to_there.received and new.received)
    assert {bytes(to_there.received), bytes(new.received)} == {b":1\r\n", b":2\r\n"}

    network.partition({client}, {"127.0.0.11", "127.0.0.12"})
    to_there.transport.write(b"INCR n\r\n")
    await silence(reactor, to_here, to_there, new)
    network.heal(abort=True)
    await eventually(lambda: to_here.end and to_there.end and new.end)
    assert outside.end is None
    await outside.ask(b"GET n", b"$1\r\n2\r\n")
    with pytest.raises(ValueError, match="two sides"):
        network.partition({client}, {client})


@on_reactor
async def test_the_muted_hear_and_are_not_heard(
    reactor: Any, make_servers: MakeServers, networks: MakeNetwork, dial: Dial
) -> None:
    servers = await make_servers(2, distinct_sources=True)
    network = networks(servers)
    here, there = network.proxies
    client = "127.0.0.101"

    async def executed(times: bytes) -> bool:
        return bool(await servers[0].call("GET", "n") == times)

    link = await dial(here.port, source=client)
    other = await dial(there.port, source=client)
    outside = await dial(here.port)

    network.mute({client}, {"127.0.0.11"})
    link.transport.write(b"INCR n\r\n")
    await silence(reactor, link)
    await other.ask(b"PING", b"+PONG\r\n")
    await outside.ask(b"GET n", b"$-1\r\n")
    network.heal()
    await eventually(lambda: link.received == b":1\r\n")

    network.mute({"127.0.0.11"}, {client})
    del link.received[:]
    link.transport.write(b"INCR n\r\n")
    # It is executed; only its reply does not travel.
    await eventually(lambda: executed(b"2"))
    await silence(reactor, link)
    await other.ask(b"PING", b"+PONG\r\n")
    network.heal()
    await eventually(lambda: link.received == b":2\r\n")
    with pytest.raises(ValueError, match="speaker and a listener"):
        network.mute({client}, {client})


@pytest.mark.parametrize("abort", [False, True])
@on_reactor
async def test_replica_is_separated_and_comes_back(
    make_servers: MakeServers, networks: MakeNetwork, abort: bool
) -> None:
    options = ("--repl-timeout", "2", "--repl-ping-replica-period", "1")
    servers = await make_servers(2, options=options, distinct_sources=True)
    master, replica = servers
    network = networks(servers)

    async def link_is(status: str) -> bool:
        info = await replica.info("replication")
        return info["master_link_status"] == status

    async def replica_has(value: bytes) -> bool:
        return bool(await replica.call("GET", "k") == value)

    await replica.call("REPLICAOF", "127.0.0.1", network.proxies[0].port)
    await eventually(lambda: link_is("up"))
    assert "ip=127.0.0.12" in (await master.info("replication"))["slave0"]
    await master.call("SET", "k", "before")
    await eventually(lambda: replica_has(b"before"))

    network.partition({"127.0.0.11"}, {"127.0.0.12"})
    await master.call("SET", "k", "meanwhile")
    await eventually(lambda: link_is("down"))
    assert await replica_has(b"before")

    network.heal(abort=abort)
    await eventually(lambda: link_is("up"))
    await eventually(lambda: replica_has(b"meanwhile"))
