"""Some cannot reach others: whoever is alone waits, whoever has a quorum goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest_twisted

from tests.failovers import Writers, standings
from tests.groups import at_once, promotions
from tests.servers.conftest import Form, MakeNetwork, MakeServers, Watch
from tests.support import eventually
from txharedis.events import FailoverStarted, FailoverStep, Waiting
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

DOWN_AFTER = 3.0
HERE = "127.0.0.101"
THERE = "127.0.0.102"


def sources(servers: Sequence[LocalServer]) -> set[str]:
    return {str(server.source) for server in servers}


async def all_follow(servers: Sequence[LocalServer], master: LocalServer, node: str) -> bool:
    """Whether all these servers but the master follow it by this address, their links up."""
    others = [server for server in servers if server is not master]
    infos = await at_once(server.info("replication") for server in others)
    return {(await master.info("replication"))["role"]} == {"master"} and all(
        (info["role"], f"{info.get('master_host')}:{info.get('master_port')}") == ("slave", node)
        and info["master_link_status"] == "up"
        for info in infos
    )


@on_reactor
async def test_client_that_alone_loses_the_master_waits(
    reactor: Any, make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    alone = watch(nodes, source=HERE, down_after=DOWN_AFTER)
    other = watch(nodes, source=THERE, down_after=DOWN_AFTER)
    await at_once(one.client.when_ready() for one in (alone, other))
    before = await standings(servers)

    network.partition({HERE}, sources(servers[:1]))
    sent = alone.client.incr("sent")
    await alone.until(Waiting, "is out of reach from here")
    waiting = [alone.client.rpush("list", number) for number in range(5)]
    # The others go on as if nothing had happened, for a while.
    writers = Writers([other.client], "n", 1, pause=0.01)
    writers.start(reactor)
    await writers.some_more(150)
    assert not any(answer.called for answer in waiting)

    network.heal()
    assert [await answer for answer in waiting] == [1, 2, 3, 4, 5]
    assert await sent == 1
    assert await alone.client.get("sent") == 1  # what went over the old link too was done once
    await writers.stop()
    assert not writers.unknown
    assert await standings(servers) == before
    assert promotions(servers) == 0
    for one in (alone, other):
        assert one.masters == nodes[:1]
        assert not one.seen(FailoverStarted)


@on_reactor
async def test_minority_stops_writing_and_majority_elects(
    reactor: Any, make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    servers = await make_servers(5, distinct_sources=True)
    minority, majority = servers[:2], servers[2:]
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    here = watch(nodes, source=HERE, down_after=DOWN_AFTER)
    there = [watch(nodes, source=THERE, down_after=DOWN_AFTER) for _ in range(3)]
    writers_here = Writers([here.client], "here", 2, pause=0.005)
    writers_there = Writers([one.client for one in there], "there", 3, pause=0.005)
    writers_here.start(reactor)
    writers_there.start(reactor)
    await at_once([writers_here.some_more(20), writers_there.some_more(20)])

    network.partition({HERE, *sources(minority)}, {THERE, *sources(majority)})
    partitioned = reactor.seconds()
    # Once it has elected, for longer than the minority's heartbeat.
    await writers_there.some_more(600)
    [promoted] = [
        step for one in there for step in one.seen(FailoverStep) if step.step == "promote"
    ]
    new = majority[nodes[2:].index(str(promoted.node))]
    last_here = writers_here.acknowledged[-1]
    assert last_here <= partitioned + DOWN_AFTER
    assert last_here < promoted.at
    assert (promotions(minority), promotions(majority)) == (0, 1)

    healed = reactor.seconds()
    network.heal()
    await writers_here.some_more(20)
    await eventually(lambda: all_follow(servers, new, str(promoted.node)))
    await at_once([writers_here.stop(), writers_there.stop()])
    assert not [t for t in writers_here.acknowledged if last_here < t < healed]
    assert {one.client.master for one in (here, *there)} == {str(promoted.node)}
    assert (promotions(minority), promotions(majority)) == (0, 1)
    counter = int(await new.call("GET", "there"))
    acknowledged = len(writers_there.acknowledged)
    assert acknowledged <= counter <= acknowledged + writers_there.unknown
