"""What became of the tests, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from left_out import LeftOut

__all__ = ["Outcome", "judge", "summary", "write_junit"]


@dataclass(frozen=True)
class Outcome:
    """What became of one test.

    where   the server and the mode
    kind    "passed", "failed" or "left out"
    reason  why; empty for "passed"
    """

    where: str
    test: str
    kind: str
    reason: str = ""
    seconds: float = 0.0


def judge(
    program: str,
    mode: str,
    results: Mapping[str, Mapping[str, Any]],
    table: Sequence[LeftOut],
) -> list[Outcome]:
    """Hold what the suite wrote against the table of the tests that are left out.

    A test of the table that passes, or fails otherwise than it says, is a failure; so is an entry
    that no test has.
    """
    where = f"{program}.{mode}"
    outcomes = []
    used = set()
    for test, result in sorted(results.items()):
        entry = next((entry for entry in table if entry.covers(test, mode)), None)
        used.add(entry)
        kind, reason = _verdict(entry, result["outcome"], result["reason"])
        outcomes.append(Outcome(where, test, kind, reason, result["seconds"]))
    for entry in table:
        if entry not in used and entry.mode in (None, mode):
            reason = "it is to be left out, and no test has that name"
            outcomes.append(Outcome(where, entry.tests, "failed", reason))
    return outcomes


def _verdict(entry: LeftOut | None, outcome: str, reason: str) -> tuple[str, str]:
    match outcome:
        case "passed" if entry is None:
            return "passed", ""
        case "passed":
            return "failed", f"it passed, and is to be left out: {entry.reason}"
        case "skipped":
            return "left out", f"it skips itself: {reason}"
        case "failed" if entry is not None and entry.says is not None and entry.says in reason:
            return "left out", entry.reason
        case "not run" if entry is not None and not entry.runs:
            return "left out", entry.reason
        case "failed":
            return "failed", reason
    return "failed", f"{outcome}: {reason}"


def summary(title: str, outcomes: Iterable[Outcome], *, reasons: bool = True) -> str:
    """The counts in a line, then what failed, and the reasons of what was left out."""
    outcomes = list(outcomes)
    counts = Counter(outcome.kind for outcome in outcomes)
    kinds = ("passed", "failed", "left out")
    lines = [f"{title}: " + ", ".join(f"{counts[kind]} {kind}" for kind in kinds)]
    if reasons:
        for outcome in outcomes:
            if outcome.kind == "failed":
                lines.append(f"  FAILED {outcome.test}")
                lines += [f"    {line}" for line in outcome.reason.splitlines()]
        left = Counter(outcome.reason for outcome in outcomes if outcome.kind == "left out")
        lines += [f"  left out {count:3}: {reason}" for reason, count in left.items()]
    return "\n".join(lines)


def write_junit(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write JUnit XML; what was left out counts as skipped."""
    counts = Counter(outcome.kind for outcome in outcomes)
    suite = ElementTree.Element(
        "testsuite",
        name="conformance",
        tests=str(len(outcomes)),
        failures=str(counts["failed"]),
        errors="0",
        skipped=str(counts["left out"]),
        time=f"{sum(outcome.seconds for outcome in outcomes):.3f}",
    )
    for outcome in outcomes:
        place, _, name = outcome.test.rpartition(".")
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"{outcome.where}.{place}",
            name=name,
            time=f"{outcome.seconds:.3f}",
        )
        if outcome.kind == "failed":
            failure = ElementTree.SubElement(case, "failure", message="failed")
            failure.text = outcome.reason
        elif outcome.kind == "left out":
            ElementTree.SubElement(case, "skipped", message=outcome.reason)
    path.write_bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))
