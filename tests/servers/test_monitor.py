"""MONITOR on the master, whichever it is."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError

from tests.groups import answer
from tests.servers.conftest import MakeServers, Watch
from tests.support import eventually
from txharedis import ResponseError, ServiceStopped
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


async def monitors(server: LocalServer) -> int:
    clients = await server.call("CLIENT", "LIST")
    return sum(" flags=O" in line for line in clients.decode().splitlines())


@on_reactor
async def test_lines_come_from_one_master_after_the_other(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *others = group
    client, writer = watch(group).client, watch(group).client
    lines: list[str] = []
    monitoring = await answer(client.monitor(lines.append))
    assert monitoring.node == master.address
    await answer(writer.set("first", "é"))
    await eventually(lambda: any('"SET" "first" "\\xc3\\xa9"' in line for line in lines))
    master.kill()
    await master.exited()
    await eventually(lambda: monitoring.node == client.master is not None)
    [new] = [server for server in others if server.address == client.master]
    await eventually(lambda: monitors(new))
    await answer(writer.set("second", 2))
    await eventually(lambda: any('"SET" "second"' in line for line in lines))

    await answer(monitoring.stop())
    count = len(lines)
    await eventually(lambda: no_monitors(new))
    await answer(writer.set("third", 3))
    assert len(lines) == count
    assert monitoring.ended.called


async def no_monitors(server: LocalServer) -> bool:
    return not await monitors(server)


@on_reactor
async def test_it_ends_with_the_client(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    monitoring = await answer(client.monitor(print))
    cancelled = client.monitor(print)
    cancelled.cancel()
    with pytest.raises(CancelledError):
        await cancelled
    late = client.monitor(print)
    over = client.disconnect()
    assert monitoring.ended.called
    with pytest.raises(ServiceStopped):
        await answer(late)
    await over
    assert await no_monitors(group[0])


@on_reactor
async def test_a_refusal_reaches_the_caller(make_servers: MakeServers, watch: Watch) -> None:
    [server] = await make_servers(1)
    await server.call("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-monitor")
    client = watch([server], username="app", password="secret").client
    with pytest.raises(ResponseError, match="NOPERM"):
        await answer(client.monitor(print))
