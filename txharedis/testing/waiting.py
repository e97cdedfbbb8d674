"""Waiting for what servers and clients are to become, never longer than a given time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import hiredis
from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import deferLater

__all__ = ["NotInTime", "all_of", "until"]

_NOT_YET = (ConnectError, ConnectionClosed, TimeoutError, hiredis.ReplyError)


class NotInTime(AssertionError):
    """Something did not happen within the time that it was given; the text names it."""


async def until(
    clock: Any, condition: Callable[[], Any], timeout: float, what: str, every: float = 0.02
) -> Any:
    """Return the first true value of `condition`, asked every `every` seconds.

    It may be a coroutine function, and may raise what a server that is down or refuses raises.
    Raises NotInTime, with `what` and the last value, after `timeout` seconds.
    """
    deadline = clock.seconds() + timeout
    while True:
        try:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
        except _NOT_YET as error:
            value = error
        if clock.seconds() > deadline:
            raise NotInTime(f"not within {timeout} s: {what} (last: {value!r})")
        await deferLater(clock, every)


async def all_of(coroutines: Iterable[Any]) -> list[Any]:
    """Await all of them, side by side; raise the first error, when all have ended."""
    outcomes = await DeferredList(
        [Deferred.fromCoroutine(each) for each in coroutines], consumeErrors=True
    )
    for succeeded, result in outcomes:
        if not succeeded:
            result.raiseException()
    return [result for _, result in outcomes]
