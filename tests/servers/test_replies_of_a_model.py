"""One client, random commands, links cut and masters killed: each reply is that of a model."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.groups import answer, until_settled
from tests.lossy import ONCE, behind, lose_replies, outcomes
from tests.servers.conftest import MakeProxy, Watch
from tests.support import eventually
from txharedis import HAClient
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


class Model:
    """What a server holds to which only this client writes, and what it answers."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._counts: dict[str, int] = defaultdict(lambda: 2**53 - 20)
        self._lists: dict[str, deque[str]] = defaultdict(deque)
        self._texts: dict[str, str] = {}
        self._number = 0

    def some(self, client: HAClient) -> tuple[Deferred[Any], Any]:
        """Give one command; its Deferred and what it has to fire with."""
        self._number += 1
        name = self._random.choice("abc")
        kinds = [self._incr, self._push, self._pop, self._set_if_new, self._take, self._append]
        return self._random.choice(kinds)(client, name, f"item{self._number}")

    def _incr(self, client: HAClient, name: str, item: str) -> tuple[Deferred[Any], Any]:
        by = self._random.randint(-3, 10)
        self._counts[name] += by
        return client.incrby(f"n{name}", by), self._counts[name]

    def _push(self, client: HAClient, name: str, item: str) -> tuple[Deferred[Any], Any]:
        self._lists[name].append(item)
        return client.rpush(f"l{name}", item), len(self._lists[name])

    def _pop(self, client: HAClient, name: str, item: str) -> tuple[Deferred[Any], Any]:
        items = self._lists[name]
        return client.lpop(f"l{name}"), items.popleft() if items else None

    def _set_if_new(self, client: HAClient, name: str, item: str) -> tuple[Deferred[Any], Any]:
        reply = client.set(f"t{name}", item, only_if_not_exists=True)
        if name in self._texts:
            return reply, None
        self._texts[name] = item
        return reply, "OK"

    def _take(self, client: HAClient, name: str, item: str) -> tuple[Deferred[Any], Any]:
        return client.execute_command("GETDEL", f"t{name}"), self._texts.pop(name, None)

    def _append(self, client: HAClient, name: str, item: str) -> tuple[Deferred[Any], Any]:
        self._texts[name] = self._texts.get(name, "") + item
        return client.append(f"t{name}", item), len(self._texts[name])

    async def is_on(self, server: LocalServer) -> None:
        """Raise an AssertionError where the server holds something else."""
        for name in "abc":
            count = self._counts[name]
            assert await server.call("GET", f"n{name}") == b"%d" % count
            items = [item.encode() for item in self._lists[name]]
            assert await server.call("LRANGE", f"l{name}", 0, -1) == items
            text = self._texts.get(name)
            assert await server.call("GET", f"t{name}") == (text and text.encode())


async def start(server: LocalServer) -> None:
    for name in "abc":
        await server.call("SET", f"n{name}", 2**53 - 20)


class Given:
    """What was given, and what it should fire with."""

    def __init__(self) -> None:
        self.replies: list[Deferred[Any]] = []
        self.expected: list[Any] = []

    def add(self, model: Model, client: HAClient, count: int) -> None:
        for _ in range(count):
            reply, expected = model.some(client)
            self.replies.append(reply)
            self.expected.append(expected)

    async def some_answered(self) -> None:
        """Return when some of what stands unanswered now is answered, or all is."""
        waiting = [reply for reply in self.replies if not reply.called]
        await eventually(lambda: not waiting or any(reply.called for reply in waiting))

    async def check(self) -> None:
        told = await outcomes(self.replies)
        pairs = zip(told, self.expected, strict=True)
        wrong = [(n, *pair) for n, pair in enumerate(pairs) if pair[0] != pair[1]]
        assert not wrong


@on_reactor
@pytest.mark.parametrize("seed", range(5))
async def test_links_are_cut(
    server: LocalServer, proxies: MakeProxy, watch: Watch, seed: int
) -> None:
    await start(server)
    proxy = proxies(server)
    client = watch([proxy.address], reconnect_delay=0.001, reconnect_max=0.01, **ONCE).client
    await answer(client.when_ready())
    model, given, chance = Model(seed), Given(), random.Random(seed)
    for _ in range(60):
        given.add(model, client, chance.randint(1, 60))
        await eventually(lambda: True)
        given.add(model, client, chance.randint(1, 5))
        what = chance.random()
        if what < 0.3:
            lose_replies(proxy)
        elif what < 0.6:
            proxy.stall(to_target=False)
            given.add(model, client, chance.randint(1, 300))
            before = (await server.info("stats"))["total_commands_processed"]
            stats = await server.info("stats")
            assert stats["total_commands_processed"] != before
            lose_replies(proxy)
        elif what < 0.7:
            await server.call("SCRIPT", "FLUSH")
        else:
            await given.some_answered()
    await given.check()
    await model.is_on(server)


@on_reactor
@pytest.mark.parametrize("seed", range(2))
async def test_masters_are_killed(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch, seed: int
) -> None:
    await start(group[0])
    made = [proxies(server) for server in group]
    dialler = behind(reactor, group, made)
    client = watch(group, dialler=dialler, acks=1, ack_timeout=30.0).client
    await answer(client.when_ready())
    model, given, chance = Model(seed), Given(), random.Random(seed)
    for _ in range(3):
        master = await until_settled(group)
        for _ in range(20):
            given.add(model, client, chance.randint(1, 60))
            if chance.random() < 0.2:
                lose_replies(made[group.index(master)])
            await given.some_answered()
        given.add(model, client, 200)
        if chance.random() < 0.5:
            await eventually(lambda: True)
        master.kill()
        given.add(model, client, 50)
        await given.some_answered()
        await master.exited()
        await master.start()  # empty
    await given.check()
    await model.is_on(await until_settled(group))
