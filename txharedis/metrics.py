"""Figures of a client for Prometheus: the group as it sees it, its failovers, and its commands.

    from txharedis import metrics
    figures = metrics.register(client)

It needs prometheus_client: pip install "txharedis[prometheus]". docs/monitor.md has the table of
all metrics.
"""

from __future__ import annotations

import math
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

from txharedis._version import __version__
from txharedis.chronicle import FailoverRecord
from txharedis.client import HAClient
from txharedis.errors import InvalidOption
from txharedis.tally import CommandTally, EventTally, Histogram, SplitBrains, lost_between
from txharedis.topology import Address, Role, Status

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        'txharedis.metrics needs prometheus_client: pip install "txharedis[prometheus]"'
    ) from error

__all__ = ["METRICS", "ClientMetrics", "register"]

#: The type and the meaning of each metric, by its name.
METRICS: dict[str, tuple[str, str]] = {
    "haredis_build_info": ("info", "Version of txharedis and of Python; always 1."),
    "haredis_node_up": ("gauge", "1 when the client can ask the node, 0 otherwise."),
    "haredis_node_info": ("info", "Version of the node's server, empty while unknown; always 1."),
    "haredis_node_role": ("gauge", "1 for the role that the node has, 0 for the others."),
    "haredis_masters": ("gauge", "Nodes that are up and say that they are a master."),
    "haredis_quorum_ok": ("gauge", "1 when a quorum of the nodes is up, 0 otherwise."),
    "haredis_replication_lag_bytes": (
        "gauge",
        "Bytes of the replication stream that the replica had not received.",
    ),
    "haredis_replication_lag_seconds": ("gauge", "Seconds that the replica's data are behind."),
    "haredis_replication_offset_bytes": ("gauge", "Replication offset of the node."),
    "haredis_failovers_total": ("counter", "Failovers and switchovers that this client tried."),
    "haredis_failover_duration_seconds": (
        "histogram",
        "Duration of the failovers and switchovers in which this client promoted a node.",
    ),
    "haredis_unavailable_seconds_total": (
        "counter",
        "Seconds in which the client could send commands to no master.",
    ),
    "haredis_last_failover_lost_bytes": (
        "gauge",
        "Bytes of its history that the newest failover's old master had for itself alone.",
    ),
    "haredis_election_lock_failures_total": (
        "counter",
        "Attempts to take the failover lock that a quorum did not grant.",
    ),
    "haredis_split_brain_total": (
        "counter",
        "Times that two nodes of the group were seen to be masters at once.",
    ),
    "haredis_commands_total": ("counter", "Commands that have ended."),
    "haredis_command_duration_seconds": (
        "histogram",
        "Seconds from a command's call to its end, with all waiting and redispatching.",
    ),
    "haredis_queued_commands": ("gauge", "Commands that wait or are unanswered."),
    "haredis_queued_bytes": ("gauge", "Bytes of the commands that wait or are unanswered."),
    "haredis_redispatched_commands_total": (
        "counter",
        "Commands that went back into the queue for another master or link.",
    ),
    "haredis_reconnects_total": ("counter", "Times that the node came up again."),
    "haredis_pubsub_gaps_total": (
        "counter",
        "Times that messages of the subscribed channels may have been missed.",
    ),
}

_MOST_OF_A_VERSION = 32  # characters
_MOST_OF_A_NAME = 100

Sample: TypeAlias = tuple[str, dict[str, str], float | Histogram]


