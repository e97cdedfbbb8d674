"""Subscriptions on real servers: what they receive, and what a user is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred

from tests.groups import answer, at_once
from tests.publishers import listeners, on_one_replica
from tests.servers.conftest import MakeServers, Watch
from tests.support import eventually
from txharedis import Message, ResponseError, ServiceStopped, SubscriptionGap
from txharedis.events import MasterChanged
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


async def nobody_listens(servers: Sequence[LocalServer], *channels: str) -> bool:
    return not any(map(sum, await listeners(servers, *channels)))


@on_reactor
async def test_subscribes_on_a_replica_and_receives(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    got: list[Message] = []
    assert await answer(client.subscribe("news", got.append)) == ["subscribe", "news", 1]
    assert await answer(client.psubscribe(["log.*", "é*"], got.append)) == ["psubscribe", "é*", 3]
    assert await answer(client.ssubscribe("shard", got.append)) == ["ssubscribe", "shard", 1]
    replica = await on_one_replica(group, ["news"], 2)
    assert replica is not None
    node = replica.address
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
    assert await nobody_listens(group, "news")
    assert await answer(client.punsubscribe()) == ["punsubscribe", "é*", 0]
    assert await answer(client.sunsubscribe("shard")) == ["sunsubscribe", "shard", 0]

    async def link_is_gone() -> bool:
        lists = await at_once(server.call("CLIENT", "LIST", "TYPE", "pubsub") for server in group)
        return sum(text.count(b"\n") for text in lists) == len(group)  # gossip is left

    await eventually(link_is_gone)


@on_reactor
async def test_one_callback_of_two_is_taken_away(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    one: list[Any] = []
    two: list[Any] = []
    await answer(client.subscribe(["a", "b"], one.append))
    assert await answer(client.subscribe(b"a", two.append)) == ["subscribe", "a", 2]
    await client.publish("a", "1")
    await eventually(lambda: len(one) == len(two) == 1)
    assert await answer(client.unsubscribe("a", one.append)) == ["unsubscribe", "a", 2]
    await client.publish("a", "2")
    await client.publish("b", "3")
    await eventually(lambda: len(one) == len(two) == 2)
    assert [message.data for message in one] == [1, 3]
    assert [message.data for message in two] == [1, 2]
    assert await answer(client.unsubscribe("nobody")) == ["unsubscribe", "nobody", 2]


@on_reactor
async def test_markers_and_quick_changes_of_mind_do_not_show(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group, heartbeat=0.05, down_after=1.0).client
    got: list[Message] = []
    await answer(client.psubscribe("*", got.append))
    waits = client.subscribe("x", got.append)
    left = client.unsubscribe("x")
    with pytest.raises(CancelledError):
        await answer(waits)
    assert await answer(left) == ["unsubscribe", "x", 1]
    again = [client.subscribe("y", got.append), client.unsubscribe("y")]
    again[0].addErrback(lambda failure: failure.trap(CancelledError))
    assert await answer(client.subscribe("y", got.append)) == ["subscribe", "y", 2]
    for number in range(20):
        await client.publish("y", number)
    await eventually(lambda: len(got) >= 40)
    assert {message.channel for message in got} == {"y"}


@on_reactor
async def test_a_refused_channel_fails_alone(group: list[LocalServer], watch: Watch) -> None:
    for server in group:
        await server.call(
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "resetchannels", "&ok*",
            "&haredis:*",
        )  # fmt: skip
    client = watch(group, username="app", password="pw").client
    got: list[Message] = []
    fine = client.subscribe("ok1", got.append)
    with pytest.raises(ResponseError, match="NOPERM"):
        await answer(client.subscribe(["ok2", "secret"], got.append))
    assert await answer(fine) == ["subscribe", "ok1", 1]
    assert await nobody_listens(group, "ok2", "secret")
    await client.publish("ok1", 1)
    await eventually(lambda: len(got) == 1)


@on_reactor
async def test_works_without_the_right_to_the_markers(
    group: list[LocalServer], watch: Watch
) -> None:
    for server in group:
        await server.call(
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "resetchannels", "&ok*",
            "&haredis:gossip:*",
        )  # fmt: skip
    watched = watch(group, username="app", password="pw")
    client = watched.client
    got: list[Message] = []
    await answer(client.subscribe("ok1", got.append))
    at = await on_one_replica(group, ["ok1"])
    assert at is not None
    at.kill()
    await watched.until(SubscriptionGap)
    await client.publish("ok1", 1)
    await eventually(lambda: len(got) == 1)


@on_reactor
async def test_a_subscription_waits_for_a_node_and_ends_with_the_client(
    trio: list[LocalServer], watch: Watch
) -> None:
    for server in trio:
        server.kill()
    client = watch(trio).client
    waits = client.subscribe("c", print)
    late = client.subscribe("d", print)
    late.cancel()
    with pytest.raises(CancelledError):
        await late
    await client.disconnect()
    with pytest.raises(ServiceStopped):
        await waits
    with pytest.raises(ServiceStopped):
        await client.subscribe("c", print)


@on_reactor
async def test_stream_drops_the_oldest_and_ends_with_the_client(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    read: list[Any] = []

    async def reader() -> None:
        async with client.messages("news", "log.*", buffer=3) as stream:
            for number in range(5):
                await client.publish("log.x", number)
            await eventually(lambda: stream.dropped == 2)
            async for message in stream:
                read.append((message.channel, message.data))

    reading = Deferred.fromCoroutine(reader())
    await eventually(lambda: len(read) == 3)
    await client.publish("news", "text")
    await eventually(lambda: len(read) == 4)
    assert read == [("log.x", 2), ("log.x", 3), ("log.x", 4), ("news", "text")]
    await client.disconnect()
    with pytest.raises(ServiceStopped):
        await reading


@on_reactor
async def test_a_cancelled_stream_unsubscribes(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    read: list[Any] = []

    async def reader() -> None:
        async with client.messages("news") as stream:
            async for message in stream:
                read.append(message)

    reading = Deferred.fromCoroutine(reader())
    await eventually(lambda: on_one_replica(group, ["news"]))
    await client.publish("news", 1)
    await eventually(lambda: read)
    reading.cancel()
    with pytest.raises(CancelledError):
        await answer(reading)
    assert await nobody_listens(group, "news")


@on_reactor
async def test_one_server_alone_comes_back(
    make_servers: MakeServers, watch: Watch, reactor: Any
) -> None:
    [server] = await make_servers(1)
    watched = watch([server], charset=None)
    client = watched.client
    got: list[Message] = []
    gaps: list[SubscriptionGap] = []
    await answer(client.subscribe("c", got.append, gaps.append))
    await client.publish("c", "before")
    await eventually(lambda: got)
    before = reactor.seconds()
    server.kill()
    await server.exited()
    await server.restart()
    gap = await watched.until(SubscriptionGap)
    assert gap.since <= before <= gap.until <= reactor.seconds()
    assert gaps == [gap]
    await client.publish("c", "after")
    await eventually(lambda: len(got) == 2)
    assert got == [Message(b"c", data, None, server.address) for data in (b"before", b"after")]
    assert await listeners([server], "c") == [[1]]
    assert len(watched.seen(MasterChanged)) == 2
