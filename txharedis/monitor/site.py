"""The door of the monitor's HTTP server: what every request and every answer has to obey."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

__all__ = ["HEADERS", "Door", "Hosts", "MonitorSite", "answer"]

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Server": "haredis-monitor",
}

LONGEST_URL = 2048
LARGEST_BODY = 16 * 1024
MOST_CONNECTIONS = 800
"""More than all streams, and few enough to leave descriptors for the links to the servers."""

_IDLE = 30.0  # seconds within which the next request has to be there, or the connection is closed
_LABEL = rb"[A-Za-z0-9_-]{1,63}"
_HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.%]{1,60}\]|" + _LABEL + rb"(?:\." + _LABEL + rb"){0,126}\.?)(?::[0-9]{1,5})?"
)


def answer(request: Any, code: int, body: object, **headers: str) -> bytes:
    """Set the code and the headers of an answer; returns the body: bytes as they are, else JSON."""
    request.setResponseCode(code, HTTPStatus(code).phrase.encode())
    kind = headers.pop("content_type", "application/json")
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request.setHeader("Content-Type", kind)
    request.setHeader("Content-Length", str(len(data)))
    for name, value in headers.items():
        request.setHeader(name, value)
    return data


class Hosts:
    """Which names a request may call this server by; `allowed` are more of them.

    A page of somebody else's whose name was made to mean 127.0.0.1 is the same origin to a browser.
    So, on a loopback address, only names that can mean nothing else are answered; on any other one
    the same holds when there are names to allow. A request without the header is no browser's.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = {_plain(name) for name in allowed}
        self._checks = bool(self._allowed)

    def bound(self, host: str) -> None:
        """The server listens on this address."""
        try:
            loopback = ip_address(host.partition("%")[0]).is_loopback
        except ValueError:
            loopback = False  # the path of a unix socket
        self._checks = self._checks or loopback
        self._allowed |= {"localhost", "127.0.0.1", "::1", _plain(host)}

    def accepts(self, header: bytes | None) -> bool:
        if not self._checks or header is None:
            return True
        match = _HOST.fullmatch(header)
        return match is not None and _plain(match[1].decode("latin-1")) in self._allowed


def _plain(host: str) -> str:
    return host.strip("[]").lower().rstrip(".")


class Door(Resource):
    """Lets requests in to `inside`, and gives every answer its headers."""

    isLeaf = True

    def __init__(self, inside: Any, hosts: Hosts) -> None:
        super().__init__()
        self._inside = inside
        self._hosts = hosts

    def render(self, request: Any) -> Any:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        refusal = self._refusal(request)
        if refusal is None:
            return self._inside.render(request)
        code, why = refusal
        return answer(request, code, {"error": why})

    def _refusal(self, request: Any) -> tuple[int, str] | None:
        hosts = request.requestHeaders.getRawHeaders(b"host") or [None]
        if len(hosts) > 1 or (hosts[0] is not None and _HOST.fullmatch(hosts[0]) is None):
            return 400, "bad Host"
        if not self._hosts.accepts(hosts[0]):
            return 421, "this Host is not served here; --allow-host NAME adds a name"
        if len(request.uri) > LONGEST_URL:
            return 414, f"the URL is longer than {LONGEST_URL} bytes"
        if not request.method.isalpha() or not request.method.isascii():
            return 400, "bad method"
        try:
            path = unquote_to_bytes(request.path).decode()
        except UnicodeDecodeError:
            return 400, "the path is not UTF-8"
        if not path.startswith("/") or not path.isprintable():
            return 400, "bad path"
        return None


class _Request(Request):
    """A request whose body is bounded."""

    _received = 0

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received <= LARGEST_BODY:
            super().handleContentChunk(data)
        elif self._received - len(data) <= LARGEST_BODY:
            self._refuse(413, f"the body is longer than {LARGEST_BODY} bytes")

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._received <= LARGEST_BODY:  # otherwise it was answered
            super().requestReceived(command, path, version)

    def _handleStar(self) -> None:
        self._refuse(400, "bad path")

    def _refuse(self, code: int, why: str) -> None:
        channel: Any = self.channel
        channel.refuse(code, why)


class _Channel(HTTPChannel):
    """A connection that its site knows of."""

    site: MonitorSite

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channels.discard(self)
        super().connectionLost(reason)

    def resetTimeout(self) -> None:
        """A byte now and then is no reason to keep the connection from somebody else."""

    def lineLengthExceeded(self, line: bytes) -> None:
        if self._receivedHeaderSize:
            self.refuse(431, "a header is too long")
        else:
            self.refuse(414, f"the URL is longer than {LONGEST_URL} bytes")

    def refuse(self, code: int, why: str) -> None:
        """Answer without waiting for the rest of the request, and close."""
        body = json.dumps({"error": why}).encode()
        headers = {
            **HEADERS,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        transport: Any = self.transport
        transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(400, "this is no HTTP request")


class MonitorSite(Site):
    """The factory: bounded in connections, quiet in the log; its end ends all connections."""

    noisy = False
    protocol: Any = _Channel

    def __init__(self, resource: Any, reactor: Any) -> None:
        super().__init__(resource, requestFactory=_Request, timeout=_IDLE, reactor=reactor)
        self.channels: set[_Channel] = set()

    def buildProtocol(self, addr: Any) -> Any:
        if len(self.channels) >= MOST_CONNECTIONS:
            return None
        return super().buildProtocol(addr)

    def acceptableProtocols(self) -> list[bytes]:
        """Over TLS too it speaks no HTTP/2, which Twisted would offer where it finds h2."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """Probes come every second: they are no news."""

    def stopFactory(self) -> None:
        super().stopFactory()
        for channel in tuple(self.channels):
            transport: Any = channel.transport
            transport.abortConnection()
