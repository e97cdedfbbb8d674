"""Deadlines: one timer for many."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Generic, Protocol, TypeVar

from txharedis.interfaces import Clock, Timer

__all__ = ["Deadlines"]


class Timed(Protocol):
    """Something that ends; `deferred` is None once it has."""

    deferred: Any


Item = TypeVar("Item", bound=Timed)


class Deadlines(Generic[Item]):
    """Calls `expired(item)` for each item that is not over when its time has passed."""

    def __init__(self, clock: Clock, expired: Callable[[Item], object]) -> None:
        self._clock = clock
        self._expired = expired
        self._items: list[tuple[float, int, Item]] = []  # a heap
        self._added = 0
        self._kept = 0  # when those that are over were last thrown away
        self._call: Timer | None = None
        self._due = 0.0
        self._stopped = False

    def add(self, item: Item, timeout: float) -> None:
        """This one has so many seconds from now on."""
        if self._stopped:
            return
        due = self._clock.seconds() + timeout
        if len(self._items) > 64 + 2 * self._kept:
            self._items = [entry for entry in self._items if entry[2].deferred is not None]
            heapify(self._items)
            self._kept = len(self._items)
        self._added += 1
        heappush(self._items, (due, self._added, item))
        if self._call is None or due < self._due:
            self._cancel()
            self._schedule()

    def _schedule(self) -> None:
        self._due = self._items[0][0]
        delay = max(0.0, self._due - self._clock.seconds())
        self._call = self._clock.callLater(delay, self._sweep)

    def _sweep(self) -> None:
        self._call = None
        now = self._clock.seconds()
        while self._items and (self._items[0][2].deferred is None or self._items[0][0] <= now):
            _, _, item = heappop(self._items)
            if item.deferred is not None:
                self._expired(item)
        if self._items and self._call is None:
            self._schedule()

    def stop(self) -> None:
        """Nothing expires any more."""
        self._stopped = True
        self._items.clear()
        self._cancel()

    def _cancel(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
