"""Faults on real servers and clients for minutes, and what became of every write.

One history after the other, each with new servers, new client processes and a seed of its own,
which `--seed` repeats: `txharedis.testing.chaos` plays them. Everything passes through proxies in
this process, which is in the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos_sentinel import SentinelContestant
from benchmarks.report import in_ms, spread, table
from txharedis import InvalidOption, Options
from txharedis.options import DELIVERIES
from txharedis.testing.chaos.history import Contestant, History, NotHealed, Settings, play
from txharedis.testing.chaos.nemesis import chosen
from txharedis.testing.chaos.verdict import Verdict
from txharedis.testing.chaos.writers import WRITERS
from txharedis.testing.servers import ServerProgram

__all__ = ["Totals", "add_arguments", "run"]

LONGEST = 60.0
"""Seconds of faults in one history."""

OURS = "txharedis"
HEADER = ["outage in ms, after", "faults", "clients", "median", "p99", "max"]


@dataclass
class Totals:
    """The figures of several histories.

    `outages` are in seconds, by kind of fault; `strikes` count the faults. `contested` are epochs
    with several promotions, `broken` the promises that were not kept, `unhealed` the histories that
    did not come to their end.
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
    broken: list[str] = field(default_factory=list)
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
        self.broken += [where + text for text in _broken(history)]

    @property
    def healthy(self) -> bool:
        """Whether every history ended, left nothing behind, and kept what is promised."""
        return not (self.unhealed or self.complaints or self.left or self.contested or self.broken)

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**vars(self), "verdict": vars(self.verdict)}


def _broken(history: History) -> list[str]:
    """The promises that were not kept, in words."""
    settings, verdict = history.settings, history.verdict
    options = settings.options
    never = ["wrong"]
    if options.get("delivery") != "at-least-once":
        never += ["duplicated", "disordered"]
    quorum = settings.nodes // 2 + 1
    single = settings.at_once == 1 and not any(each.several for each in chosen(settings.faults))
    if single and options.get("acks", 0) + 1 + quorum > settings.nodes:
        never.append("lost")
        if options.get("delivery", "exactly-once") == "exactly-once":
            # A loss looks like these too where a write of unknown outcome is left in its place.
            never += ["stale", "late"]
    return [f"{n} {name}" for name in never if (n := getattr(verdict, name))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    usual = Settings()
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults (%(default)s)")
    parser.add_argument("--nodes", type=int, choices=[3, 5], default=usual.nodes, help="(3)")
    parser.add_argument("--seed", type=int, default=usual.seed, help="(%(default)s)")
    parser.add_argument("--at-once", type=int, default=1, help="faults at one time (%(default)s)")
    parser.add_argument("--faults", nargs="+", default=[], metavar="NAME", help="these alone")
    parser.add_argument("--processes", type=int, default=usual.clients, help="(%(default)s)")
    parser.add_argument("--delivery", choices=DELIVERIES, default="exactly-once")
    parser.add_argument("--acks", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--peer", choices=["sentinel"], help="the same with another software")


def _settings(options: argparse.Namespace) -> Settings:
    given = {"acks": options.acks, "delivery": options.delivery}
    asked_for = {name: value for name, value in given.items() if value is not None}
    usual = Settings()
    try:
        if not options.minutes > 0:
            raise ValueError(f"--minutes {options.minutes}: without faults nothing is proved")
        usable = [fault for fault in chosen(options.faults) if not options.peer or not fault.traps]
        if not usable:
            raise ValueError("these faults are for txharedis alone")
        if options.peer is None:
            Options.from_mapping({**usual.options, **asked_for})
    except (InvalidOption, ValueError) as error:
        raise SystemExit(str(error)) from None
    return Settings(
        nodes=options.nodes,
        clients=options.processes,
        seed=options.seed,
        at_once=options.at_once,
        faults=tuple(options.faults),
        options={**usual.options, **asked_for},
    )


async def run(reactor: Any, program: ServerProgram, options: argparse.Namespace) -> Totals:
    """Play histories for as long as was asked for; print the figures of each, and of all."""
    settings = _settings(options)
    contestant: Contestant | None = None
    who = OURS
    if options.peer == "sentinel":
        contestant, who = SentinelContestant(settings.options["down_after"]), "Sentinel, redis-py"
    totals = Totals()
    seed, rest = settings.seed, 60 * options.minutes
    while rest > 0:
        part = min(rest, LONGEST)
        now = dataclasses.replace(settings, seconds=part, seed=seed)
        try:
            history = await play(reactor, program, now, contestant)
        except NotHealed as error:
            totals.unhealed.append(str(error))
            print(f"NOT HEALED: {error}", flush=True)
        else:
            totals.add(history)
            print(_line(history), flush=True)
        seed, rest = seed + 1, rest - part
    print(_shown(totals, settings, who), flush=True)
    return totals


def _line(history: History) -> str:
    """One history in a line, and what was found in it."""
    counts = {name: number for name, number in history.verdict.figures().items() if number}
    shown = ", ".join(f"{number} {name}" for name, number in counts.items())
    line = f"seed {history.settings.seed}: {len(history.strikes)} faults, {shown}"
    return "\n  ".join([line, *history.verdict.findings, *history.left, *history.complaints])


def _shown(totals: Totals, settings: Settings, who: str) -> str:
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
            *(f"NOT AS PROMISED, {text}" for text in totals.broken if who == OURS),
        ]
    )
