"""The same fault with Redis Sentinel: three sentinels, and redis-py's asyncio client in a thread.

down-after-milliseconds is 1000 and failover-timeout 3000. The outage is the time from the signal
to the first acknowledged write that was submitted after it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from benchmarks.group import NODES, in_sync, running_group
from benchmarks.outage import RECOVERY, SIGNALS
from benchmarks.stage import Stage
from txharedis.testing.servers import LocalServer, ServerProgram
from txharedis.testing.waiting import until

__all__ = ["SentinelPeer"]

MASTER = "benchmark"


class SentinelPeer:
    """Three servers, three sentinels, and a client; `outages` in seconds."""

    name = "Sentinel (down-after 1000 ms), redis-py"

    def __init__(
        self,
        reactor: Any,
        servers: list[LocalServer],
        sentinels: list[LocalServer],
        writer: Writer,
        signal: str,
    ) -> None:
        self.outages: list[float] = []
        self._reactor = reactor
        self._servers = servers
        self._sentinels = sentinels
        self._writer = writer
        self._signal = SIGNALS[signal]

    @staticmethod
    def missing(stage: Stage) -> str | None:
        """Why it cannot take part."""
        return None if find_spec("redis") else "redis-py is not installed (pip install redis)"

    @classmethod
    @asynccontextmanager
    async def running(cls, stage: Stage, signal: str) -> AsyncIterator[SentinelPeer]:
        """Ready to be struck."""
        reactor = stage.reactor
        async with running_group(reactor, stage.program) as servers:
            first = servers[0]
            for server in servers[1:]:
                await server.call("REPLICAOF", "127.0.0.1", first.port)
            await until(reactor, lambda: in_sync(servers, first), RECOVERY, "three in sync")
            directory = first.directory.parent
            sentinels = [
                _sentinel(reactor, stage.program, directory / f"sentinel{number}", first.port)
                for number in range(NODES)
            ]
            writer = Writer([sentinel.port for sentinel in sentinels])
            writing: Deferred[None] | None = None
            try:
                for sentinel in sentinels:
                    await sentinel.start()
                writing = deferToThread(asyncio.run, writer.write())
                yield cls(reactor, servers, sentinels, writer, signal)
            finally:
                writer.stop()
                if writing is not None:
                    await writing
                await DeferredList([Deferred.fromCoroutine(each.stop()) for each in sentinels])

    async def strike(self) -> None:
        """One fault, and back to where it was."""
        reactor, writer = self._reactor, self._writer
        master = await self._settled_in_time()
        writer.active = True
        await deferLater(reactor, random.uniform(0.5, 1.0))
        at = time.perf_counter()
        master.kill(self._signal)
        writer.struck(at)
        recovered_at: float = await until(
            reactor, lambda: writer.recovered_at, RECOVERY, "a write after the fault"
        )
        writer.active = False
        await master.restart(empty=True)
        self.outages.append(recovered_at - at)
        await self._settled_in_time()

    async def _settled_in_time(self) -> LocalServer:
        what = "sentinels that agree, and replicas in sync"
        master: LocalServer = await until(self._reactor, self._settled, RECOVERY, what)
        return master

    async def _settled(self) -> LocalServer | None:
        ports = {await _named_master(sentinel) for sentinel in self._sentinels}
        master = next((server for server in self._servers if ports == {server.port}), None)
        ready = (
            master is not None
            and await in_sync(self._servers, master)
            and all([await _knows_all(sentinel) for sentinel in self._sentinels])
        )
        return master if ready else None


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
    """Writes while it is `active`, one write after the other, in an event loop of a thread."""

    def __init__(self, sentinels: list[int]) -> None:
        self.active = False
        self.recovered_at: float | None = None
        self._struck_at = 0.0
        self._sentinels = [("127.0.0.1", port) for port in sentinels]
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def struck(self, at: float) -> None:
        """From here on `recovered_at` is the time of the first acknowledged write submitted after
        `at`, None until there is one."""
        self._struck_at = at
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
            if not self.active:
                await asyncio.sleep(0.02)
                continue
            number += 1
            submitted = time.perf_counter()
            try:
                await client.set("written", number)
            except RedisError:
                await asyncio.sleep(0.005)
            else:
                if self.recovered_at is None and submitted >= self._struck_at:
                    self.recovered_at = time.perf_counter()
            await asyncio.sleep(0.001)
        await client.aclose()
        for each in sentinels.sentinels:
            await each.aclose()
