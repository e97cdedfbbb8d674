"""The journal's script does what its twin does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hiredis

from tests.contract.lab import Lab, Link, Word, code
from txharedis.journal import JOURNAL_SCRIPT, JOURNAL_SHA1, KEPT_BYTES

JOURNAL, COUNT = "haredis:journal:x", "haredis:opcounter"

Command = tuple[Word, ...] | None


def batch(
    number: int,
    *commands: Command | list[Word],
    settled: int = 0,
    after: int = 0,
    again: bool = False,
    life: int = 0,
    db: int = 0,
    counting: bool = True,
) -> Sequence[Word]:
    """One batch. A command that is a list is a read; None is one that was given up."""
    keys = [JOURNAL, COUNT] if counting else [JOURNAL]
    words: list[Word] = []
    for command in commands:
        if command is None:
            words.append(0)
        else:
            words += [-len(command) if isinstance(command, list) else len(command), *command]
    numbers = (number, settled, after, int(again), life, db, 15)
    return ("EVALSHA", JOURNAL_SHA1, len(keys), *keys, *numbers, *words)


async def loaded(lab: Lab) -> tuple[Any, Link]:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert await link("SCRIPT", "LOAD", JOURNAL_SCRIPT) == JOURNAL_SHA1
    return server, link


async def test_a_script_that_is_not_there(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert code(await link(*batch(1, ("INCR", "n")))) == "NOSCRIPT"
    assert await link("GET", "n") is None
    whole = ("EVAL", JOURNAL_SCRIPT, *batch(1, ("INCR", "n"))[2:])
    assert await link(*whole) == [1, 1]
    assert await link(*batch(1, ("INCR", "n"))) == [2, 1]


async def test_what_runs_now_and_what_was_kept(lab: Lab) -> None:
    _, link = await loaded(lab)
    commands: list[Command | list[Word]] = [
        ("SET", "s", "1"),
        ("INCR", "n"),
        ("RPUSH", "l", "a", "b"),
        ["LRANGE", "l", 0, -1],
        None,
        ("SET", "s", "2", "NX"),
        ("HSET", "h", "f", "v"),
        ("DEL", "nothing"),
    ]
    said = [b"OK", 1, 2, [b"a", b"b"], None, None, 1, 0]
    assert await link(*batch(1, *commands)) == [1, *said]
    assert await link(*batch(1, *commands)) == [2, *said]
    await link("RPUSH", "l", "c")
    said[3] = [b"a", b"b", b"c"]  # reads are run again
    assert await link(*batch(1, *commands, again=True)) == [2, *said]
    # One that nobody waits for any more says nothing, and the others keep their places.
    commands[1] = None
    said[1] = None
    assert await link(*batch(1, *commands)) == [2, *said]
    await link("SELECT", 15)
    assert await link("GET", COUNT) == b"6"


async def test_databases_and_no_count(lab: Lab) -> None:
    _, link = await loaded(lab)
    assert await link(*batch(1, ("SET", "s", "3"), db=3, counting=False)) == [1, b"OK"]
    assert await link("GET", "s") is None
    await link("SELECT", 3)
    assert await link("GET", "s") == b"3"
    await link("SELECT", 15)
    assert await link("EXISTS", COUNT) == 0
    assert await link("EXISTS", JOURNAL) == 1


async def test_errors_of_one_command(lab: Lab) -> None:
    _, link = await loaded(lab)
    await link("SET", "text", "x")
    for ran in (1, 2):
        reply = await link(
            *batch(1, ("INCR", "text"), ("INCR", "n"), ("LLEN", "text"), ("NO", "such"))
        )
        head, one, two, three, four = reply
        assert (head, two) == (ran, 1)
        assert code(one) == "ERR"
        assert "not an integer" in str(one)
        assert code(three) == "WRONGTYPE"
        assert isinstance(four, hiredis.ReplyError)
        assert "script" in str(four)


async def test_floor_last_and_after(lab: Lab) -> None:
    _, link = await loaded(lab)
    assert await link(*batch(2, ("INCR", "n"), after=1)) == [-2]
    assert await link("GET", "n") is None
    assert await link(*batch(1, ("INCR", "n"))) == [1, 1]
    assert await link(*batch(3, ("INCR", "n"), after=2)) == [-2]
    assert await link(*batch(2, ("INCR", "n"), after=1)) == [1, 2]
    assert await link(*batch(5, ("INCR", "n"), settled=1)) == [1, 3]
    assert await link(*batch(1, ("INCR", "n"))) == [-1]
    assert await link(*batch(2, ("INCR", "n"))) == [2, 2]
    assert await link(*batch(4, ("INCR", "n"))) == [0]  # there was a newer one
    assert await link(*batch(6, ("INCR", "n"), settled=5, after=5)) == [1, 4]
    for number in (1, 2, 3, 4, 5):
        assert await link(*batch(number, ("INCR", "n"))) == [-1]
    assert await link("GET", "n") == b"4"
    await link("SELECT", 15)
    assert await link("HMGET", JOURNAL, "floor", "last") == [b"5", b"6"]
    assert await link("HLEN", JOURNAL) == 3


async def test_the_floor_does_not_sink(lab: Lab) -> None:
    _, link = await loaded(lab)
    assert await link(*batch(5, ("INCR", "n"), settled=4)) == [1, 1]
    assert await link(*batch(3, ("INCR", "n"))) == [-1]
    assert await link(*batch(6, ("INCR", "n"), settled=2)) == [1, 2]
    assert await link(*batch(4, ("INCR", "n"))) == [-1]
    # It rises by a thousand at most, so that forgetting does not take long.
    assert await link(*batch(3000, ("INCR", "n"), settled=2999)) == [1, 3]
    await link("SELECT", 15)
    assert await link("HMGET", JOURNAL, "floor", "last") == [b"1004", b"3000"]


async def test_a_journal_that_is_gone(lab: Lab) -> None:
    _, link = await loaded(lab)
    assert await link(*batch(1, ("INCR", "n"))) == [1, 1]
    await link("FLUSHALL")
    assert await link(*batch(1, ("INCR", "n"), again=True)) == [0]
    assert await link("GET", "n") is None
    assert await link(*batch(2, ("INCR", "n"))) == [1, 1]


async def test_its_life(lab: Lab) -> None:
    _, link = await loaded(lab)
    await link(*batch(1, ("INCR", "n")))
    other = await lab.connect(_, ("SELECT", 15))
    assert 3_500_000 < await other("PTTL", JOURNAL) <= 3_600_000
    await link(*batch(2, ("INCR", "n"), life=60_000))
    assert 50_000 < await other("PTTL", JOURNAL) <= 60_000
    await link(*batch(3, ("INCR", "n")))
    assert 50_000 < await other("PTTL", JOURNAL) <= 60_000
    await other("SET", JOURNAL, "text")
    assert "WRONGTYPE" in str(await link(*batch(4, ("INCR", "n"))))


async def test_large_integers(lab: Lab) -> None:
    _, link = await loaded(lab)
    large = 2**53 + 1
    await link("SET", "n", large - 1)
    await link("HSET", "h", "f", -large)
    one: list[Command | list[Word]] = [
        ("INCR", "n"),
        ("HINCRBY", "h", "f", -2),
        ("INCRBY", "small", 2**53 - 1),
    ]
    exact = [1, b"%d" % large, 2, b"-%d" % (large + 2)]
    assert await link(*batch(1, *one)) == [[1, *exact], 0, 0, 2**53 - 1]
    assert await link(*batch(1, *one)) == [[2, *exact], 0, 0, 2**53 - 1]


async def test_replies_that_are_too_large(lab: Lab) -> None:
    _, link = await loaded(lab)
    size = KEPT_BYTES + 10
    await link("SET", "s", "x" * size)
    # (As a write: what is a read is not kept at all.)
    commands: list[Command | list[Word]] = [("INCR", "n"), ("GET", "s"), ("INCR", "n")]
    assert await link(*batch(1, *commands)) == [1, 1, b"x" * size, 2]
    assert await link(*batch(1, *commands)) == [[2, 2, b"large"], 1, 0, 2]


async def test_on_a_replica(lab: Lab) -> None:
    master, replica = await lab.make(2)
    there = await lab.connect(replica, ("SCRIPT", "LOAD", JOURNAL_SCRIPT))
    await lab.follow(there, master)
    assert "READONLY" in str(await there(*batch(1, ("INCR", "n"))))
    here = await lab.connect(master, ("SCRIPT", "LOAD", JOURNAL_SCRIPT))
    here.send(batch(1, ("INCR", "n"), ["GET", "n"], ("RPUSH", "l", "a")), ("WAIT", 1, 10_000))
    assert [await here.next(), await here.next()] == [[1, 1, b"1", 1], 1]
    # A known journal answers on a replica too, though WAIT cannot; what is not in it is refused.
    assert await there(*batch(1, ("INCR", "n"), ["GET", "n"], ("RPUSH", "l", "a"))) == [
        *(3, 1, b"1", 1)
    ]
    assert code(await there(*batch(2, ("INCR", "n")))) == "READONLY"
    # Alone, a replica would take a PUBLISH.
    assert "READONLY" in str(await there(*batch(2, ("PUBLISH", "news", "text"))))
    assert await there("REPLICAOF", "NO", "ONE") == b"OK"
    assert await there(*batch(1, ("INCR", "n"), ["GET", "n"], ("RPUSH", "l", "a"))) == [
        *(2, 1, b"1", 1)
    ]
    assert await there(*batch(2, ("INCR", "n"))) == [1, 2]


async def test_without_the_replicas_that_are_needed(lab: Lab) -> None:
    _, link = await loaded(lab)
    await link(*batch(1, ("INCR", "n")))
    await link("CONFIG", "SET", "min-replicas-to-write", 1)
    ran, reply = await link(*batch(2, ("INCR", "n")))
    assert (ran, code(reply)) == (1, "NOREPLICAS")
    assert await link(*batch(1, ("INCR", "n"))) == [3, 1]
    await link("CONFIG", "SET", "min-replicas-to-write", 0)
    assert await link("GET", "n") == b"1"
