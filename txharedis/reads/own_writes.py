"""INFO replication beside the commands of a view that reads its own writes.

Both are waiters for its reply.
"""

from __future__ import annotations

from txharedis.interfaces import pack
from txharedis.reads.lag import OwnWrites, Replication, Token
from txharedis.topology import Address

__all__ = ["INFO", "Place", "Proof"]

INFO = pack(("INFO", "replication"))


class Proof:
    """Sent to a replica in one write before the reads of one view: has it come to the place?

    `holds` tells whether it has: then what it answers to those reads counts.
    """

    def __init__(self, node: Address, writes: OwnWrites, token: Token) -> None:
        self._node = node
        self._writes = writes
        self._token = token
        self.holds = False

    def settle(self, reply: object) -> None:
        state = Replication.parse(reply, 0.0)
        if state is None:
            return
        self.holds = state.has(self._token)
        if not state.shares(self._token):
            self._writes.renew(self._token)
        elif not self.holds:
            self._writes.found_behind(self._node)

    def lost(self) -> None:
        pass


class Place:
    """Sent to the master: the place behind all writes that were answered by then."""

    def __init__(self, writes: OwnWrites, mark: int) -> None:
        self._writes = writes
        self._mark = mark

    def settle(self, reply: object) -> None:
        state = Replication.parse(reply, 0.0)
        if state is not None and state.is_master:
            self._writes.cover(self._mark, Token(state.replid, state.offset))

    def lost(self) -> None:
        pass
