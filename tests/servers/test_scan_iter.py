"""Iterating over keys and members, through a failover as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted

from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import HAClient, ResponseError
from txharedis.reads.scanning import ScanIterator
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

COUNT = 1000


async def collected(scan: ScanIterator) -> list[Any]:
    return [item async for item in scan]


async def filled(client: HAClient) -> None:
    """1000 keys, and as many elements in a set, a hash and a sorted set."""
    await client.mset({f"key:{number}": number for number in range(COUNT)})
    await client.sadd("s", [f"m{number}" for number in range(COUNT)])
    await client.hmset("h", {f"f{number}": f"v{number}" for number in range(COUNT)})
    pairs = [word for number in range(COUNT) for word in (number + 0.5, f"m{number}")]
    await client.execute_command("ZADD", "z", *pairs)


@pytest.mark.parametrize("options", [{}, {"charset": None, "convert_numbers": False}])
@on_reactor
async def test_all_is_found(server: LocalServer, watch: Watch, options: dict[str, Any]) -> None:
    client = watch([server], **options).client
    await filled(client)

    def text(value: Any) -> Any:
        return value.decode() if isinstance(value, bytes) else value

    keys = await collected(client.scan_iter("key:*", count=50))
    assert sorted(map(text, keys)) == sorted(f"key:{number}" for number in range(COUNT))
    assert len(await collected(client.scan_iter())) == COUNT + 3
    assert [text(key) for key in await collected(client.scan_iter(type="zset"))] == ["z"]
    members = await collected(client.sscan_iter("s", match="m99*"))
    assert {text(member) for member in members} == {"m99", *(f"m{n}" for n in range(990, 1000))}
    fields = await collected(client.hscan_iter("h", count=10))
    assert {(text(a), text(b)) for a, b in fields} == {(f"f{n}", f"v{n}") for n in range(COUNT)}
    scores = await collected(client.zscan_iter("z"))
    assert {(text(a), b) for a, b in scores} == {(f"m{n}", n + 0.5) for n in range(COUNT)}
    assert all(type(score) is float for _, score in scores)
    assert await collected(client.sscan_iter("nothing")) == []
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await collected(client.sscan_iter("h"))


SCANS: dict[str, Callable[[HAClient], ScanIterator]] = {
    "scan": lambda client: client.scan_iter("key:*", count=20),
    "sscan": lambda client: client.sscan_iter("s", count=20),
    "hscan": lambda client: client.hscan_iter("h", count=20),
    "zscan": lambda client: client.zscan_iter("z", count=20),
}


@pytest.mark.parametrize("name", SCANS)
@on_reactor
async def test_a_kill_in_the_middle(group: list[LocalServer], watch: Watch, name: str) -> None:
    """What was there all the time is found, though each server has an order of its own."""
    watched = watch(group)
    await filled(watched.client)

    async def replicated() -> bool:
        return [await server.call("ZCARD", "z") for server in group] == [COUNT] * 3

    await eventually(replicated)
    scan = SCANS[name](watched.client.read_from("replica"))
    found = set()
    steps = 0
    async for item in scan:
        found.add(item)
        steps += 1
        if steps == COUNT // 2:
            group[0].kill()
    assert len(found) == COUNT
    assert scan.restarted == 1
    assert len(watched.masters) == 2


@on_reactor
async def test_a_lost_link_is_no_other_server(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    await filled(client)
    scan = SCANS["scan"](client)
    found: list[Any] = []
    async for item in scan:
        found.append(item)
        if len(found) == COUNT // 2:
            await group[0].call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert sorted(found) == sorted(f"key:{number}" for number in range(COUNT))
    assert scan.restarted == 0


@on_reactor
async def test_in_single_mode_a_restart_is_another_server(make_servers: Any, watch: Watch) -> None:
    [server] = await make_servers(1, options=("--appendonly", "yes"))
    client = watch([server]).client
    await filled(client)
    scan = SCANS["scan"](client)
    found = set()
    async for item in scan:
        found.add(item)
        if len(found) == COUNT // 2 and not scan.restarted:
            await server.restart()
    assert len(found) == COUNT
    assert scan.restarted == 1
