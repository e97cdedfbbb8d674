"""What stands in for a FailoverService that the monitor watches."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from txharedis.chronicle import FailoverRecord
from txharedis.events import Event
from txharedis.failover import Phase
from txharedis.inspection import NodeReport
from txharedis.options import Options
from txharedis.topology import Address, NodePicture, Role, Status, Topology

__all__ = ["WALL", "A", "B", "Service"]

A, B = Address("a", 1), Address("b", 2)
WALL = 1_790_000_000.0


class Service:
    """Stands in for a FailoverService: two nodes, `a` the master."""

    def __init__(self, clock: Clock) -> None:
        self.options = Options()
        self.client: Any = self
        self.phase = Phase.FOLLOWING
        self.master: Address | None = A
        self.offsets = {A: 100, B: 100}
        self.opcounter = 0
        self.replid = "f" * 40
        self.records: tuple[FailoverRecord, ...] | Exception = ()
        self.looks = 0
        self.asked = 0
        self.hanging: list[Deferred[Any]] | None = None
        self._clock = clock
        self._listeners: list[Any] = []

    @property
    def topology(self) -> Topology:
        nodes = [
            NodePicture(
                address=address,
                status=Status.UP,
                role=Role.MASTER if address == self.master else Role.REPLICA,
                link_up=None if address == self.master else True,
                follows="" if address == self.master else str(self.master),
                version="7.0.15",
            )
            for address in (A, B)
        ]
        return Topology(master=self.master, epoch=1, group="g", quorum=1, nodes=nodes)

    def listen(self, listener: Any) -> Any:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            listener(event)

    def inspect(self) -> Deferred[Any]:
        self.looks += 1
        if self.hanging is not None:
            self.hanging.append(Deferred())
            return self.hanging[-1]
        return succeed({address: self.report(address) for address in (A, B)})

    def report(self, address: Address) -> NodeReport:
        name = "master_repl_offset" if address == self.master else "slave_repl_offset"
        info = {
            "role": "master" if address == self.master else "slave",
            "master_replid": self.replid,
            "master_link_status": "up",
            "master_repl_offset": str(self.offsets[address]),
            name: str(self.offsets[address]),
        }
        return NodeReport(address, info, self.opcounter, 0.001, self._clock.seconds())

    def history(self) -> Deferred[Any]:
        self.asked += 1
        if isinstance(self.records, Exception):
            raise self.records
        return succeed(self.records)
