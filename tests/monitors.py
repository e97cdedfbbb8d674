"""haredis-monitor as a process, and what is asked of it over HTTP."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import ProcessProtocol, Protocol
from twisted.python.failure import Failure

from tests.groups import answer
from tests.support import eventually

__all__ = ["Events", "Monitor", "Response", "exchange", "fetch", "raw"]

ROOT = Path(__file__).resolve().parents[1]
TWISTD = "from twisted.scripts.twistd import run; run()"


@dataclass(frozen=True)
class Response:
    """What came back. The names of `headers` are in lower case."""

    code: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Exchange(Protocol):
    """One request; the answer is complete when the other side has closed."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.data = b""
        self.ended: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:
        self.ended.callback(self.data)


async def connect(port: int, protocol: Any) -> Any:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    return await answer(connectProtocol(endpoint, protocol))


async def exchange(port: int, request: bytes) -> bytes:
    """All that comes back on a connection of its own until the other side closes it."""
    made = await connect(port, _Exchange(request))
    return bytes(await answer(made.ended))


async def fetch(
    port: int,
    path: str | bytes,
    method: str = "GET",
    body: bytes = b"",
    **headers: str,
) -> Response:
    """One request over a connection of its own. Underscores in the names of headers are dashes."""
    target = path.encode() if isinstance(path, str) else path
    given = {"Host": f"127.0.0.1:{port}", "Connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    if body:
        given["Content-Length"] = str(len(body))
    lines = [method.encode() + b" " + target + b" HTTP/1.1"]
    lines += [f"{name}: {value}".encode() for name, value in given.items() if value]
    return await raw(port, b"\r\n".join(lines) + b"\r\n\r\n" + body)


async def raw(port: int, request: bytes) -> Response:
    """What is answered to these bytes."""
    head, _, body = (await exchange(port, request)).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    match = re.match(r"HTTP/1\.[01] (\d{3}) ", status + " ")
    assert match, head
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = _unchunked(body)
    return Response(int(match[1]), headers, body)


def _unchunked(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        data = rest[int(size, 16) + 2 :]
    return whole


class Events(Protocol):
    """A page that listens: `seen` are the events, as (kind, value), in their order."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._text = ""
        self.seen: list[tuple[str, Any]] = []
        self.comments = 0
        self.lost = False

    def connectionMade(self) -> None:
        self.transport.write(
            f"GET /events HTTP/1.0\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode()
        )

    def dataReceived(self, data: bytes) -> None:
        self._text += data.decode()
        *blocks, self._text = self._text.split("\n\n")
        for block in blocks:
            match = re.search(r"^event: (\w+)\ndata: (.*)\Z", block, re.MULTILINE)
            if match:
                self.seen.append((match[1], json.loads(match[2])))
            self.comments += block.startswith(":")

    def connectionLost(self, reason: Failure) -> None:
        self.lost = True

    def values(self, kind: str) -> list[Any]:
        return [value for name, value in self.seen if name == kind]

    async def until(self, kind: str, test: Callable[[Any], bool], timeout: float = 60.0) -> Any:
        """The first event of a kind that passes the test, now or later."""

        def first() -> Any:
            return next((value for value in self.values(kind) if test(value)), None)

        return await eventually(first, timeout)

    def close(self) -> None:
        self.transport.abortConnection()


class Monitor(ProcessProtocol):
    """`twistd -n haredis-monitor` with these words; `port` is where it serves."""

    def __init__(self, nodes: Sequence[str], *words: str, http: str = "", **variables: str) -> None:
        self.output = ""
        self.port = 0
        self.ended: Deferred[int | None] = Deferred()
        given = [f"--node={node}" for node in nodes]
        given += [f"--http={http or 'tcp:0:interface=127.0.0.1'}", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        arguments = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "haredis-monitor", *given]
        self.process: Any = reactor.spawnProcess(  # type: ignore[attr-defined]
            self, sys.executable, arguments, env=environment
        )

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(reason.value.exitCode)

    async def started(self) -> Monitor:
        """Wait until it serves."""

        def where() -> int:
            assert not self.ended.called, self.output
            match = re.search(r"haredis-monitor serves on \S+:(\d+)\n", self.output)
            return int(match[1]) if match else 0

        self.port = await eventually(where)
        return self

    async def get(self, path: str | bytes, method: str = "GET", **headers: str) -> Response:
        return await fetch(self.port, path, method, **headers)

    async def post(self, path: str, value: object, token: str = "", **headers: str) -> Response:
        headers |= {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return await fetch(self.port, path, "POST", json.dumps(value).encode(), **headers)

    async def healthy(self) -> Any:
        """Wait until it says so; returns the state."""

        async def state() -> Any:
            cluster = (await self.get("/cluster")).json
            return cluster if cluster["state"] == "healthy" else None

        return await eventually(state)

    async def events(self) -> Events:
        events: Events = await connect(self.port, Events(self.port))
        return events

    async def stop(self) -> None:
        """End it, as systemd does; there must be no traceback in its log."""
        if not self.ended.called:
            self.process.signalProcess("TERM")
        await answer(self.ended)
        assert "Traceback" not in self.output, self.output
