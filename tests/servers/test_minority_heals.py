"""A client that was on the minority's side never takes an old master for the master again."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.groups import answer, at_once, meta_of
from tests.servers.conftest import Form, MakeNetwork, MakeServers, Watch
from tests.support import eventually
from txharedis.events import Waiting
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

HERE = "127.0.0.101"
THERE = "127.0.0.102"
QUICK: dict[str, Any] = {"heartbeat": 0.5, "down_after": 2.0}


async def knows_epoch_2(server: LocalServer) -> bool:
    return (await meta_of(server)).get("epoch") == "2"


@pytest.mark.parametrize("late", [0.0, 0.3])
@on_reactor
async def test_what_the_minority_queued_is_acknowledged_by_the_new_master_only(
    reactor: Any,
    make_servers: MakeServers,
    networks: MakeNetwork,
    form: Form,
    watch: Watch,
    late: float,
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    here = watch(nodes, source=HERE, **QUICK)
    there = watch(nodes, source=THERE, **QUICK)
    await at_once(one.client.when_ready() for one in (here, there))

    old, *others = (str(server.source) for server in servers)
    network.partition({HERE, old}, {THERE, *others})
    await eventually(lambda: here.client.master is None)  # from here on its writes wait
    queued = [here.client.incr("n") for _ in range(100)]
    assert await answer(there.client.get("n")) is None
    new = nodes.index(str(there.client.master))
    assert new != 0
    assert not any(waiting.called for waiting in queued)

    # The old master is the first to be heard again.
    network.proxies[new].delay(late)
    network.heal()
    assert [await answer(waiting) for waiting in queued] == list(range(1, 101))
    assert await servers[new].call("GET", "n") == b"100"
    assert here.masters == [nodes[0], nodes[new]]


@on_reactor
async def test_client_that_sees_a_newer_epoch_without_its_master_stops_sending(
    reactor: Any, make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    here = watch(nodes, source=HERE, survey_interval=0.5, **QUICK)
    there = watch(nodes, source=THERE, **QUICK)
    await at_once(one.client.when_ready() for one in (here, there))

    # It reaches the old master, and of the others the one that will not be master: a quorum.
    old, *others = (str(server.source) for server in servers)
    network.partition({HERE, old}, {THERE, *others})
    assert await answer(there.client.get("n")) is None
    new = nodes.index(str(there.client.master))
    await eventually(lambda: knows_epoch_2(servers[3 - new]))
    network.proxies[3 - new].sever(lambda source: source == old)
    replica = nodes[3 - new]

    def sees_replica() -> bool:
        nodes = here.client.topology.nodes
        return any(str(node.address) == replica and node.status.value == "up" for node in nodes)

    await eventually(sees_replica)
    waiting = [here.client.incr("n") for _ in range(100)]
    await deferLater(reactor, 1.5)
    assert not any(one.called for one in waiting)
    assert await servers[0].call("GET", "n") is None

    network.heal()
    assert [await answer(one) for one in waiting] == list(range(1, 101))
    assert await servers[new].call("GET", "n") == b"100"


@on_reactor
async def test_client_that_keeps_a_quorum_stops_when_the_epoch_moves_on(
    reactor: Any, make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    await servers[2].call("CONFIG", "SET", "replica-priority", 0)
    here = watch(nodes, source=HERE, survey_interval=0.5, **QUICK)
    there = watch(nodes, source=THERE, **QUICK)
    await at_once(one.client.when_ready() for one in (here, there))

    # Here the old master and the other replica are reached all the time, the new master never.
    old, *others = (str(server.source) for server in servers)
    network.partition({HERE, old}, {THERE, *others})
    network.proxies[2].sever(lambda source: source == old)
    assert await answer(there.client.get("n")) is None
    assert there.client.master == nodes[1]
    await eventually(lambda: knows_epoch_2(servers[2]))
    await here.until(Waiting)
    before = await servers[0].call("GET", "n")
    waiting = [here.client.incr("n") for _ in range(100)]
    await deferLater(reactor, 1.0)
    assert not any(one.called for one in waiting)
    assert await servers[0].call("GET", "n") == before

    network.heal()
    assert [await answer(one) for one in waiting] == list(range(1, 101))
    assert await servers[1].call("GET", "n") == b"100"
