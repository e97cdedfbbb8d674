"""How long it takes to import, and from making a client to its first reply; in fresh processes."""

from __future__ import annotations

import argparse
import compileall
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import txharedis
from benchmarks.group import running_group
from benchmarks.lineup import ready_group
from benchmarks.processes import PeerProcess
from benchmarks.report import Goal, in_ms, show_goals, table
from benchmarks.stage import Stage, alternate, count, middle, ratio

__all__ = ["add_arguments", "run"]

PATIENCE = 30.0


@dataclass(frozen=True)
class _Kind:
    """A program that starts: with txharedis or txredisapi, on so many nodes."""

    name: str
    module: str
    nodes: list[str]


@dataclass(frozen=True)
class _Start:
    """In seconds; `cpu` is the processor time of the process."""

    imported: float
    imported_cpu: float
    reply: float
    reply_cpu: float


#: What is measured of a start, the time and the processor time of each.
MEASURED: tuple[tuple[str, Callable[[_Start], float], Callable[[_Start], float]], ...] = (
    ("import", lambda each: each.imported, lambda each: each.imported_cpu),
    ("first reply", lambda each: each.reply, lambda each: each.reply_cpu),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--starts", type=count, default=15, help="fresh processes of each kind (%(default)s)"
    )


async def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, and return all figures in seconds, and the goals."""
    # What pip installs is compiled; a checkout is not where PYTHONDONTWRITEBYTECODE is set.
    compileall.compile_dir(Path(txharedis.__file__).parent, quiet=1)
    reactor = stage.reactor
    async with running_group(reactor, stage.program) as servers:
        client, master = await ready_group(reactor, servers)
        await client.quit()
        nodes = [server.address for server in servers]
        async with running_group(reactor, stage.program) as [alone, *_]:
            kinds = [
                _Kind("txharedis, 3 nodes", "txharedis", nodes),
                _Kind("txharedis, 1 node", "txharedis", [alone.address]),
                _Kind("txredisapi", "txredisapi", [master.address]),
            ]

            async def one(kind: _Kind, warming: bool) -> _Start:
                process = PeerProcess.python(
                    reactor, kind.name, "benchmarks.start_probe", kind.module, *kind.nodes
                )
                try:
                    done = await process.ask(PATIENCE, do="start")
                finally:
                    await process.close()
                return _Start(done["import"], done["import cpu"], done["reply"], done["reply cpu"])

            many = Stage(reactor, stage.program, rounds=options.starts)
            rounds = await alternate(many, kinds, one)
    stage.left_out += many.left_out
    goals = _show(rounds, kinds, options.starts)
    return {
        "rounds": {name: [asdict(each) for each in done] for name, done in rounds.items()},
        "goals": show_goals(goals),
    }


def _show(rounds: dict[str, list[_Start]], kinds: list[_Kind], starts: int) -> list[Goal]:
    """Print the table; returns the goals."""
    goals, rows = [], []
    base = kinds[-1].name
    for what, time, cpu in MEASURED:
        # The number of nodes is nothing to an import.
        for kind in kinds[1:] if what == "import" else kinds:
            name = kind.module if what == "import" else kind.name
            shown = []
            for pick in (time, cpu):
                mine = middle(rounds, kind.name, pick)
                times = ratio(rounds, kind.name, base, pick)
                shown.append("" if mine is None else in_ms(mine))
                shown.append("" if times is None else f"{times:.2f}")
            rows.append([f"{name}, {what}", *shown])
            if kind.name != base:
                times = ratio(rounds, kind.name, base, time)
                goals.append(Goal(f"{what}: {name} / {base}", times, 1.3, most=True))
    header = [f"{starts} fresh processes", "ms", "x txredisapi", "CPU ms", "x txredisapi"]
    print(f"\n{table(header, rows)}", flush=True)
    return goals
