"""For how long nothing could be done for a caller: a sum, with what is under way."""

from __future__ import annotations

from txharedis.interfaces import Clock

__all__ = ["Downtime"]


class Downtime:
    """`began` and `ended` may be called at any time, and more than once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sum = 0.0
        self._since: float | None = None

    def began(self) -> None:
        """Commands do not flow from here on."""
        if self._since is None:
            self._since = self._clock.seconds()

    def ended(self) -> None:
        """They flow again."""
        if self._since is not None:
            self._sum += max(0.0, self._clock.seconds() - self._since)
            self._since = None

    @property
    def seconds(self) -> float:
        """All of it until now; it never falls, even if the clock was set back."""
        since = self._since
        return self._sum + (0.0 if since is None else max(0.0, self._clock.seconds() - since))
