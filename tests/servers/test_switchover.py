"""A planned switchover: the master is moved under load, and nobody notices but by its name."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.acl import PASSWORD, USER, documented, set_user
from tests.failovers import Writers, is_locked
from tests.groups import (
    answer,
    at_once,
    meta_of,
    promotions,
    until_settled,
)
from tests.servers.conftest import Form, Holders, MakeNetwork, MakeServers, Watch
from tests.support import eventually
from txharedis import (
    AccessDenied,
    HAClient,
    InvalidOption,
    NoMaster,
    NotReplicated,
    ServiceStopped,
    SwitchoverFailed,
)
from txharedis.events import FailoverEnded, FailoverStarted, FailoverStep, HistoryDiscarded
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

WAYS = {"FAILOVER": (), "CLIENT PAUSE": ("--rename-command", "FAILOVER", "")}
"""The options of servers that know FAILOVER, and of those that do not."""

STATS = {"FAILOVER": "cmdstat_failover", "CLIENT PAUSE": "cmdstat_client|pause"}
ME: dict[str, Any] = {"username": USER, "password": PASSWORD}
LOCK_TIME = 1.0
OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


class Lists:
    """Writers of one list each: RPUSH of the next number, all without awaiting the last."""

    def __init__(self, clients: Sequence[HAClient], in_flight: int = 20) -> None:
        self._clients = clients
        self._stopping = False
        self._running: list[Deferred[None]] = []
        self.counts = [0] * len(clients) * in_flight
        self._in_flight = in_flight

    def start(self) -> None:
        for number, client in enumerate(self._clients):
            self._running.append(Deferred.fromCoroutine(self._push(number, client)))

    async def _push(self, number: int, client: HAClient) -> None:
        pushed = 0
        while not self._stopping:
            batch = [client.rpush(f"list:{number}", pushed + n) for n in range(self._in_flight)]
            pushed += self._in_flight
            replies = await at_once(batch)
            assert replies == list(range(pushed - self._in_flight + 1, pushed + 1))
        self.counts[number] = pushed

    async def stop(self) -> list[int]:
        self._stopping = True
        await at_once(self._running)
        return self.counts[: len(self._clients)]


@pytest.mark.parametrize("way", WAYS)
@on_reactor
async def test_under_load_no_write_is_lost_doubled_failed_or_out_of_order(
    reactor: Any, make_servers: MakeServers, form: Form, watch: Watch, way: str
) -> None:
    servers = await make_servers(3, options=WAYS[way])
    await form(servers)
    watched = [watch(servers) for _ in range(4)]
    clients = [one.client for one in watched]
    await at_once(client.when_ready() for client in clients)
    writers, lists = Writers(clients, "n", 40), Lists(clients)
    writers.start(reactor)
    lists.start()
    await writers.some_more(200)
    masters = [clients[0].master]
    for _ in range(4):
        new = await answer(clients[0].switchover())
        assert new == clients[0].master != masters[-1]
        masters.append(new)
        await writers.some_more(400)
        await until_settled(servers)
    await writers.stop()
    counts = await lists.stop()

    assert writers.unknown == 0
    assert await answer(clients[0].get("n")) == len(writers.acknowledged)
    for number, count in enumerate(counts):
        pushed = await answer(clients[0].lrange(f"list:{number}", 0, -1))
        assert pushed == list(range(count))
    master = await until_settled(servers)
    for one in watched:
        assert one.masters == masters
        assert not one.seen(HistoryDiscarded)
    # Nobody else thought that there was anything to do.
    assert not [one for one in watched[1:] if one.seen(FailoverStarted)]
    epochs = [event.epoch for event in watched[0].seen(FailoverEnded)]
    assert epochs == sorted(set(epochs))
    assert int((await meta_of(master))["epoch"]) == epochs[-1]
    stood = [event.outage for event in watched[0].seen(FailoverEnded)]
    for server in servers[:2]:
        used = (await server.info("commandstats")).get(STATS[way], "")
        assert ("calls=" in used) == any(old == server.address for old in masters[:-1])
    print(f"{way}: writes stood still for", *(f"{1000 * each:.1f}" for each in stood), "ms")


@pytest.mark.parametrize("way", WAYS)
@on_reactor
async def test_what_no_journal_keeps_is_answered_too_while_replicas_confirm(
    reactor: Any, make_servers: MakeServers, form: Form, watch: Watch, way: str
) -> None:
    """A server that lets go breaks off each WAIT, and drops its link with what stands behind it.

    In its own FAILOVER it may do so before it has looked at the replica's word, when its clock runs
    in that very turn: such a write is on the new master, and its caller hears of the WAIT.
    """
    servers = await make_servers(3, options=WAYS[way])
    await form(servers)
    watched = [watch(servers, acks=1, ack_timeout=5.0) for _ in range(4)]
    clients = [one.client for one in watched]
    await at_once(client.when_ready() for client in clients)
    counted = broken_off = 0
    stopping = False

    async def count(client: HAClient) -> None:
        nonlocal counted, broken_off
        while not stopping:
            try:
                await client.execute_command("EVAL", "return redis.call('incr', KEYS[1])", 1, "n")
            except NotReplicated as error:
                broken_off += "UNBLOCKED" in str(error)
            counted += 1

    running = [Deferred.fromCoroutine(count(client)) for client in clients for _ in range(10)]
    for turn in range(5):
        wanted = counted + 200
        await eventually(lambda wanted=wanted: counted >= wanted)
        await answer(clients[turn % 2].switchover())
    stopping = True
    await at_once(running)
    assert await answer(clients[0].get("n")) == counted
    if way == "CLIENT PAUSE":
        assert broken_off == 0


@on_reactor
async def test_it_goes_to_the_node_that_was_named(group: list[LocalServer], watch: Watch) -> None:
    watched = watch(group)
    for server in (group[2], group[1], group[0]):
        assert await answer(watched.client.switchover(server.address)) == server.address
        assert await until_settled(group) is server
        meta = await meta_of(server)
        assert meta["master"] == server.address
        assert meta["run_id"] == (await server.info("server"))["run_id"]
        assert meta["ping_period"] == "1"
        await eventually(lambda: at_rest(group))
    # Each is followed by the address that the client has for it.
    infos = await at_once(server.info("replication") for server in group[1:])
    assert {f"{info['master_host']}:{info['master_port']}" for info in infos} == {group[0].address}


async def at_rest(servers: Sequence[LocalServer]) -> bool:
    """Whether nobody holds a lock, and the newest meta is everywhere."""
    metas = await at_once(meta_of(server) for server in servers)
    locked = await at_once(is_locked(server) for server in servers)
    return all(meta == metas[0] for meta in metas) and not any(locked)


async def nothing_changed(servers: Sequence[LocalServer], epoch: str = "1") -> None:
    """The first is master as before, and takes writes."""
    assert await until_settled(servers) is servers[0]
    assert (await meta_of(servers[0]))["epoch"] == epoch
    assert promotions(servers) == 0
    assert await servers[0].call("INCR", "still") >= 1


@on_reactor
async def test_what_cannot_be_promoted_is_refused_and_why(
    group: list[LocalServer], watch: Watch
) -> None:
    master, witness, dead = group
    client = watch(group, survey_interval=0.2).client
    await answer(client.set("k", "v"))

    async def refusal(to: object, **terms: Any) -> str:
        with pytest.raises(SwitchoverFailed) as caught:
            await answer(client.switchover(to, **terms))
        assert caught.value.executed is False
        return str(caught.value)

    assert await refusal(master.address) == f"{master.address} is the master already"
    await witness.call("CONFIG", "SET", "replica-priority", 0)
    assert await refusal(witness.address) == f"{witness.address} has replica-priority 0"
    dead.kill()
    await dead.exited()
    await eventually(lambda: any(node.status.value == "refused" for node in client.topology.nodes))
    assert await refusal(dead.address) == f"{dead.address} is refused: connection refused"
    both = await refusal(None)
    assert "has replica-priority 0" in both
    assert "connection refused" in both
    for bad in ("127.0.0.1:1", "elsewhere:99999", 7.5):
        with pytest.raises(InvalidOption, match=str(bad)):
            await client.switchover(bad)
    for bad in (0, -1, "soon", float("nan"), None):
        with pytest.raises(InvalidOption, match=f"timeout={bad!r}"):
            await client.switchover(timeout=bad)
    assert client.master == master.address
    assert (await meta_of(master))["epoch"] == "1"
    await client.disconnect()
    with pytest.raises(ServiceStopped):
        await client.switchover()


@on_reactor
async def test_who_may_not_move_a_master_is_told(group: list[LocalServer], watch: Watch) -> None:
    with pytest.raises(SwitchoverFailed, match="elect=False"):
        await answer(watch(group, elect=False).client.switchover())
    with pytest.raises(SwitchoverFailed, match="there is no other node"):
        await answer(watch(group[:1]).client.switchover())
    with pytest.raises(NoMaster, match=r"within 0\.3 s"):
        await answer(watch(["127.0.0.1:1", "127.0.0.1:2"]).client.switchover(timeout=0.3))
    await set_user(group, *documented("follower"))
    follower = watch(group, **ME).client
    await answer(follower.when_ready())
    with pytest.raises(AccessDenied, match="SLAVEOF"):
        await answer(follower.switchover())
    await nothing_changed(group)


@on_reactor
async def test_the_rights_of_a_failover_are_not_enough(
    group: list[LocalServer], watch: Watch
) -> None:
    await set_user(group, *documented("app"))
    client = watch(group, **ME).client
    await answer(client.set("app:k", "v"))
    with pytest.raises(AccessDenied, match="allows neither FAILOVER nor CLIENT PAUSE") as caught:
        await answer(client.switchover())
    assert caught.value.executed is False
    await nothing_changed(group)


@pytest.mark.parametrize("way", WAYS)
@on_reactor
async def test_the_documented_rights_are_enough(
    group: list[LocalServer], watch: Watch, way: str
) -> None:
    more = {
        "FAILOVER": ("+failover", "+replconf", "+psync"),
        "CLIENT PAUSE": ("+client|pause", "+client|unpause"),
    }
    assert " ".join(more[way]).replace("|", "\\|") in OPERATIONS.read_text(encoding="utf-8")
    await set_user(group, *documented("app"), *more[way])
    client = watch(group, **ME).client
    await answer(client.set("app:k", "v"))
    for _ in range(2):
        old = client.master
        new = await answer(client.switchover())
        assert new == client.master != old
        assert await answer(client.get("app:k")) == "v"
        await until_settled(group)
    assert STATS[way] in await group[0].info("commandstats")


@on_reactor
async def test_a_replica_that_cannot_catch_up_is_not_waited_for_for_ever(
    make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    watched = watch(nodes)
    client = watched.client
    await answer(client.set("k", "v"))
    # What the master sends it stays in the network; its own words go through.
    network.proxies[0].sever(lambda source: source == str(servers[1].source))
    await answer(client.set("k", "x" * 1000))
    with pytest.raises(SwitchoverFailed, match="bytes behind") as caught:
        await answer(client.switchover(nodes[1], timeout=1.0))
    assert caught.value.executed is False
    assert "not within 1.0 s" in str(caught.value)
    # It was not even begun, and the other one can be taken.
    assert not watched.seen(FailoverStarted)
    assert await answer(client.switchover()) == nodes[2]
    network.heal()
    assert await answer(client.get("k")) == "x" * 1000


@pytest.mark.parametrize("way", WAYS)
@on_reactor
async def test_a_target_that_hangs_in_the_middle_changes_nothing(
    reactor: Any, make_servers: MakeServers, form: Form, watch: Watch, way: str
) -> None:
    servers = await make_servers(3, options=WAYS[way])
    await form(servers)
    target = servers[1]
    watched, other = watch(servers), watch(servers)
    await at_once(one.client.when_ready() for one in (watched, other))
    writers = Writers([watched.client, other.client], "n", 20)
    writers.start(reactor)
    await writers.some_more(100)

    def hang(event: Any) -> None:
        if isinstance(event, FailoverStep) and event.step == "look":
            target.pause()

    watched.listeners.append(hang)
    with pytest.raises(SwitchoverFailed, match="master as before") as caught:
        await answer(watched.client.switchover(target.address))
    assert caught.value.executed is False
    watched.listeners.clear()
    await writers.some_more(100)
    target.resume()
    await writers.stop()
    assert writers.unknown == 0
    assert await answer(other.client.get("n")) == len(writers.acknowledged)
    assert watched.masters == other.masters == [servers[0].address]
    await nothing_changed(servers)
    # And now it can be done.
    assert await answer(watched.client.switchover(target.address)) == target.address


@on_reactor
async def test_a_lock_that_somebody_holds_is_waited_for(
    group: list[LocalServer], watch: Watch, holders: Holders
) -> None:
    watched = watch(group)
    await answer(watched.client.set("k", "v"))
    holder = holders(group, "lock", signal.SIGKILL, lock_time=5.0)
    await holder.until("MasterChanged")
    holder.send("switchover")
    await holder.until("FailoverStep")
    holder.block_until_signalled()
    with pytest.raises(SwitchoverFailed, match="somebody else holds the failover lock"):
        await answer(watched.client.switchover(timeout=1.5))
    assert await answer(watched.client.switchover()) == watched.client.master
    assert promotions(group) == 1


@on_reactor
async def test_one_at_a_time(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    first = client.switchover()
    with pytest.raises(SwitchoverFailed, match="is under way"):
        await client.switchover()
    assert await answer(first) == client.master
    # One that is taken back in time leaves no trace.
    given_up = client.switchover()
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    await until_settled(group)
    await answer(client.set("k", "v"))
    assert promotions(group) == 1


@on_reactor
async def test_two_clients_at_once_move_it_one_after_the_other(
    group: list[LocalServer], watch: Watch
) -> None:
    one, other = watch(group), watch(group)
    await at_once(each.client.when_ready() for each in (one, other))
    a, b = group[1].address, group[2].address
    moved = await at_once([one.client.switchover(a), other.client.switchover(b)])
    assert moved == [a, b]
    last = await until_settled(group)
    assert last.address in moved
    await eventually(lambda: one.client.master == other.client.master == last.address)


DEATHS = [
    (way, at, number)
    for way in WAYS
    for at in ("lock", "look", "hand over", "promote", "serve", "gossip")
    for number in (signal.SIGKILL, signal.SIGSTOP)
]


@pytest.mark.parametrize(("way", "at", "number"), DEATHS)
@on_reactor
async def test_who_moves_it_dies_or_is_paused_midway(
    reactor: Any,
    make_servers: MakeServers,
    form: Form,
    watch: Watch,
    holders: Holders,
    way: str,
    at: str,
    number: int,
) -> None:
    servers = await make_servers(3, options=WAYS[way])
    await form(servers)
    watched = [watch(servers) for _ in range(2)]
    writers, lists = Writers([w.client for w in watched], "n", 20), Lists([watched[0].client])
    holder = holders(servers, at, number, lock_time=LOCK_TIME)
    await holder.until("MasterChanged")
    writers.start(reactor)
    lists.start()
    await writers.some_more(100)
    holder.send("switchover", servers[1].address)
    await holder.until("FailoverStep", step=at)
    holder.block_until_signalled()

    await writers.some_more(100)
    await until_settled(servers)
    if number == signal.SIGSTOP:
        await eventually(lambda: at_rest(servers))
        holder.resume()
        await holder.until("reply")
    await writers.some_more(100)
    master = await until_settled(servers)
    await writers.stop()
    [count] = await lists.stop()
    assert writers.unknown == 0
    assert int(await master.call("GET", "n")) == len(writers.acknowledged)
    assert await master.call("LLEN", "list:0") == count
    assert [one.client.master for one in watched] == [master.address] * 2
    if at in ("promote", "serve", "gossip"):
        assert master is servers[1]
    elif at in ("lock", "look"):
        assert master is servers[0]


@pytest.mark.parametrize("links", ["old links", "new links"])
@on_reactor
async def test_a_server_that_hands_over_to_a_dead_one_is_taken_out_of_it(
    group: list[LocalServer], watch: Watch, links: str
) -> None:
    """As a client leaves it that dies in the worst moment: it refuses SLAVEOF meanwhile.

    It answers no write either, nor what is behind one, as when a new link is asked for our rights.
    """
    old, target, last = group
    watched = watch(group, down_after=1.0, heartbeat=0.3)
    await answer(watched.client.set("k", "v"))
    target.pause()
    order = ("FAILOVER", "TO", "127.0.0.1", target.port, "TIMEOUT", 100, "FORCE")
    assert await old.call(*order) == b"OK"

    async def in_progress() -> bool:
        state = (await old.info("replication"))["master_failover_state"]
        return state == "failover-in-progress"

    await eventually(in_progress)
    if links == "new links":
        await old.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await answer(watched.client.get("k")) == "v"
    await until_settled([old, last])
    target.resume()
    await until_settled(group)
    assert await answer(watched.client.get("k")) == "v"
