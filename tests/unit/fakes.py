"""In-memory stand-ins: a reactor that dials without a network, and a scripted Redis node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hiredis
from twisted.internet.address import IPv4Address
from twisted.internet.base import BaseConnector
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txharedis import lock as lock_module
from txharedis.errors import ResponseError
from txharedis.protocol import NodeProtocol
from txharedis.topology import META_KEY, Address, NodeView, Role


def encode(reply: object) -> bytes:
    """A reply as it goes over the wire."""
    match reply:
        case None:
            return b"$-1\r\n"
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case str():
            return b"+%b\r\n" % reply.encode()
        case int():
            return b":%d\r\n" % reply
        case Exception():
            return b"-%b\r\n" % str(reply).encode()
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(encode, reply))
    raise TypeError(reply)


class FakeReactor(Clock):
    """A clock that dials: each attempt waits in `dials` until the test decides on it."""

    def __init__(self) -> None:
        super().__init__()
        self.dials: list[Dial] = []

    def callLater(self, delay: float, callable: Any, *args: object, **kw: object) -> Any:
        assert delay >= 0, f"a real reactor refuses a delay of {delay}"
        return super().callLater(delay, callable, *args, **kw)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30) -> Any:
        connector = _Connector(host, port, factory, timeout, self)
        connector.connect()
        return connector

    @property
    def dial(self) -> Dial:
        """The newest attempt."""
        return self.dials[-1]


class _Connector(BaseConnector):
    """Twisted's own state machine over a fake transport."""

    def __init__(self, host: str, port: int, factory: Any, timeout: float, reactor: Any) -> None:
        super().__init__(factory, timeout, reactor)
        self.host, self.port = host, port

    def _makeTransport(self) -> Any:
        dial = Dial(self)
        self.reactor.dials.append(dial)  # type: ignore[attr-defined]
        return dial

    def getDestination(self) -> Any:
        return IPv4Address("TCP", self.host, self.port)


