"""The same fault with Node haredis, on three servers of its own."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.task import deferLater

from benchmarks.group import in_sync, running_group
from benchmarks.outage import RECOVERY, SIGNALS
from benchmarks.processes import PeerProcess
from benchmarks.stage import Stage
from txharedis.testing.servers import LocalServer
from txharedis.testing.waiting import until

__all__ = ["NodePeer"]


class NodePeer:
    """Three servers and a client in a process of Node; `outages` in seconds.

    The process takes the time from when it is told of the fault, which is at once.
    """

    name = "Node haredis"

    def __init__(
        self, reactor: Any, servers: list[LocalServer], process: PeerProcess, signal: str
    ) -> None:
        self.outages: list[float] = []
        self._reactor = reactor
        self._servers = servers
        self._process = process
        self._signal = SIGNALS[signal]

    @staticmethod
    def missing(stage: Stage) -> str | None:
        """Why it cannot take part."""
        return "without --node" if stage.node is None else None

    @classmethod
    @asynccontextmanager
    async def running(cls, stage: Stage, signal: str) -> AsyncIterator[NodePeer]:
        """Ready to be struck."""
        assert stage.node is not None
        reactor = stage.reactor
        async with running_group(reactor, stage.program) as servers:
            for server in servers[1:]:
                await server.call("REPLICAOF", "127.0.0.1", servers[0].port)
            await until(reactor, lambda: in_sync(servers, servers[0]), RECOVERY, "three in sync")
            words = stage.node.command("haredis", [server.port for server in servers])
            process = PeerProcess.start(reactor, cls.name, words)
            try:
                yield cls(reactor, servers, process, signal)
            finally:
                await process.close()

    async def strike(self) -> None:
        """One fault, and back to where it was."""
        reactor, process = self._reactor, self._process
        await process.ask(RECOVERY, do="write")
        await deferLater(reactor, random.uniform(0.5, 1.0))
        master = await until(reactor, self._settled, RECOVERY, "servers of Node haredis in sync")
        master.kill(self._signal)
        done = await process.ask(RECOVERY / 2, do="killed")
        await process.ask(RECOVERY, do="rest")
        self.outages.append(done["outage"])
        await master.restart(empty=True)
        what = f"{master.address} back among the servers of Node haredis"
        await until(reactor, self._settled, RECOVERY, what)

    async def _settled(self) -> LocalServer | None:
        for server in self._servers:
            if await in_sync(self._servers, server):
                return server
        return None
