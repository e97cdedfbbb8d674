"""Servers that know each other by names which the client was not given."""

from __future__ import annotations

import pytest_twisted

from tests.groups import answer, promotions, replicates, until_settled
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis.events import Refused
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


@on_reactor
async def test_ready_made_group_that_follows_a_name_serves_clients_that_know_addresses(
    trio: list[LocalServer], watch: Watch
) -> None:
    master, *replicas = trio
    await master.call("SET", "old", "data")
    for server in replicas:
        await server.call("SLAVEOF", "localhost", master.port)
    for server in replicas:
        await eventually(lambda server=server: replicates(server, master))
    watched = watch(trio)
    assert await answer(watched.client.get("old")) == "data"
    assert await answer(watched.client.set("k", "v")) == "OK"
    assert await until_settled(trio) is master
    assert watched.masters == [master.address]
    assert not watched.seen(Refused)
    assert promotions(trio) == 0
