"""Keeping one link: dialling again, when, and until when."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, TimeoutError
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from tests.unit.fakes import FakeReactor
from txharedis.factory import NodeFactory
from txharedis.options import Options
from txharedis.topology import Address

FIRST, MOST = 0.05, 5.0


class Link(Protocol):
    factory: Any

    def abort(self) -> None:
        self.transport.abortConnection()


class Kept:
    """A factory on a fake reactor, and what it told."""

    def __init__(self, goes_by: Callable[[], bool] | None = None) -> None:
        self.reactor = FakeReactor()
        self.gone: list[tuple[type[BaseException] | None, bool]] = []
        self.factory = NodeFactory(
            self.reactor,
            Address("n", 1),
            Link,
            self._gone,
            Options(),
            first_delay=FIRST,
            max_delay=MOST,
            timeout=2.0,
            goes_by=goes_by,
        )
        self.factory.dial()

    def _gone(self, reason: Failure, was_ready: bool) -> None:
        self.gone.append((reason.type, was_ready))

    @property
    def dials(self) -> int:
        return len(self.reactor.dials)

    def connect(self) -> None:
        """The newest dial succeeds, with its handshake."""
        self.reactor.dial.accept()
        self.factory.link_ready()

    def wait(self) -> float:
        """Seconds until the next dial."""
        before, start = self.dials, self.reactor.seconds()
        while self.dials == before:
            assert self.reactor.seconds() - start < 100, "never dialled again"
            self.reactor.advance(0.001)
        return self.reactor.seconds() - start


def test_it_dials_the_address() -> None:
    kept = Kept()
    connector = kept.reactor.dial.connector
    assert (connector.host, connector.port, connector.timeout) == ("n", 1, 2.0)


def test_a_refused_dial_is_told_and_repeated() -> None:
    kept = Kept()
    kept.reactor.dial.refuse()
    assert kept.gone == [(ConnectionRefusedError, False)]
    assert kept.wait() <= FIRST * 2


def test_an_unanswered_dial_is_told_and_repeated() -> None:
    kept = Kept()
    kept.reactor.advance(2.0)
    assert kept.gone == [(TimeoutError, False)]
    kept.wait()


def test_the_delays_double_up_to_the_highest() -> None:
    random.seed(1)
    kept = Kept()
    delays = []
    for _ in range(12):
        kept.reactor.dial.refuse()
        delays.append(kept.wait())
    assert delays[0] < 2 * FIRST
    assert delays[4] > 4 * delays[0]
    assert all(delay < 2 * MOST for delay in delays)
    assert min(delays[-3:]) > MOST / 3


def test_no_jitter_keeps_it_from_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    # As unlikely as it gets in a year of redialling: Twisted draws from an unbounded distribution.
    monkeypatch.setattr(random, "normalvariate", lambda mean, deviation: mean - 6 * deviation)
    kept = Kept()
    for _ in range(20):
        kept.reactor.dial.refuse()
        kept.wait()


def test_after_a_link_that_worked_it_dials_at_once() -> None:
    kept = Kept()
    kept.connect()
    kept.reactor.advance(1.0)
    kept.reactor.dial.lose(ConnectionLost())
    assert kept.gone == [(ConnectionLost, True)]
    assert kept.dials == 2


def test_a_link_that_goes_by_another_is_dialled_after_a_while_when_that_one_is_there() -> None:
    kept = Kept(goes_by=lambda: True)
    kept.connect()
    kept.reactor.advance(1.0)
    kept.reactor.dial.lose(ConnectionLost())
    assert kept.dials == 1
    assert kept.wait() > FIRST / 2


def test_a_link_that_goes_by_another_waits_for_that_one() -> None:
    kept = Kept(goes_by=lambda: False)
    kept.connect()
    kept.reactor.advance(1.0)
    kept.reactor.dial.lose(ConnectionLost())
    kept.reactor.advance(3600.0)
    assert kept.dials == 1
    assert not kept.reactor.getDelayedCalls()
    kept.factory.redial_now()
    assert kept.dials == 2


def test_after_a_link_that_ended_as_it_began_it_waits() -> None:
    kept = Kept()
    for dials in range(1, 6):
        assert kept.dials == dials
        kept.connect()
        kept.reactor.dial.lose()
        assert kept.dials == dials
        kept.wait()


def test_after_a_link_that_never_was_ready_it_waits_longer_and_longer() -> None:
    random.seed(1)
    kept = Kept()
    delays = []
    for _ in range(8):
        kept.reactor.dial.accept()
        kept.reactor.advance(1.0)
        kept.reactor.dial.lose()
        assert kept.gone[-1][1] is False
        delays.append(kept.wait())
    assert delays[-1] > 10 * delays[0]


def test_a_link_that_worked_forgives_the_failures_before() -> None:
    random.seed(1)
    kept = Kept()
    for _ in range(8):
        kept.reactor.dial.refuse()
        kept.wait()
    kept.connect()
    kept.reactor.advance(1.0)
    kept.reactor.dial.lose()
    kept.reactor.dial.refuse()
    assert kept.wait() < 2 * FIRST


def test_news_cut_the_waiting_short() -> None:
    kept = Kept()
    for _ in range(8):
        kept.reactor.dial.refuse()
        kept.wait()
    kept.reactor.dial.refuse()
    before = kept.dials
    kept.factory.redial_now()
    assert kept.dials == before + 1
    kept.reactor.advance(1.9)
    assert kept.dials == before + 1  # and not once more when the wait would have been over
    kept.reactor.dial.refuse()
    assert kept.wait() < 2 * FIRST  # the news were wrong, but recent


@pytest.mark.parametrize("state", ["dialling", "connected", "ready"])
def test_news_change_nothing_while_it_is_dialling_or_connected(state: str) -> None:
    kept = Kept()
    if state != "dialling":
        kept.reactor.dial.accept()
    if state == "ready":
        kept.factory.link_ready()
    kept.factory.redial_now()
    assert kept.dials == 1


@pytest.mark.parametrize(
    "state", ["new", "dialling", "waiting", "connected", "ready", "redialling"]
)
def test_close_leaves_nothing_and_it_never_dials_again(state: str) -> None:
    kept = Kept()
    match state:
        case "waiting":
            kept.reactor.dial.refuse()
        case "connected":
            kept.reactor.dial.accept()
        case "ready" | "redialling":
            kept.connect()
            kept.reactor.advance(1.0)
    if state == "redialling":
        kept.reactor.dial.lose()
    dials = kept.dials
    closed = kept.factory.close()
    kept.factory.redial_now()
    kept.factory.link_ready()
    kept.reactor.advance(0)
    assert closed.called
    assert closed.result is None
    assert kept.reactor.getDelayedCalls() == []
    kept.reactor.advance(1000)
    assert kept.dials == dials
    assert all(dial.over for dial in kept.reactor.dials)


def test_close_fires_only_when_the_link_is_gone() -> None:
    kept = Kept()
    kept.connect()
    closed = kept.factory.close()
    assert not closed.called
    kept.reactor.advance(0)
    assert closed.called


def test_close_before_the_first_dial() -> None:
    reactor = FakeReactor()
    factory = NodeFactory(
        reactor,
        Address("n", 1),
        Link,
        lambda *_: None,
        Options(),
        first_delay=1,
        max_delay=1,
        timeout=1,
    )
    assert factory.close().called


def test_two_may_close_it() -> None:
    kept = Kept()
    kept.connect()
    first, second = kept.factory.close(), kept.factory.close()
    kept.reactor.advance(0)
    assert first.called
    assert second.called
