"""What is counted is what happened."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.unit.watched import NODES, SeenClient, picture
from txharedis.downtime import Downtime
from txharedis.errors import ResponseError
from txharedis.events import (
    Event,
    FailoverEnded,
    FailoverStarted,
    HistoryDiscarded,
    LockNotGranted,
    NodeChanged,
    SubscriptionGap,
)
from txharedis.outcomes import COMMAND_RESULTS
from txharedis.tally import CommandTally, EventTally, Histogram, SplitBrains
from txharedis.topology import NodePicture, Role, Status


def test_histogram_counts_up_to_and_with_each_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.11, 1.0, 5.0):
        histogram.add(value)
    assert histogram.cumulated() == [2, 4, 5]
    assert histogram.sum == pytest.approx(6.21)


def test_commands_are_counted_when_they_end() -> None:
    clock = Clock()
    tally = CommandTally(clock.seconds)
    first, second, third = tally(("GET", "a")), tally((b"get", "b")), tally(("NO", "x"))
    assert counted(tally, "GET") == {}
    assert tuple(tally.of["GET"].results) == COMMAND_RESULTS
    clock.advance(0.2)
    first(b"1")
    clock.advance(0.3)
    second(Failure(ResponseError("ERR")))
    third(Failure(RuntimeError()))
    assert set(tally.of) == {"GET", "other"}
    assert counted(tally, "GET") == {"success": 1, "error_reply": 1}
    assert tally.of["GET"].seconds.sum == pytest.approx(0.7)
    assert counted(tally, "other") == {"other": 1}


def counted(tally: CommandTally, name: str) -> dict[str, int]:
    return {result: count for result, count in tally.of[name].results.items() if count}


def event_tally(*events: Event) -> EventTally:
    tally = EventTally(lambda: SeenClient().topology)
    for event in events:
        tally.heard(event)
    return tally


def changed(status: Status) -> NodeChanged:
    return NodeChanged(at=0.0, node=NODES[1], status=status)


def test_a_node_that_comes_up_again_reconnects() -> None:
    tally = event_tally(changed(Status.UP))
    assert set(tally.reconnects.values()) == {0}  # it was up, and is
    for status in (Status.DROPPED, Status.REFUSED, Status.UP, Status.SILENT, Status.UP):
        tally.heard(changed(status))
    assert tally.reconnects == {NODES[0]: 0, NODES[1]: 2, NODES[2]: 0}


def test_the_first_time_is_no_reconnect() -> None:
    client = SeenClient()
    client.set(picture(2, None, status=Status.DIALLING))
    tally = EventTally(lambda: client.topology)
    tally.heard(changed(Status.UP))
    assert tally.reconnects[NODES[1]] == 0
    tally.heard(changed(Status.DROPPED))
    tally.heard(changed(Status.UP))
    assert tally.reconnects[NODES[1]] == 1


def test_failovers_locks_and_gaps() -> None:
    start = FailoverStarted(at=1.0, reason="switchover from n:1 to n:2", failover_id="f")
    tally = event_tally(
        start,
        LockNotGranted(at=1.1, epoch=2, reason="n:3: taken"),
        FailoverEnded(at=1.2, master=None, epoch=1),
        start,
        FailoverEnded(at=1.5, master=NODES[1], epoch=2),
        SubscriptionGap(at=2.0, since=1.0, until=2.0),
    )
    counted = {key: count for key, count in tally.failovers.items() if count}
    assert counted == {("switchover", "yielded"): 1, ("switchover", "success"): 1}
    assert tally.failover_seconds.sum == pytest.approx(0.5)
    assert sum(tally.failover_seconds.counts) == 1  # what was yielded took no time of its own
    assert (tally.lock_failures, tally.gaps) == (1, 1)


STARTED = FailoverStarted(at=1.0, reason="MASTER n:1 is down", failover_id="f")


def ended(offset: int | None, old_offset: int | None) -> FailoverEnded:
    return FailoverEnded(
        at=1.0, master=NODES[1], epoch=2, offset=offset, old=NODES[0], old_offset=old_offset
    )


def discarded(count: int | None) -> HistoryDiscarded:
    return HistoryDiscarded(
        at=1.0, node=NODES[0], master=NODES[1], epoch=2, count=count, offset=9, parted_at=None
    )


@pytest.mark.parametrize(
    ("events", "lost"),
    [
        ([], None),
        ([STARTED, ended(90, 100)], 10),
        ([STARTED, ended(101, 100)], 0),
        ([STARTED, ended(90, None)], None),
        ([STARTED, ended(90, 100), discarded(64)], 64),
        ([STARTED, ended(90, 100), discarded(None)], 10),  # it has restarted, and cannot tell
        ([STARTED, discarded(None), ended(90, 100)], 10),
        ([STARTED, ended(90, None), discarded(None)], None),
        ([STARTED, discarded(64), ended(90, 100)], 64),  # it was back before the end
        ([STARTED, discarded(64), ended(90, 100), STARTED, ended(0, 5)], 5),
        ([STARTED, ended(90, 100), FailoverEnded(at=2.0, master=None, epoch=2)], 10),
    ],
)
def test_what_the_newest_failover_cost(events: Sequence[Event], lost: int | None) -> None:
    assert event_tally(*events).lost_bytes == lost


def master(number: int, seen_at: float, **fields: object) -> NodePicture:
    return picture(number, Role.MASTER, seen_at=seen_at, **fields)


@pytest.mark.parametrize(
    ("looks", "count"),
    [
        ([(master(1, 0.0), master(2, 0.0))], 0),  # one look says little
        ([(master(1, 0.0), master(2, 0.0))] * 9, 0),  # nor does one that is old
        ([(master(1, 0.0), master(2, 0.0)), (master(1, 1.9), master(2, 1.9))], 0),
        ([(master(1, 0.0), master(2, 0.0)), (master(1, 2.0), master(2, 2.5))], 1),
        ([(master(1, 0.0), master(2, 9.0)), (master(1, 9.5), master(2, 9.5))], 0),
        ([(master(1, 0.0), master(2, 0.0)), (master(1, 9.0), master(2, 0.0))], 0),
        ([(master(1, 0.0), master(2, 0.0)), (picture(1),), (master(1, 9.0), master(2, 9.0))], 0),
        ([(master(1, at), master(2, at)) for at in (0.0, 5.0, 10.0, 15.0)], 1),  # still the same
        (
            [
                *[(master(1, at), master(2, at)) for at in (0.0, 5.0)],
                (picture(2, seen_at=6.0),),
                *[(master(1, at), master(2, at)) for at in (10.0, 15.0)],
            ],
            2,
        ),
        # One that is in no group yet, or that is out of reach, is not a second master.
        ([(master(1, at), master(2, at, epoch=0)) for at in (0.0, 5.0)], 0),
        ([(master(1, at), master(2, at, status=Status.SILENT)) for at in (0.0, 5.0)], 0),
    ],
)
def test_two_masters(looks: Sequence[tuple[NodePicture, ...]], count: int) -> None:
    client, split_brains = SeenClient(), SplitBrains()
    for pictures in looks:
        client.set(*pictures)
        split_brains.look(client.topology)
    assert split_brains.count == count


def test_downtime_is_a_sum_with_what_is_under_way() -> None:
    clock = Clock()
    downtime = Downtime(clock)
    clock.advance(5)
    assert downtime.seconds == 0
    downtime.began()
    clock.advance(2)
    downtime.began()
    clock.advance(1)
    assert downtime.seconds == 3
    downtime.ended()
    downtime.ended()
    clock.advance(10)
    assert downtime.seconds == 3
    downtime.began()
    clock.advance(1)
    assert downtime.seconds == 4
    clock.rightNow -= 100
    assert downtime.seconds == 3  # what is over stays
