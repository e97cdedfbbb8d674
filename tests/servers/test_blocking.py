"""Blocking commands: they wait through failovers, and take nothing away when they are cancelled."""

from __future__ import annotations

import pytest_twisted

from tests.groups import answer
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


async def waiting(server: LocalServer, command: str) -> int:
    """How many clients are blocked in this command on the server."""
    clients = await server.call("CLIENT", "LIST")
    lines = clients.decode().splitlines()
    return sum(f" cmd={command} " in line and " flags=b " in line for line in lines)


@on_reactor
async def test_blpop_waits_through_a_kill_and_takes_from_the_new_master(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *_ = group
    watched = watch(group)
    popped = watched.client.blpop(["q"], 20)
    await eventually(lambda: waiting(master, "blpop"))
    master.kill()
    await master.exited()
    assert await answer(watched.client.rpush("q", "item")) == 1
    assert await answer(popped) == ["q", "item"]
