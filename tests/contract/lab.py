"""One laboratory for simulated and for real servers: what a contract test needs of either."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import hiredis
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import ClientFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txharedis.interfaces import pack
from txharedis.testing.servers import LocalServer, ServerProgram, start_group
from txharedis.testing.simulation import Server, World

PATIENCE = 30.0
"""Seconds after which what has not happened never will."""

Word = str | bytes | int


class Ended(Exception):
    """The server has closed the link."""


class Link(TwistedProtocol):
    """A link that sends what it is told, and keeps what comes until it is asked for."""

    transport: Any

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._come: list[Any] = []
        self._asker: Deferred[Any] | None = None
        self.over = False

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._come.append(reply)
        self._hand_out()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.over = True
        self._hand_out()

    def _hand_out(self) -> None:
        if self._asker is None:
            return
        if self._come:
            asker, self._asker = self._asker, None
            asker.callback(self._come.pop(0))
        elif self.over:
            asker, self._asker = self._asker, None
            asker.errback(Ended())

    def next(self) -> Deferred[Any]:
        """The next reply or message; it fails with Ended when none will come."""
        self._asker = asker = Deferred()
        self._hand_out()
        return asker

    def send(self, *commands: Sequence[Word]) -> None:
        """Write commands in one piece."""
        self.transport.write(b"".join(pack(tuple(command)) for command in commands))

    async def pipeline(self, *commands: Sequence[Word]) -> list[Any]:
        """Write commands in one piece; returns their replies, errors among them."""
        self.send(*commands)
        return [await self.next() for _ in commands]

    async def __call__(self, *words: Word) -> Any:
        [reply] = await self.pipeline(words)
        return reply

    def abort(self) -> None:
        self.transport.abortConnection()


class AnyServer(Protocol):
    """A server, of either kind."""

    host: str
    port: int

    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    async def restart(self, *, keep: bool = False) -> None: ...
    async def restart_slowly(self) -> None: ...

    async def load_quickly(self) -> None: ...


class SimulatedServer:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.host, self.port = server.host, server.port
        self.kill, self.pause, self.resume = server.kill, server.pause, server.resume

    async def restart(self, *, keep: bool = False) -> None:
        self.server.kill()
        self.server.restart(keep=keep, load_time=0.01 if keep else 0.0)

    async def restart_slowly(self) -> None:
        """Kill it, and start it with the data that it has: that takes many seconds."""
        data = self.server.keys.snapshot()
        self.server.kill()
        self.server.start(data, load_time=20.0)

    async def load_quickly(self) -> None:
        """It need not take as long any more. (Its clock is a simulated one.)"""


class RealServer:
    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.host, self.port = "127.0.0.1", server.port
        self.kill, self.pause, self.resume = server.kill, server.pause, server.resume

    async def restart(self, *, keep: bool = False) -> None:
        await self.server.restart(empty=not keep)

    async def restart_slowly(self) -> None:
        await self.server.call("SAVE")
        slow = ("--key-load-delay", "25000", "--loading-process-events-interval-bytes", "1024")
        await self.server.restart(options=slow)

    async def load_quickly(self) -> None:
        await self.server.call("CONFIG", "SET", "key-load-delay", 0)


class Lab:
    """Where a test runs: `make` makes servers, `connect` links to them.

    reactor  of the simulated world, or the running one
    """

    reactor: Any

    def __init__(self) -> None:
        self._links: list[Link] = []

    def run(self, test: Coroutine[Any, Any, Any]) -> None:
        """Run a test to its end."""
        raise NotImplementedError

    async def make(self, count: int = 1, *, durable: bool = False) -> list[Any]:
        """Started servers, which know nothing of each other."""
        raise NotImplementedError

    async def connect(self, server: AnyServer, *commands: Sequence[Word]) -> Link:
        """A new link, on which these commands were answered."""
        made: Deferred[Link] = Deferred()

        class Factory(ClientFactory):
            noisy = False

            def buildProtocol(self, addr: object) -> Link:
                link = Link()
                self.link = link
                link.connectionMade = lambda: made.callback(link)  # type: ignore[method-assign]
                return link

            def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
                made.errback(reason)

        self.reactor.connectTCP(server.host, server.port, Factory(), timeout=PATIENCE)
        link = await made
        self._links.append(link)
        if commands:
            await link.pipeline(*commands)
        return link

    async def info(self, link: Link, section: str = "replication") -> dict[str, str]:
        text = (await link("INFO", section)).decode()
        lines = (line.partition(":") for line in text.splitlines())
        return {name: value for name, colon, value in lines if colon}

    async def sleep(self, seconds: float) -> None:
        await deferLater(self.reactor, seconds)

    async def until(self, condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
        """The first true value of an asynchronous condition."""
        deadline = self.reactor.seconds() + timeout
        while True:
            value = await condition()
            if value:
                return value
            assert self.reactor.seconds() < deadline, f"not within {timeout} s: {value!r}"
            await self.sleep(0.01)

    async def follow(self, replica: Link, master: AnyServer) -> None:
        """Make one server the replica of another, and wait until it is, with news coming."""
        assert await replica("REPLICAOF", master.host, master.port) == b"OK"
        await self.until(lambda: self.is_up(replica))
        control = await self.connect(master)

        async def confirmed() -> bool:
            await control("INCR", "haredis:contract")
            reply: int = await control("WAIT", 1, 20)
            return reply > 0

        await self.until(confirmed)
        control.abort()

    async def loaded(self, link: Link) -> bool:
        """Whether the server has its data."""
        return (await self.info(link, "persistence"))["loading"] == "0"

    async def is_up(self, replica: Link) -> bool:
        return (await self.info(replica)).get("master_link_status") == "up"

    async def close(self) -> None:
        for link in self._links:
            if not link.over:
                link.abort()
        for link in self._links:
            while not link.over:
                await self.sleep(0.001)


class SimulatedLab(Lab):
    """`world` is there for what only the simulated ones can be asked."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.world = World(seed, tracing=True)
        self.reactor = self.world.process("test")

    def run(self, test: Coroutine[Any, Any, Any]) -> None:
        with self.world:
            try:
                self.world.wait(test, limit=600.0)
                self.world.wait(self.close())
            except BaseException:
                for at, text in (self.world.trace or [])[-20:]:
                    print(f"{at:.6f} {text[:200]}")
                raise

    async def make(self, count: int = 1, *, durable: bool = False) -> list[SimulatedServer]:
        return [SimulatedServer(server) for server in self.world.trio(count, durable=durable)]


