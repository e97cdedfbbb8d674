"""Commands that block: their timeouts, and what puts back what they took."""

from __future__ import annotations

import pytest

from txharedis.commands import describe
from txharedis.dedicated.waits import at_timeout, new_entries, timeout_of, undo


def words(text: str) -> list[bytes]:
    return text.encode().split()


@pytest.mark.parametrize(
    ("command", "seconds", "replaced"),
    [
        ("BLPOP q 5", 5, "BLPOP q 1.500"),
        ("BLPOP q q2 0.25", 0.25, "BLPOP q q2 1.500"),
        ("brpop q 0", 0, "brpop q 1.500"),
        ("BRPOPLPUSH a b 7", 7, "BRPOPLPUSH a b 1.500"),
        ("BLMOVE a b LEFT RIGHT 7", 7, "BLMOVE a b LEFT RIGHT 1.500"),
        ("BLMPOP 7 1 q LEFT COUNT 3", 7, "BLMPOP 1.500 1 q LEFT COUNT 3"),
        ("BZPOPMIN z 7", 7, "BZPOPMIN z 1.500"),
        ("BZPOPMAX z 7", 7, "BZPOPMAX z 1.500"),
        ("BZMPOP 7 1 q MIN", 7, "BZMPOP 1.500 1 q MIN"),
        ("XREAD BLOCK 5000 STREAMS s $", 5, "XREAD BLOCK 1500 STREAMS s $"),
        ("xread count 2 block 5000 streams s $", 5, "xread count 2 block 1500 streams s $"),
        (
            "XREADGROUP GROUP block c NOACK BLOCK 1 STREAMS s >",
            0.001,
            "XREADGROUP GROUP block c NOACK BLOCK 1500 STREAMS s >",
        ),
        ("WAIT 2 250", 0.25, "WAIT 2 1500"),
        ("WAITAOF 1 2 250", 0.25, "WAITAOF 1 2 1500"),
        # What no server would take is left to it.
        ("BLPOP q soon", None, None),
        ("BLPOP q -1", None, None),
        ("BLPOP q inf", None, None),
        ("BLPOP q nan", None, None),
        ("BLMPOP", None, None),
        ("WAIT 2", None, None),
        ("XREAD STREAMS s BLOCK 1 0", None, None),
        ("XREAD BLOCK", None, None),
        ("XREAD NOVELTY BLOCK 1 STREAMS s 0", None, None),
    ],
)
def test_timeouts(command: str, seconds: float | None, replaced: str | None) -> None:
    given = words(command)
    timeout = timeout_of(given[0].decode().upper(), given)
    if seconds is None or replaced is None:
        assert timeout is None
    else:
        assert timeout is not None
        assert timeout.seconds == seconds
        assert timeout.replaced(given, 1.5) == words(replaced)
        # Never 0, which would be for ever.
        assert timeout.replaced(given, 1e-9)[timeout.index] in (b"0.001", b"1")


def test_every_blocking_command_of_the_table_has_its_timeout() -> None:
    from txharedis._command_table import COMMANDS

    shapes = {
        "BLMPOP": "BLMPOP 1 1 q LEFT",
        "BZMPOP": "BZMPOP 1 1 q MIN",
        "XREAD": "XREAD BLOCK 1 STREAMS s 0",
        "XREADGROUP": "XREADGROUP GROUP g c BLOCK 1 STREAMS s >",
        "WAITAOF": "WAITAOF 1 1 1",
    }
    blocking = [name for name, flags in COMMANDS.items() if "blocking" in flags.split()]
    assert blocking
    for name in blocking:
        command = words(shapes.get(name, f"{name} 1 1"))
        assert describe(command).blocking
        assert timeout_of(name, command) is not None, name


def test_answers_at_the_end_of_the_time() -> None:
    assert at_timeout("BLPOP") is None
    assert at_timeout("XREAD") is None
    assert at_timeout("WAIT") == 0
    assert at_timeout("WAITAOF") == [0, 0]


@pytest.mark.parametrize(
    ("command", "places"),
    [
        ("XREAD BLOCK 0 STREAMS a b c $ 0 $", {7: b"a", 9: b"c"}),
        ("xread block 0 streams $ $", {5: b"$"}),
        ("XREAD BLOCK 0 STREAMS a 1-1", {}),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", {}),
        ("BLPOP $ 0", {}),
        ("XREAD BLOCK 0", {}),
        ("XREAD BLOCK 0 STREAMS", {}),
    ],
)
def test_where_new_entries_are_asked_for(command: str, places: dict[int, bytes]) -> None:
    given = words(command)
    assert new_entries(given[0].decode().upper(), given) == places


@pytest.mark.parametrize(
    ("command", "reply", "back"),
    [
        ("BLPOP p q 0", [b"q", b"x"], "LPUSH q x"),
        ("BRPOP p q 0", [b"q", b"x"], "RPUSH q x"),
        ("BLMPOP 0 2 p q LEFT COUNT 3", [b"q", [b"1", b"2", b"3"]], "LPUSH q 3 2 1"),
        ("BLMPOP 0 1 q right", [b"q", [b"3", b"2"]], "RPUSH q 2 3"),
        ("BZPOPMIN z 0", [b"z", b"m", b"1.5"], "ZADD z NX 1.5 m"),
        ("BZPOPMAX z 0", [b"z", b"m", b"1"], "ZADD z NX 1 m"),
        ("BZMPOP 0 1 z MIN", [b"z", [[b"m", b"1"], [b"n", b"2"]]], "ZADD z NX 1 m 2 n"),
        ("BLMOVE a b LEFT RIGHT 0", b"x", None),
        ("BRPOPLPUSH a b 0", b"x", None),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", [[b"s", []]], None),
        ("BLPOP q 0", None, None),
    ],
)
def test_what_puts_back_what_was_taken(command: str, reply: object, back: str | None) -> None:
    given = words(command)
    expected = None if back is None else words(back)
    assert undo(given[0].decode().upper(), given, reply) == expected
