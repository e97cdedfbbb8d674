"""What a benchmark says: quantiles, tables, goals, and what it was measured on."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import txharedis
from txharedis.testing.servers import ServerProgram

__all__ = ["Goal", "environment", "in_ms", "quantile", "show_goals", "spread", "table"]

PACKAGES = ("Twisted", "hiredis", "txredisapi", "redis", "coredis")


def quantile(values: Iterable[float], part: float) -> float:
    """The smallest value that `part` (0 to 1) of all values do not exceed; no interpolation.

    Of 50 values the 0.99 quantile is therefore the greatest.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, p90, p99 and the greatest, in the unit of `values`."""
    parts = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: quantile(values, part) for name, part in parts.items()}


def in_ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *rest])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, lines)])


@dataclass(frozen=True)
class Goal:
    """What a figure has to be: `bound` or more, or with `most` that or less.

    `figure` is None when nothing was measured to compare with.
    """

    what: str
    figure: float | None
    bound: float
    most: bool = False
    unit: str = ""

    @property
    def reached(self) -> bool | None:
        """None when nobody can tell."""
        if self.figure is None:
            return None
        return self.figure <= self.bound if self.most else self.figure >= self.bound

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        wanted = f"{'<=' if self.most else '>='} {self.bound:g}{self.unit}"
        return {
            "what": self.what,
            "wanted": wanted,
            "measured": self.figure,
            "reached": self.reached,
        }


def show_goals(goals: Iterable[Goal]) -> list[dict[str, Any]]:
    """Print a table of them; returns the same for JSON."""
    words = {True: "yes", False: "NO", None: "not measured"}
    kept, rows = [], []
    for goal in goals:
        kept.append(goal.figures())
        figure = "" if goal.figure is None else f"{goal.figure:.3g}{goal.unit}"
        rows.append([goal.what, kept[-1]["wanted"], figure, words[goal.reached]])
    print(f"\n{table(['goal', 'wanted', 'measured', 'reached'], rows)}", flush=True)
    return kept


def environment(program: ServerProgram) -> dict[str, Any]:
    """The versions and the machine, for the record."""
    return {
        "server": str(program),
        "Python": platform.python_version(),
        "txharedis": txharedis.__version__,
        **{name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 2),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
