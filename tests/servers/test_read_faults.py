"""Replicas die, hang, are cut off, fall behind or load: every read gets a right answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.groups import answer, at_once, until_settled
from tests.servers.conftest import Form, MakeNetwork, MakeProxy, MakeServers, Watch
from tests.servers.test_read_from import counted, executed, written
from tests.support import eventually
from txharedis import HAClient
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

HERE = "127.0.0.101"
FAST = {"heartbeat": 0.1, "down_after": 0.5}

SLOW = {"key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"}
"""Settings with which 3000 keys are loaded in three seconds, and replies given meanwhile."""


class Readers:
    """Loops that read one key, whose value must always be the same."""

    def __init__(self, view: HAClient, count: int = 5) -> None:
        self.reads = 0
        self._view = view
        self._going = True
        self._loops = [Deferred.fromCoroutine(self._loop()) for _ in range(count)]

    async def _loop(self) -> None:
        while self._going:
            assert await answer(self._view.strlen("k")) == 1
            self.reads += 1

    async def some_more(self, count: int = 100) -> None:
        enough = self.reads + count
        await eventually(lambda: self.reads >= enough, 20.0)

    async def stop(self) -> None:
        self._going = False
        await at_once(self._loops)


@asynccontextmanager
async def reading(view: HAClient) -> AsyncIterator[Readers]:
    readers = Readers(view)
    await readers.some_more()
    try:
        yield readers
        await readers.some_more()
    finally:
        await readers.stop()


Harm = Callable[[LocalServer], object]


@pytest.mark.parametrize("policy", ["replica", "replica_preferred", "any", "nearest"])
@pytest.mark.parametrize("harm", [LocalServer.kill, LocalServer.pause])
@on_reactor
async def test_a_replica_goes_away_in_the_middle_of_reads(
    group: list[LocalServer], watch: Watch, policy: str, harm: Harm
) -> None:
    await written(group, "SET", "k", "v")
    view = watch(group, read_from=policy, **FAST).client
    async with reading(view) as readers:
        harm(group[1])
        await readers.some_more()
    assert view.master == group[0].address


@pytest.mark.parametrize("policy", ["replica_preferred", "any", "nearest"])
@on_reactor
async def test_all_replicas_go_away_in_the_middle_of_reads(
    group: list[LocalServer], watch: Watch, policy: str
) -> None:
    await written(group, "SET", "k", "v")
    view = watch(group, read_from=policy, **FAST).client
    async with reading(view) as readers:
        for replica in group[1:]:
            replica.kill()
        await readers.some_more(20)
        # No quorum, no writes: and no new reads on the master, until there is one again.
        for replica in group[1:]:
            await replica.exited()
            await replica.restart()


@pytest.mark.parametrize(
    "policy", ["replica", "replica_preferred", "any", "nearest", "master_preferred"]
)
@on_reactor
async def test_the_master_is_killed_in_the_middle_of_reads(
    group: list[LocalServer], watch: Watch, policy: str
) -> None:
    await written(group, "SET", "k", "v")
    watched = watch(group, read_from=policy, **FAST)
    async with reading(watched.client) as readers:
        group[0].kill()
        await eventually(lambda: len(watched.masters) == 2)
        await readers.some_more()


@on_reactor
async def test_links_are_cut_in_the_middle_of_reads(
    group: list[LocalServer], proxies: MakeProxy, watch: Watch
) -> None:
    fronts = [proxies(server) for server in group]
    await written(group, "SET", "k", "v")
    view = watch([front.address for front in fronts], **FAST).client.read_from("replica")
    async with reading(view) as readers:
        for front in fronts[1:]:
            front.cut()
        for front in fronts[1:]:
            front.restore()
        await readers.some_more()
        fronts[1].cut()
        await readers.some_more()


@pytest.mark.parametrize("policy", ["replica", "master_preferred", "replica_preferred", "any"])
@on_reactor
async def test_while_there_is_no_master_a_replica_of_the_last_one_answers(
    group: list[LocalServer], watch: Watch, policy: str
) -> None:
    await written(group, "SET", "k", "v")
    client = watch(group, **FAST).client
    view = client.read_from(policy)
    assert await answer(view.strlen("k")) == 1
    await eventually(lambda: client.topology.master)
    for server in group[:2]:
        server.kill()
    await eventually(lambda: client.master is None)
    before = await executed(group[2:], "strlen")
    replies = [view.strlen("k") for _ in range(10)]
    assert await at_once(answer(reply) for reply in replies) == [1] * 10
    assert (await executed(group[2:], "strlen"))[0] == before[0] + 10


# Behind


async def apart(
    make_servers: MakeServers, networks: MakeNetwork, form: Form
) -> tuple[list[LocalServer], list[str], Callable[..., None]]:
    """Three servers, the nodes in front of them, and what stops the flow from the first to some."""
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)

    def stall(*replicas: LocalServer) -> None:
        if replicas:
            network.partition({str(servers[0].source)}, {str(one.source) for one in replicas})
        else:
            network.heal()

    return servers, nodes, stall


@pytest.mark.parametrize("max_lag", [100, "500ms"])
@on_reactor
async def test_a_replica_that_falls_behind_is_not_used(
    make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch, max_lag: Any
) -> None:
    servers, nodes, stall = await apart(make_servers, networks, form)
    await written(servers, "SET", "k", "v")
    options: dict[str, Any] = {"heartbeat": 0.1, "down_after": 3.0, "max_lag": max_lag}
    client = watch(nodes, source=HERE, **options).client
    view = client.read_from("replica_preferred")
    await client.when_ready()

    async def only(*shares: bool) -> bool:
        return [
            count > 0 for count in await counted(servers, lambda: view.strlen("k"), 10)
        ] == list(shares)

    await eventually(lambda: only(False, True, True))
    stall(servers[1])
    await client.set("k", "v" * 1000)
    await eventually(lambda: only(False, False, True))
    for _ in range(20):
        assert await answer(view.strlen("k")) == 1000
    stall(servers[1], servers[2])
    await client.set("k", "v" * 2000)
    await eventually(lambda: only(True, False, False))
    stall()
    await eventually(lambda: only(False, True, True))
    assert await answer(view.strlen("k")) == 2000


@on_reactor
async def test_max_lag_bounds_the_age_of_what_is_read(
    reactor: Any, make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    """A counter is raised all the time; nobody reads what is older than the bound."""
    bound = 0.4
    servers, nodes, stall = await apart(make_servers, networks, form)
    client = watch(nodes, source=HERE, down_after=3.0, heartbeat=1.0, max_lag="400ms").client
    view = client.read_from("replica_preferred")
    await client.set("k", 0)
    written_at = {0: reactor.seconds()}
    newest, going = 0, True

    async def write() -> None:
        nonlocal newest
        while going:
            newest = await answer(client.incr("k"))
            written_at[newest] = reactor.seconds()

    ages: list[float] = []
    reads = 0

    async def read() -> None:
        nonlocal reads
        while going:
            reads += 1
            began = reactor.seconds()
            value = await answer(view.get("k"))
            # It is as old as the first write that it misses.
            if value is not None and value + 1 in written_at:
                ages.append(began - written_at[value + 1])

    loops = [Deferred.fromCoroutine(write()), *(Deferred.fromCoroutine(read()) for _ in range(3))]

    async def used(number: int) -> bool:
        return (await counted(servers, lambda: view.strlen("k"), 10))[number] > 0

    await eventually(lambda: used(1))
    stall(servers[1])

    async def unused() -> bool:
        return not await used(1)

    await eventually(unused)
    stall(servers[1], servers[2])
    seen = reads
    await eventually(lambda: reads > seen + 200)
    stall()
    await eventually(lambda: used(1))
    going = False
    await at_once(loops)
    assert max(ages) < bound + 0.1  # what the way to the replica and back may take


@on_reactor
async def test_a_replica_that_has_not_heard_its_master_is_not_used(
    make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    """Nothing is written, so that it is not behind: and yet nobody can know that."""
    servers, nodes, stall = await apart(make_servers, networks, form)
    await written(servers, "SET", "k", "v")
    client = watch(nodes, source=HERE, **FAST).client
    view = client.read_from("replica_preferred")

    async def only_the_other() -> bool:
        return await counted(servers, lambda: view.strlen("k"), 10) == [0, 0, 10]

    stall(servers[1])
    await eventually(only_the_other)


@on_reactor
async def test_a_replica_in_the_middle_of_a_full_resync_is_not_used(
    group: list[LocalServer], watch: Watch
) -> None:
    master, slow, _ = group
    await master.call("DEBUG", "POPULATE", 3000)
    await written(group, "SET", "k", "v")
    view = watch(group, heartbeat=0.1).client.read_from("replica")
    assert await answer(view.strlen("k")) == 1
    for name, value in SLOW.items():
        await slow.call("CONFIG", "SET", name, value)
    async with reading(view) as readers:
        await slow.call("SLAVEOF", "NO", "ONE")
        await slow.call("DEBUG", "CHANGE-REPL-ID")
        await slow.call("SLAVEOF", "127.0.0.1", master.port)
        await eventually(lambda: syncing(slow))

        async def share() -> int:
            return (await counted(group, lambda: view.strlen("k"), 10))[1]

        async def unused() -> bool:
            return not await share()

        await eventually(unused)
        before = await executed([slow], "strlen")
        await readers.some_more(300)
        assert await syncing(slow)
        assert await executed([slow], "strlen") == before
        await slow.call("CONFIG", "SET", "key-load-delay", 0)
        await until_settled(group)
        await eventually(share)


@on_reactor
async def test_a_replica_that_loads_its_file_is_not_used(
    group: list[LocalServer], watch: Watch
) -> None:
    slow = group[1]
    await written(group, "SET", "k", "v")
    await slow.call("DEBUG", "POPULATE", 3000)
    await slow.call("SAVE")
    view = watch(group, heartbeat=0.1).client.read_from("replica")
    async with reading(view) as readers:
        await slow.restart(
            options=[word for name, value in SLOW.items() for word in (f"--{name}", value)]
        )
        assert (await slow.info("persistence"))["loading"] == "1"
        await readers.some_more(300)
        assert (await slow.info("persistence"))["loading"] == "1"
        assert await executed([slow], "strlen") == [0]


async def syncing(server: LocalServer) -> bool:
    return (await server.info("replication"))["master_sync_in_progress"] == "1"


@pytest.mark.parametrize("policy", ["replica", "replica_preferred", "any"])
@on_reactor
async def test_reads_are_of_the_database_that_was_selected(
    group: list[LocalServer], watch: Watch, policy: str
) -> None:
    client = watch(group, read_from=policy).client
    await client.set("k", "v")
    await client.select(3)
    await client.set("k", "vvv")
    await client.select(0)
    await eventually(lambda: has(group, 3, "vvv"))
    replies, databases = [], []
    for db in [0, 3, 3, 0] * 10:
        client.select(db)
        replies += [client.strlen("k"), client.strlen("k")]
        databases += [db, db]
    lengths = [await answer(reply) for reply in replies]
    assert lengths == [3 if db else 1 for db in databases]
    client.select(3)
    await eventually(lambda: on_a_replica(group, client))


async def on_a_replica(servers: Sequence[LocalServer], client: HAClient) -> bool:
    counts = await counted(servers, lambda: client.strlen("k"), 10)
    assert await answer(client.strlen("k")) == 3
    return sum(counts[1:]) > 0


async def has(servers: Sequence[LocalServer], db: int, value: str) -> bool:
    found = await at_once(server.call("GET", "k", db=db) for server in servers)
    return set(found) == {value.encode()}
