"""Subscriptions go on, on one node, through all that happens to the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest_twisted

from tests.groups import answer, at_once, until_settled
from tests.publishers import Publisher, Received, on_one, on_one_replica
from tests.servers.conftest import Form, MakeNetwork, MakeServers, Watch
from tests.support import eventually
from txharedis import SubscriptionGap
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


CHANNELS = [f"c{number}" for number in range(20)]
PATTERNS = [f"p{number}.*" for number in range(10)]


@on_reactor
async def test_five_failovers_in_a_row(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    subscriber = watch(group)
    received = Received()
    told: list[SubscriptionGap] = []
    await answer(subscriber.client.subscribe(CHANNELS, received, told.append))
    await answer(subscriber.client.psubscribe(PATTERNS, received, told.append))
    publisher = Publisher(
        reactor,
        watch(group).client,
        CHANNELS + [f"{pattern[:-1]}x" for pattern in PATTERNS],
    )
    publisher.start()
    await publisher.some_more(100)
    for _ in range(5):
        dead = await until_settled(group)
        dead.kill()
        await publisher.some_more(200)
        await dead.exited()
        await dead.restart()
        await until_settled(group)
        await eventually(lambda: on_one_replica(group, CHANNELS, len(PATTERNS)), 15.0)
        await publisher.some_more(200)
    await publisher.stop()
    await eventually(lambda: len(publisher.sent) - 1 in received.all)

    received.check()
    gaps = subscriber.seen(SubscriptionGap)
    assert told == gaps
    assert publisher.unexplained(received.all, gaps) == []
    assert await on_one_replica(group, CHANNELS, len(PATTERNS))
    # It is not by long gaps that nothing is unexplained.
    assert len(gaps) <= 20
    missed = len(publisher.sent) - len(received)
    print(f"{missed} of {len(publisher.sent)} missed, gaps {[g.until - g.since for g in gaps]}")
    assert missed <= 0.2 * len(publisher.sent)


async def are_cut_off(replicas: Sequence[LocalServer]) -> bool:
    infos = await at_once(replica.info("replication") for replica in replicas)
    return all(info["master_link_status"] == "down" for info in infos)


async def cut_off(master: LocalServer, replicas: Sequence[LocalServer]) -> None:
    """Let these replicas lose their master, and not find it again."""
    await at_once(replica.call("CONFIG", "SET", "masterauth", "wrong") for replica in replicas)
    await master.call("CLIENT", "KILL", "TYPE", "replica")


@on_reactor
async def test_a_replica_takes_them_from_the_master_and_nothing_is_lost(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, *replicas = group
    await cut_off(master, replicas)
    await eventually(lambda: are_cut_off(replicas))
    subscriber = watch(group, survey_interval=0.5)
    received = Received()
    told: list[SubscriptionGap] = []
    publisher = Publisher(reactor, watch(group).client, CHANNELS, pause=0.0)
    await answer(subscriber.client.subscribe(CHANNELS, received, told.append))
    publisher.start()
    await publisher.some_more(100)
    assert await on_one(group, CHANNELS) is master
    await replicas[0].call("CONFIG", "SET", "masterauth", "")
    await eventually(lambda: on_one_replica(group, CHANNELS))
    assert await on_one(group, CHANNELS) is replicas[0]
    await publisher.some_more(100)
    await publisher.stop()
    await eventually(lambda: len(received) == len(publisher.sent))
    received.check()
    assert told == []


@on_reactor
async def test_a_replica_that_lost_its_master_is_left_and_the_gap_is_told(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, *replicas = group
    subscriber = watch(group, survey_interval=0.5)
    received = Received()
    await answer(subscriber.client.subscribe(CHANNELS, received))
    publisher = Publisher(reactor, watch(group).client, CHANNELS)
    publisher.start()
    await publisher.some_more(100)
    await cut_off(master, replicas)
    await eventually(lambda: on_one(group, CHANNELS, master))
    gap = await subscriber.until(SubscriptionGap)
    await publisher.some_more(100)
    await replicas[1].call("CONFIG", "SET", "masterauth", "")
    await eventually(lambda: on_one(group, CHANNELS, replicas[1]))
    await publisher.some_more(100)
    await publisher.stop()
    await eventually(lambda: len(publisher.sent) - 1 in received.all)
    received.check()
    assert subscriber.seen(SubscriptionGap) == [gap]
    assert publisher.unexplained(received.all, [gap]) == []
    assert len(received) < len(publisher.sent)


@on_reactor
async def test_a_promoted_replica_hands_them_to_another(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, *replicas = group
    subscriber = watch(group)
    received = Received()
    await answer(subscriber.client.subscribe(CHANNELS, received))
    here = await on_one_replica(group, CHANNELS)
    assert here is not None
    [there] = [server for server in replicas if server is not here]
    await there.call("CONFIG", "SET", "replica-priority", 0)
    publisher = Publisher(reactor, watch(group).client, CHANNELS)
    publisher.start()
    await publisher.some_more(100)
    master.kill()
    await eventually(lambda: on_one(replicas, CHANNELS, there))
    await publisher.some_more(100)
    await publisher.stop()
    await eventually(lambda: len(publisher.sent) - 1 in received.all)
    received.check()
    [gap] = subscriber.seen(SubscriptionGap)
    assert publisher.unexplained(received.all, [gap]) == []
    assert (await here.info("replication"))["role"] == "master"


@on_reactor
async def test_a_silent_node_is_left(reactor: Any, group: list[LocalServer], watch: Watch) -> None:
    subscriber = watch(group, heartbeat=0.2, down_after=1.0)
    received = Received()
    await answer(subscriber.client.subscribe(CHANNELS, received))
    publisher = Publisher(reactor, watch(group).client, CHANNELS)
    publisher.start()
    await publisher.some_more(50)
    silent = await on_one_replica(group, CHANNELS)
    assert silent is not None
    stopped = reactor.seconds()
    silent.pause()
    gap = await subscriber.until(SubscriptionGap)
    assert gap.since <= stopped + 0.1
    assert gap.until <= stopped + 2.0
    await publisher.some_more(50)
    silent.resume()
    others = [server for server in group if server is not silent]
    await eventually(lambda: on_one_replica(others, CHANNELS))
    await eventually(lambda: on_one_replica(group, CHANNELS))
    await publisher.stop()
    await eventually(lambda: len(publisher.sent) - 1 in received.all)
    received.check()
    assert publisher.unexplained(received.all, subscriber.seen(SubscriptionGap)) == []


@on_reactor
async def test_a_replica_that_hears_nothing_of_its_master_is_left(
    reactor: Any, make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    subscriber = watch(nodes, heartbeat=0.2, down_after=1.0)
    received = Received()
    await answer(subscriber.client.subscribe(CHANNELS, received))
    publisher = Publisher(reactor, watch(nodes).client, CHANNELS)
    publisher.start()
    await publisher.some_more(100)
    deaf = await on_one_replica(servers, CHANNELS)
    assert deaf is not None
    # It goes on answering, and does not say for a minute that its link is down.
    others = [server for server in servers if server is not deaf]
    network.partition({str(deaf.source)}, {str(server.source) for server in others})
    cut = reactor.seconds()
    gap = await subscriber.until(SubscriptionGap)
    assert gap.since <= cut + 0.1
    # One second until it is noticed, and one for the old link to show that it is of no use.
    assert gap.until - cut <= 3.0
    await eventually(lambda: on_one_replica(others, CHANNELS))
    await publisher.some_more(100)
    network.heal()
    await publisher.some_more(100)
    await publisher.stop()
    await eventually(lambda: len(publisher.sent) - 1 in received.all)
    received.check()
    assert publisher.unexplained(received.all, subscriber.seen(SubscriptionGap)) == []
    await eventually(lambda: on_one_replica(servers, CHANNELS))


@on_reactor
async def test_a_full_resync_between_two_markers_is_told(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, *replicas = group
    # None of the markers is lost, because there is none in that time.
    subscriber = watch(group, heartbeat=4.0, down_after=12.0)
    received = Received()
    await answer(subscriber.client.subscribe(CHANNELS, received))
    publisher = Publisher(reactor, watch(group).client, CHANNELS)
    publisher.start()
    await publisher.some_more(50)
    here = await on_one_replica(group, CHANNELS)
    await master.call("DEBUG", "CHANGE-REPL-ID")
    await cut_off(master, replicas)
    await publisher.some_more(50)
    for replica in replicas:
        await replica.call("CONFIG", "SET", "masterauth", "")
    await until_settled(group)
    gap = await subscriber.until(SubscriptionGap, timeout=20.0)
    await publisher.stop()
    await eventually(lambda: len(publisher.sent) - 1 in received.all)
    received.check()
    assert len(received) < len(publisher.sent)
    assert publisher.unexplained(received.all, [gap]) == []
    assert await on_one_replica(group, CHANNELS) is here
