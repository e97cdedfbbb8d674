"""INFO, CONFIG, CLIENT, HELLO, ROLE: the fields and texts that the client reads."""

from __future__ import annotations

import hiredis
import pytest

from tests.contract.lab import Lab, code
from txharedis.lock import _RELEASE


async def test_info_of_a_server(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    info = await lab.info(link, "server")
    assert len(info["run_id"]) == 40
    assert info["uptime_in_seconds"].isdigit()
    assert info["redis_version"]
    assert info.get("redis_mode", info.get("server_mode")) == "standalone"


async def test_info_of_a_master(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    info = await lab.info(link)
    assert info["role"] == "master"
    assert info["connected_slaves"] == "0"
    assert len(info["master_replid"]) == 40
    assert info["master_replid2"] == "0" * 40
    assert info["master_repl_offset"] == "0"
    assert info["second_repl_offset"] == "-1"


async def test_a_master_without_replicas_counts_no_bytes(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    await link.pipeline(("SET", "a", 1), ("INCR", "a"))
    assert (await lab.info(link))["master_repl_offset"] == "0"


async def test_info_of_the_keys(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert await lab.info(link, "keyspace") == {}
    await link.pipeline(("SET", "a", 1), ("SET", "b", 1, "PX", 100000), ("SELECT", 15))
    await link("SET", "c", 1)
    info = await lab.info(link, "keyspace")
    assert list(info) == ["db0", "db15"]
    assert info["db0"].startswith("keys=2,expires=1,")
    assert info["db15"].startswith("keys=1,expires=0,")


@pytest.mark.parametrize(
    "name",
    [
        "replica-read-only",
        "replica-priority",
        "repl-ping-replica-period",
        "min-replicas-to-write",
        "replica-serve-stale-data",
        "masterauth",
        "masteruser",
    ],
)
async def test_settings(lab: Lab, name: str) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    found, value = await link("CONFIG", "GET", name)
    assert found == name.encode()
    other = {b"yes": b"no", b"no": b"yes"}.get(value, b"7")
    assert await link("CONFIG", "SET", name, other) == b"OK"
    assert await link("CONFIG", "GET", name) == [found, other]


async def test_settings_that_are_refused(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert code(await link("CONFIG", "SET", "no-such-setting", 1)) == "ERR"
    assert code(await link("CONFIG", "SET", "replica-read-only", "perhaps")) == "ERR"
    assert code(await link("CONFIG", "SET", "replica-priority", "x")) == "ERR"
    assert await link("CONFIG", "GET", "no-such-setting") == []


async def test_hello_and_role(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    hello = await link("HELLO")
    fields = dict(zip(hello[::2], hello[1::2], strict=True))
    assert fields[b"role"] == b"master"
    assert fields[b"mode"] == b"standalone"
    assert fields[b"proto"] == 2
    assert await link("ROLE") == [b"master", 0, []]


async def test_killing_clients_by_kind(lab: Lab) -> None:
    [server] = await lab.make()
    normal, listener, killer = [await lab.connect(server) for _ in range(3)]
    await normal("PING")
    await listener("SUBSCRIBE", "c")
    number = await killer("CLIENT", "ID")
    assert isinstance(number, int)
    assert await killer("CLIENT", "KILL", "TYPE", "pubsub") == 1
    assert await killer("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") == 1

    async def both_gone() -> bool:
        return normal.over and listener.over

    await lab.until(both_gone)
    assert await killer("PING") == b"PONG"
    assert code(await killer("CLIENT", "KILL", "TYPE", "odd")) == "ERR"


async def test_what_a_listening_link_may_do(lab: Lab) -> None:
    [server] = await lab.make()
    link, other = [await lab.connect(server) for _ in range(2)]
    assert await link("SUBSCRIBE", "a") == [b"subscribe", b"a", 1]
    assert await link.pipeline(("SUBSCRIBE", "b"), ("PSUBSCRIBE", "c*")) == [
        [b"subscribe", b"b", 2],
        [b"psubscribe", b"c*", 3],
    ]
    assert await link("PING") == [b"pong", b""]
    refused = await link("GET", "a")
    assert isinstance(refused, hiredis.ReplyError)
    assert str(refused).startswith("ERR Can't execute 'get'")
    assert await other("PUBSUB", "NUMSUB", "a", "b", "x") == [b"a", 1, b"b", 1, b"x", 0]
    assert await other("PUBLISH", "cat", "m") == 1
    assert await link.next() == [b"pmessage", b"c*", b"cat", b"m"]
    assert await other("PUBLISH", "a", "m") == 1
    assert await link.next() == [b"message", b"a", b"m"]
    assert await link("UNSUBSCRIBE", "a") == [b"unsubscribe", b"a", 2]
    assert await other("PUBLISH", "a", "m") == 0
    assert await link.pipeline(("UNSUBSCRIBE",), ("PUNSUBSCRIBE",)) == [
        [b"unsubscribe", b"b", 1],
        [b"punsubscribe", b"c*", 0],
    ]
    assert await link("GET", "a") is None


async def test_a_link_that_listens_no_more_is_counted_no_more(lab: Lab) -> None:
    [server] = await lab.make()
    link, other = [await lab.connect(server) for _ in range(2)]
    await link("SUBSCRIBE", "a")
    link.abort()

    async def gone() -> bool:
        return bool(await other("PUBSUB", "NUMSUB", "a") == [b"a", 0])

    await lab.until(gone)


async def test_a_server_that_loads_its_data(lab: Lab) -> None:
    server, other = await lab.make(2)
    link = await lab.connect(server)
    for number in range(300):
        await link("SET", f"key{number}", "v" * 2000)
    await server.restart_slowly()
    link, replica = await lab.connect(server), await lab.connect(other)
    await replica("SLAVEOF", server.host, server.port)
    assert (await lab.info(link, "persistence"))["loading"] == "1"
    assert (await lab.info(link))["role"] == "master"
    for words in (
        ("GET", "key1"),
        ("SET", "a", 1),
        ("PING",),
        ("SLAVEOF", "NO", "ONE"),
        ("EVAL", _RELEASE, 1, "lock", "mine"),
        ("DBSIZE",),
    ):
        assert code(await link(*words)) == "LOADING", words
    assert await link.pipeline(("SELECT", 15), ("PUBLISH", "c", "m"), ("WATCH", "a")) == [
        b"OK",
        0,
        b"OK",
    ]
    assert await link("CONFIG", "GET", "replica-priority") == [b"replica-priority", b"100"]
    *_, outcome = await link.pipeline(("MULTI",), ("GET", "a"), ("EXEC",))
    assert code(outcome) == "EXECABORT"
    assert not await lab.is_up(replica)
    await server.load_quickly()
    await lab.until(lambda: lab.loaded(link))
    await link("SELECT", 0)
    assert await link("DBSIZE") == 300
    await lab.until(lambda: lab.is_up(replica))
    assert await replica("DBSIZE") == 300
