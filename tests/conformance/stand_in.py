"""A module that stands in for txredisapi: its connections are HAClients.

Everything that is not a connection is txredisapi's own. Where a connection has parts that an
HAClient does not have, such as its transport, the part nearest to it takes its place.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import txredisapi
from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed
from txharedis import HAClient, create_client
from txharedis.protocol import NodeProtocol

__all__ = ["close_all", "install"]

_group: list[str] = []
_open: set[HAClient] = set()


def install(group: Sequence[str]) -> None:
    """Stand in for txredisapi, in this process and for whoever imports it from here on.

    `group` holds the nodes of which every client is made, whatever place is named; when it is
    empty, a client is made of the one node that is named.
    """
    _group[:] = group
    module = ModuleType("txredisapi", __doc__)
    vars(module).update(
        {name: value for name, value in vars(txredisapi).items() if not name.startswith("__")}
    )
    vars(module).update({name: globals()[name] for name in _REPLACED})
    sys.modules["txredisapi"] = module
    NodeProtocol.dataReceived = _data_received
    txredisapi.RedisFactory.startConnecting = _not_ours


def _not_ours(factory: Any, endpoint: object) -> None:
    raise AssertionError(f"a connection of txredisapi itself, made by {type(factory).__name__}")


def close_all() -> Deferred[Any]:
    """Close the clients that a test has left open."""
    return DeferredList([_close(client) for client in list(_open)])


def _close(client: HAClient) -> Deferred[Any]:
    _open.discard(client)
    return client.disconnect()


class ConnectionHandler:
    """What the functions below return: the methods are those of an HAClient."""

    def __init__(self, factory: RedisFactory) -> None:
        self._factory = factory
        self._connected = factory.deferred

    def disconnect(self) -> Deferred[Any]:
        return _close(self._factory.client)

    def execute_command(self, *args: Any, **options: Any) -> Deferred[Any]:
        if [str(word).upper() for word in args[:2]] == ["CONFIG", "SET"]:
            return _set_up(self._factory.client, args)
        return self._factory.client.execute_command(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory.client, name)


def _set_up(client: HAClient, command: Sequence[Any]) -> Deferred[Any]:
    """Run a command on every node: the servers of a group are set up alike, by whoever runs them.

    The tests that do so have one server, and set it up for the connections that come next.
    """
    links = [node.control for node in client._group._group]
    return gatherResults([link.exchange(command) for link in links]).addCallback(
        lambda replies: replies[0][0].decode()
    )


class UnixConnectionHandler(ConnectionHandler):
    pass


class RedisFactory:
    """One HAClient, made where txredisapi's factory begins to connect."""

    reconnect = True
    client: HAClient

    def __init__(
        self,
        uuid: object,
        dbid: int | None,
        poolsize: int,
        isLazy: bool = False,
        handler: type[ConnectionHandler] = ConnectionHandler,
        charset: str | None = "utf-8",
        password: str | None = None,
        replyTimeout: float | None = None,
        convertNumbers: bool = True,
        username: str | None = None,
    ) -> None:
        self._options = {
            "db": dbid or 0,
            "charset": charset,
            "username": username,
            "password": password,
            "command_timeout": replyTimeout,
            "convert_numbers": convertNumbers,
        }
        self.deferred: Deferred[ConnectionHandler] = Deferred()
        self.handler = handler(self)

    def startConnecting(self, endpoint: Any) -> None:
        self.connect_to(f"{endpoint._hostText}:{endpoint._port}")

    def connect_to(self, place: str) -> None:
        self.client = create_client(_group or place, **self._options)
        _open.add(self.client)
        self.client.when_ready().addCallback(lambda _: self.handler).chainDeferred(self.deferred)

    def getConnection(self, peek: bool = False) -> Deferred[Any]:
        return succeed(self.client)


def Connection(
    host: str = "localhost", port: int = 6379, dbid: int | None = None, **options: Any
) -> Deferred[ConnectionHandler]:
    return _connect(f"{host}:{port}", dbid, options).deferred


def lazyConnection(
    host: str = "localhost", port: int = 6379, dbid: int | None = None, **options: Any
) -> ConnectionHandler:
    return _connect(f"{host}:{port}", dbid, options).handler


_receive = NodeProtocol.dataReceived


class HiredisProtocol:
    """Where the links that carry the users' commands receive what their servers send."""

    dataReceived = _receive


def _data_received(link: NodeProtocol, data: bytes) -> None:
    (HiredisProtocol.dataReceived if link in _command_links() else _receive)(link, data)


def _command_links() -> list[NodeProtocol | None]:
    return [node._command for client in _open for node in client._group._group]


ConnectionPool = Connection
lazyConnectionPool = lazyConnection


def _connect(place: str, dbid: int | None, options: dict[str, Any], **more: Any) -> RedisFactory:
    # How many connections there are, and whether they come back, is not the caller's to say.
    poolsize = options.pop("poolsize", 1)
    options.pop("reconnect", None)
    factory = RedisFactory(place, dbid, poolsize, **options, **more)
    factory.connect_to(place)
    return factory


_REPLACED = (
    "Connection",
    "ConnectionHandler",
    "ConnectionPool",
    "HiredisProtocol",
    "RedisFactory",
    "UnixConnectionHandler",
    "lazyConnection",
    "lazyConnectionPool",
)
