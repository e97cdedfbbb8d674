"""The traps of the journal, each on real servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.acl import PASSWORD, USER, documented, set_user
from tests.groups import DURABLE, OWN_DB, answer, at_once, until_settled
from tests.lossy import Detour, LatePipe, behind, lose_replies, run_unheard
from tests.servers.conftest import MakeProxy, MakeServers, Watch
from tests.support import eventually
from txharedis import HAClient, OutcomeUnknown, ResponseError
from txharedis.journal import BATCH_BYTES, BATCH_COMMANDS, JOURNAL_LIFE
from txharedis.testing.proxy import TcpProxy
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

ONCE = {"delivery": "exactly-once"}
BIG = 2**53


async def outcomes(replies: Sequence[Deferred[Any]]) -> list[Any]:
    """What they fire with, replies and errors."""
    told = await answer(DeferredList(list(replies), consumeErrors=True))
    return [result if succeeded else result.value for succeeded, result in told]


async def journals(server: LocalServer) -> list[bytes]:
    """The names of the journals on this server."""
    found: list[bytes] = await server.call("KEYS", "haredis:journal:*", db=OWN_DB)
    return found


async def calls(server: LocalServer) -> dict[str, int]:
    """How many times each command was called there, by scripts too."""
    stats = await server.info("commandstats")
    return {
        name.removeprefix("cmdstat_"): int(line.split(",")[0].removeprefix("calls="))
        for name, line in stats.items()
    }


async def more_calls(server: LocalServer, command: str, before: dict[str, int]) -> int:
    return (await calls(server)).get(command, 0) - before.get(command, 0)


@contextlib.contextmanager
def lines_logged() -> Iterator[list[str]]:
    """The lines that are logged meanwhile."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "txharedis":
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)


class One:
    """One server behind a proxy, and a client of exactly-once that knows the proxy."""

    def __init__(self, server: LocalServer, proxies: MakeProxy, watch: Watch) -> None:
        self.server = server
        self.proxy: TcpProxy = proxies(server)
        self.watched = watch([self.proxy.address], reconnect_delay=0.01, **ONCE)
        self.client = self.watched.client

    async def unheard(self, give: Callable[[HAClient], Sequence[Deferred[Any]]]) -> list[Any]:
        """Deferreds of what was executed, their replies kept back."""
        replies = await run_unheard(self.client, self.proxy, self.server, lambda: give(self.client))
        return list(replies)

    def lose(self) -> None:
        lose_replies(self.proxy)


@pytest.fixture
def one(server: LocalServer, proxies: MakeProxy, watch: Watch) -> One:
    return One(server, proxies, watch)


# Integers.


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


# Sizes.


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


# A journal that is refused, flushed, deleted, expired.


async def fill(server: LocalServer) -> None:
    """No memory is left, and what is there stays."""
    await server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await server.call("CONFIG", "SET", "maxmemory", 1)


@on_reactor
async def test_without_memory_each_command_has_its_own_answer(one: One) -> None:
    client = one.client
    await one.server.call("RPUSH", "list", "a", "b", "c")
    await one.server.call("SET", "k", "v")
    await answer(client.incr("n"))
    await fill(one.server)
    for item in ("a", "b"):
        replies = [
            client.set("new", 1),
            client.incr("n"),
            client.get("k"),
            client.lpop("list"),
            client.get("n"),
        ]
        *refused, value, popped, n = await outcomes(replies)
        for error in refused:
            assert isinstance(error, ResponseError)
            assert str(error).startswith("OOM ")
        assert (value, popped, n) == ("v", item, 1)
    [error] = await outcomes([client.set("new", 1)])
    assert str(error).startswith("OOM ")
    assert await outcomes([client.delete("k"), client.lpop("list")]) == [1, "c"]
    await one.server.call("CONFIG", "SET", "maxmemory", 0)
    assert await outcomes([client.incr("n"), client.set("new", 1)]) == [2, "OK"]


