"""Handover: from one seat to another, so that each message is delivered once and in order.

PUBLISH reaches the replicas in the order of the replication stream. So a marker that is published
when the new seat has everything parts the messages of both in the same place: what comes before it
is delivered from the old seat, what comes after it from the new one.
"""

from __future__ import annotations

from collections.abc import Callable

from txharedis.interfaces import Clock, Timer
from txharedis.pubsub.seat import Seat

__all__ = ["Handover"]


class Handover:
    """One attempt. Neither seat delivers what comes after the marker until it is over.

    `number` is the marker's, None as long as the new seat is not complete, and `sent` the time at
    which it was published.
    """

    def __init__(self, clock: Clock, old: Seat, new: Seat) -> None:
        self.old = old
        self.new = new
        self.number: int | None = None
        self.sent = 0.0
        self.old_done = False
        self.new_done = False
        self._clock = clock
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Handover {self.old.address} -> {self.new.address}, marker {self.number}>"

    def watch(self, seconds: float, late: Callable[[], object]) -> None:
        """Call `late()` in so many seconds, and not when it was to be called before."""
        self.stop()
        self._timer = self._clock.callLater(seconds, late)

    def stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def saw(self, seat: Seat, number: int) -> bool:
        """A seat has shown a marker; returns whether both have shown theirs."""
        if number != self.number:
            return False
        seat.keep()
        if seat is self.old:
            self.old_done = True
        else:
            self.new_done = True
        return self.old_done and self.new_done
