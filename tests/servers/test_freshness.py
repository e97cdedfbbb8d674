"""The replica that knows most becomes the master."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.groups import OWN_DB, at_once, opcounter_of, promotions, until_settled
from tests.servers.conftest import Form, MakeNetwork, MakeServers, Watch
from tests.support import eventually
from txharedis.testing.servers import LocalServer
from txharedis.topology import OPCOUNTER_KEY

on_reactor = pytest_twisted.ensureDeferred

# As texts the first pair compares the other way; the second is less than a hundred apart.
COUNTERS = pytest.mark.parametrize(("old", "new"), [(9, 10), (1000, 1050)])


async def counts(server: LocalServer, number: int) -> bool:
    return await opcounter_of(server) == number


@COUNTERS
@on_reactor
async def test_fresh_replica_wins_over_a_lagging_one(
    make_servers: MakeServers,
    networks: MakeNetwork,
    form: Form,
    watch: Watch,
    old: int,
    new: int,
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    node_of = dict(zip(servers, network.proxies, strict=True))
    await form(servers, [proxy.address for proxy in network.proxies])
    master, *replicas = servers
    # The one that lags is the one that would win if they were equal.
    lagging, fresh = sorted(replicas, key=lambda server: node_of[server].port)
    watched = watch([node_of[server].address for server in servers])
    await watched.client.when_ready()
    await master.call("SET", OPCOUNTER_KEY, old, db=OWN_DB)
    for server in servers:
        await eventually(lambda server=server: counts(server, old))

    network.partition({str(master.source)}, {str(lagging.source)})
    for number in range(1, new - old + 1):
        assert await watched.client.incr("n") == number
    await eventually(lambda: counts(fresh, new))
    assert await counts(lagging, old)
    master.kill()
    assert await watched.client.get("n") == new - old
    assert watched.client.master == node_of[fresh].address
    assert promotions([fresh]) == promotions(servers) == 1
    await eventually(lambda: counts(lagging, new))


@COUNTERS
@on_reactor
async def test_higher_counter_wins_where_offsets_do_not_compare(
    group: list[LocalServer], watch: Watch, old: int, new: int
) -> None:
    master, *replicas = group
    stale, fresh = sorted(replicas, key=lambda server: server.port)
    await at_once(server.call("REPLICAOF", "NO", "ONE") for server in replicas)
    for server, count, value in ((stale, old, "stale"), (fresh, new, "fresh")):
        await server.call("SET", OPCOUNTER_KEY, count, db=OWN_DB)
        await server.call("SET", "k", value)
    await stale.call("SET", "k", "stale" * 1000)  # its offset is the higher one
    master.kill()
    watched = watch(group)
    assert await watched.client.get("k") == "fresh"
    assert await until_settled(replicas) is fresh
    assert await stale.call("GET", "k") == b"fresh"
