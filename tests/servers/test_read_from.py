"""Reads on replicas: which node executes them, by policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.groups import answer, at_once
from tests.servers.conftest import MakeProxy, MakeServers, Watch
from tests.support import eventually
from txharedis import HAClient, NoMaster, ResponseError, ServiceStopped
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

READS = 60


async def executed(servers: Sequence[LocalServer], command: str) -> list[int]:
    """How many times each server has run this command."""
    infos = await at_once(server.info("commandstats") for server in servers)
    name = f"cmdstat_{command}"
    return [
        int(info[name].split(",")[0].removeprefix("calls=")) if name in info else 0
        for info in infos
    ]


async def counted(servers: Sequence[LocalServer], read: Callable[[], Any], times: int) -> list[int]:
    """How many of so many reads each server executed."""
    before = await executed(servers, "strlen")
    await at_once(answer(read()) for _ in range(times))
    after = await executed(servers, "strlen")
    return [b - a for a, b in zip(before, after, strict=True)]


async def written(servers: Sequence[LocalServer], *words: str) -> None:
    """Run one write on the first server, and return when the others have it."""
    await servers[0].call(*words)

    async def offsets() -> set[str]:
        infos = await at_once(server.info("replication") for server in servers)
        return {
            info["slave_repl_offset" if info["role"] == "slave" else "master_repl_offset"]
            for info in infos
        }

    async def equal() -> bool:
        return len(await offsets()) == 1

    await eventually(equal)


@pytest.mark.parametrize(
    ("policy", "master", "replicas"),
    [
        ("master", True, False),
        ("master_preferred", True, False),
        ("replica", False, True),
        ("replica_preferred", False, True),
        ("any", True, True),
    ],
)
@on_reactor
async def test_who_answers(
    group: list[LocalServer], watch: Watch, policy: str, master: bool, replicas: bool
) -> None:
    await written(group, "SET", "k", "v")
    client = watch(group).client
    await client.when_ready()
    view = client.read_from(policy)
    await eventually(lambda: answered(group, view, master, replicas, replicas))
    assert await at_once(answer(view.get("k")) for _ in range(READS)) == ["v"] * READS


async def answered(servers: Sequence[LocalServer], view: HAClient, *shares: bool) -> bool:
    """Whether these servers, and no others, execute the view's reads."""
    counts = await counted(servers, lambda: view.strlen("k"), READS)
    assert sum(counts) == READS
    return [count > 0 for count in counts] == list(shares)


@on_reactor
async def test_the_nearest_answers(
    group: list[LocalServer], proxies: MakeProxy, watch: Watch
) -> None:
    """All but one are 20 ms away; then that one is, and another is near."""
    fronts = [proxies(server) for server in group]
    await written(group, "SET", "k", "v")
    for front in fronts[:2]:
        front.delay(0.02)
    nodes = [front.address for front in fronts]
    view = watch(nodes, heartbeat=0.05).client.read_from("nearest")
    await view.when_ready()

    await eventually(lambda: answered(group, view, False, False, True))
    fronts[0].delay(0.0)
    fronts[2].delay(0.02)
    await eventually(lambda: answered(group, view, True, False, False))


