"""What one client's commands and events come to, counted.

All of it is written by the reactor's thread alone, but for SplitBrains. Others may read: what they
see is at most a command behind itself.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate

from txharedis.events import (
    Event,
    FailoverEnded,
    FailoverStarted,
    HistoryDiscarded,
    LockNotGranted,
    NodeChanged,
    SubscriptionGap,
)
from txharedis.interfaces import Args
from txharedis.outcomes import (
    COMMAND_RESULTS,
    FAILOVER_REASONS,
    FAILOVER_RESULTS,
    SUCCESS,
    Attempts,
    command_name,
    result_of,
)
from txharedis.topology import Address, Role, Status, Topology

__all__ = ["CommandTally", "EventTally", "Histogram", "SplitBrains"]

#: Upper bounds in seconds.
OF_COMMANDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
OF_FAILOVERS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """How many values there were up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: beyond all bounds
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulated(self) -> list[int]:
        """For each bound how many values did not exceed it; last, how many there are."""
        return list(accumulate(self.counts))


class _Command:
    """The figures of one command."""

    __slots__ = ("results", "seconds")

    def __init__(self) -> None:
        # All from the start: a rate cannot see how a series begins.
        self.results = dict.fromkeys(COMMAND_RESULTS, 0)
        self.seconds = Histogram(OF_COMMANDS)


class CommandTally:
    """Counts and times commands, by their names in the table of commands; an observer of them."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.of: dict[str, _Command] = {}

    def __call__(self, args: Args) -> Callable[[object], None]:
        """A command was given; what this returns is called with its outcome."""
        name = command_name(args)
        record = self.of.get(name)
        if record is None:
            record = self.of[name] = _Command()
        clock = self._clock
        began = clock()

        def ended(outcome: object) -> None:
            record.seconds.add(clock() - began)
            record.results[result_of(outcome)] += 1

        return ended


class EventTally:
    """Counts what a client's events tell; `heard` is a listener to them.

    `lost_bytes` is what the newest failover is known to have cost: at its end the difference of
    the two offsets in FailoverEnded; what the old master had to discard, when it came back and
    could tell. None while nothing is known.
    """

    def __init__(self, topology: Callable[[], Topology]) -> None:
        nodes = topology().nodes
        self._attempts = Attempts(topology)
        self._status = {node.address: node.status for node in nodes}
        self._was_up = {node.address for node in nodes if node.status is Status.UP}
        self.reconnects: dict[Address, int] = dict.fromkeys(self._status, 0)
        self.failovers = {
            (reason, result): 0 for reason in FAILOVER_REASONS for result in FAILOVER_RESULTS
        }
        self.failover_seconds = Histogram(OF_FAILOVERS)
        self.lost_bytes: int | None = None
        self._came_back: dict[Address, int] = {}  # since the newest failover began
        self.lock_failures = 0
        self.gaps = 0

    def heard(self, event: Event) -> None:
        """Count it."""
        attempt = self._attempts.heard(event)
        if attempt is not None:
            self.failovers[attempt.reason, attempt.result] += 1
            if attempt.result == SUCCESS and attempt.took is not None:
                self.failover_seconds.add(attempt.took)
        match event:
            case NodeChanged():
                self._changed(event.node, event.status)
            case LockNotGranted():
                self.lock_failures += 1
            case SubscriptionGap():
                self.gaps += 1
            case FailoverStarted():
                self._came_back.clear()
            case FailoverEnded() if event.master is not None:
                if event.old is not None and event.old in self._came_back:
                    self.lost_bytes = self._came_back[event.old]
                else:
                    self.lost_bytes = lost_between(event.old_offset, event.offset)
            case HistoryDiscarded() if event.count is not None:
                self.lost_bytes = self._came_back[event.node] = event.count

    def _changed(self, node: Address, status: Status) -> None:
        before, self._status[node] = self._status.get(node), status
        if status is Status.UP and before is not status:
            if node in self._was_up:
                self.reconnects[node] += 1
            self._was_up.add(node)


def lost_between(old_offset: int | None, offset: int | None) -> int | None:
    """What is known to be lost while the old master has not come back."""
    return None if old_offset is None or offset is None else max(0, old_offset - offset)


class SplitBrains:
    """Counts how often two nodes of the group were masters at once, for longer than `MOMENT`.

    A node is one when it is up, says that it is a master, and carries the epoch of a group. An old
    master that comes back is one too, until a client has made it a replica; so they count only when
    each of them was seen to be a master again, at least MOMENT after both were. Any thread may
    look.
    """

    #: In seconds.
    MOMENT = 2.0

    def __init__(self) -> None:
        self.count = 0
        self._since: float | None = None  # two masters were seen first
        self._told = False  # these two were counted
        self._lock = threading.Lock()

    def look(self, topology: Topology) -> None:
        with self._lock:
            self._look(topology)

    def _look(self, topology: Topology) -> None:
        seen = sorted(
            node.seen_at
            for node in topology.nodes
            if node.role is Role.MASTER
            and node.status is Status.UP
            and node.epoch > 0
            and node.seen_at is not None
        )
        if len(seen) < 2:
            self._since = None
            self._told = False
            return
        if self._since is None:
            self._since = seen[-1]
        elif not self._told and seen[-2] - self._since >= self.MOMENT:
            self.count += 1
            self._told = True
