"""Commands that stay pending, in a process of its own: python -m benchmarks.memory_probe ORDERS

ORDERS is a JSON object:

nodes     the group's
master    the port of the master
options   those of txharedis; null for txredisapi
commands  how many
waiting   whether no master is to be there
trace     whether to count Python's allocations, instead of the growth of the resident set

{"do": "connect"} connects; {"do": "submit"}, when the servers answer nothing any more, is answered
with the bytes that all commands together take.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tracemalloc
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from benchmarks.contestants import TxRedisApi
from benchmarks.worker import Worker
from txharedis import create_client
from txharedis.testing.waiting import until
from txharedis.topology import Status

PATIENCE = 30.0
AWAY: dict[str, Any] = {"heartbeat": 0.2, "down_after": 0.5, "survey_timeout": 0.2}
"""A client with these soon sees that its servers are stopped."""

HERE: dict[str, Any] = {"heartbeat": 300.0, "down_after": 900.0}
"""And one with these does not."""


class Probe(Worker):
    """Obeys one order after the other."""

    def __init__(self, reactor: Any, orders: dict[str, Any]) -> None:
        super().__init__()
        self._reactor = reactor
        self._orders = orders
        self._client: Any = None
        self._keys: list[bytes] = []

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        return await (self._connect() if order["do"] == "connect" else self._submit())

    async def end(self) -> None:
        # What is pending stays so: there is nothing to take leave of.
        os._exit(0)

    async def _connect(self) -> dict[str, Any]:
        orders = self._orders
        if orders["options"] is None:
            self._client = await TxRedisApi.connect(orders["master"])
        else:
            self._client = create_client(
                orders["nodes"],
                reactor=self._reactor,
                charset=None,
                max_pending=2 * orders["commands"],
                max_pending_bytes=1 << 30,
                **orders["options"],
                **(AWAY if orders["waiting"] else HERE),
            )
            await self._client.when_ready()
            await until(self._reactor, self._all_up, PATIENCE, "links to all nodes")
        for number in range(100):
            await self._client.set(b"warm:%d" % number, b"v" * 32)
        return {}

    def _all_up(self) -> bool:
        return all(node.status is Status.UP for node in self._client.topology.nodes)

    async def _submit(self) -> dict[str, Any]:
        if self._orders["waiting"]:
            await until(
                self._reactor, lambda: self._client.master is None, PATIENCE, "no master any more"
            )
        value = b"v" * 32
        self._keys = [b"memory:%08d" % number for number in range(self._orders["commands"])]
        trace = self._orders["trace"]
        gc.collect()
        if trace:
            tracemalloc.start()
        before = _used(trace)
        for key in self._keys:
            # A reply that never comes fails nobody.
            self._client.set(key, value)
        for _ in range(5):  # what goes out at the end of a turn goes out
            await deferLater(self._reactor, 0.01)
        gc.collect()
        used = _used(trace) - before
        return {"bytes": used}


def _used(trace: bool) -> int:
    if trace:
        return tracemalloc.get_traced_memory()[0]
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(reactor: Any, orders: str) -> Deferred[None]:
    return Probe(reactor, json.loads(orders)).run(reactor)


if __name__ == "__main__":
    react(main, sys.argv[1:])
