"""Settings that would keep a node from taking a lock are changed for it, and put back."""

from __future__ import annotations

import signal

import pytest_twisted
from twisted.python.failure import Failure

from tests.groups import answer, at_once, until_settled
from tests.servers.conftest import Form, Holders, MakeServers, Watch
from tests.support import eventually
from txharedis import ResponseError
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

LOCK_TIME = 1.0


async def setting(servers: list[LocalServer], name: str) -> set[str]:
    """The values that a setting has on these servers."""
    replies = await at_once(server.call("CONFIG", "GET", name) for server in servers)
    return {value.decode() for _, value in replies}


def turned_away(failure: Failure) -> None:
    failure.trap(ResponseError)
    assert "NOREPLICAS" in str(failure.value)


@on_reactor
async def test_fresh_masters_that_want_replicas_to_write_become_one_group(
    make_servers: MakeServers, watch: Watch
) -> None:
    trio = await make_servers(3, options=("--min-replicas-to-write", "1"))
    watched = watch(trio)
    await answer(watched.client.when_ready())
    master = await until_settled(trio)
    # Without replicas the master turns writes away.
    assert await eventually(lambda: watched.client.set("k", "v").addErrback(turned_away)) == "OK"
    assert watched.client.master == master.address
    assert await setting(trio, "min-replicas-to-write") == {"1"}


@on_reactor
async def test_holder_that_dies_after_the_lock_leaves_settings_as_they_were(
    make_servers: MakeServers, form: Form, watch: Watch, holders: Holders
) -> None:
    trio = await make_servers(3, options=("--replica-serve-stale-data", "no"))
    await form(trio)
    master, *others = trio
    holder = holders(trio, "lock", signal.SIGKILL, lock_time=LOCK_TIME)
    await holder.until("MasterChanged")
    master.kill()
    holder.block_until_signalled()
    assert await setting(others, "replica-serve-stale-data") == {"no"}
    assert await setting(others, "replica-read-only") == {"yes"}

    watched = watch([*others, master], lock_time=LOCK_TIME)
    assert await answer(watched.client.set("k", "v")) == "OK"
    await until_settled(others)
    assert await setting(others, "replica-serve-stale-data") == {"no"}
