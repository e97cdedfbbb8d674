"""Who answers a read."""

from __future__ import annotations

import pytest

from txharedis.options import READ_POLICIES
from txharedis.reads.choice import WORDS, nearest, targets
from txharedis.topology import Address

M, R, S = (Address("n", port) for port in (1, 2, 3))


@pytest.mark.parametrize(
    ("policy", "both", "no_replica", "no_master"),
    [
        ("master", [M], [M], []),
        ("master_preferred", [M], [M], [R, S]),
        ("replica", [R, S], [], [R, S]),
        ("replica_preferred", [R, S], [M], [R, S]),
        ("any", [M, R, S], [M], [R, S]),
        ("nearest", [M, R, S], [M], [R, S]),
    ],
)
def test_targets(
    policy: str, both: list[Address], no_replica: list[Address], no_master: list[Address]
) -> None:
    assert list(targets(policy, M, [R, S])) == both
    assert list(targets(policy, M, [])) == no_replica
    assert list(targets(policy, None, [R, S])) == no_master
    assert list(targets(policy, None, [])) == []


def test_every_policy_has_words() -> None:
    assert set(WORDS) == set(READ_POLICIES)


@pytest.mark.parametrize(
    ("present", "trips", "chosen"),
    [
        (None, {}, None),
        (M, {}, None),
        (None, {M: 0.003, R: 0.002}, R),
        (None, {M: 0.002, R: 0.002}, M),
        (M, {M: 0.010, R: 0.009}, M),  # not by a fifth
        (M, {M: 0.010, R: 0.007}, R),
        (M, {M: 0.00020, R: 0.00012}, M),  # not by a tenth of a millisecond
        (M, {R: 0.5, S: 0.4}, S),  # the present one is gone
    ],
)
def test_nearest(
    present: Address | None, trips: dict[Address, float], chosen: Address | None
) -> None:
    assert nearest(present, trips) == chosen
