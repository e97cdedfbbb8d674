"""Reads on replicas: which node executes them, by policy."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import pytest_twisted

from tests.groups import answer, at_once
from tests.servers.conftest import Watch
from tests.support import eventually
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
    assert await answer(view.get("k")) == "v"
    replies = [view.get("k") for _ in range(READS)]
    assert [await answer(reply) for reply in replies] == ["v"] * READS
    at_master, *at_replicas = await executed(group, "get")
    assert (at_master > 0, [count > 0 for count in at_replicas]) == (master, [replicas] * 2)
    assert at_master + sum(at_replicas) == READS + 1
