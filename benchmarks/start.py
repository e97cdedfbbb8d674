"""How long it takes to import, and from making a client to its first reply; in fresh processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.group import running_group
from benchmarks.lineup import ready_group
from benchmarks.processes import PeerProcess
from benchmarks.report import Goal, in_ms, table
from benchmarks.stage import Stage, alternate, middle, ratio

__all__ = ["run"]

PATIENCE = 30.0


@dataclass(frozen=True)
class _Kind:
    """A program that starts: with txharedis or txredisapi, on so many nodes."""

    name: str
    module: str
    nodes: list[str]


@dataclass(frozen=True)
class _Start:
    """In seconds."""

    imported: float
    reply: float


async def run(stage: Stage, starts: int) -> dict[str, Any]:
    """Measure, print the table, and return all figures in seconds, and the goals."""
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
                return _Start(done["import"], done["reply"])

            many = Stage(reactor, stage.program, rounds=starts)
            rounds = await alternate(many, kinds, one)
    stage.left_out += many.left_out
    goals = []
    rows = []
    base = kinds[-1].name
    measured: tuple[tuple[str, Callable[[_Start], float]], ...] = (
        ("import", lambda each: each.imported),
        ("first reply", lambda each: each.reply),
    )
    for what, pick in measured:
        # The number of nodes is nothing to an import.
        for kind in kinds[1:] if what == "import" else kinds:
            mine = middle(rounds, kind.name, pick)
            times = ratio(rounds, kind.name, base, pick)
            name = kind.module if what == "import" else kind.name
            shown = ["" if mine is None else in_ms(mine), "" if times is None else f"{times:.2f}"]
            rows.append([f"{name}, {what}", *shown])
            if kind.name != base:
                goals.append(Goal(f"{what}: {name} / {base}", times, 1.3, most=True))
    print(f"\n{table([f'{starts} fresh processes', 'ms', 'x txredisapi'], rows)}", flush=True)
    return {
        "import": {name: [each.imported for each in done] for name, done in rounds.items()},
        "first reply": {name: [each.reply for each in done] for name, done in rounds.items()},
        "goals": goals,
    }
