"""Nobody is fit to be master: the client waits, says why, and begins by itself when one is."""

from __future__ import annotations

import re

import pytest_twisted

from tests.groups import answer, at_once, meta_of, promotions, until_settled
from tests.servers.conftest import MakeServers, Watch
from tests.support import eventually
from txharedis.events import Waiting
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

# 2000 keys in 8 seconds, with a look at the links every 40 ms or so.
FILL = "for i = 1, 2000 do redis.call('set', 'key:' .. i, string.rep('x', 100)) end"
SLOW_TO_LOAD = ("--key-load-delay", "4000", "--loading-process-events-interval-bytes", "1024")


async def stop_with_data(server: LocalServer) -> None:
    await server.call("SAVE")
    await server.stop()


async def finish_loading(server: LocalServer) -> None:
    await server.call("CONFIG", "SET", "key-load-delay", 0)


async def is_loading(server: LocalServer) -> bool:
    return (await server.info("persistence"))["loading"] == "1"


@on_reactor
async def test_nobody_is_promoted_while_all_are_loading(
    group: list[LocalServer], watch: Watch
) -> None:
    master = group[0]
    await master.call("EVAL", FILL, 0)
    await master.call("SET", "k", "v")
    await at_once(eventually_size(server, 2001) for server in group)
    await at_once(stop_with_data(server) for server in group)
    await at_once(server.restart(options=SLOW_TO_LOAD) for server in group)
    watched = watch(group)
    reply = watched.client.get("k")
    waiting = await watched.until(Waiting, "is loading")
    assert all(server.address in waiting.reason for server in group)
    assert all(await at_once(is_loading(server) for server in group))
    await looked_at(master, 3)
    assert all(await at_once(is_loading(server) for server in group))
    assert not reply.called
    assert promotions(group) == 0
    await at_once(finish_loading(server) for server in group)
    assert await answer(reply) == "v"
    assert promotions(group) <= 1
    await until_settled(group)


async def looked_at(server: LocalServer, times: int) -> None:
    """Return when it has been asked so many times more for what a survey wants to know."""

    async def surveys() -> int:
        stats = await server.info("commandstats")
        found = re.match(r"calls=(\d+)", stats.get("cmdstat_config|get", ""))
        return int(found[1]) if found else 0

    wanted = await surveys() + times

    async def enough() -> bool:
        return await surveys() >= wanted

    await eventually(enough)


async def eventually_size(server: LocalServer, size: int) -> None:
    async def is_there() -> bool:
        return bool(await server.call("DBSIZE") == size)

    await eventually(is_there)


@on_reactor
async def test_loading_node_that_may_be_the_freshest_is_waited_for(
    group: list[LocalServer], watch: Watch
) -> None:
    master, replica, fresh = group
    writer = watch(group)
    await answer(writer.client.eval(FILL))
    await at_once(eventually_size(server, 2000) for server in group)
    await at_once(server.call("SAVE") for server in (master, replica))
    for number in range(10):
        await answer(writer.client.set("k", number))
    await writer.client.disconnect()
    await eventually_size(fresh, 2001)
    await fresh.call("SAVE")
    # All come back, two of them with an older file.
    await at_once(server.stop() for server in group)
    await at_once(server.start() for server in (master, replica))
    await fresh.restart(options=SLOW_TO_LOAD)
    watched = watch(group)
    reply = watched.client.get("k")
    await watched.until(Waiting, f"may be the freshest is not ready: {fresh.address} is loading")
    await looked_at(replica, 3)
    assert await is_loading(fresh)
    assert not reply.called
    assert promotions(group) == 0
    await finish_loading(fresh)
    assert await answer(reply) == 9
    assert watched.masters == [fresh.address]
    assert await until_settled(group) is fresh
    assert await master.call("GET", "k") == b"9"


@on_reactor
async def test_replicas_that_were_never_synced_are_not_promoted(
    make_servers: MakeServers, watch: Watch
) -> None:
    master, *replicas = servers = await make_servers(3, options=("--appendonly", "yes"))
    await master.call("SET", "k", "v")
    await master.stop()
    await at_once(server.call("SLAVEOF", "127.0.0.1", master.port) for server in replicas)
    watched = watch(servers)
    reply = watched.client.get("k")
    waiting = await watched.until(Waiting, "there is no candidate")
    for server in replicas:
        assert f"{server.address} has never been synced with {master.address}" in waiting.reason
    await looked_at(replicas[0], 3)
    assert not reply.called
    assert promotions(servers) == 0
    await master.start()
    assert await answer(reply) == "v"
    assert watched.masters == [master.address]
    assert await until_settled(servers) is master
    assert promotions(servers) == 0


@on_reactor
async def test_restarted_replica_without_data_is_not_promoted(
    group: list[LocalServer], watch: Watch
) -> None:
    master, empty, absent = group
    await master.call("SET", "k", "v")
    watched = watch(group)
    assert await answer(watched.client.get("k")) == "v"
    await absent.stop()
    # The master dies, and the one other node forgets everything.
    await empty.stop()
    await master.stop()
    await empty.restart(empty=True)
    reply = watched.client.get("k")
    await watched.until(Waiting, "no quorum: 1 of 3")
    await absent.restart(empty=True)
    await watched.until(Waiting, "no reachable node has the data of epoch 1")
    assert not reply.called
    assert promotions(group) == 0
    # With all of them back, and none that has the data, waiting would not bring it back.
    await master.restart(empty=True)
    assert await answer(reply) is None
    assert await answer(watched.client.set("k", "w")) == "OK"
    assert int((await meta_of(await until_settled(group)))["epoch"]) > 1