def register(
    client: HAClient,
    registry: CollectorRegistry = REGISTRY,
    *,
    name: str | None = None,
    lag_seconds: Callable[[], Mapping[Address, float]] | None = None,
    history: Callable[[], Sequence[FailoverRecord]] | None = None,
) -> ClientMetrics:
    """Let the registry tell the figures of this client, from now on.

    `name` becomes the label `client` of all its metrics; several clients in one registry need a
    name each, of which one may be None (no such label). They count from here on, and what the
    client's views do is counted with it.

    `lag_seconds` gives, at each scrape, for how many seconds the data of each replica are behind:
    that is more than a client knows, so without it there is no haredis_replication_lag_seconds.
    `history` gives the newest failovers, newest first, as `client.history()` does: with it
    haredis_last_failover_lost_bytes is that of the newest failover of the group, whoever did it;
    without it, of the newest in which this client had a part. Both are called in the thread that
    scrapes; what they raise fails the scrape.

    Raises InvalidOption for a name that is in use in the registry, or is no text of 1 to 100
    characters; and prometheus_client's ValueError when somebody else has metrics of our names.
    """
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= _MOST_OF_A_NAME):
        raise InvalidOption(f"name={name!r} is not a text of 1 to {_MOST_OF_A_NAME} characters")
    with _lock:
        exposition = _expositions.get(registry) or _Exposition()
        if name in exposition.members:
            raise InvalidOption(
                f"name={name!r}: a client of this name is in the registry already; "
                "give each client a name of its own"
            )
        figures = ClientMetrics(client, registry, name, lag_seconds, history)
        if not exposition.members:
            try:
                registry.register(exposition)
            except ValueError:
                figures._stop()
                raise
            _expositions[registry] = exposition
        exposition.members[name] = figures._samples
    return figures


class ClientMetrics:
    """The figures of one client; `name` is its label, None for none."""

    def __init__(
        self,
        client: HAClient,
        registry: CollectorRegistry,
        name: str | None,
        lag_seconds: Callable[[], Mapping[Address, float]] | None,
        history: Callable[[], Sequence[FailoverRecord]] | None,
    ) -> None:
        self.name = name
        self._registry = registry
        self._commands = CommandTally()
        self._events = EventTally(lambda: client.topology)
        self._split_brains = split_brains = SplitBrains()
        self._client = client
        self._stops = [
            client.watch_commands(self._commands),
            client.listen(self._events.heard),
            client.listen(lambda _: split_brains.look(client.topology)),
        ]
        samples = _Samples(client, self._commands, self._events, split_brains, lag_seconds, history)
        labels = {} if name is None else {"client": name}

        def told() -> Iterator[Sample]:
            for metric, more, value in samples.all():
                yield metric, {**labels, **more}, value

        # Not a method: what the registry holds must not hold the registry.
        self._samples: Callable[[], Iterator[Sample]] = told

    def look(self) -> None:
        """Look now whether there are two masters.

        Events and scrapes do; who polls may do so more often. See haredis_split_brain_total.
        """
        self._split_brains.look(self._client.topology)

    def unregister(self) -> None:
        """Count no more, and take the figures out of the registry; again, it does nothing."""
        with _lock:
            exposition = _expositions.get(self._registry)
            if exposition is None or exposition.members.get(self.name) is not self._samples:
                return
            del exposition.members[self.name]
            if not exposition.members:
                del _expositions[self._registry]
                self._registry.unregister(exposition)
        self._stop()

    def _stop(self) -> None:
        for stop in self._stops:
            stop()


class _Exposition(Collector):
    """All clients of one registry, together: each metric may be there only once."""

    def __init__(self) -> None:
        self.members: dict[str | None, Callable[[], Iterator[Sample]]] = {}

    def describe(self) -> list[Metric]:
        return list(self._metrics().values())

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics()
        build = {"version": __version__, "python": platform.python_version()}
        metrics["haredis_build_info"].add_sample("haredis_build_info", build, 1)
        for told in list(self.members.values()):
            for name, labels, value in told():
                if isinstance(value, Histogram):
                    _add_histogram(metrics[name], labels, value)
                else:
                    metrics[name].add_sample(name, labels, value)
        return (metric for metric in metrics.values() if metric.samples)

    def _metrics(self) -> dict[str, Metric]:
        return {
            name: Metric(name.removesuffix("_total").removesuffix("_info"), text, kind)
            for name, (kind, text) in METRICS.items()
        }


_lock = threading.Lock()
_expositions: WeakKeyDictionary[CollectorRegistry, _Exposition] = WeakKeyDictionary()


