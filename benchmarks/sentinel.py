"""The same kill with Redis Sentinel: three sentinels, and redis-py's asyncio client in a thread.

down-after-milliseconds is 1000 and failover-timeout 3000. The outage is the time from the SIGKILL
to the first acknowledged write that was submitted after it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from benchmarks.failover import HEADER
from benchmarks.group import NODES, in_sync, running_group
from benchmarks.report import in_ms, spread, table
from txharedis.testing.servers import LocalServer, ServerProgram
from txharedis.testing.waiting import until

__all__ = ["run"]

MASTER = "benchmark"
PATIENCE = 60.0
"""Seconds that a failover, or the return of a killed node, may take before we give up."""


async def run(reactor: Any, program: ServerProgram, kills: int) -> dict[str, Any]:
    """Measure, print the table, and return the outage of each kill in seconds."""
    async with running_group(reactor, program) as servers:
        for server in servers[1:]:
            await server.call("REPLICAOF", "127.0.0.1", servers[0].port)
        await until(reactor, lambda: in_sync(servers, servers[0]), PATIENCE, "three nodes in sync")
        directory = servers[0].directory.parent
        sentinels = [
            _sentinel(reactor, program, directory / f"sentinel{number}", servers[0].port)
            for number in range(NODES)
        ]
        writer = Writer([sentinel.port for sentinel in sentinels])
        writing: Deferred[None] | None = None
        try:
            for sentinel in sentinels:
                await sentinel.start()
            writing = deferToThread(asyncio.run, writer.write())
            outages = [await _kill(reactor, servers, sentinels, writer) for _ in range(kills)]
        finally:
            writer.stop()
            if writing is not None:
                await writing
            await DeferredList([Deferred.fromCoroutine(each.stop()) for each in sentinels])
    row = ["Sentinel, redis-py", kills, *map(in_ms, spread(outages).values())]
    print(f"\n{table(HEADER, [row])}", flush=True)
    return {"outages": outages}


async def _kill(
    reactor: Any, servers: list[LocalServer], sentinels: list[LocalServer], writer: Writer
) -> float:
    async def settled() -> LocalServer | None:
        ports = {await _named_master(sentinel) for sentinel in sentinels}
        master = next((server for server in servers if ports == {server.port}), None)
        ready = (
            master is not None
            and await in_sync(servers, master)
            and all([await _knows_all(sentinel) for sentinel in sentinels])
        )
        return master if ready else None

    master = await until(reactor, settled, PATIENCE, "sentinels that agree, and replicas in sync")
    await deferLater(reactor, random.uniform(0.5, 1.0))
    at = time.perf_counter()
    master.kill()
    writer.killed(at)
    recovered_at: float = await until(
        reactor, lambda: writer.recovered_at, PATIENCE, "a write after the kill"
    )
    await master.restart(empty=True)
    return recovered_at - at


def _sentinel(reactor: Any, program: ServerProgram, directory: Path, master: int) -> LocalServer:
    """A sentinel, as a server that is kept and reaped like the others."""
    # It wants a configuration file that it can rewrite, and reads it from its first argument.
    script = directory / "sentinel"
    sentinel = LocalServer(reactor, dataclasses.replace(program, path=script), directory)
    directory.mkdir()
    (directory / "sentinel.conf").write_text(
        f"port {sentinel.port}\n"
        "bind 127.0.0.1\n"
        f"dir {directory}\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {master} 2\n"
        f"sentinel down-after-milliseconds {MASTER} 1000\n"
        f"sentinel failover-timeout {MASTER} 3000\n"
        f"sentinel parallel-syncs {MASTER} 2\n"
    )
    script.write_text(f"#!/bin/sh\nexec '{program.path}' '{directory}/sentinel.conf' --sentinel\n")
    script.chmod(0o755)
    return sentinel


async def _named_master(sentinel: LocalServer) -> int:
    _, port = await sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
    return int(port)


async def _knows_all(sentinel: LocalServer) -> bool:
    """Whether it counts two replicas and two other sentinels, and the master is not down."""
    words = await sentinel.call("SENTINEL", "MASTER", MASTER)
    state = dict(zip(words[::2], words[1::2], strict=True))
    return (state[b"num-slaves"], state[b"num-other-sentinels"], state[b"flags"]) == (
        b"2",
        b"2",
        b"master",
    )


class Writer:
    """Writes all the time, one write after the other, in an event loop of a thread."""

    def __init__(self, sentinels: list[int]) -> None:
        self.recovered_at: float | None = None
        self._killed_at = 0.0
        self._sentinels = [("127.0.0.1", port) for port in sentinels]
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def killed(self, at: float) -> None:
        """From here on `recovered_at` is the time of the first acknowledged write submitted after
        `at`, None until there is one."""
        self._killed_at = at
        self.recovered_at = None

    async def write(self) -> None:
        """Runs in the thread until `stop`."""
        # Imported here: redis-py is needed for this alone.
        from redis.asyncio.sentinel import Sentinel
        from redis.exceptions import RedisError

        sentinels: Any = Sentinel(self._sentinels, socket_timeout=0.5)
        client = sentinels.master_for(MASTER, socket_timeout=0.5)
        number = 0
        while not self._stopped.is_set():
            number += 1
            submitted = time.perf_counter()
            try:
                await client.set("written", number)
            except RedisError:
                await asyncio.sleep(0.005)
            else:
                if self.recovered_at is None and submitted >= self._killed_at:
                    self.recovered_at = time.perf_counter()
            await asyncio.sleep(0.001)
        await client.aclose()
