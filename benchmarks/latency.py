"""How long one command takes when nothing else is under way: p50 and p99 of SET and GET."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.contestants import TxRedisApi
from benchmarks.lineup import OURS, in_line
from benchmarks.load import Case
from benchmarks.report import Goal, show_goals, table
from benchmarks.stage import Round, Stage, as_figures, middle, ratio, seconds
from benchmarks.throughput import compare

__all__ = ["add_arguments", "run"]

CASES = (Case("set", 1), Case("get", 1))
#: A pipeline of one command is a detour for those who have another way.
WHO = (
    "txharedis",
    "txredisapi",
    "bare",
    "redis-py, tasks",
    "coredis, tasks",
    "ioredis",
    "Node",
    "redis-benchmark",
    "valkey-benchmark",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=seconds, default=1.0, help="of each round (%(default)s)")


async def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the tables, and return all rounds of both cases, and the goals."""
    results: dict[str, dict[str, list[Round]]] = {}
    async with in_line(stage) as lineup:
        for case in CASES:
            results[str(case)] = await compare(stage, lineup, case, options.seconds, WHO)
            _show(case, results[str(case)])
    goals = []
    for case in CASES:
        rounds = results[str(case)]
        for terms in OURS:
            figure = ratio(rounds, f"txharedis, {terms}", TxRedisApi.name, lambda each: each.p50)
            what = f"{case.command.upper()}, 1 in flight: p50 of {terms} / {TxRedisApi.name}"
            goals.append(Goal(what, figure, 1.0, most=True))
    return {
        "cases": {case: as_figures(rounds) for case, rounds in results.items()},
        "goals": show_goals(goals),
    }


def _show(case: Case, rounds: dict[str, list[Round]]) -> None:
    rows = []
    for name in rounds:
        p50 = middle(rounds, name, lambda each: each.p50)
        p99 = middle(rounds, name, lambda each: each.p99)
        times = ratio(rounds, name, TxRedisApi.name, lambda each: each.p50)
        cpu = middle(rounds, name, lambda each: each.cpu)
        rows.append(
            [
                name,
                *("" if value is None else f"{value * 1e6:.0f}" for value in (p50, p99)),
                "" if times is None else f"{times:.2f}",
                "" if cpu is None else f"{cpu * 1e6:.1f}",
            ]
        )
    header = [str(case), "p50 us", "p99 us", "p50 / txredisapi", "CPU us each"]
    print(f"\n{table(header, rows)}", flush=True)
