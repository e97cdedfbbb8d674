"""Three ways to run SET, GET and LRANGE from Twisted: ours, txredisapi's, and as little as can be
done.

All return replies as bytes, without conversion.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import hiredis
import txredisapi
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol

from txharedis import HAClient

__all__ = ["Bare", "Contestant", "TxHARedis", "TxRedisApi"]


class Contestant(Protocol):
    """A connected client."""

    name: str

    def set(self, key: bytes, value: bytes) -> Deferred[Any]: ...

    def get(self, key: bytes) -> Deferred[Any]: ...

    def lrange(self, key: bytes, start: int, end: int) -> Deferred[Any]: ...

    async def close(self) -> None: ...


class TxHARedis:
    """A client of the whole group, on some terms."""

    def __init__(self, name: str, client: HAClient) -> None:
        self.name = f"txharedis, {name}"
        self._client = client
        self.set = client.set
        self.get = client.get
        self.lrange = client.lrange

    async def close(self) -> None:
        await self._client.quit()


class TxRedisApi:
    """One connection of txredisapi to one server."""

    name = "txredisapi, 1 connection"

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.set = connection.set
        self.get = connection.get
        self.lrange = connection.lrange

    @classmethod
    async def connect(cls, port: int) -> TxRedisApi:
        return cls(
            await txredisapi.Connection(
                "127.0.0.1", port, reconnect=False, charset=None, convertNumbers=False
            )
        )

    async def close(self) -> None:
        await self._connection.disconnect()


class Bare(TwistedProtocol):
    """The ceiling: hiredis in both directions and a queue of Deferreds, nothing else."""

    name = "bare protocol, hiredis"
    transport: Any

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[Deferred[Any]] = deque()
        self._closed: Deferred[None] = Deferred()

    @classmethod
    async def connect(cls, reactor: Any, port: int) -> Bare:
        factory: Any = Factory.forProtocol(cls)
        link: Bare = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
        return link

    def set(self, key: bytes, value: bytes) -> Deferred[Any]:
        return self._ask((b"SET", key, value))

    def get(self, key: bytes) -> Deferred[Any]:
        return self._ask((b"GET", key))

    def lrange(self, key: bytes, start: int, end: int) -> Deferred[Any]:
        return self._ask((b"LRANGE", key, start, end))

    def _ask(self, command: tuple[bytes | int, ...]) -> Deferred[Any]:
        reply: Deferred[Any] = Deferred()
        self._waiting.append(reply)
        self.transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]
        return reply

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.popleft().callback(reply)

    def connectionLost(self, reason: object = None) -> None:
        self._closed.callback(None)

    async def close(self) -> None:
        self.transport.loseConnection()
        await self._closed
