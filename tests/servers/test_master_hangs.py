"""The master stops answering, and wakes again when it has been replaced."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from tests.failovers import steps
from tests.groups import at_once, promotions, until_settled
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis.events import MasterChanged
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

DOWN_AFTER = 3.0


@on_reactor
async def test_hung_master_is_replaced_in_time_and_demoted_when_it_wakes(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, *others = group
    clients = [watch(group, down_after=DOWN_AFTER) for _ in range(5)]
    await at_once(one.client.when_ready() for one in clients)
    master.pause()
    paused = reactor.seconds()
    late = clients[0].client.incr("late")
    on_its_way = clients[1].client.incr("n")

    async def replaced() -> bool:
        return all(one.client.master not in (None, master.address) for one in clients)

    await eventually(replaced)
    for one in clients:
        assert one.seen(MasterChanged)[-1].at - paused <= DOWN_AFTER + 0.5
    new = await until_settled(others)
    assert await late == await on_its_way == 1
    assert await clients[2].client.incr("n") == 2

    master.resume()
    assert await until_settled(group) is new
    assert {one.client.master for one in clients} == {new.address}
    assert {tuple(one.masters) for one in clients} == {(master.address, new.address)}
    assert promotions(group) == steps(clients, "promote") == 1
    # What it did when it woke is gone: each is counted once.
    assert await master.call("GET", "late") == b"1"
    assert await master.call("GET", "n") == b"2"
