"""Script or journal are taken away, or bytes arrive late: nothing happens twice."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.groups import OWN_DB, answer, at_once
from tests.lossy import ONCE, Detour, LatePipe, One, journals, outcomes
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import OutcomeUnknown
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

COUNT = "return redis.call('INCR', KEYS[1])"


@on_reactor
async def test_script_flush_under_load_keeps_the_order(server: LocalServer, watch: Watch) -> None:
    clients = [watch([server], **ONCE).client for _ in range(4)]
    flusher = watch([server], delivery="at-most-once").client
    await at_once(client.when_ready() for client in [*clients, flusher])
    replies: list[list[Deferred[Any]]] = [[] for _ in clients]
    counts: list[list[Deferred[Any]]] = [[] for _ in clients]
    for number in range(600):
        for index, client in enumerate(clients):
            replies[index].append(client.rpush(f"list{index}", number))
            if number % 3 == 0:
                replies[index].append(client.rpush(f"list{index}", "between"))
            if number % 10 == 0:  # it does not go through the journal
                counts[index].append(client.execute_command("EVAL", COUNT, 1, f"n{index}"))
        if number % 5 == 0:
            await answer(flusher.script_flush())
    for index, pushed in enumerate(replies):
        assert await outcomes(pushed) == list(range(1, 801))
        assert await outcomes(counts[index]) == list(range(1, 61))
        items = await server.call("LRANGE", f"list{index}", 0, -1)
        numbers = [item for item in items if item != b"between"]
        assert numbers == [b"%d" % number for number in range(600)]


@on_reactor
async def test_script_flush_between_execution_and_redispatch(one: One) -> None:
    replies = await one.unheard(lambda c: [c.incr("n") for _ in range(5)])
    await one.server.call("SCRIPT", "FLUSH")
    one.lose()
    assert await outcomes(replies) == [1, 2, 3, 4, 5]


@on_reactor
async def test_bytes_of_an_old_link_arrive_late(
    reactor: Any, server: LocalServer, watch: Watch
) -> None:
    """What an old link still brings, after its commands went over a new one, is not run again."""
    pipe = LatePipe(reactor, server)
    try:
        dialler = Detour(reactor, {server.port: pipe.port})
        client = watch([server], dialler=dialler, reconnect_delay=0.01, **ONCE).client
        assert await answer(client.incr("n")) == 1
        pipe.hold()
        replies = [client.incr("n") for _ in range(10)]
        await eventually(lambda: pipe.held > 100)
        pipe.cut()
        assert await outcomes(replies) == list(range(2, 12))
        # The journal has them still, then has forgotten them: both ways.
        await pipe.release()
        assert await server.call("GET", "n") == b"11"
    finally:
        await client.disconnect()
        await pipe.stop()


@on_reactor
async def test_late_bytes_of_what_is_forgotten_are_not_run(
    reactor: Any, server: LocalServer, watch: Watch
) -> None:
    pipe = LatePipe(reactor, server)
    try:
        dialler = Detour(reactor, {server.port: pipe.port})
        client = watch([server], dialler=dialler, reconnect_delay=0.01, **ONCE).client
        await answer(client.incr("n"))
        pipe.hold()
        reply = client.incr("n")
        await eventually(lambda: pipe.held > 100)
        pipe.cut()
        assert await answer(reply) == 2
        for number in range(3, 10):
            assert await answer(client.incr("n")) == number
        await pipe.release()
        assert await server.call("GET", "n") == b"9"
        assert await answer(client.incr("n")) == 10
    finally:
        await client.disconnect()
        await pipe.stop()


@on_reactor
@pytest.mark.parametrize("loss", ["FLUSHALL", "DEL", "expiry"])
async def test_journal_that_is_gone_between_execution_and_redispatch(one: One, loss: str) -> None:
    assert await answer(one.client.incr("before")) == 1
    replies = await one.unheard(lambda c: [c.incr("n"), c.get("n"), c.incr("n")])
    [journal] = await journals(one.server)
    if loss == "FLUSHALL":
        await one.server.call("FLUSHALL")
    elif loss == "DEL":
        await one.server.call("DEL", journal, db=OWN_DB)
    else:
        await one.server.call("PEXPIRE", journal, 1, db=OWN_DB)

        async def expired() -> bool:
            return not await journals(one.server)

        await eventually(expired)
    one.lose()
    first, read, second = await outcomes(replies)
    for error in (first, second):
        assert isinstance(error, OutcomeUnknown)
        assert error.executed is None
        assert "journal is gone" in str(error)
    left = None if loss == "FLUSHALL" else 2
    assert read == left
    assert await answer(one.client.get("n")) == left  # never twice
    # It goes on as before.
    assert await answer(one.client.incr("n")) == (left or 0) + 1
    replies = await one.unheard(lambda c: [c.incr("n")])
    one.lose()
    assert await outcomes(replies) == [(left or 0) + 2]


@on_reactor
async def test_journal_of_the_first_batch_that_is_gone(one: One) -> None:
    """No reply of the journal was ever seen: that it is missing may mean that nothing was run."""
    replies = await one.unheard(lambda c: [c.rpush("list", "x")])
    await one.server.call("FLUSHALL")
    one.lose()
    [reply] = await outcomes(replies)
    length = await one.server.call("LLEN", "list")
    # Either answer is true of the keys as they are now.
    assert (isinstance(reply, OutcomeUnknown) and length == 0) or (reply == length == 1)


@on_reactor
async def test_flushall_by_the_client_itself(one: One) -> None:
    client = one.client
    replies = [client.incr("n"), client.flushall(), client.incr("n"), client.incr("n")]
    assert await outcomes(replies) == [1, "OK", 1, 2]
    replies = [client.incr("n"), client.flushdb(), client.incr("n")]
    assert await outcomes(replies) == [3, "OK", 1]
    assert await answer(client.incr("n")) == 2
    replies = await one.unheard(
        lambda c: [c.incr("n"), c.flushall(), c.incr("n"), c.incr("n"), c.incr("n")]
    )
    one.lose()
    assert await outcomes(replies) == [3, "OK", 1, 2, 3]
    assert await one.server.call("GET", "n") == b"3"


@on_reactor
async def test_flushall_alone_that_is_lost(one: One) -> None:
    await answer(one.client.incr("n"))
    replies = await one.unheard(lambda c: [c.flushall()])
    await one.server.call("SET", "since", 1)
    one.lose()
    assert await outcomes(replies) == ["OK"]
    assert await one.server.call("GET", "since") == b"1"


@on_reactor
async def test_message_is_published_once(one: One, watch: Watch) -> None:
    heard: list[Any] = []
    listener = watch([one.server]).client
    await answer(listener.subscribe("news", lambda message: heard.append(message.data)))
    replies = await one.unheard(lambda c: [c.publish("news", "a"), c.publish("news", "b")])
    one.lose()
    assert await outcomes(replies) == [1, 1]
    await answer(one.client.publish("news", "end"))
    await eventually(lambda: "end" in heard)
    assert heard == ["a", "b", "end"]


@on_reactor
async def test_what_was_given_up_is_not_sent_again(one: One) -> None:
    await answer(one.client.when_ready())
    one.proxy.stall(from_target=False)
    hasty = one.client.with_options(timeout=0.2)
    first, second = await outcomes([hasty.incr("n"), hasty.incr("n")])
    for error in (first, second):
        assert isinstance(error, OutcomeUnknown)
        assert error.executed is None
    one.lose()  # the bytes too
    assert await answer(one.client.incr("n")) == 1


@on_reactor
async def test_part_of_a_batch_that_was_given_up_is_not_executed_later(one: One) -> None:
    await answer(one.client.when_ready())
    one.proxy.stall(from_target=False)
    hasty = one.client.with_options(timeout=0.2)
    patient = one.client.rpush("list", "a"), one.client.rpush("list", "c")
    [error] = await outcomes([hasty.rpush("list", "b")])
    assert isinstance(error, OutcomeUnknown)
    one.lose()
    assert await outcomes(patient) == [1, 2]
    assert await one.server.call("LRANGE", "list", 0, -1) == [b"a", b"c"]
