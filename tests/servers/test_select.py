"""select(n) holds for every link, across failovers; and scripts that a new master does not know."""

from __future__ import annotations

import hashlib

import pytest
import pytest_twisted

from tests.groups import answer, until_settled
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import InvalidOption, ResponseError
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


@on_reactor
async def test_select_holds_after_a_failover(group: list[LocalServer], watch: Watch) -> None:
    watched = watch(group)
    client = watched.client
    replies = [client.set("k", "zero"), client.select(3), client.set("k", "three")]
    assert [await answer(reply) for reply in replies] == ["OK", "OK", "OK"]
    master, *others = group
    assert await master.call("GET", "k", db=0) == b"zero"
    assert await master.call("GET", "k", db=3) == b"three"
    for server in others:
        await eventually(lambda server=server: server.call("GET", "k", db=3))
    for _ in range(2):
        master = next(server for server in group if server.address == client.master)
        master.kill()
        assert await answer(client.get("k")) == "three"
        await master.exited()
        await master.start()
        await until_settled(group)


@on_reactor
async def test_commands_that_wait_for_a_master_keep_their_database(
    group: list[LocalServer], watch: Watch
) -> None:
    watched = watch(group)
    client = watched.client
    await answer(client.set("k", "zero"))
    for server in group[1:]:
        await eventually(lambda server=server: server.call("GET", "k"))
    group[0].kill()
    replies = [client.get("k"), client.select(2), client.append("k", "two"), client.select(0)]
    replies.append(client.append("k", "!"))
    assert [await answer(reply) for reply in replies] == ["zero", "OK", 3, "OK", 5]
    assert await answer(client.get("k")) == "zero!"


@on_reactor
async def test_a_database_that_is_not_there(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    await answer(client.set("k", "v"))
    refused, behind = client.select(99), client.set("k", "not in the old one")
    for reply in (refused, behind):
        with pytest.raises(ResponseError, match="DB index is out of range"):
            await answer(reply)
    assert await answer(client.get("k")) == "v"
    # Several at once are refused one after the other.
    for reply in [client.select(99), client.select(98), client.select(98)]:
        with pytest.raises(ResponseError, match="DB index is out of range"):
            await answer(reply)
    assert await answer(client.get("k")) == "v"
    for words, named in (([15], "15"), (["x"], "'x'"), ([], "names no database")):
        with pytest.raises(InvalidOption, match=named):
            await answer(client.execute_command("SELECT", *words))


@on_reactor
async def test_single_mode(server: LocalServer, watch: Watch) -> None:
    client = watch([server]).client
    await answer(client.select(1))
    await answer(client.set("k", "one"))
    await server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await eventually(lambda: answer(client.get("k"))) == "one"
    assert await server.call("GET", "k", db=1) == b"one"


@on_reactor
async def test_the_new_master_is_given_the_scripts(group: list[LocalServer], watch: Watch) -> None:
    watched = watch(group)
    client = watched.client
    script = "return redis.call('incr', KEYS[1])"
    sha1 = hashlib.sha1(script.encode()).hexdigest()
    assert await answer(client.script_load(script)) == sha1
    assert await answer(client.evalsha(sha1, ["n"])) == 1
    assert await answer(client.eval("return ARGV[1]", args=["a"])) == "a"
    for server in group[1:]:
        await eventually(lambda server=server: server.call("GET", "n"))
    group[0].kill()
    await eventually(lambda: len(watched.masters) == 2)
    assert await answer(client.evalsha(sha1, ["n"])) == 2
    assert await answer(client.eval("return ARGV[1]", args=["b"])) == "b"
    new = next(server for server in group if server.address == client.master)
    await new.call("SCRIPT", "FLUSH")
    assert await answer(client.evalsha(sha1, ["n"])) == 3
    await answer(client.script_flush())
    with pytest.raises(ResponseError, match="No script matching"):
        await answer(client.evalsha(sha1, ["n"]))


@on_reactor
async def test_what_is_run_again_stays_in_its_database(
    group: list[LocalServer], watch: Watch
) -> None:
    master, *_ = group
    client = watch(group).client
    sha1 = await answer(client.script_load("return redis.call('incr', KEYS[1])"))
    await master.call("SCRIPT", "FLUSH")
    replies = [client.evalsha(sha1, ["n"]), client.select(1)]
    assert [await answer(reply) for reply in replies] == [1, "OK"]
    assert await master.call("GET", "n", db=0) == b"1"
    assert await master.call("DBSIZE", db=1) == 0
