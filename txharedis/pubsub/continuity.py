"""Continuity: that what is published on the master comes, and since when it may not have come.

Markers are published on the master, on a channel that only this client listens to. When one has
come back over the subscriber link, everything that was published before it has come too, since
PUBLISH reaches the replicas in the order of the replication stream. So a gap begins with the newest
marker that came back, and ends with the first one that is sent after the gap was noticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.python.failure import Failure

from txharedis.errors import LinkLost
from txharedis.interfaces import Clock
from txharedis.protocol import NodeProtocol
from txharedis.pubsub.resyncs import Standpoint, resynced
from txharedis.replies import missing_right
from txharedis.topology import parse_info

__all__ = ["Continuity"]


class Continuity:
    """The markers of one client, and the gap that is open, if any.

    `resynced(before)` is called when some replica had a full resync since that standpoint, and
    `denied(error)` when a server does not let us publish.

    `since` is the time at which everything had come; None before the first subscription.
    """

    def __init__(
        self,
        clock: Clock,
        marker: bytes,
        resynced: Callable[[Standpoint], object],
        denied: Callable[[Exception], object],
    ) -> None:
        self.marker = marker
        self.since: float | None = None
        self.gap_since: float | None = None
        self._clock = clock
        self._resynced = resynced
        self._denied = denied
        self._number = 0  # of the newest marker
        self._sent: dict[int, float] = {}  # the markers that have not come back, and when
        self._answered: set[int] = set()  # those that the master took
        self._enough = 0  # the first marker that ends the gap
        self._standpoint: Standpoint | None = None

    @property
    def begun(self) -> bool:
        """Whether it is known where the master stands."""
        return self._standpoint is not None

    def begin(self) -> None:
        """There is a first subscription: from here on everything has to come."""
        if self.since is None:
            self.since = self._clock.seconds()

    def forget(self) -> None:
        """There is no subscription any more."""
        self.since = self.gap_since = None
        self._sent.clear()
        self._answered.clear()

    # Markers.

    def send(self, link: NodeProtocol, incarnation: str, timeout: float) -> int:
        """Publish a marker over the master's control link; returns its number.

        The link is dropped when there is no answer within `timeout` seconds.
        """
        self._number += 1
        number, sent = self._number, self._clock.seconds()
        self._sent[number] = sent
        told = link.exchange(
            ["PUBLISH", self.marker, str(number)],
            ["INFO", "stats"],
            ["INFO", "replication"],
            timeout=timeout,
            or_drop=True,
        )
        told.addCallback(self._published, number, sent, incarnation)
        told.addErrback(self._unknown, number)
        return number

    def overdue(self, now: float) -> float:
        """Seconds since the oldest marker was sent that the master took and did not come back.

        0.0 for none.
        """
        return now - min(
            (at for mark, at in self._sent.items() if mark in self._answered), default=now
        )

    def came(self, number: int) -> bool:
        """A marker came over the link that counts; returns whether no gap is open any longer."""
        sent = self._sent.get(number)
        if sent is None:
            return False  # another link's, or one that nobody answered for
        if min(self._sent) < number and self.gap_since is None:
            self.open_gap()  # one was lost, and messages with it
            self._enough = number
        self.since = sent if self.since is None else max(self.since, sent)
        self._forget_until(number)
        return self.gap_since is None or number >= self._enough

    def carry_on(self, newest: int, sent: float | None = None) -> None:
        """Another link counts from here on; of the markers it will show those after `newest`.

        `sent` is when one was sent that it has shown.
        """
        self._forget_until(newest)
        if sent is not None and self.since is not None:
            self.since = max(self.since, sent)

    def _forget_until(self, newest: int) -> None:
        self._sent = {mark: at for mark, at in self._sent.items() if mark > newest}
        self._answered &= self._sent.keys()

    def restart(self, at: float) -> None:
        """Without markers: the link worked at this time, and no more is known."""
        self.since = at

    def _published(self, replies: list[object], number: int, sent: float, incarnation: str) -> None:
        reply, stats, replication = (
            parse_info(reply) if isinstance(reply, bytes) else reply for reply in replies
        )
        if isinstance(reply, Exception):
            self._sent.pop(number, None)
            if missing_right(str(reply)):
                self._denied(reply)
            return
        self._answered.add(number)
        if isinstance(stats, dict) and isinstance(replication, dict):
            before = self._standpoint
            self._standpoint = after = Standpoint.read(incarnation, sent, stats, replication)
            if before is not None and after is not None and resynced(before, after):
                self._resynced(before)

    def _unknown(self, failure: Failure, number: int) -> None:
        failure.trap(LinkLost)
        self._sent.pop(number, None)  # nobody knows whether it was published

    # The gap.

    def open_gap(self, since: float = math.inf) -> None:
        """What was published after the newest proof, or after `since`, may be missed."""
        if self.since is None:
            return  # nobody was promised anything as yet
        self.gap_since = min(self.since if self.gap_since is None else self.gap_since, since)
        self._enough = self._number + 1

    def is_enough(self, number: int) -> None:
        """This marker, though it is sent already, ends the gap."""
        self._enough = min(self._enough, number)

    def close_gap(self) -> float | None:
        """Everything comes from now on; returns when the gap began, None when there was none."""
        since, self.gap_since = self.gap_since, None
        return since
