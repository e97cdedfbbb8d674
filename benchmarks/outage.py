"""Clients of txharedis that write, and what a fault of their master did to them."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from benchmarks.group import in_sync, running_group
from benchmarks.stage import Stage
from txharedis import HAClient, create_client
from txharedis.testing.servers import LocalServer
from txharedis.testing.waiting import until
from txharedis.topology import Status

__all__ = ["RECOVERY", "SIGNALS", "Fault", "Ours", "Pace"]

RECOVERY = 60.0
"""Seconds that a failover, or the return of a server, may take before we give up."""

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(frozen=True)
class Pace:
    """A client's writers: how many chains, and seconds of rest after each answer."""

    chains: int
    rest: float


@dataclass
class Fault:
    """What one fault did; outages and gaps in seconds, one of each client.

    `cpu` is the processor time of this process, with all its clients, until all had recovered.
    """

    outages: list[float]
    gaps: list[float]
    cpu: float
    promotions: int = 0
    lost: int = 0
    twice: int = 0


@dataclass
class Turn:
    """The writes of one client from one recovery to the next: all go to the list `key`."""

    key: str
    acknowledged: set[int] = field(default_factory=set)


class Writer:
    """One client that writes, in its turns: numbers to the end of a list, each once."""

    def __init__(self, reactor: Any, client: HAClient, name: str, pace: Pace) -> None:
        self.client = client
        self.failed: Counter[str] = Counter()
        self.turn = Turn("")
        self._reactor = reactor
        self._name = name
        self._pace = pace
        self._number = 0
        self._stopping = False
        self._chains: list[Deferred[None]] = []
        self._struck_at: float | None = None
        self._last = 0.0
        self._gap = 0.0
        self._recovered: Deferred[tuple[float, float]] | None = None

    def start(self, number: int) -> None:
        """Write to a list of this number from here on."""
        self.turn = Turn(f"written:{number}:{self._name}")
        self._stopping = False
        self._last = time.perf_counter()
        self._chains = [Deferred.fromCoroutine(self._write()) for _ in range(self._pace.chains)]

    async def stop(self) -> None:
        self._stopping = True
        await gatherResults(self._chains)

    def struck(self, at: float) -> Deferred[tuple[float, float]]:
        """It happened just now. Fires with the outage and the gap, once writes flow."""
        self._struck_at = at
        self._gap = 0.0
        self._recovered = Deferred()
        return self._recovered

    async def _write(self) -> None:
        while not self._stopping:
            self._number += 1
            number, turn, submitted = self._number, self.turn, time.perf_counter()
            try:
                await self.client.rpush(turn.key, [number])
            except Exception as error:
                self.failed[type(error).__name__] += 1
                await deferLater(self._reactor, 0.001)
            else:
                self._acknowledged(submitted)
                turn.acknowledged.add(number)
            if self._pace.rest:
                await deferLater(self._reactor, self._pace.rest)

    def _acknowledged(self, submitted: float) -> None:
        now = time.perf_counter()
        struck_at, recovered = self._struck_at, self._recovered
        if struck_at is not None and recovered is not None:
            self._gap = max(self._gap, now - self._last)
            if submitted >= struck_at:
                self._struck_at = self._recovered = None
                recovered.callback((now - struck_at, self._gap))
        self._last = now


class Ours:
    """So many clients of txharedis in this process, on three servers."""

    def __init__(
        self, reactor: Any, servers: list[LocalServer], writers: list[Writer], signal: str
    ) -> None:
        self.name = "txharedis"
        self.faults: list[Fault] = []
        self._reactor = reactor
        self._servers = servers
        self._writers = writers
        self._signal = SIGNALS[signal]

    @classmethod
    @asynccontextmanager
    async def running(
        cls, stage: Stage, clients: int, pace: Pace, signal: str, **options: Any
    ) -> AsyncIterator[Ours]:
        """Ready to be struck."""
        reactor = stage.reactor
        async with running_group(reactor, stage.program) as servers:
            nodes = [server.address for server in servers]
            writers = [
                Writer(reactor, create_client(nodes, reactor=reactor, **options), str(n), pace)
                for n in range(clients)
            ]
            ours = cls(reactor, servers, writers, signal)
            try:
                ready = gatherResults([writer.client.when_ready() for writer in writers])
                await ready.addTimeout(RECOVERY, reactor)
                await until(reactor, ours._settled, RECOVERY, "a first master")
                yield ours
            finally:
                await gatherResults([writer.client.disconnect() for writer in writers])

    @property
    def failed(self) -> Counter[str]:
        """The writes that failed, by the names of the errors."""
        return sum((writer.failed for writer in self._writers), Counter())

    async def strike(self) -> None:
        """One fault, and back to where it was."""
        reactor, writers = self._reactor, self._writers
        victim = self._master()
        assert victim is not None
        for writer in writers:
            writer.start(len(self.faults))
        # At any phase of the heartbeats.
        await deferLater(reactor, random.uniform(0.3, 0.6))
        promotions = self._promotions()
        at, cpu_at = time.perf_counter(), time.process_time()
        victim.kill(self._signal)
        recovering = gatherResults([writer.struck(at) for writer in writers])
        recovered = await recovering.addTimeout(RECOVERY, reactor)
        cpu = time.process_time() - cpu_at
        for writer in writers:
            await writer.stop()
        await victim.restart(empty=True)
        await until(
            reactor,
            self._settled,
            RECOVERY,
            f"{victim.address} back in the group after fault {len(self.faults) + 1}",
        )
        fault = Fault([outage for outage, _ in recovered], [gap for _, gap in recovered], cpu)
        fault.promotions = self._promotions() - promotions
        await self._count(fault)
        self.faults.append(fault)

    async def _count(self, fault: Fault) -> None:
        """Compare what was acknowledged with what is there."""
        master = self._master()
        assert master is not None
        for writer in self._writers:
            words = await master.call("LRANGE", writer.turn.key, 0, -1)
            held = Counter(map(int, words))
            fault.lost += len(writer.turn.acknowledged - held.keys())
            fault.twice += sum(times > 1 for times in held.values())
            await master.call("DEL", writer.turn.key)

    def _master(self) -> LocalServer | None:
        """The one that all clients write to, None when they do not agree."""
        masters = {writer.client.master for writer in self._writers}
        return next((server for server in self._servers if masters == {server.address}), None)

    async def _settled(self) -> bool:
        """Whether all agree on a master and are linked to all nodes, and those are in sync."""
        nodes = (node for writer in self._writers for node in writer.client.topology.nodes)
        master = self._master()
        return (
            master is not None
            and all(node.status is Status.UP for node in nodes)
            and await in_sync(self._servers, master)
        )

    def _promotions(self) -> int:
        """How many replicas were made masters, by their logs."""
        return sum(server.count_in_log("MODE enabled (") for server in self._servers)
