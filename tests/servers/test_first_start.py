"""A client meets servers that it has never seen: it makes one group of them, and loses nothing."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.groups import (
    answer,
    at_once,
    follow,
    keys_of,
    meta_of,
    promotions,
    replicates,
    settled,
    until_settled,
)
from tests.servers.conftest import MakeServers, Watch
from tests.support import eventually
from txharedis.events import FailoverStarted, NodeChanged, Waiting
from txharedis.testing.servers import LocalServer
from txharedis.topology import Status

on_reactor = pytest_twisted.ensureDeferred


async def assert_one_group(servers: list[LocalServer], master: LocalServer) -> None:
    """The master and its replicas agree on who they are."""
    assert await settled(servers) is master

    async def meta_everywhere() -> bool:
        metas = await at_once(meta_of(server) for server in servers)
        return bool(metas[0]) and all(meta == metas[0] for meta in metas)

    await eventually(meta_everywhere)
    meta = await meta_of(master)
    assert meta["master"] == master.address
    assert meta["run_id"] == (await master.info("server"))["run_id"]
    assert int(meta["epoch"]) >= 1
    assert meta["group"]


@on_reactor
async def test_three_fresh_masters_become_one_group(trio: list[LocalServer], watch: Watch) -> None:
    watched = watch(trio)
    assert await answer(watched.client.set("k", "v")) == "OK"
    master = await until_settled(trio)
    assert watched.masters == [master.address]
    assert promotions(trio) <= 1
    await assert_one_group(trio, master)
    assert (await meta_of(master))["epoch"] == "1"
    for server in trio:
        await eventually(lambda server=server: has(server, "k", b"v"))


async def has(server: LocalServer, key: str, value: bytes) -> bool:
    return bool(await server.call("GET", key) == value)


@on_reactor
async def test_five_clients_at_three_fresh_masters_agree(
    trio: list[LocalServer], watch: Watch
) -> None:
    clients = [watch(trio) for _ in range(5)]
    assert await at_once(one.client.incr("n") for one in clients) is not None
    master = await until_settled(trio)
    await eventually(lambda: {one.client.master for one in clients} == {master.address})
    assert (await meta_of(master))["epoch"] == "1"
    assert await master.call("GET", "n") == b"5"


@pytest.mark.parametrize("position", [0, 2])
@on_reactor
async def test_ready_made_group_is_followed_as_it_is(
    trio: list[LocalServer], watch: Watch, position: int
) -> None:
    master = trio[position]
    others = [server for server in trio if server is not master]
    await master.call("SET", "old", "data")
    await at_once(follow(server, master) for server in others)
    watched = watch(trio)
    assert await answer(watched.client.get("old")) == "data"
    await eventually(lambda: meta_of(master))
    await assert_one_group(trio, master)
    assert watched.masters == [master.address]
    assert promotions(trio) == 0
    assert not watched.seen(FailoverStarted)
    assert (await master.info("stats"))["sync_full"] == "2"


@pytest.mark.parametrize("position", [0, 2])
@on_reactor
async def test_master_with_data_is_chosen_over_an_empty_one(
    trio: list[LocalServer], watch: Watch, position: int
) -> None:
    full = trio[position]
    replica, empty = (server for server in trio if server is not full)
    await full.call("SET", "old", "data")
    await follow(replica, full)
    watched = watch(trio)
    assert await answer(watched.client.get("old")) == "data"
    master = await until_settled(trio)
    assert master is not empty
    for server in trio:
        assert await keys_of(server) == {"old"}
    await assert_one_group(trio, master)


@on_reactor
async def test_empty_master_with_a_replica_and_an_empty_one_become_one_group(
    trio: list[LocalServer], watch: Watch
) -> None:
    await follow(trio[2], trio[1])
    watched = watch(trio)
    assert await answer(watched.client.set("k", "v")) == "OK"
    await assert_one_group(trio, await until_settled(trio))


@on_reactor
async def test_chain_is_straightened_without_a_promotion(
    trio: list[LocalServer], watch: Watch
) -> None:
    first, second, third = trio
    await first.call("SET", "old", "data")
    await follow(second, first)
    await follow(third, second)
    watched = watch(trio)
    assert await answer(watched.client.get("old")) == "data"
    assert await until_settled(trio) is first
    assert promotions(trio) == 0
    assert watched.masters == [first.address]
    assert not watched.seen(FailoverStarted)
    assert await keys_of(third) == {"old"}
    await assert_one_group(trio, first)


@pytest.mark.parametrize("position", [0, 2])
@on_reactor
async def test_cycle_of_replicas_is_broken_at_the_data(
    trio: list[LocalServer], watch: Watch, position: int
) -> None:
    full = trio[position]
    await full.call("SET", "old", "data")
    # First they follow nobody that answers: whoever followed a master would take over its data.
    for server in trio:
        await server.call("SLAVEOF", "127.0.0.1", 1)
    for server, next_one in zip(trio, [*trio[1:], trio[0]], strict=True):
        await server.call("SLAVEOF", "127.0.0.1", next_one.port)
    watched = watch(trio)
    assert await answer(watched.client.get("old")) == "data"
    assert await answer(watched.client.set("new", 1)) == "OK"
    assert await until_settled(trio) is full
    await assert_one_group(trio, full)


@on_reactor
async def test_one_server_under_two_addresses_is_one_node(
    trio: list[LocalServer], watch: Watch
) -> None:
    twice = trio[0]
    nodes = [f"localhost:{twice.port}", *(server.address for server in trio)]
    watched = watch(nodes)
    assert await answer(watched.client.set("k", "v")) == "OK"
    master = await until_settled(trio)
    assert watched.client.topology.quorum == 2
    # Two of three are a quorum, two of four would be none.
    master.kill()
    await master.exited()
    assert await answer(watched.client.set("k", "w")) == "OK"
    left = [server for server in trio if server is not master]
    new = await until_settled(left)
    assert await new.call("GET", "k") == b"w"
    # It is one vote, too: alone it is no quorum.
    next(server for server in left if server is not twice).kill()
    await watched.until(Waiting, "no quorum: 1 of 3")


@on_reactor
async def test_wrong_password_on_one_node_leaves_the_others_in_service(
    make_servers: MakeServers, watch: Watch
) -> None:
    trio = await make_servers(3, options=("--requirepass", "right", "--masterauth", "right"))
    stranger = trio[2]
    await stranger.restart(options=("--requirepass", "else", "--masterauth", "right"))
    watched = watch(trio, password="right")
    assert await answer(watched.client.set("k", "v")) == "OK"
    assert watched.client.master in {trio[0].address, trio[1].address}
    denied = await watched.until(NodeChanged, "WRONGPASS")
    assert str(denied.node) == stranger.address
    assert denied.status is Status.DENIED
    picture = {str(node.address): node for node in watched.client.topology.nodes}
    assert "WRONGPASS" in picture[stranger.address].reason


@on_reactor
async def test_nothing_listens_until_later(trio: list[LocalServer], watch: Watch) -> None:
    await at_once(server.stop() for server in trio)
    watched = watch(trio)
    answers = [watched.client.rpush("list", number) for number in range(10)]
    await watched.until(Waiting, "no quorum")
    assert not any(waiting.called for waiting in answers)
    await trio[0].start()
    await watched.until(Waiting, "no quorum: 1 of 3")
    assert not any(waiting.called for waiting in answers)
    await at_once(server.start() for server in trio[1:])
    assert [await answer(waiting) for waiting in answers] == list(range(1, 11))
    master = await until_settled(trio)
    assert await master.call("LRANGE", "list", 0, -1) == [b"%d" % n for n in range(10)]
    assert await replicates(next(s for s in trio if s is not master), master)


@on_reactor
async def test_client_that_starts_while_the_master_hangs_replaces_it(
    trio: list[LocalServer], watch: Watch
) -> None:
    first = watch(trio)
    await answer(first.client.set("k", "v"))
    master = await until_settled(trio)
    await first.client.disconnect()
    master.pause()
    # Each dial succeeds, the kernel accepts for it, and each handshake is given up.
    watched = watch(trio, heartbeat=0.4, down_after=1.5, connect_timeout=0.6)
    assert await answer(watched.client.set("k", "w")) == "OK"
    assert watched.client.master not in (None, master.address)
    states = {e.status for e in watched.seen(NodeChanged) if str(e.node) == master.address}
    assert states == {Status.SILENT}
    master.resume()
    assert await until_settled(trio) is not master
