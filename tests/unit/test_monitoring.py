"""MONITOR on one master after the other."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from tests.unit.fakes import Dial
from tests.unit.masters import FakeMasters, outcome
from txharedis.dedicated.monitoring import RETRY, Monitors
from txharedis.errors import QueueFull, ResponseError, ServiceStopped


class FakeLog:
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, line: str, **fields: Any) -> None:
        self.said.append(line.format(**fields))

    def failure(self, text: str, failure: Any = None) -> None:
        self.said.append(text)


class Played(FakeMasters):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.log = FakeLog()
        log: Any = self.log
        self.monitors = Monitors(self.reactor, self.links, log)
        self.lines: list[str] = []
        self.lead_to(1)

    def started(self) -> tuple[Any, Dial]:
        got = outcome(self.monitors.start(self.lines.append, 0))
        dial = self.accept()
        assert dial.commands() == [[b"MONITOR"]]
        dial.answer("OK")
        [monitoring] = got
        return monitoring, dial


def test_each_line_is_told() -> None:
    played = Played()
    monitoring, dial = played.started()
    assert monitoring.node == "n:1"
    assert repr(monitoring) == "<Monitoring of n:1>"
    dial.answer("1.0 [0 n:1] one", "two \xff")
    dial.deliver(b"+bad \xff\r\n")
    assert played.lines == ["1.0 [0 n:1] one", "two \xff", "bad \\xff"]


def test_a_listener_that_raises_is_logged() -> None:
    played = Played()
    got = outcome(played.monitors.start(lambda line: 1 / 0, 0))
    dial = played.accept()
    dial.answer("OK", "line", "line")
    assert len(got) == 1
    assert played.log.said == ["on_line failed"] * 2


def test_it_goes_on_with_the_next_master() -> None:
    played = Played()
    monitoring, dial = played.started()
    played.links.drop()
    assert monitoring.node is None
    dial.deliver(b"+late\r\n")
    played.reactor.advance(0.02)
    played.lead_to(2)
    dial = played.accept()
    dial.answer("OK", "line")
    assert monitoring.node == "n:2"
    assert played.lines == ["line"]


def test_a_master_that_refuses_is_asked_again() -> None:
    played = Played()
    monitoring, _ = played.started()
    played.links.drop()
    played.reactor.advance(0.02)
    played.lead_to(2)
    played.accept().answer(ResponseError("NOPERM no right"))
    assert played.log.said == ["MONITOR was refused: NOPERM no right"]
    played.reactor.advance(RETRY)
    played.accept().answer("OK", "line")
    assert played.lines == ["line"]
    assert not monitoring.ended.called


def test_a_refusal_at_the_beginning_is_the_callers() -> None:
    played = Played(max_dedicated=1)
    got, second = (outcome(played.monitors.start(print, 0)) for _ in range(2))
    assert isinstance(second[0], QueueFull)
    dial = played.accept()
    dial.answer(ResponseError("NOPERM no right"))
    assert isinstance(got[0], ResponseError)
    assert len(played.links) == 0
    assert dial.aborted


@pytest.mark.parametrize("stage", ["waiting", "running", "lost"])
def test_it_ends_at_any_time(stage: str) -> None:
    played = Played()
    if stage == "waiting":
        begun = played.monitors.start(played.lines.append, 0)
        got = outcome(begun)
        begun.cancel()
        assert isinstance(got[0], CancelledError)
    else:
        monitoring, dial = played.started()
        if stage == "lost":
            dial.lose()
        assert monitoring.stop().called
        assert monitoring.ended.called
        assert monitoring.stop().called
        dial.deliver(b"+late\r\n")
    assert played.lines == []
    played.links.close()
    played.reactor.advance(0)
    assert len(played.links) == 0
    assert played.reactor.getDelayedCalls() == []


def test_the_end_of_the_client() -> None:
    played = Played()
    monitoring, _ = played.started()
    waiting = outcome(played.monitors.start(print, 0))
    played.monitors.stop()
    assert isinstance(waiting[0], ServiceStopped)
    assert monitoring.ended.called
