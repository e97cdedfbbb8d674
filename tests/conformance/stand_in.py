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
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.task import deferLater

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
            return Deferred.fromCoroutine(_set_up(self._factory.client, args))
        return self._factory.client.execute_command(*args, **options)

    def pipeline(self) -> Deferred[Any]:
        client = self._factory.client
        return client.pipeline().addCallback(lambda pipeline: PipelineOnLink(client, pipeline))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory.connection, name)


class PipelineOnLink:
    """A pipeline that has a transport: that of the link on which its commands go."""

    def __init__(self, client: HAClient, pipeline: Any) -> None:
        self._client = client
        self._pipeline = pipeline

    @property
    def transport(self) -> Any:
        return self._link.transport

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._link.transport = transport

    @property
    def _link(self) -> Any:
        service = self._client._group
        return service._group[service._traffic.address]._command

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


async def _set_up(client: HAClient, command: Sequence[Any]) -> str:
    """Run a command on every node: the servers of a group are set up alike, by whoever runs them.

    The tests that do so have one server, and set it up for the connections that come next.
    """
    nodes = list(client._group._group)
    while any(node.control is None for node in nodes):  # a quorum of them makes a client ready
        await deferLater(reactor, 0.01)
    for node in nodes:
        [reply] = await node.control.exchange(command)
        if isinstance(reply, Exception):
            raise reply
    return reply.decode()


class UnixConnectionHandler(ConnectionHandler):
    pass


class RedisFactory:
    """One HAClient, made where txredisapi's factory begins to connect."""

    reconnect = True
    protocol = txredisapi.RedisProtocol
    client: HAClient

    def __init__(
        self,
        uuid: object = None,
        dbid: int | None = None,
        poolsize: int = 1,
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
        return succeed(self.connection)

    @property
    def connection(self) -> Any:
        """What has the methods: the client, or its subscriptions where those are wanted."""
        if issubclass(self.protocol, txredisapi.SubscriberProtocol):
            return Subscriber(self.client, self.protocol())
        return self.client


class SubscriberFactory(RedisFactory):
    protocol = txredisapi.SubscriberProtocol

    def __init__(
        self, isLazy: bool = False, handler: type[ConnectionHandler] = ConnectionHandler
    ) -> None:
        super().__init__(isLazy=isLazy, handler=handler)


class Subscriber:
    """The subscriptions of a client; their messages go to the `messageReceived` of a protocol."""

    def __init__(self, client: HAClient, protocol: Any) -> None:
        self._client = client
        self._protocol = protocol
        self.unsubscribe = client.unsubscribe
        self.punsubscribe = client.punsubscribe

    def subscribe(self, channels: Any) -> Deferred[Any]:
        return self._client.subscribe(channels, self._received)

    def psubscribe(self, patterns: Any) -> Deferred[Any]:
        return self._client.psubscribe(patterns, self._received)

    @property
    def transport(self) -> Any:
        """All the links to all the nodes: an HAClient has no connection to lose."""
        return self

    def loseConnection(self) -> None:
        for node in self._client._group._group:
            node._drop_links()

    def _received(self, message: Any) -> None:
        self._protocol.messageReceived(message.pattern, message.channel, message.data)


_receive = NodeProtocol.dataReceived


class HiredisProtocol:
    """Where the links that carry the users' commands receive what their servers send."""

    dataReceived = _receive


def _data_received(link: NodeProtocol, data: bytes) -> None:
    (HiredisProtocol.dataReceived if link in _command_links() else _receive)(link, data)


def _command_links() -> list[NodeProtocol | None]:
    return [node._command for client in _open for node in client._group._group]


def Connection(host: str = "localhost", port: int = 6379, dbid: Any = None, **more: Any) -> Any:
    return _connect(f"{host}:{port}", dbid, more).deferred


def lazyConnection(
    host: str = "localhost", port: int = 6379, dbid: Any = None, **more: Any
) -> ConnectionHandler:
    return _connect(f"{host}:{port}", dbid, more).handler


def UnixConnection(path: str = "/tmp/redis.sock", dbid: Any = None, **more: Any) -> Any:
    return _connect(f"unix:{path}", dbid, more, UnixConnectionHandler).deferred


def lazyUnixConnection(
    path: str = "/tmp/redis.sock", dbid: Any = None, **more: Any
) -> ConnectionHandler:
    return _connect(f"unix:{path}", dbid, more, UnixConnectionHandler).handler


ConnectionPool = Connection
lazyConnectionPool = lazyConnection
UnixConnectionPool = UnixConnection
lazyUnixConnectionPool = lazyUnixConnection


def _connect(
    place: str,
    dbid: int | None,
    more: dict[str, Any],
    handler: type[ConnectionHandler] = ConnectionHandler,
) -> RedisFactory:
    # How many connections there are, and whether they come back, is not the caller's to say.
    more.pop("poolsize", None)
    more.pop("reconnect", None)
    factory = RedisFactory(place, dbid, handler=handler, **more)
    factory.connect_to(place)
    return factory


_REPLACED = (
    "Connection",
    "ConnectionHandler",
    "ConnectionPool",
    "HiredisProtocol",
    "RedisFactory",
    "SubscriberFactory",
    "UnixConnection",
    "UnixConnectionHandler",
    "UnixConnectionPool",
    "lazyConnection",
    "lazyConnectionPool",
    "lazyUnixConnection",
    "lazyUnixConnectionPool",
)
