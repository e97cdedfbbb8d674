"""Scripts: the twins of the client's Lua scripts, by their exact text.

A text that has no twin here is a LookupError: who changes a script has to change its twin.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from txharedis import counter, journal, lock

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


# The journal. Replies are kept as they are encoded; a read, and what was given up, is kept as None.

_GONE, _SETTLED, _NOT_YET = (many([integer(0)]), many([integer(-1)]), many([integer(-2)]))
_MOST = 2**53
_DENIED = b"-READONLY"


def _journal(run: Run, keys: list[bytes], args: list[bytes]) -> bytes:
    name = keys[0]
    number, settled, after = int(args[0]), int(args[1]), int(args[2])
    life, own = args[4], args[6]
    run.call(b"select", own)
    if run.server.keys.find(run.db, name).__class__ not in (dict, type(None)):
        run.call(b"hmget", name, b"floor")  # which is an error
    found = run.hget(name, b"floor")
    stored = run.hget(name, args[0])
    kept: list[Any] | None = None
    last: int | None
    if found is None:
        if args[3] == b"1":
            return _GONE
        if after > 0:
            return _NOT_YET
        run.call(b"hset", name, b"last", args[1])
        run.call(b"pexpire", name, b"%d" % (journal.JOURNAL_LIFE * 1000))
        run.call(b"hset", name, b"floor", args[1])
        floor, last, life = settled, None, b"0"
    else:
        floor, last = int(found), int(run.hget(name, b"last") or 0)
        if number <= floor:
            return _SETTLED
        if stored is not None:
            kept = marshal.loads(stored)
        elif number <= last:
            return _GONE
        elif last < after:
            return _NOT_YET
    run.call(b"select", args[5])
    replies: list[bytes] = []
    keep: list[Any] = []
    odd: list[bytes] = []
    writes = 0
    at = 7
    while at < len(args):
        words = int(args[at])
        command = args[at + 1 : at + 1 + abs(words)]
        reply, store = NIL, None
        if words > 0 and kept is not None:
            store = kept[len(replies)]
            if store.__class__ is tuple:
                odd += [integer(len(replies) + 1), bulk(store[0])]
                reply = integer(0)
            else:
                reply = store
        elif words > 0:
            if not writes and last is not None and command[0].lower().endswith(b"publish"):
                run.call(b"select", own)
                run.call(b"hset", name, b"last", b"%d" % last)
                run.call(b"select", args[5])
            reply = store = run.attempt(*command)
            writes += 1
            if reply.startswith(_DENIED):
                return reply
            if reply[0] == 58 and abs(int(reply[1:-2])) >= _MOST:  # ":"
                exact = _read_again(run, command)
                odd += [integer(len(replies) + 1), bulk(exact)]
                reply, store = integer(0), (exact,)
        elif words < 0:
            reply = run.attempt(*command)
        replies.append(reply)
        keep.append(store)
        at += 1 + abs(words)
    run.call(b"select", own)
    ran = 1
    if kept is not None:
        left = int(run.call(b"pttl", name)[1:-2])
        life = b"%d" % (left if left > 0 else journal.JOURNAL_LIFE * 1000)
        stands = run.attempt(b"pexpire", name, life)
        ran = 3 if stands[0] == 45 else 2
    else:
        _keep(run, name, number, keep, floor, settled)
        if life != b"0":
            run.attempt(b"pexpire", name, life)
        if len(keys) > 1 and writes:
            run.attempt(b"incrby", keys[1], b"%d" % writes)
    head = many([integer(ran), *odd]) if odd else integer(ran)
    return many([head, *replies])


def _read_again(run: Run, command: list[bytes]) -> bytes:
    """The exact integer that a command has written, or that nobody knows it."""
    verb = command[0].lower()
    exact: bytes | None = None
    if verb == b"hincrby":
        exact = run.hget(command[1], command[2])
    elif verb.startswith((b"incr", b"decr")):
        exact = run.get(command[1])
    return journal.INEXACT if exact is None else exact


def _keep(run: Run, name: bytes, number: int, keep: list[Any], floor: int, settled: int) -> None:
    """Keep the replies of a batch, and forget those up to which all is settled."""
    data = marshal.dumps(keep)
    if len(data) > journal.KEPT_BYTES:
        left = journal.KEPT_BYTES
        for place, reply in enumerate(keep):
            size = len(marshal.dumps(reply))
            if size > left:
                keep[place] = (journal.TOO_LARGE,)
            else:
                left -= size
        data = marshal.dumps(keep)
    upto = min(settled, floor + 1000)
    new = max(floor, upto)
    word = b"%d" % number
    run.attempt(b"hset", name, word, data, b"floor", b"%d" % new, b"last", word)
    if upto > floor:
        run.attempt(b"hdel", name, *[b"%d" % old for old in range(floor + 1, upto + 1)])


def sha1_of(text: bytes) -> str:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()


#: By the script's text.
TWINS: dict[bytes, Twin] = {
    lock._ACQUIRE: _acquire,
    lock._RELEASE: _release,
    counter.COUNT_SCRIPT: _count,
    journal.JOURNAL_SCRIPT: _journal,
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
