"""redis-py's asyncio client behind Sentinel, in a process of its own, for `chaos_sentinel`.

Run as ``python -m benchmarks.sentinel_client ORDERS``, a JSON object:

sentinels  their ports
acks       replicas that have to confirm each write (WAIT in the same pipeline)
retries    whether the client tries again by itself, as it does by default
and those of `txharedis.testing.chaos.process.Orders`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import asyncioreactor

if __name__ == "__main__":
    asyncioreactor.install()  # before anybody else fetches the reactor

from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from twisted.internet.defer import Deferred

from benchmarks.chaos_sentinel import MASTER
from txharedis.testing.chaos.process import Orders, Served, Trap, serve

ACK_TIMEOUT = 1.0
"""Seconds for the replicas to confirm."""


class Failed(Exception):
    """A command failed; `executed` is as in txharedis.errors."""

    def __init__(self, error: str, executed: bool | None) -> None:
        super().__init__(error)
        self.executed = executed


class Client:
    """A client of the master that Sentinel names."""

    def __init__(self, ports: list[int], acks: int, retries: bool) -> None:
        self._acks = acks
        self._retries = retries
        more: dict[str, Any] = {} if retries else {"retry": Retry(NoBackoff(), 0)}
        places = [("127.0.0.1", port) for port in ports]
        self._sentinel: Any = Sentinel(places, socket_timeout=0.5)
        self._master = self._sentinel.master_for(
            MASTER, socket_timeout=2.0, decode_responses=True, **more
        )

    async def run(self, *words: Any) -> Any:
        try:
            if not self._acks or words[0] == "GET":
                return await self._master.execute_command(*words)
            both = self._master.pipeline(transaction=False)
            both.execute_command(*words)
            both.wait(self._acks, round(ACK_TIMEOUT * 1000))
            reply, confirmed = await both.execute()
        except RedisError as error:
            raise Failed(repr(error), self._executed(error)) from None
        if confirmed < self._acks:
            raise Failed("not replicated", True)
        return reply

    def _executed(self, error: RedisError) -> bool | None:
        # An attempt before the last may have arrived.
        refused = isinstance(error, (ResponseError, MasterNotFoundError))
        return False if refused and not self._retries else None

    async def close(self) -> None:
        await self._master.aclose()
        for each in self._sentinel.sentinels:
            await each.aclose()


def main(orders: dict[str, Any]) -> None:
    from twisted.internet import reactor

    told = Orders.of(orders)
    arguments: Any = Connection._connection_arguments

    def from_source(link: Any) -> Any:
        return {**arguments(link), "local_addr": (told.source, 0)}

    setattr(Connection, "_connection_arguments", from_source)  # noqa: B010

    def make(say: Callable[..., None], trap: Trap) -> Served:
        client = Client(orders["sentinels"], orders["acks"], orders["retries"])

        def run(*words: Any) -> Deferred[Any]:
            return Deferred.fromFuture(asyncio.ensure_future(client.run(*words)))

        def close() -> Deferred[Any]:
            return Deferred.fromFuture(asyncio.ensure_future(client.close()))

        return Served(run, close)

    serve(reactor, told, make)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
