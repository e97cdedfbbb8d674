"""Commands for a while, so many at a time: the cases, and who runs them.

Each contestant offers `round`. Ours, txredisapi and the bare protocol are in this process;
redis-py, coredis and those of Node are in processes of their own; redis-benchmark tells what the
server can do.
"""

from __future__ import annotations

import csv
import math
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import hiredis
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutput

from benchmarks.contestants import Contestant
from benchmarks.processes import PeerFailed, PeerProcess
from benchmarks.report import quantile
from benchmarks.stage import Round
from txharedis.interfaces import pack
from txharedis.testing.servers import ServerProgram

__all__ = [
    "Case",
    "Local",
    "Remote",
    "Runner",
    "ServerLimit",
    "fill",
    "find_benchmark",
]

PATIENCE = 60.0
"""Seconds that a round may take longer than it should."""

SHORTEST = 0.02
"""Seconds that redis-benchmark runs to find out how many commands make a round."""


@dataclass(frozen=True)
class Case:
    """Which command, how many of it at a time, with values of how many bytes.

    `elements` is the length of the lists that LRANGE answers.
    """

    command: str
    in_flight: int
    size: int = 32
    elements: int = 0

    def __str__(self) -> str:
        what = f"{self.command.upper()} of {self.size} bytes"
        if self.elements:
            what = f"{self.command.upper()} of {self.elements} elements"
        return f"{what}, {self.in_flight} in flight"

    @property
    def value(self) -> bytes:
        return b"v" * self.size

    @property
    def keys(self) -> list[str]:
        if self.elements:
            return [f"benchmark:list:{self.elements}"] * self.in_flight
        return [f"benchmark:{number}" for number in range(self.in_flight)]


