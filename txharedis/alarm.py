"""Alarm: sleep for a time, or until somebody has news."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from txharedis.interfaces import Clock

__all__ = ["Alarm"]


class Alarm:
    """Wakes one sleeper. News that comes while nobody sleeps is kept for the next sleep."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sleeper: Deferred[None] | None = None
        self.news = False

    def wake(self) -> None:
        """There is news."""
        self.news = True
        if self._sleeper is not None:
            sleeper, self._sleeper = self._sleeper, None
            sleeper.callback(None)

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, or at once when there is news."""
        if self.news:
            return
        self._sleeper = Deferred()
        timer = self._clock.callLater(seconds, self.wake)
        try:
            await self._sleeper
        finally:
            self._sleeper = None
            if timer.active():
                timer.cancel()
