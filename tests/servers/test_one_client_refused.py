"""One client alone is refused by the master: that proves no death, however idle the group is."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.failovers import standings
from tests.groups import answer, at_once, follow, promotions
from tests.servers.conftest import Watch
from txharedis import ServiceStopped
from txharedis.events import FailoverStarted, Waiting
from txharedis.testing._loopback import ReservedPort
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

QUICK: dict[str, Any] = {"heartbeat": 0.4, "down_after": 2.5}


class RefusedBy:
    """A reactor that is refused when it dials one server."""

    def __init__(self, reactor: Any, server: LocalServer) -> None:
        self._reactor = reactor
        self._closed = ReservedPort()
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(self, host: str, port: int, *args: Any, **options: Any) -> Any:
        there = self._closed.number if port == self._server.port else port
        return self._reactor.connectTCP(host, there, *args, **options)


async def assert_it_waits(
    reactor: Any, watch: Watch, nodes: list[str], trio: list[LocalServer], **options: Any
) -> None:
    before = await standings(trio)
    alone = watch(nodes, dialler=RefusedBy(reactor, trio[0]), **QUICK, **options)
    early = alone.client.set("early", 1)
    early.addErrback(lambda failure: failure.trap(ServiceStopped) and None)  # at the end
    await alone.until(Waiting, trio[0].address.rpartition(":")[2])
    await deferLater(reactor, 3.0)
    assert not alone.seen(FailoverStarted)
    assert promotions(trio) == 0
    assert await standings(trio) == before
    assert not early.called


@pytest.mark.parametrize("served", [True, False])
@on_reactor
async def test_untuned_idle_group_is_left_alone(
    reactor: Any, trio: list[LocalServer], watch: Watch, served: bool
) -> None:
    """With a client that serves it, or ready-made and never seen by one."""
    await at_once(follow(server, trio[0]) for server in trio[1:])
    nodes = [server.address for server in trio]
    if served:
        other = watch(nodes, tune_nodes=False)
        assert await answer(other.client.set("k", "v")) == "OK"
        await deferLater(reactor, 1.0)
    await assert_it_waits(reactor, watch, nodes, trio, tune_nodes=False)


@on_reactor
async def test_nodes_by_name_with_replicas_that_follow_an_ip_address(
    reactor: Any, trio: list[LocalServer], watch: Watch
) -> None:
    await at_once(follow(server, trio[0]) for server in trio[1:])
    nodes = [f"localhost:{server.port}" for server in trio]
    other = watch(nodes)
    assert await answer(other.client.set("k", "v")) == "OK"
    await deferLater(reactor, 1.0)
    await assert_it_waits(reactor, watch, nodes, trio)
