"""What others publish on the gossip channel is a hint: the client looks for itself."""

from __future__ import annotations

import re
from typing import Any

import pytest
import pytest_twisted

from tests.groups import OWN_DB, answer, follow, meta_of, promotions, until_settled
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis.events import FailoverStarted, NodeChanged
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

CHANNEL = "haredis:gossip:master"

# So that nothing but gossip makes the client look.
SELDOM = {"survey_interval": 3000.0}

GARBAGE: list[str | bytes] = [
    "",
    " ",
    ":",
    "no address",
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:99999999999",
    "127.0.0.1:-1",
    "::::::",
    "[::1]:6379",
    "{what} {0} %s %(client)s",
    b"\xff\xfe\x00\x80",
    b"\x00" * 100,
    "x" * 1_000_000,
    "\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nx\r\n",
]


async def listening(servers: list[LocalServer]) -> bool:
    """Whether the client hears gossip on all of these servers."""
    counts = [await server.call("PUBSUB", "NUMSUB", CHANNEL) for server in servers]
    return all(count[1] > 0 for count in counts)


async def surveys(server: LocalServer) -> int:
    """How often it has been asked for what a survey wants to know."""
    stats = await server.info("commandstats")
    found = re.match(r"calls=(\d+)", stats.get("cmdstat_hgetall", ""))
    return int(found[1]) if found else 0


async def looked(server: LocalServer, before: int) -> None:
    """Return when a survey was made since there were `before`."""

    async def more() -> bool:
        return await surveys(server) > before

    await eventually(more)


async def quiet(server: LocalServer) -> int:
    """The number of surveys, once it has stood still for about a quarter of a second."""
    seen = [-1, await surveys(server)]

    async def same() -> bool:
        seen.append(await surveys(server))
        return len(set(seen[-12:])) == 1

    await eventually(same, every=0.02)
    return seen[-1]


async def move_master(old: LocalServer, new: LocalServer, others: list[LocalServer]) -> None:
    """What another client does in a failover, but for the gossip."""
    meta = await meta_of(old)
    await new.call("SLAVEOF", "NO", "ONE")
    meta |= {
        "epoch": str(int(meta["epoch"]) + 1),
        "master": new.address,
        "run_id": (await new.info("server"))["run_id"],
    }
    await new.call("HSET", "haredis:meta", *(w for pair in meta.items() for w in pair), db=OWN_DB)
    for server in (old, *others):
        await follow(server, new)


@on_reactor
async def test_true_gossip_is_followed_at_once(group: list[LocalServer], watch: Watch) -> None:
    old, new, other = group
    watched = watch(group, **SELDOM)
    assert await answer(watched.client.set("k", "v")) == "OK"
    await eventually(lambda: listening(group))
    await quiet(old)
    await move_master(old, new, [other])
    assert watched.client.master == old.address
    await other.call("PUBLISH", CHANNEL, new.address)
    await eventually(lambda: watched.client.master == new.address)
    assert await answer(watched.client.set("k", "w")) == "OK"
    assert watched.masters == [old.address, new.address]
    assert not watched.seen(FailoverStarted)
    assert promotions(group) == 1


@on_reactor
async def test_gossip_that_names_a_replica_changes_nothing(
    group: list[LocalServer], watch: Watch
) -> None:
    master, replica, _ = group
    watched = watch(group, **SELDOM)
    assert await answer(watched.client.set("k", "v")) == "OK"
    await eventually(lambda: listening(group))
    before = await quiet(master)
    for server in group:
        await server.call("PUBLISH", CHANNEL, replica.address)
    await looked(master, before)
    assert await answer(watched.client.set("k", "w")) == "OK"
    assert watched.masters == [master.address]
    assert await until_settled(group) is master
    assert promotions(group) == 0
    assert not watched.seen(FailoverStarted)


@pytest.mark.parametrize("claims", ["nothing", "the same epoch"])
@on_reactor
async def test_gossip_of_a_usurper_is_not_followed(
    group: list[LocalServer], watch: Watch, claims: str
) -> None:
    master, usurper, _ = group
    watched = watch(group, **SELDOM)
    assert await answer(watched.client.set("k", "v")) == "OK"
    await eventually(lambda: listening(group))
    before = await quiet(master)
    await usurper.call("SLAVEOF", "NO", "ONE")
    if claims == "the same epoch":
        await usurper.call("HSET", "haredis:meta", "master", usurper.address, db=OWN_DB)
    await usurper.call("SET", "haredis:opcounter", 10**12, db=OWN_DB)
    await usurper.call("PUBLISH", CHANNEL, usurper.address)
    await looked(master, before)
    assert await answer(watched.client.set("k", "w")) == "OK"
    # It is made a replica again, as any master is that has no claim.
    assert await until_settled(group) is master
    assert watched.masters == [master.address]
    assert promotions(group) == 1  # its own
    await eventually(lambda: has(usurper, b"w"))


async def has(server: LocalServer, value: bytes) -> bool:
    return bool(await server.call("GET", "k") == value)


@on_reactor
async def test_gossip_that_names_a_foreign_master_is_not_followed(
    make_servers: Any, form: Any, watch: Watch
) -> None:
    foreign, *group = await make_servers(4)
    await form(group)
    master = group[0]
    watched = watch(group, **SELDOM)
    assert await answer(watched.client.set("k", "v")) == "OK"
    await eventually(lambda: listening(group))
    before = await quiet(master)
    await master.call("PUBLISH", CHANNEL, foreign.address)
    await looked(master, before)
    assert await answer(watched.client.set("k", "w")) == "OK"
    assert watched.masters == [master.address]
    assert await foreign.call("DBSIZE") == 0


@on_reactor
async def test_garbage_is_harmless(group: list[LocalServer], watch: Watch) -> None:
    master = group[0]
    watched = watch(group)
    assert await answer(watched.client.set("k", "v")) == "OK"
    await eventually(lambda: listening(group))
    told = len(watched.events)
    for text in GARBAGE:
        for server in group:
            await server.call("PUBLISH", CHANNEL, text)
    assert await answer(watched.client.set("k", "w")) == "OK"
    # Its ears are whole: the same links still hear the truth.
    before = await quiet(master)
    await group[1].call("PUBLISH", CHANNEL, group[2].address)
    await looked(master, before)
    assert watched.masters == [master.address]
    assert not [event for event in watched.events[told:] if isinstance(event, NodeChanged)]
    assert promotions(group) == 0


@on_reactor
async def test_flood_costs_no_more_than_twenty_surveys_a_second(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    master, replica, _ = group
    watched = watch(group, **SELDOM)
    assert await answer(watched.client.set("k", "v")) == "OK"
    await eventually(lambda: listening(group))
    before = await quiet(master)
    flood = """
        for i = 1, tonumber(ARGV[2]) do
            redis.call('publish', KEYS[1], ARGV[1])
            redis.call('publish', KEYS[1], 'garbage ' .. i)
        end
    """
    began = reactor.seconds()
    for _ in range(10):
        # As a script it is one answer for 4000 messages.
        await replica.call("EVAL", flood, 1, CHANNEL, replica.address, 2000)
        assert await answer(watched.client.incr("n"))
    made = await quiet(master) - before
    seconds = reactor.seconds() - began
    # Two names (one of ours, one of elsewhere), each heeded every 50 ms.
    assert 1 <= made <= 2 * (seconds / 0.05 + 1)
    assert watched.masters == [master.address]
    assert promotions(group) == 0