class Dial:
    """One attempt to connect, and the connection that becomes of it."""

    def __init__(self, connector: Any) -> None:
        self.connector = connector
        self.protocol: Any = None
        self.written = b""
        self.aborted = False
        self.over = False
        self._reader = hiredis.Reader()

    # What the test does.

    def accept(self) -> Dial:
        self.protocol = self.connector.buildProtocol(None)
        self.protocol.makeConnection(self)
        return self

    def refuse(self, error: Exception | None = None) -> None:
        self.failIfNotConnected(error or ConnectionRefusedError())

    def answer(self, *replies: object) -> None:
        self.deliver(b"".join(map(encode, replies)))

    def deliver(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def lose(self, error: Exception | None = None) -> None:
        if not self.over:
            self.over = True
            reason = Failure(error or ConnectionDone())
            self.protocol.connectionLost(reason)
            self.connector.connectionLost(reason)

    def commands(self) -> list[list[bytes]]:
        """What was written since the last time."""
        self._reader.feed(self.written)
        self.written = b""
        commands = []
        while (command := self._reader.gets()) is not False:
            commands.append(command)
        return commands

    # What the connector and the protocol ask of a transport.

    def failIfNotConnected(self, error: Exception) -> None:
        if not self.over and self.protocol is None:
            self.over = True
            self.connector.connectionFailed(Failure(error))

    def write(self, data: bytes) -> None:
        if not self.over:
            self.written += data

    def loseConnection(self) -> None:
        self.abortConnection()

    def abortConnection(self) -> None:
        if not self.aborted and not self.over:
            self.aborted = True
            self.connector.reactor.callLater(0, self.lose, ConnectionAborted())

    def getPeer(self) -> Any:
        return self.connector.getDestination()


class ScriptedNode:
    """A server with the few commands that a failover uses.

    `log` holds the commands in their order. `before[name]` is called before a command of that name
    runs; `errors[name]` is its reply instead. `writes` holds, for each piece written to it, the
    names of its commands and the settings that it left. A `silent` node takes commands and does
    nothing.
    """

    def __init__(self, clock: Clock, address: Address, **view: Any) -> None:
        self.clock = clock
        self.address = address
        self.run_id = f"run{address.port}"
        self.silent = False
        self.log: list[list[bytes]] = []
        self.errors: dict[str, Exception] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.writes: list[tuple[list[str], dict[bytes, bytes]]] = []
        self.settings = {
            b"replica-read-only": b"yes",
            b"replica-serve-stale-data": b"yes",
            b"min-replicas-to-write": b"0",
            b"repl-ping-replica-period": b"10",
        }
        self.keys: dict[bytes, Any] = {}
        self.expiry: dict[bytes, float] = {}
        self.follows: Address | None = None
        self.told: list[bytes] = []
        self._watched: dict[bytes, Any] = {}
        self._queued: list[list[bytes]] | None = None
        self._view = view
        self._reader = hiredis.Reader()
        self.protocol = NodeProtocol(clock, [["PING"]], 1.0, lambda *_: None, lambda *_: None)
        self.protocol.factory = None
        self.protocol.makeConnection(self)

    @property
    def lock_key(self) -> bytes:
        return b"haredis:failover:" + self.run_id.encode()

    @property
    def vote_key(self) -> bytes:
        return b"haredis:vote:" + self.run_id.encode()

    @property
    def locked(self) -> bool:
        return self.get(self.lock_key) is not None

    @property
    def meta(self) -> dict[bytes, bytes]:
        return dict(self.keys.get(META_KEY.encode(), {}))

    def names(self) -> list[str]:
        """The names of the commands that came, with the subcommand or setting of some."""
        return [_name(args) for args in self.log]

    def steps(self) -> list[str]:
        """Those names without the settings around each write."""
        return [
            name
            for names, _ in self.writes
            for place, name in enumerate(names)
            if not (name.startswith("CONFIG SET") and self._is_around(names, place))
        ]

    @staticmethod
    def _is_around(names: list[str], place: int) -> bool:
        return all(name.startswith("CONFIG SET") for name in names[:place]) or all(
            name.startswith("CONFIG SET") for name in names[place:]
        )

    def count(self, name: str) -> int:
        return sum(args[0] == name.encode() for args in self.log)

    def view(self) -> NodeView:
        """What a survey would find."""
        meta = self.meta
        values: dict[str, Any] = {
            "role": Role.MASTER if self.follows is None else Role.REPLICA,
            "follows": self.follows,
            "epoch": int(meta.get(b"epoch", 0)),
            "group": meta.get(b"group", b"").decode(),
            "meta_master": meta.get(b"master", b"").decode(),
            "meta_run_id": meta.get(b"run_id", b"").decode(),
            "ping_period": int(meta.get(b"ping_period", 0)),
            "vote": int(self.get(self.vote_key) or 0),
            "locked": self.locked,
            "replid": "a" * 40,
            "writable": self.follows is not None and self.settings[b"replica-read-only"] == b"no",
            **self._view,
        }
        return NodeView(self.address, self.run_id, **values)

    # The transport of the client's protocol.

    def write(self, data: bytes) -> None:
        self._reader.feed(data)
        names = []
        while (args := self._reader.gets()) is not False:
            if self.silent:
                continue
            names.append(_name(args))
            reply = encode(self.run(args))
            self.clock.callLater(0, self._reply, reply)
        self.writes.append((names, dict(self.settings)))

    def _reply(self, data: bytes) -> None:
        if not self.silent:
            self.protocol.dataReceived(data)

    def abortConnection(self) -> None:
        self.clock.callLater(0, self.protocol.connectionLost, Failure(ConnectionAborted()))

    loseConnection = abortConnection

    def die(self) -> None:
        self.silent = True
        self.protocol.connectionLost(Failure(ConnectionDone()))

    # The commands.

    def get(self, key: bytes) -> Any:
        if self.expiry.get(key, self.clock.seconds() + 1) <= self.clock.seconds():
            self.keys.pop(key, None)
            self.expiry.pop(key, None)
        return self.keys.get(key)

    def set(self, key: bytes, value: bytes, life: float | None = None) -> None:
        self.keys[key] = value
        self.expiry.pop(key, None)
        if life is not None:
            self.expiry[key] = self.clock.seconds() + life

    def run(self, args: list[bytes]) -> Any:
        name = args[0].decode().upper()
        self.log.append(args)
        hook = self.before.get(name)
        if hook is not None:
            hook()
        if name in self.errors:
            return self.errors[name]
        if self._queued is not None and name != "EXEC":
            self._queued.append(args)
            return "QUEUED"
        return getattr(self, f"run_{name.lower()}")(*args[1:])

    def run_ping(self) -> object:
        return "PONG"

    def run_config(self, what: bytes, name: bytes, value: bytes = b"") -> object:
        if what == b"GET":
            return [name, self.settings[name]]
        self.settings[name] = value
        return "OK"

    def run_replconf(self, *_: bytes) -> object:
        return ResponseError("ERR syntax error")

    def run_watch(self, key: bytes) -> object:
        self._watched = {key: self.get(key)}
        return "OK"

    def run_unwatch(self) -> object:
        self._watched = {}
        return "OK"

    def run_get(self, key: bytes) -> object:
        return self.get(key)

    def run_multi(self) -> object:
        self._queued = []
        return "OK"

    def run_exec(self) -> object:
        queued, self._queued = self._queued or [], None
        watched, self._watched = self._watched, {}
        if any(self.get(key) != value for key, value in watched.items()):
            return None
        return [getattr(self, f"run_{args[0].decode().lower()}")(*args[1:]) for args in queued]

    def run_slaveof(self, host: bytes, port: bytes) -> object:
        self.follows = None if host == b"NO" else Address(host.decode(), int(port))
        return "OK"

    def run_hset(self, key: bytes, *items: bytes) -> object:
        values = self.keys.setdefault(key, {})
        values.update(zip(items[::2], items[1::2], strict=True))
        return len(items) // 2

    def run_hdel(self, key: bytes, *fields: bytes) -> object:
        values = self.keys.get(key, {})
        return sum(values.pop(field, None) is not None for field in fields)

    def run_del(self, key: bytes) -> object:
        return int(self.keys.pop(key, None) is not None)

    def run_publish(self, channel: bytes, text: bytes) -> object:
        self.told.append(text)
        return 0

    def run_client(self, *_: bytes) -> object:
        return 0

    def run_eval(self, script: bytes, _: bytes, *args: bytes) -> object:
        stale = self.settings[b"replica-serve-stale-data"] == b"no"
        if self.follows is not None and stale and not self._view.get("link_up"):
            return ResponseError("MASTERDOWN Link with MASTER is down")
        if self.follows is None and self.settings[b"min-replicas-to-write"] != b"0":
            return ResponseError("NOREPLICAS Not enough good replicas to write.")
        if self.follows is not None and self.settings[b"replica-read-only"] == b"yes":
            return ResponseError("READONLY You can't write against a read only replica.")
        if script == lock_module._RELEASE:
            key, token = args
            return self.run_del(key) if self.get(key) == token else None
        assert script == lock_module._ACQUIRE
        lock, vote, meta, token, life, epoch = args
        voted = int(self.get(vote) or 0)
        seen = int(self.keys.get(meta, {}).get(b"epoch", 0))
        held = int(self.get(lock) is not None)
        if held or int(epoch) <= max(voted, seen):
            return [0, voted, seen, held]
        self.set(vote, epoch)
        self.set(lock, token, int(life) / 1000)
        return [1, int(epoch), seen, 0]


def _name(args: list[bytes]) -> str:
    return b" ".join(args[: 3 if args[0] in (b"CONFIG", b"SLAVEOF") else 1]).decode()


def settle(clock: Clock) -> None:
    """Let everything happen that needs no time."""
    for _ in range(200):
        clock.advance(0)
