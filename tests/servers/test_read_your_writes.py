"""A view whose reads on replicas are never older than its own writes."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.groups import answer, at_once
from tests.servers.conftest import Form, MakeNetwork, MakeServers, Watch
from tests.servers.test_read_faults import HERE, apart
from tests.servers.test_read_from import counted, executed
from tests.support import eventually
from txharedis import HAClient, OutcomeUnknown
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


@on_reactor
async def test_replicas_are_read_when_they_have_the_writes(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    await client.when_ready()
    view = client.read_your_writes()

    async def on_replicas_only() -> bool:
        at_master, *at_replicas = await counted(group, lambda: view.strlen("k"), 10)
        return at_master == 0 and min(at_replicas) > 0

    await eventually(on_replicas_only)  # nothing to miss yet
    await view.set("k", "v")
    # The first one after a write finds out which place a replica must have come to.
    assert await counted(group, lambda: view.strlen("k"), 1) == [1, 0, 0]
    await eventually(on_replicas_only)


@on_reactor
async def test_a_read_behind_an_unanswered_write_sees_it(
    group: list[LocalServer], watch: Watch
) -> None:
    view = watch(group).client.read_from("any").read_your_writes()
    await view.when_ready()
    for number in range(50):
        view.set("k", number)
        read = view.get("k")
        assert await answer(read) == number
        assert await answer(view.get("k")) == number


@pytest.mark.parametrize("policy", ["replica", "replica_preferred", "any"])
@on_reactor
async def test_a_replica_that_is_behind_is_never_believed(
    make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch, policy: str
) -> None:
    servers, nodes, stall = await apart(make_servers, networks, form)
    view = watch(nodes, source=HERE).client.read_from(policy).read_your_writes()
    await view.set("n", -1)
    for number in range(60):
        if number % 20 == 5:
            stall(servers[1])
        if number % 20 == 15:
            stall()
        await answer(view.set("n", number))
        assert await at_once(answer(view.get("n")) for _ in range(5)) == [number] * 5
        assert await at_once(answer(view.get("n")) for _ in range(5)) == [number] * 5
    asked = await executed(servers[1:], "get")
    assert min(asked) > 0


@on_reactor
async def test_its_transactions_and_blocking_commands_are_its_own(
    make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    servers, nodes, stall = await apart(make_servers, networks, form)
    view = watch(nodes, source=HERE).client.read_from("replica_preferred").read_your_writes()
    await answer(view.set("n", 0))
    await answer(view.rpush("l", ["a", "b", "c"]))
    await eventually(lambda: servers[1].call("LLEN", "l"))
    stall(servers[1], servers[2])

    async def count(transaction: Any) -> None:
        await transaction.multi()
        transaction.incr("n")

    for number in (1, 2, 3):
        assert await answer(view.transaction(count, "n")) == [number]
        assert await at_once(answer(view.get("n")) for _ in range(5)) == [number] * 5
        assert await answer(view.blpop("l", timeout=1)) == ["l", "abc"[number - 1]]
        assert await at_once(answer(view.llen("l")) for _ in range(5)) == [3 - number] * 5
    stall()


@on_reactor
async def test_another_view_knows_nothing_of_it(
    make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    """What the test above would see without the promise."""
    servers, nodes, stall = await apart(make_servers, networks, form)
    client = watch(nodes, source=HERE).client
    view, other = client.read_your_writes(), client.read_from("replica")
    await view.set("n", 1)
    await eventually(lambda: read_twice(other, 1))
    stall(*servers[1:])
    await view.set("n", 2)
    assert await answer(other.get("n")) == 1
    assert await answer(view.get("n")) == 2


async def read_twice(view: HAClient, value: int) -> bool:
    return [await answer(view.get("n")), await answer(view.get("n"))] == [value] * 2


@on_reactor
async def test_through_a_failover(
    make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    """One replica is behind when the master dies, and follows the other one later."""
    servers, nodes, stall = await apart(make_servers, networks, form)
    watched = watch(nodes, source=HERE, heartbeat=0.1, down_after=0.5)
    view = watched.client.read_from("any").read_your_writes()
    acknowledged, tried, going = -1, -1, True
    failures: list[Any] = []

    async def write() -> None:
        nonlocal acknowledged, tried
        for number in range(1_000_000):
            if not going:
                return
            tried = number
            try:
                await answer(view.set("n", number))
            except OutcomeUnknown:
                continue
            # A write that no replica had yet is lost with the master: no client can help that.
            while int(await servers[2].call("GET", "n") or -1) < number:
                pass
            acknowledged = number

    async def read() -> None:
        while going:
            least = acknowledged
            value = await answer(view.get("n"))
            if value is None or not least <= value <= tried:
                failures.append((least, value, tried))

    loops = [Deferred.fromCoroutine(write()), *(Deferred.fromCoroutine(read()) for _ in range(3))]
    await eventually(lambda: acknowledged > 50)
    stall(servers[1])
    before = acknowledged
    await eventually(lambda: acknowledged > before + 50)
    servers[0].kill()
    await eventually(lambda: len(watched.masters) == 2)
    assert watched.masters[1] == nodes[2]
    before = acknowledged
    await eventually(lambda: acknowledged > before + 50)
    going = False
    await at_once(loops)
    assert not failures


@pytest.mark.parametrize("method", ["multi", "transaction"])
@on_reactor
async def test_the_writes_of_a_transaction_are_its_own(
    make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch, method: str
) -> None:
    servers, nodes, stall = await apart(make_servers, networks, form)
    view = watch(nodes, source=HERE).client.read_your_writes()
    await view.set("n", 1)

    async def on_replicas() -> bool:
        return (await counted(servers, lambda: view.strlen("n"), 10))[0] == 0

    await eventually(on_replicas)
    stall(*servers[1:])
    if method == "multi":
        tx = await answer(view.multi())
        tx.set("n", 2)
        await answer(tx.commit())
    else:
        await answer(view.transaction(lambda tx: (tx.multi(), tx.set("n", 2))[0]))
    assert await answer(view.get("n")) == 2
