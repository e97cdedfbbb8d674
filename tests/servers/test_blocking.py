"""Blocking commands: they wait through failovers, and take nothing away when they are cancelled."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.groups import (
    DURABLE,
    answer,
    append_to_file,
    at_once,
    opcounter_of,
    until_settled,
)
from tests.servers.conftest import MakeServers, Watch
from tests.support import eventually
from txharedis import HAClient, QueueFull, ServiceStopped
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


async def waiting(server: LocalServer, command: str) -> int:
    """How many clients are blocked in this command on the server."""
    clients = await server.call("CLIENT", "LIST")
    lines = clients.decode().splitlines()
    return sum(f" cmd={command} " in line and " flags=b " in line for line in lines)


async def cancelled(reply: Deferred[Any]) -> None:
    """Cancel it; the reply that may have come is not looked at."""
    reply.cancel()
    with pytest.raises(CancelledError):
        await reply


@on_reactor
async def test_blpop_waits_through_a_kill_and_takes_from_the_new_master(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *_ = group
    client = watch(group).client
    popped = client.blpop(["q"], 20)
    await eventually(lambda: waiting(master, "blpop"))
    master.kill()
    await master.exited()
    assert await answer(client.rpush("q", "item")) == 1
    assert await answer(popped) == ["q", "item"]


@on_reactor
async def test_all_that_wait_go_on_after_three_failovers_in_a_row(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    replies = [client.brpop([f"q{number}"], 0) for number in range(30)]
    for _ in range(3):
        master = await until_settled(group)
        await eventually(lambda master=master: waiting_all(master, 30))
        await master.restart(empty=True)
    master = await until_settled(group)
    await eventually(lambda: waiting_all(master, 30))
    for number in range(30):
        await answer(client.lpush(f"q{number}", number))
    assert await at_once(map(answer, replies)) == [[f"q{number}", number] for number in range(30)]


async def waiting_all(server: LocalServer, count: int) -> bool:
    return await waiting(server, "brpop") == count


@pytest.mark.parametrize(
    ("command", "timeout"),
    [
        (lambda client: client.blpop(["q"], 3), None),
        (lambda client: client.blmpop(3, 1, "q", "LEFT"), None),
        (lambda client: client.xread("BLOCK", 3000, "STREAMS", "s", "0"), None),
        (lambda client: client.wait(3, 3000), 2),
    ],
    ids=["blpop", "blmpop", "xread", "wait"],
)
@on_reactor
async def test_a_timeout_keeps_its_total_over_a_failover(
    reactor: Any,
    group: list[LocalServer],
    watch: Watch,
    command: Callable[[HAClient], Deferred[Any]],
    timeout: object,
) -> None:
    client = watch(group).client
    await answer(client.when_ready())
    began = reactor.seconds()
    reply = command(client)
    await deferLater(reactor, 1.5)
    assert not reply.called
    group[0].kill()
    result = await answer(reply)
    assert 2.9 <= reactor.seconds() - began <= 4.3  # all of it again would be 4.5
    if timeout is None:
        assert result is None
    else:
        assert result in (0, 1)  # the third is gone


@on_reactor
async def test_a_timeout_holds_while_there_is_no_master(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, other, _ = group
    client = watch(group).client
    blocked = client.blpop(["q"], 3)
    await eventually(lambda: waiting(master, "blpop"))
    began = reactor.seconds()
    master.kill()
    other.kill()
    later = client.blpop(["q"], 1)
    assert await answer(later) is None
    assert 0.9 <= reactor.seconds() - began <= 2.0
    assert await answer(blocked) is None
    assert 2.0 <= reactor.seconds() - began <= 4.5


@on_reactor
async def test_xread_from_now_on_misses_nothing_over_a_failover(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *_ = group
    reader, writer = watch(group).client, watch(group).client
    await answer(writer.when_ready())
    # What the client added itself, without waiting for it, is not new either.
    old = reader.xadd("s", "*", "f", "old")
    entries = reader.xread("BLOCK", 0, "STREAMS", "s", "empty", "$", "$")
    await eventually(lambda: waiting(master, "xread"))
    master.kill()
    await master.exited()
    new = await answer(writer.xadd("s", "*", "f", "new"))
    await answer(writer.xadd("s", "*", "f", "newer"))
    [[stream, [first, *_]]] = await answer(entries)
    assert (stream, first) == ("s", [new, ["f", "new"]])
    assert await answer(old) != new


@on_reactor
async def test_xread_from_now_on_gets_what_came_before_it_was_issued_again(
    make_servers: MakeServers, watch: Watch
) -> None:
    [server] = await make_servers(1, options=DURABLE)
    client = watch([server]).client
    await answer(client.xadd("s", "1-1", "f", "old"))
    entries = client.xread("BLOCK", 0, "STREAMS", "s", "empty", "$", "$")
    await eventually(lambda: waiting(server, "xread"))
    server.kill()
    await server.exited()
    append_to_file(server, ("SELECT", 0), ("XADD", "s", "2-1", "f", "new"))
    await server.start()
    assert await answer(entries) == [["s", [["2-1", ["f", "new"]]]]]


@on_reactor
async def test_wait_counts_the_replicas_that_have_what_was_written(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    assert await answer(client.set("k", 1)) == "OK"
    assert await answer(client.wait(2, 5000)) == 2
    group[1].pause()
    written = client.set("k", 2)
    assert await answer(client.wait(2, 300)) == 1
    assert await answer(written) == "OK"
    group[1].resume()
    assert await answer(client.wait(2, 5000)) == 2


@on_reactor
async def test_wait_tells_the_truth_of_a_single_server_too(
    make_servers: MakeServers, watch: Watch
) -> None:
    server, replica = await make_servers(2)
    client = watch([server]).client
    await replica.call("SLAVEOF", "127.0.0.1", server.port)
    await answer(client.set("k", 1))
    assert await eventually(lambda: client.wait(1, 100)) == 1
    replica.pause()
    await answer(client.set("k", 2))
    assert await answer(client.wait(1, 100)) == 0
    replica.resume()
    assert await server.call("DBSIZE") == 1
    assert await server.call("DBSIZE", db=15) == 0


@on_reactor
async def test_a_pop_is_counted_as_a_write(group: list[LocalServer], watch: Watch) -> None:
    master, *_ = group
    client = watch(group).client
    await answer(client.rpush("q", 1))
    before = await opcounter_of(master)
    assert await answer(client.blpop(["q"], 1)) == ["q", 1]
    assert await answer(client.xread("BLOCK", 1, "STREAMS", "s", "0")) is None
    assert await answer(client.blpop(["q"], 0.01)) is None
    assert await opcounter_of(master) == before + 1


# What a cancelled command takes away: nothing.

RACES: dict[str, tuple[Callable[[HAClient], Deferred[Any]], tuple[Any, ...], Any]] = {
    "blpop": (lambda client: client.blpop(["q"], 0), ("RPUSH", "q"), lambda reply: reply[1:]),
    "brpop": (lambda client: client.brpop(["q"], 0), ("LPUSH", "q"), lambda reply: reply[1:]),
    "blmpop": (
        lambda client: client.blmpop(0, 2, "p", "q", "LEFT", "COUNT", 10),
        ("RPUSH", "q"),
        lambda reply: reply[1],
    ),
    "bzpopmin": (
        lambda client: client.bzpopmin("q", 0),
        ("ZADD", "q", 1),
        lambda reply: reply[1:2],
    ),
    "bzmpop": (
        lambda client: client.bzmpop(0, 1, "q", "MAX", "COUNT", 3),
        ("ZADD", "q", 1),
        lambda reply: [member for member, _ in reply[1]],
    ),
    "blmove": (
        lambda client: client.blmove("q", "to", "LEFT", "RIGHT", 0),
        ("RPUSH", "q"),
        lambda reply: [],
    ),
}
ROUNDS = 60


@pytest.mark.parametrize("name", RACES)
@on_reactor
async def test_a_cancelled_pop_never_swallows_an_item(
    reactor: Any, group: list[LocalServer], watch: Watch, name: str
) -> None:
    pop, push, items_of = RACES[name]
    master, *_ = group
    consumer, producer = watch(group).client, watch(group).client
    await at_once(one.when_ready() for one in (consumer, producer))
    delivered: list[int] = []
    for number in range(ROUNDS):
        reply = pop(consumer)
        reply.addCallback(lambda items: delivered.extend(items_of(items)))
        reply.addErrback(lambda failure: failure.trap(CancelledError))
        if number % 5:
            await deferLater(reactor, random.choice([0, 0.0005, 0.002, 0.01]))
        pushed = producer.execute_command(*push, number)
        if number % 5:
            await deferLater(reactor, random.choice([0, 0, 0.0003, 0.001]))
        reply.cancel()
        await answer(pushed)

    async def all_there() -> bool:
        return not await waiting(master, name) and await left() == set(range(ROUNDS))

    async def left() -> set[int]:
        kind = await master.call("TYPE", "q")
        lists = await master.call("LRANGE", "to", 0, -1)
        if kind == b"list":
            lists += await master.call("LRANGE", "q", 0, -1)
        elif kind == b"zset":
            lists += await master.call("ZRANGE", "q", 0, -1)
        assert len(lists) + len(delivered) <= ROUNDS
        return {*map(int, lists), *delivered}

    await eventually(all_there)


@on_reactor
async def test_many_items_are_put_back_in_their_order(
    group: list[LocalServer], watch: Watch
) -> None:
    """The push comes first, unseen by the client that is about to cancel."""
    master, *_ = group
    client = watch(group).client
    for side, push in (("LEFT", "RPUSH"), ("RIGHT", "RPUSH")):
        reply = client.blmpop(0, 1, side, side, "COUNT", 10)
        await eventually(lambda: waiting(master, "blmpop"))
        master.pause()
        blocked = master.call(push, side, "a", "b", "c")
        pushed = Deferred.fromCoroutine(blocked)
        reply.cancel()
        with pytest.raises(CancelledError):
            await reply
        master.resume()
        await pushed
        items = [b"a", b"b", b"c"]
        await eventually(lambda side=side, items=items: has(master, side, items))


async def has(server: LocalServer, key: str, items: list[bytes]) -> bool:
    return bool(await server.call("LRANGE", key, 0, -1) == items)


@on_reactor
async def test_a_link_is_of_use_again_after_a_cancel(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *_ = group
    client = watch(group).client
    for _ in range(20):
        reply = client.blpop(["q"], 0)
        await eventually(lambda: waiting(master, "blpop"))
        await cancelled(reply)
        await eventually(lambda: none_waits(master))
    received = (await master.info("stats"))["total_connections_received"]
    reply = client.blpop(["q"], 0)
    await eventually(lambda: waiting(master, "blpop"))
    await answer(client.rpush("q", "x"))
    assert await answer(reply) == ["q", "x"]
    # Only the connections by which this test asks; none of the client's.
    mine = int((await master.info("stats"))["total_connections_received"]) - int(received)
    assert mine <= 5


async def none_waits(server: LocalServer) -> bool:
    return not await waiting(server, "blpop")


@on_reactor
async def test_where_unblock_is_not_allowed_the_item_is_put_back_when_it_comes(
    make_servers: MakeServers, watch: Watch
) -> None:
    [server] = await make_servers(1)
    rights = ("~*", "&*", "+@all", "-client|unblock")
    await server.call("ACL", "SETUSER", "app", "on", ">secret", *rights)
    client = watch([server], username="app", password="secret").client
    reply = client.blpop(["q"], 0)
    await eventually(lambda: waiting(server, "blpop"))
    await cancelled(reply)
    await answer(client.ping())
    assert await waiting(server, "blpop") == 1
    await server.call("RPUSH", "q", "item")
    await eventually(lambda: has(server, "q", [b"item"]))


@on_reactor
async def test_a_cancel_in_the_middle_of_a_failover_ends_the_waiting(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *others = group
    client = watch(group).client
    reply = client.blpop(["q"], 0)
    await eventually(lambda: waiting(master, "blpop"))
    master.kill()
    await master.exited()
    await cancelled(reply)
    new = await until_settled(others)
    await answer(client.rpush("q", "item"))
    assert await waiting(new, "blpop") == 0
    assert await answer(client.llen("q")) == 1


@on_reactor
async def test_disconnect_takes_blocked_commands_back(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, *_ = group
    for number in range(20):
        client = watch(group).client
        replies = [client.blpop(["q"], 0) for _ in range(3)]
        if number % 2:
            await eventually(lambda: waiting(master, "blpop"))
        else:
            await answer(client.when_ready())
            await deferLater(reactor, random.choice([0, 0.001, 0.003]))
        pushed = Deferred.fromCoroutine(master.call("RPUSH", "q", number))
        await deferLater(reactor, random.choice([0, 0, 0.0005]))
        taken = [reply.result[1] for reply in replies if reply.called]
        began = reactor.seconds()
        await client.disconnect()
        assert reactor.seconds() - began < 1.0
        await pushed
        for reply in replies[len(taken) :]:
            if not reply.called or not isinstance(reply.result, list):
                with pytest.raises(ServiceStopped):
                    await reply
        assert await waiting(master, "blpop") == 0
        left = [int(item) for item in await master.call("LRANGE", "q", 0, -1)]
        got = [reply.result[1] for reply in replies if isinstance(reply.result, list)]
        assert sorted(left + got) == [number]
        await master.call("DEL", "q")


@on_reactor
async def test_disconnect_does_not_wait_for_a_server_that_hangs(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, *_ = group
    client = watch(group).client
    reply = client.blpop(["q"], 0)
    await eventually(lambda: waiting(master, "blpop"))
    master.pause()
    began = reactor.seconds()
    await client.disconnect()
    assert reactor.seconds() - began < 1.0
    master.resume()
    with pytest.raises(ServiceStopped) as stopped:
        await reply
    assert stopped.value.executed is None


@on_reactor
async def test_quit_waits_for_blocked_commands(group: list[LocalServer], watch: Watch) -> None:
    master, *_ = group
    client = watch(group).client
    reply = client.blpop(["q"], 20)
    await eventually(lambda: waiting(master, "blpop"))
    over = client.quit()
    assert not over.called
    await master.call("RPUSH", "q", "item")
    assert await answer(reply) == ["q", "item"]
    await answer(over)


@on_reactor
async def test_no_more_links_than_max_dedicated(group: list[LocalServer], watch: Watch) -> None:
    master, *_ = group
    client = watch(group, max_dedicated=5).client
    replies = [client.blpop(["q"], 0) for _ in range(5)]
    with pytest.raises(QueueFull, match="max_dedicated=5"):
        await client.blpop(["q"], 0)
    with pytest.raises(QueueFull, match="max_dedicated=5"):
        await client.multi()
    await answer(client.rpush("q", 1))
    await eventually(lambda: sum([reply.called for reply in replies]) == 1)
    one_more = client.blpop(["q"], 0)
    await eventually(lambda: five_wait(master))
    for reply in (*replies, one_more):
        reply.addErrback(lambda failure: failure.trap(ServiceStopped))


async def five_wait(server: LocalServer) -> bool:
    return await waiting(server, "blpop") == 5


@on_reactor
async def test_a_single_server_that_restarts_is_waited_on_again(
    make_servers: MakeServers, watch: Watch
) -> None:
    [server] = await make_servers(1)
    client = watch([server]).client
    reply = client.bzpopmin("z", 0)
    await eventually(lambda: waiting(server, "bzpopmin"))
    await server.restart()
    await answer(client.zadd("z", 1, "m"))
    assert await answer(reply) == ["z", "m", 1]


@on_reactor
async def test_an_error_of_the_server_reaches_the_caller(
    group: list[LocalServer], watch: Watch
) -> None:
    from txharedis import ResponseError

    client = watch(group).client
    await answer(client.set("k", "v"))
    for reply, text in (
        (client.blpop(["k"], 1), "WRONGTYPE"),
        (client.blpop(["q"], "soon"), "timeout is not a float"),
        (client.xread("BLOCK", 1, "STREAMS", "k", "$"), "WRONGTYPE"),
    ):
        with pytest.raises(ResponseError, match=text):
            await answer(reply)
