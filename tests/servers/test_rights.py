"""Users with fewer rights: what they lack is named, and they follow what others decide."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted

from tests.acl import PASSWORD, USER, documented, set_user
from tests.groups import (
    WatchedClient,
    answer,
    at_once,
    meta_of,
    until_settled,
)
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import ResponseError
from txharedis.events import FailoverStarted, MasterChanged
from txharedis.testing.servers import LocalServer
from txharedis.topology import Status

on_reactor = pytest_twisted.ensureDeferred

ME = {"username": USER, "password": PASSWORD, "delivery": "at-least-once"}
DATA_ONLY = ("~app:*", "+@read", "+@write", "+@connection")


def rights_missing(watched: WatchedClient) -> set[str]:
    return {right for node in watched.client.topology.nodes for right in node.missing_rights}


async def fail_over(servers: Sequence[LocalServer], watched: WatchedClient) -> LocalServer:
    """Kill the master of these servers, and start it again; returns the new one."""
    old = await until_settled(servers)
    old.kill()
    others = [server for server in servers if server is not old]
    new = await until_settled(others)
    await answer(watched.client.set("app:k", "after"))
    assert watched.client.master == new.address
    await old.exited()
    await old.start()
    return new


@on_reactor
async def test_a_user_with_all_rights_lacks_none(group: list[LocalServer], watch: Watch) -> None:
    await set_user(group, "allkeys", "allchannels", "+@all")
    before = await at_once(standing(server) for server in group)
    watched = watch(group, **ME)
    await answer(watched.client.set("k", "v"))
    assert rights_missing(watched) == set()
    # To look for them has changed nothing.
    assert await at_once(standing(server) for server in group) == before


async def standing(server: LocalServer) -> Any:
    info = await server.info("replication")
    settings = await server.call("CONFIG", "GET", "*")
    return info["role"], info.get("master_port"), settings, await meta_of(server)


@on_reactor
async def test_the_documented_user_fails_over(trio: list[LocalServer], watch: Watch) -> None:
    await set_user(trio, *documented("app"))
    watched = watch(trio, **ME)
    await answer(watched.client.set("app:k", "before"))
    assert rights_missing(watched) == set()
    old = await until_settled(trio)
    old.kill()
    await watched.until(MasterChanged, f"old={watched.seen(MasterChanged)[-1].new!r}")
    await answer(watched.client.set("app:k", "after"))
    await old.exited()
    await old.start()
    await set_user([old], *documented("app"))
    await until_settled(trio)
    assert await answer(watched.client.get("app:k")) == "after"


@on_reactor
@pytest.mark.parametrize("rules", [DATA_ONLY, None], ids=["data only", "documented"])
async def test_a_follower_follows_the_failovers_of_others(
    group: list[LocalServer], watch: Watch, rules: tuple[str, ...] | None
) -> None:
    rules = rules or documented("follower")
    await set_user(group, *rules)
    follower = watch(group, **ME)
    await answer(follower.client.set("app:k", "before"))
    for _ in range(2):
        elector = watch(group)
        await answer(elector.client.when_ready())
        old = await until_settled(group)
        old.kill()
        await elector.until(MasterChanged, f"old={elector.seen(MasterChanged)[-1].new!r}")
        await answer(follower.client.set("app:k", "after"))
        assert follower.client.master == elector.client.master != old.address
        await old.exited()
        await old.start()
        await set_user([old], *rules)
        await until_settled(group)
        await elector.client.disconnect()
    assert not follower.seen(FailoverStarted)
    assert await answer(follower.client.get("app:k")) == "after"
    with pytest.raises(ResponseError, match="NOPERM"):
        await answer(follower.client.set("elsewhere", "v"))


@on_reactor
async def test_no_right_of_the_documented_user_can_be_spared(
    server: LocalServer, watch: Watch
) -> None:
    """On each node what is taken away is named, or we are not let in."""
    rules = documented("app")
    spared = []
    for rule in rules:
        if rule in ("~app:*", "+@read", "+@write", "+ping"):
            continue  # of the program's own; a PING that is denied is an answer too
        await set_user([server], *(other for other in rules if other != rule))
        watched = watch([server, "127.0.0.1:1", "127.0.0.1:2"], **ME)
        try:
            await eventually(functools.partial(is_curtailed, watched), 3.0)
        except AssertionError:
            spared.append(rule)
        await watched.client.disconnect()
    assert not spared


def is_curtailed(watched: WatchedClient) -> bool:
    [node, *_] = watched.client.topology.nodes
    return bool(node.status is Status.DENIED or node.missing_rights)
