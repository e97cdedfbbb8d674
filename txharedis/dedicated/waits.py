"""Commands that block: where their timeout stands, what they answer after it, what undoes them.

Commands are lists of bytes here, as they go over the wire.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from txharedis.values import Value

__all__ = ["Timeout", "at_timeout", "new_entries", "timeout_of", "undo"]

Words = Sequence[bytes]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Timeout(Value):
    """The timeout of one command.

    index    where it stands among its words
    seconds  its value; 0 is for ever
    whole    whether it is given in whole milliseconds, and not in seconds
    """

    index: int
    seconds: float
    whole: bool

    def replaced(self, words: Words, seconds: float) -> list[bytes]:
        """The command with another timeout; one above 0 stays above it."""
        value = (
            b"%d" % max(1, math.ceil(seconds * 1000))
            if self.whole
            else b"%.3f" % max(0.001, seconds)
        )
        return [*words[: self.index], value, *words[self.index + 1 :]]


# Where the timeouts stand (-1 is the last word), and whether they are in milliseconds.
_PLACES: Mapping[str, tuple[int, bool]] = {
    "BLMOVE": (-1, False),
    "BLMPOP": (1, False),
    "BLPOP": (-1, False),
    "BRPOP": (-1, False),
    "BRPOPLPUSH": (-1, False),
    "BZMPOP": (1, False),
    "BZPOPMAX": (-1, False),
    "BZPOPMIN": (-1, False),
    "WAIT": (2, True),
    "WAITAOF": (3, True),
}
# The options that may stand before STREAMS, with the number of their values.
_STREAM_OPTIONS: Mapping[bytes, int] = {b"COUNT": 1, b"NOACK": 0, b"GROUP": 2, b"CLAIM": 1}


def timeout_of(name: str, words: Words) -> Timeout | None:
    """The timeout of a blocking command; None when it is none that a server would take."""
    if name in ("XREAD", "XREADGROUP"):
        index, whole = _block(words), True
    else:
        index, whole = _PLACES.get(name, (None, False))
    if index is None:
        return None
    index %= max(1, len(words))
    try:
        value = float(words[index])
    except (ValueError, IndexError):
        return None
    if not (0 <= value < math.inf):
        return None
    return Timeout(index, value / 1000 if whole else value, whole)


def _block(words: Words) -> int | None:
    index = 1
    while index < len(words):
        word = words[index].upper()
        if word == b"BLOCK":
            return index + 1
        if word not in _STREAM_OPTIONS:
            return None
        index += 1 + _STREAM_OPTIONS[word]
    return None


def at_timeout(name: str) -> object:
    """What a command answers when its time is over."""
    return {"WAIT": 0, "WAITAOF": [0, 0]}.get(name)


def new_entries(name: str, words: Words) -> Mapping[int, bytes]:
    """Where an XREAD asks for what comes from now on: the index of each `$`, and its stream."""
    if name != "XREAD":
        return {}
    upper = [word.upper() for word in words]
    first = upper.index(b"STREAMS") + 1 if b"STREAMS" in upper else len(words)
    half = (len(words) - first) // 2
    return {
        first + half + number: words[first + number]
        for number in range(half)
        if words[first + half + number] == b"$"
    }


def undo(name: str, words: Words, reply: object) -> list[bytes] | None:
    """The command that puts back what this one took; None where it took nothing away.

    BLMOVE and BRPOPLPUSH leave the item in their destination, and XREADGROUP in the list of
    pending entries: nothing is lost with the reply.
    """
    match name, reply:
        case "BLPOP", [bytes(key), bytes(item)]:
            return [b"LPUSH", key, item]
        case "BRPOP", [bytes(key), bytes(item)]:
            return [b"RPUSH", key, item]
        case "BLMPOP", [bytes(key), list(items)]:
            push = b"LPUSH" if _side(words) == b"LEFT" else b"RPUSH"
            return [push, key, *reversed(items)]
        # NX: who has added the member again meanwhile knows a newer score.
        case (("BZPOPMIN" | "BZPOPMAX"), [bytes(key), bytes(member), bytes(score)]):
            return [b"ZADD", key, b"NX", score, member]
        case "BZMPOP", [bytes(key), list(members)]:
            pairs = [word for member, score in members for word in (score, member)]
            return [b"ZADD", key, b"NX", *pairs]
    return None


def _side(words: Words) -> bytes:
    return words[3 + int(words[2])].upper()
