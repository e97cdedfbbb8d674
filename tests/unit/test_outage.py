"""An hour without a master: the bounds hold, memory stays flat, and every Deferred fires."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from typing import Any

import pytest
from twisted.python.failure import Failure

from tests.unit.fakes import FakeReactor
from txharedis.failover import FailoverService

RATE = 10_000  # commands a second
TURNS = 100  # a second
HOUR = 3600
EVERY = 240  # seconds from the beginning of one burst to the next
BURST = 1  # seconds
WARM = 4  # bursts, after which nothing may grow any more


class Outage:
    """A client whose servers all refuse to be dialled, and what became of its commands."""

    def __init__(self, **options: Any) -> None:
        self.reactor = FakeReactor()
        self.service = FailoverService(["n:1", "n:2", "n:3"], self.reactor, **options)
        self.service.startService()
        self.pending = self.service._traffic.pending
        self.given = 0
        self.outcomes: Counter[str] = Counter()
        self.most = (0, 0)
        self.longest = 0.0

    def pass_time(self, seconds: float) -> None:
        self.reactor.advance(seconds)
        for dial in self.reactor.dials:
            dial.refuse()
        self.reactor.dials.clear()

    def burst(self) -> None:
        """The full rate, in turns; a fifth of it reads."""
        client = self.service.client
        for _ in range(BURST * TURNS):
            for number in range(RATE // TURNS):
                self.given += 1
                reply = client.get("key") if number % 5 == 0 else client.incr("key")
                reply.addBoth(self._fired, self.reactor.seconds())
            self.most = max(self.most, (self.pending._count, self.pending._bytes))
            self.pass_time(1 / TURNS)

    def _fired(self, outcome: Any, since: float) -> None:
        assert isinstance(outcome, Failure)
        assert outcome.value.executed is False
        self.outcomes[type(outcome.value).__name__] += 1
        self.longest = max(self.longest, self.reactor.seconds() - since)


@pytest.mark.parametrize(
    ("options", "waiting", "size"),
    [
        pytest.param({"max_pending": 5_000}, 5_000, None, id="max_pending"),
        pytest.param({"max_pending_bytes": 100_000}, None, 100_000, id="max_pending_bytes"),
        pytest.param({"command_timeout": 0.25}, 2_600, None, id="command_timeout"),
        pytest.param(
            {"max_pending": 5_000, "command_timeout": 150.0}, 5_000, None, id="both"
        ),
    ],
)  # fmt: skip
def test_an_hour_without_a_master(
    options: dict[str, Any], waiting: int | None, size: int | None
) -> None:
    """One hour on the clock, and one second of every four minutes at 10 000 commands a second.

    That is 15 bursts, 150 000 commands of the 36 million, for these take minutes: in between time
    passes, so that what waits runs out of it, and links are dialled as in an hour at the full rate.
    A queue is full after half a second: every further command meets the same.
    """
    outage = Outage(**options)
    blocks = []
    for burst in range(HOUR // EVERY):
        outage.burst()
        for _ in range(EVERY - BURST):
            outage.pass_time(1.0)
        if burst >= WARM:
            gc.collect()
            blocks.append((sys.getallocatedblocks(), outage.pending._count))
    assert outage.reactor.seconds() == pytest.approx(HOUR)
    assert outage.given == RATE * BURST * HOUR // EVERY
    assert outage.most[0] <= (waiting or outage.given)
    assert outage.most[1] <= (size or 10**9)
    if waiting is not None:
        assert outage.most[0] > waiting * 0.9, "the bound was reached"
    if size is not None:
        assert outage.most[1] > size * 0.9
    if "command_timeout" in options:
        assert outage.longest <= options["command_timeout"] + 1.0
    fired = sum(outage.outcomes.values())
    assert fired + len(outage.pending) == outage.given
    assert len({count for _, count in blocks}) == 1, "the same state each time"
    least, most = min(blocks)[0], max(blocks)[0]
    assert most - least < 0.002 * least, f"memory grows: {blocks}"
    outage.service.stopService()
    outage.pass_time(1.0)
    assert sum(outage.outcomes.values()) == outage.given, "each Deferred has fired"
    assert set(outage.outcomes) <= {"QueueFull", "NoMaster", "ServiceStopped"}
    assert (outage.pending._count, outage.pending._bytes) == (0, 0)
    assert outage.reactor.getDelayedCalls() == []
