"""Those who want to know hear of it, in their order, and do no harm."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from txharedis.events import Event, Waiting
from txharedis.log import ClientLog
from txharedis.observers import Observers

NEWS = Waiting(at=0.0, reason="none")


@pytest.fixture
def failures() -> Any:
    """What is logged as a failure meanwhile."""
    seen: list[LogEvent] = []
    globalLogPublisher.addObserver(seen.append)
    yield seen
    globalLogPublisher.removeObserver(seen.append)


def test_listeners_hear_until_they_leave(failures: list[LogEvent]) -> None:
    observers = Observers(ClientLog())
    heard: list[tuple[str, Event]] = []

    def leave(event: Event) -> None:
        heard.append(("once", event))
        stop()

    def fail(event: Event) -> None:
        raise RuntimeError("a listener")

    stop = observers.listen(leave)
    observers.listen(fail)
    observers.listen(lambda event: heard.append(("always", event)))
    observers.emit(NEWS)
    observers.emit(NEWS)
    stop()  # again: nothing happens
    assert heard == [("once", NEWS), ("always", NEWS), ("always", NEWS)]
    assert [event["log_format"] for event in failures] == ["a listener to events failed"] * 2


def test_observers_of_commands_see_each_end_and_change_nothing(failures: list[LogEvent]) -> None:
    observers = Observers(ClientLog())
    seen: list[object] = []

    def watch(args: Any) -> Any:
        seen.append(args)
        return seen.append

    def fails_at_once(args: Any) -> Any:
        raise RuntimeError("begin")

    def fails_at_the_end(args: Any) -> Any:
        def ended(result: object) -> None:
            raise RuntimeError("end")

        return ended

    assert not observers.of_commands
    stops = [observers.watch_commands(o) for o in (fails_at_once, fails_at_the_end, watch)]
    reply: Deferred[object] = Deferred()
    outcomes: list[object] = []
    observers.watch(("GET", "k"), reply).addCallback(outcomes.append)
    reply.callback(b"v")
    assert seen == [("GET", "k"), b"v"]
    assert outcomes == [b"v"]
    lost: Deferred[object] = Deferred()
    observers.watch(("SET", "k", "v"), lost).addErrback(outcomes.append)
    lost.errback(ValueError("no"))
    failure = outcomes[-1]
    assert isinstance(failure, Failure)
    assert seen[-1] is failure
    assert len(failures) == 4
    for stop in stops:
        stop()
    assert not observers.of_commands
