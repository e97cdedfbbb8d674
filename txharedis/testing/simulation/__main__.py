"""Run histories: `python -m txharedis.testing.simulation --seeds 0:2000 --jobs 2`.

`--seed N --trace` shows one. `scale` measures a failover with many clients.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from .checks import Counts
from .histories import MODES, History
from .scale import measure

__all__ = ["Result", "run_seeds"]

_SLICE = 25


@dataclass
class Result:
    """What came of some histories: `failed` are pairs of a seed and what was wrong with it."""

    histories: int = 0
    counts: Counts = field(default_factory=Counts)
    failed: list[tuple[int, list[str]]] = field(default_factory=list)

    def add(self, other: Result) -> None:
        self.histories += other.histories
        self.counts.add(other.counts)
        self.failed += other.failed


def run_seeds(seeds: Iterable[int], mode: str) -> Result:
    """Run these histories."""
    result = Result()
    for seed in seeds:
        history = History(seed, mode)
        try:
            history.run()
            problems = history.problems
        except Exception:
            problems = [*history.problems, traceback.format_exc()]
        result.histories += 1
        result.counts.add(history.counts)
        if problems:
            result.failed.append((seed, [str(history.nemesis.done), *problems]))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m txharedis.testing.simulation", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", nargs="?", choices=["histories", "scale"], default="histories")
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--seeds", type=_range, default="0:100", help="run these: FROM:TO (0:100)")
    parser.add_argument("--mode", choices=[*MODES, "both"], default="both")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--minutes", type=float, help="begin nothing after so many")
    parser.add_argument("--trace", action="store_true", help="show all that happens")
    parser.add_argument("--clients", type=int, nargs="*", help="for scale: how many")
    given = parser.parse_args(arguments)
    if given.what == "scale":
        measure(given.clients or [1, 10, 100, 1000, 10_000])
        return 0
    modes = MODES if given.mode == "both" else (given.mode,)
    if given.seed is not None:
        return max(_show(given.seed, mode, tracing=given.trace) for mode in modes)
    return max(_run_many(given.seeds, mode, given.jobs, given.minutes) for mode in modes)


def _range(text: str) -> range:
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is not FROM:TO, the second above the first")
    return range(int(first), int(last))


def _show(seed: int, mode: str, *, tracing: bool) -> int:
    history = History(seed, mode, tracing=tracing)
    try:
        history.run()
    finally:
        for at, text in history.world.trace or ():
            print(f"{at:12.6f} {text}")
        for problem in history.problems:
            print(f"seed {seed}, mode {mode}: {problem}")
    print(_summary(history.counts))
    return bool(history.problems)


def _run_many(seeds: range, mode: str, jobs: int, minutes: float | None) -> int:
    began = time.monotonic()
    total = Result()
    slices = [seeds[at : at + _SLICE] for at in range(0, len(seeds), _SLICE)]

    def go_on() -> bool:
        return minutes is None or time.monotonic() - began < 60 * minutes

    def done(result: Result) -> None:
        total.add(result)
        for seed, problems in result.failed:
            print(f"seed {seed}, mode {mode}:", *problems[:4], sep="\n    ", flush=True)

    if jobs == 1:
        for some in slices:
            if go_on():
                done(run_seeds(some, mode))
    else:
        with ProcessPoolExecutor(jobs) as pool:
            while slices and go_on():
                batch, slices = slices[: 4 * jobs], slices[4 * jobs :]
                for result in pool.map(run_seeds, batch, [mode] * len(batch)):
                    done(result)
    took = time.monotonic() - began
    print(
        f"mode {mode}: {total.histories} histories from seed {seeds.start} on in {took:.0f} s "
        f"({total.histories / took:.1f}/s), {len(total.failed)} failed"
    )
    print(_summary(total.counts))
    return bool(total.failed)


def _summary(counts: Counts) -> str:
    return "  " + ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
