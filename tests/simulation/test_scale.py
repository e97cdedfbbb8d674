"""A failover costs each client the same, however many there are."""

from __future__ import annotations

from txharedis.failover import FailoverService
from txharedis.testing.simulation import World
from txharedis.testing.simulation.faults import write
from txharedis.testing.simulation.scale import measure_one


def test_the_growth_per_client_is_flat() -> None:
    few, many = measure_one(10), measure_one(60)
    for measured in (few, many):
        assert measured.promotions == 1
        assert measured.all < 0.1
    assert many.messages / 60 < 1.2 * few.messages / 10


def asked_while_locked(clients: int) -> float:
    """Commands a second and server while there is no master, and a dead client has the lock."""
    with World(1) as world:
        servers = world.trio(3)
        services = [
            FailoverService(
                [server.name for server in servers], world.process(f"client{place}"), lock_time=3.0
            )
            for place in range(clients)
        ]
        for place, service in enumerate(services):
            world.at(0.1 + 0.001 * place, service.startService)
        world.run_until(lambda: all(service.master for service in services), 60.0)
        world.run(15.0)  # all have counted each other
        master = world.servers[str(services[0].master)]
        others = [server for server in servers if server is not master]
        for server in others:
            key = f"haredis:failover:{server.run_id}".encode()
            write(server, b"CONFIG", b"SET", b"replica-read-only", b"no")
            write(server, b"SET", key, b"somebody", b"PX", b"3000")
            write(server, b"CONFIG", b"SET", b"replica-read-only", b"yes")
        master.kill()
        world.run(0.5)
        asked = 0

        def count(*_: object) -> None:
            nonlocal asked
            asked += 1

        for server in others:
            server.executed = count
        world.run(2.0)
        for server in others:
            server.executed = None
        assert all(service.master is None for service in services)
        world.run_until(lambda: all(s.master not in (None, master.name) for s in services), 30.0)
        for service in services:
            service.stopService()
        world.run(1.0)
    return asked / 2.0 / 2


def test_many_who_wait_for_one_do_not_keep_it_from_work() -> None:
    assert asked_while_locked(100) < 2 * asked_while_locked(20)
