"""WATCH, MULTI and EXEC as a fence."""

from __future__ import annotations

import hiredis
import pytest

from tests.contract.lab import Lab, Word, code


async def test_a_transaction_is_run_as_one(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    replies = await link.pipeline(
        ("MULTI",), ("SET", "a", 1), ("INCR", "a"), ("HGET", "a", "x"), ("EXEC",)
    )
    assert replies[:4] == [b"OK", b"QUEUED", b"QUEUED", b"QUEUED"]
    done, number, failed = replies[4]
    assert (done, number) == (b"OK", 2)
    assert code(failed) == "WRONGTYPE"


async def test_settings_and_messages_within_a_transaction(lab: Lab) -> None:
    [server] = await lab.make()
    link, listener = [await lab.connect(server) for _ in range(2)]
    await listener("SUBSCRIBE", "c")
    replies = await link.pipeline(
        ("MULTI",),
        ("SLAVEOF", "NO", "ONE"),
        ("CONFIG", "SET", "replica-read-only", "yes"),
        ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        ("PUBLISH", "c", "m"),
        ("EXEC",),
    )
    assert replies[-1] == [b"OK", b"OK", 0, 1]
    assert await listener.next() == [b"message", b"c", b"m"]


@pytest.mark.parametrize(
    ("command", "aborts"),
    [
        (("SET", "lock", "other"), True),
        (("SET", "lock", "mine"), True),
        (("DEL", "lock"), True),
        (("PEXPIRE", "lock", "90000"), True),
        (("FLUSHALL",), True),
        (("GET", "lock"), False),
        (("SET", "other", "1"), False),
        (("DEL", "nothing"), False),
        (("SET", "lock", "x", "NX"), False),
    ],
)
async def test_what_spoils_a_watched_key(lab: Lab, command: tuple[Word, ...], aborts: bool) -> None:
    [server] = await lab.make()
    link, other = [await lab.connect(server) for _ in range(2)]
    await link.pipeline(("SET", "lock", "mine"), ("WATCH", "lock"))
    await other(*command)
    *_, outcome = await link.pipeline(("MULTI",), ("INCR", "n"), ("EXEC",))
    assert outcome == (None if aborts else [1])


async def test_a_watched_key_that_expires(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    await link.pipeline(("SET", "lock", "mine", "PX", 60), ("WATCH", "lock"))
    await lab.sleep(0.08)
    *_, outcome = await link.pipeline(("MULTI",), ("INCR", "n"), ("EXEC",))
    assert outcome is None


async def test_a_key_that_is_made_spoils_who_watched_for_it(lab: Lab) -> None:
    [server] = await lab.make()
    link, other = [await lab.connect(server) for _ in range(2)]
    await link("WATCH", "lock")
    await other("SET", "lock", 1)
    *_, outcome = await link.pipeline(("MULTI",), ("INCR", "n"), ("EXEC",))
    assert outcome is None
    *_, outcome = await link.pipeline(("MULTI",), ("INCR", "n"), ("EXEC",))
    assert outcome == [1]  # EXEC has ended the watching


@pytest.mark.parametrize("ended_by", [("UNWATCH",), ("MULTI", "DISCARD")])
async def test_watching_ends(lab: Lab, ended_by: tuple[str, ...]) -> None:
    [server] = await lab.make()
    link, other = [await lab.connect(server) for _ in range(2)]
    await link("WATCH", "lock")
    await link.pipeline(*[(word,) for word in ended_by])
    await other("SET", "lock", 1)
    *_, outcome = await link.pipeline(("MULTI",), ("INCR", "n"), ("EXEC",))
    assert outcome == [1]


@pytest.mark.parametrize("bad", [("NOSUCH",), ("GET",), ("SET", "a")])
async def test_a_command_that_was_refused_spoils_the_transaction(
    lab: Lab, bad: tuple[str, ...]
) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    _, refused, _, outcome = await link.pipeline(("MULTI",), bad, ("INCR", "n"), ("EXEC",))
    assert isinstance(refused, hiredis.ReplyError)
    assert code(outcome) == "EXECABORT"
    assert await link("GET", "n") is None
    assert await link("EXISTS", "n") == 0  # it is over


async def test_out_of_turn(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert code(await link("EXEC")) == "ERR"
    assert code(await link("DISCARD")) == "ERR"
    await link("MULTI")
    assert code(await link("MULTI")) == "ERR"
    assert code(await link("WATCH", "a")) == "ERR"
    await link("DISCARD")
    assert await link("PING") == b"PONG"
