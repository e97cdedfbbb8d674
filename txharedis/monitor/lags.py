"""How far in time the replicas are behind, from the offsets that the master has shown."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping

from txharedis.inspection import NodeReport
from txharedis.topology import Address

__all__ = ["Lags"]

#: How many offsets of the master are remembered, one a look.
KEPT = 600


class Lags:
    """Remembers when the master's offset first passed each offset.

    A replica's lag is the time since the master first had more than the replica has: 0.0 when it
    has all of it. What the replica lacks can be older than what is remembered, at the start say:
    then its lag counts from the first time that it was seen to lack it.
    """

    def __init__(self) -> None:
        self._replid = ""
        self._samples: deque[tuple[float, int]] = deque(maxlen=KEPT)
        self._behind: dict[Address, tuple[int, float]] = {}

    def note(
        self, at: float, master: Address | None, reports: Mapping[Address, NodeReport]
    ) -> dict[Address, float]:
        """The lag in seconds of each replica whose history is the master's, at the time `at`."""
        said = None if master is None else reports.get(master)
        newest = None if said is None else _number(said.info.get("master_repl_offset"))
        if said is None or newest is None:
            return {}
        self._remember(at, said.info.get("master_replid", ""), newest)
        lags: dict[Address, float] = {}
        for address, report in reports.items():
            info = report.info
            if address == master or info.get("master_replid") != self._replid:
                continue
            offset = _number(info.get("slave_repl_offset"))
            if offset is not None:
                lags[address] = self._lag(address, at, offset)
        self._behind = {a: known for a, known in self._behind.items() if a in lags}
        return lags

    def _remember(self, at: float, replid: str, offset: int) -> None:
        if replid != self._replid or (self._samples and offset < self._samples[-1][1]):
            self._samples.clear()
            self._behind.clear()
            self._replid = replid
        if not self._samples or offset > self._samples[-1][1]:
            self._samples.append((at, offset))

    def _lag(self, address: Address, at: float, offset: int) -> float:
        passed = bisect_right(self._samples, offset, key=lambda sample: sample[1])
        if passed == len(self._samples):
            self._behind.pop(address, None)
            return 0.0
        since = self._samples[passed][0]
        before = self._behind.get(address)
        if before is not None and (before[0] == offset or passed == 0):
            since = min(since, before[1])
        self._behind[address] = (offset, since)
        return max(0.0, at - since)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
