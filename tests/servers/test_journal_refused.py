"""A server that takes no writes, or gives no right to the journal of exactly-once."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from tests.acl import PASSWORD, USER, documented, set_user
from tests.groups import OWN_DB, answer, at_once, until_settled
from tests.lossy import ONCE, SILENT, One, behind, journals, lose_replies, outcomes
from tests.servers.conftest import MakeProxy, MakeServers, Watch
from tests.support import eventually, lines_logged
from txharedis import OutcomeUnknown, ResponseError
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

ME = {"username": USER, "password": PASSWORD}


async def fill(server: LocalServer) -> None:
    """No memory is left, and what is there stays."""
    await server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await server.call("CONFIG", "SET", "maxmemory", 1)


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


@on_reactor
async def test_documented_rights_are_enough(
    reactor: Any, group: list[LocalServer], proxies: MakeProxy, watch: Watch
) -> None:
    await set_user(group, *documented("app"), "+wait")
    made = [proxies(server) for server in group]
    with lines_logged() as lines:
        client = watch(group, dialler=behind(reactor, group, made), acks=1, **SILENT, **ME).client
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
    [journal] = await journals(group[0])
    assert 0 < await group[0].call("PTTL", journal, db=OWN_DB) <= 60_000
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
        client = watch([proxy.address], reconnect_delay=0.01, **SILENT, **ONCE, **ME).client
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
async def test_without_memory_a_message_is_heard_once(one: One, watch: Watch) -> None:
    heard: list[Any] = []
    listener = watch([one.server]).client
    await answer(listener.subscribe("news", heard.append))
    assert await answer(one.client.incr("n")) == 1
    await fill(one.server)
    one.proxy.stall(to_target=False)
    replies = [one.client.set("new", 1), one.client.publish("news", "first")]
    await eventually(lambda: heard)
    lose_replies(one.proxy)
    refused, receivers = await outcomes(replies)
    assert str(refused).startswith("OOM ")
    assert receivers == 1
    await answer(one.client.publish("news", "last"))
    await eventually(lambda: heard[-1].data == "last")
    assert [message.data for message in heard] == ["first", "last"]
    await one.server.call("CONFIG", "SET", "maxmemory", 0)


@on_reactor
async def test_behind_the_first_write_of_a_turn_memory_is_not_asked_for(one: One) -> None:
    """The server's own rule for scripts, as docs/guarantees.md tells it."""
    await one.server.call("RPUSH", "list", "a")
    await answer(one.client.incr("n"))
    await fill(one.server)
    [before, item, behind_it] = await outcomes(
        [one.client.set("k1", 1), one.client.lpop("list"), one.client.set("k2", 2)]
    )
    assert str(before).startswith("OOM ")
    assert (item, behind_it) == ("a", "OK")
    await one.server.call("CONFIG", "SET", "maxmemory", 0)
