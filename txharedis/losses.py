"""What a failover may have cost: the last that was heard of the old master's offset."""

from __future__ import annotations

from dataclasses import dataclass

from txharedis.reads.lag import Replication
from txharedis.topology import Address, NodeView
from txharedis.values import Value

__all__ = ["LastWord", "LastWords"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LastWord(Value):
    """The newest offset that a master reported, and the time at which it did."""

    node: Address
    replid: str
    offset: int
    at: float

    def __str__(self) -> str:
        return f"{self.node} was last heard at offset {self.offset}"

    def compares_with(self, successor: NodeView) -> bool:
        """Whether the successor's offset counts the same history.

        Of a master the history that it goes on from counts too.
        """
        return self.replid.strip("0") != "" and self.replid in (
            successor.replid,
            successor.replid2,
        )


class LastWords:
    """The newest word of the master that is followed; it stays when the master is lost."""

    def __init__(self) -> None:
        self.newest: LastWord | None = None

    def followed(self, master: NodeView, at: float) -> None:
        """A survey found it the master."""
        self.newest = LastWord(master.address, master.replid, master.offset, at)

    def heard(self, node: Address, said: Replication | None) -> None:
        """A heartbeat was answered, with this if the replication is asked for at all."""
        newest = self.newest
        if newest is not None and said is not None and said.is_master and node == newest.node:
            self.newest = LastWord(node, said.replid, said.offset, said.asked_at)
