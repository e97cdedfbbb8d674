"""Helpers of the tests that need a reactor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from txharedis.testing.waiting import until

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
    from twisted.internet import reactor

    return await until(reactor, condition, timeout, "what was waited for", every)


@contextlib.contextmanager
def lines_logged() -> Iterator[list[str]]:
    """The lines that are logged meanwhile."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "txharedis":
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)