class RealLab(Lab):
    def __init__(
        self, reactor: Any, program: ServerProgram, directory: Path, servers: list[LocalServer]
    ) -> None:
        super().__init__()
        self.reactor = reactor
        self._program = program
        self._directory = directory
        self._servers = servers

    def run(self, test: Coroutine[Any, Any, Any]) -> None:
        async def whole() -> None:
            try:
                await test
            finally:
                await self.close()

        pytest_twisted.blockon(Deferred.fromCoroutine(whole()))

    async def make(self, count: int = 1, *, durable: bool = False) -> list[RealServer]:
        servers = await start_group(
            self.reactor,
            self._program,
            self._directory / f"group{len(self._servers)}",
            count,
            options=("--appendonly", "yes", "--appendfsync", "no") if durable else (),
        )
        self._servers.extend(servers)
        return [RealServer(server) for server in servers]


async def at_once(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """The results of all, side by side."""
    outcomes = await DeferredList(
        [Deferred.fromCoroutine(coroutine) for coroutine in coroutines],
        fireOnOneErrback=True,
        consumeErrors=True,
    )
    return [result for _, result in outcomes]


def code(reply: object) -> str:
    """The code of an error reply."""
    assert isinstance(reply, hiredis.ReplyError), reply
    return str(reply).partition(" ")[0]
