"""How far replicas are behind: what INFO replication says, and the arithmetic of offsets.

An offset counts the bytes of one replication history. It never falls while a server stays in that
history, so an offset that was once reported is a lower bound from then on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeVar

from txharedis.topology import Address, parse_info
from txharedis.values import Value

__all__ = ["MasterOffsets", "OwnWrites", "Replication", "Token"]

Result = TypeVar("Result")

#: Samples of the master's offset that are kept: more than enough for the steps of one `max_lag`.
KEPT = 64


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Token(Value):
    """A place in a replication history: who has come to it has all that was written before."""

    replid: str
    offset: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Replication(Value):
    """What one server says of its replication; `asked_at` is when it was asked, in seconds.

    `last_io` is the number of whole seconds since a replica heard its master, -1 when it is not
    connected. `offset` counts what the server has, a replica's what it has applied. `replid2` is
    the history that `replid` continues, and `parted_at` the first offset that is not shared.
    """

    asked_at: float
    is_master: bool = False
    link_up: bool = False
    syncing: bool = False
    last_io: int = -1
    offset: int = 0
    replid: str = ""
    replid2: str = ""
    parted_at: int = -1

    @classmethod
    def parse(cls, reply: object, asked_at: float) -> Replication | None:
        """Read a reply to INFO replication; None when it is an error, or names no history."""
        info = parse_info(reply) if isinstance(reply, bytes) else {}
        if not info.get("master_replid", "").strip("0"):
            return None
        is_master = info.get("role") == "master"
        offset = None if is_master else info.get("slave_repl_offset")
        return cls(
            asked_at=asked_at,
            is_master=is_master,
            link_up=info.get("master_link_status") == "up",
            syncing=info.get("master_sync_in_progress") == "1",
            last_io=_number(info.get("master_last_io_seconds_ago"), -1),
            offset=_number(offset or info.get("master_repl_offset")),
            replid=info["master_replid"],
            replid2=info.get("master_replid2", ""),
            parted_at=_number(info.get("second_repl_offset"), -1),
        )

    def shares(self, token: Token) -> bool:
        """Whether the place is in this server's history, so that their offsets compare."""
        if self.replid == token.replid:
            return True
        return self.replid2 == token.replid and token.offset < self.parted_at

    def has(self, token: Token) -> bool:
        """Whether this server has all that was written up to there."""
        return self.shares(token) and self.offset >= token.offset


def _number(text: str | None, default: int = 0) -> int:
    try:
        return default if text is None else int(text)
    except ValueError:
        return default


class MasterOffsets:
    """The newest offsets of the master that is followed, and when they were asked for."""

    def __init__(self) -> None:
        self.address: Address | None = None
        self.replid = ""
        self._samples: deque[tuple[float, int]] = deque(maxlen=KEPT)

    def add(self, address: Address, state: Replication) -> None:
        """The master at this address says so."""
        if (address, state.replid) != (self.address, self.replid):
            self._samples.clear()
        self.address = address
        self.replid = state.replid
        self._samples.append((state.asked_at, state.offset))

    def bytes_behind(self, replica: Replication) -> int | None:
        """How many bytes the replica was behind the newest known offset; None when unknown."""
        if replica.replid != self.replid or not self._samples:
            return None
        return max(0, self._samples[-1][1] - replica.offset)

    def seconds_behind(self, replica: Replication, now: float) -> float | None:
        """How old the replica's data are at most; None when unknown.

        What the master had been given when it was last asked for an offset that the replica has
        reached, the replica has too.
        """
        if replica.replid == self.replid:
            for asked_at, offset in reversed(self._samples):
                if offset <= replica.offset:
                    return now - asked_at
        return None


class OwnWrites:
    """The writes of one view, and the place up to which a replica must have come to have them.

    A replica may be asked only while `settled`: every write is answered, and the place was asked
    for after the last of them was. `token` is None when nothing was written.
    """

    def __init__(self) -> None:
        self.token: Token | None = None
        self._unanswered = 0
        self._answered = 0
        self._covered = 0  # how many answered writes the token stands behind
        self._behind: set[Address] = set()

    @property
    def settled(self) -> bool:
        return not self._unanswered and self._covered == self._answered

    @property
    def answered(self) -> int | None:
        """The mark for `cover`; None while a write is unanswered, when nothing can be covered."""
        return None if self._unanswered else self._answered

    def begin(self) -> None:
        """A write was submitted."""
        self._unanswered += 1

    def end(self, result: Result) -> Result:
        """A write was answered, or failed: it may have been executed all the same."""
        self._unanswered -= 1
        self._answered += 1
        return result

    def cover(self, mark: int, token: Token) -> None:
        """The master was at this place when all writes up to the mark had been answered."""
        if mark >= self._covered:
            self._covered = mark
            self.token = token
            self._behind.clear()

    def renew(self, token: Token) -> None:
        """This place is in no history that is alive: another one is needed."""
        if self.token == token:
            self._covered = -1

    def found_behind(self, node: Address) -> None:
        """This replica had not come to the place when it was asked."""
        self._behind.add(node)

    def may_ask(self, node: Address, state: Replication) -> bool:
        """Whether this replica, last known in this state, may have the writes by now."""
        return node not in self._behind or self.token is None or state.has(self.token)
