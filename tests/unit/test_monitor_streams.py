"""Server-sent events: made once for all pages, and bounded for a page that does not read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.monitored import A, B, Service
from txharedis.events import MasterChanged
from txharedis.monitor import streams as module
from txharedis.monitor.streams import BACKLOG, MOST, Streams
from txharedis.monitor.watcher import Watcher


class Request:
    """Stands in for a request of Twisted's, and for its connection."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.producer: Any = None
        self.aborted = False
        self.channel = self
        self.transport = self
        self.finished: Deferred[None] = Deferred()

    def notifyFinish(self) -> Deferred[None]:
        return self.finished

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def write(self, data: bytes) -> None:
        assert not self.aborted
        self.written.append(data)

    def abortConnection(self) -> None:
        self.aborted = True

    @property
    def kinds(self) -> list[str]:
        lines = b"".join(self.written).decode().splitlines()
        return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watcher(clock: Clock) -> Any:
    watcher = Watcher(clock, Service(clock))
    watcher.startService()
    yield watcher
    watcher.stopService()
    assert not clock.getDelayedCalls()


@pytest.fixture
def streams(clock: Clock, watcher: Watcher) -> Any:
    streams = Streams(clock, watcher)
    yield streams
    streams.close()


def second(clock: Clock) -> None:
    clock.pump([1.0, 0.0])


def test_a_page_gets_all_and_then_what_is_new(clock: Clock, streams: Streams) -> None:
    page = Request()
    assert streams.add(page)
    assert page.kinds == ["cluster", "history", "series", "log"]
    assert page.written[0].startswith(b"retry: 1000\n\n")
    second(clock)
    second(clock)
    assert page.kinds[4:] == ["cluster", "sample"] * 2
    assert len(page.written) == 3  # one write a turn
    for _ in range(4):
        second(clock)
    assert b"".join(page.written).count(b": ping\n\n") == 1
    for block in b"".join(page.written).split(b"\n\n"):
        if block.startswith(b"event: "):
            json.loads(block.split(b"\ndata: ")[1])


def test_what_is_new_is_made_once_for_all(
    clock: Clock, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    encode = module.encoded

    def counted(value: object) -> bytes:
        made.append(value)
        return encode(value)

    pages = [Request() for _ in range(50)]
    monkeypatch.setattr(module, "encoded", counted)
    for page in pages:
        streams.add(page)
    assert len(made) == 4
    second(clock)
    assert len(made) == 6
    assert all(page.written[-1] is pages[0].written[-1] for page in pages)
    # Nobody listens: nothing is made.
    for page in pages:
        page.finished.callback(None)
    assert len(streams) == 0
    second(clock)
    assert len(made) == 6
    streams.documents.of("cluster")
    streams.documents.of("cluster")
    assert len(made) == 7


def test_many_changes_of_one_turn_are_one(clock: Clock, watcher: Watcher, streams: Streams) -> None:
    page = Request()
    streams.add(page)
    service: Any = watcher.watched
    for epoch in range(10):
        service.tell(MasterChanged(at=0.0, old=A, new=B, epoch=epoch))
    clock.advance(0)
    kinds = page.kinds[4:]
    assert kinds.count("cluster") == kinds.count("history") == 1


def test_a_page_that_does_not_read_is_dropped(
    clock: Clock, watcher: Watcher, streams: Streams
) -> None:
    slow, quick = Request(), Request()
    streams.add(slow)
    streams.add(quick)
    slow.producer.pauseProducing()
    written = len(slow.written)
    kept = 0
    while not slow.aborted:
        second(clock)
        assert len(slow.written) == written
        kept += len(quick.written[-1])
        assert kept < BACKLOG + 100_000
    assert kept > BACKLOG
    assert len(streams) == 1
    second(clock)
    assert not quick.aborted


def test_a_page_that_reads_again_gets_what_it_missed(clock: Clock, streams: Streams) -> None:
    slow, quick = Request(), Request()
    streams.add(slow)
    streams.add(quick)
    slow.producer.pauseProducing()
    for _ in range(5):
        second(clock)
    slow.producer.resumeProducing()
    assert b"".join(slow.written) == b"".join(quick.written)
    slow.producer.stopProducing()
    second(clock)
    assert len(slow.written) < len(quick.written)


def test_there_are_so_many_pages_and_no_more(clock: Clock, streams: Streams) -> None:
    pages = [Request() for _ in range(MOST)]
    assert all(streams.add(page) for page in pages)
    assert not streams.add(Request())
    pages[7].finished.errback(ConnectionError())
    assert streams.add(Request())
    streams.close()
    assert pages[0].aborted
    assert len(streams) == 0
