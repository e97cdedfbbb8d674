"""In-memory servers with channels, and the subscriptions of one client to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogEvent, globalLogPublisher

from tests.unit.fakes import Dial, FakeReactor
from txharedis.errors import LinkLost, ResponseError
from txharedis.events import SubscriptionGap
from txharedis.log import ClientLog
from txharedis.options import Options
from txharedis.pubsub.messages import Message
from txharedis.pubsub.subscriptions import Subscriptions
from txharedis.topology import Address

A, B, M = (Address("n", port) for port in (1, 2, 3))


@contextmanager
def logged() -> Iterator[list[LogEvent]]:
    """The failures that are logged meanwhile."""
    failures: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield failures
    finally:
        globalLogPublisher.removeObserver(observe)


class FakeServer:
    """One node as a subscriber sees it. What is published comes when `pass_on` is called."""

    def __init__(self, reactor: FakeReactor, address: Address) -> None:
        self.reactor = reactor
        self.address = address
        self.up = True
        self.silent = False
        self.links: dict[Dial, list[bytes]] = {}
        self.refused: set[bytes] = set()
        self.refusal = "NOPERM"
        self.stream: list[tuple[bytes, bytes]] = []
        self.asked: list[list[bytes]] = []
        self.info = b""

    def serve(self) -> None:
        """Answer all that was asked."""
        for dial in [*self.reactor.dials]:
            if dial.connector.port != self.address.port or dial.over or dial in self.links:
                continue
            if dial.protocol is None:
                if not self.up:
                    dial.refuse()
                    continue
                dial.accept()
            self.links[dial] = []
        for dial in [*self.links]:
            if dial.over:
                del self.links[dial]
        if self.silent:
            return
        for dial, names in self.links.items():
            for verb, name in ((c[0], c[-1]) for c in dial.commands()):
                self.asked.append([verb, name])
                if name in self.refused:
                    dial.answer(ResponseError(f"{self.refusal} no"))
                elif verb in (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"):
                    names.append(name)
                    dial.answer([verb.lower(), name, len(names)])
                elif verb in (b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"):
                    if name in names:
                        names.remove(name)
                    dial.answer([verb.lower(), name, len(names)])
                elif verb == b"PING":
                    dial.answer([b"pong", b""] if names else "PONG")
                else:
                    dial.answer("OK")

    def pass_on(self, count: int | None = None) -> None:
        """Send the next messages of the stream (all when None) to those who listen."""
        count = len(self.stream) if count is None else count
        now, self.stream = self.stream[:count], self.stream[count:]
        for channel, text in now:
            for dial, names in self.links.items():
                if channel in names and not dial.over:
                    dial.answer([b"message", channel, text])

    def die(self) -> None:
        self.up = False
        for dial in self.links:
            dial.lose()
        self.links.clear()
        self.stream.clear()


class World:
    """Three nodes, the last the master, and the subscriptions of one client under test."""

    def __init__(self, **options: Any) -> None:
        self.reactor = FakeReactor()
        self.reactor.advance(1000.0)
        self.servers = {address: FakeServer(self.reactor, address) for address in (A, B, M)}
        self.events: list[Any] = []
        self.master: Address | None = M
        self.denied: Exception | None = None
        self.hung = False  # the master takes commands and does nothing
        self.without: set[Address] = set()  # have no control link
        self.lost: set[Address] = set()  # their control links are about to be lost
        self.full_syncs = 0
        self.offset = 0
        self.slow: set[Address] = set()  # nothing is passed on by itself
        self.published: list[tuple[bytes, bytes]] = []
        self.subscriptions = Subscriptions(
            self.reactor,
            Options(**options),
            ClientLog(),
            self.events.append,
            in_use=lambda: self.master is not None,
            link_of=self._link_of,
            is_up=lambda address: self.servers[address].up,
        )

    def _link_of(self, address: Address) -> Any:
        return _Control(self, address) if address not in self.without else None

    def start(self, *replicas: Address) -> World:
        self.subscriptions.place(M, replicas)
        self.subscriptions.follow(M, "run1")
        return self

    def run(self) -> World:
        """Let everything happen that needs no time."""
        for _ in range(10):
            for _ in range(5):
                self.reactor.advance(0)
            for address, server in self.servers.items():
                server.serve()
                if address not in self.slow:
                    server.pass_on()
        return self

    def advance(self, seconds: float) -> None:
        """In small steps, so that everybody can answer in time."""
        for _ in range(round(seconds / 0.05)):
            self.reactor.advance(0.05)
            self.run()

    def publish(self, channel: str, text: object) -> None:
        self.reach((channel.encode(), str(text).encode()))

    def reach(self, message: tuple[bytes, bytes]) -> None:
        self.published.append(message)
        for server in self.servers.values():
            if server.up:
                server.stream.append(message)

    @property
    def gaps(self) -> list[SubscriptionGap]:
        return [event for event in self.events if isinstance(event, SubscriptionGap)]

    def where(self, channel: str) -> list[Address]:
        """The nodes that have a subscriber of this channel."""
        return [
            address
            for address, server in self.servers.items()
            for names in server.links.values()
            if channel.encode() in names
        ]


class _Control:
    """The control link of a node."""

    def __init__(self, world: World, address: Address) -> None:
        self._world = world
        self._address = address

    def exchange(self, *commands: list[Any], **terms: Any) -> Deferred[Any]:
        if self._world.hung and self._address == self._world.master:
            return Deferred()
        if self._address in self._world.lost:
            return fail(LinkLost("gone"))
        return succeed([self._reply(command) for command in commands])

    def _reply(self, command: list[Any]) -> object:
        world = self._world
        match command:
            case ["PUBLISH", channel, text]:
                if world.denied is not None:
                    return world.denied
                world.reach((channel, text.encode()))
                world.offset += 100
                return 0
            case ["INFO", "stats"]:
                return b"sync_full:%d\r\n" % world.full_syncs
            case ["INFO", "replication"] if self._address == world.master:
                return b"master_repl_offset:%d\r\n" % world.offset
            case ["INFO", "replication"]:
                return world.servers[self._address].info
        raise AssertionError(command)


class Ear:
    """A callback and what it heard."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def data(self) -> list[Any]:
        return [message.data for message in self.messages]
