"""Scale: what a failover costs the servers, and how long it takes, with so many clients."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Any

from txharedis.events import FailoverStep, MasterChanged
from txharedis.failover import FailoverService

from .connection import Connection
from .server import Server
from .world import World

__all__ = ["Measured", "measure", "measure_one"]


class Measured:
    """One failover.

    messages    commands that the surviving servers were given, from the crash to the agreement,
                and for two seconds after it, for each server
    first       seconds from the crash until the first client uses the new master
    half, all   seconds until half of them do, and all
    promotions, attempts   how often a lock was granted to somebody, and was asked for
    """

    def __init__(self, clients: int) -> None:
        self.clients = clients
        self.idle = 0.0
        self.messages = 0.0
        self.locks = 0
        self.attempts = 0
        self.promotions = 0
        self.first = self.half = self.all = 0.0


def measure_one(clients: int, seed: int = 1) -> Measured:
    """Let the master of so many clients die, and look."""
    measured = Measured(clients)
    world = World(seed)
    with world:
        servers = world.trio(3)
        counted = 0

        def count(server: Server) -> None:
            execute = server.execute

            def counting(link: Connection, words: list[bytes]) -> bytes | None:
                nonlocal counted
                counted += 1
                measured.attempts += words[0] == b"EVAL" and len(words) == 9
                return execute(link, words)

            server.execute = counting  # type: ignore[method-assign]

        for server in servers:
            count(server)
        agreed: list[float] = []

        def told(event: Any) -> None:
            if isinstance(event, MasterChanged) and event.old is not None:
                agreed.append(world.now)
            elif isinstance(event, FailoverStep):
                measured.promotions += event.step == "promote"
                measured.locks += event.step == "lock"

        nodes = [server.name for server in servers]
        services = []
        for place in range(clients):
            service = FailoverService(
                nodes,
                world.process(f"client{place + 1}"),
                on_event=told,
            )
            services.append(service)
            world.at(0.1 + 0.00005 * place, service.startService)
        world.run_until(lambda: all(service.master for service in services[-3:]), 120.0)
        world.run(3.0)
        while not all(service.master for service in services):
            world.run(0.5)
        before = counted
        world.run(5.0)
        measured.idle = (counted - before) / 3 / 5.0
        measured.promotions = measured.locks = measured.attempts = 0
        agreed.clear()
        before = counted
        crashed = world.now
        world.servers[str(services[0].master)].kill()
        while len(agreed) < clients:
            world.run(0.005)
            assert world.now - crashed < 120.0, f"{len(agreed)} of {clients} agree"
        world.run(1.0)
        span = world.now - crashed
        measured.messages = (counted - before) / 2 - measured.idle * span
        measured.first = agreed[0] - crashed
        measured.half = agreed[clients // 2] - crashed
        measured.all = agreed[clients - 1] - crashed
        for service in services:
            service.stopService()
        world.run(1.0)
    return measured


def measure(numbers: Sequence[int]) -> None:
    """Print a table."""
    print(
        f"{'clients':>8} {'messages':>10} {'per client':>10} {'asked':>6} {'locks':>6} "
        f"{'promoted':>8} {'first ms':>9} {'half ms':>9} {'all ms':>9} {'took s':>7}"
    )
    for clients in numbers:
        gc.collect()
        began = time.monotonic()
        m = measure_one(clients)
        took = time.monotonic() - began
        print(
            f"{m.clients:8} {m.messages:10.0f} {m.messages / m.clients:10.1f} {m.attempts:6} "
            f"{m.locks:6} {m.promotions:8} {1000 * m.first:9.1f} {1000 * m.half:9.1f} "
            f"{1000 * m.all:9.1f} {took:7.1f}",
            flush=True,
        )
