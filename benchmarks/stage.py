"""What the commands of one run share, and taking turns."""

from __future__ import annotations

import argparse
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol, TypeVar

from benchmarks.node import NodePackages
from benchmarks.processes import PeerFailed
from txharedis.testing.servers import ServerProgram

__all__ = [
    "Named",
    "Round",
    "Stage",
    "alternate",
    "as_figures",
    "count",
    "middle",
    "ratio",
    "seconds",
]


@dataclass
class Stage:
    """Where and with whom everything is measured.

    rounds    of each contestant and case
    node      the packages of Node, None without them
    alone     whether the peers in processes of their own are left out
    left_out  who could not take part, and why
    """

    reactor: Any
    program: ServerProgram
    rounds: int = 5
    node: NodePackages | None = None
    alone: bool = False
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, who: str, why: str) -> None:
        """Say, once, that somebody does not take part."""
        line = f"left out: {who}: {why}"
        if line not in self.left_out:
            self.left_out.append(line)
            print(line, flush=True)


@dataclass(frozen=True)
class Round:
    """rate in units a second; cpu in seconds of the contestant's process for each unit.

    p50 and p99 are latencies in seconds. None is what is not known.
    """

    rate: float
    cpu: float | None = None
    p50: float | None = None
    p99: float | None = None


class Named(Protocol):
    @property
    def name(self) -> str: ...


Someone = TypeVar("Someone", bound=Named)
Result = TypeVar("Result")


async def alternate(
    stage: Stage,
    contestants: Sequence[Someone],
    measure: Callable[[Someone, bool], Awaitable[Result]],
    *,
    warm_up: bool = True,
) -> dict[str, list[Result]]:
    """All take turns, A B C, B C A, ..., with `warm_up` after one round each that does not count.

    So what else the machine does meanwhile hits them alike. `measure(contestant, warming)` is one
    round. Who fails as a PeerFailed is left out from there on.
    """
    rounds: dict[str, list[Result]] = {contestant.name: [] for contestant in contestants}
    for number in range(-1 if warm_up else 0, stage.rounds):
        first = number % len(contestants)
        for contestant in [*contestants[first:], *contestants[:first]]:
            if contestant.name not in rounds:
                continue
            try:
                done = await measure(contestant, number < 0)
            except PeerFailed as error:
                stage.leave_out(contestant.name, str(error))
                del rounds[contestant.name]
                continue
            if number >= 0:
                rounds[contestant.name].append(done)
    return rounds


def count(text: str) -> int:
    """An option that is 1 or more, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def seconds(text: str) -> float:
    """An option that is a time above 0, for argparse."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no time above 0")
    return number


def middle(
    rounds: Mapping[str, Sequence[Result]], name: str, what: Callable[[Result], float | None]
) -> float | None:
    """The median of one figure of one contestant, None when it is not known."""
    values = [value for each in rounds.get(name, []) if (value := what(each)) is not None]
    return float(median(values)) if values else None


def ratio(
    rounds: Mapping[str, Sequence[Result]],
    name: str,
    other: str,
    what: Callable[[Result], float | None],
) -> float | None:
    """The median, over the rounds, of how many times the other's figure in the same round.

    So it counts little that the machine was slower for all in some rounds. None when one of the
    two did not take part, or the figure is not known.
    """
    ratios = []
    for mine, others in zip(rounds.get(name, []), rounds.get(other, []), strict=False):
        value, base = what(mine), what(others)
        if value is not None and base:
            ratios.append(value / base)
    return float(median(ratios)) if ratios else None


def as_figures(rounds: dict[str, list[Round]]) -> dict[str, Any]:
    """For JSON."""
    return {name: [asdict(each) for each in done] for name, done in rounds.items()}
