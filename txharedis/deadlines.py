"""Deadlines: one timer for many that all have the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from txharedis.interfaces import Clock, Timer

__all__ = ["Deadlines"]


class Timed(Protocol):
    """Something with a time; `deferred` is None once it is over."""

    deadline: float
    deferred: Any


Item = TypeVar("Item", bound=Timed)


class Deadlines(Generic[Item]):
    """Calls `expired(item)` for each item that is not over `timeout` seconds after it was added.

    Without a timeout it does nothing.
    """

    def __init__(
        self, clock: Clock, timeout: float | None, expired: Callable[[Item], object]
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._expired = expired
        self._items: deque[Item] = deque()
        self._kept = 0  # when those that are over were last thrown away
        self._call: Timer | None = None

    def add(self, item: Item) -> None:
        if self._timeout is None:
            return
        item.deadline = self._clock.seconds() + self._timeout
        if len(self._items) > 64 + 2 * self._kept:
            self._items = deque(old for old in self._items if old.deferred is not None)
            self._kept = len(self._items)
        self._items.append(item)
        if self._call is None:
            self._call = self._clock.callLater(self._timeout, self._sweep)

    def _sweep(self) -> None:
        self._call = None
        now = self._clock.seconds()
        while self._items and (self._items[0].deferred is None or self._items[0].deadline <= now):
            item = self._items.popleft()
            if item.deferred is not None:
                self._expired(item)
        if self._items and self._call is None:
            self._call = self._clock.callLater(self._items[0].deadline - now, self._sweep)

    def stop(self) -> None:
        """Nothing expires any more."""
        self._timeout = None
        self._items.clear()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
