"""Replies as they go over the wire (RESP2)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "EMPTY",
    "MASTERDOWN",
    "NIL",
    "NIL_LIST",
    "OK",
    "WRONGTYPE",
    "bulk",
    "bulks",
    "error",
    "integer",
    "many",
]

OK = b"+OK\r\n"
NIL = b"$-1\r\n"
NIL_LIST = b"*-1\r\n"
EMPTY = b"*0\r\n"
WRONGTYPE = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
MASTERDOWN = (
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n"
)
_SMALL = [b":%d\r\n" % number for number in range(32)]


def integer(number: int) -> bytes:
    return _SMALL[number] if 0 <= number < 32 else b":%d\r\n" % number


def bulk(value: bytes | None) -> bytes:
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def bulks(values: Sequence[bytes | None]) -> bytes:
    return many([bulk(value) for value in values])


def many(replies: Sequence[bytes]) -> bytes:
    """A list of replies that are encoded already."""
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))


def error(text: str) -> bytes:
    return b"-%b\r\n" % text.encode()
