"""World: simulated time, and everything that happens in it, in one order."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .network import Network
from .process import Process
from .server import Server
from .substitutes import Substitutes

__all__ = ["Overdue", "World"]

#: What `World.time` tells at the beginning, in seconds since 1970.
BEGINNING = 1_700_000_000.0


class Overdue(AssertionError):
    """What was waited for did not happen in its time, or cannot happen any more."""


class World:
    """One history: who is in it, what happens when, and what chance decides.

    The same `seed` and the same calls give the same history, event by event, in any process. Use it
    as a context manager: inside, the client's sources of chance and of the date (`random`,
    `secrets`, `time.time`) are those of this world; outside they are the real ones again. At its
    end the processes that are left are killed, and what waits in any of them fails.

    now      seconds since the beginning, by no clock of any participant
    random   chance: for the network, the servers and whoever plays with them
    network  the links
    servers  by address, "host:port"; `processes` by name
    trace    with `tracing`, lines (time, text) of all that happened; None without
    """

    def __init__(self, seed: int = 0, *, tracing: bool = False) -> None:
        self.seed = seed
        self.now = 0.0
        self.random = random.Random(seed)
        self.trace: list[tuple[float, str]] | None = [] if tracing else None
        self.servers: dict[str, Server] = {}
        self.processes: dict[str, Process] = {}
        self.network = Network(self)
        self.events = 0  # that happened
        #: What is to happen: (time, number, call, arguments), a heap. Use `at` to add to it.
        self.heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self.count = 0
        self._substitutes = Substitutes(seed, self.time)

    def __repr__(self) -> str:
        return f"<World {self.seed} at {self.now:.6f} s, {len(self.heap)} events to come>"

    def __enter__(self) -> World:
        self._substitutes.install()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.bury()
        self._substitutes.remove()

    # Who is in it.

    def server(self, host: str, port: int = 6379, **options: Any) -> Server:
        """A new server, started and empty; see Server for the options."""
        server = Server(self, host, port, **options)
        self.servers[server.name] = server
        server.start()
        return server

    def trio(self, count: int = 3, **options: Any) -> list[Server]:
        """So many new servers: 10.0.0.1:6379, 10.0.0.2:6379, ..."""
        return [self.server(f"10.0.0.{len(self.servers) + 1}", **options) for _ in range(count)]

    def process(self, name: str = "", *, rate: float = 1.0, offset: float = 0.0) -> Process:
        """A new client process: the reactor to be given to `create_client`."""
        name = name or f"client{len(self.processes) + 1}"
        process = self.processes[name] = Process(self, name, rate=rate, offset=offset)
        return process

    # What happens.

    def time(self) -> float:
        """The date, in seconds since 1970."""
        return BEGINNING + self.now

    def at(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """Let this happen in `delay` seconds, behind what was asked for before for that time."""
        self.count = count = self.count + 1
        heapq.heappush(self.heap, (self.now + delay, count, call, args))

    def at_time(self, time: float, call: Callable[..., object], *args: Any) -> None:
        """Let this happen at a time that is not past."""
        self.count = count = self.count + 1
        heapq.heappush(self.heap, (time, count, call, args))

    def note(self, text: str) -> None:
        """A line of the trace; ask for `trace is not None` before making an expensive one."""
        if self.trace is not None:
            self.trace.append((self.now, text))

    def step(self) -> bool:
        """Let the next event happen; False when there is none."""
        if not self.heap:
            return False
        self.now, _, call, args = heapq.heappop(self.heap)
        self.events += 1
        call(*args)
        return True

    def run(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.run_to(self.now + seconds)

    def run_to(self, until: float) -> None:
        """Let everything happen up to this time."""
        heap = self.heap
        pop = heapq.heappop
        events = self.events
        while heap and heap[0][0] <= until:
            self.now, _, call, args = pop(heap)
            events += 1
            call(*args)
        self.events = events
        self.now = until

    def run_until(self, condition: Callable[[], object], limit: float = 60.0) -> float:
        """Let events happen until the condition holds; returns how many seconds that took.

        It is looked at after each event. Raises Overdue after `limit` seconds.
        """
        began = self.now
        while not condition():
            if not self.heap or self.heap[0][0] > began + limit:
                raise Overdue(f"not within {limit} s: {condition}")
            self.step()
        return self.now - began

    def wait(self, awaited: Deferred[Any] | Coroutine[Any, Any, Any], limit: float = 60.0) -> Any:
        """Let events happen until this has fired; returns its result, or raises its failure."""
        deferred: Deferred[Any] = (
            awaited if isinstance(awaited, Deferred) else Deferred.fromCoroutine(awaited)
        )
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.run_until(lambda: results, limit)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def sleep(self, seconds: float) -> Deferred[None]:
        """A Deferred that fires in so many seconds of no participant's clock."""
        deferred: Deferred[None] = Deferred()
        self.at(seconds, _fire, deferred)
        return deferred


def _fire(deferred: Deferred[None]) -> None:
    if not deferred.called:
        deferred.callback(None)
