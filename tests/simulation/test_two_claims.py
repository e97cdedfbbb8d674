"""Of two masters that claim one epoch, one is elected, though the third node is locked for that."""

from __future__ import annotations

from txharedis import create_client
from txharedis.testing.simulation import World
from txharedis.testing.simulation.faults import write


def test_one_of_two_claimants_is_elected() -> None:
    with World(1) as world:
        servers = world.trio()
        client = create_client(list(world.servers), reactor=world.process(), survey_interval=1.0)
        world.wait(client.set("k", "v"))
        master = world.servers[str(client.master)]
        world.run_until(lambda: all(server.keys.dbs[0] for server in servers))
        other, third = [server for server in servers if server is not master]
        other.replication.lead()
        write(other, b"HSET", b"haredis:meta", b"run_id", other.run_id.encode())
        assert master.following is None
        world.run_until(
            lambda: sorted(server.following is None for server in servers) == [False, False, True],
            10.0,
        )
        world.run(2.0)
        assert world.wait(client.get("k")) == "v"
        assert third.following is not None
        world.wait(client.quit())
