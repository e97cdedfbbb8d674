"""How many messages a second a subscription receives: ours beside its peers.

They take turns on the same server, a replica, and the median of the rounds counts. So that neither
a publisher nor a server is what limits them, the messages of a round are published by another
process while the subscriber does not read, and wait in the server; then the time is taken until the
last of them was received.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import txredisapi
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from benchmarks import slow_readers
from benchmarks.group import running_group
from benchmarks.lineup import ready_group, start_python_peer
from benchmarks.processes import PeerProcess
from benchmarks.report import Goal, show_goals, table
from benchmarks.stage import Round, Stage, alternate, as_figures, count, middle, ratio
from txharedis import HAClient
from txharedis.testing.servers import LocalServer
from txharedis.testing.waiting import until

__all__ = ["add_arguments", "run"]

SIZE = 32
PATIENCE = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--messages", type=count, default=500_000, help="of each round (%(default)s)")
    add(
        "--readers",
        type=int,
        default=100,
        metavar="N",
        help="subscribers that do not read, 0 to leave them out (%(default)s)",
    )


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

    async def receive(self, count: int) -> Round:
        """Take the time for so many messages, which wait in the server already."""


class _Counter:
    """Counts messages; `done` fires at the last of them."""

    def __init__(self) -> None:
        self._left = 0
        self.done: Deferred[None] = Deferred()

    def one(self) -> None:
        self._left -= 1
        if not self._left:
            self.done.callback(None)

    async def receive(self, reactor: Any, count: int) -> Round:
        self._left = count
        self.done = Deferred()
        began, cpu_began = time.perf_counter(), time.process_time()
        await self.done.addTimeout(PATIENCE, reactor)
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        return Round(rate=count / elapsed, cpu=cpu / count)


class _Ours:
    name = "txharedis, 3 nodes"
    channel = "ours"

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._counter = _Counter()

    async def start(self, client: HAClient) -> None:
        await client.subscribe(self.channel, lambda message: self._counter.one())

    async def receive(self, count: int) -> Round:
        return await self._counter.receive(self._reactor, count)


class _Protocol(txredisapi.SubscriberProtocol):
    counter: _Counter

    def messageReceived(self, pattern: object, channel: object, message: object) -> None:
        self.counter.one()


class _TxRedisApi:
    name = "txredisapi, SubscriberProtocol"
    channel = "theirs"

    def __init__(self, reactor: Any, case: Case) -> None:
        self._reactor = reactor
        options = case.options
        self._link: Any = _Protocol(
            charset=options["charset"], convertNumbers=options["convert_numbers"]
        )
        self._link.counter = _Counter()

    async def start(self, port: int) -> None:
        connect: Any = connectProtocol
        await connect(TCP4ClientEndpoint(self._reactor, "127.0.0.1", port), self._link)
        await self._link.subscribe(self.channel)

    async def receive(self, count: int) -> Round:
        done: Round = await self._link.counter.receive(self._reactor, count)
        return done

    async def close(self) -> None:
        gone = self._link.whenDisconnected()
        self._link.transport.loseConnection()
        await gone


class _RedisPy:
    name = "redis-py, listen()"
    channel = "asyncio"

    def __init__(self, process: PeerProcess) -> None:
        self._process = process

    async def receive(self, count: int) -> Round:
        done = await self._process.ask(PATIENCE, do="receive", count=count)
        return Round(rate=count / done["elapsed"], cpu=done["cpu"] / count)


async def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the tables, and return all rounds of all cases, and the goals."""
    results = {}
    goals = []
    async with running_group(stage.reactor, stage.program) as servers:
        for server in servers:
            await server.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
        for case in CASES:
            async with _subscribed(stage, servers, case) as (master, subscribers):

                async def one(
                    subscriber: _Subscriber,
                    warming: bool,
                    master: LocalServer = master,
                ) -> Round:
                    flood(master.port, subscriber.channel, options.messages)
                    return await subscriber.receive(options.messages)

                rounds = await alternate(stage, subscribers, one)
            _show(case, rounds)
            results[case.name] = as_figures(rounds)
            figure = ratio(rounds, _Ours.name, _TxRedisApi.name, lambda each: each.rate)
            what = f"messages of {SIZE} bytes, {case.name}: txharedis / {_TxRedisApi.name}"
            goals.append(Goal(what, figure, 2.5))
    figures: dict[str, Any] = {"cases": results}
    if options.readers:
        figures["slow readers"] = await slow_readers.run(stage, options)
    figures["goals"] = show_goals(goals)
    return figures


@asynccontextmanager
async def _subscribed(
    stage: Stage, servers: list[LocalServer], case: Case
) -> AsyncIterator[tuple[LocalServer, list[_Subscriber]]]:
    """The master, and all subscribers, on the replica that ours has chosen."""
    reactor = stage.reactor
    async with AsyncExitStack() as stack:
        client, master = await ready_group(reactor, servers, **case.options)
        stack.push_async_callback(client.quit)
        ours = _Ours(reactor)
        await ours.start(client)
        node = await until(
            reactor, lambda: _with_channel(servers, ours.channel), PATIENCE, "one has it"
        )
        theirs = _TxRedisApi(reactor, case)
        await theirs.start(node.port)
        stack.push_async_callback(theirs.close)
        subscribers: list[_Subscriber] = [ours, theirs]
        if stage.alone:
            stage.leave_out("all peers in other processes", "--alone")
        elif case.options["charset"] is None:  # as it is by default
            process = start_python_peer(stage, "redis-py", node.port)
            if process is not None:
                stack.push_async_callback(process.close)
                await process.ask(PATIENCE, do="subscribe", channel=_RedisPy.channel)
                subscribers.append(_RedisPy(process))
        yield master, subscribers


async def _with_channel(servers: list[LocalServer], channel: str) -> LocalServer | None:
    """The replica that our client has settled on."""
    for server in servers:
        [_, count] = await server.call("PUBSUB", "NUMSUB", channel)
        if count and (await server.info("replication"))["role"] == "slave":
            return server
    return None


def flood(port: int, channel: str, count: int) -> None:
    """Publish so many messages. The reactor stands still meanwhile: nothing is read."""
    words = [sys.executable, "-m", "benchmarks.flood", str(port), channel, str(SIZE), str(count)]
    subprocess.run(words, check=True)
    time.sleep(0.2)  # for the replica to have all of it


def _show(case: Case, rounds: dict[str, list[Round]]) -> None:
    rows = []
    for name in rounds:
        rate = middle(rounds, name, lambda each: each.rate)
        times = ratio(rounds, name, _TxRedisApi.name, lambda each: each.rate)
        cpu = middle(rounds, name, lambda each: each.cpu)
        rows.append(
            [
                name,
                "" if rate is None else f"{rate:.0f}",
                "" if times is None else f"{times:.2f}",
                "" if cpu is None else f"{cpu * 1e6:.2f}",
            ]
        )
    header = [
        f"messages of {SIZE} bytes, {case.name}",
        "per second",
        "x txredisapi",
        "CPU us each",
    ]
    print(f"\n{table(header, rows)}", flush=True)
