"""Subscriptions on real servers: they live on one node, and go on through what happens to it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest_twisted

from tests.groups import answer, at_once
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import Message
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


async def listeners(servers: Sequence[LocalServer], channel: str) -> list[int]:
    """How many subscribers of a channel each server has."""
    replies = await at_once(server.call("PUBSUB", "NUMSUB", channel) for server in servers)
    return [reply[1] for reply in replies]


@on_reactor
async def test_subscribes_on_a_replica_and_receives(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    got: list[Message] = []
    assert await answer(client.subscribe("news", got.append)) == ["subscribe", "news", 1]
    assert await answer(client.psubscribe(["log.*", "é*"], got.append)) == ["psubscribe", "é*", 3]
    assert await answer(client.ssubscribe("shard", got.append)) == ["ssubscribe", "shard", 1]
    numbers = await listeners(group, "news")
    assert sum(numbers) == 1
    assert numbers[0] == 0  # the master
    node = group[numbers.index(1)].address
    await client.publish("news", "42")
    await client.publish("log.7", "text")
    await client.publish("é7", b"\xff")
    await client.spublish("shard", "s")
    await eventually(lambda: len(got) == 4)
    assert got == [
        Message("news", 42, None, node),
        Message("log.7", "text", "log.*", node),
        Message("é7", b"\xff", "é*", node),
        Message("shard", "s", None, node),
    ]
    assert await answer(client.punsubscribe("log.*")) == ["punsubscribe", "log.*", 2]
    assert await answer(client.unsubscribe()) == ["unsubscribe", "news", 1]
    assert sum(await listeners(group, "news")) == 0
    assert await answer(client.punsubscribe()) == ["punsubscribe", "é*", 0]
    assert await answer(client.sunsubscribe("shard")) == ["sunsubscribe", "shard", 0]

    async def link_is_gone() -> bool:
        lists = await at_once(server.call("CLIENT", "LIST", "TYPE", "pubsub") for server in group)
        return sum(text.count(b"ssubscribe") + text.count(b"cmd=") for text in lists) == 3

    await eventually(link_is_gone)  # one for gossip on each is left
