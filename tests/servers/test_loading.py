"""A node that is loading newer data than the candidates hold is waited for."""

from __future__ import annotations

import pytest_twisted

from tests.groups import answer, promotions
from tests.servers.conftest import Form, MakeProxy, MakeServers, Watch
from tests.support import eventually
from txharedis.events import Waiting
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

KEYS = 300
SLOW = ("--key-load-delay", "8000", "--loading-process-events-interval-bytes", "1024")


async def lost_for(replica: LocalServer, seconds: int) -> bool:
    """Whether it has been without its master for so long."""
    info = await replica.info("replication")
    return int(info.get("master_link_down_since_seconds", 0)) >= seconds


@on_reactor
async def test_old_master_that_loads_what_the_replicas_missed_is_waited_for(
    make_servers: MakeServers, proxies: MakeProxy, form: Form, watch: Watch
) -> None:
    trio = await make_servers(3)
    master, *replicas = trio
    proxy = proxies(master)
    nodes = [proxy.address, *(server.address for server in replicas)]
    await form(trio, nodes)
    # The replicas lose the master for good, and it takes writes that they never see.
    await proxy.refuse()
    for number in range(KEYS):
        await master.call("SET", f"key{number}", "v" * 2000)
    await master.call("SAVE")
    for server in replicas:
        await eventually(lambda server=server: lost_for(server, 3))
    master.kill()
    await master.exited()
    await master.restart(options=SLOW)
    proxy.restore()

    watched = watch(nodes)
    size = watched.client.dbsize()
    await watched.until(Waiting, "loading")
    assert await answer(size) == KEYS
    assert watched.masters == [proxy.address]
    assert promotions(trio) == 0
