"""Which node is best for subscriptions."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from txharedis.pubsub.places import GRACE, Places
from txharedis.topology import Address

A, B, M = (Address("n", port) for port in (1, 2, 3))


@pytest.mark.parametrize(
    ("replicas", "down", "avoided", "here", "best"),
    [
        ([A], [], [], None, {A}),
        ([A, B], [], [], None, {A, B}),
        ([A, B], [], [], B, {B}),
        ([A, B], [], [], M, {A, B}),
        ([A, B], [A], [], A, {B}),
        ([A, B], [], [A], A, {B}),
        ([A], [], [A], A, {M}),
        ([A], [], [A], None, {M}),
        ([M], [], [], None, {M}),  # it was one, until it was promoted
        ([], [], [], None, {M}),
        ([], [], [M], None, {M}),
        ([], [], [M], M, {M}),
        ([], [M], [], None, {None}),
        ([], [M], [], M, {M}),
        ([A], [A, M], [], None, {None}),
        ([A], [], [A, M], A, {A}),
    ],
)
def test_choice(
    replicas: list[Address],
    down: list[Address],
    avoided: list[Address],
    here: Address | None,
    best: set[Address | None],
) -> None:
    places = Places(Clock(), lambda node: node not in down)
    places.master = M
    places.know(M, replicas)
    for node in avoided:
        places.avoid(node, 1.0)
    assert {places.choose(here, linked=False) for _ in range(100)} == best


def test_a_linked_replica_that_is_not_usable_is_kept_for_a_while() -> None:
    clock = Clock()
    places = Places(clock, lambda node: True)
    places.master = M
    places.know(M, [B])
    assert places.choose(A, linked=True) == A
    clock.advance(GRACE - 0.1)
    assert places.choose(A, linked=True) == A
    clock.advance(0.2)
    assert places.choose(A, linked=True) == B
    places.know(M, [A, B])
    assert places.choose(A, linked=True) == A
    places.know(M, [B])
    assert places.choose(A, linked=True) == A  # the time begins anew


def test_who_is_avoided_is_forgiven() -> None:
    clock = Clock()
    places = Places(clock, lambda node: True)
    places.master = M
    places.know(M, [A])
    places.avoid(A, 5.0)
    places.avoid(A, 1.0)
    clock.advance(2.0)
    assert places.choose(None, linked=False) == M
    places.forgive(A)
    assert places.choose(M, linked=True) == A


def test_replicas_of_another_master_are_not_known() -> None:
    clock = Clock()
    places = Places(clock, lambda node: True)
    places.master = B
    places.know(M, [A])
    assert places.choose(None, linked=False) == B
    assert places.choose(A, linked=True) == A
    clock.advance(GRACE + 0.1)
    assert places.choose(A, linked=True) == B
    places.know(B, [A])
    assert places.choose(A, linked=True) == A
