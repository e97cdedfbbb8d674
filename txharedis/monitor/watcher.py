"""Looks at the group once a second, and remembers what a page wants to show of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txharedis._version import __version__
from txharedis.chronicle import FailoverRecord
from txharedis.client import HAClient
from txharedis.errors import HARedisError
from txharedis.events import (
    Event,
    FailoverEnded,
    FailoverStarted,
    FailoverStep,
    HistoryDiscarded,
    MasterChanged,
    Refused,
    Waiting,
)
from txharedis.inspection import NodeReport
from txharedis.interfaces import Clock, Timer
from txharedis.log import ClientLog
from txharedis.monitor.cluster import cluster_state
from txharedis.monitor.lags import Lags
from txharedis.monitor.loglines import LogLines
from txharedis.monitor.records import History
from txharedis.options import Options
from txharedis.topology import Address, Status, Topology

__all__ = ["PERIOD", "SAMPLES", "Listener", "Watched", "Watcher"]

PERIOD = 1.0
"""Seconds between two looks."""

SAMPLES = 300
"""How many looks the series keep."""

_PATIENCE = 5.0  # seconds for one look, or one question for the history
_HISTORY_EVERY = 10.0
_HISTORY_EAGER = 5.0  # seconds after a change: whoever did it writes it down a moment later
_SOON = 0.02  # seconds: what happens at one time is told once
_STANDS_STILL = 10.0

Listener = Callable[[str, dict[str, Any]], object]
"""Called with what is new: "cluster", "sample", "history" or "line", and its value."""


class Watched(Protocol):
    """What is watched: a FailoverService."""

    options: Options
    client: HAClient

    @property
    def phase(self) -> Any: ...

    @property
    def topology(self) -> Topology: ...

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]: ...

    def inspect(self) -> Deferred[dict[Address, NodeReport]]: ...

    def history(self) -> Deferred[Any]: ...


class Watcher(Service):
    """Watches a FailoverService, from startService to stopService.

    `cluster` is its newest state, as `GET /cluster` gives it, and `reports` the newest word of each
    node that answered. `wall` gives the time in seconds since 1970.
    """

    def __init__(
        self, clock: Clock, watched: Watched, *, wall: Callable[[], float] = time.time
    ) -> None:
        self.watched = watched
        self._clock = clock
        self._wall = wall
        self._log = ClientLog()
        self._lags = Lags()
        self._history = History()
        self._lines = LogLines(lambda line: self._tell("line", line))
        self._listeners: list[Listener] = []
        self._samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES)
        self._counted: tuple[float, int] | None = None  # when, and the opcounter
        self._failover: dict[str, Any] | None = None
        self._reason = ""  # why there is no master
        self._seconds_behind: dict[Address, float] = {}
        self.reports: Mapping[Address, NodeReport] = {}
        self._asked: Collection[Address] = ()  # for these reports
        self._up: Collection[Address] = ()  # those that the present look asks
        self._looking: Deferred[None] | None = None
        self._looking_since = 0.0
        self._asking: Deferred[None] | None = None
        self._asking_since = 0.0
        self._asked_at = -_HISTORY_EVERY
        self._eager_until = 0.0
        self._ticked = clock.seconds()
        self._timer: Timer | None = None
        self._soon: Timer | None = None
        self._unlisten: Callable[[], None] | None = None
        self.cluster = self._state()

    # What can be seen.

    def history(self) -> dict[str, Any]:
        """The failovers, as `GET /history` gives them."""
        return self._history.as_dict()

    def records(self) -> tuple[FailoverRecord, ...]:
        """The same, newest first."""
        return self._history.records()

    @property
    def lag_seconds(self) -> Mapping[Address, float]:
        """How far each replica is behind, where that is known."""
        return self._seconds_behind

    def series(self) -> dict[str, Any]:
        """The newest samples, as `GET /series` gives them."""
        return {"period": PERIOD, "samples": list(self._samples)}

    def log(self) -> dict[str, Any]:
        """The newest lines of the log, as `GET /log` gives them."""
        return self._lines.as_dict()

    @property
    def stands_still(self) -> bool:
        """Whether the timer of a running watcher has not run for ten seconds."""
        return not self.running or self._now - self._ticked > _STANDS_STILL

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(kind, value)` with all that is new; what is returned ends that."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    # The Service.

    def startService(self) -> None:
        super().startService()
        self._unlisten = self.watched.listen(self._heard)
        self._lines.start()
        self._tick()

    def stopService(self) -> None:
        super().stopService()
        if self._unlisten is not None:
            self._unlisten()
            self._lines.stop()
        for timer in (self._timer, self._soon):
            if timer is not None and timer.active():
                timer.cancel()
        for asked in (self._looking, self._asking):
            if asked is not None:
                asked.cancel()

    # Once a second.

    def _tick(self) -> None:
        self._timer = self._clock.callLater(PERIOD, self._tick)
        self._ticked = self._now
        try:
            self._look(sampled=True)
            self._ask_for_history()
        except Exception:
            self._log.failure("the monitor cannot look")

    def _look(self, *, sampled: bool) -> None:
        if self._looking is not None:
            self._settle({}, sampled=sampled)
            if self._now - self._looking_since < _PATIENCE:
                return
            self._looking.cancel()
        self._looking_since = self._now
        nodes = self.watched.topology.nodes
        self._up = [node.address for node in nodes if node.status is Status.UP]
        looking = self._looking = Deferred.fromCoroutine(self._inspect(sampled))
        looking.addErrback(self._failed, "the monitor cannot look")
        looking.addBoth(self._looked, looking)

    async def _inspect(self, sampled: bool) -> None:
        self._settle(await self.watched.inspect(), sampled=sampled)

    def _looked(self, _: object, looking: Deferred[None]) -> None:
        if self._looking is looking:
            self._looking = None

    def _settle(self, reports: Mapping[Address, NodeReport], *, sampled: bool) -> None:
        """One look is over: `reports` is what was answered."""
        self.reports, self._asked = reports, self._up
        master = self.watched.topology.master
        at = max((report.at for report in reports.values()), default=self._now)
        self._seconds_behind = self._lags.note(at, master, reports)
        self._show()
        if sampled:
            self._sample(master)

    def _sample(self, master: Address | None) -> None:
        said = None if master is None else self.reports.get(master)
        sample = {
            "at": self.cluster["at"],
            "writes": self._writes(said),
            "latency": None if said is None else said.took,
            "lag": {
                node["node"]: node["lag_bytes"]
                for node in self.cluster["nodes"]
                if node["node"] != self.cluster["master"]
            },
            "master": self.cluster["master"],
        }
        self._samples.append(sample)
        self._tell("sample", sample)

    def _writes(self, said: NodeReport | None) -> float | None:
        """The writes in a second since the last look."""
        before, self._counted = self._counted, None
        if said is None or said.opcounter is None:
            return None
        self._counted = (said.at, said.opcounter)
        if before is None or said.at <= before[0] or said.opcounter < before[1]:
            return None
        return round((said.opcounter - before[1]) / (said.at - before[0]), 3)

    def _ask_for_history(self) -> None:
        if self._asking is not None:
            if self._now - self._asking_since < _PATIENCE:
                return
            self._asking.cancel()
        if self._now < self._asked_at + _HISTORY_EVERY and self._now > self._eager_until:
            return
        self._asking_since = self._now
        asking = self._asking = Deferred.fromCoroutine(self._read_history())
        asking.addErrback(self._failed, "the monitor cannot read the history")
        asking.addBoth(self._read, asking)

    async def _read_history(self) -> None:
        try:
            records = await self.watched.history()
        except HARedisError:
            return  # there is no master to ask, or it does not answer: what is known stays
        self._asked_at = self._now
        if self._history.told(records):
            self._tell("history", self.history())

    def _read(self, _: object, asking: Deferred[None]) -> None:
        if self._asking is asking:
            self._asking = None

    def _failed(self, failure: Failure, text: str) -> None:
        if self.running and not isinstance(failure.value, HARedisError):
            self._log.warn(
                "{what}: {error}",
                what=text,
                error=repr(failure.value),
            )

    # What happens.

    def _heard(self, event: Event) -> None:
        now = self._wall()
        match event:
            case FailoverStarted():
                self._failover = {"since": now, "reason": event.reason, "step": "started"}
            case FailoverStep() if self._failover is not None:
                self._failover = {**self._failover, "step": event.step}
            case FailoverEnded():
                self._failover = None
                if event.master is not None:
                    self._history.ended(event, now)
                    self._news_of_history()
            case MasterChanged():
                self._reason = ""
                self._history.changed(event, now)
                self._news_of_history()
                self.reports, self._asked = {}, ()  # what they said of their roles is over
                self._show_at_once()
                return
            case HistoryDiscarded():
                self._news_of_history()
            case Waiting() | Refused():
                self._reason = event.reason
        if self._soon is None or not self._soon.active():
            self._soon = self._clock.callLater(_SOON, self._show_at_once)

    def _news_of_history(self) -> None:
        self._eager_until = self._now + _HISTORY_EAGER
        self._tell("history", self.history())

    def _show_at_once(self) -> None:
        try:
            self._show()
            if self._now <= self._eager_until:
                if self._looking is None:
                    self._look(sampled=False)
                self._ask_for_history()
        except Exception:
            self._log.failure("the monitor cannot look")

    def _show(self) -> None:
        self.cluster = self._state()
        self._tell("cluster", self.cluster)

    def _state(self) -> dict[str, Any]:
        return cluster_state(
            self.watched.topology,
            self.reports,
            phase=self.watched.phase.value,
            elects=self.watched.options.elect,
            version=__version__,
            at=round(self._wall(), 3),
            asked=self._asked,
            lag_seconds=self._seconds_behind,
            failover=self._failover,
            reason=self._reason,
            db_num=self.watched.options.haredis_db_num,
        )

    def _tell(self, kind: str, value: dict[str, Any]) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(kind, value)
            except Exception:
                self._log.failure("a listener to the monitor failed")

    @property
    def _now(self) -> float:
        return self._clock.seconds()
