"""Whether a replica may have missed messages between two markers that both came.

A replica whose link breaks goes on where it was (a partial resync), messages included; or it gets
the master's data (a full resync), and no messages. The master counts the full ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from txharedis.values import Value

__all__ = ["Standpoint", "reaches_back", "resynced"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Standpoint(Value):
    """The master right after a marker: `sent` at this time of the client's clock, when `full` full
    resyncs had begun and the replication stream had come to `offset`."""

    run_id: str
    sent: float
    full: int
    offset: int

    @classmethod
    def read(
        cls, run_id: str, sent: float, stats: Mapping[str, str], replication: Mapping[str, str]
    ) -> Standpoint | None:
        """From INFO stats and INFO replication of the master; None when they say nothing."""
        try:
            full, offset = int(stats["sync_full"]), int(replication["master_repl_offset"])
        except (KeyError, ValueError):
            return None
        return cls(run_id, sent, full, offset)


def resynced(before: Standpoint | None, after: Standpoint) -> bool:
    """Whether a replica, whichever, had a full resync in between."""
    return before is not None and before.run_id == after.run_id and before.full < after.full


def reaches_back(replication: Mapping[str, str], before: Standpoint) -> bool:
    """Whether a replica, by its INFO replication, has had the stream without a break since then.

    Its backlog begins anew at each full resync.
    """
    try:
        begin = int(replication["repl_backlog_first_byte_offset"])
    except (KeyError, ValueError):
        return False
    return replication.get("repl_backlog_active") == "1" and begin <= before.offset + 1
