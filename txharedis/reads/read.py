"""Read: one read of a caller that a replica may answer."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from txharedis.commands import CommandInfo
from txharedis.interfaces import Args
from txharedis.node import Node
from txharedis.options import Terms
from txharedis.reads.own_writes import Proof

__all__ = ["Read", "Reads", "renamed"]


class Reads(Protocol):
    """Who sends the reads, and is told what becomes of them."""

    @property
    def db(self) -> int: ...

    def settled(self, read: Read, reply: object) -> None: ...

    def lost(self, read: Read) -> None: ...

    def cancelled(self, read: Read) -> None: ...


class Read:
    """One read of a caller, from its submission until its Deferred fires.

    `deferred` is None once the caller no longer waits. `node` is where it was sent, None while it
    waits here; `at_master` its Deferred in the master's queue, once it is there. `proof` stands for
    the INFO that was sent before it, where the replica has to prove that it has the own writes.
    """

    __slots__ = (
        "args",
        "at_master",
        "db",
        "deferred",
        "info",
        "node",
        "packed",
        "proof",
        "reads",
        "terms",
    )

    def __init__(
        self, reads: Reads, args: Args, packed: bytes, info: CommandInfo, terms: Terms
    ) -> None:
        self.reads = reads
        self.args = args
        self.packed = packed
        self.info = info
        self.terms = terms
        self.db = reads.db
        self.node: Node | None = None
        self.proof: Proof | None = None
        self.at_master: Deferred[object] | None = None
        self.deferred: Deferred[object] | None = Deferred(self._cancel)

    @property
    def as_sent(self) -> bytes:
        """As it goes to a replica: under the name that a replica knows."""
        name = self.info.replica
        return self.packed if name == self.info.name else renamed(self.packed, name.encode())

    def _cancel(self, deferred: Deferred[object]) -> None:
        self.reads.cancelled(self)

    def settle(self, reply: object) -> None:
        self.reads.settled(self, reply)

    def lost(self) -> None:
        self.reads.lost(self)


def renamed(packed: bytes, name: bytes) -> bytes:
    """The packed command under another name."""
    count_ends = packed.index(b"\r\n") + 2
    name_begins = packed.index(b"\r\n", count_ends) + 2
    name_ends = packed.index(b"\r\n", name_begins)
    return b"%b$%d\r\n%b%b" % (packed[:count_ends], len(name), name, packed[name_ends:])
