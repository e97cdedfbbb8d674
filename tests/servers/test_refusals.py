"""What a client does not touch: foreign data, other groups, clusters, and what Sentinel watches."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.groups import (
    OWN_DB,
    answer,
    at_once,
    follow,
    keys_of,
    meta_of,
    promotions,
    replicates,
    until_settled,
)
from tests.servers.conftest import MakeServers, Watch
from tests.support import eventually
from txharedis import UnfitNodes, WouldDiscardData
from txharedis.events import FailoverStarted, Refused
from txharedis.testing._loopback import ReservedPort
from txharedis.testing.servers import LocalServer, ServerProgram

on_reactor = pytest_twisted.ensureDeferred


async def role_of(server: LocalServer) -> tuple[str, str]:
    """What it is, and whom it follows."""
    info = await server.info("replication")
    return info["role"], info.get("master_port", "")


async def untouched(servers: list[LocalServer], roles: list[tuple[str, str]]) -> bool:
    """Whether the servers are what they were, and carry none of our keys."""
    now = await at_once(role_of(server) for server in servers)
    metas = await at_once(meta_of(server) for server in servers)
    return now == roles and not any(metas) and promotions(servers) == 0


@on_reactor
async def test_two_masters_with_data_are_refused_and_keep_it(
    trio: list[LocalServer], watch: Watch
) -> None:
    first, second, _ = trio
    await first.call("MSET", "a", 1, "b", 2)
    await second.call("SET", "c", 3)
    roles = await at_once(role_of(server) for server in trio)
    watched = watch(trio)
    waiting = watched.client.set("early", 1)
    with pytest.raises(WouldDiscardData) as refusal:
        await answer(watched.client.when_ready())
    assert f"{first.address} (2 keys)" in str(refusal.value)
    assert f"{second.address} (1 keys)" in str(refusal.value)
    with pytest.raises(WouldDiscardData):
        await answer(waiting)
    with pytest.raises(WouldDiscardData):
        await answer(watched.client.get("a"))
    [event] = watched.seen(Refused)
    assert {str(node) for node in event.nodes} == {first.address, second.address}
    assert await untouched(trio, roles)
    assert await keys_of(first) == {"a", "b"}
    assert await keys_of(second) == {"c"}


@on_reactor
async def test_refused_group_goes_on_when_a_person_has_decided(
    trio: list[LocalServer], watch: Watch
) -> None:
    first, second, _ = trio
    await first.call("SET", "a", 1)
    await second.call("SET", "c", 3)
    watched = watch(trio)
    with pytest.raises(WouldDiscardData):
        await answer(watched.client.get("a"))
    await second.call("FLUSHALL")
    await eventually(lambda: watched.client.when_ready().addErrback(lambda _: None))
    assert await answer(watched.client.get("a")) == 1
    await until_settled(trio)


@on_reactor
async def test_adopted_node_gives_up_its_data(trio: list[LocalServer], watch: Watch) -> None:
    first, second, _ = trio
    await first.call("SET", "a", 1)
    await second.call("MSET", "c", 3, "d", 4, "e", 5)
    watched = watch(trio, adopt=[second.address])
    assert await answer(watched.client.get("a")) == 1
    assert await until_settled(trio) is not second
    for server in trio:
        assert await keys_of(server) == {"a"}
    assert not watched.seen(Refused)


async def assert_left_alone(watched: Any, pair: list[LocalServer], stranger: LocalServer) -> None:
    refused = await watched.until(Refused, stranger.address.rpartition(":")[2])
    assert f"{stranger.address} holds 2 keys" in refused.reason
    assert [str(node) for node in refused.nodes] == [stranger.address]
    assert await answer(watched.client.set("k", "w")) == "OK"
    assert watched.client.master in {server.address for server in pair}
    assert await keys_of(stranger) == {"his", "hers"}
    assert await role_of(stranger) == ("master", "")
    assert promotions([stranger]) == 0
    assert await stranger.call("CONFIG", "GET", "replica-read-only") == [
        b"replica-read-only",
        b"yes",
    ]


@on_reactor
async def test_strangers_server_in_the_list_is_left_alone(
    make_servers: MakeServers, watch: Watch
) -> None:
    *pair, stranger = await make_servers(3)
    nodes = [*pair, stranger]
    await stranger.stop()
    founder = watch(nodes)
    assert await answer(founder.client.set("k", "v")) == "OK"
    await until_settled(pair)
    await founder.client.disconnect()
    # Filled while nobody watches it.
    await stranger.start()
    await stranger.call("MSET", "his", 1, "hers", 2)
    watched = watch(nodes)
    assert await answer(watched.client.get("k")) == "v"
    await assert_left_alone(watched, pair, stranger)
    assert await meta_of(stranger) == {}


@on_reactor
async def test_member_of_another_group_is_left_alone(trio: list[LocalServer], watch: Watch) -> None:
    *pair, stranger = trio
    await stranger.stop()
    founder = watch(trio)
    assert await answer(founder.client.set("k", "v")) == "OK"
    await until_settled(pair)
    await founder.client.disconnect()
    await stranger.start()
    await stranger.call("MSET", "his", 1, "hers", 2)
    theirs = {
        "epoch": "1000",
        "group": "another",
        "master": stranger.address,
        "run_id": (await stranger.info("server"))["run_id"],
    }
    words = [word for pair in theirs.items() for word in pair]
    await stranger.call("HSET", "haredis:meta", *words, db=OWN_DB)
    await stranger.call("SET", "haredis:opcounter", 10**9, db=OWN_DB)
    watched = watch(trio)
    assert await answer(watched.client.get("k")) == "v"
    await assert_left_alone(watched, pair, stranger)
    assert await meta_of(stranger) == theirs
    assert (await meta_of(pair[0]))["group"] != "another"


@pytest.mark.parametrize("following", [1, 3])
@on_reactor
async def test_replicas_of_a_foreign_master_are_refused(
    make_servers: MakeServers, watch: Watch, following: int
) -> None:
    foreign, *trio = await make_servers(4)
    await foreign.call("SET", "theirs", 1)
    await at_once(follow(server, foreign) for server in trio[:following])
    roles = await at_once(role_of(server) for server in trio)
    watched = watch(trio)
    with pytest.raises(UnfitNodes, match=f"follows {foreign.address}"):
        await answer(watched.client.set("k", "v"))
    assert await untouched([foreign, *trio], [("master", ""), *roles])
    assert await keys_of(trio[0]) == {"theirs"}


@on_reactor
async def test_member_that_went_over_to_a_foreign_master_is_left_there(
    make_servers: MakeServers, watch: Watch
) -> None:
    foreign, *trio = await make_servers(4)
    founder = watch(trio)
    assert await answer(founder.client.set("k", "v")) == "OK"
    master = await until_settled(trio)
    await founder.client.disconnect()
    deserter = next(server for server in trio if server is not master)
    await foreign.call("MSET", "theirs", 1, "too", 2)
    await follow(deserter, foreign)
    watched = watch(trio)
    assert await answer(watched.client.get("k")) == "v"
    refused = await watched.until(Refused)
    assert f"{deserter.address} holds 2 keys" in refused.reason
    assert await replicates(deserter, foreign)
    assert await keys_of(deserter) == {"theirs", "too"}
    assert not watched.seen(FailoverStarted)


@pytest.mark.parametrize(("plain", "clustered"), [(0, 1), (2, 1)])
@on_reactor
async def test_cluster_mode_is_refused(
    make_servers: MakeServers, watch: Watch, plain: int, clustered: int
) -> None:
    servers = await make_servers(plain)
    buses = [ReservedPort() for _ in range(clustered)]
    for bus in buses:
        options = ("--cluster-enabled", "yes", "--cluster-port", str(bus.number))
        servers += await make_servers(1, options=options)
    watched = watch(servers)
    with pytest.raises(UnfitNodes, match="is in cluster mode"):
        await answer(watched.client.set("k", "v"))
    [refused] = watched.seen(Refused)
    assert {str(node) for node in refused.nodes} <= {server.address for server in servers[plain:]}
    assert await at_once(role_of(server) for server in servers) == [("master", "")] * len(servers)
    assert promotions(servers) == 0


class Sentinel(LocalServer):
    """A Sentinel that watches one master."""

    master: LocalServer

    def _command(self) -> list[str]:
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nprotected-mode no\n"
            f"dir {self.directory}\nlogfile {self.directory / 'server.log'}\n"
            f"sentinel monitor theirs 127.0.0.1 {self.master.port} 1\n"
        )
        return [str(self.program.path), str(config), "--sentinel"]


@pytest_twisted.async_yield_fixture
async def set_sentinel(
    reactor: Any,
    server_program: ServerProgram,
    tmp_path: Path,
    nothing_left_behind: list[LocalServer],
) -> AsyncIterator[Callable[[LocalServer], Awaitable[Sentinel]]]:
    """`await set_sentinel(master)`: a Sentinel that watches it, stopped after the test."""

    async def make(master: LocalServer) -> Sentinel:
        sentinel = Sentinel(reactor, server_program, tmp_path / "sentinel")
        sentinel.master = master
        nothing_left_behind.append(sentinel)
        await sentinel.start()
        return sentinel

    yield make


async def watched_by_sentinel(server: LocalServer) -> bool:
    reply = await server.call("PUBSUB", "NUMSUB", "__sentinel__:hello")
    return bool(reply[1])


@on_reactor
async def test_group_under_sentinel_is_refused(
    trio: list[LocalServer],
    watch: Watch,
    set_sentinel: Callable[[LocalServer], Awaitable[Sentinel]],
) -> None:
    master, *replicas = trio
    await master.call("SET", "old", "data")
    await at_once(follow(server, master) for server in replicas)
    roles = await at_once(role_of(server) for server in trio)
    sentinel = await set_sentinel(master)
    await eventually(lambda: watched_by_sentinel(master))
    watched = watch(trio)
    with pytest.raises(UnfitNodes, match="watched by Sentinel"):
        await answer(watched.client.get("old"))
    assert await untouched(trio, roles)
    # A person has chosen: it is ours from here on.
    await sentinel.stop()
    got = await eventually(functools.partial(get_if_ready, watched.client, "old"))
    assert got == "data"
    assert promotions(trio) == 0


async def get_if_ready(client: Any, key: str) -> Any:
    got: Deferred[Any] = client.get(key)
    return await got.addErrback(lambda failure: failure.trap(UnfitNodes) and None)
