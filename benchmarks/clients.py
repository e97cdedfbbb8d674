"""Clients in a process of their own: python -m benchmarks.clients COUNT NUMBER NODE NODE ...

Orders and answers are lines of JSON, see `processes`:

{"do": "ready"}          answered when all have a master and links to all nodes
{"do": "write"}          each writes, with a rest after each answer
{"do": "struck", "at"}   the master was killed at `at` (time.monotonic()): each gives a write now,
                         and when all of these are acknowledged the answer has the `outages`
{"do": "rest"}           write no more
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from benchmarks.worker import Worker
from txharedis import HAClient, HARedisError, create_client
from txharedis.testing.waiting import until
from txharedis.topology import Status

REST = 0.1
PATIENCE = 60.0
AGAIN = 0.005
"""Seconds after which a write that failed is given again."""


class Clients(Worker):
    """Obeys one order after the other."""

    def __init__(self, reactor: Any, count: int, number: int, nodes: list[str]) -> None:
        super().__init__()
        self._reactor = reactor
        self._number = number
        self._writing = False
        self._chains: list[Deferred[None]] = []
        self._clients = [create_client(nodes, reactor=reactor, acks=1) for _ in range(count)]

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order["do"]:
            case "ready":
                return await self._ready()
            case "write":
                return self._write()
            case "struck":
                return await self._struck(order["at"])
            case "rest":
                return await self._rest()
        raise ValueError(f"unknown order {order!r}")

    async def end(self) -> None:
        self._writing = False
        await gatherResults([client.disconnect() for client in self._clients])
        for chain in self._chains:
            chain.addErrback(lambda _: None)  # it was writing

    async def _ready(self) -> dict[str, Any]:
        await gatherResults([client.when_ready() for client in self._clients])
        await until(self._reactor, self._all_up, PATIENCE, "links to all nodes")
        return {}

    def _all_up(self) -> bool:
        return all(
            client.master is not None
            and all(node.status is Status.UP for node in client.topology.nodes)
            for client in self._clients
        )

    def _write(self) -> dict[str, Any]:
        self._writing = True
        self._chains = [
            Deferred.fromCoroutine(self._chain(client, place))
            for place, client in enumerate(self._clients)
        ]
        return {}

    async def _chain(self, client: HAClient, place: int) -> None:
        # Not all at the same moment.
        await deferLater(self._reactor, REST * place / len(self._clients))
        while self._writing:
            await self._set(client, place)
            await deferLater(self._reactor, REST)

    async def _set(self, client: HAClient, place: int) -> None:
        while True:
            try:
                await client.set(f"written:{self._number}:{place}", "v")
            except HARedisError:
                await deferLater(self._reactor, AGAIN)
            else:
                return

    async def _struck(self, at: float) -> dict[str, Any]:
        async def one(client: HAClient, place: int) -> float:
            await self._set(client, place)
            return time.monotonic() - at

        writes = [
            Deferred.fromCoroutine(one(client, place)) for place, client in enumerate(self._clients)
        ]
        return {"outages": await gatherResults(writes)}

    async def _rest(self) -> dict[str, Any]:
        self._writing = False
        await gatherResults(self._chains)
        return {}


def main(reactor: Any, count: str, number: str, *nodes: str) -> Deferred[None]:
    return Clients(reactor, int(count), int(number), list(nodes)).run(reactor)


if __name__ == "__main__":
    react(main, sys.argv[1:])
