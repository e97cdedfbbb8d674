"""Timers that end together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txharedis.pace import in_step


@pytest.mark.parametrize(
    ("now", "delay", "step", "end"),
    [
        (0.0, 1.0, 0.05, 1.0),
        (0.01, 1.0, 0.05, 1.0),
        (0.03, 1.0, 0.05, 1.05),
        (7.49, 0.93, 0.05, 8.4),
        (0.01, 0.04, 0.05, 0.05),  # too short to be moved
    ],
)
def test_it_ends_at_a_step(now: float, delay: float, step: float, end: float) -> None:
    assert now + in_step(now, delay, step) == pytest.approx(end)


@given(
    st.floats(0, 2e9),
    st.floats(0, 3600),
    st.floats(0.0005, 180),
    st.integers(min_value=1, max_value=9),
)
def test_it_is_half_a_step_off_at_most(now: float, delay: float, step: float, more: int) -> None:
    moved = in_step(now, delay, step)
    assert abs(moved - delay) <= step / 2 + 1e-5
    assert moved > 0 or delay < step
