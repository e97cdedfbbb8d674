"""Who takes part in throughput and latency: ours on three terms, and the peers that are there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from benchmarks.contestants import Bare, TxHARedis, TxRedisApi
from benchmarks.group import in_sync, running_group
from benchmarks.load import Local, Remote, Runner, ServerLimit, find_benchmark
from benchmarks.processes import PeerProcess
from benchmarks.stage import Stage
from txharedis import HAClient, create_client
from txharedis.testing.servers import LocalServer
from txharedis.testing.waiting import until

__all__ = ["OURS", "Lineup", "RunningPeers", "in_line", "ready_group", "start_python_peer"]

PATIENCE = 20.0

#: Our deliveries, and the options of each.
OURS: dict[str, dict[str, Any]] = {
    "at-most-once": {"delivery": "at-most-once"},
    "exactly-once": {"delivery": "exactly-once"},
    "exactly-once, acks=1": {"delivery": "exactly-once", "acks": 1},
}


@dataclass(frozen=True)
class Lineup:
    """The contestants, and the servers that they work on. Node haredis has `others`."""

    runners: list[Runner]
    servers: list[LocalServer]
    master: LocalServer
    others: list[LocalServer]

    def of(self, *beginnings: str) -> list[Runner]:
        """Those whose names begin so; all when nothing is given."""
        if not beginnings:
            return self.runners
        return [runner for runner in self.runners if runner.name.startswith(beginnings)]


async def ready_group(
    reactor: Any, servers: list[LocalServer], **options: Any
) -> tuple[HAClient, LocalServer]:
    """A client of these servers, who has made them a group in sync; and their master."""
    client = create_client([server.address for server in servers], reactor=reactor, **options)
    try:
        await client.when_ready().addTimeout(PATIENCE, reactor)
        master = next(server for server in servers if server.address == client.master)
        await until(reactor, lambda: in_sync(servers, master), PATIENCE, "three nodes in sync")
    except BaseException:
        await client.disconnect()
        raise
    return client, master


def start_python_peer(stage: Stage, name: str, port: int) -> PeerProcess | None:
    """redis-py or coredis, connected to that port; None, and a line that says why, without it."""
    package = {"redis-py": "redis"}.get(name, name)
    if find_spec(package) is None:
        stage.leave_out(name, f"not installed (pip install {package})")
        return None
    return PeerProcess.python(stage.reactor, name, "benchmarks.asyncio_peer", name, str(port))


class RunningPeers(AsyncExitStack):
    """Whoever is in it is closed at the end."""

    def keep(self, runner: Any) -> Any:
        self.push_async_callback(runner.close)
        return runner


@asynccontextmanager
async def in_line(stage: Stage) -> AsyncIterator[Lineup]:
    """Servers, and all contestants connected to them; closed afterwards."""
    reactor = stage.reactor
    async with running_group(reactor, stage.program) as servers, RunningPeers() as peers:
        for server in servers:
            # Long values come faster than a replica takes them.
            await server.call("CONFIG", "SET", "client-output-buffer-limit", "replica 0 0 0")
        client, master = await ready_group(reactor, servers, charset=None, convert_numbers=False)
        runners: list[Runner] = []

        def add(contestant: Any) -> None:
            runners.append(peers.keep(Local(reactor, contestant)))

        ours = [TxHARedis(name, client.with_options(**terms)) for name, terms in OURS.items()]
        peers.keep(ours[0])  # quitting is for all views at once
        runners += [Local(reactor, each) for each in ours]
        add(await TxRedisApi.connect(master.port))
        add(await Bare.connect(reactor, master.port))
        others: list[LocalServer] = []
        if stage.alone:
            stage.leave_out("all peers in other processes", "--alone")
        else:
            for name in ("redis-py", "coredis"):
                process = start_python_peer(stage, name, master.port)
                if process is not None:
                    peers.keep(process)
                    for how in ("pipeline", "tasks"):
                        runners.append(Remote(f"{name}, {how}", process, how))
            if stage.node is None:
                stage.leave_out("ioredis and Node haredis", "without --node")
            else:
                others = await peers.enter_async_context(running_group(reactor, stage.program))
                runners += await _of_node(stage, peers, master, others)
            path = find_benchmark(stage.program)
            if path is None:
                stage.leave_out("redis-benchmark", "not on the PATH")
            else:
                runners.append(ServerLimit(reactor, path, master.port))
        yield Lineup(runners, servers, master, others)


async def _of_node(
    stage: Stage, peers: RunningPeers, master: LocalServer, others: list[LocalServer]
) -> list[Runner]:
    """ioredis on our master, and Node haredis on three servers of its own, which it changes."""
    assert stage.node is not None
    for server in others[1:]:
        await server.call("REPLICAOF", "127.0.0.1", others[0].port)
    await until(stage.reactor, lambda: in_sync(others, others[0]), PATIENCE, "Node's group")
    runners: list[Runner] = []
    for name, label, ports in (
        ("ioredis", "ioredis, autopipelining", [master.port]),
        ("haredis", "Node haredis, 3 nodes", [server.port for server in others]),
    ):
        words = stage.node.command(name, ports)
        runners.append(peers.keep(Remote(label, PeerProcess.start(stage.reactor, label, words))))
    return runners
