"""A client as its observers see it, whose topology and events a test scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from txharedis.events import Event
from txharedis.log import ClientLog
from txharedis.observers import Backlog, Observers
from txharedis.topology import Address, NodePicture, Role, Status, Topology

NODES = tuple(Address("n", port) for port in (1, 2, 3))


def picture(number: int, role: Role | None = Role.REPLICA, **fields: Any) -> NodePicture:
    """Of the node n:1, n:2 or n:3; it is up, of epoch 1, and was seen at 0.0."""
    given = {"status": Status.UP, "epoch": 1, "offset": 100, "lag": 0, "seen_at": 0.0} | fields
    return NodePicture(NODES[number - 1], role=role, version="7.0.15", **given)


class SeenClient:
    """The master is n:1; `tell(event)` tells the listeners, `give(args)` the observers."""

    def __init__(self) -> None:
        self._observers = Observers(ClientLog())
        self.topology = Topology(
            master=NODES[0],
            epoch=1,
            group="g",
            quorum=2,
            nodes=(picture(1, Role.MASTER), picture(2), picture(3, lag=7, offset=93)),
        )
        self.master: str | None = "n:1"
        self.db = 0
        self.backlog = Backlog(commands=3, bytes=70, redispatched=2)
        self.unavailable_seconds = 1.5
        self.listen = self._observers.listen
        self.watch_commands = self._observers.watch_commands

    def set(self, *nodes: NodePicture) -> None:
        """These nodes are seen so from here on; the others stay as they are."""
        known = {node.address: node for node in (*self.topology.nodes, *nodes)}
        self.topology = replace(self.topology, nodes=tuple(known[node] for node in NODES))

    def tell(self, *events: Event) -> None:
        for event in events:
            self._observers.emit(event)

    def give(self, *args: Any) -> Callable[[object], None]:
        """A command is given; what this returns ends it."""
        endings = [observer(args) for observer in self._observers.of_commands]

        def end(outcome: object) -> None:
            for ended in endings:
                ended(outcome)

        return end

    @property
    def observed(self) -> bool:
        """Whether anybody listens or observes."""
        return bool(self._observers._listeners or self._observers.of_commands)
