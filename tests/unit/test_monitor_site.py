"""The door of the monitor: how long, and in which language, it listens to anybody."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web import http
from twisted.web.resource import Resource

from txharedis.monitor.site import MonitorSite

ASKED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Transport(StringTransport):
    """One whose end is told as that of a socket."""

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.disconnecting = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


class Page(Resource):
    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"here"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connected(clock: Clock) -> Any:
    site = MonitorSite(Page(), clock)
    channel = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    transport = Transport()
    channel.callLater = clock.callLater
    channel.makeConnection(transport)
    return channel, transport


def test_a_request_has_to_be_there_in_time(clock: Clock, connected: Any) -> None:
    """However little by little it comes: each connection is one less for the others."""
    channel, transport = connected
    for number in range(29):
        channel.dataReceived(ASKED[number : number + 1])
        clock.advance(1.0)
    assert not transport.disconnecting
    clock.advance(1.0)
    assert transport.disconnecting


def test_a_connection_that_asks_again_and_again_stays(clock: Clock, connected: Any) -> None:
    channel, transport = connected
    for _ in range(10):
        clock.advance(20.0)
        channel.dataReceived(ASKED)
    assert transport.value().count(b"here") == 10
    assert not transport.disconnecting
    clock.advance(31.0)
    assert transport.disconnecting


def test_only_the_language_that_it_speaks_is_offered_over_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "H2_ENABLED", True)  # as it is where the package h2 is installed
    assert MonitorSite(Page(), Clock()).acceptableProtocols() == [b"http/1.1"]
