"""Many clients in several processes: failovers, and what idle clients cost the servers.

A failover: the master is killed while each client writes a little; told of it, each gives one more
write, and the outage of a client is the time until that is acknowledged. Idle: no client does
anything, and the servers' processor time and commands are counted.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from benchmarks.group import in_sync, running_group
from benchmarks.processes import PeerProcess
from benchmarks.report import Goal, in_ms, show_goals, spread, table
from benchmarks.stage import Stage, count, seconds
from txharedis.testing.servers import LocalServer
from txharedis.testing.waiting import until

__all__ = ["add_arguments", "run"]

PATIENCE = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--clients",
        type=count,
        nargs="+",
        default=[1, 50, 200],
        metavar="N",
        help="one series for each number (1 50 200)",
    )
    add("--processes", type=count, default=4, help="that they are spread over (%(default)s)")
    add("--kills", type=count, default=10, help="of each series (%(default)s)")
    add("--idle", type=seconds, default=62.0, metavar="SECONDS", help="(%(default)s)")


async def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the tables, and return all figures, and the goals."""
    series: dict[str, Any] = {}
    goals: list[Goal] = []
    for clients in options.clients:
        figures = await _series(stage, options, clients)
        series[f"{clients} clients"] = figures
        if clients == max(options.clients):
            outages = [one * 1000 for kill in figures["outages"] for one in kill]
            p99 = spread(outages)["p99"]
            what = f"SIGKILL, {clients} clients in {options.processes} processes: p99 of all"
            goals.append(Goal(what, p99, 250, True, " ms"))
            what = f"{clients} idle clients: CPU of all servers per 100 clients"
            goals.append(Goal(what, figures["cpu per 100 clients"], 1.0, True, " %"))
    _show(series, options)
    return {"series": series, "goals": show_goals(goals)}


async def _series(stage: Stage, options: argparse.Namespace, clients: int) -> dict[str, Any]:
    reactor = stage.reactor
    async with running_group(reactor, stage.program) as servers:
        async with _workers(stage, servers, 1, 1):
            # The servers are a group from here on.
            await until(reactor, lambda: _settled(servers), PATIENCE, "a first master")
        base = await _idle(reactor, servers, options.idle)
        async with _workers(stage, servers, clients, options.processes) as workers:
            await until(reactor, lambda: _settled(servers), PATIENCE, "all in sync")
            # The clients' own beginnings are over.
            await deferLater(reactor, min(2.0, options.idle))
            idle = await _idle(reactor, servers, options.idle)
            outages = [await _kill(reactor, servers, workers) for _ in range(options.kills)]
    cpu = sum(idle["cpu"]) - sum(base["cpu"])
    return {
        "clients": clients,
        "outages": outages,
        "servers without clients": base,
        "servers with idle clients": idle,
        "cpu per 100 clients": cpu * 100 / clients,
        "commands per second and client": (sum(idle["commands"]) - sum(base["commands"])) / clients,
    }


@asynccontextmanager
async def _workers(
    stage: Stage, servers: list[LocalServer], clients: int, processes: int
) -> AsyncIterator[list[PeerProcess]]:
    """So many clients, ready, spread over processes."""
    nodes = [server.address for server in servers]
    async with AsyncExitStack() as stack:
        workers = []
        for number in range(min(processes, clients)):
            share = clients // processes + (number < clients % processes)
            workers.append(
                PeerProcess.python(
                    stage.reactor,
                    f"clients {number}",
                    "benchmarks.clients",
                    str(share),
                    str(number),
                    *nodes,
                )
            )
            stack.push_async_callback(workers[-1].close)
        await gatherResults([worker.ask(PATIENCE, do="ready") for worker in workers])
        yield workers


async def _kill(
    reactor: Any, servers: list[LocalServer], workers: list[PeerProcess]
) -> list[float]:
    """The outage of each client, in seconds."""
    await gatherResults([worker.ask(PATIENCE, do="write") for worker in workers])
    # At any phase of the heartbeats.
    await deferLater(reactor, random.uniform(0.3, 0.6))
    master = await _settled(servers)
    assert master is not None, "the servers were in sync"
    master.kill()
    at = time.monotonic()
    answers = await gatherResults([worker.ask(PATIENCE, do="struck", at=at) for worker in workers])
    await gatherResults([worker.ask(PATIENCE, do="rest") for worker in workers])
    await master.restart(empty=True)
    await until(reactor, lambda: _settled(servers), PATIENCE, f"{master.address} back in sync")
    await gatherResults([worker.ask(PATIENCE, do="ready") for worker in workers])
    return [one for answer in answers for one in answer["outages"]]


async def _settled(servers: list[LocalServer]) -> LocalServer | None:
    for server in servers:
        if await in_sync(servers, server):
            return server
    return None


async def _idle(reactor: Any, servers: list[LocalServer], length: float) -> dict[str, Any]:
    """Of each server: percent of a core, and commands a second."""
    used, commands = [_used(server) for server in servers], await _commands(servers)
    began = time.monotonic()
    await deferLater(reactor, length)
    elapsed = time.monotonic() - began
    used = [_used(server) - before for server, before in zip(servers, used, strict=True)]
    done = [now - before for now, before in zip(await _commands(servers), commands, strict=True)]
    return {
        "cpu": [100 * each / elapsed for each in used],
        "commands": [number / elapsed for number in done],
    }


def _used(server: LocalServer) -> float:
    """The processor time of the server in seconds; in ticks where the kernel tells no more."""
    process = Path("/proc", str(server.pid))
    try:
        tasks = [task.read_text() for task in process.glob("task/*/schedstat")]
    except OSError:
        tasks = []
    if tasks:
        return sum(int(task.split()[0]) for task in tasks) / 1e9
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _commands(servers: list[LocalServer]) -> list[int]:
    return [int((await each.info("stats"))["total_commands_processed"]) for each in servers]


def _show(series: dict[str, Any], options: argparse.Namespace) -> None:
    rows = []
    for name, figures in series.items():
        every = [one for kill in figures["outages"] for one in kill]
        slowest = [max(kill) for kill in figures["outages"]]
        middle, far = spread(every), spread(slowest)
        rows.append(
            [
                name,
                *(in_ms(middle[part]) for part in ("median", "p99", "max")),
                in_ms(far["median"]),
                # Of a few clients it is noise, times a hundred.
                f"{figures['cpu per 100 clients']:.2f}" if figures["clients"] >= 20 else "",
                f"{sum(figures['servers with idle clients']['commands']):.0f}",
                f"{figures['commands per second and client']:.1f}",
            ]
        )
    header = [
        f"{options.kills} kills, {options.processes} processes",
        "median ms",
        "p99 ms",
        "max ms",
        "slowest, median ms",
        "idle: % of a core per 100",
        "commands/s, all servers",
        "per client",
    ]
    print(f"\n{table(header, rows)}", flush=True)
