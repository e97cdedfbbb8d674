"""How many messages a second a subscription receives: ours beside txredisapi's protocol.

The two take turns on the same server, a replica, and the median of the rounds counts. So that
neither a publisher nor a server is what limits them, the messages of a round are published by
another process while this one does not read, and wait in the server; then the time is taken until
the last of them was received.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Protocol

import txredisapi
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from benchmarks.group import in_sync, running_group
from benchmarks.report import table
from txharedis import HAClient, create_client
from txharedis.testing.servers import LocalServer, ServerProgram
from txharedis.testing.waiting import until

__all__ = ["Settings", "run"]

SIZE = 32


@dataclass(frozen=True)
class Settings:
    """`rounds` of `messages` each."""

    rounds: int = 5
    messages: int = 200_000


@dataclass(frozen=True)
class Round:
    """rate in messages a second; cpu in seconds of this process for each."""

    rate: float
    cpu: float


@dataclass(frozen=True)
class Case:
    """How the messages are converted."""

    name: str
    options: dict[str, Any]


CASES = (
    Case("text (defaults)", {"charset": "utf-8", "convert_numbers": True}),
    Case("bytes", {"charset": None, "convert_numbers": False}),
)


class _Subscriber(Protocol):
    name: str
    channel: str

    async def close(self) -> None: ...


class _Counter:
    """Counts messages; `done` fires at the last of them."""

    def __init__(self) -> None:
        self._left = 0
        self.done: Deferred[None] = Deferred()

    def expect(self, count: int) -> None:
        self._left = count
        self.done = Deferred()

    def one(self) -> None:
        self._left -= 1
        if not self._left:
            self.done.callback(None)


class _Ours:
    name = "txharedis, 3 nodes"
    channel = "ours"

    def __init__(self, client: HAClient) -> None:
        self._client = client

    @classmethod
    async def start(cls, client: HAClient, counter: _Counter) -> _Ours:
        await client.subscribe(cls.channel, lambda message: counter.one())
        return cls(client)

    async def close(self) -> None:
        await self._client.quit()


class _Theirs(txredisapi.SubscriberProtocol):
    name = "txredisapi, SubscriberProtocol"
    channel = "theirs"
    counter: _Counter

    def messageReceived(self, pattern: object, channel: object, message: object) -> None:
        self.counter.one()

    async def close(self) -> None:
        gone = self.whenDisconnected()
        self.transport.loseConnection()
        await gone


async def run(reactor: Any, program: ServerProgram, settings: Settings) -> dict[str, Any]:
    """Measure, print the tables, and return all rounds of all cases."""
    results = {}
    async with running_group(reactor, program) as servers:
        for server in servers:
            await server.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
        for case in CASES:
            rounds = await _compare(reactor, servers, case, settings)
            _show(case, rounds)
            results[case.name] = {
                name: [asdict(each) for each in done] for name, done in rounds.items()
            }
    return results


async def _compare(
    reactor: Any, servers: list[LocalServer], case: Case, settings: Settings
) -> dict[str, list[Round]]:
    client = create_client([server.address for server in servers], reactor=reactor, **case.options)
    await client.when_ready().addTimeout(20, reactor)
    master = next(server for server in servers if server.address == client.master)
    await until(reactor, lambda: in_sync(servers, master), 20, "three nodes in sync")
    counter = _Counter()
    ours = await _Ours.start(client, counter)
    node = await until(reactor, lambda: _with_channel(servers, ours.channel), 20, "one has it")
    theirs = _Theirs(
        charset=case.options["charset"], convertNumbers=case.options["convert_numbers"]
    )
    theirs.counter = counter
    connect: Any = connectProtocol
    await connect(TCP4ClientEndpoint(reactor, "127.0.0.1", node.port), theirs)
    await theirs.subscribe(theirs.channel)
    subscribers: list[_Subscriber] = [ours, theirs]
    rounds: dict[str, list[Round]] = {each.name: [] for each in subscribers}
    try:
        for number in range(-1, settings.rounds):
            for each in subscribers:
                done = await _measure(reactor, master, each, counter, settings.messages)
                if number >= 0:  # the first is to warm up
                    rounds[each.name].append(done)
    finally:
        for each in subscribers:
            await each.close()
    return rounds


async def _with_channel(servers: list[LocalServer], channel: str) -> LocalServer | None:
    """The replica that our client has settled on."""
    for server in servers:
        [_, count] = await server.call("PUBSUB", "NUMSUB", channel)
        if count and (await server.info("replication"))["role"] == "slave":
            return server
    return None


async def _measure(
    reactor: Any, master: LocalServer, subscriber: _Subscriber, counter: _Counter, count: int
) -> Round:
    counter.expect(count)
    flood = [sys.executable, "-m", "benchmarks.flood"]
    # The reactor stands still meanwhile: nothing is read.
    subprocess.run(
        [*flood, str(master.port), subscriber.channel, str(SIZE), str(count)], check=True
    )
    time.sleep(0.2)  # for the replica to have all of it
    began, cpu_began = time.perf_counter(), time.process_time()
    await counter.done.addTimeout(60, reactor)
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return Round(rate=count / elapsed, cpu=cpu / count)


def _show(case: Case, rounds: dict[str, list[Round]]) -> None:
    def middle(name: str, what: Callable[[Round], float]) -> float:
        return float(median(what(each) for each in rounds[name]))

    base = _Theirs.name
    rows = [
        [
            name,
            f"{middle(name, lambda each: each.rate):.0f}",
            f"{middle(name, lambda each: each.rate) / middle(base, lambda each: each.rate):.2f}",
            f"{middle(name, lambda each: each.cpu) * 1e6:.2f}",
            f"{middle(base, lambda each: each.cpu) / middle(name, lambda each: each.cpu):.2f}",
        ]
        for name in rounds
    ]
    header = [
        f"messages of {SIZE} bytes, {case.name}",
        "per second",
        "ratio",
        "CPU us each",
        "CPU ratio",
    ]
    print(f"\n{table(header, rows)}", flush=True)
