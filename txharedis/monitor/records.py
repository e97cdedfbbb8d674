"""The history of failovers: what the servers tell, and what was seen meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from txharedis.chronicle import KEPT, FailoverRecord
from txharedis.events import FailoverEnded, MasterChanged

__all__ = ["History"]

_TOLD = "told by the servers"
_OBSERVED = "observed"


class History:
    """The newest failovers, newest first: the servers' word counts where there is one.

    A client that dies right after a promotion leaves no entry on the servers; then there is what
    was observed here: that the master is another one.
    """

    def __init__(self) -> None:
        self._told: tuple[FailoverRecord, ...] = ()
        self._observed: dict[tuple[int, str], FailoverRecord] = {}

    def told(self, records: Iterable[FailoverRecord]) -> bool:
        """What the servers say now, newest first; whether anything is different."""
        before = self.as_dict()
        self._told = tuple(records)[:KEPT]
        for record in self._told:
            self._observed.pop((record.epoch, record.new), None)
        return self.as_dict() != before

    def changed(self, event: MasterChanged, at: float) -> None:
        """The master is another one, since `at` (seconds since 1970)."""
        key = (event.epoch, str(event.new))
        if event.old is None or any(key == (told.epoch, told.new) for told in self._told):
            return
        self._keep(
            FailoverRecord(
                epoch=event.epoch,
                at=at,
                old=str(event.old),
                new=str(event.new),
                reason="seen from outside: commands go to another master",
            )
        )

    def ended(self, event: FailoverEnded, at: float) -> None:
        """A failover of this client came to its end; more is known of it."""
        if event.master is None:
            return
        key = (event.epoch, str(event.master))
        if any(key == (told.epoch, told.new) for told in self._told):
            return
        self._keep(FailoverRecord.of(event, at))

    def _keep(self, record: FailoverRecord) -> None:
        self._observed[record.epoch, record.new] = replace(record, at=round(record.at, 3))
        while len(self._observed) > KEPT:
            del self._observed[min(self._observed)]

    def records(self) -> tuple[FailoverRecord, ...]:
        """All of them, newest first."""
        return tuple(record for record, _ in self._all())

    def as_dict(self) -> dict[str, Any]:
        """As `GET /history` gives it."""
        return {"failovers": [_entry(record, seen) for record, seen in self._all()]}

    def _all(self) -> list[tuple[FailoverRecord, str]]:
        records = [(record, _TOLD) for record in self._told]
        records += [(record, _OBSERVED) for record in self._observed.values()]
        records.sort(key=lambda item: (item[0].epoch, item[0].at), reverse=True)
        return records[:KEPT]


def _entry(record: FailoverRecord, seen: str) -> dict[str, Any]:
    entry = {**asdict(record), "planned": record.planned, "seen": seen}
    if seen == _OBSERVED and not record.why:
        entry["outage"] = None  # whoever did it knows
    return entry
