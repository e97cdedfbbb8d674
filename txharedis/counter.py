"""The opcounter: how many writes the clients have sent, which tells histories apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from txharedis.interfaces import Args, Link, pack

__all__ = ["COUNT_SCRIPT", "COUNT_SHA1", "Counter", "count_command"]

COUNT_SCRIPT = b"redis.call('select', ARGV[1]) return redis.call('incrby', KEYS[1], ARGV[2])"
COUNT_SHA1 = hashlib.sha1(COUNT_SCRIPT).hexdigest()


def count_command(counter: tuple[str, int], writes: int) -> Args:
    """The command that counts `writes` writes; `counter` is the key and its database.

    With its whole text: on a link of one caller there is no room for asking again when a server has
    lost the script, for that could get between a MULTI and its EXEC.
    """
    key, db = counter
    return ("EVAL", COUNT_SCRIPT, 1, key, db, writes)


class Counter:
    """Counts plain writes, behind them: a node that has the count has the writes too.

    `place` is the key and its database, None for not counting.
    """

    def __init__(self, place: tuple[str, int] | None) -> None:
        self._place = place
        self._denied = 0  # counts to pass over: we may not

    def counting(self, link: Link, writes: int) -> tuple[bytes, _Count] | None:
        """The encoded command that counts these, and who waits for its reply; None for none."""
        if self._place is None or not writes:
            return None
        if self._denied:
            self._denied -= 1  # it is not asked for every time
            return None
        count = _Count(link, self._place, writes, self._count_denied)
        return count.encoded("EVALSHA", COUNT_SHA1), count

    def _count_denied(self) -> None:
        self._denied = 1000


class _Count:
    """One count; a server that has lost the script is given it again."""

    __slots__ = ("_denied", "_link", "_place", "_writes")

    def __init__(
        self, link: Link, place: tuple[str, int], writes: int, denied: Callable[[], None]
    ) -> None:
        self._link = link
        self._place = place
        self._writes = writes
        self._denied = denied

    def encoded(self, command: str, script: str | bytes) -> bytes:
        key, db = self._place
        return pack((command, script, 1, key, db, self._writes))

    def settle(self, reply: object) -> None:
        if isinstance(reply, Exception) and str(reply).startswith("NOSCRIPT"):
            self._link.send([self.encoded("EVAL", COUNT_SCRIPT)], [self])
        elif isinstance(reply, Exception) and "NOPERM" in str(reply):
            self._denied()

    def lost(self) -> None:
        pass
