"""Histories from seeds: the same ones each time, and some that nobody has seen before."""

from __future__ import annotations

import os

import pytest

from txharedis.testing.simulation.__main__ import run_seeds
from txharedis.testing.simulation.histories import MODES, History

FIXED = 2000
FRESH = 500
SLICE = 50
#: The fresh ones begin here. The head of the report tells it; given again, it repeats them.
BASE = int(os.environ["HAREDIS_SEEDS"])


def run(first: int, mode: str) -> None:
    result = run_seeds(range(first, first + SLICE), mode)
    assert result.histories == SLICE
    assert result.counts["done"] > SLICE  # something was written
    assert result.counts["promotions"] > SLICE
    again = [
        f"python -m txharedis.testing.simulation --seed {seed} --mode {mode} --trace: {problems}"
        for seed, problems in result.failed
    ]
    assert not again, "\n".join(again)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", range(0, FIXED // len(MODES), SLICE))
def test_fixed_seeds(first: int, mode: str) -> None:
    run(first, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", range(0, FRESH // len(MODES), SLICE))
def test_fresh_seeds(place: int, mode: str) -> None:
    run(BASE + place, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_history_replays_exactly(mode: str) -> None:
    first, second = (History(11, mode, tracing=True).run() for _ in range(2))
    assert first.world.trace == second.world.trace
    assert first.counts == second.counts
    untraced = History(11, mode).run()
    assert untraced.counts == first.counts
