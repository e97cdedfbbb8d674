"""What a pending command costs in memory, in flight and waiting.

In flight: given to a master that does not answer, and written as far as the socket takes it.
Waiting: given while no master is there. Each figure comes from a fresh process: Python's own
allocations (tracemalloc) in one, the growth of the resident set (RSS) in another. The keys are the
caller's, and are not counted; everything else that stays is: the Deferred, the command as encoded,
the bytes that the socket has not taken. txredisapi, which refuses commands without a connection, is
there in flight alone.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks.contestants import TxRedisApi
from benchmarks.group import running_group
from benchmarks.lineup import OURS, ready_group
from benchmarks.processes import PeerProcess
from benchmarks.report import Goal, show_goals, table
from benchmarks.stage import Stage, alternate, count, middle

__all__ = ["add_arguments", "run"]

PATIENCE = 120.0
GOAL = 1024.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--commands",
        type=count,
        nargs="+",
        default=[10_000, 100_000],
        metavar="N",
        help="at one time (10000 100000)",
    )


class _Probe:
    """One client in one situation; each round is a process of its own."""

    def __init__(self, terms: str, place: str, commands: int, how: str) -> None:
        self.terms = terms
        self.place = place
        self.commands = commands
        self.how = how

    @property
    def name(self) -> str:
        return f"{self.terms}, {self.commands} {self.place}, {self.how}"


async def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, and return the bytes per command of all rounds, and the goals."""
    reactor = stage.reactor
    probes = [
        _Probe(terms, place, commands, how)
        for commands in options.commands
        for place in ("in flight", "waiting")
        for terms in (*OURS, TxRedisApi.name)
        for how in ("tracemalloc", "RSS")
        if terms in OURS or place == "in flight"
    ]
    async with running_group(reactor, stage.program) as servers:
        client, master = await ready_group(reactor, servers)
        await client.quit()
        nodes = [server.address for server in servers]

        async def one(probe: _Probe, warming: bool) -> float:
            orders = {
                "nodes": nodes,
                "master": master.port,
                "options": OURS.get(probe.terms),
                "commands": probe.commands,
                "waiting": probe.place == "waiting",
                "trace": probe.how == "tracemalloc",
            }
            process = PeerProcess.python(
                reactor, probe.name, "benchmarks.memory_probe", json.dumps(orders)
            )
            try:
                await process.ask(PATIENCE, do="connect")
                # A stopped server takes connections and bytes, as far as the kernel does.
                held = servers if probe.place == "waiting" else [master]
                for server in held:
                    server.pause()
                try:
                    done = await process.ask(PATIENCE, do="submit")
                finally:
                    for server in held:
                        server.resume()
            finally:
                await process.close()
            return float(done["bytes"] / probe.commands)

        # A round that warms up would tell nothing: all processes are fresh.
        rounds = await alternate(stage, probes, one, warm_up=False)
    rows = []
    goals = []
    for commands in options.commands:
        for terms in (*OURS, TxRedisApi.name):
            figures = [
                middle(rounds, _Probe(terms, place, commands, how).name, lambda each: each)
                for place in ("in flight", "waiting")
                for how in ("tracemalloc", "RSS")
            ]
            who = f"txharedis, {terms}" if terms in OURS else terms
            cells = ["-" if figure is None else f"{figure:.0f}" for figure in figures]
            rows.append([f"{who}, {commands} commands", *cells])
            if terms in OURS:
                known = [figure for figure in figures if figure is not None]
                what = f"bytes per pending command, {terms}, {commands} commands"
                goals.append(Goal(what, max(known, default=None), GOAL, most=True))
    header = [
        "bytes per command",
        "in flight, tracemalloc",
        "in flight, RSS",
        "waiting, tracemalloc",
        "waiting, RSS",
    ]
    print(f"\n{table(header, rows)}", flush=True)
    return {
        "bytes": rounds,
        "goals": show_goals(goals),
    }
