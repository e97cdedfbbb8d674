"""`/metrics`: the figures of the monitor's own client, and of its process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from txharedis import metrics
from txharedis.monitor.watcher import Watcher

__all__ = ["Figures"]


class Figures:
    """What is told to Prometheus of what a watcher watches, until `close`."""

    def __init__(self, watcher: Watcher) -> None:
        self._registry = CollectorRegistry()
        self._figures = metrics.register(
            watcher.watched.client,
            self._registry,
            lag_seconds=lambda: watcher.lag_seconds,
            history=watcher.records,
        )
        ProcessCollector(registry=self._registry)
        self._unlisten = watcher.listen(self._heard)

    def text(self) -> bytes:
        """All of them, in the text format 0.0.4, which every Prometheus reads."""
        return generate_latest(self._registry)

    def close(self) -> None:
        self._unlisten()
        self._figures.unregister()

    def _heard(self, kind: str, value: object) -> None:
        if kind == "sample":
            self._figures.look()
