"""How many commands a second: ours beside its peers, on the same server."""

from __future__ import annotations

import argparse
import cProfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.contestants import Bare, TxRedisApi
from benchmarks.group import caught_up
from benchmarks.lineup import OURS, Lineup, in_line
from benchmarks.load import Case, Runner, fill
from benchmarks.report import Goal, show_goals, table
from benchmarks.stage import Round, Stage, alternate, as_figures, count, middle, ratio, seconds
from txharedis.testing.waiting import until

__all__ = ["add_arguments", "run"]

WARM_UP = 0.3
BASES = (TxRedisApi.name, Bare.name)
NAMES = [f"txharedis, {terms}" for terms in OURS]
KINDS = ("small", "deep", "64k", "1m", "list")
#: Who takes part where values are long: the names' beginnings.
LONG = (
    "txharedis",
    TxRedisApi.name,
    Bare.name,
    "redis-py",
    "redis-benchmark",
    "valkey-benchmark",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seconds", type=seconds, default=1.0, help="of each round (%(default)s)")
    add("--in-flight", type=count, default=100, metavar="N", help="(%(default)s)")
    add("--deep", type=count, default=10_000, metavar="N", help="in flight, too (%(default)s)")
    add(
        "--only",
        nargs="+",
        choices=KINDS,
        default=list(KINDS),
        help="small: --in-flight; deep: --deep; 64k and 1m: values; list: LRANGE (all)",
    )
    add("--profile", metavar="FILE", help="only this: cProfile's figures of SET by txharedis")


@dataclass(frozen=True)
class Contest:
    """A case, and the beginnings of the names of those who take part: all when it is empty."""

    kind: str
    case: Case
    who: tuple[str, ...] = ()


def _contests(options: argparse.Namespace) -> list[Contest]:
    all_of_them = [
        Contest("small", Case("set", options.in_flight)),
        Contest("small", Case("get", options.in_flight)),
        Contest("deep", Case("set", options.deep)),
        Contest("deep", Case("get", options.deep)),
        Contest("64k", Case("set", 10, 64 << 10), LONG),
        Contest("64k", Case("get", 10, 64 << 10), LONG),
        Contest("1m", Case("set", 10, 1 << 20), LONG),
        Contest("1m", Case("get", 10, 1 << 20), LONG),
        Contest("list", Case("lrange", 10, 32, 10_000), LONG),
    ]
    return [contest for contest in all_of_them if contest.kind in options.only]


async def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the tables, and return all rounds of all cases, and the goals."""
    async with in_line(stage) as lineup:
        if options.profile is not None:
            await _profile(lineup.runners[0], options)
            return {}
        results: dict[str, dict[str, list[Round]]] = {}
        for contest in _contests(options):
            results[str(contest.case)] = await compare(
                stage, lineup, contest.case, options.seconds, contest.who
            )
            _show(contest.case, results[str(contest.case)])
    return {
        "cases": {case: as_figures(rounds) for case, rounds in results.items()},
        "goals": show_goals(_goals(options, results)),
    }


async def compare(
    stage: Stage, lineup: Lineup, case: Case, length: float, who: Sequence[str] = ()
) -> dict[str, list[Round]]:
    """All rounds of one case, of `length` seconds each, by the contestants' names."""
    fill(lineup.master.port, case)
    if lineup.others:
        fill(lineup.others[0].port, case)

    async def one(runner: Runner, warming: bool) -> Round:
        done = await runner.round(case, min(WARM_UP, length) if warming else length)
        # What the replicas have not taken yet is not to be the next one's burden.
        await until(
            stage.reactor,
            lambda: caught_up(lineup.servers, lineup.master),
            30,
            "replicas that have caught up",
        )
        return done

    return await alternate(stage, lineup.of(*who), one)


def _rate(done: Round) -> float:
    return done.rate


def _show(case: Case, rounds: dict[str, list[Round]]) -> None:
    rows = []
    for name in rounds:
        rate = middle(rounds, name, _rate)
        cpu = middle(rounds, name, lambda each: each.cpu)
        rows.append(
            [
                name,
                "" if rate is None else f"{rate:.0f}",
                *(
                    _times(ratio(rounds, name, base, _rate))
                    for base in (TxRedisApi.name, Bare.name)
                ),
                "" if cpu is None else f"{cpu * 1e6:.1f}",
            ]
        )
    header = [str(case), "per second", "x txredisapi", "x bare", "CPU us each"]
    print(f"\n{table(header, rows)}", flush=True)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _goals(options: argparse.Namespace, results: dict[str, dict[str, list[Round]]]) -> list[Goal]:
    goals = []
    for contest in _contests(options):
        rounds = results[str(contest.case)]
        if contest.kind == "small":
            goals += _goals_of_small(contest.case, rounds)
        elif contest.kind == "deep":
            few = Case(contest.case.command, options.in_flight)
            goals += _goals_of_deep(contest.case, rounds, few, results.get(str(few), {}))
        else:
            goals += _goals_of_long(contest.case, rounds)
    return goals


def _goals_of_small(case: Case, rounds: dict[str, list[Round]]) -> list[Goal]:
    plain, exact, acked = NAMES
    return [
        Goal(f"{case}: {name} / {base}", ratio(rounds, name, base, _rate), bound)
        for name, base, bound in (
            (plain, TxRedisApi.name, 3.0),
            (plain, Bare.name, 0.85),
            (plain, "ioredis, autopipelining", 1.0),
            (exact, TxRedisApi.name, 2.2),
            (acked, TxRedisApi.name, 1.2),
        )
    ]


def _goals_of_deep(
    case: Case, rounds: dict[str, list[Round]], few: Case, its: dict[str, list[Round]]
) -> list[Goal]:
    """The rate may fall by a fifth."""
    goals = []
    for name in NAMES:
        rate = middle(rounds, name, _rate)
        base = middle(its, name, _rate)
        figure = None if rate is None or not base else rate / base
        goals.append(Goal(f"{case}: {name} / {few.in_flight} in flight", figure, 0.8))
    return goals


def _goals_of_long(case: Case, rounds: dict[str, list[Round]]) -> list[Goal]:
    """As much as the better of txredisapi and redis-py, in whichever of its two ways."""

    def rate(name: str) -> float:
        return middle(rounds, name, _rate) or 0.0

    better = max((TxRedisApi.name, "redis-py, pipeline", "redis-py, tasks"), key=rate)
    return [
        Goal(f"{case}: {name} / {better}", ratio(rounds, name, better, _rate), 1.0)
        for name in NAMES
    ]


async def _profile(runner: Runner, options: argparse.Namespace) -> None:
    case = Case("set", options.in_flight)
    await runner.round(case, WARM_UP)
    profiler = cProfile.Profile()
    with profiler:
        await runner.round(case, options.seconds)
    profiler.dump_stats(options.profile)
    print(f"python -m pstats {options.profile}")
