"""Blocking commands: they wait through failovers, and take nothing away when they are cancelled."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from tests.groups import answer
from tests.servers.conftest import Watch
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


async def waiting(server: LocalServer, command: str) -> bool:
    """Whether a client is blocked in this command on the server."""
    clients = await server.call("CLIENT", "LIST")
    return any(
        f" cmd={command} " in line and " flags=b " in line for line in clients.decode().splitlines()
    )


@on_reactor
async def test_blpop_waits_through_a_kill_and_takes_from_the_new_master(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    from tests.support import eventually

    master, *others = group
    watched = watch(group)
    popped = watched.client.blpop(["q"], 20)
    await eventually(lambda: waiting(master, "blpop"))
    master.kill()
    await watched.until(type(watched.events[0]))
    await answer(watched.client.set("k", "v"))
    assert not popped.called
    await answer(watched.client.rpush("q", "item"))
    assert await answer(popped) == ["q", "item"]
