"""TCP links that can be slowed, frozen, broken and refused, and networks that can be partitioned.

Everything runs in the caller's reactor, on loopback addresses. A proxy is itself the end of two
connections: dialling one whose target is down succeeds, and is reset at once.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence, Set
from enum import Enum, Flag, auto
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from ._loopback import LOOPBACK, Dialler, ReservedPort, Timer

__all__ = ["FromAddress", "Network", "ProxyReactor", "TcpProxy"]

# A lane that holds this many late bytes stops reading until some have left.
_MAX_LATE_BYTES = 1 << 20


class ProxyReactor(Dialler, Protocol):
    """A reactor that can accept TCP connections too."""

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any: ...


class _Mode(Enum):
    """What becomes of connections."""

    FORWARDING = auto()
    CUT = auto()
    REFUSING = auto()


class _Way(Flag):
    """Directions of travel."""

    NEITHER = 0
    TO_TARGET = auto()
    FROM_TARGET = auto()
    BOTH = TO_TARGET | FROM_TARGET


def _ways(to_target: bool, from_target: bool) -> _Way:
    to_way = _Way.TO_TARGET if to_target else _Way.NEITHER
    return to_way | (_Way.FROM_TARGET if from_target else _Way.NEITHER)


class TcpProxy:
    """Forwards connections to a port of 127.0.0.1, as well or as badly as it is told.

    Backpressure passes through: it reads from one side only as fast as the other side takes it.
    What its `stall`, `cut`, `refuse` and `delay` do holds for connections present and future.
    The target sees the address each connection comes from, though not its port.
    """

    def __init__(self, reactor: ProxyReactor, target_port: int) -> None:
        self.target_port = target_port
        self._reactor = reactor
        self._reservation = ReservedPort()
        self._listener: Any = None
        self._mode = _Mode.FORWARDING
        self._stalled = _Way.NEITHER
        self._delays = {_Way.TO_TARGET: 0.0, _Way.FROM_TARGET: 0.0}
        self._severed: Callable[[str], bool] = _nobody
        self._severed_ways = _Way.BOTH
        self._pairs: set[_Pair] = set()
        self._empty: list[Deferred[None]] = []

    def __repr__(self) -> str:
        mode = self._mode.name.lower()
        return f"<TcpProxy {self.address} to {self.target_port} {mode}, {self.connections} links>"

    @property
    def port(self) -> int:
        """The TCP port to dial; the same for the life of this object."""
        return self._reservation.number

    @property
    def address(self) -> str:
        """Where to dial: "127.0.0.1:<port>"."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections it has accepted and not seen the end of."""
        return len(self._pairs)

    def start(self) -> None:
        """Listen. Raises twisted.internet.error.CannotListenError if the port was lost."""
        if self._listener is None:
            factory = Factory.forProtocol(self._accept)
            factory.noisy = False
            self._listener = self._reactor.listenTCP(self.port, factory, interface=LOOPBACK)

    async def stop(self) -> None:
        """Stop listening and abort all connections; return when they are closed."""
        await self.refuse()
        if self._pairs:
            empty: Deferred[None] = Deferred()
            self._empty.append(empty)
            await empty

    def stall(self, *, to_target: bool = True, from_target: bool = True) -> None:
        """Keep and accept connections, but move neither bytes nor news of an end, until `resume`.

        Another call replaces this one. What the kernel already has arrives. While nothing may go
        to the target, it is not dialled either.
        """
        self._stalled = _ways(to_target, from_target)
        self._apply()

    def resume(self) -> None:
        """End a stall: what has waited goes on."""
        self._stalled = _Way.NEITHER
        self._apply()

    def cut(self) -> None:
        """Abort (RST) all connections, and each new one as soon as it is accepted."""
        self._mode = _Mode.CUT
        self._abort_all()
        self.start()

    def refuse(self) -> Deferred[None]:
        """Stop listening, so that dialling is refused, and abort all connections.

        Returns a Deferred that fires when the port is closed, one reactor turn later.
        """
        self._mode = _Mode.REFUSING
        self._abort_all()
        listener, self._listener = self._listener, None
        return maybeDeferred(listener.stopListening if listener else lambda: None)

    def restore(self) -> None:
        """End all that is wrong here: listen, and forward both ways without stall or delay.

        Raises twisted.internet.error.CannotListenError if the port is not closed yet after
        `refuse`, or was lost.
        """
        self._mode = _Mode.FORWARDING
        self._stalled = _Way.NEITHER
        self._delays = dict.fromkeys(self._delays, 0.0)
        self._apply()
        self.start()

    def delay(self, seconds: float, *, from_target: bool = True, to_target: bool = False) -> None:
        """Let each chunk of bytes arrive `seconds` late these ways, in order; 0 ends it."""
        for way in _ways(to_target, from_target):
            self._delays[way] = seconds
        self._apply()

    def sever(
        self,
        severed: Callable[[str], bool],
        *,
        to_target: bool = True,
        from_target: bool = True,
    ) -> None:
        """Stall the connections that come from an address of which `severed` is true.

        Both ways, or one of them. Another call replaces this one.
        """
        self._severed = severed
        self._severed_ways = _ways(to_target, from_target)
        self._apply()

    def mend(self, *, abort: bool = False) -> None:
        """Undo `sever`: its connections go on, or with `abort` are aborted."""
        severed, self._severed = self._severed, _nobody
        if abort:
            for pair in [pair for pair in self._pairs if severed(pair.source)]:
                pair.abort()
        self._apply()

    def _accept(self) -> _End:
        pair = _Pair(self)
        return pair.client

    def _opened(self, pair: _Pair) -> None:
        self._pairs.add(pair)
        if self._mode is _Mode.FORWARDING:
            pair.apply()
        else:
            pair.abort()

    def _closed(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        if not self._pairs:
            empty, self._empty = self._empty, []
            for deferred in empty:
                deferred.callback(None)

    def _apply(self) -> None:
        for pair in list(self._pairs):
            pair.apply()

    def _abort_all(self) -> None:
        for pair in list(self._pairs):
            pair.abort()

    def _open_ways(self, source: str) -> _Way:
        """Which ways bytes of a connection from `source` may move now."""
        stopped = self._stalled
        if self._severed(source):
            stopped |= self._severed_ways
        return ~stopped


def _nobody(source: str) -> bool:
    return False


class _Pair:
    """An accepted connection, and the one to the target that belongs to it."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.source = ""
        self.client = _End(self._accepted, self._lost)
        self.target = _End(self._reached, self._lost)
        self._proxy = proxy
        self._dialling: Deferred[Any] | None = None
        self._lanes = {
            _Way.TO_TARGET: _Lane(proxy._reactor, self.client, self.target),
            _Way.FROM_TARGET: _Lane(proxy._reactor, self.target, self.client),
        }
        self._open_ends = 0
        self._aborted = False

    def apply(self) -> None:
        """Do what the proxy now says, dialling the target when that is allowed."""
        ways = self._proxy._open_ways(self.source)
        if self._dialling is None and _Way.TO_TARGET in ways and not self._aborted:
            self._dial()
        for way, lane in self._lanes.items():
            lane.set(moving=way in ways, delay=self._proxy._delays[way])

    def abort(self) -> None:
        """Reset both connections, and forget what was on its way."""
        self._aborted = True
        for lane in self._lanes.values():
            lane.drop()
        if self._dialling is not None:
            self._dialling.cancel()
        self.client.abort()
        self.target.abort()

    def _dial(self) -> None:
        # From the same address, so that the target sees who it is.
        dialler = FromAddress(self._proxy._reactor, self.source)
        endpoint = TCP4ClientEndpoint(dialler, LOOPBACK, self._proxy.target_port)
        factory: Any = Factory.forProtocol(lambda: self.target)
        factory.noisy = False
        self._dialling = endpoint.connect(factory)
        self._dialling.addErrback(lambda _: self.client.abort())

    def _accepted(self) -> None:
        self._open_ends += 1
        self.client.transport.pauseProducing()  # until the target is reached
        self.source = self.client.transport.getPeer().host
        self._proxy._opened(self)

    def _reached(self) -> None:
        self._open_ends += 1
        for lane in self._lanes.values():
            lane.connect()

    def _lost(self, end: _End, orderly: bool) -> None:
        for lane in self._lanes.values():
            if lane.source is end:
                lane.end(orderly)
            else:
                lane.drop()
        self._open_ends -= 1
        if not self._open_ends:
            self._proxy._closed(self)


class _End(TwistedProtocol):
    """One of the two connections of a pair."""

    transport: Any  # ITCPTransport: zope's interfaces tell mypy nothing

    def __init__(self, opened: Callable[[], None], closed: Callable[[_End, bool], None]) -> None:
        self._opened = opened
        self._closed = closed
        self.receive: Callable[[bytes], None] = lambda data: None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._opened()

    def dataReceived(self, data: bytes) -> None:
        self.receive(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._closed(self, isinstance(reason.value, ConnectionDone))

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()


class _Ending(Enum):
    ORDERLY = auto()
    RESET = auto()


class _Lane:
    """What one end of a pair sends to the other: the queue between them, usually empty.

    It is the push producer of the sink's transport, which tells it when its buffer is full.
    """

    def __init__(self, reactor: ProxyReactor, source: _End, sink: _End) -> None:
        self.source = source
        self.sink = sink
        self._reactor = reactor
        self._queue: deque[tuple[float, bytes | _Ending]] = deque()
        self._queued_bytes = 0
        self._moving = True
        self._delay = 0.0
        self._sink_takes = False
        self._dropping = False
        self._timer: Timer | None = None
        source.receive = self._receive

    def connect(self) -> None:
        """Both ends are connected: begin."""
        self._sink_takes = True
        self.sink.transport.registerProducer(self, True)
        self._flush()

    def set(self, *, moving: bool, delay: float) -> None:
        """Let bytes move or not; those read from now on are `delay` seconds late."""
        self._moving = moving
        self._delay = delay
        self._flush()

    def end(self, orderly: bool) -> None:
        """The source is closed: so will be the sink, after all that is still to arrive there."""
        self._put(_Ending.ORDERLY if orderly else _Ending.RESET)

    def drop(self) -> None:
        """There is no sink any more: read, and throw away."""
        self._dropping = True
        self._queue.clear()
        self._queued_bytes = 0
        self._flush()

    def pauseProducing(self) -> None:
        self._sink_takes = False
        self._flush()

    def resumeProducing(self) -> None:
        self._sink_takes = True
        self._flush()

    def stopProducing(self) -> None:
        self.drop()

    def _receive(self, data: bytes) -> None:
        self._queued_bytes += len(data)
        self._put(data)

    def _put(self, item: bytes | _Ending) -> None:
        if self._dropping:
            return
        self._queue.append((self._reactor.seconds() + self._delay, item))
        self._flush()

    def _flush(self) -> None:
        """Pass on what is due and allowed; read on, if there is room."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        while self._queue and self._moving and self._sink_takes:
            due, item = self._queue[0]
            wait = due - self._reactor.seconds()
            if wait > 0:
                self._timer = self._reactor.callLater(wait, self._flush)
                break
            self._queue.popleft()
            self._pass_on(item)
        self._read_or_not()

    def _pass_on(self, item: bytes | _Ending) -> None:
        if isinstance(item, bytes):
            self._queued_bytes -= len(item)
            self.sink.transport.write(item)
        elif item is _Ending.ORDERLY:
            self.sink.transport.unregisterProducer()
            self.sink.transport.loseConnection()
        else:
            self.sink.abort()

    def _read_or_not(self) -> None:
        if self.source.transport is None:
            return
        room = self._moving and self._sink_takes and self._queued_bytes < _MAX_LATE_BYTES
        if room or self._dropping:
            self.source.transport.resumeProducing()
        else:
            self.source.transport.pauseProducing()


class Server(Protocol):
    """The part of `LocalServer` a network needs."""

    @property
    def port(self) -> int: ...

    @property
    def source(self) -> str | None: ...


class Network:
    """Proxies in front of servers, which look at the address a connection comes from.

    Each server needs an address of its own (`LocalServer.source`), and the servers and clients
    must reach a server only through its proxy. Clients get an address from `FromAddress`.
    Linux has all of 127.0.0.0/8; macOS needs an alias on lo0 for each address.

    Raises ValueError if a server has no address, or two have the same.
    """

    def __init__(self, reactor: ProxyReactor, servers: Sequence[Server]) -> None:
        sources = [server.source for server in servers]
        if None in sources or len(set(sources)) < len(sources):
            raise ValueError(f"each server needs a source address of its own, not {sources}")
        self.proxies = [TcpProxy(reactor, server.port) for server in servers]
        self._behind = {
            str(server.source): proxy for server, proxy in zip(servers, self.proxies, strict=True)
        }

    def start(self) -> None:
        """Start all proxies. `proxies[k]` is in front of server k."""
        for proxy in self.proxies:
            proxy.start()

    async def stop(self) -> None:
        """Stop all proxies; return when all their connections are closed."""
        await DeferredList([Deferred.fromCoroutine(proxy.stop()) for proxy in self.proxies])

    def partition(self, *sides: Set[str]) -> None:
        """Let addresses on different sides hear nothing of each other, until `heal`.

        A connection from an address on one side to a server on another is stalled without a word;
        new ones are accepted, and dead. Addresses on no side reach, and are reached by, everyone.
        Another call replaces the sides. Raises ValueError if an address is on two sides.
        """
        side_of: dict[str, int] = {}
        for number, side in enumerate(sides):
            for address in side:
                if side_of.setdefault(address, number) != number:
                    raise ValueError(f"{address} is on two sides")
        for server, proxy in self._behind.items():
            proxy.sever(functools.partial(_apart, side_of, server))

    def mute(self, speakers: Set[str], listeners: Set[str]) -> None:
        """Let the listeners hear nothing of the speakers, who go on hearing them, until `heal`.

        It replaces a partition, and is replaced by one. Raises ValueError if an address is both.
        """
        if both := speakers & listeners:
            raise ValueError(f"{', '.join(sorted(both))} cannot be a speaker and a listener")
        for server, proxy in self._behind.items():
            proxy.mend()
            if server in listeners:
                proxy.sever(speakers.__contains__, from_target=False)
            elif server in speakers:
                proxy.sever(listeners.__contains__, to_target=False)

    def heal(self, *, abort: bool = False) -> None:
        """End the partition: what was stalled goes on, or is aborted, as TCP would in the end."""
        for proxy in self.proxies:
            proxy.mend(abort=abort)


def _apart(side_of: dict[str, int], server: str, source: str) -> bool:
    ends = {side_of.get(server), side_of.get(source)}
    return len(ends) == 2 and None not in ends


class FromAddress:
    """A reactor whose TCP connections come from one address of this machine.

    Everything but `connectTCP` is the given reactor's.
    """

    def __init__(self, reactor: Dialler, address: str) -> None:
        self.address = address
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Any:
        """Connect as `IReactorTCP` says, from this address unless the caller binds another."""
        source = bindAddress or (self.address, 0)
        return self._reactor.connectTCP(host, port, factory, timeout, source)
