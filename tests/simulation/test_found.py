"""Histories in which defects were found, each with what it showed."""

from __future__ import annotations

import pytest

from txharedis.testing.simulation.histories import History


@pytest.mark.parametrize(
    ("seed", "mode"),
    [
        (925, "many"),  # two masters of one epoch: whoever held the lock was in doubt of himself
    ],
)
def test_is_mended(seed: int, mode: str) -> None:
    assert History(seed, mode).run().problems == []
