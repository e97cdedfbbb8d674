"""A master that holds writes back for longer than a hung one is waited for: it is not dead."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.groups import answer, until_settled
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis.events import NodeChanged
from txharedis.testing.servers import LocalServer
from txharedis.topology import Status

#: What makes the client write over its control link, to look at its rights, to lock, to mark.
MEANWHILE = ["nothing", "new links", "a replica is empty", "a subscription"]


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest_twisted.ensureDeferred
async def test_it_stays_master(group: list[LocalServer], watch: Watch, meanwhile: str) -> None:
    master, replica, _ = group
    watched = watch(group, down_after=1.0, heartbeat=0.3, survey_interval=0.5, lock_time=5.0)
    await answer(watched.client.set("k", "before"))
    await master.call("CLIENT", "PAUSE", 3000, "WRITE")
    if meanwhile == "new links":
        await master.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    elif meanwhile == "a replica is empty":
        await replica.restart(empty=True)
    elif meanwhile == "a subscription":
        await answer(watched.client.subscribe("c", lambda message: None))
    assert await answer(watched.client.get("k")) == "before"
    await answer(watched.client.set("k", "after"))
    assert await until_settled(group) is master
    assert watched.masters == [str(master.address)]
    assert Status.SILENT not in [event.status for event in watched.seen(NodeChanged)]


@pytest_twisted.ensureDeferred
async def test_a_replica_is_not_left_writable(group: list[LocalServer], watch: Watch) -> None:
    """One that is to be locked can be written to meanwhile; it answers no lock as long as this."""
    master, replica, other = group
    watched = watch(group, survey_interval=0.5)
    await answer(watched.client.set("k", "v"))
    await replica.call("CLIENT", "PAUSE", 600_000, "WRITE")
    await other.restart(empty=True)
    await until_settled([master, other])  # by who has the lock of the others

    async def is_read_only() -> bool:
        return await replica.call("CONFIG", "GET", "replica-read-only") == [
            b"replica-read-only",
            b"yes",
        ]

    await eventually(is_read_only)
    dropped = [e.node for e in watched.seen(NodeChanged) if e.status is Status.DROPPED]
    assert replica.address in map(str, dropped)  # a lock was asked for, and was not answered
    await replica.call("CLIENT", "UNPAUSE")
