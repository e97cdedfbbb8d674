"""Factories: NodeFactory keeps one link to a node, redialling it; OneLink dials once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ClientFactory, ReconnectingClientFactory
from twisted.python.failure import Failure

from txharedis.interfaces import DialledLink, Reactor
from txharedis.options import Options
from txharedis.topology import Address

__all__ = ["NodeFactory", "OneLink", "dial"]


def dial(reactor: Reactor, address: Address, factory: Any, options: Options, timeout: float) -> Any:
    """Dial a node as the options say: TCP, TLS over it, or a unix socket; returns the connector.

    The factory hears of everything as if it were plain TCP. Not through an endpoint: behind one
    a factory never hears that its connection failed or was lost.
    """
    if address.path:
        unix_reactor: Any = reactor
        return unix_reactor.connectUNIX(address.path, factory, timeout=timeout)
    context: Any = options.tls_context(address.host)
    if context is not None:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        clock: Any = reactor
        factory = TLSMemoryBIOFactory(context, True, factory, clock=clock)
    return reactor.connectTCP(address.host, address.port, factory, timeout=timeout)


class NodeFactory(ReconnectingClientFactory):
    """Dials `address`, and again after each failure, in doubling, jittered steps.

    `build` makes the protocol of a new connection. `gone(reason, was_ready)` is called for each
    attempt that failed and each link that was lost. `first_delay` and `max_delay` are in seconds.

    A link that worked is redialled at once: only that tells whether the node is gone. A link that
    `goes_by` another one leaves that to it: it is redialled while `goes_by()` says that the other
    one is there, and else waits for `redial_now`.
    """

    # Twisted has no, or narrower, types for these.
    clock: Any
    connector: Any
    initialDelay: Any
    delay: Any
    maxDelay: Any
    _callID: Any
    numPorts: int

    noisy = False
    factor = 2.0
    jitter = 0  # ours is bounded: Twisted's, in the long run, draws a delay below 0

    def __init__(
        self,
        reactor: Reactor,
        address: Address,
        build: Callable[[], DialledLink],
        gone: Callable[[Failure, bool], None],
        options: Options,
        *,
        first_delay: float,
        max_delay: float,
        timeout: float,
        goes_by: Callable[[], bool] | None = None,
    ) -> None:
        self._reactor = reactor
        self.clock = reactor
        self._address = address
        self._build = build
        self._gone = gone
        self._options = options
        self.initialDelay = self.delay = first_delay
        self.maxDelay = max_delay
        self._timeout = timeout
        self._goes_by = goes_by
        self._parked = False  # not redialled until redial_now
        self._ready_since: float | None = None
        self._closed = False
        self._stopped: list[Deferred[None]] = []
        self.link: DialledLink | None = None

    def dial(self) -> None:
        """Begin; called once."""
        self.connector = dial(self._reactor, self._address, self, self._options, self._timeout)

    def redial_now(self) -> None:
        """Cut the waiting short: there is news that the node may be back."""
        waiting = self._callID is not None and self._callID.active()
        if waiting:
            self._callID.cancel()
            self._callID = None
        if waiting or self._parked:
            self._parked = False
            self.delay = self.initialDelay
            self.connector.connect()

    def connect(self) -> None:
        """Dial again, unless the link that this one goes by is not there either."""
        if self._goes_by is None or self._goes_by():
            self.connector.connect()
        else:
            self._parked = True

    def link_ready(self) -> None:
        """The handshake is through: the next failure is a new one."""
        if not self._closed:
            self._ready_since = self._reactor.seconds()
            self.resetDelay()

    def close(self) -> Deferred[None]:
        """Stop dialling and drop the link; fires when nothing of it is left."""
        self._closed = True
        self._parked = False
        self.stopTrying()
        if self.link is not None:
            self.link.abort()
        if not self.numPorts:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        return stopped

    def stopFactory(self) -> None:
        waiting, self._stopped = self._stopped, []
        for stopped in waiting:
            stopped.callback(None)

    def retry(self, connector: Any = None) -> None:
        delay = self.delay
        self.delay = delay * random.uniform(0.7, 1.3)
        super().retry(self)  # which calls our `connect` after the delay
        self.delay = min(delay * self.factor, self.maxDelay)

    def startedConnecting(self, connector: Any) -> None:
        self.connector = connector

    def buildProtocol(self, addr: object) -> Any:
        protocol = self._build()
        protocol.factory = self
        self.link = protocol
        return protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._gone(reason, False)
        super().clientConnectionFailed(connector, reason)

    def clientConnectionLost(self, connector: Any, unused_reason: Failure) -> None:
        ready_since, self._ready_since = self._ready_since, None
        self.link = None
        lived = 0.0 if ready_since is None else self._reactor.seconds() - ready_since
        self._gone(unused_reason, ready_since is not None)
        if self._closed:
            return
        if self._goes_by is None and lived > self.initialDelay:
            # It worked until now. Whether the node is gone is told by dialling it, at once.
            connector.connect()
        else:
            super().clientConnectionLost(connector, unused_reason)


class OneLink(ClientFactory):
    """Dials once. `build` makes the protocol.

    `gone(reason)` is called once: when the attempt failed, or when the connection that came of it
    has ended.
    """

    noisy = False

    def __init__(self, build: Callable[[], DialledLink], gone: Callable[[Failure], None]) -> None:
        self._build = build
        self._gone = gone
        self._link: DialledLink | None = None
        self._connector: Any = None

    def dial(self, reactor: Reactor, address: Address, options: Options) -> None:
        """Begin; called once."""
        self._connector = dial(reactor, address, self, options, options.connect_timeout)

    def abort(self) -> None:
        """Give up the attempt, or drop the link at once; `gone` tells when that is done."""
        if self._link is not None:
            self._link.abort()
        elif self._connector is not None:
            self._connector.disconnect()

    def buildProtocol(self, addr: object) -> Any:
        self._link = protocol = self._build()
        protocol.factory = self
        return protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._gone(reason)

    def clientConnectionLost(self, connector: Any, unused_reason: Failure) -> None:
        self._gone(unused_reason)
