"""Tables and numbers for a terminal: plain ASCII, and nothing that it would obey."""

from __future__ import annotations

import time
from collections.abc import Sequence

from txharedis.log import printable

__all__ = ["moment", "size", "table"]


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    right: Sequence[str] = (),
) -> list[str]:
    """The lines of a table with a frame; the columns named in `right` hold numbers."""
    cells = [list(map(printable, row)) for row in rows]
    widths = [
        max([len(name), *(len(row[place]) for row in cells)]) for place, name in enumerate(columns)
    ]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    top = f"+ {printable(title)} " if title else ""
    lines = [top + rule[len(top) :], _line(columns, widths, columns, ()), rule]
    lines += [_line(row, widths, columns, right) for row in cells]
    return [*lines, rule]


def _line(
    cells: Sequence[str], widths: Sequence[int], columns: Sequence[str], right: Sequence[str]
) -> str:
    placed = (
        f" {cell:>{width}} " if name in right else f" {cell:<{width}} "
        for cell, width, name in zip(cells, widths, columns, strict=True)
    )
    return "|" + "|".join(placed) + "|"


def size(count: int | None) -> str:
    """Bytes as a text: "512 B", "1.5 MB"."""
    if count is None:
        return ""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KB", "MB", "GB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TB"


def moment(at: float) -> str:
    """Seconds since 1970 as local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
