"""What a failover tells of the writes that were lost with it, held against the servers' data."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone

from tests.groups import answer, at_once, keys_of, opcounter_of, until_settled
from tests.servers.conftest import Form, MakeNetwork, MakeServers, Watch
from tests.support import eventually
from txharedis.events import FailoverEnded, HistoryDiscarded
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

THERE = "127.0.0.102"
QUICK: dict[str, Any] = {"heartbeat": 0.5, "down_after": 2.0}


async def offset_of(server: LocalServer) -> int:
    return int((await server.info("replication"))["master_repl_offset"])


def stream_bytes(*commands: tuple[Any, ...]) -> int:
    """What these commands take in a replication stream."""
    return sum(len(hiredis.pack_command(words)) for words in commands)


@on_reactor
async def test_what_a_master_took_alone_is_counted_when_it_is_demoted(
    make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    old, *others = servers
    there = watch(nodes, source=THERE, **QUICK)
    await answer(there.client.set("kept", "v"))
    network.partition({str(old.source)}, {THERE, *(str(server.source) for server in others)})
    alone: list[tuple[Any, ...]] = [("SET", f"lost:{n}", "x" * n) for n in range(50)]
    before = await offset_of(old)
    for words in alone:
        assert await old.call(*words) == b"OK"
    assert await answer(there.client.get("kept")) == "v"

    ended = await there.until(FailoverEnded, f"master={there.client.topology.master!r}")
    new = servers[nodes.index(str(ended.master))]
    assert str(ended.old) == nodes[0]
    # What it has, and the newest word of the old one, which is older than that.
    parted = int((await new.info("replication"))["second_repl_offset"])
    assert ended.offset == parted - 1 <= before
    assert 0 < ended.old_offset <= before
    assert 0.0 <= ended.old_offset_age < 30.0

    beyond = await offset_of(old)
    network.heal()
    told = await there.until(HistoryDiscarded)
    assert (str(told.node), str(told.master)) == (nodes[0], str(ended.master))
    assert told.parted_at == parted
    assert told.count == told.offset - ended.offset
    assert told.offset >= beyond
    # Nothing else than those writes, the SELECT before them, and PINGs of 14 bytes.
    select = stream_bytes(("SELECT", "0"))
    assert (told.count - stream_bytes(*alone)) % 14 in (0, select % 14)
    await eventually(lambda: has_only(old, "kept"))
    assert told.epoch >= ended.epoch


async def are_level(servers: list[LocalServer]) -> bool:
    """Whether the replicas have all that the master had: also the count behind the last write."""
    counted = await at_once(opcounter_of(server) for server in servers)
    return counted[0] > 0 and len(set(counted)) == 1


async def has_only(server: LocalServer, key: str) -> bool:
    return await keys_of(server) == {key}


class Sender(Protocol):
    """Sends some bytes, and keeps what comes until the server hangs up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.received = b""
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.ended.callback(None)


@on_reactor
async def test_what_a_hung_master_takes_when_it_wakes_is_counted(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

    old, *_ = group
    watched = watch(group, **QUICK)
    await answer(watched.client.set("kept", "v"))
    await eventually(lambda: are_level(group))
    old.pause()
    # It acknowledges what stands in its socket's buffer as soon as it wakes.
    alone = [("SET", f"lost:{n}", "x" * n) for n in range(50)]
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", old.port)
    sender = await connectProtocol(
        endpoint, Sender(b"".join(hiredis.pack_command(words) for words in alone))
    )
    assert await answer(watched.client.get("kept")) == "v"
    ended = await watched.until(FailoverEnded, "reason='MASTER")
    old.resume()
    told = await watched.until(HistoryDiscarded)
    await until_settled(group)
    assert sender.received == b"+OK\r\n" * len(alone)  # acknowledged, and lost
    assert await keys_of(old) == {"kept"}
    assert str(told.node) == old.address
    assert told.parted_at == ended.offset + 1
    assert told.count == told.offset - ended.offset >= stream_bytes(*alone)
    await sender.ended


@on_reactor
async def test_a_master_that_comes_back_with_nothing_new_lost_nothing(
    group: list[LocalServer], watch: Watch
) -> None:
    old, *_ = group
    watched = watch(group, **QUICK)
    await answer(watched.client.set("kept", "v"))
    await eventually(lambda: are_level(group))
    old.pause()
    assert await answer(watched.client.get("kept")) == "v"
    ended = await watched.until(FailoverEnded, "reason='MASTER")
    old.resume()
    told = await watched.until(HistoryDiscarded)
    await until_settled(group)
    assert told.count is not None
    # Its replicas had everything but, maybe, its PINGs.
    assert told.count % 14 == 0
    assert told.count == told.offset - ended.offset


@on_reactor
async def test_of_a_master_that_restarted_it_is_unknown(
    group: list[LocalServer], watch: Watch
) -> None:
    old, *others = group
    watched = watch(group)
    await answer(watched.client.set("kept", "v"))
    old.kill()
    await old.exited()
    await until_settled(others)
    await old.restart(empty=True)
    told = await watched.until(HistoryDiscarded)
    assert (str(told.node), told.count, told.parted_at) == (old.address, None, None)