@on_reactor
async def test_without_memory_nothing_happens_twice(one: One) -> None:
    await one.server.call("RPUSH", "list", *range(10))
    assert await answer(one.client.incr("n")) == 1
    await fill(one.server)
    await answer(one.client.when_ready())
    one.proxy.stall(to_target=False)
    replies = [one.client.set("new", 1)] + [one.client.lpop("list") for _ in range(3)]

    async def popped() -> bool:
        return bool(await one.server.call("LLEN", "list") == 7)

    await eventually(popped)
    lose_replies(one.proxy)
    refused, *items = await outcomes(replies)
    assert str(refused).startswith("OOM ")
    assert items == [0, 1, 2]
    assert await one.server.call("LLEN", "list") == 7
    # What was refused was not executed, and goes again without harm.
    one.proxy.stall(to_target=False)
    alone = [one.client.set("new", 1)]
    lose_replies(one.proxy)
    [refused] = await outcomes(alone)
    assert str(refused).startswith("OOM ")
    await one.server.call("CONFIG", "SET", "maxmemory", 0)


@on_reactor
async def test_script_flush_under_load_keeps_the_order(server: LocalServer, watch: Watch) -> None:
    clients = [watch([server], **ONCE).client for _ in range(4)]
    flusher = watch([server], delivery="at-most-once").client
    await at_once(client.when_ready() for client in [*clients, flusher])
    replies: list[list[Deferred[Any]]] = [[] for _ in clients]
    for number in range(600):
        for index, client in enumerate(clients):
            replies[index].append(client.rpush(f"list{index}", number))
            if number % 3 == 0:
                replies[index].append(client.rpush(f"list{index}", "between"))
        if number % 5 == 0:
            await answer(flusher.script_flush())
    for index, pushed in enumerate(replies):
        assert await outcomes(pushed) == list(range(1, 801))
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


# Sessions.


@on_reactor
async def test_journal_expires_an_hour_after_its_last_write(
    server: LocalServer, watch: Watch
) -> None:
    client = watch([server], **ONCE).client
    await answer(client.incr("n"))
    [journal] = await journals(server)
    life = await server.call("PTTL", journal, db=OWN_DB)
    assert JOURNAL_LIFE * 1000 - 60_000 < life <= JOURNAL_LIFE * 1000
    await answer(client.incr("n"))
    assert 0 < await server.call("PTTL", journal, db=OWN_DB) <= JOURNAL_LIFE * 1000


@on_reactor
async def test_quit_takes_the_journal_away_and_disconnect_leaves_it_to_expire(
    group: list[LocalServer], watch: Watch
) -> None:
    polite, hasty = watch(group).client, watch(group).client
    await answer(polite.incr("n"))
    [first] = await journals(group[0])
    await answer(hasty.incr("n"))
    await answer(polite.quit())
    [second] = await journals(group[0])
    assert second != first
    await answer(hasty.disconnect())
    assert await journals(group[0]) == [second]
    assert await group[0].call("PTTL", second, db=OWN_DB) > 0


