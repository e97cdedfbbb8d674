"""Faults on real servers and clients for minutes, and what became of every write.

One history after the other, each with new servers, new client processes and a seed of its own,
which `--seed` repeats: `txharedis.testing.chaos` plays them. Everything passes through proxies in
this process, which is in the figures.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.report import in_ms, spread, table
from txharedis.testing.chaos.history import Contestant, History, NotHealed, Settings, play
from txharedis.testing.chaos.verdict import Verdict
from txharedis.testing.chaos.writers import WRITERS
from txharedis.testing.servers import ServerProgram

__all__ = ["LONGEST", "Totals", "run", "show"]

LONGEST = 60.0
"""Seconds of faults in one history."""

HEADER = ["outage in ms, after", "faults", "clients", "median", "p99", "max"]


@dataclass
class Totals:
    """The figures of several histories.

    `outages` are in seconds, by kind of fault; `strikes` count the faults. `contested` are epochs
    with several promotions, `unhealed` the histories that did not come to their end.
    """

    verdict: Verdict = field(default_factory=Verdict)
    outages: dict[str, list[float]] = field(default_factory=dict)
    strikes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    promotions: int = 0
    contested: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    unhealed: list[str] = field(default_factory=list)
    histories: int = 0

    def add(self, history: History) -> None:
        where = f"seed {history.settings.seed}: "
        self.histories += 1
        self.verdict.add(history.verdict)
        self.strikes.update(strike.kind for strike in history.strikes)
        self.errors.update(history.errors)
        self.promotions += history.promoted
        for kind, seconds in history.outages.items():
            self.outages.setdefault(kind, []).extend(seconds)
        self.contested += [where + text for text in history.contested]
        self.left += [where + text for text in history.left]
        self.complaints += [where + text for text in history.complaints]

    @property
    def healthy(self) -> bool:
        """Whether every history ended, and left nothing behind."""
        return not (self.unhealed or self.complaints or self.left or self.contested)

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**vars(self), "verdict": vars(self.verdict)}


async def run(
    reactor: Any,
    program: ServerProgram,
    settings: Settings,
    seconds: float,
    contestant: Contestant | None = None,
    tell: Callable[[str], object] | None = None,
) -> Totals:
    """Play histories for so many seconds of faults in all; tell of each, and at the end of all."""
    tell = tell or _print
    totals = Totals()
    seed, rest = settings.seed, seconds
    while rest > 0:
        part = min(rest, LONGEST)
        now = dataclasses.replace(settings, seconds=part, seed=seed)
        try:
            history = await play(reactor, program, now, contestant)
        except NotHealed as error:
            totals.unhealed.append(str(error))
            tell(f"NOT HEALED: {error}")
        else:
            totals.add(history)
            tell(_line(history))
        seed, rest = seed + 1, rest - part
    tell(show(totals, settings, "txharedis" if contestant is None else "Sentinel, redis-py"))
    return totals


def _print(text: str) -> None:
    print(text, flush=True)


def _line(history: History) -> str:
    """One history in a line, and what was found in it."""
    counts = {name: number for name, number in history.verdict.figures().items() if number}
    shown = ", ".join(f"{number} {name}" for name, number in counts.items())
    line = f"seed {history.settings.seed}: {len(history.strikes)} faults, {shown}"
    return "\n  ".join([line, *history.verdict.findings, *history.left, *history.complaints])


def show(totals: Totals, settings: Settings, who: str) -> str:
    """All figures, for people."""
    rows: list[list[object]] = []
    for kind, seconds in sorted(totals.outages.items()):
        figures = spread(seconds)
        faults = totals.strikes.get(kind, "")
        shown = [in_ms(figures[name]) for name in ("median", "p99", "max")]
        rows.append([kind, faults, len(seconds), *shown])
    everything = [one for seconds in totals.outages.values() for one in seconds]
    if everything:
        figures = spread(everything)
        shown = [in_ms(figures[name]) for name in ("median", "p99", "max")]
        rows.append(["all", totals.strikes.total(), len(everything), *shown])
    counts = [[name, number] for name, number in totals.verdict.figures().items()]
    counts += [
        ["promotions", totals.promotions],
        ["epochs with several", len(totals.contested)],
        ["links, calls, files left", len(totals.left)],
        ["complaints of clients", len(totals.complaints)],
        ["histories not healed", len(totals.unhealed)],
    ]
    errors = ", ".join(f"{number} {name}" for name, number in totals.errors.items()) or "none"
    options = ", ".join(f"{name}={value!r}" for name, value in settings.options.items())
    return "\n".join(
        [
            f"\n{who}, {totals.histories} histories: {settings.nodes} servers, "
            f"{settings.clients} client processes with {WRITERS} writers each, "
            f"{settings.at_once} fault(s) at a time; {options}\n",
            table(HEADER, rows),
            "",
            table(["writes", "number"], counts),
            f"\nFailed commands: {errors}.",
            *totals.contested,
        ]
    )
