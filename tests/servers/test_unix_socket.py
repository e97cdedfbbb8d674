"""One server behind a unix socket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.groups import answer
from tests.servers.conftest import MakeServers, Watch
from txharedis.events import NodeChanged
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


@pytest.fixture
def path() -> Iterator[Path]:
    """Of a socket: a short one, the system allows about a hundred bytes."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "socket"


async def behind(path: Path, make_servers: MakeServers) -> LocalServer:
    options = ("--unixsocket", str(path), "--requirepass", "pw", "--appendonly", "yes")
    [server] = await make_servers(1, options=options, auth=("pw",))
    return server


@on_reactor
@pytest.mark.parametrize("url", ["unix:{}", "unix://:pw@{}?db=2"])
async def test_it_serves_and_survives_a_restart(
    make_servers: MakeServers, watch: Watch, path: Path, url: str
) -> None:
    server = await behind(path, make_servers)
    options = {} if "pw" in url else {"password": "pw", "db": 2}
    watched = watch(url.format(path), delivery="at-least-once", **options)
    assert await answer(watched.client.set("k", "v")) == "OK"
    assert watched.client.master == f"unix:{path}"
    assert await server.call("GET", "k", db=2) == b"v"
    for _ in range(2):
        await server.stop()
        waiting = answer(watched.client.append("k", "w"))
        await watched.until(NodeChanged, "DROPPED")
        await server.start()
        await waiting
    assert await answer(watched.client.get("k")) == "vww"
    assert [str(node.address) for node in watched.client.topology.nodes] == [f"unix:{path}"]


@on_reactor
async def test_it_waits_for_a_socket_that_is_not_there_yet(
    make_servers: MakeServers, watch: Watch, path: Path
) -> None:
    watched = watch(f"unix:{path}", password="pw")
    waiting = answer(watched.client.set("k", "v"))
    await behind(path, make_servers)
    assert await waiting == "OK"
