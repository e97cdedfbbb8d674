"""The client in an asyncio program: python examples/asyncio_interop.py HOST:PORT HOST:PORT ...

Twisted's reactor runs on asyncio's loop. `Deferred.asFuture` makes what asyncio awaits of what the
client returns, `Deferred.fromFuture` the reverse.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from twisted.internet import asyncioreactor

asyncioreactor.install()  # before txharedis, which imports the reactor

from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.task import react  # noqa: E402

from txharedis import HAClient, create_client  # noqa: E402


async def count(redis: HAClient, rounds: int) -> None:
    """An ordinary coroutine of asyncio."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await redis.incr("counted").asFuture(loop)
        await asyncio.sleep(0.01)


async def program(redis: HAClient) -> None:
    loop = asyncio.get_running_loop()
    await redis.delete("counted").asFuture(loop)
    async with asyncio.timeout(30):
        await asyncio.gather(*(count(redis, rounds=20) for _ in range(5)))
    print("counted to", await redis.get("counted").asFuture(loop), "on", redis.master)
    await redis.quit().asFuture(loop)


def main(reactor: Any, *nodes: str) -> Deferred[None]:
    redis = create_client(list(nodes), reactor=reactor)
    return Deferred.fromFuture(asyncio.ensure_future(program(redis)))


if __name__ == "__main__":
    react(main, sys.argv[1:])
