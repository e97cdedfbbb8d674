"""Writes that count only when replicas have confirmed them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.failovers import Writers
from tests.groups import answer, at_once, promotions, until_settled
from tests.lossy import SILENT, behind, lose_replies, outcomes
from tests.servers.conftest import MakeProxy, Watch
from tests.support import eventually
from txharedis import InvalidOption, NotReplicated, OutcomeUnknown, ResponseError
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

DELIVERIES = pytest.mark.parametrize("delivery", ["exactly-once", "at-most-once"])


@contextlib.asynccontextmanager
async def paused(*servers: LocalServer) -> AsyncIterator[None]:
    """These answer nothing meanwhile."""
    for server in servers:
        server.pause()
    try:
        yield
    finally:
        for server in servers:
            server.resume()


async def waits(server: LocalServer) -> int:
    """How many WAITs this server was given."""
    stats = await server.info("commandstats")
    return int(stats.get("cmdstat_wait", "calls=0,").split(",")[0].removeprefix("calls="))


@DELIVERIES
@on_reactor
async def test_confirmed_writes_are_on_the_replicas(
    group: list[LocalServer], watch: Watch, delivery: str
) -> None:
    client = watch(group, delivery=delivery, acks=2).client
    for number in range(1, 30):
        replies = [client.incr("n"), client.rpush("list", number), client.get("n")]
        assert await outcomes(replies) == [number, number, number]
        there = await at_once(server.call("GET", "n") for server in group[1:])
        assert there == [b"%d" % number] * 2


@on_reactor
async def test_one_confirmation_is_one_replica(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group, acks=1).client
    await answer(client.incr("n"))
    async with paused(group[1]):
        assert await answer(client.incr("n")) == 2
        assert await group[2].call("GET", "n") == b"2"


@DELIVERIES
@on_reactor
async def test_too_few_confirmations(group: list[LocalServer], watch: Watch, delivery: str) -> None:
    client = watch(group, delivery=delivery, acks=1, ack_timeout=0.3).client
    assert await answer(client.incr("n")) == 1
    async with paused(*group[1:]):
        wrong = client.lpush("n", "x")
        told = await outcomes([client.incr("n"), wrong, client.get("n"), client.set("k", "v")])
        count, refused, read, put = told
        # What is refused was not executed, and a read needs nobody.
        assert isinstance(refused, ResponseError)
        assert read == 2
        for error, reply, command in ((count, 2, "INCRBY"), (put, b"OK", "SET")):
            assert isinstance(error, NotReplicated)
            assert error.executed is True
            assert error.replicas == 0
            assert error.reply in (reply, "OK")
            assert error.command[0] == command
            assert f"{command} was executed on the master, and 0 of 1 replicas" in str(error)
        # It is there.
        assert await group[0].call("GET", "n") == b"2"
        # Without acks it goes on.
        assert await answer(client.with_options(acks=0).incr("n")) == 3
    patient = watch(group, delivery=delivery, acks=1, ack_timeout=30.0).client
    assert await answer(patient.incr("n")) == 4


@on_reactor
async def test_two_of_three_confirm(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group, acks=2, ack_timeout=1.0).client
    assert await answer(client.incr("n")) == 1
    async with paused(group[2]):
        [error] = await outcomes([client.incr("n")])
        assert isinstance(error, NotReplicated)
        assert error.replicas == 1
        assert "1 of 2 replicas" in str(error)
        assert await answer(client.with_options(acks=1).incr("n")) == 3


@on_reactor
async def test_one_node_down_and_two_confirmations_asked_for(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group, acks=2, ack_timeout=1.0).client
    assert await answer(client.incr("n")) == 1
    group[2].kill()
    await group[2].exited()
    [error] = await outcomes([client.incr("n")])
    assert isinstance(error, NotReplicated)
    assert error.replicas == 1
    assert await answer(client.get("n")) == 2
    await group[2].start()
    await until_settled(group)
    # A master counts a replica that has just come back when that has sent its first word: within
    # a second, or later on a busy machine.
    patient = watch(group, acks=2, ack_timeout=30.0).client
    assert await answer(patient.incr("n")) == 3


@on_reactor
async def test_more_confirmations_than_replicas_are_refused(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    with pytest.raises(InvalidOption, match="acks=3"):
        client.with_options(acks=3)
    with pytest.raises(InvalidOption, match="acks=1"):
        watch([group[0]], acks=1)


@DELIVERIES
@on_reactor
async def test_acks_of_single_calls(group: list[LocalServer], watch: Watch, delivery: str) -> None:
    client = watch(group, delivery=delivery, ack_timeout=0.3).client
    await answer(client.set("n", 0))
    async with paused(*group[1:]):
        replies = [
            client.incr("n"),
            client.with_options(acks=1).incr("n"),
            client.incr("n"),
            client.with_options(acks=2).incr("n"),
            client.incr("n"),
        ]
        told = await outcomes(replies)
    assert told[::2] == [1, 3, 5]
    assert [type(error) for error in told[1::2]] == [NotReplicated] * 2
    assert [error.reply for error in told[1::2]] == [2, 4]
    patient = watch(group, delivery=delivery, acks=2, ack_timeout=30.0).client
    assert await answer(patient.incr("n")) == 6


@DELIVERIES
@on_reactor
@pytest.mark.parametrize("first", ["nothing", "GET", "LRANGE", "SET"])
async def test_acks_of_what_goes_plainly(
    group: list[LocalServer], watch: Watch, delivery: str, first: str
) -> None:
    """BITFIELD and EVAL do not go through the journal; something may stand before them."""
    client = watch(group, delivery=delivery, acks=2, ack_timeout=0.3).client
    await answer(client.set("k", "v"))

    def give() -> list[Deferred[Any]]:
        before = {
            "nothing": lambda: [],
            "GET": lambda: [client.get("k")],
            "LRANGE": lambda: [client.lrange("list", 0, -1)],
            "SET": lambda: [client.set("other", 1)],
        }
        return [
            *before[first](),
            client.execute_command("BITFIELD", "bits", "INCRBY", "u8", 0, 1),
            client.eval("return redis.call('INCR', KEYS[1])", ["n"]),
            client.eval("return redis.error_reply('MINE no')"),
        ]

    for number in (1, 2):
        *_, bits, count, error = await outcomes(give())
        assert (bits, count) == ([number], number)
        assert "MINE no" in str(error)
        assert await group[1].call("GET", "n") == await group[2].call("GET", "n") == b"%d" % number
    async with paused(group[2]):
        *_, bits, count, error = await outcomes(give())
    for failed, reply in ((bits, [3]), (count, 3)):
        assert isinstance(failed, NotReplicated)
        assert failed.executed is True
        assert failed.replicas == 1
        assert failed.reply == reply
    assert "MINE no" in str(error)


@on_reactor
async def test_one_wait_for_a_batch(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group, acks=1).client
    await answer(client.incr("n"))
    before = await waits(group[0])
    assert await outcomes([client.incr("n") for _ in range(100)]) == list(range(2, 102))
    assert await waits(group[0]) == before + 1
    await outcomes([client.get("n") for _ in range(10)])
    assert await waits(group[0]) == before + 1


@on_reactor
async def test_several_batches_are_in_flight(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch
) -> None:
    made = [proxies(server) for server in group]
    client = watch(group, dialler=behind(reactor, group, made), acks=1, **SILENT).client
    await answer(client.incr("n"))
    made[0].stall(to_target=False)
    replies = []
    for number in range(2, 7):
        replies.append(client.incr("n"))

        async def executed(number: int = number) -> bool:
            return bool(await group[0].call("GET", "n") == b"%d" % number)

        await eventually(executed)
    made[0].resume()
    assert await outcomes(replies) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("lost", ["link", "master"])
@on_reactor
async def test_replies_of_confirmed_writes_are_lost(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch, lost: str
) -> None:
    made = [proxies(server) for server in group]
    watched = watch(group, dialler=behind(reactor, group, made), acks=1, **SILENT)
    client = watched.client
    await answer(client.incr("n"))
    made[0].stall(to_target=False)
    plain = client.with_options(delivery="at-most-once").incr("m")
    replies = [client.incr("n") for _ in range(5)]

    async def confirmed() -> bool:
        values = await at_once(server.call("MGET", "m", "n") for server in group)
        return values == [[b"1", b"6"]] * 3

    await eventually(confirmed)
    if lost == "master":
        group[0].kill()
    lose_replies(made[0])
    assert await outcomes(replies) == [2, 3, 4, 5, 6]
    [unknown] = await outcomes([plain])
    assert isinstance(unknown, OutcomeUnknown)
    assert await answer(client.incr("n")) == 7
    assert await answer(client.get("m")) == 1


@on_reactor
async def test_a_reply_out_of_the_journal_is_confirmed_by_who_has_its_write(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch
) -> None:
    """WAIT speaks of the writes of its own link, and the batch was run over another one."""
    made = [proxies(server) for server in group]
    dialler = behind(reactor, group, made)
    client = watch(group, dialler=dialler, acks=1, ack_timeout=0.5, **SILENT).client
    await answer(client.incr("n"))
    async with paused(*group[1:]):
        made[0].stall(to_target=False)
        replies = [client.incr("n"), client.get("n"), client.incr("n")]

        async def executed() -> bool:
            return bool(await group[0].call("GET", "n") == b"3")

        await eventually(executed)
        lose_replies(made[0])
        first, read, second = await outcomes(replies)
    for error, reply in ((first, 2), (second, 3)):
        assert isinstance(error, NotReplicated)
        assert (error.reply, error.replicas) == (reply, 0)
    assert read == 3
    assert await answer(client.incr("n")) == 4


@on_reactor
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "pushed by another client"])
async def test_what_a_blocking_command_took_is_confirmed(
    group: list[LocalServer], watch: Watch, waits: bool
) -> None:
    client = watch(group, acks=1, ack_timeout=0.3).client
    assert await answer(client.incr("n")) == 1
    if not waits:
        await group[0].call("RPUSH", "q", "item")
        async with paused(*group[1:]):
            [error] = await outcomes([client.blpop("q", 0)])
    else:
        taken = client.blpop("q", 0)

        async def blocked() -> bool:
            return bool((await group[0].info("clients"))["blocked_clients"] == "1")

        await eventually(blocked)
        async with paused(*group[1:]):
            await group[0].call("RPUSH", "q", "item")
            [error] = await outcomes([taken])
    assert isinstance(error, NotReplicated)
    assert (error.reply, error.replicas) == ([b"q", b"item"], 0)
    await group[0].call("RPUSH", "q", "more")
    assert await answer(client.blpop("q", 0)) == ["q", "more"]


@on_reactor
async def test_after_a_failover_the_replica_that_is_left_confirms(
    group: list[LocalServer], watch: Watch
) -> None:
    watched = watch(group, acks=1, ack_timeout=10.0)
    assert await answer(watched.client.incr("n")) == 1
    group[0].kill()
    for number in range(2, 10):
        assert await answer(watched.client.incr("n")) == number
        there = await at_once(server.call("GET", "n") for server in group[1:])
        assert there == [b"%d" % number] * 2
    assert promotions(group) == 1


@on_reactor
@pytest.mark.parametrize("count", [1, 3])
async def test_nothing_acknowledged_is_lost_when_the_master_is_killed_under_load(
    reactor: Any, group: list[LocalServer], watch: Watch, count: int
) -> None:
    watched = [watch(group, acks=1, ack_timeout=10.0) for _ in range(count)]
    writers = Writers([one.client for one in watched], "n", 30)
    pushed: list[Deferred[Any]] = []
    writers.start(reactor)
    await writers.some_more(300)
    for number in range(200):
        pushed.append(watched[0].client.rpush("list", number))
    group[0].kill()
    await writers.some_more(300)
    await writers.stop()
    assert writers.unknown == 0
    assert await outcomes(pushed) == list(range(1, 201))
    new = next(server for server in group if server.address == watched[0].client.master)
    assert new is not group[0]
    assert int(await new.call("GET", "n")) == len(writers.acknowledged)
    assert await new.call("LRANGE", "list", 0, -1) == [b"%d" % n for n in range(200)]


@on_reactor
async def test_nothing_acknowledged_is_lost_over_several_kills(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    watched = watch(group, acks=1, ack_timeout=10.0)
    writers = Writers([watched.client], "n", 10)
    writers.start(reactor)
    for _ in range(3):
        await writers.some_more(200)
        master = await until_settled(group)
        await writers.some_more(50)
        master.kill()
        await writers.some_more(50)
        await master.exited()
        await master.start()  # empty
        await until_settled(group)
    await writers.stop()
    assert writers.unknown == 0
    master = await until_settled(group)
    assert int(await master.call("GET", "n")) == len(writers.acknowledged)
