"""Replicas: which of the nodes may be read from, as far as is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from txharedis.interfaces import Clock, Timer
from txharedis.node import Node
from txharedis.options import Options
from txharedis.reads.lag import MasterOffsets, Replication
from txharedis.topology import Address, NodeView, Status

__all__ = ["Replicas"]

#: A master that was not told to speaks to idle replicas every so many seconds.
_PING_PERIOD = 10


class Replicas:
    """What the nodes of one group say of their replication, and who is fit by it.

    They are asked from `watch` on. Until all that are up have spoken once, and for as long as a
    survey may take at most, `unknown` is true; then `spoken()` is called. `master()` is the master
    that is followed, None while it is out of reach.
    """

    def __init__(
        self,
        clock: Clock,
        nodes: Iterable[Node],
        options: Options,
        master: Callable[[], NodeView | None],
        spoken: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._nodes = nodes
        self._options = options
        self._master = master
        self._spoken = spoken
        lag = options.max_lag_seconds
        self._every = options.heartbeat if lag is None else min(options.heartbeat, lag / 4)
        self._offsets = MasterOffsets()
        self._shunned: set[Address] = set()
        self._first_round: Timer | None = None
        self.watched = False

    @property
    def unknown(self) -> bool:
        return self._first_round is not None

    def watch(self) -> None:
        """Ask them, now and with every heartbeat."""
        self.watched = True
        timeout = self._options.survey_timeout
        self._first_round = self._clock.callLater(timeout, self._round_over)
        for node in self._nodes:
            node.watch_replication(self._every)

    def _round_over(self) -> None:
        self.stop()
        self._spoken()

    def stop(self) -> None:
        """Wait for nobody any more."""
        if self._first_round is not None and self._first_round.active():
            self._first_round.cancel()
        self._first_round = None

    def heard(self, node: Node) -> None:
        """A node said how its replication stands."""
        state, master = node.replication, self._master()
        self._shunned.discard(node.address)
        if (
            state is not None
            and state.is_master
            and master is not None
            # Not one that has restarted since: it may be empty, and is not followed any more.
            and (node.address, node.run_id) == (master.address, master.run_id)
        ):
            self._offsets.add(node.address, state)
        if self.unknown and all(
            one.replication is not None for one in self._nodes if one.status is Status.UP
        ):
            self._round_over()

    def shun(self, node: Node) -> None:
        """Leave a node alone until it says something new of itself, or has another link."""
        self._shunned.add(node.address)

    def linked(self, node: Node) -> None:
        """A node has another command link."""
        self._shunned.discard(node.address)

    def ask(self) -> None:
        """There is another master: who follows it is to be found out."""
        for node in self._nodes:
            node.ask_replication()

    def fit(self, db: int) -> dict[Address, Node]:
        """The replicas that may be read from now, over links for this database."""
        return {node.address: node for node in self._nodes if self._is_fit(node, db)}

    def _is_fit(self, node: Node, db: int) -> bool:
        state, master = node.replication, self._master()
        if (
            state is None
            or state.is_master
            or state.syncing
            or node.status is not Status.UP
            or node.address in self._shunned
            or not node.serves(node.run_id)
            or node.db != db
        ):
            return False
        now = self._clock.seconds()
        if now - state.asked_at > max(3 * self._every, self._options.survey_timeout):
            return False
        if master is not None:
            # While there is none, those of the last one are read: their links are down.
            hears = state.link_up and state.last_io < self._silence(master)
            if not hears or self._offsets.address != master.address:
                return False
        return self._is_near(state, now)

    def _silence(self, master: NodeView) -> float:
        """Seconds without a word from its master after which a replica has lost it."""
        told = master.ping_period == 1
        # The replicas count whole seconds: after one second of silence they may say two.
        return max(self._options.down_after, 3.0) + (0 if told else _PING_PERIOD)

    def _is_near(self, state: Replication, now: float) -> bool:
        behind = self._offsets.bytes_behind(state)
        if behind is None:
            return False
        limit = self._options.max_lag_bytes
        if limit is not None and behind > limit:
            return False
        longest = self._options.max_lag_seconds
        if longest is None:
            return True
        late = self._offsets.seconds_behind(state, now)
        return late is not None and late <= longest
