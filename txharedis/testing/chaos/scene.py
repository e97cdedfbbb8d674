"""What faults happen to, and the record of them."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txharedis.testing.chaos.clients import ClientProcess
from txharedis.testing.chaos.cluster import Cluster
from txharedis.testing.servers import LocalServer
from txharedis.testing.waiting import until

__all__ = ["NobodyLeft", "Scene", "Strike"]

SETTLED = "one master, and all others replicate it"

Victim = TypeVar("Victim", ClientProcess, LocalServer)


class NobodyLeft(Exception):
    """Other faults of this moment are at everybody whom this one could hit."""


@dataclass
class Strike:
    """One fault as it happened.

    at      when, in seconds of time.monotonic()
    cut     the names of the client processes that it killed, stopped or kept from the servers
    detail  whom it hit
    """

    kind: str
    at: float
    detail: str
    cut: frozenset[str] = frozenset()


@dataclass
class Scene:
    """The servers, the client processes, and the faults so far.

    spawn       starts one more client process
    down_after  of the clients, in seconds: how long a fault has to last to be noticed
    durable     whether a server that was killed comes back with its file
    traps       whether the clients can be told to signal themselves in the middle of a failover
    wanted      how many client processes there are to be
    patience    seconds after which what has not healed never will
    ready       whether those that watch the servers are well too
    """

    reactor: Any
    cluster: Cluster
    random: random.Random
    spawn: Callable[[], ClientProcess]
    down_after: float
    durable: bool
    traps: bool
    wanted: int
    patience: float
    ready: Callable[[], Awaitable[bool]]
    tell: Callable[[str], object] = lambda line: None
    clients: list[ClientProcess] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    busy: set[object] = field(default_factory=set)
    leader: LocalServer | None = None

    def strike(self, kind: str, detail: str, cut: Iterable[ClientProcess] = ()) -> Strike:
        """Something is about to be done: it is written down first."""
        names = frozenset(client.name for client in cut)
        strike = Strike(kind, time.monotonic(), detail, names)
        self.strikes.append(strike)
        self.tell(f"{kind}: {detail}")
        return strike

    def rest(self, low: float, high: float) -> Deferred[None]:
        """Fires after so many seconds."""
        return deferLater(self.reactor, self.random.uniform(low, high))

    def outlast(self) -> Deferred[None]:
        """Fires after a time for which a fault lasts: unnoticed as a rule, or long enough."""
        short = self.random.random() < 0.3
        whole = self.down_after
        return self.rest(0.1, 0.3 * whole) if short else self.rest(1.1 * whole, 1.6 * whole)

    async def look(self) -> None:
        """Find out who is master, and forget what the last faults were at. Raises NotInTime."""
        self.leader = await until(self.reactor, self.cluster.settled, self.patience, SETTLED)
        self.busy.clear()

    def master(self) -> LocalServer:
        """The server that was the master before these faults."""
        if self.leader is None or self.leader in self.busy:
            raise NobodyLeft
        self.busy.add(self.leader)
        return self.leader

    def replica(self) -> LocalServer:
        """Another one."""
        return self._take(each for each in self.cluster.servers if each is not self.leader)

    def client(self) -> ClientProcess:
        """One of the client processes."""
        return self._take(client for client in self.clients if client.active)

    def some_clients(self) -> list[ClientProcess]:
        """One or more of the client processes, but not all if there are several."""
        active = [client for client in self.clients if client.active]
        if not active:
            raise NobodyLeft
        return self.random.sample(active, self.random.randint(1, max(1, len(active) - 1)))

    def _take(self, candidates: Iterable[Victim]) -> Victim:
        free = [each for each in candidates if each not in self.busy]
        if not free:
            raise NobodyLeft
        victim = self.random.choice(free)
        self.busy.add(victim)
        return victim

    def name(self, server: LocalServer) -> str:
        """What everybody calls this server."""
        return self.cluster.proxy(server).address

    def replace(self) -> None:
        """Start a new client process for each that was killed."""
        living = [client for client in self.clients if client.read() and not client.killed]
        for _ in range(self.wanted - len(living)):
            self.clients.append(self.spawn())

    async def healed(self) -> None:
        """Return when all servers are one group, and every client process has written since.

        Raises NotInTime.
        """
        timeout = self.patience
        await until(self.reactor, self.cluster.settled, timeout, SETTLED)
        since = time.monotonic()

        def silent() -> list[ClientProcess]:
            active = [client for client in self.clients if not client.killed]
            return [each for each in active if each.read().last_acknowledged < since]

        await until(
            self.reactor, lambda: not silent(), timeout, "an acknowledged write of each client"
        )
        await until(self.reactor, self.cluster.settled, timeout, SETTLED)
        await until(self.reactor, self.ready, timeout, "those that watch the servers are well")
