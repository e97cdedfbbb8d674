"""What does not fit into the journal of exactly-once: huge integers, batches, replies, commands."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.groups import OWN_DB, answer
from tests.lossy import ONCE, One, journals, outcomes
from tests.servers.conftest import Watch
from txharedis import HAClient, OutcomeUnknown
from txharedis.journal import BATCH_BYTES, BATCH_COMMANDS
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

BIG = 2**53


async def calls(server: LocalServer) -> dict[str, int]:
    """How many times each command was called there, by scripts too."""
    stats = await server.info("commandstats")
    return {
        name.removeprefix("cmdstat_"): int(line.split(",")[0].removeprefix("calls="))
        for name, line in stats.items()
    }


async def more_calls(server: LocalServer, command: str, before: dict[str, int]) -> int:
    return (await calls(server)).get(command, 0) - before.get(command, 0)


@on_reactor
async def test_integers_beyond_what_lua_holds_are_exact(server: LocalServer, watch: Watch) -> None:
    client = watch([server], **ONCE).client
    for start in (BIG - 2, -BIG - 3, 2**62, -(2**62) + 1, 2**63 - 20):
        await server.call("SET", "n", start)
        await server.call("HSET", "hash", "n", start)
        replies = [
            client.incr("n"),
            client.hincrby("hash", "n", 3),
            client.incrby("n", 5),
            client.decr("n"),
            client.execute_command("decrby", "n", 7),
            client.hincrby("hash", "n", -7),
            client.get("n"),
        ]
        expected = [start + n for n in (1, 3, 6, 5, -2, -4, -2)]
        assert await outcomes(replies) == expected
        assert all(type(reply) is int for reply in expected)


@on_reactor
async def test_bitfield_goes_plainly(one: One) -> None:
    """Its replies may be beyond 2^53, in a list: when they are lost, nobody knows."""
    replies = await one.unheard(
        lambda c: [
            c.execute_command("BITFIELD", "bits", "INCRBY", "i64", 0, BIG + 1),
            c.execute_command("BITFIELD", "bits", "GET", "i64", 0),
        ]
    )
    one.lose()
    written, read = await outcomes(replies)
    assert isinstance(written, OutcomeUnknown)
    assert written.executed is None
    assert "cannot go through the journal" in str(written)
    assert read == [BIG + 1]
    reply = one.client.execute_command("BITFIELD", "bits", "INCRBY", "i64", 0, 1)
    assert await answer(reply) == [BIG + 2]


@on_reactor
async def test_ten_thousand_commands_of_one_turn(one: One) -> None:
    await answer(one.client.set("k", 1))
    before = await calls(one.server)
    replies = await one.unheard(lambda c: [c.rpush("list", n) for n in range(10_000)])
    batches = await more_calls(one.server, "evalsha", before)
    assert 10_000 / BATCH_COMMANDS <= batches <= 10_000 / BATCH_COMMANDS + 2
    one.lose()
    assert await outcomes(replies) == list(range(1, 10_001))
    assert await one.server.call("LLEN", "list") == 10_000
    # What is settled is forgotten.
    await answer(one.client.set("k", 2))
    await answer(one.client.set("k", 3))
    [journal] = await journals(one.server)
    assert await one.server.call("HLEN", journal, db=OWN_DB) <= 4


@on_reactor
async def test_fifty_megabytes_of_one_turn(one: One) -> None:
    await answer(one.client.set("k", 1))
    before = await calls(one.server)
    word = b"x" * 10_000
    replies = await one.unheard(lambda c: [c.rpush("list", word) for _ in range(5_000)])
    batches = await more_calls(one.server, "evalsha", before)
    assert batches >= 5_000 * len(word) / BATCH_BYTES
    one.lose()
    assert await outcomes(replies) == list(range(1, 5_001))
    assert await one.server.call("LLEN", "list") == 5_000
    slow = await one.server.call("SLOWLOG", "LEN")
    assert isinstance(slow, int)


@on_reactor
async def test_one_word_of_fifty_megabytes(one: One) -> None:
    word = b"x" * 50_000_000
    await answer(one.client.set("k", 1))
    first, second = await one.unheard(lambda c: [c.append("large", word), c.incr("n")])
    one.lose()
    assert await outcomes([first, second]) == [50_000_000, 1]


@pytest.mark.parametrize("delivery", ["exactly-once", "at-most-once"])
@on_reactor
async def test_long_words_and_short_ones_keep_their_order(one: One, delivery: str) -> None:
    client = one.client.with_options(delivery=delivery)
    sizes = [300_000, 3, 20_000, 1_000_000, 5, 70_000, 16_384, 16_383] * 3
    words = [b"%d:" % number + b"v" * size for number, size in enumerate(sizes)]
    replies = [client.rpush("list", word) for word in words]
    texts = [client.append("text", word.decode()) for word in words]
    await outcomes([*replies, *texts])
    assert await one.server.call("LRANGE", "list", 0, -1) == words
    assert await one.server.call("GET", "text") == b"".join(words)


@on_reactor
async def test_a_master_dies_with_long_words_half_sent(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group, acks=1, charset=None, convert_numbers=False).client
    await answer(client.set("k", 1))
    group[0].pause()  # what does not fit into the buffers of the kernel waits in the client
    words = [b"%03d" % number + b"v" * (1_000_000 if number % 3 else 5) for number in range(30)]
    replies = [client.rpush("list", word) for word in words]
    await deferLater(reactor, 0, lambda: None)  # it is written
    words += [b"%03d" % number for number in range(30, 50)]
    replies += [client.rpush("list", word) for word in words[30:]]
    await deferLater(reactor, 0, lambda: None)
    group[0].kill()
    assert await outcomes(replies) == list(range(1, 51))
    assert await answer(client.lrange("list", 0, -1)) == words


async def with_large_values(server: LocalServer) -> None:
    large = b"x" * 3_000_000
    await server.call("SET", "k", large)
    await server.call("RPUSH", "list", large, "small")
    await server.call("SADD", "set", *(b"%d" % n + b"x" * 3_000 for n in range(1_000)))


def take_large(client: HAClient) -> list[Deferred[Any]]:
    return [
        client.incr("n"),
        client.execute_command("GETDEL", "k"),
        client.lpop("list"),
        client.execute_command("SPOP", "set", 1_000),
        client.lpop("list"),
    ]


@on_reactor
async def test_large_replies_are_answered(one: One) -> None:
    await with_large_values(one.server)
    count, value, item, members, small = await outcomes(take_large(one.client))
    assert (count, small) == (1, "small")
    assert value == item == "x" * 3_000_000
    assert len(members) == 1_000


@on_reactor
async def test_large_replies_that_are_lost(one: One) -> None:
    await with_large_values(one.server)
    replies = await one.unheard(take_large)
    one.lose()
    count, value, item, members, small = await outcomes(replies)
    assert (count, small) == (1, "small")
    for error, name in ((value, "GETDEL"), (item, "LPOP"), (members, "SPOP")):
        assert isinstance(error, OutcomeUnknown)
        assert error.executed is True
        assert name in str(error)
        assert "too large" in str(error)
        assert error.command[0] == name
    assert await one.server.call("EXISTS", "k", "list", "set") == 0
    [journal] = await journals(one.server)
    assert await one.server.call("MEMORY", "USAGE", journal, db=OWN_DB) < 500_000


@on_reactor
@pytest.mark.parametrize("count", [3_999, 4_001, 100_000])
async def test_very_many_words(one: One, count: int) -> None:
    words = [b"%d" % n for n in range(count - 2)]
    push = ("RPUSH", "list", *words)
    assert len(push) == count
    [reply, beside] = await one.unheard(lambda c: [c.execute_command(*push), c.incr("n")])
    one.lose()
    reply, beside = await outcomes([reply, beside])
    assert beside == 1
    assert await one.server.call("LLEN", "list") == count - 2
    if count < 4_000:
        assert reply == count - 2
    else:
        assert isinstance(reply, OutcomeUnknown)
        assert "cannot go through the journal" in str(reply)
        assert await answer(one.client.execute_command(*push)) == 2 * (count - 2)
