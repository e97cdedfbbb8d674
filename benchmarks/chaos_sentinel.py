"""Sentinel and redis-py's asyncio client in place of txharedis, for `chaos`.

A sentinel stands beside each server, and is on the same side in a partition. Nobody kills or stops
a sentinel. The servers have configuration files, which the sentinels have them rewrite.
down-after-milliseconds is the clients' `down_after`, failover-timeout three times that.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from txharedis.testing.chaos.cluster import Cluster
from txharedis.testing.chaos.history import Settings
from txharedis.testing.servers import LocalServer, ServerProgram
from txharedis.testing.waiting import all_of

__all__ = ["MASTER", "SentinelContestant"]

MASTER = "chaos"


class SentinelContestant:
    """What `history.Contestant` says."""

    module = "benchmarks.sentinel_client"
    traps = False

    def __init__(self, down_after: float) -> None:
        self._down_after = down_after

    def watchers(
        self, reactor: Any, program: ServerProgram, folder: Path, servers: list[LocalServer]
    ) -> list[LocalServer]:
        for server in servers:
            file = server.directory / "server.conf"
            server.program = _script(program, file, '"$@"')
            file.touch()
        made = []
        for number in range(len(servers)):
            directory = folder / f"sentinel{number}"
            itself = _script(program, directory / "sentinel.conf", "--sentinel")
            made.append(LocalServer(reactor, itself, directory, source=f"127.0.0.{31 + number}"))
        return made

    async def start(self, cluster: Cluster) -> None:
        first, *others = cluster.servers
        for server in cluster.servers:
            port = cluster.proxy(server).port
            announced = ("--replica-announce-ip", "127.0.0.1", "--replica-announce-port", str(port))
            server.options += announced
        await all_of(server.start() for server in cluster.servers)
        port = cluster.proxy(first).port
        await all_of(server.call("REPLICAOF", "127.0.0.1", port) for server in others)
        for sentinel in cluster.watchers:
            self._configure(cluster, sentinel, port)
        await all_of(sentinel.start() for sentinel in cluster.watchers)

    def orders(self, cluster: Cluster, settings: Settings) -> dict[str, Any]:
        return {
            "sentinels": [cluster.proxy(sentinel).port for sentinel in cluster.watchers],
            "acks": settings.options.get("acks", 0),
            "retries": settings.options.get("delivery") != "at-most-once",
            "burst": 1,
        }

    async def ready(self, cluster: Cluster) -> bool:
        """Whether all sentinels name the master, and know of everybody, alive."""
        master = await cluster.settled()
        if master is None:
            return False
        others = str(len(cluster.servers) - 1).encode()
        for sentinel in cluster.watchers:
            words = await sentinel.call("SENTINEL", "MASTER", MASTER)
            state = dict(zip(words[::2], words[1::2], strict=True))
            if (
                int(state[b"port"]) != cluster.proxy(master).port
                or state[b"flags"] != b"master"
                or state[b"num-slaves"] != others
                or state[b"num-other-sentinels"] != others
            ):
                return False
        return True

    def _configure(self, cluster: Cluster, sentinel: LocalServer, master: int) -> None:
        after = round(self._down_after * 1000)
        quorum = len(cluster.watchers) // 2 + 1
        (sentinel.directory / "sentinel.conf").write_text(
            f"port {sentinel.port}\n"
            "bind 127.0.0.1\n"
            "protected-mode no\n"
            f"bind-source-addr {sentinel.source}\n"
            f"dir {sentinel.directory}\n"
            f"logfile {sentinel.directory}/server.log\n"
            "sentinel announce-ip 127.0.0.1\n"
            f"sentinel announce-port {cluster.proxy(sentinel).port}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master} {quorum}\n"
            f"sentinel down-after-milliseconds {MASTER} {after}\n"
            f"sentinel failover-timeout {MASTER} {3 * after}\n"
            f"sentinel parallel-syncs {MASTER} {len(cluster.servers)}\n"
        )


def _script(program: ServerProgram, file: Path, words: str) -> ServerProgram:
    """The program with that configuration file, which it wants as its first argument."""
    file.parent.mkdir(parents=True)
    script = file.with_suffix(".sh")
    path, conf = shlex.quote(str(program.path)), shlex.quote(str(file))
    script.write_text(f"#!/bin/sh\nexec {path} {conf} {words}\n")
    script.chmod(0o755)
    return dataclasses.replace(program, path=script)
