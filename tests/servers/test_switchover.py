"""A planned switchover: the master is moved under load, and nobody notices but by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.failovers import Writers
from tests.groups import (
    WatchedClient,
    answer,
    at_once,
    meta_of,
    opcounter_of,
    promotions,
    until_settled,
)
from tests.servers.conftest import Form, MakeServers, Watch
from tests.support import eventually
from txharedis import HAClient
from txharedis.events import FailoverEnded, FailoverStarted, FailoverStep, HistoryDiscarded
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

WAYS = {"FAILOVER": (), "CLIENT PAUSE": ("--rename-command", "FAILOVER", "")}
"""The options of servers that know FAILOVER, and of those that do not."""


class Lists:
    """Writers of one list each: RPUSH of the next number, all without awaiting the last."""

    def __init__(self, clients: Sequence[HAClient], in_flight: int = 20) -> None:
        self._clients = clients
        self._stopping = False
        self._running: list[Deferred[None]] = []
        self.counts = [0] * len(clients) * in_flight
        self._in_flight = in_flight

    def start(self) -> None:
        for number, client in enumerate(self._clients):
            self._running.append(Deferred.fromCoroutine(self._push(number, client)))

    async def _push(self, number: int, client: HAClient) -> None:
        pushed = 0
        while not self._stopping:
            batch = [client.rpush(f"list:{number}", pushed + n) for n in range(self._in_flight)]
            pushed += self._in_flight
            replies = await at_once(batch)
            assert replies == list(range(pushed - self._in_flight + 1, pushed + 1))
        self.counts[number] = pushed

    async def stop(self) -> list[int]:
        self._stopping = True
        await at_once(self._running)
        return self.counts[: len(self._clients)]


@pytest.mark.parametrize("way", WAYS)
@on_reactor
async def test_under_load_no_write_is_lost_doubled_failed_or_out_of_order(
    reactor: Any, make_servers: MakeServers, form: Form, watch: Watch, way: str
) -> None:
    servers = await make_servers(3, options=WAYS[way])
    await form(servers)
    watched = [watch(servers) for _ in range(4)]
    clients = [one.client for one in watched]
    await at_once(client.when_ready() for client in clients)
    writers, lists = Writers(clients, "n", 40), Lists(clients)
    writers.start(reactor)
    lists.start()
    await writers.some_more(200)
    masters = [clients[0].master]
    for _ in range(4):
        new = await answer(clients[0].switchover())
        assert new == clients[0].master != masters[-1]
        masters.append(new)
        await writers.some_more(400)
        await until_settled(servers)
    await writers.stop()
    counts = await lists.stop()

    assert writers.unknown == 0
    assert await answer(clients[0].get("n")) == len(writers.acknowledged)
    for number, count in enumerate(counts):
        pushed = await answer(clients[0].lrange(f"list:{number}", 0, -1))
        assert pushed == list(range(count))
    master = await until_settled(servers)
    for one in watched:
        assert one.masters == masters
        assert not one.seen(HistoryDiscarded)
    # Nobody else thought that there was anything to do.
    assert not [one for one in watched[1:] if one.seen(FailoverStarted)]
    epochs = [event.epoch for event in watched[0].seen(FailoverEnded)]
    assert epochs == sorted(set(epochs))
    assert int((await meta_of(master))["epoch"]) == epochs[-1]
    stood = [event.outage for event in watched[0].seen(FailoverEnded)]
    print(f"{way}: writes stood still for", *(f"{1000 * each:.1f}" for each in stood), "ms")
