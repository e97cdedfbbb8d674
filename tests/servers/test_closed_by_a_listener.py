"""A client may be closed at any moment, from inside anything that it calls."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.groups import answer, at_once
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import ServiceStopped
from txharedis.events import (
    Event,
    FailoverStarted,
    FailoverStep,
    MasterChanged,
    NodeChanged,
    Refused,
    Waiting,
)
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


@pytest.mark.parametrize(
    "kind", [NodeChanged, MasterChanged, FailoverStarted, FailoverStep, Waiting, Refused]
)
@on_reactor
async def test_nothing_is_left_of_a_client_that_its_listener_closed(
    trio: list[LocalServer], watch: Watch, kind: type[Event]
) -> None:
    if kind is Waiting:
        await at_once(server.stop() for server in trio[1:])
    elif kind is Refused:
        await at_once(server.call("SET", "k", server.port) for server in trio)
    closed: list[Deferred[Any]] = []
    watched = watch(trio)

    def close(event: Event) -> None:
        if isinstance(event, kind) and not closed:
            closed.append(watched.client.disconnect())

    watched.listeners.append(close)
    reply = watched.client.get("k")
    await eventually(lambda: closed)
    await answer(closed[0])
    told = len(watched.events)
    with pytest.raises(ServiceStopped):
        await answer(reply)
    with pytest.raises(ServiceStopped):
        await answer(watched.client.get("k"))
    assert "stopped" in repr(watched.client)
    assert watched.client.master is None
    # The fixtures look for what is left in the reactor.
    assert len(watched.events) == told


@on_reactor
async def test_whoever_closes_it_and_whoever_waits_is_told_when_the_last_link_is_gone(
    trio: list[LocalServer], watch: Watch
) -> None:
    client = watch(trio).client
    await answer(client.set("k", "v"))
    waiting = client.whenDisconnected()
    closed = [client.disconnect(), client.disconnect(), client.quit()]
    assert not any(deferred.called for deferred in [waiting, *closed])

    for deferred in closed:
        await answer(deferred)
    assert await answer(waiting) is client
    assert await answer(client.whenDisconnected()) is client
