"""Fault after fault, in an order that a seed gives; everybody heals in between."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

from txharedis.testing.chaos.faults import FAULTS, Fault
from txharedis.testing.chaos.scene import NobodyLeft, Scene
from txharedis.testing.waiting import all_of

__all__ = ["Nemesis", "chosen"]


def chosen(names: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of these names; for none all single ones. ValueError for an unknown name."""
    known = {fault.name: fault for fault in FAULTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no faults {', '.join(unknown)} (known: {', '.join(known)})")
    named = tuple(known[name] for name in names)
    return named or tuple(fault for fault in FAULTS if not fault.several)


class Nemesis:
    """Strikes with `at_once` faults at a time, dealt from a shuffled deck of those in `faults`.

    More than one at a time break what is promised for one: the figures are then what they are.
    """

    def __init__(self, scene: Scene, faults: Sequence[Fault], at_once: int = 1) -> None:
        self._scene = scene
        self._at_once = at_once
        self._faults = [fault for fault in faults if scene.traps or not fault.traps]
        self._deck = self._deal()

    async def rage(self, seconds: float) -> None:
        """Go on for so long; the last fault may end later. Raises what `Scene.healed` does."""
        scene = self._scene
        over = scene.reactor.seconds() + seconds
        while scene.reactor.seconds() < over:
            await scene.rest(0.1, 0.5)
            await scene.look()
            await all_of(self._happen(fault) for fault in self._next())
            scene.replace()
            await scene.healed()

    async def _happen(self, fault: Fault) -> None:
        with contextlib.suppress(NobodyLeft):
            await fault.happen(self._scene)

    def _deal(self) -> Iterator[Fault]:
        while True:
            yield from self._scene.random.sample(self._faults, len(self._faults))

    def _next(self) -> list[Fault]:
        hand: list[Fault] = []
        for fault in itertools.islice(self._deck, len(self._faults)):
            if not (fault.network and any(each.network for each in hand)):
                hand.append(fault)
            if len(hand) == self._at_once:
                break
        return hand
