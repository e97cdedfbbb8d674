"""The commands on keys answer as real servers do."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest

from tests.contract.lab import Lab, code

CONVERSATIONS: list[list[tuple[str, Any]]] = [
    [
        ("GET a", None),
        ("SET a 1", b"OK"),
        ("GET a", b"1"),
        ("EXISTS a b a", 2),
        ("TYPE a", b"string"),
    ],
    [("SET a 1 NX", b"OK"), ("SET a 2 NX", None), ("SET a 2 XX", b"OK"), ("SET b 2 XX", None)],
    [("SET a 1 NX XX", "ERR"), ("SET a", "ERR"), ("SET a 1 ODD", "ERR"), ("SET a 1 PX", "ERR")],
    [("SET a 1 PX x", "ERR"), ("SET a 1 PX 0", "ERR"), ("SET a 1 PX -5", "ERR"), ("GET a", None)],
    [("SET a 1 PX 100000", b"OK"), ("SET a 2 KEEPTTL", b"OK"), ("PERSIST a", 1), ("PTTL a", -1)],
    [("SET a 1 EX 100", b"OK"), ("TTL a", 100), ("SET a 2", b"OK"), ("TTL a", -1)],
    [("PTTL a", -2), ("SET a 1", b"OK"), ("PTTL a", -1), ("PEXPIRE a 0", 1), ("EXISTS a", 0)],
    [("PEXPIRE a 5", 0), ("SET a 1", b"OK"), ("EXPIRE a 50", 1), ("TTL a", 50), ("PERSIST a", 1)],
    [("INCR n", 1), ("INCR n", 2), ("INCRBY n 40", 42), ("INCRBY n -2", 40), ("GET n", b"40")],
    [
        ("INCRBY n x", "ERR"),
        ("SET n x", b"OK"),
        ("INCR n", "ERR"),
        ("SET n 01", b"OK"),
        ("INCR n", "ERR"),
    ],
    [("SET n 9223372036854775806", b"OK"), ("INCR n", 9223372036854775807), ("INCR n", "ERR")],
    [("APPEND a xy", 2), ("APPEND a z", 3), ("STRLEN a", 3), ("STRLEN b", 0)],
    [("SET a 1", b"OK"), ("SET b 2", b"OK"), ("MGET a x b", [b"1", None, b"2"]), ("DEL a x b", 2)],
    [("HSET h a 1 b 2", 2), ("HSET h a 3 c 4", 1), ("HGET h a", b"3"), ("HGET h x", None)],
    [("HSET h a", "ERR"), ("HSET h a 1 b", "ERR"), ("HGETALL h", [])],
    [("HSET h a 1 b 2", 2), ("HGETALL h", [b"a", b"1", b"b", b"2"]), ("HLEN h", 2)],
    [
        ("HSET h a 1 b 2", 2),
        ("HMGET h b x a", [b"2", None, b"1"]),
        ("HDEL h a x", 1),
        ("HDEL h b", 1),
    ],
    [
        ("HSET h a 1", 1),
        ("HDEL h a", 1),
        ("EXISTS h", 0),
        ("HINCRBY h n 5", 5),
        ("HINCRBY h n -7", -2),
    ],
    [("HSET h a x", 1), ("HINCRBY h a 1", "ERR"), ("GET h", "WRONGTYPE"), ("TYPE h", b"hash")],
    [
        ("RPUSH l a b c", 3),
        ("LRANGE l 0 -1", [b"a", b"b", b"c"]),
        ("LRANGE l 1 1", [b"b"]),
        ("LLEN l", 3),
    ],
    [
        ("RPUSH l a b c", 3),
        ("LRANGE l -2 5", [b"b", b"c"]),
        ("LRANGE l 2 1", []),
        ("LRANGE x 0 -1", []),
    ],
    [
        ("SADD s a b a", 2),
        ("SADD s b c", 1),
        ("SCARD s", 3),
        ("SISMEMBER s a", 1),
        ("SREM s a x", 1),
    ],
    [("SADD s a", 1), ("SMEMBERS s", [b"a"]), ("SMEMBERS x", []), ("SREM s a", 1), ("EXISTS s", 0)],
    [
        ("SADD s a", 1),
        ("INCR s", "WRONGTYPE"),
        ("RPUSH s a", "WRONGTYPE"),
        ("HSET s a 1", "WRONGTYPE"),
    ],
    [
        ("RPUSH l a", 1),
        ("SADD l a", "WRONGTYPE"),
        ("MGET l", [None]),
        ("SET l 1", b"OK"),
        ("GET l", b"1"),
    ],
    [
        ("SET a 1", b"OK"),
        ("DBSIZE", 1),
        ("KEYS a*", [b"a"]),
        ("KEYS x*", []),
        ("FLUSHDB", b"OK"),
        ("DBSIZE", 0),
    ],
    [
        ("SET a 1", b"OK"),
        ("SELECT 3", b"OK"),
        ("GET a", None),
        ("SET a 2", b"OK"),
        ("FLUSHALL", b"OK"),
    ],
    [
        ("SET a 1", b"OK"),
        ("SELECT 3", b"OK"),
        ("FLUSHDB", b"OK"),
        ("SELECT 0", b"OK"),
        ("GET a", b"1"),
    ],
    [("SELECT 16", "ERR"), ("SELECT x", "ERR"), ("SELECT -1", "ERR"), ("SELECT 15", b"OK")],
    [
        ("NOSUCH a b", "ERR"),
        ("GET", "ERR"),
        ("GET a b", "ERR"),
        ("PING", b"PONG"),
        ("PING x", b"x"),
    ],
]


@pytest.mark.parametrize("talk", CONVERSATIONS, ids=lambda talk: talk[0][0])
async def test_replies(lab: Lab, talk: list[tuple[str, Any]]) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    for text, expected in talk:
        reply = await link(*text.split(" "))
        if isinstance(expected, str):
            assert code(reply) == expected, text
        else:
            assert reply == expected, text


async def test_what_comes_together_is_answered_in_its_order(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    replies = await link.pipeline(
        ("SET", "a", 1), ("NOSUCH",), ("INCR", "a"), ("HGET", "a", "b"), ("GET", "a")
    )
    assert [type(reply) for reply in replies[1::2]] == [hiredis.ReplyError] * 2
    assert replies[::2] == [b"OK", 2, b"2"]


async def test_keys_expire(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    await link.pipeline(("SET", "a", 1, "PX", 100), ("SET", "b", 1), ("PEXPIRE", "b", 100))
    assert 0 < await link("PTTL", "a") <= 100
    await lab.sleep(0.11)
    assert await link.pipeline(("GET", "a"), ("EXISTS", "b"), ("PTTL", "a")) == [None, 0, -2]
    assert await link("SET", "a", 2, "NX") == b"OK"


async def test_the_end_of_a_link_is_behind_its_bytes(lab: Lab) -> None:
    """What a client has written before it dropped its link is executed."""
    [server] = await lab.make()
    link = await lab.connect(server)
    assert await link("PING") == b"PONG"
    link.send(*[("INCR", "n")] * 20)
    await lab.sleep(0)  # it leaves this process
    link.transport.loseConnection()
    other = await lab.connect(server)

    async def all_there() -> bool:
        return bool(await other("GET", "n") == b"20")

    await lab.until(all_there)


async def test_a_hung_server_does_what_was_in_its_sockets(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    other = await lab.connect(server)
    await link("PING")
    server.pause()
    await lab.sleep(0.1)
    link.send(("INCR", "n"))
    other.send(("INCR", "n"))
    await lab.sleep(0.05)
    link.transport.loseConnection()
    late = await lab.connect(server)  # the kernel accepts
    late.send(("PING",))
    await lab.sleep(0.1)
    server.resume()
    assert await other.next() in (1, 2)
    assert await late.next() == b"PONG"
    assert await late("GET", "n") == b"2"


async def test_a_killed_server_ends_its_links_and_refuses_new_ones(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    await link("SET", "a", 1)
    run_id = (await lab.info(link, "server"))["run_id"]
    server.kill()

    async def over() -> bool:
        return link.over

    await lab.until(over)
    await server.restart()
    link = await lab.connect(server)
    assert await link("GET", "a") is None
    assert (await lab.info(link, "server"))["run_id"] != run_id


async def test_a_durable_server_has_its_data_when_it_is_back(lab: Lab) -> None:
    [server] = await lab.make(durable=True)
    link = await lab.connect(server)
    await link.pipeline(("SET", "a", 1), ("INCR", "a"), ("SET", "b", 1, "PX", 100000))
    server.kill()
    await server.restart(keep=True)
    link = await lab.connect(server)
    await lab.until(lambda: lab.loaded(link))
    assert await link("GET", "a") == b"2"
    assert await link("PTTL", "b") > 0
