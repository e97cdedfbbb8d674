"""ScriptCache: the scripts that this client has sent, so that another master can be given them.

A server knows a script by its SHA1 once it was loaded there; that is not replicated (Redis 7) and
does not survive a restart. What EVALSHA names is then sent again by EVAL, which loads it too.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import hiredis
from txredisapi import ResponseError

__all__ = ["ScriptCache"]

_SCRIPT_AT = {"EVAL": 1, "EVAL_RO": 1, "SCRIPT LOAD": 2}
_AGAIN = {"EVALSHA": b"EVAL", "EVALSHA_RO": b"EVAL_RO"}


class ScriptCache:
    """Remembers scripts of `max_bytes` together; of more than that, those that were sent last."""

    def __init__(self, max_bytes: int = 8 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._scripts: OrderedDict[bytes, bytes] = OrderedDict()

    def note(self, name: str, packed: bytes) -> None:
        """Remember the script that is in a command; forget all for SCRIPT FLUSH.

        `name` is the command's, with its subcommand; `packed` as it goes over the wire.
        """
        if name == "SCRIPT FLUSH":
            self._scripts.clear()
            self._bytes = 0
        place = _SCRIPT_AT.get(name)
        words = [] if place is None else _unpack(packed)
        if place is not None and len(words) > place:
            self._remember(words[place])

    def again(self, name: str, packed: bytes, error: object) -> list[bytes] | None:
        """The words to send instead of a command that failed with this; None when there are none.

        There are when the server does not know the script and we do. It was not executed then.
        """
        unknown = isinstance(error, ResponseError) and str(error).startswith("NOSCRIPT")
        return self.whole(name, packed) if unknown else None

    def whole(self, name: str, packed: bytes) -> list[bytes] | None:
        """The words of a command with the script that it names; None when there are none."""
        if name not in _AGAIN:
            return None
        _, sha1, *rest = _unpack(packed)
        script = self._scripts.get(sha1.lower())
        return None if script is None else [_AGAIN[name], script, *rest]

    def _remember(self, script: bytes) -> None:
        sha1 = hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
        if sha1 not in self._scripts:
            self._bytes += len(script)
        self._scripts[sha1] = script
        self._scripts.move_to_end(sha1)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._scripts.popitem(last=False)[1])


def _unpack(packed: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(packed)
    words: list[bytes] = reader.gets()
    return words
