"""Transactions and pipelines on real servers, and failovers in their middle."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, FirstError
from txredisapi import RedisProtocol, WatchError

from tests.groups import answer, at_once, opcounter_of, until_settled
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import (
    HAClient,
    NoMaster,
    NotInTransaction,
    QueueFull,
    ResponseError,
    ServiceStopped,
    TransactionLost,
    UnsupportedCommand,
)
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


@on_reactor
async def test_replies_are_converted_as_outside(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    await answer(client.hset("h", "f", 1))
    await answer(client.sadd("set", ["a", "b"]))
    await answer(client.zadd("z", 1.5, "m"))
    await answer(client.set("queued", "QUEUED"))

    def ask(asked: Any) -> list[Deferred[Any]]:
        return [
            asked.hgetall("h"),
            asked.smembers("set"),
            asked.sismember("set", "c"),
            asked.zrange("z", 0, -1, withscores=True),
            asked.zscore("z", "m"),
            asked.get("queued"),
            asked.get("none"),
            asked.info("server"),
            asked.lrange("nolist", 0, -1),
            asked.object_encoding("queued"),
            asked.scan(),
            asked.eval("return {1, 'QUEUED', {}}", [], []),
            asked.eval("return {1, 'QUEUED', {}}", [], []),
        ]

    outside = await at_once(map(answer, ask(client)))
    tx = await answer(client.multi())
    assert isinstance(tx, RedisProtocol)
    assert (tx.inTransaction, tx.inMulti, tx.pendingTransaction) == (True, True, True)
    assert await at_once(map(answer, ask(tx))) == ["QUEUED"] * len(outside)
    assert tx.transactions == len(outside)
    inside = await answer(tx.commit())
    for info in (inside[7], outside[7]):
        assert info["tcp_port"] == str(group[0].port)
        for key in ("uptime_in_seconds", "server_time_usec", "lru_clock", "hz"):
            info.pop(key, None)
    assert inside == outside
    assert (tx.inTransaction, tx.inMulti, tx.pendingTransaction) == (False, False, False)
    assert tx.transactions == 0


@on_reactor
async def test_bytes_come_back_as_bytes(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group, charset=None, convert_numbers=False).client
    tx = await answer(client.multi("k"))
    assert await answer(tx.set("k", b"\xff")) == b"QUEUED"
    assert await answer(tx.get("k")) == b"QUEUED"
    assert await answer(tx.commit()) == [b"OK", b"\xff"]


@on_reactor
async def test_an_error_stands_among_the_replies(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    tx = await answer(client.multi())
    tx.set("k", "v")
    tx.lpush("k", 1)
    tx.get("k")
    first, error, last = await answer(tx.commit())
    assert (first, last) == ("OK", "v")
    assert isinstance(error, ResponseError)
    assert "WRONGTYPE" in str(error)


@on_reactor
async def test_a_command_refused_when_queued_executes_nothing(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    tx = await answer(client.multi())
    tx.set("k", "v")
    with pytest.raises(ResponseError, match="wrong number"):
        await answer(tx.execute_command("GET"))
    with pytest.raises(ResponseError, match="EXECABORT"):
        await answer(tx.commit())
    assert await answer(client.get("k")) is None


@on_reactor
async def test_watch_and_unwatch(group: list[LocalServer], watch: Watch) -> None:
    one, other = watch(group).client, watch(group).client
    tx = await answer(one.watch(["a", "b"]))
    assert tx.inTransaction
    assert not tx.inMulti
    assert await answer(tx.watch("c")) is tx
    assert await answer(tx.set("c", 1)) == "OK"
    assert await answer(tx.get("c")) == 1
    await answer(tx.unwatch())
    assert not tx.inTransaction
    with pytest.raises(NotInTransaction):
        await tx.get("c")

    tx = await answer(one.watch("a"))
    assert await answer(tx.multi("b")) is tx
    assert await answer(tx.unwatch()) == "QUEUED"
    assert tx.inTransaction
    await answer(tx.discard())
    assert not tx.inTransaction
    with pytest.raises(NotInTransaction):
        await tx.commit()

    tx = await answer(one.multi("a"))
    await answer(tx.set("b", "mine"))
    await answer(other.set("a", "theirs"))
    with pytest.raises(WatchError):
        await answer(tx.commit())
    assert tx.transactions == 0
    assert await answer(one.get("b")) is None
    # Changed between WATCH and MULTI, and by a command of the transaction itself.
    for by in (other, None):
        tx = await answer(one.watch("a"))
        await answer((by or tx).set("a", "again"))
        await answer(tx.multi())
        tx.set("b", 1)
        with pytest.raises(WatchError):
            await answer(tx.commit())


@on_reactor
async def test_what_has_no_place_in_a_transaction(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    tx = await answer(client.watch("k"))
    for failing, error, text in (
        (tx.commit, NotInTransaction, r"before multi\(\)"),
        (tx.discard, NotInTransaction, r"before multi\(\)"),
        (lambda: tx.blpop("q"), UnsupportedCommand, "BLPOP blocks"),
        (lambda: tx.select(1), UnsupportedCommand, "SELECT"),
        (lambda: tx.subscribe("c"), UnsupportedCommand, "SUBSCRIBE"),
        (lambda: tx.execute_command("EXEC"), UnsupportedCommand, r"commit\(\)"),
        (lambda: tx.execute_command("multi"), UnsupportedCommand, r"multi\(\)"),
        (tx.pipeline, UnsupportedCommand, "client"),
        (tx.quit, UnsupportedCommand, "client"),
    ):
        with pytest.raises(error, match=text):
            await failing()
    await answer(tx.multi())
    assert await answer(tx.blpop("q")) == "QUEUED"  # there it does not block
    with pytest.raises(ResponseError, match=r"(?i)watch|inside a transaction"):
        await answer(tx.watch("k"))
    await answer(tx.discard())


@on_reactor
async def test_links_are_used_again(group: list[LocalServer], watch: Watch) -> None:
    master, *_ = group
    client = watch(group).client
    await answer(client.when_ready())
    before = int((await master.info("stats"))["total_connections_received"])
    for number in range(50):
        tx = await answer(client.multi("k"))
        tx.set("k", number)
        assert await answer(tx.commit()) == ["OK"]
        tx = await answer(client.watch("k"))
        await answer(tx.unwatch())
    after = int((await master.info("stats"))["total_connections_received"])
    assert after - before <= 2  # the other one is this test's own question
    # A cancelled begin leaves its link as it was.
    begun = client.multi("k")
    begun.cancel()
    with pytest.raises(CancelledError):
        await begun
    tx = await answer(client.multi())
    tx.get("k")
    assert await answer(tx.commit()) == [49]


@on_reactor
async def test_writes_are_counted(group: list[LocalServer], watch: Watch) -> None:
    master, *_ = group
    client = watch(group).client
    await answer(client.when_ready())
    before = await opcounter_of(master)
    tx = await answer(client.watch("k"))
    await answer(tx.set("other", 1))
    await answer(tx.multi())
    tx.incr("k")
    tx.get("k")
    tx.incr("k")
    assert await answer(tx.commit()) == [1, 1, 2]
    await answer(client.ping())
    assert await eventually(lambda: counted(master, before + 3))


async def counted(server: LocalServer, number: int) -> bool:
    return await opcounter_of(server) == number


@on_reactor
async def test_no_more_transactions_than_max_dedicated(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group, max_dedicated=2).client
    first, second = await at_once([client.multi(), client.watch("k")])
    for begin in (client.multi, lambda: client.watch("k"), lambda: client.transaction(len, "k")):
        with pytest.raises(QueueFull, match="max_dedicated=2"):
            await begin()
    await answer(first.discard())
    third = await answer(client.multi())
    await at_once([second.unwatch(), third.discard()])


# Failovers in the middle.


@on_reactor
async def test_a_kill_before_exec(group: list[LocalServer], watch: Watch) -> None:
    master, *_ = group
    client = watch(group).client
    tx = await answer(client.multi("k"))
    await answer(tx.set("k", "v"))
    master.pause()
    on_its_way = tx.set("k", "w")
    master.kill()
    with pytest.raises(TransactionLost) as lost:
        await answer(on_its_way)
    assert (lost.value.exec_sent, lost.value.executed) == (False, False)
    for later in (tx.commit, lambda: tx.get("k"), tx.discard, tx.unwatch, tx.multi):
        with pytest.raises(TransactionLost) as lost:
            await answer(later())
        assert (lost.value.exec_sent, lost.value.executed) == (False, False)
    assert not tx.inTransaction
    assert await answer(client.get("k")) is None
    # The next one waits for the next master.
    tx = await answer(client.multi())
    tx.incr("n")
    assert await answer(tx.commit()) == [1]


@on_reactor
async def test_a_kill_after_exec_was_sent(group: list[LocalServer], watch: Watch) -> None:
    master, *_ = group
    client = watch(group).client
    tx = await answer(client.multi("k"))
    await answer(tx.set("k", "v"))
    master.pause()
    committed = tx.commit()
    with pytest.raises(NotInTransaction):
        await tx.get("k")
    master.kill()
    with pytest.raises(TransactionLost, match="after EXEC was sent") as lost:
        await answer(committed)
    assert (lost.value.exec_sent, lost.value.executed) == (True, None)
    with pytest.raises(TransactionLost) as lost:
        await answer(tx.commit())
    assert lost.value.exec_sent


@on_reactor
async def test_a_master_that_hangs_loses_its_transactions(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *others = group
    client = watch(group, heartbeat=0.3, down_after=1.0).client
    idle = await answer(client.multi("k"))
    asking = await answer(client.watch("k"))
    committing = await answer(client.multi("k"))
    committing.set("k", "late").addErrback(lambda _: None)
    master.pause()
    asked, committed = asking.get("k"), committing.commit()
    for reply, sent in ((asked, False), (committed, True)):
        with pytest.raises(TransactionLost) as lost:
            await answer(reply)
        assert lost.value.exec_sent is sent
    await until_settled(others)
    master.resume()
    await until_settled(group)
    with pytest.raises(TransactionLost):
        await idle.commit()
    assert await answer(client.get("k")) is None


@on_reactor
async def test_exec_on_a_master_that_was_demoted(group: list[LocalServer], watch: Watch) -> None:
    master, other, _ = group
    watched = watch(group)
    client = watched.client
    tx = await answer(client.multi("k"))
    await answer(tx.set("k", "v"))
    await master.call("SLAVEOF", "127.0.0.1", other.port)
    with pytest.raises(TransactionLost) as lost:
        await answer(tx.commit())
    assert lost.value.executed is False
    await until_settled(group)
    assert await answer(client.get("k")) is None


@on_reactor
async def test_no_master_within_command_timeout(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group, command_timeout=0.5).client
    await answer(client.when_ready())
    for server in group[:2]:
        server.kill()
        await server.exited()
    with pytest.raises(NoMaster):
        await answer(client.multi())


@on_reactor
async def test_a_reply_that_takes_longer_than_command_timeout(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group, command_timeout=0.3).client
    tx = await answer(client.multi())
    group[0].pause()
    queued, committed = tx.set("k", "v"), tx.commit()
    for reply in (queued, committed):
        with pytest.raises(TransactionLost) as lost:
            await answer(reply)
        assert (lost.value.exec_sent, lost.value.executed) == (True, None)
    group[0].resume()


@on_reactor
async def test_the_end_of_the_client_ends_them(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    idle, asking = await at_once([client.multi(), client.watch("k")])
    group[0].pause()
    asked = asking.get("k")
    begun = client.multi("k")
    closed = client.disconnect()
    for reply in (asked, begun, idle.commit()):
        with pytest.raises(ServiceStopped):
            await answer(reply)
    await closed
    group[0].resume()


@on_reactor
async def test_quit_waits_for_exec(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    tx = await answer(client.multi())
    tx.set("k", "v")
    committed = tx.commit()
    over = client.quit()
    assert await answer(committed) == ["OK"]
    await answer(over)


# client.transaction


def adding(key: str, pause: Any = None) -> Any:
    """A function for `client.transaction` that adds one, reading and writing."""

    async def add(tx: Any) -> None:
        number = await tx.get(key) or 0
        if pause is not None:
            await pause(number)
        await tx.multi()
        tx.set(key, number + 1)
        tx.get(key)

    return add


@on_reactor
async def test_transaction_tries_again_when_it_met_another_one(
    group: list[LocalServer], watch: Watch
) -> None:
    one, other = watch(group).client, watch(group).client
    seen: list[int] = []

    async def interfere(number: int) -> None:
        seen.append(number)
        if len(seen) < 3:
            await other.incr("n")

    assert await answer(one.transaction(adding("n", interfere), "n")) == ["OK", 3]
    assert seen == [0, 1, 2]

    async def always(number: int) -> None:
        seen.append(number)
        await other.incr("n")

    seen.clear()
    with pytest.raises(WatchError):
        await answer(one.transaction(adding("n", always), "n", attempts=4))
    assert len(seen) == 4


@on_reactor
async def test_transaction_takes_plain_functions_and_gives_up_those_that_raise(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *_ = group
    client = watch(group).client

    def plain(tx: Any) -> None:
        tx.multi()
        tx.set("k", 1)

    def deferred(tx: Any) -> Deferred[Any]:
        return tx.get("k").addCallback(lambda value: tx.multi() and tx.set("l", value))

    def reading(tx: Any) -> Any:
        return tx.get("k")

    def early(tx: Any) -> Any:
        raise ZeroDivisionError

    async def late(tx: Any) -> Any:
        await tx.multi()
        tx.set("k", 2)
        tx.execute_command("GET")
        raise ZeroDivisionError

    async def committing(tx: Any) -> Any:
        await tx.multi()
        tx.get("k")
        await tx.commit()

    assert await answer(client.transaction(plain)) == ["OK"]
    assert await answer(client.transaction(deferred, "k")) == ["OK"]
    assert await answer(client.get("l")) == 1
    assert await answer(client.transaction(reading, "k")) == []
    for raising in (early, late):
        with pytest.raises(ZeroDivisionError):
            await answer(client.transaction(raising, "k"))
    assert await answer(client.transaction(committing, "k")) == [1]
    assert await answer(client.transaction(plain, attempts=1)) == ["OK"]
    with pytest.raises(ValueError, match="attempts=0"):
        await client.transaction(plain, attempts=0)
    assert await answer(client.get("k")) == 1
    clients = await master.call("CLIENT", "LIST")
    assert b" multi=1 " not in clients


@on_reactor
async def test_many_transactions_of_one_client_at_once(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    replies = await at_once(answer(client.transaction(adding("n"), "n")) for _ in range(30))
    assert sorted(value for _, value in replies) == list(range(1, 31))


@on_reactor
async def test_transactions_go_on_over_failovers(group: list[LocalServer], watch: Watch) -> None:
    clients = [watch(group).client for _ in range(5)]
    await at_once(client.when_ready() for client in clients)
    state = {"acknowledged": 0, "unknown": 0, "untold": 0, "over": False}

    async def work(client: HAClient) -> None:
        while not state["over"]:
            try:
                await client.transaction(adding("n"), "n", attempts=1000)
            except TransactionLost as lost:
                state["unknown"] += 1
                state["untold"] += not lost.exec_sent or lost.executed is not None
            else:
                state["acknowledged"] += 1

    workers = [Deferred.fromCoroutine(work(client)) for client in clients]
    for _ in range(3):
        aim = state["acknowledged"] + 100
        await eventually(lambda aim=aim: state["acknowledged"] >= aim, 20)
        master = await until_settled(group)
        # A server may answer before it writes to its replicas: only those in flight may be lost.
        await master.call("CLIENT", "PAUSE", 100, "WRITE")
        master.kill()
        aim = state["acknowledged"] + 20
        await eventually(lambda aim=aim: state["acknowledged"] >= aim, 20)
        await master.exited()
        await master.start()
    state["over"] = True
    await at_once(workers)
    assert state["untold"] == 0
    counter = await answer(clients[0].get("n"))
    acknowledged = state["acknowledged"]
    assert acknowledged - 5 * 3 <= counter <= acknowledged + state["unknown"]
    assert state["unknown"] <= 5 * 3


# Pipelines


@on_reactor
async def test_pipeline(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    pipeline = await client.pipeline()
    assert pipeline.pipelining
    first = pipeline.set("k", 1)
    pipeline.incr("k")
    pipeline.hset("h", "f", "v")
    pipeline.hgetall("h")
    dropped = pipeline.set("k", 99)
    between = await answer(client.get("k"))
    assert between is None
    assert not first.called
    dropped.cancel()
    dropped.addErrback(lambda _: None)
    assert (await answer(pipeline.execute_pipeline()))[:4] == ["OK", 2, 1, {"f": "v"}]
    assert await answer(client.get("k")) == 2
    assert not pipeline.pipelining


@on_reactor
async def test_pipeline_goes_on_with_the_new_master(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    pipeline = await client.pipeline()
    for _ in range(10):
        pipeline.incr("n")
    group[0].kill()
    await group[0].exited()
    assert await answer(pipeline.execute_pipeline()) == list(range(1, 11))


@on_reactor
async def test_pipeline_fails_with_its_first_error(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    pipeline = await client.pipeline()
    pipeline.set("k", "v")
    pipeline.lpush("k", 1)
    pipeline.set("l", "v")
    with pytest.raises(FirstError) as first:
        await answer(pipeline.execute_pipeline())
    assert first.value.subFailure.check(ResponseError)
    assert await answer(client.get("l")) == "v"


@on_reactor
async def test_the_new_master_is_given_the_scripts_of_a_transaction(
    group: list[LocalServer], watch: Watch
) -> None:
    watched = watch(group)
    client = watched.client
    sha1 = await answer(client.script_load("return redis.call('incr', KEYS[1])"))
    group[0].kill()
    await eventually(lambda: len(watched.masters) == 2)
    tx = await answer(client.multi())
    replies = [tx.evalsha(sha1, ["n"]), tx.eval("return redis.call('decr', KEYS[1])", ["n"])]
    assert [await answer(reply) for reply in replies] == ["QUEUED", "QUEUED"]
    assert await answer(tx.commit()) == [1, 0]


@on_reactor
async def test_quit_waits_for_a_function_that_runs_in_a_transaction(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client

    async def function(tx: Any) -> None:
        value = await tx.get("n")
        tx.multi()
        tx.set("n", (value or 0) + 1)

    results, closed = client.transaction(function, "n"), client.quit()
    assert await answer(results) == ["OK"]
    await answer(closed)
    assert await group[0].call("GET", "n") == b"1"