def fill(port: int, case: Case) -> None:
    """Write what the case reads, through a connection of its own that this waits for."""
    commands: list[tuple[Any, ...]] = [("SET", key, case.value) for key in case.keys]
    if case.elements:
        key = case.keys[0]
        commands = [("DEL", key)]
        commands += [("RPUSH", key, *[case.value] * 1000)] * (case.elements // 1000)
        commands += [("RPUSH", key, case.value)] * (case.elements % 1000)
    commands.append(("SET", "key:__rand_int__", case.value))  # redis-benchmark's
    reader = hiredis.Reader()
    with socket.create_connection(("127.0.0.1", port)) as link:
        for first in range(0, len(commands), 100):
            some = commands[first : first + 100]
            link.sendall(b"".join(map(pack, some)))
            left = len(some)
            while left:
                data = link.recv(65536)
                if not data:
                    raise ConnectionError("the server has closed the connection")
                reader.feed(data)
                while reader.gets() is not False:
                    left -= 1


class Runner(Protocol):
    """Who can run a case for some seconds."""

    @property
    def name(self) -> str: ...

    async def round(self, case: Case, seconds: float) -> Round: ...

    async def close(self) -> None: ...


class Local:
    """A contestant of this process."""

    def __init__(self, reactor: Any, contestant: Contestant) -> None:
        self.name = contestant.name
        self._reactor = reactor
        self._contestant = contestant

    async def round(self, case: Case, seconds: float) -> Round:
        load = _Load(self._submitter(case), [key.encode() for key in case.keys])
        self._reactor.callLater(seconds, load.stop)
        began, cpu_began = time.perf_counter(), time.process_time()
        await load.run().addTimeout(seconds + PATIENCE, self._reactor)
        cpu, elapsed = time.process_time() - cpu_began, time.perf_counter() - began
        return Round(
            rate=load.count / elapsed,
            cpu=cpu / load.count,
            p50=quantile(load.latencies, 0.5) if load.latencies else None,
            p99=quantile(load.latencies, 0.99) if load.latencies else None,
        )

    def _submitter(self, case: Case) -> Callable[[bytes], Deferred[Any]]:
        if case.command == "get":
            return self._contestant.get
        if case.command == "lrange":
            lrange = self._contestant.lrange
            return lambda key: lrange(key, 0, -1)
        set_key, value = self._contestant.set, case.value
        return lambda key: set_key(key, value)

    async def close(self) -> None:
        await self._contestant.close()


class _Load:
    """One chain for each key: it submits its next command when the former is answered.

    When there is one chain alone, `latencies` holds the seconds that each command took.
    """

    def __init__(self, submit: Callable[[bytes], Deferred[Any]], keys: Sequence[bytes]) -> None:
        self.count = 0
        self.latencies: list[float] = []
        self._submit = submit
        self._keys = keys
        self._answer = self._answered_timed if len(keys) == 1 else self._answered
        self._sent = 0.0
        self._stopping = False
        self._running = len(keys)
        self._done: Deferred[None] = Deferred()

    def run(self) -> Deferred[None]:
        """Fires when the last chain has ended, after `stop`; fails with a command's error."""
        for key in self._keys:
            self._next(key)
        return self._done

    def stop(self) -> None:
        self._stopping = True

    def _next(self, key: bytes) -> None:
        if self._running == 1:
            self._sent = time.perf_counter()
        self._submit(key).addCallbacks(self._answer, self._failed, callbackArgs=(key,))

    def _answered_timed(self, reply: object, key: bytes) -> None:
        self.latencies.append(time.perf_counter() - self._sent)
        self._answered(reply, key)

    def _answered(self, reply: object, key: bytes) -> None:
        self.count += 1
        if not self._stopping:
            self._next(key)
            return
        self._running -= 1
        if not self._running:
            self._done.callback(None)

    def _failed(self, failure: Any) -> None:
        if not self._done.called:
            self._done.errback(failure)


class Remote:
    """A contestant in a process of its own; `how` is the way in which it is used."""

    def __init__(self, name: str, process: PeerProcess, how: str = "") -> None:
        self.name = name
        self._process = process
        self._how = how

    async def round(self, case: Case, seconds: float) -> Round:
        done = await self._process.ask(
            seconds + PATIENCE,
            do="round",
            how=self._how,
            command=case.command,
            keys=case.keys,
            in_flight=case.in_flight,
            size=case.size,
            seconds=seconds,
        )
        return Round(
            rate=done["count"] / done["elapsed"],
            cpu=done["cpu"] / done["count"],
            p50=done["p50"],
            p99=done["p99"],
        )

    async def close(self) -> None:
        await self._process.close()


def find_benchmark(program: ServerProgram) -> str | None:
    """The path of the program that loads a server, None when there is none."""
    for name in (f"{program.name}-benchmark", "redis-benchmark", "valkey-benchmark"):
        beside = Path(program.path).with_name(name)
        found = str(beside) if beside.is_file() else shutil.which(name)
        if found is not None:
            return found
    return None


class ServerLimit:
    """redis-benchmark with one connection and a pipeline of the same depth."""

    def __init__(self, reactor: Any, path: str, port: int) -> None:
        self.name = f"{Path(path).name}, 1 connection"
        self._reactor = reactor
        self._path = path
        self._port = port
        self._rates: dict[Case, float] = {}

    async def round(self, case: Case, seconds: float) -> Round:
        count = 20 * case.in_flight
        if case in self._rates:
            count = max(case.in_flight, round(self._rates[case] * seconds))
        done = await self._run(case, count)
        # It counts in milliseconds: what took none was too little.
        while done.rate == math.inf or (case not in self._rates and count < done.rate * SHORTEST):
            count *= 4
            done = await self._run(case, count)
        self._rates[case] = done.rate
        return done

    async def _run(self, case: Case, count: int) -> Round:
        words = ["-h", "127.0.0.1", "-p", self._port, "-c", 1, "-P", case.in_flight]
        words += ["-n", max(count, case.in_flight), "-d", case.size, "--csv"]
        words += ["LRANGE", case.keys[0], 0, -1] if case.elements else ["-t", case.command]
        output: Deferred[bytes] = getProcessOutput(
            self._path, list(map(str, words)), reactor=self._reactor
        )
        output.addTimeout(PATIENCE, self._reactor)
        try:
            said = (await output).decode()
        except OSError as error:
            raise PeerFailed(f"{self._path}: {error}") from None
        rows = list(csv.DictReader(line for line in said.splitlines() if line.startswith('"')))
        if not rows:
            raise PeerFailed(f"{self._path} said {said[-200:]!r}")
        row = rows[-1]
        return Round(
            rate=float(row["rps"]),
            p50=float(row["p50_latency_ms"]) / 1000,
            p99=float(row["p99_latency_ms"]) / 1000,
        )

    async def close(self) -> None:
        pass
