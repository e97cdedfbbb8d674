"""Outlet: long pieces go to the transport in their order, as it sends them."""

from __future__ import annotations

import pytest
from twisted.internet.testing import StringTransport

from txharedis.outlet import Outlet

LONG = b"l" * (200 * 1024)


class Slow(StringTransport):
    """Wants no more once it has been given something, until it is told that this was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.given.append(data)
        if self.producer is not None:
            self.producer.pauseProducing()

    def sent(self) -> None:
        if self.producer is not None:
            self.producer.resumeProducing()


@pytest.fixture
def transport() -> Slow:
    return Slow()


def test_a_long_piece_goes_alone_and_as_it_is(transport: Slow) -> None:
    outlet = Outlet(transport)
    outlet.write([b"head", LONG, LONG, b"a", b"b"])
    for _ in range(3):
        transport.sent()
    assert transport.given == [b"head", LONG, LONG, b"ab"]
    assert transport.given[1] is LONG
    assert not outlet.busy
    assert transport.producer is None


def test_what_is_written_meanwhile_comes_behind(transport: Slow) -> None:
    outlet = Outlet(transport)
    outlet.write([LONG, b"first"])
    assert outlet.busy
    outlet.write([b"second"])
    assert transport.given == [LONG]
    transport.sent()
    assert transport.given == [LONG, b"firstsecond"]
    assert not outlet.busy
    outlet.write([LONG])
    assert transport.given[2] is LONG


def test_a_transport_that_takes_all_is_given_all() -> None:
    transport = StringTransport()
    outlet = Outlet(transport)
    outlet.write([LONG, b"short", LONG])
    assert transport.value() == LONG + b"short" + LONG
    assert not outlet.busy


def test_nothing_is_given_to_a_transport_that_has_ended(transport: Slow) -> None:
    outlet = Outlet(transport)
    outlet.write([LONG, LONG])
    transport.producer.stopProducing()
    outlet.write([b"more"])
    assert transport.given == [LONG]
