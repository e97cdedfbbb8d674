"""The failovers of a group, as its servers keep them for whoever wants to know later.

Each is one field of a hash that is replicated as all data: who was replaced by whom, why, and what
was lost. The client that made a node the master writes it, after everything else, and the one that
brought the old master back adds what that one had to discard. Nothing depends on it: a failover
whose client dies at the end has no entry.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from twisted.python.failure import Failure

from txharedis.errors import LinkLost
from txharedis.events import Event, FailoverEnded, HistoryDiscarded
from txharedis.protocol import NodeProtocol
from txharedis.topology import Address
from txharedis.values import Value

__all__ = ["HISTORY_KEY", "KEPT", "Chronicle", "FailoverRecord", "read_history"]

HISTORY_KEY = "haredis:history"
#: How many failovers are kept; the next takes the place of the oldest.
KEPT = 100

# What is more than that was not written by a client.
_LONGEST = 16 * 1024  # bytes of a field
_LONGEST_TEXT = 4096  # characters
_MOST = 2**63
_LATEST = 253_402_300_799  # the end of the year 9999, and more seconds than anything takes


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FailoverRecord(Value):
    """One failover or switchover that came to its end.

    `at` is the time of its end in seconds since 1970, by the clock of the client that did it.
    `reason` says what was wrong with the old master, `why` why the new one was the best. `outage`
    is in seconds, as in FailoverEnded, and so are the offsets. `discarded` is how many bytes of its
    history `old` had to discard when it came back; None while it has not, and when nobody knows.
    """

    epoch: int
    at: float
    old: str
    new: str
    reason: str
    why: str = ""
    outage: float = 0.0
    offset: int | None = None
    old_offset: int | None = None
    old_offset_age: float | None = None
    discarded: int | None = None

    @classmethod
    def of(cls, event: FailoverEnded, at: float) -> FailoverRecord:
        """What the event tells of a failover that promoted a node."""
        return cls(
            epoch=event.epoch,
            at=round(at, 3),
            old="" if event.old is None else str(event.old),
            new=str(event.master),
            reason=event.reason,
            why=event.why,
            outage=round(event.outage, 6),
            offset=event.offset,
            old_offset=event.old_offset,
            old_offset_age=event.old_offset_age,
        )

    @property
    def planned(self) -> bool:
        """Whether it was a switchover."""
        return self.reason.startswith("switchover")


class Chronicle:
    """Writes down what this client did. `link_of(node)` gives its control link, None for none.

    It waits for so many seconds for a node to take it.
    """

    def __init__(self, link_of: Callable[[Address], NodeProtocol | None], patience: float) -> None:
        self._link_of = link_of
        self._patience = patience

    def note(self, event: Event) -> None:
        """Keep this event, if it is one to keep."""
        if isinstance(event, FailoverEnded) and event.master is not None:
            record = FailoverRecord.of(event, time.time())
            self._write(event.master, str(event.epoch % KEPT), asdict(record))
        elif isinstance(event, HistoryDiscarded):
            # The epoch is that of the repair when it came back later; the record is found by node.
            loss = {"epoch": event.epoch, "count": event.count, "offset": event.offset}
            self._write(event.master, f"discarded:{event.node}", loss)

    def _write(self, master: Address, field: str, value: dict[str, Any]) -> None:
        link = self._link_of(master)
        if link is not None:
            # Without the right to write it there is no history.
            entry = ("HSET", HISTORY_KEY, field, json.dumps(value))
            written = link.exchange(entry, timeout=self._patience, or_drop=True)
            written.addErrback(Failure.trap, LinkLost)


_TEXT: tuple[type, ...] = (str,)
_COUNT: tuple[type, ...] = (int, type(None))
_SECONDS: tuple[type, ...] = (int, float, type(None))
_TYPES: dict[str, tuple[type, ...]] = {
    "epoch": (int,),
    "at": (int, float),
    **dict.fromkeys(("old", "new", "reason", "why"), _TEXT),
    **dict.fromkeys(("outage", "old_offset_age"), _SECONDS),
    **dict.fromkeys(("offset", "old_offset"), _COUNT),
}


def read_history(reply: object) -> tuple[FailoverRecord, ...]:
    """The failovers, newest first, from HGETALL's reply.

    What cannot be read is left out, and so is what a later version may have added.
    """
    items = reply if isinstance(reply, list) else []
    records: list[FailoverRecord] = []
    losses: dict[str, tuple[int, int | None]] = {}  # the epoch and the bytes, by node
    for field, value in zip(items[::2], items[1::2], strict=False):
        try:
            if len(value) > _LONGEST:
                continue
            name, entry = field.decode(), json.loads(value)
            if name.startswith("discarded:"):
                loss = _checked(entry, {"epoch": (int,), "count": _COUNT})
                losses[name.removeprefix("discarded:")] = loss["epoch"], loss["count"]
            else:
                records.append(FailoverRecord(**_checked(entry, _TYPES)))
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            continue
    newest = {record.epoch: record for record in records}
    records = sorted(newest.values(), key=lambda record: record.epoch, reverse=True)[:KEPT]
    for number, record in enumerate(records):
        epoch, count = losses.get(record.old, (-1, None))
        if record.epoch <= epoch:
            records[number] = replace(record, discarded=count)
            del losses[record.old]  # that was the newest failover before it came back
    return tuple(records)


def _checked(entry: object, types: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    """The fields of these names; raises a TypeError or ValueError for what no client writes."""
    if not isinstance(entry, dict):
        raise TypeError
    for name in types.keys() & entry.keys():
        if not isinstance(entry[name], types[name]) or isinstance(entry[name], bool):
            raise TypeError
        if not _is_sane(name, entry[name]):
            raise ValueError
    return {name: entry[name] for name in types if name in entry}


def _is_sane(name: str, value: str | float | None) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    most = _LATEST if name in ("at", "outage", "old_offset_age") else _MOST
    return value is None or 0 <= value < most