@on_reactor
async def test_reads_that_the_servers_flag_as_writes(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    await client.when_ready()
    await client.rpush("l", [3, 1, 2])
    await client.set("bits", "abc")
    await client.execute_command("GEOADD", "geo", "13.36", "38.11", "store")
    await client.function_load(
        "#!lua name=m\nredis.register_function{function_name='size', "
        "callback=function(keys) return redis.call('strlen', keys[1]) end, "
        "flags={'no-writes'}}"
    )
    await written(group, "SET", "k", "v")
    view = client.read_from("replica")
    script = "return redis.call('strlen', KEYS[1])"
    results = [
        await answer(view.sort("l", start=0, end=2)),
        await answer(view.execute_command("sort", "l", "DESC")),
        await answer(view.bitfield("bits", "OVERFLOW", "SAT", "GET", "u8", 0)),
        await answer(view.georadius("geo", 13, 38, 200, "km")),
        await answer(view.georadiusbymember("geo", "store", 1, "km")),
        await answer(view.eval_ro(script, 1, "k")),
        await answer(view.fcall_ro("size", 1, "k")),
    ]
    assert results == [[1, 2], [3, 2, 1], [97], ["store"], ["store"], 1, 1]
    for command in ("sort", "sort_ro", "bitfield_ro", "georadius_ro", "eval_ro", "fcall_ro"):
        at_master, *at_replicas = await executed(group, command)
        assert at_master == 0
        assert (sum(at_replicas) > 0) == (command != "sort")
    # With STORE it is a write, and goes to the master.
    assert await answer(view.execute_command("SORT", "l", "STORE", "sorted")) == 3
    assert (await executed(group, "sort"))[0] == 1


@on_reactor
async def test_a_script_that_no_replica_has_runs_on_the_master(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    await client.when_ready()
    sha1 = await client.script_load("return redis.call('strlen', KEYS[1])")
    await written(group, "SET", "k", "v")
    view = client.read_from("replica")
    assert await answer(view.evalsha_ro(sha1, 1, "k")) == 1
    at_master, *at_replicas = await executed(group, "evalsha_ro")
    assert at_master == 1
    assert sum(at_replicas) == 1


@on_reactor
async def test_where_the_read_only_name_may_not_be_used_the_master_answers(
    group: list[LocalServer], watch: Watch
) -> None:
    for server in group[1:]:
        await server.call("ACL", "SETUSER", "default", "-sort_ro")
    client = watch(group).client
    await client.when_ready()
    await client.rpush("l", [3, 1, 2])
    assert await answer(client.read_from("replica").sort("l")) == [1, 2, 3]
    assert (await executed(group, "sort"))[0] == 1


@on_reactor
async def test_errors_and_values_are_those_of_the_master(
    group: list[LocalServer], watch: Watch
) -> None:
    await written(group, "SET", "n", "007")
    client = watch(group, auto_slaveok=True).client
    await client.when_ready()
    assert await answer(client.get("n")) == 7
    assert await answer(client.slave_ok(False).get("n")) == 7
    assert await answer(client.mget(["n", "missing"])) == [7, None]
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await answer(client.llen("n"))


@on_reactor
async def test_a_line_of_the_log_names_the_node_and_the_terms(
    group: list[LocalServer], watch: Watch
) -> None:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if "command" in event:
            lines.append(formatEvent(event))

    client = watch(group[:], command_logging=True).client
    await client.when_ready()
    await eventually(lambda: answered(group, client.slave_ok(), False, True, True))
    globalLogPublisher.addObserver(observe)
    try:
        await client.set("k", "v")
        await answer(client.slave_ok().strlen("k"))
        await answer(client.read_from("any").set("k", "v"))
    finally:
        globalLogPublisher.removeObserver(observe)
    master, *replicas = [server.address for server in group]
    assert lines[0] == f"set on {master} (master default)"
    assert lines[1] in [f"strlen on {replica} (slave preferred)" for replica in replicas]
    assert lines[2] == f"set on {master} (master default)"


@on_reactor
async def test_without_a_replica_to_read_from(make_servers: MakeServers, watch: Watch) -> None:
    [alone] = await make_servers(1)
    client = watch([alone], command_timeout=0.5).client
    await client.set("k", "v")
    for policy in ("replica_preferred", "any", "nearest", "master_preferred"):
        assert await answer(client.read_from(policy).get("k")) == "v"
    with pytest.raises(NoMaster, match="read_from='replica'"):
        await answer(client.read_from("replica").get("k"))
    waiting = client.read_from("replica").get("k")
    await client.disconnect()
    with pytest.raises(ServiceStopped) as caught:
        await waiting
    assert caught.value.executed is False


@on_reactor
async def test_quit_waits_for_a_read_that_only_the_master_can_answer(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    view = client.read_from("replica")
    await answer(client.set("k", 1))
    sha1 = await group[0].call("SCRIPT", "LOAD", "return redis.call('get', KEYS[1])")
    await answer(view.get("k"))
    read, closed = view.evalsha_ro(sha1, 1, "k"), client.quit()
    assert await answer(read) == 1
    await closed
