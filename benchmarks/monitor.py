"""What haredis-monitor costs: its processor time, with pages open and a scrape a second.

The monitor is `twistd -n haredis-monitor` in a process of its own, the pages are streams that read
all they get, the scrapes GET /metrics, and a client writes meanwhile. The processor time is what
the monitor's own /metrics says (process_cpu_seconds_total, which Linux has).
"""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import ProcessProtocol, Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from benchmarks.group import in_sync, running_group
from benchmarks.report import table
from benchmarks.stage import Stage, count, seconds
from txharedis import create_client
from txharedis.testing.waiting import until

__all__ = ["add_arguments", "run"]

DEADLINE = 30.0
"""Seconds that anything may take."""

TWISTD = "from twisted.scripts.twistd import run; run()"


def add_arguments(parser: ArgumentParser) -> None:
    """As long as with pages, without any is measured first."""
    parser.add_argument("--pages", type=count, default=100, help="open at once (%(default)s)")
    parser.add_argument("--seconds", type=seconds, default=30.0, help="(%(default)g)")


@dataclass(frozen=True)
class Figures:
    """`cpu` is processor time by the clock's time, `received` bytes in a second over all pages."""

    cpu: float
    received: float
    events: float


class _Monitor(ProcessProtocol):
    def __init__(self) -> None:
        self.output = ""
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)

    def port(self) -> int:
        if self.ended.called:
            raise SystemExit(f"the monitor did not start:\n{self.output}")
        match = re.search(r"serves on \S+:(\d+)\n", self.output)
        return int(match[1]) if match else 0


class _Page(Protocol):
    """Reads all it gets, and counts it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.size = 0
        self.events = 0
        self.data = b""
        self.ended: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        version = "1.1" if self._path == "/events" else "1.0"  # as a browser does
        transport.write(f"GET {self._path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if self._path == "/events":
            self.events += data.count(b"event: ")
        else:
            self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.callback(self.data)


async def run(stage: Stage, settings: Namespace) -> dict[str, Any]:
    """Print the table; returns its figures."""
    reactor = stage.reactor
    async with running_group(reactor, stage.program) as servers:
        nodes = [server.address for server in servers]
        client = create_client(nodes, reactor=reactor)
        await client.when_ready()
        await until(reactor, lambda: _synced(servers, client), DEADLINE, "a group")
        process = _Monitor()
        root = str(Path(__file__).resolve().parents[1])
        words = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "haredis-monitor"]
        words += ["--http=tcp:0:interface=127.0.0.1", *(f"--node={node}" for node in nodes)]
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        spawned = reactor.spawnProcess(
            process, sys.executable, words, env={**os.environ, "PYTHONPATH": path}
        )
        writing = LoopingCall(lambda: client.incr("written").addErrback(lambda _: None))
        writing.clock = reactor
        writing.start(0.01)
        try:
            port = await until(reactor, process.port, DEADLINE, "the monitor")
            idle = await _measured(reactor, port, 0, settings.seconds)
            loaded = await _measured(reactor, port, settings.pages, settings.seconds)
        finally:
            writing.stop()
            if not process.ended.called:
                spawned.signalProcess("TERM")
            await process.ended
            await client.disconnect()
    rows = [
        (
            f"{pages} pages",
            f"{100 * each.cpu:.1f} %",
            f"{each.received / 1000:.0f}",
            f"{each.events:.0f}",
        )
        for pages, each in ((0, idle), (settings.pages, loaded))
    ]
    print(
        table(["monitor, a scrape a second", "of one core", "kB/s", "events/s"], rows), flush=True
    )
    return {"pages": settings.pages, "idle": vars(idle), "loaded": vars(loaded)}


async def _synced(servers: Any, client: Any) -> bool:
    master = next((server for server in servers if server.address == client.master), None)
    return master is not None and await in_sync(servers, master)


async def _measured(reactor: Any, port: int, many: int, duration: float) -> Figures:
    pages = [_Page("/events") for _ in range(many)]
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    for page in pages:
        await connectProtocol(endpoint, page)
    await deferLater(reactor, 2.0)  # what a page gets at first is not what it costs
    sizes, events = sum(page.size for page in pages), sum(page.events for page in pages)
    began, cpu = reactor.seconds(), await _cpu(endpoint)
    while reactor.seconds() - began < duration:
        await deferLater(reactor, 1.0)
        await _cpu(endpoint)
    spent = await _cpu(endpoint) - cpu
    elapsed = reactor.seconds() - began
    if any(page.ended.called for page in pages):
        raise SystemExit("the monitor has dropped a page")
    figures = Figures(
        cpu=spent / elapsed,
        received=(sum(page.size for page in pages) - sizes) / elapsed,
        events=(sum(page.events for page in pages) - events) / elapsed,
    )
    for page in pages:
        transport: Any = page.transport
        transport.abortConnection()
    return figures


async def _cpu(endpoint: Any) -> float:
    """The processor time of the monitor so far, by a scrape."""
    page = await connectProtocol(endpoint, _Page("/metrics"))
    text = (await page.ended).decode()
    match = re.search(r"^process_cpu_seconds_total (\S+)", text, re.MULTILINE)
    if match is None:
        raise SystemExit("the monitor does not know its processor time here")
    return float(match[1])
