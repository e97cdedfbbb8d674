"""Places: which node is best for the subscriptions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from txharedis.interfaces import Clock
from txharedis.topology import Address

__all__ = ["GRACE", "Places"]

GRACE = 2.0
"""Seconds for which a replica may be without its master, or follow another, before it is left."""


class Places:
    """What is known of the nodes, as the newest survey told it.

    The best is a replica that is up, linked to the master and not syncing, whichever it is; then
    the master. Nodes that have just failed are avoided while there is another.
    """

    def __init__(self, clock: Clock, is_up: Callable[[Address], bool]) -> None:
        self.master: Address | None = None
        self._clock = clock
        self._is_up = is_up
        self._replicas: tuple[Address, ...] = ()
        self._replicas_of: Address | None = None
        self._avoided: dict[Address, float] = {}  # until when
        self._astray_since: float | None = None

    def know(self, master: Address, replicas: Iterable[Address]) -> None:
        """These are linked to this master and not syncing."""
        self._replicas_of, self._replicas = master, tuple(replicas)

    def avoid(self, node: Address, seconds: float) -> None:
        until = self._clock.seconds() + seconds
        self._avoided[node] = max(until, self._avoided.get(node, until))

    def forgive(self, node: Address) -> None:
        self._avoided.pop(node, None)

    def is_avoided(self, node: Address) -> bool:
        return self._avoided.get(node, -1.0) > self._clock.seconds()

    def choose(self, here: Address | None, linked: bool) -> Address | None:
        """The node to be on, for subscriptions that are `here`, over a link that is there or not.

        None when there is none.
        """
        known = self._replicas if self._replicas_of == self.master else ()
        usable = [node for node in known if node != self.master and self._is_good(node)]
        if here in usable:
            self._astray_since = None
            return here
        if linked and here is not None and here != self.master and not self.is_avoided(here):
            # It may be on its way to a new master, and then goes on where it was.
            now = self._clock.seconds()
            if self._astray_since is None:
                self._astray_since = now
            if now - self._astray_since < GRACE:
                return here
        if usable:
            return random.choice(usable)
        if self.master is None or not self._is_up(self.master):
            return here
        return self.master if here is None or not self.is_avoided(self.master) else here

    def _is_good(self, node: Address) -> bool:
        return self._is_up(node) and not self.is_avoided(node)
