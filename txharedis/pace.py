"""Pace: timers of many clients that end together.

A server that sleeps pays several times the price of a PING for being woken up. So what has to be
done about once a second is done at the multiples of a fraction of that second: the server is woken
up for all who are due then, and so is this process.
"""

from __future__ import annotations

__all__ = ["STEPS", "in_step"]

#: A heartbeat has so many steps.
STEPS = 10


def in_step(now: float, delay: float, step: float) -> float:
    """The `delay` from `now` on, in seconds, that ends at the multiple of `step` nearest to it.

    That is at most half a step earlier or later. A delay shorter than a step stays as it is.
    """
    if delay < step:
        return delay
    return round((now + delay) / step) * step - now
