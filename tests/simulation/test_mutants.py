"""The simulator can fail: it notices each rule that is broken, within some histories.

docs/design.md has a table of after how many it did. Any change of the client makes other histories
of the same seeds, so the bounds are wide.
"""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, mutated
from txharedis.testing.simulation.__main__ import run_seeds

#: In which mode it is looked for, and within how many histories it must be noticed.
BOUNDS: dict[str, tuple[str, int]] = {
    "no fence": ("many", 300),
    "no vote": ("one", 60),
    "no quorum of locks": ("one", 600),
    "the lock's life is not looked at, and it is not watched": ("many", 2000),
    "counters as strings": ("one", 300),
    "a restarted master keeps its claim": ("one", 200),
    "what the replicas hear is not asked for": ("one", 300),
    "the offset does not count": ("one", 600),
    "gossip on trust": ("one", 100),
    "the lease is ignored": ("many", 100),
    "the journal's last is not looked at": ("many", 1000),
    "neither floor nor last": ("many", 1000),
    "no order of batches (after)": ("one", 600),
    "a lost journal is not noticed": ("one", 200),
    "batches get new numbers when they go again": ("one", 60),
    "at-most-once is sent again": ("one", 100),
    "WAIT is ignored": ("one", 200),
}
#: Broken alone, these do little harm or none; docs/design.md says why.
REDUNDANT = {"no journal floor", "no quorum of answers"}


def noticed_after(name: str, mode: str, bound: int) -> int | None:
    """The number of histories after which it was noticed."""
    with mutated(name):
        for seed in range(bound):
            if run_seeds([seed], mode).failed:
                return seed + 1
    return None


@pytest.mark.parametrize("name", BOUNDS)
def test_a_broken_rule_is_noticed(name: str) -> None:
    mode, bound = BOUNDS[name]
    assert noticed_after(name, mode, bound) is not None


def test_all_of_them_are_looked_for() -> None:
    assert set(MUTANTS) == set(BOUNDS) | REDUNDANT


def test_nothing_is_left_of_a_mutant() -> None:
    for name in MUTANTS:
        with mutated(name):
            pass
    assert not run_seeds(range(5), "one").failed
