"""Crowd: what a client does more slowly the more others do the same.

They all notice the same at the same time, and the servers have to answer all of them while one does
what is to be done. How many there are is only known from who hears gossip, and some of those may be
dead, or may not elect. So each of these waits is bounded as if nobody else were there.
"""

from __future__ import annotations

import math
import random

from txharedis.interfaces import Clock

__all__ = ["Crowd"]

#: Seconds to hold back for each client that notices the same, and at most.
_STAGGER, _LONGEST_STAGGER = 0.001, 0.1
#: Seconds after which a timer is late.
_LATE = 0.005
#: So many clients are no crowd; and how many times longer each of a crowd waits at most.
_FEW, _LARGEST = 20, 10.0


class Crowd:
    """The clients of a group, as one of them sees them; `lock_time` is that of the options."""

    def __init__(self, clock: Clock, lock_time: float) -> None:
        self._clock = clock
        self._lock_time = lock_time
        self._locked_since = -math.inf
        self._hinted_at = -math.inf
        self.size = 1  # clients that hear gossip, this one among them

    def stagger(self) -> float:
        """Seconds to hold back before the first look.

        The more clients notice it, the more the first of them gains when the others hold back; they
        hear its gossip meanwhile.
        """
        if self.hinted:
            return 0.0
        return random.uniform(0.0, min(_LONGEST_STAGGER, _STAGGER * (self.size - 1)))

    def again(self, late: float) -> float:
        """Seconds to hold back once more, after a timer that was so many seconds late.

        The timers of all are late where the machine is busy: they wake up together.
        """
        if late < _LATE or self.hinted:
            return 0.0
        return random.uniform(0.0, min(_LONGEST_STAGGER, late))

    def between(self, low: float, high: float) -> float:
        """Seconds to wait for what one of all clients does: at random between these, or longer."""
        return random.uniform(low, high * min(max(1.0, self.size / _FEW), _LARGEST))

    def while_locked(self) -> float:
        """Seconds until the next look, while somebody has the lock: not beyond its life."""
        now = self._clock.seconds()
        if now - self._locked_since >= self._lock_time:
            self._locked_since = now  # it is another one
        left = self._locked_since + self._lock_time - now
        return min(self.between(0.03, 0.12), left + random.uniform(0.0, 0.03))

    def hint(self) -> None:
        """Gossip was heard: somebody has done something."""
        self._hinted_at = self._clock.seconds()

    def forget_hint(self) -> None:
        """What is heard from here on counts."""
        self._hinted_at = -math.inf

    @property
    def hinted(self) -> bool:
        """Whether gossip was heard lately: within the life of a lock."""
        return self._clock.seconds() - self._hinted_at < self._lock_time
