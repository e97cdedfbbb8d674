"""One timer for many."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from txharedis.deadlines import Deadlines


class Item:
    deadline = 0.0

    def __init__(self) -> None:
        self.deferred: Any = object()


def test_each_expires_in_its_time_unless_it_is_over() -> None:
    clock = Clock()
    expired: list[tuple[float, Item]] = []
    deadlines: Deadlines[Item] = Deadlines(
        clock, lambda item: expired.append((clock.seconds(), item))
    )
    items = [Item() for _ in range(3)]
    for item in items:
        deadlines.add(item, 1.0)
        clock.advance(0.25)
    assert len(clock.getDelayedCalls()) == 1
    items[1].deferred = None
    clock.pump([0.25] * 4)
    assert expired == [(1.0, items[0]), (1.5, items[2])]
    assert not clock.getDelayedCalls()


def test_those_that_are_over_are_not_kept() -> None:
    clock = Clock()
    deadlines: Deadlines[Item] = Deadlines(clock, lambda item: None)
    living = [Item() for _ in range(20)]
    for item in living:
        deadlines.add(item, 1.0)
    for _ in range(1000):
        item = Item()
        deadlines.add(item, 1.0)
        item.deferred = None
    assert len(deadlines._items) < 200
    assert [item for _, _, item in deadlines._items if item.deferred] == living
    deadlines.stop()
    assert not clock.getDelayedCalls()


def test_stopping_in_the_middle() -> None:
    clock = Clock()
    expired: list[Item] = []

    def expire(item: Item) -> None:
        expired.append(item)
        deadlines.stop()
        deadlines.add(Item(), 1.0)

    deadlines: Deadlines[Item] = Deadlines(clock, expire)
    deadlines.add(Item(), 1.0)
    deadlines.add(Item(), 1.0)
    clock.advance(2.0)
    assert len(expired) == 1
    assert not clock.getDelayedCalls()


def test_each_has_its_own_time() -> None:
    clock = Clock()
    expired: list[float] = []
    deadlines: Deadlines[Item] = Deadlines(clock, lambda item: expired.append(clock.seconds()))
    for timeout in (3.0, 1.0, 2.0, 1.5):
        deadlines.add(Item(), timeout)
        assert len(clock.getDelayedCalls()) == 1
    clock.pump([0.25] * 16)
    assert expired == [1.0, 1.5, 2.0, 3.0]
    assert not clock.getDelayedCalls()
