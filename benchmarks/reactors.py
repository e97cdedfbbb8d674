"""What another reactor makes of our commands: epoll, asyncio and uvloop take turns."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.utils import getProcessOutputAndValue

from benchmarks.lineup import OURS
from benchmarks.on import NAMES
from benchmarks.report import table
from benchmarks.stage import Round, Stage, alternate, as_figures, count, middle, ratio, seconds

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seconds", type=seconds, default=1.0, help="of each round (%(default)s)")
    add("--in-flight", type=count, default=100, metavar="N", help="(%(default)s)")


class _OnReactor:
    """A process for each round: a reactor cannot be changed."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def rounds(self, stage: Stage, options: argparse.Namespace) -> dict[str, Round] | None:
        """By case and terms; None where the reactor is missing."""
        with tempfile.TemporaryDirectory(prefix="txharedis-reactor-") as directory:
            file = Path(directory, "figures.json")
            words = ["-m", "benchmarks.on", self.name, "throughput", "--alone", "--only", "small"]
            words += ["--rounds", "1", "--seconds", str(options.seconds), "--json", str(file)]
            words += ["--in-flight", str(options.in_flight), "--server", str(stage.program)]
            _, said, code = await getProcessOutputAndValue(
                sys.executable, words, os.environ, reactor=stage.reactor
            )
            if code:
                why = said.decode().strip().rpartition("\n")[2]
                stage.leave_out(self.name, why)
                return None
            cases = json.loads(file.read_text())["throughput"]["cases"]
        return {
            f"{case}, {terms}": Round(**cases[case][f"txharedis, {terms}"][0])
            for case in cases
            for terms in OURS
        }


async def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, and return all rounds."""
    here = [_OnReactor(name) for name in NAMES]

    async def one(reactor: _OnReactor, warming: bool) -> dict[str, Round] | None:
        return await reactor.rounds(stage, options)

    done = await alternate(stage, here, one, warm_up=False)
    figures: dict[str, Any] = {}
    rows = []
    for case in next(filter(None, done[NAMES[0]])):
        rounds = {
            name: [each[case] for each in its if each is not None] for name, its in done.items()
        }
        figures[case] = as_figures(rounds)
        for name in NAMES:
            rate = middle(rounds, name, lambda each: each.rate)
            times = ratio(rounds, name, NAMES[0], lambda each: each.rate)
            cpu = middle(rounds, name, lambda each: each.cpu)
            if rate is not None and times is not None and cpu is not None:
                rows.append([case, name, f"{rate:.0f}", f"{times:.2f}", f"{cpu * 1e6:.1f}"])
    header = ["txharedis", "reactor", "per second", f"x {NAMES[0]}", "CPU us each"]
    print(f"\n{table(header, rows)}", flush=True)
    return figures
