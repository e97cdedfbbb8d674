"""ScanIterator: SCAN and its family as asynchronous iterators that survive a failover."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from txredisapi import ResponseError

__all__ = ["ScanIterator", "pairs", "scan_options", "scored", "singles"]


class ScanIterator:
    """What one SCAN, HSCAN, SSCAN or ZSCAN finds, step by step: `async for item in ...`.

    An element that is there from the beginning to the end is returned at least once, perhaps more
    than once; one that comes or goes meanwhile is returned or not. That is SCAN's own promise, and
    it holds across failovers: a cursor means nothing to another server, so when another one answers
    the iteration begins again from the start there. `restarted` counts how often it did.

    A step fails as any command can (see FailoverService.submit), and may be tried again by going on
    with the same iterator.
    """

    def __init__(
        self,
        step: Callable[[int], Deferred[Any]],
        incarnation: Callable[[], str],
        items: Callable[[list[Any]], Iterable[Any]],
    ) -> None:
        self.restarted = 0
        self._step = step
        self._incarnation = incarnation
        self._items = items
        self._cursor = 0
        self._server = ""  # whose cursor it is
        self._over = False
        self._found: deque[Any] = deque()

    def __aiter__(self) -> ScanIterator:
        return self

    async def __anext__(self) -> Any:
        while not self._found:
            if self._over:
                raise StopAsyncIteration
            await self._go_on()
        return self._found.popleft()

    async def _go_on(self) -> None:
        cursor = self._cursor
        try:
            reply = await self._step(cursor)
        except ResponseError:
            if not self._begin_again():  # else it was another server's cursor
                raise
            return
        if self._begin_again():
            return
        # Read in the very moment of the reply, so it is the server that gave it.
        self._server = self._incarnation()
        self._cursor = int(reply[0])
        self._over = self._cursor == 0
        self._found.extend(self._items(reply[1]))

    def _begin_again(self) -> bool:
        """Whether another server than the cursor's answered; then the next step is the first."""
        if not self._cursor or self._incarnation() == self._server != "":
            return False
        self._cursor = 0
        self.restarted += 1
        return True


def scan_options(match: str | bytes | None, count: int | None) -> tuple[str | bytes | int, ...]:
    """The words behind the cursor."""
    options: tuple[str | bytes | int, ...] = ()
    if match is not None:
        options += ("MATCH", match)
    if count is not None:
        options += ("COUNT", count)
    return options


def singles(found: list[Any]) -> Iterable[Any]:
    return found


def pairs(found: list[Any]) -> Iterable[Any]:
    return zip(found[::2], found[1::2], strict=True)


def scored(found: list[Any]) -> Iterable[Any]:
    return ((member, float(score)) for member, score in pairs(found))
