"""Scripts: the twins of the client's Lua scripts, by their exact text.

A text that has no twin here is a LookupError: who changes a script has to change its twin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from txharedis import lock, pending

from .resp import MASTERDOWN, NIL, bulk, error, integer, many

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["TWINS", "Run", "Twin", "sha1_of", "twin_of"]


class Refused(Exception):
    """A command failed, and with it the script; the argument is the encoded error."""


class Run:
    """One run of a script: commands are run in its own database, as its caller may run them."""

    def __init__(self, server: Server, link: Connection, sha1: str) -> None:
        self.server = server
        self.sha1 = sha1
        self.db = link.db
        self.link = link

    def call(self, *words: bytes) -> bytes:
        """redis.call: the encoded reply; an error ends the script."""
        reply = self.attempt(*words)
        if reply[0] == 45:  # "-"
            raise Refused(reply[:-2] + f" script: {self.sha1}, on @user_script:1.\r\n".encode())
        return reply

    def attempt(self, *words: bytes) -> bytes:
        """redis.pcall: the encoded reply, which may be an error."""
        if words[0].lower() == b"select":
            self.db = int(words[1])
            return b"+OK\r\n"
        link = self.link
        before, link.db = link.db, self.db
        try:
            return self.server.call(link, list(words))
        finally:
            link.db = before

    def get(self, key: bytes) -> bytes | None:
        """redis.call("get", key) of a string."""
        value = self.server.keys.find(self.db, key)
        assert value is None or isinstance(value, bytes)
        return value

    def hget(self, key: bytes, field: bytes) -> bytes | None:
        """redis.call("hget", key, field) of a hash."""
        value = self.server.keys.find(self.db, key)
        found: bytes | None = (value or {}).get(field)
        return found


#: Takes the run, KEYS and ARGV; returns the encoded reply.
Twin = Callable[[Run, list[bytes], list[bytes]], bytes]


def _acquire(run: Run, keys: list[bytes], args: list[bytes]) -> bytes:
    vote = int(run.get(keys[1]) or 0)
    epoch = int(run.hget(keys[2], b"epoch") or 0)
    held = int(run.get(keys[0]) is not None)
    asked = int(args[2])
    if held or asked <= vote or asked <= epoch:
        return many([integer(0), integer(vote), integer(epoch), integer(held)])
    run.call(b"set", keys[1], args[2])
    run.call(b"set", keys[0], args[0], b"PX", args[1])
    return many([integer(1), integer(asked), integer(epoch), integer(0)])


def _release(run: Run, keys: list[bytes], args: list[bytes]) -> bytes:
    return run.call(b"del", keys[0]) if run.get(keys[0]) == args[0] else NIL


def _count(run: Run, keys: list[bytes], args: list[bytes]) -> bytes:
    run.call(b"select", args[0])
    return run.call(b"incrby", keys[0], args[1])


def sha1_of(text: bytes) -> str:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()


#: By the script's text.
TWINS: dict[bytes, Twin] = {
    lock._ACQUIRE: _acquire,
    lock._RELEASE: _release,
    pending.COUNT_SCRIPT: _count,
}
_SHA1S: dict[bytes, str] = {}


def twin_of(text: bytes) -> tuple[str, Twin]:
    """The SHA1 and the twin of a script."""
    twin = TWINS.get(text)
    if twin is None:
        raise LookupError(f"no twin of this script in txharedis.testing.simulation: {text!r}")
    sha1 = _SHA1S.get(text)
    if sha1 is None:
        sha1 = _SHA1S[text] = sha1_of(text)
    return sha1, twin


def run_script(
    server: Server, link: Connection, sha1: str, twin: Twin, words: list[bytes]
) -> bytes:
    """EVAL and EVALSHA, from the number of keys on."""
    count = int(words[2])
    keys, args = words[3 : 3 + count], words[3 + count :]
    try:
        return twin(Run(server, link, sha1), keys, args)
    except Refused as refused:
        reply: bytes = refused.args[0]
        return reply


def evaluate(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if server.stale:
        return MASTERDOWN
    sha1, twin = twin_of(words[1])
    server.scripts[sha1] = twin
    return run_script(server, link, sha1, twin, words)


def evaluate_sha(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if server.stale:
        return MASTERDOWN
    sha1 = words[1].decode().lower()
    twin = server.scripts.get(sha1)
    if twin is None:
        return error("NOSCRIPT No matching script. Please use EVAL.")
    return run_script(server, link, sha1, twin, words)


def script(server: Server, link: Connection, words: list[bytes]) -> bytes:
    verb = words[1].upper()
    if verb == b"LOAD" and len(words) == 3:
        sha1, twin = twin_of(words[2])
        server.scripts[sha1] = twin
        return bulk(sha1.encode())
    if verb == b"EXISTS":
        return many([integer(word.decode().lower() in server.scripts) for word in words[2:]])
    if verb == b"FLUSH":
        server.scripts.clear()
        return b"+OK\r\n"
    return error(f"ERR unknown subcommand '{words[1].decode()}'. Try SCRIPT HELP.")
