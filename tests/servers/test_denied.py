"""Servers that will not have us: commands fail with their words until that is put right."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.groups import DURABLE, WatchedClient, answer, at_once
from tests.servers.conftest import MakeServers, Watch
from tests.support import eventually
from txharedis import AccessDenied, HAClient
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

USER = ("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")


async def everywhere(servers: Sequence[LocalServer], *words: str) -> None:
    await at_once(server.call(*words) for server in servers)


async def assert_denied(watched: WatchedClient, text: str) -> None:
    ready = watched.client.when_ready()
    with pytest.raises(AccessDenied, match=text):
        await answer(watched.client.set("k", "early"))
    with pytest.raises(AccessDenied, match=text):
        await answer(ready)
    with pytest.raises(AccessDenied, match=text):
        await answer(watched.client.when_ready())


async def set_if_allowed(client: HAClient) -> Any:
    got: Deferred[Any] = answer(client.set("k", "v"), 10.0)
    return await got.addErrback(lambda failure: failure.trap(AccessDenied) and None)


async def assert_served(watched: WatchedClient) -> None:
    assert await eventually(functools.partial(set_if_allowed, watched.client)) == "OK"
    await answer(watched.client.when_ready())
    assert await answer(watched.client.get("k")) == "v"


@on_reactor
async def test_wrong_password(make_servers: MakeServers, watch: Watch) -> None:
    trio = await make_servers(3, options=("--requirepass", "right", "--masterauth", "right"))
    watched = watch(trio, password="other", reconnect_max=0.5)
    await assert_denied(watched, "WRONGPASS")
    for server in trio:
        options = ("--requirepass", "other", "--masterauth", "other")
        await server.restart(options=options)
    await assert_served(watched)


@on_reactor
async def test_database_that_the_servers_lack(make_servers: MakeServers, watch: Watch) -> None:
    trio = await make_servers(3, options=(*DURABLE, "--databases", "16"))
    watched = watch(trio, db=20, reconnect_max=0.5)
    await assert_denied(watched, "DB index is out of range")
    for server in trio:
        await server.restart(options=(*DURABLE, "--databases", "32"))
    await assert_served(watched)
    master = next(server for server in trio if server.address == watched.client.master)
    assert await master.call("GET", "k", db=20) == b"v"


@on_reactor
async def test_user_without_select(trio: list[LocalServer], watch: Watch) -> None:
    await everywhere(trio, *USER, "-select")
    watched = watch(trio, username="app", password="pw", reconnect_max=0.5)
    await assert_denied(watched, "NOPERM.*select")
    await everywhere(trio, *USER, "+select")
    await assert_served(watched)