@on_reactor
async def test_client_that_wrote_nothing_leaves_no_journal(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    await answer(client.get("n"))
    await answer(client.with_options(delivery="at-most-once").incr("n"))
    assert await journals(group[0]) == []
    await answer(client.quit())


@on_reactor
async def test_sessions_are_independent(
    server: LocalServer, proxies: MakeProxy, watch: Watch
) -> None:
    ones = [One(server, proxies, watch) for _ in range(3)]
    replies = []
    for one in ones:
        replies.append(await one.unheard(lambda c: [c.incr("n"), c.incr("n")]))
    assert len(await journals(server)) == 3
    for one in reversed(ones):
        one.lose()
    told = [await outcomes(each) for each in replies]
    assert told == [[1, 2], [3, 4], [5, 6]]
    await answer(ones[0].client.quit())
    assert len(await journals(server)) == 2
    assert await answer(ones[1].client.incr("n")) == 7


# Databases, replicas.


@on_reactor
async def test_several_databases(one: One) -> None:
    client = one.client
    await answer(client.select(3))
    assert await answer(client.incr("n")) == 1

    one.proxy.stall(to_target=False)
    replies = [client.incr("n"), client.select(4), client.incr("n"), client.incr("n")]
    replies += [client.select(3), client.incr("n"), client.get("n"), client.select(0)]
    replies.append(client.incr("n"))

    async def executed() -> bool:
        return bool(await one.server.call("GET", "n", db=3) == b"2")

    await eventually(executed)
    one.lose()
    assert await outcomes(replies) == [2, "OK", 1, 2, "OK", 3, 3, "OK", 1]
    counts = [await one.server.call("GET", "n", db=db) for db in (0, 3, 4)]
    assert counts == [b"1", b"3", b"2"]
    assert len(await journals(one.server)) == 1


@on_reactor
async def test_move_between_databases_happens_once(one: One) -> None:
    await one.server.call("SET", "k", "v")
    replies = await one.unheard(
        lambda c: [c.move("k", 1), c.set("k", "w"), c.execute_command("COPY", "k", "k2", "DB", 2)]
    )
    one.lose()
    assert await outcomes(replies) == [1, "OK", 1]
    assert await one.server.call("GET", "k", db=1) == b"v"


@on_reactor
async def test_replicas_have_journal_and_data_together(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group, acks=2).client
    replies = [client.incr("n"), client.rpush("list", "a"), client.spop("nothing")]
    assert await outcomes(replies) == [1, 1, None]
    [journal] = await journals(group[0])
    dumps = await at_once(server.call("HGETALL", journal, db=OWN_DB) for server in group)
    assert dumps[0] == dumps[1] == dumps[2]
    assert b"1" in dumps[0][::2]


@on_reactor
async def test_batch_is_one_transaction_for_files_and_replicas(
    make_servers: MakeServers, watch: Watch
) -> None:
    [server] = await make_servers(1, options=DURABLE)
    client = watch([server], **ONCE).client
    await answer(client.set("k", 1))
    await outcomes([client.incr("n"), client.get("n"), client.rpush("list", "a")])
    [file] = (server.directory / "appendonlydir").glob("*.incr.aof")
    lines = file.read_bytes().upper().split(b"\r\n")
    words = [line for line in lines if line and line[:1] not in b"*$"]
    start = len(words) - 1 - words[::-1].index(b"MULTI")
    end = len(words) - 1 - words[::-1].index(b"EXEC")
    for word in (b"INCRBY" if b"INCRBY" in words else b"INCR", b"RPUSH", b"HSET"):
        assert word in words[start:end]
    assert b"GET" not in words[start:end]
    assert words[end + 1 :] == []


# Refusals by the server.


# Rights.

ME = {"username": USER, "password": PASSWORD}


@on_reactor
async def test_documented_rights_are_enough(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch
) -> None:
    await set_user(group, *documented("app"), "+wait")
    made = [proxies(server) for server in group]
    with lines_logged() as lines:
        client = watch(group, dialler=behind(reactor, group, made), acks=1, **ME).client
        await answer(client.set("app:k", 1))
        assert len(await journals(group[0])) == 1
        made[0].stall(to_target=False)
        replies = [client.incr("app:n") for _ in range(5)]

        async def executed() -> bool:
            return bool(await group[0].call("GET", "app:n") == b"5")

        await eventually(executed)
        lose_replies(made[0])
        assert await outcomes(replies) == [1, 2, 3, 4, 5]
        await answer(client.quit())
    assert await journals(group[0]) == []
    assert not [line for line in lines if "journal" in line]
    log = await group[0].call("ACL", "LOG")
    assert not [entry for entry in log if b"haredis:journal" in b" ".join(map(bytes_of, entry))]


def bytes_of(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


@on_reactor
@pytest.mark.parametrize(
    "rights",
    [
        ("~app:*", "+@all", "-@scripting", "&*"),
        ("~app:*", "+@all", "&*"),
        ("allkeys", "+@all", "-hset", "&*"),
        ("allkeys", "+@all", "-hmget", "&*"),
    ],
    ids=["no scripts", "no key", "no hset", "no hmget"],
)
async def test_without_the_right_to_a_journal_it_goes_plainly(
    server: LocalServer, proxies: MakeProxy, watch: Watch, rights: tuple[str, ...]
) -> None:
    await set_user([server], *rights)
    proxy = proxies(server)
    with lines_logged() as lines:
        client = watch([proxy.address], reconnect_delay=0.01, **ONCE, **ME).client
        for number in range(1, 6):
            replies = [client.incr("app:n"), client.rpush("app:list", number)]
            assert await outcomes(replies) == [number, number]
        denied = [client.incr("app:n")]
        if rights[0] != "allkeys":
            denied.append(client.incr("elsewhere"))
        told = await outcomes(denied)
        assert told[0] == 6
        assert all(str(error).startswith("NOPERM") for error in told[1:])
        # A reply that is lost is at-most-once's.
        proxy.stall(to_target=False)
        reply = client.incr("app:n")

        async def executed() -> bool:
            return bool(await server.call("GET", "app:n") == b"7")

        await eventually(executed)
        lose_replies(proxy)
        [lost] = await outcomes([reply])
        assert isinstance(lost, OutcomeUnknown)
        assert await answer(client.incr("app:n")) == 8
    said = [line for line in lines if "journal" in line]
    assert len(said) == 1, lines


@on_reactor
async def test_the_journal_and_failover_with_documented_rights(
    trio: list[LocalServer], watch: Watch
) -> None:
    await set_user(trio, *documented("app"))
    client = watch(trio, **ME).client
    await answer(client.incr("app:n"))
    old = await until_settled(trio)
    old.kill()
    assert await answer(client.incr("app:n")) == 2
    new = next(server for server in trio if server.address == client.master)
    assert len(await journals(new)) == 1


@on_reactor
@pytest.mark.parametrize("fresh", [True, False], ids=["no journal yet", "a journal"])
@pytest.mark.parametrize("refusal", ["OOM", "NOREPLICAS", "MISCONF"])
async def test_refusals_are_told_in_the_same_words(
    make_servers: MakeServers, watch: Watch, refusal: str, fresh: bool
) -> None:
    [server] = await make_servers(1, options=("--stop-writes-on-bgsave-error", "yes"))
    once = watch([server], **ONCE).client
    plain = watch([server], delivery="at-most-once").client
    await answer(plain.set("k", "v"))
    if not fresh:
        await answer(once.incr("n"))
    await at_once(client.when_ready() for client in (once, plain))
    if refusal == "OOM":
        await fill(server)
    elif refusal == "NOREPLICAS":
        await server.call("CONFIG", "SET", "min-replicas-to-write", 1)
    else:
        await fail_to_save(server)
    told = []
    for client in (plain, once):
        replies = await outcomes([client.set("new", 1), client.get("k"), client.lpush("l", 1)])
        assert replies[1] == "v"
        for error in (replies[0], replies[2]):
            assert isinstance(error, ResponseError)
            assert str(error).startswith(refusal)
        told.append([str(reply) for reply in replies])
    assert told[0] == told[1]
    assert await server.call("EXISTS", "new", "l") == 0


async def fail_to_save(server: LocalServer) -> None:
    """Writes are refused because saving has failed."""
    await server.call("CONFIG", "SET", "save", "3600 1")
    # A file cannot take the place of a directory.
    (server.directory / "dump.rdb").mkdir()

    async def failed() -> bool:
        info = await server.info("persistence")
        if info["rdb_last_bgsave_status"] == "err":
            return True
        if info["rdb_bgsave_in_progress"] == "0":
            await server.call("BGSAVE")
        return False

    await eventually(failed)


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
