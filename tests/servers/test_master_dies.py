"""The master is killed: it is replaced once, and every command is answered."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from tests.failovers import Writers, steps
from tests.groups import at_once, opcounter_of, promotions, settled, until_settled
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


@on_reactor
async def test_counter_is_right_after_a_kill_under_ten_writers(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    # One client. Of several, a server may answer one before it writes to its replicas, and be
    # killed in between: without acks nobody can promise that acknowledgement.
    master, *others = group
    watched = watch(group)
    writers = Writers([watched.client], "n", 10)
    writers.start(reactor)
    await writers.some_more(100)
    master.kill()
    await writers.some_more(100)
    await writers.stop()

    new = await until_settled(others)
    assert watched.client.master == new.address
    counter = int(await new.call("GET", "n"))
    acknowledged = len(writers.acknowledged)
    assert acknowledged <= counter <= acknowledged + writers.unknown
    # Ten were on their way at most, and the new master had seen the count of each batch.
    assert writers.unknown <= 10
    assert await opcounter_of(new) >= counter
    assert promotions(group) == 1


@on_reactor
async def test_nobody_writes_to_a_second_master_after_a_kill(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, *others = group
    watched = [watch(group) for _ in range(10)]
    clients = [one.client for one in watched]
    writers = Writers(clients, "n", 10)
    writers.start(reactor)
    await writers.some_more(100)
    master.kill()
    await writers.some_more(100)
    await writers.stop()
    new = await until_settled(others)
    assert {client.master for client in clients} == {new.address}
    counter = int(await new.call("GET", "n"))
    assert counter <= len(writers.acknowledged) + writers.unknown
    # Those who write now share one counter.
    assert sorted(await at_once(client.incr("n") for client in clients)) == list(
        range(counter + 1, counter + 11)
    )
    assert promotions(group) == steps(watched, "promote") == 1


@on_reactor
async def test_killed_master_comes_back_empty_and_is_filled(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *others = group
    watched = watch(group)
    await watched.client.set("k", "v")
    master.kill()
    assert await watched.client.get("k") == "v"
    await master.restart(empty=True)
    assert await until_settled(group) in others
    assert await master.call("GET", "k") == b"v"
    assert promotions(group) == 1


@pytest.mark.parametrize("count", [10, 50])
@on_reactor
async def test_clients_that_notice_together_promote_once(
    group: list[LocalServer], watch: Watch, count: int
) -> None:
    clients = [watch(group) for _ in range(count)]
    await at_once(one.client.when_ready() for one in clients)
    for kill in (1, 2):
        dead = await until_settled(group)
        dead.kill()
        others = [server for server in group if server is not dead]

        async def agreed(others: list[LocalServer] = others) -> bool:
            new = await settled(others)
            return new is not None and {one.client.master for one in clients} == {new.address}

        await eventually(agreed)
        answers = await at_once(one.client.incr("n") for one in clients)
        assert sorted(answers) == list(range((kill - 1) * count + 1, kill * count + 1))
        await dead.restart(empty=True)
        await until_settled(group)
        # The servers' logs would not show it if the new master was promoted twice.
        assert promotions(group) == steps(clients, "promote") == kill
        assert {len(one.masters) for one in clients} == {1 + kill}
