"""The monitor's HTTP server in this process: pages that do not read, too many of them, its end."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted

from tests.groups import answer
from tests.monitors import Events, connect, fetch
from tests.support import eventually
from tests.unit.monitored import WALL, Service
from txharedis.monitor import site, streams
from txharedis.monitor.watcher import Watcher
from txharedis.monitor.web import serve

on_reactor = pytest_twisted.ensureDeferred


class Seen(Service):
    """A service that metrics can be told of, too."""

    unavailable_seconds = 0.0
    db = 0
    pending = 0

    def watch_commands(self, observer: object) -> Any:
        return lambda: None


@pytest_twisted.async_yield_fixture
async def served(reactor: Any, nothing_left_behind: object) -> AsyncIterator[Any]:
    """A watcher and the port where it is served."""
    watcher = Watcher(reactor, Seen(reactor), wall=lambda: WALL + reactor.seconds())
    watcher.startService()
    port = await serve(reactor, watcher, "tcp:0:interface=127.0.0.1")
    yield watcher, port.getHost().port
    watcher.stopService()
    await port.stopListening()


@on_reactor
async def test_a_page_that_does_not_read_is_dropped(served: Any, monkeypatch: Any) -> None:
    watcher, port = served
    monkeypatch.setattr(streams, "BACKLOG", 20_000)
    reader, sloth = Events(port), Events(port)
    await connect(port, reader)
    await connect(port, sloth)
    await eventually(lambda: reader.seen and sloth.seen)
    sloth.transport.pauseProducing()
    sloth.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line = {"at": 0.0, "level": "info", "text": "x" * 10_000}
    for sent in range(0, 1500, 10):  # more than the sockets hold
        for _ in range(10):
            watcher._tell("line", line)
        await eventually(lambda sent=sent: len(reader.values("line")) == sent + 10)
    sloth.transport.resumeProducing()
    await eventually(lambda: sloth.lost)
    assert len(sloth.values("line")) < 1500
    assert not reader.lost
    reader.close()


@on_reactor
async def test_what_is_too_many_is_refused(served: Any, monkeypatch: Any) -> None:
    _, port = served
    monkeypatch.setattr(streams, "MOST", 2)
    pages = [Events(port) for _ in range(2)]
    for page in pages:
        await connect(port, page)
        await eventually(lambda page=page: page.seen)
    refused = await fetch(port, "/events")
    assert refused.code == 503
    assert "too many" in refused.json["error"]
    monkeypatch.setattr(site, "MOST_CONNECTIONS", 2)
    third = Events(port)
    await connect(port, third)
    await eventually(lambda: third.lost)
    pages[0].close()
    monkeypatch.setattr(site, "MOST_CONNECTIONS", 800)

    async def free() -> bool:
        again = Events(port)
        await connect(port, again)
        await eventually(lambda: again.seen or again.lost)
        again.close()
        return bool(again.seen)

    await eventually(free)
    pages[1].close()


@on_reactor
async def test_its_end_ends_all_connections(reactor: Any) -> None:
    watcher = Watcher(reactor, Seen(reactor))
    watcher.startService()
    port = await serve(reactor, watcher, "tcp:0:interface=127.0.0.1")
    page = Events(port.getHost().port)
    await connect(port.getHost().port, page)
    await eventually(lambda: page.seen)
    watcher.stopService()
    await answer(port.stopListening())
    await eventually(lambda: page.lost)
