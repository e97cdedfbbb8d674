"""What the monitor remembers: on a clock of the test, of a service of the test."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger

from tests.unit.monitored import WALL, A, B, Service
from txharedis.chronicle import KEPT, FailoverRecord
from txharedis.errors import NoMaster
from txharedis.events import (
    FailoverEnded,
    FailoverStarted,
    FailoverStep,
    HistoryDiscarded,
    MasterChanged,
    Waiting,
)
from txharedis.monitor import loglines
from txharedis.monitor.lags import Lags
from txharedis.monitor.records import History
from txharedis.monitor.watcher import SAMPLES, Watcher


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock) -> Service:
    return Service(clock)


@pytest.fixture
def watcher(clock: Clock, service: Service) -> Any:
    watcher = Watcher(clock, service, wall=lambda: WALL + clock.seconds())
    watcher.startService()
    yield watcher
    watcher.stopService()
    assert not clock.getDelayedCalls()


def pump(clock: Clock, seconds: int) -> None:
    clock.pump([1.0] * seconds)


def test_it_looks_each_second(clock: Clock, service: Service, watcher: Watcher) -> None:
    told: list[str] = []
    watcher.listen(lambda kind, _: told.append(kind))
    service.opcounter = 50
    pump(clock, 2)
    service.opcounter = 80
    pump(clock, 1)
    assert service.looks == 4
    assert told == ["cluster", "sample"] * 3
    samples = watcher.series()["samples"]
    assert [sample["writes"] for sample in samples] == [None, 50.0, 0.0, 30.0]
    assert [sample["at"] for sample in samples] == [WALL, WALL + 1, WALL + 2, WALL + 3]
    assert samples[-1] == {
        "at": WALL + 3,
        "writes": 30.0,
        "latency": 0.001,
        "lag": {"b:2": 0},
        "master": "a:1",
    }
    assert watcher.cluster["state"] == "healthy"
    assert watcher.cluster["at"] == WALL + 3


def test_its_memory_is_bounded(clock: Clock, service: Service, watcher: Watcher) -> None:
    pump(clock, 2 * SAMPLES)
    samples = watcher.series()["samples"]
    assert len(samples) == SAMPLES
    assert samples[-1]["at"] == WALL + 2 * SAMPLES
    for epoch in range(3 * KEPT):
        service.tell(MasterChanged(at=0.0, old=A, new=B, epoch=epoch))
    assert len(watcher.history()["failovers"]) == KEPT
    assert watcher.history()["failovers"][0]["epoch"] == 3 * KEPT - 1
    log = Logger(namespace="txharedis")
    for number in range(2 * loglines.KEPT):
        log.info("{number} {long}", number=number, long="x" * 10_000)
    lines = watcher.log()["lines"]
    assert len(lines) == loglines.KEPT
    assert all(len(line["text"]) == loglines.LONGEST for line in lines)
    assert lines[-1]["text"].startswith(str(2 * loglines.KEPT - 1))


def test_a_look_that_hangs_is_alone(clock: Clock, service: Service, watcher: Watcher) -> None:
    service.hanging = []
    told: list[str] = []
    watcher.listen(lambda kind, _: told.append(kind))
    pump(clock, 4)
    assert len(service.hanging) == 1
    # The page goes on meanwhile: nothing is known.
    assert told.count("cluster") == told.count("sample") == 3
    assert watcher.series()["samples"][-1]["latency"] is None
    assert not watcher.stands_still
    pump(clock, 2)
    assert len(service.hanging) == 2
    assert service.hanging[0].called
    service.hanging[1].callback({A: service.report(A)})
    service.hanging = None
    pump(clock, 1)
    assert watcher.series()["samples"][-1]["latency"] == 0.001


def test_what_raises_does_not_stop_it(clock: Clock, service: Service, watcher: Watcher) -> None:
    def broken() -> Any:
        raise RuntimeError("broken")

    service.inspect = broken  # type: ignore[method-assign]
    watcher.listen(lambda *_: 1 / 0)
    looks = service.looks
    pump(clock, 3)
    assert not watcher.stands_still
    assert any("broken" in line["text"] for line in watcher.log()["lines"])
    del service.inspect  # type: ignore[method-assign]
    pump(clock, 1)
    assert service.looks == looks + 1


def test_it_stands_still_when_its_timer_does(clock: Clock, watcher: Watcher) -> None:
    clock.rightNow += 10.5
    assert watcher.stands_still
    clock.advance(0)
    assert not watcher.stands_still


def test_a_failover_under_way_is_shown(clock: Clock, service: Service, watcher: Watcher) -> None:
    shown: list[Any] = []
    watcher.listen(lambda kind, value: kind == "cluster" and shown.append(value["failover"]))
    clock.advance(0.5)
    service.tell(FailoverStarted(at=0.5, reason="a:1 is refused", failover_id="x"))
    clock.advance(0.02)
    service.tell(FailoverStep(at=0.52, step="lock", epoch=2))
    clock.advance(0.02)
    service.tell(FailoverEnded(at=0.54, master=None, epoch=2))
    clock.advance(0.02)
    started = {"since": WALL + 0.5, "reason": "a:1 is refused", "step": "started"}
    assert shown == [started, {**started, "step": "lock"}, None]


def test_many_events_are_told_once(clock: Clock, service: Service, watcher: Watcher) -> None:
    told: list[str] = []
    watcher.listen(lambda kind, _: told.append(kind))
    for _ in range(100):
        service.tell(Waiting(at=0.0, reason="no quorum"))
    clock.advance(0.02)
    assert told == ["cluster"]


def test_a_new_master_is_shown_at_once(clock: Clock, service: Service, watcher: Watcher) -> None:
    service.master = B
    service.tell(MasterChanged(at=0.0, old=A, new=B, epoch=2))
    assert watcher.cluster["master"] == "b:2"
    roles = {node["node"]: node["role"] for node in watcher.cluster["nodes"]}
    assert roles == {"a:1": "replica", "b:2": "master"}


def test_why_there_is_no_master_is_told(clock: Clock, service: Service, watcher: Watcher) -> None:
    service.master = None
    service.tell(Waiting(at=0.0, reason="1 of 3 nodes answer"))
    clock.advance(0.02)
    assert watcher.cluster["state"] == "no master"
    assert watcher.cluster["why"][0] == "1 of 3 nodes answer"


def record(epoch: int, new: str, **more: Any) -> FailoverRecord:
    given = {"old": "a:1", "reason": "a:1 is refused", "why": "highest offset", **more}
    return FailoverRecord(epoch=epoch, at=WALL, new=new, **given)


def test_history_is_read_again_and_again(clock: Clock, service: Service, watcher: Watcher) -> None:
    told: list[Any] = []
    watcher.listen(lambda kind, value: kind == "history" and told.append(value["failovers"]))
    assert service.asked == 1
    pump(clock, 9)
    assert service.asked == 1
    pump(clock, 1)
    assert service.asked == 2
    assert told == []  # nothing is new
    # Somebody else fails over; what it writes down comes a moment later.
    service.tell(MasterChanged(at=0.0, old=A, new=B, epoch=2))
    [[observed]] = told
    assert (observed["new"], observed["seen"], observed["outage"]) == ("b:2", "observed", None)
    service.records = (record(2, "b:2", outage=0.03),)
    pump(clock, 1)
    [entry] = told[-1]
    assert (entry["seen"], entry["outage"]) == ("told by the servers", 0.03)
    assert len(told) == 2
    asked = service.asked
    pump(clock, 8)
    assert asked + 2 < service.asked < asked + 8
    service.tell(
        HistoryDiscarded(at=0.0, node=A, master=B, epoch=2, count=7, offset=9, parted_at=3)
    )
    service.records = (record(2, "b:2", outage=0.03, discarded=7),)
    pump(clock, 1)
    assert told[-1][0]["discarded"] == 7


def test_history_stays_while_there_is_nobody_to_ask(
    clock: Clock, service: Service, watcher: Watcher
) -> None:
    service.records = (record(1, "b:2"),)
    pump(clock, 10)
    service.records = NoMaster("there is no master to ask")
    pump(clock, 10)
    assert [entry["epoch"] for entry in watcher.history()["failovers"]] == [1]
    assert watcher.records() == (record(1, "b:2"),)
    assert not watcher.log()["lines"]


def test_own_failovers_are_known_in_full() -> None:
    history = History()
    history.changed(MasterChanged(at=0.0, old=A, new=B, epoch=2), WALL)
    history.ended(
        FailoverEnded(
            at=0.0, master=B, epoch=2, reason="a:1 is refused", why="it is", outage=0.5, old=A
        ),
        WALL,
    )
    [entry] = history.as_dict()["failovers"]
    assert (entry["reason"], entry["outage"], entry["seen"]) == ("a:1 is refused", 0.5, "observed")
    # The servers' word counts, also when it comes first.
    assert history.told([record(2, "b:2")])
    history.changed(MasterChanged(at=0.0, old=A, new=B, epoch=2), WALL)
    assert len(history.as_dict()["failovers"]) == 1
    assert not history.told([record(2, "b:2")])


def test_a_first_master_is_no_failover() -> None:
    history = History()
    history.changed(MasterChanged(at=0.0, old=None, new=B, epoch=2), WALL)
    assert history.as_dict() == {"failovers": []}


@pytest.mark.parametrize(
    ("master", "replica", "lags"),
    [
        ([10, 20, 30], [10, 20, 30], [0.0, 0.0, 0.0]),
        ([10, 20, 30], [10, 10, 10], [0.0, 0.0, 1.0]),  # it was level at 0 s, passed at 1 s
        ([10, 20, 30, 40], [10, 10, 20, 40], [0.0, 0.0, 0.0, 0.0]),
        ([10, 20, 30, 40], [10, 10, 10, 30], [0.0, 0.0, 1.0, 0.0]),
        ([10, 10, 10], [5, 5, 5], [0.0, 1.0, 2.0]),  # since when is not known: since it was seen
        ([10, 10, 10, 10], [5, 5, 7, 10], [0.0, 1.0, 2.0, 0.0]),
        ([10, 20, 5, 6], [10, 20, 5, 5], [0.0, 0.0, 0.0, 0.0]),  # it has begun anew
    ],
)
def test_lag_counts_from_when_the_master_passed(
    master: list[int], replica: list[int], lags: list[float]
) -> None:
    clock = Clock()
    service = Service(clock)
    known = Lags()
    found = []
    for ours, theirs in zip(master, replica, strict=True):
        service.offsets = {A: ours, B: theirs}
        reports = {node: service.report(node) for node in (A, B)}
        found.append(known.note(clock.seconds(), A, reports)[B])
        clock.advance(1)
    assert found == lags


def test_lag_is_remembered_beyond_the_samples() -> None:
    clock, known = Clock(), Lags()
    service = Service(clock)
    for second in range(2000):
        service.offsets = {A: 100 + second, B: 100}
        lag = known.note(clock.seconds(), A, {node: service.report(node) for node in (A, B)})[B]
        clock.advance(1)
    assert lag == 1998.0


def test_another_history_has_no_lag() -> None:
    clock = Clock()
    service = Service(clock)
    master = service.report(A)
    service.replid = "0" * 40
    assert Lags().note(0.0, A, {A: master, B: service.report(B)}) == {}
    assert Lags().note(0.0, None, {A: master}) == {}
    assert Lags().note(0.0, A, {}) == {}


def test_lines_have_no_control_characters(watcher: Watcher) -> None:
    told: list[Any] = []
    watcher.listen(lambda kind, value: kind == "line" and told.append(value))
    Logger(namespace="txharedis").warn("{what}", what="a\x1b[31m\nb")
    Logger(namespace="txharedis").error("bad")
    Logger(namespace="elsewhere").info("not ours")
    assert [(line["level"], line["text"]) for line in told] == [
        ("warn", "a [31m b"),
        ("error", "bad"),
    ]
    assert watcher.log()["lines"] == told
