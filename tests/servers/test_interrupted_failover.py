"""The client that fails over is stopped or killed in the middle, at each step."""

from __future__ import annotations

import signal

import pytest
import pytest_twisted

from tests.failovers import is_locked, standing, standings
from tests.groups import at_once, meta_of, promotions, until_settled
from tests.servers.conftest import Form, Holders, MakeServers, Watch
from tests.support import eventually
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

STEPS = ("lock", "look", "promote", "serve", "redirect", "gossip")
LOCK_TIME = 1.0


async def at_rest(servers: list[LocalServer]) -> bool:
    """Whether nobody holds a lock, and the newest meta is everywhere."""
    metas = await at_once(meta_of(server) for server in servers)
    locked = await at_once(is_locked(server) for server in servers)
    return all(meta == metas[0] for meta in metas) and not any(locked)


@pytest.mark.parametrize(
    ("at", "blind"),
    [
        ("start", False),
        *((step, False) for step in STEPS),
        ("look", True),
        ("transaction", True),
        ("promote", True),
    ],
)
@on_reactor
async def test_paused_holder_changes_nothing(
    group: list[LocalServer], watch: Watch, holders: Holders, at: str, blind: bool
) -> None:
    """Its own clock stops it, or if it is blind to that, the servers' fence does."""
    master, *others = group
    watched = watch(group)
    await watched.client.when_ready()
    holder = holders(group, at, signal.SIGSTOP, blind=blind, lock_time=LOCK_TIME)
    await holder.until("MasterChanged")
    master.kill()
    holder.block_until_signalled()

    new = await until_settled(others)
    assert await watched.client.incr("n") == 1
    await eventually(lambda: at_rest(others))
    before = await standings(others)
    assert promotions(group) == 1

    holder.resume()
    await holder.until("FailoverEnded")
    assert await holder.run("INCR", "n") == 2
    assert await standings(others) == before
    assert watched.client.master == new.address
    assert watched.masters == [master.address, new.address]


@pytest.mark.parametrize("at", STEPS)
@on_reactor
async def test_other_client_finishes_what_a_dead_one_began(
    group: list[LocalServer], watch: Watch, holders: Holders, at: str
) -> None:
    master, *others = group
    # Not by chance in one of its surveys: it waits for the lock's end, and for nothing else.
    watched = watch(group, lock_time=LOCK_TIME, survey_interval=3600)
    await watched.client.when_ready()
    holder = holders(group, at, signal.SIGKILL, lock_time=LOCK_TIME)
    await holder.until("MasterChanged")
    master.kill()
    holder.block_until_signalled()

    async def finished() -> bool:
        first, second = await standings(others)
        one, other = (first, second) if first.role == "master" else (second, first)
        place = others[0] if one is first else others[1]
        return one.role == "master" and other.follows == place.address and other.read_only

    answer = watched.client.incr("n")
    await eventually(finished)
    assert await answer == 1
    assert promotions(group) == 1
    new = await until_settled(others)
    assert watched.client.master == new.address
    assert (await standing(new)).meta["master"] == new.address


@on_reactor
async def test_paused_holder_makes_nobody_follow_the_master_it_made(
    make_servers: MakeServers, form: Form, watch: Watch, holders: Holders
) -> None:
    servers = await make_servers(5)
    await form(servers)
    master, *others = servers
    watched = watch(servers)
    await watched.client.when_ready()
    holder = holders(servers, "promote", signal.SIGSTOP, blind=True, lock_time=LOCK_TIME)
    await holder.until("MasterChanged")
    master.kill()
    holder.block_until_signalled()
    # What it promoted dies before it has told anyone.
    [made] = [server for server in others if promotions([server])]
    made.kill()
    left = [server for server in others if server is not made]
    new = await until_settled(left)
    assert await watched.client.incr("n") == 1
    await eventually(lambda: at_rest(left))
    before = await standings(left)

    holder.resume()
    await holder.until("FailoverEnded", master=made.address)
    assert await holder.run("INCR", "n") == 2
    assert await standings(left) == before
    assert watched.client.master == new.address
    assert promotions(servers) == 2
