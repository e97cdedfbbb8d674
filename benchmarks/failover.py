"""How long writes stand still when the master is killed with SIGKILL.

For each kill and each client: `outage` is the time from the SIGKILL to the first acknowledged
write that was submitted after it; `gap` is the longest time between two consecutive acknowledged
writes, the last one before the kill included. The clients write all the time, each in a few chains
of one write at a time. The dead node is started again, empty, and is a replica in sync before the
next kill.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from benchmarks.group import in_sync, running_group
from benchmarks.report import in_ms, spread, table
from txharedis import HAClient, create_client
from txharedis.testing.servers import LocalServer, ServerProgram
from txharedis.testing.waiting import until
from txharedis.topology import Status

__all__ = ["HEADER", "Settings", "run"]

RECOVERY = 30.0
"""Seconds that a failover, or the return of a killed node, may take before we give up."""

HEADER = ["outage in ms", "kills", "median", "p90", "p99", "max"]


@dataclass(frozen=True)
class Settings:
    """`kills` for each number in `clients`; `delivery` and `acks` as in txharedis.Options."""

    kills: int = 50
    clients: tuple[int, ...] = (1, 50)
    delivery: str = "exactly-once"
    acks: int = 1


@dataclass(frozen=True)
class Pace:
    """A client's writers: how many chains, and seconds of rest after each answer."""

    chains: int
    rest: float


@dataclass
class Kill:
    """What one kill did; outages and gaps in seconds, one of each client.

    `cpu` is the processor time of this process, with all its clients, until all had recovered.
    """

    outages: list[float]
    gaps: list[float]
    cpu: float
    promotions: int = 0
    lost: int = 0
    twice: int = 0


@dataclass
class Round:
    """The writes of one client from one recovery to the next: all go to the list `key`."""

    key: str
    acknowledged: set[int] = field(default_factory=set)


class Writer:
    """One client that writes all the time: numbers to the end of a list, each once."""

    def __init__(self, reactor: Any, client: HAClient, name: str, pace: Pace) -> None:
        self.client = client
        self.failed: Counter[str] = Counter()
        self.round = Round("")
        self._reactor = reactor
        self._name = name
        self._pace = pace
        self._number = 0
        self._stopping = False
        self._chains: list[Deferred[None]] = []
        self._killed_at: float | None = None
        self._last = 0.0
        self._gap = 0.0
        self._recovered: Deferred[tuple[float, float]] | None = None

    def start(self) -> None:
        self._chains = [Deferred.fromCoroutine(self._write()) for _ in range(self._pace.chains)]

    async def stop(self) -> None:
        self._stopping = True
        await gatherResults(self._chains)

    def begin(self, number: int) -> Round:
        """Write to a new list from here on; returns the former round."""
        former, self.round = self.round, Round(f"written:{number}:{self._name}")
        return former

    def killed(self, at: float) -> Deferred[tuple[float, float]]:
        """The master was killed just now. Fires with the outage and the gap, once writes flow."""
        self._killed_at = at
        self._gap = 0.0
        self._recovered = Deferred()
        return self._recovered

    async def _write(self) -> None:
        while not self._stopping:
            self._number += 1
            number, round, submitted = self._number, self.round, time.perf_counter()
            try:
                await self.client.rpush(round.key, [number])
            except Exception as error:
                self.failed[type(error).__name__] += 1
            else:
                self._acknowledged(submitted)
                round.acknowledged.add(number)
            await deferLater(self._reactor, self._pace.rest)

    def _acknowledged(self, submitted: float) -> None:
        now = time.perf_counter()
        killed_at, recovered = self._killed_at, self._recovered
        if killed_at is not None and recovered is not None:
            self._gap = max(self._gap, now - self._last)
            if submitted >= killed_at:
                self._killed_at = self._recovered = None
                recovered.callback((now - killed_at, self._gap))
        self._last = now


async def run(reactor: Any, program: ServerProgram, settings: Settings) -> dict[str, Any]:
    """Measure, print the tables, and return what each kill did."""
    results: dict[str, Any] = {}
    for count in settings.clients:
        kills, failed = await _series(reactor, program, settings, count)
        print(f"\n{settings.delivery}, acks={settings.acks}")
        _show(count, kills, failed)
        results[f"{count} clients"] = {
            "outages": [kill.outages for kill in kills],
            "gaps": [kill.gaps for kill in kills],
            "cpu": [kill.cpu for kill in kills],
            "promotions": [kill.promotions for kill in kills],
            "lost acknowledged writes": sum(kill.lost for kill in kills),
            "written twice": sum(kill.twice for kill in kills),
            "failed writes": dict(failed),
        }
    return results


