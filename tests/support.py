"""Helpers of the tests that need a reactor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import hiredis
from twisted.internet.defer import TimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import deferLater

NOT_YET = (ConnectError, ConnectionClosed, TimeoutError, hiredis.ReplyError)
"""What a condition may raise while it does not hold: a server that is down, or refuses."""


PATIENCE = 60.0
"""Seconds after which what has not happened never will, however busy the machine is. It is no claim
of how long anything may take."""


async def eventually(
    condition: Callable[[], Any], timeout: float = PATIENCE, *, every: float = 0.01
) -> Any:
    """Return the first true value of `condition`, asking every `every` seconds.

    `condition` may be a coroutine function. Raises AssertionError with its last value if none
    was true within `timeout` seconds.
    """
    from twisted.internet import reactor as running

    reactor: Any = running
    deadline = reactor.seconds() + timeout
    while True:
        try:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
        except NOT_YET as error:
            value = error
        if reactor.seconds() > deadline:
            raise AssertionError(f"not within {timeout} s; the last value was {value!r}")
        await deferLater(reactor, every)
