"""SLAVEOF fails on one node: the rest is in service, and the node is made to follow later."""

from __future__ import annotations

import pytest_twisted

from tests.groups import answer, at_once, promotions, replicates, until_settled
from tests.servers.conftest import Form, MakeServers, Watch
from tests.support import eventually
from txharedis.events import Event, FailoverStarted, FailoverStep, NodeChanged, Waiting
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

WHO = {"username": "ha", "password": "secret"}


async def let_in(server: LocalServer) -> None:
    await server.call("ACL", "SETUSER", "ha", "on", ">secret", "~*", "&*", "+@all")


async def forbid(server: LocalServer) -> None:
    await server.call("ACL", "SETUSER", "ha", "-slaveof", "-replicaof")


async def allow(server: LocalServer) -> None:
    await server.call("ACL", "SETUSER", "ha", "+slaveof", "+replicaof")


async def denials(server: LocalServer) -> int:
    """How many times the server has denied us SLAVEOF."""
    entries = await server.call("ACL", "LOG")
    fields = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in entries]
    return sum(entry[b"count"] for entry in fields if entry[b"object"] == b"slaveof")


@on_reactor
async def test_node_that_forbids_slaveof_at_the_start_follows_when_it_allows_it(
    trio: list[LocalServer], watch: Watch
) -> None:
    master, replica, deaf = trio
    await at_once(let_in(server) for server in trio)
    await forbid(deaf)
    await master.call("SET", "old", "data")
    watched = watch(trio, **WHO)
    assert await answer(watched.client.get("old")) == "data"
    assert await until_settled([master, replica]) is master

    async def tried_again() -> bool:
        return await denials(deaf) >= 3

    await eventually(tried_again, 20.0)
    assert (await deaf.info("replication"))["role"] == "master"
    assert await answer(watched.client.set("k", "v")) == "OK"
    # Nobody is told, and nothing else happens: the client tries again by itself.
    await allow(deaf)
    assert await until_settled(trio) is master
    assert await deaf.call("MGET", "old", "k") == [b"data", b"v"]
    assert watched.masters == [master.address]


@on_reactor
async def test_node_that_forbids_slaveof_in_a_failover_follows_when_it_allows_it(
    group: list[LocalServer], watch: Watch
) -> None:
    master, successor, deaf = group
    await at_once(let_in(server) for server in group)
    await forbid(deaf)
    await deaf.call("CONFIG", "SET", "replica-priority", 0)
    watched = watch(group, delivery="at-least-once", **WHO)
    assert await answer(watched.client.set("k", 1)) == "OK"
    master.kill()
    assert await answer(watched.client.set("k", 2)) == "OK"

    async def tried_again() -> bool:
        return await denials(deaf) >= 3

    await eventually(tried_again, 20.0)
    assert await answer(watched.client.set("k", 3)) == "OK"
    assert (await deaf.info("replication"))["master_port"] == str(master.port)
    assert await deaf.call("CONFIG", "GET", "replica-read-only") == [b"replica-read-only", b"yes"]
    await allow(deaf)
    assert await until_settled([successor, deaf]) is successor
    assert watched.masters == [master.address, successor.address]
    assert promotions(group) == 1


@on_reactor
async def test_node_that_dies_when_it_is_to_follow_does_so_when_it_is_back(
    make_servers: MakeServers, form: Form, watch: Watch
) -> None:
    master, *others = group = await make_servers(5)
    await form(group)
    watched = watch(group, delivery="at-least-once")
    assert await answer(watched.client.set("k", 1)) == "OK"
    victims: list[LocalServer] = []

    def strike(event: Event) -> None:
        if isinstance(event, FailoverStep) and event.step == "promote" and not victims:
            [victim, *_] = [s for s in others if s.address != str(event.node)]
            victims.append(victim)
            victim.kill()

    watched.listeners.append(strike)
    master.kill()
    assert await answer(watched.client.set("k", 2)) == "OK"
    [victim] = victims
    await victim.exited()
    left = [server for server in others if server is not victim]
    successor = await until_settled(left)
    assert await answer(watched.client.set("k", 3)) == "OK"
    await victim.start()
    await eventually(lambda: replicates(victim, successor))
    assert await victim.call("GET", "k") == b"3"
    await master.start()
    assert await until_settled(group) is successor
    assert watched.masters == [master.address, successor.address]
    assert promotions(group) == 1


@on_reactor
async def test_winner_that_cannot_be_promoted_does_not_block_the_group(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *others = group
    await at_once(let_in(server) for server in group)
    watched = watch(group, delivery="at-least-once", **WHO)
    assert await answer(watched.client.set("k", 1)) == "OK"
    # Both are alike: the address decides.
    deaf, able = sorted(others, key=lambda server: server.port)
    await forbid(deaf)
    master.kill()
    assert await answer(watched.client.set("k", 2)) == "OK"
    assert watched.masters == [master.address, able.address]
    await allow(deaf)
    assert await until_settled([able, deaf]) is able


@on_reactor
async def test_master_that_denies_us_alone_is_waited_for(
    group: list[LocalServer], watch: Watch
) -> None:
    master = group[0]
    await at_once(let_in(server) for server in group)
    watched = watch(group, reconnect_max=0.5, **WHO)
    assert await answer(watched.client.set("k", "v")) == "OK"
    await master.call("ACL", "SETUSER", "ha", "resetpass", ">other")
    await master.call("CLIENT", "KILL", "USER", "ha")
    denied = await watched.until(NodeChanged, "WRONGPASS")
    assert str(denied.node) == master.address
    reply = watched.client.get("k")
    waiting = await watched.until(Waiting, "2 of 2 of its replicas hear it")
    assert master.address in waiting.reason
    assert not reply.called
    await master.call("ACL", "SETUSER", "ha", ">secret")
    assert await answer(reply) == "v"
    assert watched.masters == [master.address]
    assert not watched.seen(FailoverStarted)
    assert promotions(group) == 0
