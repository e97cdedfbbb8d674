"""A failover costs each client the same, however many there are."""

from __future__ import annotations

from txharedis.testing.simulation.scale import measure_one


def test_the_growth_per_client_is_flat() -> None:
    few, many = measure_one(10), measure_one(60)
    for measured in (few, many):
        assert measured.promotions == 1
        assert measured.all < 0.1
    assert many.messages / 60 < 1.2 * few.messages / 10