def _add_histogram(metric: Metric, labels: dict[str, str], histogram: Histogram) -> None:
    counts = histogram.cumulated()
    for bound, count in zip((*histogram.bounds, math.inf), counts, strict=True):
        le = {**labels, "le": "+Inf" if math.isinf(bound) else repr(bound)}
        metric.add_sample(f"{metric.name}_bucket", le, count)
    metric.add_sample(f"{metric.name}_count", labels, counts[-1])
    metric.add_sample(f"{metric.name}_sum", labels, histogram.sum)


class _Samples:
    """What is told of one client at a scrape, which may happen in another thread."""

    def __init__(
        self,
        client: HAClient,
        commands: CommandTally,
        events: EventTally,
        split_brains: SplitBrains,
        lag_seconds: Callable[[], Mapping[Address, float]] | None,
        history: Callable[[], Sequence[FailoverRecord]] | None,
    ) -> None:
        self._client = client
        self._commands = commands
        self._events = events
        self._split_brains = split_brains
        self._lag_seconds = lag_seconds
        self._history = history

    def all(self) -> Iterator[Sample]:
        yield from self._of_the_group()
        yield from self._of_failovers()
        yield from self._of_commands()

    def _of_the_group(self) -> Iterator[Sample]:
        topology = self._client.topology
        self._split_brains.look(topology)
        masters = up = 0
        for node in topology.nodes:
            label = {"node": str(node.address)}
            is_up = node.status is Status.UP
            up += is_up
            masters += is_up and node.role is Role.MASTER
            yield "haredis_node_up", label, is_up
            version = {"version": node.version[:_MOST_OF_A_VERSION]}
            yield "haredis_node_info", label | version, 1
            role = "unknown" if node.role is None else node.role.value
            for word in ("master", "replica", "unknown"):
                yield "haredis_node_role", label | {"role": word}, word == role
            if node.role is not None:
                yield "haredis_replication_offset_bytes", label, node.offset
            if node.role is Role.REPLICA and node.lag is not None:
                yield "haredis_replication_lag_bytes", label, node.lag
            reconnects = self._events.reconnects.get(node.address, 0)
            yield "haredis_reconnects_total", label, reconnects
        yield "haredis_masters", {}, masters
        yield "haredis_quorum_ok", {}, up >= topology.quorum
        if self._lag_seconds is not None:
            behind = self._lag_seconds()
            for node in topology.nodes:
                if node.address in behind:
                    label = {"node": str(node.address)}
                    yield "haredis_replication_lag_seconds", label, behind[node.address]

    def _of_failovers(self) -> Iterator[Sample]:
        events = self._events
        for (reason, result), count in events.failovers.items():
            yield "haredis_failovers_total", {"reason": reason, "result": result}, count
        yield "haredis_failover_duration_seconds", {}, events.failover_seconds
        yield "haredis_unavailable_seconds_total", {}, self._client.unavailable_seconds
        lost = self._lost()
        if lost is not None:
            yield "haredis_last_failover_lost_bytes", {}, lost
        yield "haredis_election_lock_failures_total", {}, events.lock_failures
        yield "haredis_split_brain_total", {}, self._split_brains.count
        yield "haredis_pubsub_gaps_total", {}, events.gaps

    def _lost(self) -> int | None:
        if self._history is None:
            return self._events.lost_bytes
        newest = next(iter(self._history()), None)
        if newest is None or newest.discarded is not None:
            return None if newest is None else newest.discarded
        return lost_between(newest.old_offset, newest.offset)

    def _of_commands(self) -> Iterator[Sample]:
        for name, record in sorted(self._commands.of.copy().items()):
            command = {"command": name}
            for result, count in record.results.items():
                yield "haredis_commands_total", command | {"result": result}, count
            yield "haredis_command_duration_seconds", command, record.seconds
        backlog = self._client.backlog
        yield "haredis_queued_commands", {}, backlog.commands
        yield "haredis_queued_bytes", {}, backlog.bytes
        yield "haredis_redispatched_commands_total", {}, backlog.redispatched
