"""Replies are lost, on a master that lives and on one that is killed: nothing happens twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList

from tests.groups import answer, at_once, opcounter_of, promotions
from tests.lossy import ONCE, SILENT, behind, lose_replies, run_unheard
from tests.servers.conftest import Form, MakeNetwork, MakeProxy, MakeServers, Watch
from tests.support import eventually
from txharedis import HAClient, OutcomeUnknown, ResponseError
from txharedis.testing.proxy import TcpProxy
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

Give = Callable[[HAClient], Sequence[Deferred[Any]]]

# What was there before, a turn of commands, and their replies though the first ones were lost.
TURNS: dict[str, tuple[list[str], Give, list[Any]]] = {
    "INCR": ([], lambda c: [c.incr("n") for _ in range(10)], list(range(1, 11))),
    "one INCR": (["SET n 41"], lambda c: [c.incr("n")], [42]),
    "items": (
        ["RPUSH list a b c", "SADD single only", "SET k v", "HSET hash f v"],
        lambda c: [
            c.lpop("list"),
            c.spop("single"),
            c.getdel("k"),
            c.execute_command("LPOP", "list", 5),
            c.lpop("list"),
            c.hdel("hash", "f"),
        ],
        ["a", "only", "v", ["b", "c"], None, 1],
    ),
    "NX": (
        [],
        lambda c: [
            c.set("k", "v", only_if_not_exists=True),
            c.setnx("k2", "v"),
            c.hsetnx("hash", "f", "v"),
            c.sadd("set", ["a", "b"]),
            c.set("k", "w", only_if_not_exists=True),
            c.getset("k", "w"),
        ],
        ["OK", 1, 1, 2, None, "v"],
    ),
    "errors": (
        ["SET text hello"],
        lambda c: [c.set("n", 1), c.incr("text"), c.execute_command("APPEND", "text"), c.incr("n")],
        ["OK", ResponseError, ResponseError, 2],
    ),
    "beyond 2^53": (
        ["SET n 9007199254740993", "HSET hash n -9007199254740993"],
        lambda c: [
            c.execute_command("INCR", "n"),
            c.execute_command("decr", "n"),
            c.incrby("n", 2),
            c.decrby("n", 4),
            c.hincrby("hash", "n", -2),
            c.incrby("n", 9000000000000000000),
        ],
        [
            9007199254740994,
            9007199254740993,
            9007199254740995,
            9007199254740991,
            -9007199254740995,
            9009007199254740991,
        ],
    ),
    "many": (
        [],
        lambda c: [c.rpush("list", number) for number in range(3000)],
        list(range(1, 3001)),
    ),
    "large words": (
        [],
        lambda c: [c.append("k", b"x" * 100_000) for _ in range(20)],
        [100_000 * number for number in range(1, 21)],
    ),
}


async def outcomes(replies: Sequence[Deferred[Any]]) -> list[Any]:
    """What they fire with: replies, and the types of errors."""
    told = await answer(DeferredList(list(replies), consumeErrors=True))
    return [result if succeeded else type(result.value) for succeeded, result in told]


@on_reactor
@pytest.mark.parametrize("turn", TURNS)
async def test_lost_replies_of_a_master_that_lives(
    server: LocalServer, proxies: MakeProxy, watch: Watch, turn: str
) -> None:
    before, give, expected = TURNS[turn]
    for line in before:
        await server.call(*line.split())
    proxy = proxies(server)
    client = watch([proxy.address], **SILENT, **ONCE).client
    replies = await run_unheard(client, proxy, server, lambda: give(client))
    assert not any(reply.called for reply in replies)
    digest = await server.call("DEBUG", "DIGEST-VALUE", "n", "k", "list", "hash", "set")
    lose_replies(proxy)
    assert await outcomes(replies) == expected
    assert await server.call("DEBUG", "DIGEST-VALUE", "n", "k", "list", "hash", "set") == digest


class Trio:
    """A group whose client hears of its master through a proxy."""

    def __init__(
        self,
        reactor: Any,
        group: list[LocalServer],
        proxies: MakeProxy,
        watch: Watch,
    ) -> None:
        self.master, *self.others = group
        self.group = group
        made: list[TcpProxy] = [proxies(server) for server in group]
        self.proxy = made[0]
        self.watched = watch(group, dialler=behind(reactor, group, made), **SILENT)
        self.client = self.watched.client

    async def replicated(self) -> None:
        """Return when all replicas have what the master has executed."""
        await eventually(self._level)

    async def _level(self) -> bool:
        infos = await at_once(server.info("replication") for server in self.group)
        return len({info["master_repl_offset"] for info in infos}) == 1


@on_reactor
@pytest.mark.parametrize("turn", TURNS)
async def test_lost_replies_of_a_master_that_is_killed(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch, turn: str
) -> None:
    before, give, expected = TURNS[turn]
    for line in before:
        await group[0].call(*line.split())
    trio = Trio(reactor, group, proxies, watch)
    replies = await run_unheard(trio.client, trio.proxy, trio.master, lambda: give(trio.client))
    await trio.replicated()
    digest = await trio.master.call("DEBUG", "DIGEST-VALUE", "n", "k", "list", "hash", "set")
    trio.master.kill()
    lose_replies(trio.proxy)
    assert await outcomes(replies) == expected
    assert trio.client.master != trio.master.address
    assert promotions(group) == 1
    new = next(server for server in group if server.address == trio.client.master)
    assert await new.call("DEBUG", "DIGEST-VALUE", "n", "k", "list", "hash", "set") == digest


@on_reactor
async def test_what_the_replicas_have_not_got_is_executed_there(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch
) -> None:
    """The master dies with what it alone has executed: it is executed again, once."""
    trio = Trio(reactor, group, proxies, watch)
    assert await answer(trio.client.incr("n")) == 1
    await trio.replicated()
    for server in trio.others:
        server.pause()
    replies = await run_unheard(
        trio.client, trio.proxy, trio.master, lambda: [trio.client.incr("n") for _ in range(5)]
    )
    trio.master.kill()
    lose_replies(trio.proxy)
    for server in trio.others:
        server.resume()
    told = await outcomes(replies)
    assert told == [2, 3, 4, 5, 6]
    new = next(server for server in group if server.address == trio.client.master)
    assert await new.call("GET", "n") == b"6"


@on_reactor
async def test_what_only_the_dead_master_had_is_executed_on_the_next(
    reactor: Any,
    make_servers: MakeServers,
    networks: MakeNetwork,
    form: Form,
    proxies: MakeProxy,
    watch: Watch,
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    master, *others = servers
    proxy = proxies(network.proxies[0])
    dialler = behind(reactor, network.proxies[:1], [proxy])
    client = watch(nodes, dialler=dialler).client
    assert await answer(client.with_options(acks=2).incr("n")) == 1
    network.partition({str(master.source)}, {str(server.source) for server in others})
    assert await answer(client.incr("n")) == 2  # nobody has confirmed it, and it will be lost
    replies = await run_unheard(client, proxy, master, lambda: [client.incr("n") for _ in "abc"])
    assert await master.call("GET", "n") == b"5"
    master.kill()
    lose_replies(proxy)
    assert await outcomes(replies) == [2, 3, 4]
    values = await at_once(server.call("GET", "n") for server in others)
    assert b"4" in values


@on_reactor
@pytest.mark.parametrize("lost", ["link", "master"])
async def test_three_deliveries_side_by_side(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch, lost: str
) -> None:
    trio = Trio(reactor, group, proxies, watch)
    deliveries = ("at-least-once", "at-most-once", "exactly-once")
    views = [trio.client.with_options(delivery=delivery) for delivery in deliveries]
    given = await run_unheard(
        trio.client,
        trio.proxy,
        trio.master,
        lambda: [view.incr(name) for view, name in zip(views, deliveries, strict=True)],
    )
    await trio.replicated()
    if lost == "master":
        trio.master.kill()
    lose_replies(trio.proxy)
    assert await outcomes(given) == [2, OutcomeUnknown, 1]
    counts = [await answer(trio.client.get(name)) for name in deliveries]
    assert counts == [2, 1, 1]


@on_reactor
async def test_order_of_pushes_is_kept_over_lost_links(
    server: LocalServer, proxies: MakeProxy, watch: Watch
) -> None:
    proxy = proxies(server)
    watched = watch([proxy.address], delivery="exactly-once", reconnect_delay=0.01)
    await answer(watched.client.when_ready())
    replies: list[Deferred[Any]] = []
    for number in range(2000):
        replies.append(watched.client.rpush("list", number))
        if number % 20 == 0:
            await eventually(lambda: True)  # a turn of the reactor
        if number % 200 == 0:
            lose_replies(proxy)
    assert await outcomes(replies) == list(range(1, 2001))
    assert await server.call("LRANGE", "list", 0, -1) == [b"%d" % n for n in range(2000)]


@on_reactor
async def test_reads_in_a_batch_run_again_and_see_what_is_there_then(
    server: LocalServer, proxies: MakeProxy, watch: Watch
) -> None:
    proxy = proxies(server)
    client = watch([proxy.address], **SILENT, **ONCE).client
    write, first, read, second, last = await run_unheard(
        client,
        proxy,
        server,
        lambda: [
            client.incr("n"),
            client.get("n"),
            client.get("other"),
            client.incr("n"),
            client.get("n"),
        ],
    )
    await server.call("SET", "other", "fresh")
    await server.call("SET", "n", 100)
    lose_replies(proxy)
    assert await outcomes([write, second]) == [1, 2]
    assert await outcomes([first, read, last]) == [100, "fresh", 100]


@on_reactor
async def test_the_opcounter_counts_each_write_once(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch
) -> None:
    trio = Trio(reactor, group, proxies, watch)
    await answer(trio.client.when_ready())
    before = await opcounter_of(trio.master)
    replies = await run_unheard(
        trio.client, trio.proxy, trio.master, lambda: [trio.client.incr("n") for _ in range(10)]
    )
    counted = await opcounter_of(trio.master)
    lose_replies(trio.proxy)
    assert await outcomes(replies) == list(range(1, 11))
    assert counted >= before + 10
    assert await opcounter_of(trio.master) == counted


@on_reactor
async def test_cancelled_command_of_a_lost_batch_does_not_harm_the_others(
    server: LocalServer, proxies: MakeProxy, watch: Watch
) -> None:
    proxy = proxies(server)
    client = watch([proxy.address], **SILENT, **ONCE).client
    replies = await run_unheard(
        client, proxy, server, lambda: [client.rpush("list", n) for n in range(5)]
    )
    replies[1].addErrback(lambda _: None)
    replies[1].cancel()
    lose_replies(proxy)
    assert await outcomes([replies[0], *replies[2:]]) == [1, 3, 4, 5]
    assert await server.call("LLEN", "list") == 5
