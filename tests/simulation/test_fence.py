"""The fence of a failover is whole, whatever else goes over the same link."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from txharedis import create_client
from txharedis.errors import LockLost
from txharedis.lock import NodeLock
from txharedis.testing.simulation import World
from txharedis.testing.simulation.faults import write


@pytest.mark.parametrize("first", ["rights", "watch"])
def test_who_looks_at_rights_does_not_undo_a_watch(first: str) -> None:
    with World(1) as world:
        servers = world.trio(3)
        client = create_client([server.name for server in servers], reactor=world.process())
        world.wait(client.when_ready())
        world.run(5.0)
        group = client._group._group  # type: ignore[attr-defined]
        node = next(node for node in group if not node.view.is_master)
        server = world.servers[str(node.address)]
        lock = NodeLock(node.control, node.view, "ours", 1.0)
        world.wait(Deferred.fromCoroutine(lock.acquire(node.view.epoch + 5)))
        if first == "rights":
            Deferred.fromCoroutine(node.look_at_rights())
        lock.prepare()
        world.run(0.05)
        Deferred.fromCoroutine(node.look_at_rights())
        world.run(0.05)
        write(server, b"CONFIG", b"SET", b"replica-read-only", b"no")
        write(server, b"SELECT", b"15")
        write(server, b"SET", f"haredis:failover:{server.run_id}".encode(), b"another's")
        with pytest.raises(LockLost):
            world.wait(Deferred.fromCoroutine(lock.fenced(["PUBLISH", "x", "y"])))
        world.wait(Deferred.fromCoroutine(node.look_at_rights()))
        assert node.missing_rights == ()
