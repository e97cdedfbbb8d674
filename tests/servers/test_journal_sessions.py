"""Whose journal it is, how long it lives, and in which databases and on which servers."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.acl import PASSWORD, USER, set_user
from tests.groups import DURABLE, OWN_DB, answer, at_once
from tests.lossy import ONCE, One, journals, outcomes
from tests.servers.conftest import MakeProxy, MakeServers, Watch
from tests.support import eventually
from txharedis.journal import JOURNAL_LIFE
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


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
    assert await group[0].call("PTTL", second, db=OWN_DB) > 60_000


@on_reactor
async def test_a_journal_that_was_flushed_by_its_own_batch_expires_too(
    server: LocalServer, watch: Watch
) -> None:
    client = watch([server], **ONCE).client
    await answer(client.incr("n"))
    await answer(client.flushall())
    [journal] = await journals(server)
    assert await server.call("PTTL", journal, db=OWN_DB) > 0
    assert await outcomes([client.incr("n"), client.flushall(), client.incr("n")]) == [1, "OK", 1]
    assert await server.call("PTTL", journal, db=OWN_DB) > 0


@on_reactor
@pytest.mark.parametrize("right", ["hdel", "pexpire"])
async def test_no_journal_where_it_could_not_be_kept_small(
    server: LocalServer, watch: Watch, right: str
) -> None:
    """Without these it would grow, or stay, for ever."""
    await set_user([server], "~*", "&*", "+@all", f"-{right}")
    client = watch([server], username=USER, password=PASSWORD, **ONCE).client
    for number in (1, 2, 3):
        assert await answer(client.incr("n")) == number
    for journal in await journals(server):
        assert await server.call("HKEYS", journal, db=OWN_DB) == [b"last"]


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
    # Bytes of the link that was lost may still come, and have to find it for a while.
    lives = [await server.call("PTTL", name, db=OWN_DB) for name in await journals(server)]
    assert [life > 60_000 for life in sorted(lives)] == [False, True, True]
    assert await answer(ones[1].client.incr("n")) == 7


@on_reactor
async def test_what_a_second_client_sends_late_is_waited_for_too(
    server: LocalServer, proxies: MakeProxy, watch: Watch
) -> None:
    first, second = (One(server, proxies, watch) for _ in range(2))
    replies = [await first.unheard(lambda c: [c.incr("n")])]
    second.proxy.delay(0.3, from_target=False, to_target=True)
    replies.append(await second.unheard(lambda c: [c.incr("n")]))
    assert await server.call("GET", "n") == b"2"
    for one in (second, first):
        one.lose()
    assert [await outcomes(each) for each in replies] == [[1], [2]]


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