async def _series(
    reactor: Any, program: ServerProgram, settings: Settings, clients: int
) -> tuple[list[Kill], Counter[str]]:
    pace = Pace(chains=4, rest=0.001) if clients == 1 else Pace(chains=1, rest=0.01)
    async with running_group(reactor, program) as servers:
        nodes = [server.address for server in servers]
        writers = [
            Writer(
                reactor,
                create_client(
                    nodes, reactor=reactor, delivery=settings.delivery, acks=settings.acks
                ),
                str(number),
                pace,
            )
            for number in range(clients)
        ]
        try:
            await gatherResults([writer.client.when_ready() for writer in writers]).addTimeout(
                RECOVERY, reactor
            )
            await until(reactor, lambda: _settled(servers, writers), RECOVERY, "a first master")
            for writer in writers:
                writer.begin(0)
                writer.start()
            done = [
                await _kill(reactor, servers, writers, number + 1)
                for number in range(settings.kills)
            ]
            for writer in writers:
                await writer.stop()
            return done, sum((writer.failed for writer in writers), Counter())
        finally:
            await gatherResults([writer.client.disconnect() for writer in writers])


async def _kill(
    reactor: Any, servers: list[LocalServer], writers: list[Writer], number: int
) -> Kill:
    # At any phase of the heartbeats.
    await deferLater(reactor, random.uniform(0.3, 0.6))
    victim = _master(servers, writers)
    assert victim is not None
    promotions = _promotions(servers)
    at, cpu_at = time.perf_counter(), time.process_time()
    victim.kill()
    recovering = gatherResults([writer.killed(at) for writer in writers])
    recovered = await recovering.addTimeout(RECOVERY, reactor)
    cpu = time.process_time() - cpu_at
    rounds = [writer.begin(number) for writer in writers]
    await victim.restart(empty=True)
    await until(
        reactor,
        lambda: _settled(servers, writers),
        RECOVERY,
        f"{victim.address} back in the group after kill {number}",
    )
    kill = Kill([outage for outage, _ in recovered], [gap for _, gap in recovered], cpu)
    kill.promotions = _promotions(servers) - promotions
    master = _master(servers, writers)
    assert master is not None
    for each in rounds:
        held = Counter(map(int, await master.call("LRANGE", each.key, 0, -1)))
        kill.lost += len(each.acknowledged - held.keys())
        kill.twice += sum(times > 1 for times in held.values())
        await master.call("DEL", each.key)
    return kill


def _master(servers: list[LocalServer], writers: list[Writer]) -> LocalServer | None:
    """The one that all clients write to, None when they do not agree."""
    masters = {writer.client.master for writer in writers}
    return next((server for server in servers if masters == {server.address}), None)


async def _settled(servers: list[LocalServer], writers: list[Writer]) -> bool:
    """Whether all clients agree on a master and are linked to all nodes, and those are in sync."""
    nodes = (node for writer in writers for node in writer.client.topology.nodes)
    master = _master(servers, writers)
    return (
        master is not None
        and all(node.status is Status.UP for node in nodes)
        and await in_sync(servers, master)
    )


def _promotions(servers: list[LocalServer]) -> int:
    """How many replicas were made masters, by their logs."""
    return sum(server.count_in_log("MODE enabled (") for server in servers)


def _show(clients: int, kills: list[Kill], failed: Counter[str]) -> None:
    rows: list[list[object]] = []

    def row(name: str, values: list[float]) -> None:
        rows.append([name, len(kills), *map(in_ms, spread(values).values())])

    if clients == 1:
        row("1 client", [kill.outages[0] for kill in kills])
        row("1 client, gap", [kill.gaps[0] for kill in kills])
    else:
        row(f"{clients} clients, all", [one for kill in kills for one in kill.outages])
        row(f"{clients} clients, the slowest", [max(kill.outages) for kill in kills])
        row(f"{clients} clients, the slowest gap", [max(kill.gaps) for kill in kills])
    row("processor time of this process", [kill.cpu for kill in kills])
    promotions = [kill.promotions for kill in kills]
    exactly = "one per kill" if set(promotions) == {1} else f"NOT one per kill: {promotions}"
    print(
        f"\n{table(HEADER, rows)}\n\n"
        f"Promotions in the servers' logs: {sum(promotions)} ({exactly}). "
        f"Lost acknowledged writes: {sum(kill.lost for kill in kills)}, "
        f"written twice: {sum(kill.twice for kill in kills)}. "
        f"Failed writes: {dict(failed) or 'none'}.",
        flush=True,
    )
