"""A contestant on asyncio: python -m benchmarks.asyncio_peer redis-py|coredis PORT

Orders and answers are lines of JSON, see `processes`:

{"do": "round", "how": "pipeline" or "tasks", "command", "keys", "size", "seconds"}
                                     -> count, elapsed, cpu, p50, p99
{"do": "subscribe", "channel"}       subscribe, with redis-py
{"do": "receive", "count"}           -> elapsed, cpu, when so many messages were received

Between two orders the whole process stands still: nothing is read from its connections.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from benchmarks.report import quantile

__all__ = ["CONNECTIONS", "CoRedis", "RedisPy"]

CONNECTIONS = 100
"""At most, for tasks."""


class Client(Protocol):
    def one(self, command: str, key: bytes, value: bytes) -> Awaitable[object]: ...

    async def many(self, command: str, keys: Sequence[bytes], value: bytes) -> int: ...


def _words(command: str, key: bytes, value: bytes) -> tuple[Any, ...]:
    return {"set": (key, value), "get": (key,), "lrange": (key, 0, -1)}[command]


class RedisPy:
    """redis-py's asyncio client: tasks share a pool of connections."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._pubsub: Any = None

    @classmethod
    async def open(cls, port: int, stack: AsyncExitStack) -> RedisPy:
        from redis.asyncio import BlockingConnectionPool, Redis

        pool: Any = BlockingConnectionPool(
            host="127.0.0.1", port=port, max_connections=CONNECTIONS, timeout=None
        )
        client: Any = Redis(connection_pool=pool)
        stack.push_async_callback(client.aclose)
        return cls(client)

    def one(self, command: str, key: bytes, value: bytes) -> Awaitable[object]:
        reply: Awaitable[object] = getattr(self._client, command)(*_words(command, key, value))
        return reply

    async def many(self, command: str, keys: Sequence[bytes], value: bytes) -> int:
        pipeline = self._client.pipeline(transaction=False)
        add = getattr(pipeline, command)
        for key in keys:
            add(*_words(command, key, value))
        return len(await pipeline.execute())

    async def subscribe(self, channel: str) -> None:
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        await self._pubsub.subscribe(channel)
        await self._pubsub.get_message(timeout=5)  # its confirmation

    async def receive(self, count: int) -> None:
        async for _ in self._pubsub.listen():
            count -= 1
            if not count:
                return


class CoRedis:
    """coredis: tasks share a pool of connections."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    async def open(cls, port: int, stack: AsyncExitStack) -> CoRedis:
        from coredis import Redis

        client: Any = Redis(host="127.0.0.1", port=port, max_connections=CONNECTIONS)
        await stack.enter_async_context(client)
        return cls(client)

    def one(self, command: str, key: bytes, value: bytes) -> Awaitable[object]:
        reply: Awaitable[object] = getattr(self._client, command)(*_words(command, key, value))
        return reply

    async def many(self, command: str, keys: Sequence[bytes], value: bytes) -> int:
        async with self._client.pipeline(transaction=False) as pipeline:
            add = getattr(pipeline, command)
            replies = [add(*_words(command, key, value)) for key in keys]
        await replies[-1]
        return len(replies)


async def _round(client: Client, order: dict[str, Any]) -> dict[str, Any]:
    keys = [key.encode() for key in order["keys"]]
    command, value = order["command"], b"v" * order["size"]
    latencies: list[float] = []
    count = 0
    began, cpu_began = time.perf_counter(), time.process_time()
    end = began + order["seconds"]

    async def chain(key: bytes) -> None:
        nonlocal count
        while (sent := time.perf_counter()) < end:
            await client.one(command, key, value)
            count += 1
            if len(keys) == 1:
                latencies.append(time.perf_counter() - sent)

    if order["how"] == "pipeline":
        while time.perf_counter() < end:
            count += await client.many(command, keys, value)
    else:
        await asyncio.gather(*map(chain, keys))
    return {
        "count": count,
        "elapsed": time.perf_counter() - began,
        "cpu": time.process_time() - cpu_began,
        "p50": quantile(latencies, 0.5) if latencies else None,
        "p99": quantile(latencies, 0.99) if latencies else None,
    }


async def _obey(client: Any, order: dict[str, Any]) -> dict[str, Any]:
    if order["do"] == "round":
        return await _round(client, order)
    if order["do"] == "subscribe":
        await client.subscribe(order["channel"])
        return {}
    if order["do"] == "receive":
        began, cpu_began = time.perf_counter(), time.process_time()
        await client.receive(order["count"])
        return {
            "elapsed": time.perf_counter() - began,
            "cpu": time.process_time() - cpu_began,
        }
    raise ValueError(f"unknown order {order['do']!r}")


async def main(name: str, port: int) -> None:
    kind: Any = {"redis-py": RedisPy, "coredis": CoRedis}[name]
    async with AsyncExitStack() as stack:
        client = await kind.open(port, stack)
        while line := sys.stdin.readline():
            try:
                answer = await _obey(client, json.loads(line))
            except Exception as error:
                answer = {"error": repr(error)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
