"""Process: a simulated client process, which is the reactor of its clients."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.base import BaseConnector
from twisted.internet.error import (
    AlreadyCalled,
    AlreadyCancelled,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.python.failure import Failure

from .network import End, Endpoint

if TYPE_CHECKING:
    from .world import World

__all__ = ["Process", "Timer"]


class Timer:
    """IDelayedCall. `due` is a time of the process' own clock."""

    __slots__ = ("_args", "_call", "_kw", "_over", "_process", "due")

    def __init__(
        self,
        process: Process,
        due: float,
        call: Callable[..., object],
        args: tuple[Any, ...],
        kw: dict[str, Any],
    ) -> None:
        self._process = process
        self._call = call
        self._args = args
        self._kw = kw
        self._over: type[Exception] | None = None
        self.due = due

    def __repr__(self) -> str:
        return f"<Timer {self.due:.6f} {self._call}>"

    def active(self) -> bool:
        return self._over is None

    def getTime(self) -> float:
        return self.due

    def cancel(self) -> None:
        if self._over is not None:
            raise self._over
        self._over = AlreadyCancelled
        self._process.timers.pop(self, None)

    def fire(self) -> None:
        """Its time has come."""
        process = self._process
        if self._over is not None:
            return
        if process.paused:
            process.overdue.append(self)
            return
        self._over = AlreadyCalled
        del process.timers[self]
        process.not_before = self.due
        self._call(*self._args, **self._kw)


class Process(Endpoint):
    """A client process, and its reactor: give it to `create_client(..., reactor=process)`.

    rate    how many seconds its clock counts in one second
    offset  what it showed at the beginning
    timers  the calls that wait, each a Timer

    Killed, it is gone for good with all its timers; what it has written is under way. Whoever waits
    in it is kept waiting until the end of the world.
    """

    def __init__(self, world: World, name: str, *, rate: float, offset: float) -> None:
        super().__init__(world, name)
        self.rate = rate
        self.offset = offset
        self.not_before = 0.0
        self.timers: dict[Timer, None] = {}
        self.overdue: list[Timer] = []
        self.transports: dict[Transport, None] = {}
        self._remains: list[Timer] = []

    def __repr__(self) -> str:
        return f"<Process {self.name}>"

    def seconds(self) -> float:
        now = self.world.now * self.rate + self.offset
        # A timer is never early, whatever was lost in converting.
        return now if now > self.not_before else self.not_before

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any
    ) -> Timer:
        if delay < 0:
            raise AssertionError(f"a reactor refuses a delay of {delay}")
        world = self.world
        now = world.now * self.rate + self.offset  # as `seconds`
        if now < self.not_before:
            now = self.not_before
        timer = Timer(self, now + delay, callable, args, kw)
        if self.alive:
            self.timers[timer] = None
            world.count = count = world.count + 1
            heappush(world.heap, (world.now + delay / self.rate, count, timer.fire, ()))
        return timer

    def getDelayedCalls(self) -> list[Timer]:
        return list(self.timers)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30) -> Any:
        connector = _Connector(self, host, port, factory, timeout)
        connector.connect()
        return connector

    def accepted(self, end: End) -> None:
        end.drop()

    def resume(self) -> None:
        """The timers that are overdue and the bytes that have come: which first is chance."""
        if not self.paused:
            return
        timers_first = self.world.random.random() < 0.5
        if timers_first:
            self._fire_overdue()
        super().resume()
        if not timers_first:
            self._fire_overdue()

    def _fire_overdue(self) -> None:
        overdue, self.overdue = self.overdue, []
        paused, self.paused = self.paused, False
        for timer in overdue:
            timer.fire()
        self.paused = paused and self.alive

    def kill(self) -> None:
        super().kill()
        self._remains = [*self._remains, *self.timers]
        for timer in self.timers:
            timer._over = AlreadyCancelled
        self.timers.clear()
        self.overdue.clear()

    def bury(self) -> None:
        """The world ends: kill it, and tell its clients that their links are lost.

        Else their coroutines would be closed by the garbage collector, wherever they wait: a lock,
        say, could not be given back as it has to.
        """
        if self.alive:
            self.kill()
        for _ in range(3):  # they dial again
            transports, self.transports = self.transports, {}
            for transport in transports:
                transport.end()
        self.transports.clear()
        self._remains.clear()


class _Connector(BaseConnector):
    """Twisted's own state machine of a connector."""

    def __init__(
        self, process: Process, host: str, port: int, factory: Any, timeout: float
    ) -> None:
        reactor: Any = process
        super().__init__(factory, timeout, reactor)
        self.process = process
        self.host = host
        self.port = port

    def _makeTransport(self) -> Any:
        return Transport(self)

    def getDestination(self) -> Any:
        return IPv4Address("TCP", self.host, self.port)


class Transport:
    """ITCPTransport, as far as the client uses it."""

    connected_ = False
    disconnecting = False

    def __init__(self, connector: _Connector) -> None:
        self._connector = connector
        self._process = process = connector.process
        self._protocol: Any = None
        self._end: End | None = None
        self._over = False
        process.transports[self] = None
        self._dial = process.world.network.dial(process, connector.host, connector.port, self)

    # What the network tells.

    def connected(self, end: End) -> None:
        self._end = end
        address: Any = self._connector.getDestination()
        self._protocol = self._connector.buildProtocol(address)
        self._protocol.makeConnection(self)

    def refused(self) -> None:
        self.failIfNotConnected(ConnectionRefusedError())

    def received(self, items: list[bytes]) -> None:
        if self._protocol is not None and not self.disconnecting:
            self._protocol.dataReceived(items[0] if len(items) == 1 else b"".join(items))

    def ended(self, clean: bool) -> None:
        if self._protocol is not None:
            self._lose(ConnectionDone() if clean else ConnectionLost())
        else:
            self.failIfNotConnected(ConnectionLost())

    def end(self) -> None:
        """The process is dead."""
        if self._protocol is None:
            self.failIfNotConnected(ConnectionLost())
        else:
            self._lose(ConnectionLost())

    # What the connector and the protocol ask for.

    def failIfNotConnected(self, error: Exception) -> None:
        if not self._over and self._protocol is None:
            self._over = self._dial.cancelled = True
            self._process.transports.pop(self, None)
            self._connector.connectionFailed(Failure(error))

    def write(self, data: bytes) -> None:
        if self._end is not None and not self.disconnecting:
            self._end.send(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """It is never told to pause."""

    def unregisterProducer(self) -> None:
        pass

    def abortConnection(self) -> None:
        self._drop(ConnectionAborted(), clean=False)

    def loseConnection(self) -> None:
        self._drop(ConnectionDone(), clean=True)

    def _drop(self, error: Exception, *, clean: bool) -> None:
        if self.disconnecting or self._over or self._end is None:
            return
        self.disconnecting = True
        self._end.drop(clean=clean)
        self._process.callLater(0, self._lose, error)

    def _lose(self, error: Exception) -> None:
        if not self._over:
            self._over = self.disconnecting = True
            self._process.transports.pop(self, None)
            reason = Failure(error)
            self._protocol.connectionLost(reason)
            self._connector.connectionLost(reason)

    def getPeer(self) -> Any:
        return self._connector.getDestination()

    def getHost(self) -> Any:
        return IPv4Address("TCP", self._process.name, 0)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass
