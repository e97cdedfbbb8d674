"""Each example does what it says."""

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import ProcessProtocol, Protocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from tests.groups import answer, until_settled
from tests.support import eventually
from txharedis.testing.servers import LocalServer

TWISTD = "from twisted.scripts.twistd import run; run()"
TWISTD = "from twisted.scripts.twistd import run; run()"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


async def run(example: str, *args: str) -> tuple[str, str, int]:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    out, err, status = await getProcessOutputAndValue(
        sys.executable, [str(EXAMPLES / example), *args], env=environment, reactor=reactor
    )
    return out.decode(), err.decode(), status


@pytest_twisted.ensureDeferred
async def test_basic_writes_and_reads_its_rounds(trio: list[LocalServer]) -> None:
    out, err, status = await run("basic.py", *(server.address for server in trio))
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("round 0 from 127.0.0.1:")
    assert lines[-1].startswith("round 19 from 127.0.0.1:")
    assert "congrats!" in err


@pytest_twisted.ensureDeferred
async def test_asyncio_program_counts_right(trio: list[LocalServer]) -> None:
    out, err, status = await run("asyncio_interop.py", *(server.address for server in trio))
    assert status == 0, err
    assert out.startswith("counted to 100 on 127.0.0.1:")


class Running(ProcessProtocol):
    """An example that runs until it is told to end."""

    def __init__(self, *words: str, **variables: str) -> None:
        self.output = ""
        self.ended: Deferred[tuple[int | None, int | None]] = Deferred()
        environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **variables}
        self.process: Any = reactor.spawnProcess(  # type: ignore[attr-defined]
            self, sys.executable, [sys.executable, *words], env=environment
        )

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback((reason.value.exitCode, reason.value.signal))

    async def said(self, text: str) -> str:
        """What stands behind `text` in the line in which it first is."""
        await eventually(lambda: text in self.output and "\n" in self.output.split(text, 1)[1])
        return self.output.split(text, 1)[1].splitlines()[0]


class Page(Protocol):
    """One request, the plainest there is."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._data = b""
        self.response: Deferred[str] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(f"GET {self._path} HTTP/1.0\r\n\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        self._data += data

    def connectionLost(self, reason: Failure) -> None:
        self.response.callback(self._data.decode())


@pytest_twisted.async_yield_fixture
async def running(nothing_left_behind: object) -> AsyncIterator[Any]:
    """`running("program.py", "argument")`: started, and told to end after the test."""
    made: list[Running] = []

    def start(*words: str, **variables: str) -> Running:
        made.append(Running(*words, **variables))
        return made[-1]

    yield start
    for example in made:
        if not example.ended.called:
            example.process.signalProcess("TERM")
        # twistd ends by the signal that ended it.
        assert await answer(example.ended) in ((0, None), (None, signal.SIGTERM)), example.output


@pytest_twisted.ensureDeferred
async def test_klein_counter_goes_on_while_its_master_is_killed(
    group: list[LocalServer], running: Any
) -> None:
    nodes = [server.address for server in group]
    example = running(str(EXAMPLES / "klein_counter.py"), "tcp:0:interface=127.0.0.1", *nodes)
    port = int(await example.said("listening on "))

    async def get(path: str) -> tuple[int, str]:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        response = await answer((await connectProtocol(endpoint, Page(path))).response)
        head, _, body = response.partition("\r\n\r\n")
        return int(head.split()[1]), body

    async def visits() -> int:
        code, page = await get("/")
        assert code == 200, page
        return int(page.split()[0])

    assert await visits() == 1
    for _ in range(2):
        # A master whose replicas have no data yet cannot be replaced.
        old = await until_settled(group)
        code, page = await get("/health")
        assert (code, page.split()[1]) == (200, old.address)
        count = await visits()
        old.kill()
        # Those that were asked while there was no master are answered too.
        counts = [await visits() for _ in range(20)]
        assert counts[-1] >= count
        assert counts == sorted(counts)
        code, page = await get("/health")
        assert code == 200
        assert page.split()[1] != old.address
        await old.exited()
        await old.start()


@pytest_twisted.ensureDeferred
async def test_auto_slaveok_reads_from_replicas(group: list[LocalServer]) -> None:
    out, err, status = await run("auto_slaveok.py", *(server.address for server in group))
    assert status == 0, err
    answers = [line.rpartition(": ")[2] for line in out.splitlines()]
    rounds = [f"round {number}" for number in range(10)]
    assert answers[0::4] == answers[2::4] == rounds
    assert set(answers) <= {*rounds, "None"}
    master = group[0].address
    assert f"set on {master} (master default)" in err
    assert f"get on {master} (slave preferred)" in err  # the one behind the write
    assert any(f"get on {server.address} (slave preferred)" in err for server in group[1:])
    assert f"get on {master} (master default)" in err


@pytest_twisted.ensureDeferred
async def test_pubsub_goes_on_when_the_master_is_killed(
    group: list[LocalServer], running: Any
) -> None:
    tac = str(EXAMPLES / "pubsub.tac")
    nodes = " ".join(server.address for server in group)
    service = running("-c", TWISTD, "-noy", tac, "--pidfile=", NODES=nodes)
    await service.said(" from 127.0.0.1:")
    group[0].kill()
    await service.said("s may be missing")
    heard = service.output.count(" from 127.0.0.1:")
    await eventually(lambda: service.output.count(" from 127.0.0.1:") >= heard + 2)
    assert "Traceback" not in service.output


SPANS_ON_STDOUT = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
"""
GO = """
client.set("k", "v").addErrback(print)
print("listening on", listening.getHost().port, flush=True)
reactor.run()
"""


def shown_in(document: str, section: str) -> list[str]:
    """The programs in a section of the documentation."""
    text = (EXAMPLES.parent / "docs" / document).read_text(encoding="utf-8")
    [part] = re.findall(rf"^{section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```python\n(.*?)^```", part, re.MULTILINE | re.DOTALL)


@pytest_twisted.ensureDeferred
async def test_what_the_documentation_shows_of_metrics_and_spans(
    group: list[LocalServer], running: Any
) -> None:
    programs = shown_in("monitor.md", "## In an application")
    assert len(programs) == 2
    nodes = repr([server.address for server in group])
    metrics, tracing = (
        re.sub(r"create_client\(\[.*?\]\)", f"create_client({nodes})", program)
        for program in programs
    )
    assert "reactor.listenTCP(8000, " in metrics
    metrics = metrics.replace("reactor.listenTCP(8000, ", "listening = reactor.listenTCP(0, ")
    # The second program makes the client that `GO` uses.
    program = running("-c", metrics + SPANS_ON_STDOUT + tracing + GO)
    port = int(await program.said("listening on "))

    async def scraped() -> str:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        page = await answer((await connectProtocol(endpoint, Page("/metrics"))).response)
        return page if "\nharedis_masters 1.0\n" in page else ""

    await eventually(scraped)
    await program.said('"name": "SET"')
    assert '"db.system.name": "redis"' in program.output
    assert "Traceback" not in program.output
