"""Users with fewer rights: what they lack is named, and they follow what others decide."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted

from tests.acl import PASSWORD, USER, documented, set_user
from tests.groups import (
    OWN_DB,
    WatchedClient,
    answer,
    at_once,
    meta_of,
    promotions,
    until_settled,
)
from tests.servers.conftest import Form, MakeServers, Watch
from tests.support import eventually, lines_logged
from txharedis import ResponseError
from txharedis.events import FailoverStarted, MasterChanged, Waiting
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
@pytest.mark.parametrize("user", ["data only", "follower", "listener"])
async def test_a_follower_follows_the_failovers_of_others(
    group: list[LocalServer], watch: Watch, user: str
) -> None:
    rules = DATA_ONLY if user == "data only" else documented(user)
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
            await eventually(functools.partial(is_curtailed, watched))
        except AssertionError:
            spared.append(rule)
        await watched.client.disconnect()
    assert not spared


def is_curtailed(watched: WatchedClient) -> bool:
    [node, *_] = watched.client.topology.nodes
    return bool(node.status is Status.DENIED or node.missing_rights)


@on_reactor
async def test_who_shall_not_elect_changes_nothing(trio: list[LocalServer], watch: Watch) -> None:
    before = await at_once(standing(server) for server in trio)
    follower = watch(trio, elect=False)
    waiting = await follower.until(Waiting, "only clients with the right to elect may act")
    assert "invalid master count: 3" in waiting.reason
    reply = answer(follower.client.set("k", "v"))
    assert await at_once(standing(server) for server in trio) == before
    assert not [key for server in trio for key in await server.call("KEYS", "*", db=OWN_DB)]
    elector = watch(trio)
    assert await reply == "OK"
    assert follower.client.master == elector.client.master
    assert not follower.seen(FailoverStarted)
    assert rights_missing(follower) == set()


@on_reactor
async def test_who_shall_not_elect_waits_for_those_who_may(
    group: list[LocalServer], watch: Watch
) -> None:
    follower = watch(group, elect=False, delivery="at-least-once")
    await answer(follower.client.set("k", "before"))
    master = group[0]
    master.kill()
    waiting = await follower.until(Waiting, "only clients with the right to elect may act")
    assert f"MASTER {master.address} is down" in waiting.reason
    reply = answer(follower.client.set("k", "after"))
    assert promotions(group) == 0
    watch(group)
    assert await reply == "OK"
    assert promotions(group) == 1
    assert not follower.seen(FailoverStarted)


@on_reactor
async def test_a_user_of_data_waits_while_two_say_that_they_are_master(
    group: list[LocalServer], watch: Watch
) -> None:
    await set_user(group, *documented("follower"))
    await group[2].call("SLAVEOF", "NO", "ONE")
    follower = watch(group, **ME)
    reply = answer(follower.client.set("app:k", "v"))
    await follower.until(Waiting, "2 nodes say that they are master")
    assert not reply.called
    await group[2].call("SLAVEOF", "127.0.0.1", group[0].port)
    assert await reply == "OK"
    assert follower.client.master == group[0].address


@on_reactor
async def test_a_user_of_data_uses_a_single_node(make_servers: MakeServers, watch: Watch) -> None:
    user = ("--user", USER, "on", f">{PASSWORD}", *documented("follower"))
    [server] = await make_servers(1, options=user)
    watched = watch([server], **ME)
    assert await answer(watched.client.set("app:k", "v")) == "OK"
    assert watched.client.master == server.address
    assert rights_missing(watched) == set()
    await server.restart()
    assert await answer(watched.client.set("app:k", "w")) == "OK"


@on_reactor
async def test_what_is_denied_is_said_once(group: list[LocalServer], watch: Watch) -> None:
    await set_user(group, *DATA_ONLY)
    with lines_logged() as lines:
        follower = watch(group, survey_interval=0.05, **ME)
        for number in range(50):
            await answer(follower.client.set("app:k", number))
        master = next(s for s in group if s.address == follower.client.master)
        counts = [
            int(entry[b"count"])
            for entry in await denials(master)
            if entry[b"object"] == b"evalsha"
        ]
        await eventually(lambda: sum("it follows only" in line for line in lines) == 3)
    # The count of the writes was tried, and given up.
    assert 1 <= sum(counts) <= 4
    for server in group:
        start = f"{server.address}: user 'app' may not "
        said = [line.removeprefix(start) for line in lines if line.startswith(start)]
        rights = [right for line in said for right in line.rpartition(": ")[0].split(", ")]
        assert len(rights) == len(set(rights))
        assert {
            *("SLAVEOF", "CONFIG SET", "INFO", "EVAL", "MULTI", "WATCH haredis:failover:*"),
            *("HSET haredis:meta", "SUBSCRIBE haredis:gossip:master"),
        } <= set(rights)
    assert len(lines) == len(set(lines)) < 12


async def denials(server: LocalServer) -> list[dict[bytes, Any]]:
    entries = await server.call("ACL", "LOG")
    return [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in entries]


@on_reactor
async def test_rights_on_a_quorum_are_enough(group: list[LocalServer], watch: Watch) -> None:
    await set_user(group[:2], *documented("app"))
    await set_user(group[2:], *DATA_ONLY)
    watched = watch(group, **ME)
    await answer(watched.client.set("app:k", "before"))
    missing = [bool(node.missing_rights) for node in watched.client.topology.nodes]
    assert missing == [False, False, True]
    # The third can be followed, and not be changed: the two others are the quorum.
    await group[2].call("SLAVEOF", "127.0.0.1", group[1].port)
    await group[0].call("SLAVEOF", "127.0.0.1", group[1].port)
    await group[1].call("SLAVEOF", "NO", "ONE")
    assert (await until_settled(group)) in group[:2]
    assert await answer(watched.client.get("app:k")) == "before"


@on_reactor
@pytest.mark.parametrize("anew", [True, False], ids=["new links", "old links"])
async def test_rights_that_are_granted_are_used(
    group: list[LocalServer], watch: Watch, anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("txharedis.node._LACKING_AGE", 0.5)
    await set_user(group, *documented("follower"))
    watched = watch(group, survey_interval=0.5, **ME)
    await answer(watched.client.set("app:k", "v"))
    assert rights_missing(watched)
    await at_once(server.call("ACL", "SETUSER", USER, *documented("app")) for server in group)
    # It looks again by itself, and at once on a new link.
    if anew:
        await at_once(server.call("CLIENT", "KILL", "USER", USER) for server in group)
    await eventually(lambda: not rights_missing(watched))
    assert await answer(watched.client.set("app:k", "w")) == "OK"
    # To see more than before is no reason for a failover.
    assert not watched.seen(FailoverStarted)
    group[0].kill()
    await watched.until(FailoverStarted)
    assert await answer(watched.client.set("app:k", "x")) == "OK"
    assert promotions(group) == 1


@on_reactor
async def test_follower_changes_no_setting_of_nodes_that_keep_stale_data_to_themselves(
    make_servers: MakeServers, form: Form, watch: Watch
) -> None:
    trio = await make_servers(3, options=("--replica-serve-stale-data", "no"))
    await form(trio)
    master, *others = trio
    follower = watch(trio, elect=False)
    await answer(follower.client.when_ready())

    async def changes() -> list[str]:
        stats = await at_once(server.info("commandstats") for server in others)
        return [each.get("cmdstat_config|set", "").split(",")[0] for each in stats]

    before = await changes()
    waiting = follower.client.incr("n")
    assert await answer(waiting) == 1
    master.kill()
    await follower.until(Waiting)
    assert await changes() == before

    watch(trio)
    assert await answer(follower.client.incr("n")) == 2
    assert await until_settled(others)
    assert follower.masters[-1] != master.address


@pytest.mark.parametrize("nodes", [1, 3])
@on_reactor
async def test_what_wait_needs(group: list[LocalServer], watch: Watch, nodes: int) -> None:
    servers = group if nodes == 3 else group[:1]
    blocking = ("+@blocking", "+client|id", "+client|unblock")
    await set_user(servers, *documented("follower"), *blocking, "+wait")
    client = watch(servers, **ME).client
    await answer(client.set("app:k", 1))
    with pytest.raises(ResponseError, match="NOPERM"):
        await answer(client.wait(2, 5000))  # and not a number that is not true
    own = ("+eval", "~haredis:*") if nodes == 3 else ("+publish", "&haredis:wait")
    await set_user(servers, *documented("follower"), *blocking, "+wait", *own)
    await answer(client.set("app:k", 2))
    assert await answer(client.wait(2, 5000)) == 2
