"""The commands on keys.

Each is a function of the server, the connection and the words; it returns the encoded reply, and
tells the server what is to be replicated. A replica runs the same functions on what its master
sends.
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

from .keyspace import Members
from .resp import EMPTY, NIL, OK, WRONGTYPE, bulk, bulks, error, integer

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["number"]

_NOT_AN_INTEGER = error("ERR value is not an integer or out of range")
_SYNTAX = error("ERR syntax error")


def number(word: bytes) -> int | None:
    """A 64-bit integer as the servers read it, None when it is none."""
    try:
        value = int(word)
    except ValueError:
        return None
    return value if b"%d" % value == word and -(2**63) <= value < 2**63 else None


def get(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = server.keys.find(link.db, words[1])
    if value is None or value.__class__ is bytes:
        return bulk(value)
    return WRONGTYPE


def set_(server: Server, link: Connection, words: list[bytes]) -> bytes:
    keys, db, key, value = server.keys, link.db, words[1], words[2]
    if len(words) > 3:
        expire_at: int | None = None
        only_new = only_old = keep = False
        rest = iter(words[3:])
        for word in rest:
            option = word.upper()
            if option == b"NX":
                only_new = True
            elif option == b"XX":
                only_old = True
            elif option == b"KEEPTTL":
                keep = True
            elif option in (b"PX", b"EX", b"PXAT") and expire_at is None:
                amount = next(rest, None)
                if amount is None:
                    return _SYNTAX
                span = number(amount)
                if span is None:
                    return _NOT_AN_INTEGER
                if span <= 0:
                    return error("ERR invalid expire time in 'set' command")
                if option == b"EX":
                    span *= 1000
                expire_at = span if option == b"PXAT" else server.milliseconds() + span
            else:
                return _SYNTAX
        if only_new and only_old:
            return _SYNTAX
        if (only_new or only_old) and (keys.find(db, key, True) is None) is only_old:
            return NIL
        if not keep:
            keys.expires.pop((db, key), None)
        keys.put(db, key, value)
        if expire_at is not None:
            server.expire(db, key, expire_at)
            server.propagate(db, [b"SET", key, value, b"PXAT", b"%d" % expire_at])
        else:
            server.propagate(db, [b"SET", key, value, *([b"KEEPTTL"] if keep else [])])
    else:
        if keys.expires:
            keys.expires.pop((db, key), None)
        keys.put(db, key, value)
        server.propagate(db, words)
    return OK


def incr(server: Server, link: Connection, words: list[bytes]) -> bytes:
    return _add(server, link, words, 1)


def incrby(server: Server, link: Connection, words: list[bytes]) -> bytes:
    amount = number(words[2])
    return _NOT_AN_INTEGER if amount is None else _add(server, link, words, amount)


def _add(server: Server, link: Connection, words: list[bytes], amount: int) -> bytes:
    key = words[1]
    value = server.keys.find(link.db, key, True)
    if value is not None and value.__class__ is not bytes:
        return WRONGTYPE
    before = 0 if value is None else number(value)
    if before is None:
        return _NOT_AN_INTEGER
    after = before + amount
    if not -(2**63) <= after < 2**63:
        return error("ERR increment or decrement would overflow")
    server.keys.put(link.db, key, b"%d" % after)
    server.propagate(link.db, words)
    return integer(after)


def append(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = server.keys.find(link.db, words[1], True)
    if value is not None and value.__class__ is not bytes:
        return WRONGTYPE
    after = (value or b"") + words[2]
    server.keys.put(link.db, words[1], after)
    server.propagate(link.db, words)
    return integer(len(after))


def strlen(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = server.keys.find(link.db, words[1])
    if value is not None and value.__class__ is not bytes:
        return WRONGTYPE
    return integer(len(value or b""))


def mget(server: Server, link: Connection, words: list[bytes]) -> bytes:
    found = [server.keys.find(link.db, key) for key in words[1:]]
    return bulks([value if value.__class__ is bytes else None for value in found])


def delete(server: Server, link: Connection, words: list[bytes]) -> bytes:
    keys, db = server.keys, link.db
    count = 0
    for key in words[1:]:
        if keys.find(db, key, True) is not None:
            count += keys.remove(db, key)
    if count:
        server.propagate(db, words)
    return integer(count)


def exists(server: Server, link: Connection, words: list[bytes]) -> bytes:
    return integer(sum(server.keys.find(link.db, key) is not None for key in words[1:]))


def type_(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = server.keys.find(link.db, words[1])
    names = {bytes: b"string", dict: b"hash", list: b"list", Members: b"set"}
    return b"+%b\r\n" % (b"none" if value is None else names[value.__class__])


def pexpire(server: Server, link: Connection, words: list[bytes]) -> bytes:
    amount = number(words[2])
    if amount is None:
        return _NOT_AN_INTEGER
    unit = 1000 if words[0].upper() == b"EXPIRE" else 1
    return _expire_at(server, link, words[1], server.milliseconds() + amount * unit)


def pexpireat(server: Server, link: Connection, words: list[bytes]) -> bytes:
    moment = number(words[2])
    if moment is None:
        return _NOT_AN_INTEGER
    return _expire_at(server, link, words[1], moment)


def _expire_at(server: Server, link: Connection, key: bytes, moment: int) -> bytes:
    keys, db = server.keys, link.db
    if keys.find(db, key, True) is None:
        return integer(0)
    if moment <= server.milliseconds() and server.following is None:
        keys.remove(db, key)
        server.propagate(db, [b"DEL", key])
    else:
        server.expire(db, key, moment)
        keys.touch(db, key)
        server.propagate(db, [b"PEXPIREAT", key, b"%d" % moment])
    return integer(1)


def persist(server: Server, link: Connection, words: list[bytes]) -> bytes:
    keys, db, key = server.keys, link.db, words[1]
    if keys.find(db, key, True) is None or keys.expires.pop((db, key), None) is None:
        return integer(0)
    keys.touch(db, key)
    server.propagate(db, words)
    return integer(1)


def pttl(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if server.keys.find(link.db, words[1]) is None:
        return integer(-2)
    moment = server.keys.expires.get((link.db, words[1]))
    if moment is None:
        return integer(-1)
    left = max(0, moment - server.milliseconds())
    return integer((left + 500) // 1000 if words[0].upper() == b"TTL" else left)


def keys_(server: Server, link: Connection, words: list[bytes]) -> bytes:
    pattern = words[1]
    db = link.db
    return bulks(
        [
            key
            for key in list(server.keys.dbs[db])
            if (pattern == b"*" or fnmatch.fnmatchcase(key, pattern))
            and not server.keys.is_expired(db, key)
        ]
    )


def dbsize(server: Server, link: Connection, words: list[bytes]) -> bytes:
    return integer(len(server.keys.dbs[link.db]))


def flushall(server: Server, link: Connection, words: list[bytes]) -> bytes:
    server.keys.clear()
    server.propagate(link.db, words)
    return OK


def flushdb(server: Server, link: Connection, words: list[bytes]) -> bytes:
    server.keys.clear(range(link.db, link.db + 1))
    server.propagate(link.db, words)
    return OK


# Containers.


def _container(server: Server, link: Connection, key: bytes, kind: Any, writing: bool) -> Any:
    """The value, an empty one when there is none, None when it is of another kind."""
    value = server.keys.find(link.db, key, writing)
    if value is None:
        return kind()
    return value if value.__class__ is kind else None


def _store(server: Server, link: Connection, words: list[bytes], value: Any) -> None:
    if value:
        server.keys.put(link.db, words[1], value)
    else:
        server.keys.remove(link.db, words[1])
    server.propagate(link.db, words)


def hset(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if len(words) % 2:
        return error(f"ERR wrong number of arguments for '{words[0].decode().lower()}' command")
    value = _container(server, link, words[1], dict, True)
    if value is None:
        return WRONGTYPE
    before = len(value)
    value.update(zip(words[2::2], words[3::2], strict=True))
    _store(server, link, words, value)
    return integer(len(value) - before)


def hdel(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], dict, True)
    if value is None:
        return WRONGTYPE
    count = sum(value.pop(field, None) is not None for field in words[2:])
    if count:
        _store(server, link, words, value)
    return integer(count)


def hincrby(server: Server, link: Connection, words: list[bytes]) -> bytes:
    amount = number(words[3])
    if amount is None:
        return _NOT_AN_INTEGER
    value = _container(server, link, words[1], dict, True)
    if value is None:
        return WRONGTYPE
    before = number(value.get(words[2], b"0"))
    if before is None:
        return error("ERR hash value is not an integer")
    value[words[2]] = b"%d" % (before + amount)
    _store(server, link, words, value)
    return integer(before + amount)


def hget(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], dict, False)
    return WRONGTYPE if value is None else bulk(value.get(words[2]))


def hmget(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], dict, False)
    return WRONGTYPE if value is None else bulks([value.get(field) for field in words[2:]])


def hgetall(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], dict, False)
    if value is None:
        return WRONGTYPE
    return bulks([item for pair in value.items() for item in pair]) if value else EMPTY


def hlen(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], dict, False)
    return WRONGTYPE if value is None else integer(len(value))


def rpush(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], list, True)
    if value is None:
        return WRONGTYPE
    value.extend(words[2:])
    _store(server, link, words, value)
    return integer(len(value))


def lrange(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], list, False)
    if value is None:
        return WRONGTYPE
    first, last = number(words[2]), number(words[3])
    if first is None or last is None:
        return _NOT_AN_INTEGER
    size = len(value)
    first = max(0, first + size if first < 0 else first)
    last = last + size if last < 0 else last
    return bulks(value[first : last + 1] if last >= 0 else [])


def llen(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], list, False)
    return WRONGTYPE if value is None else integer(len(value))


def sadd(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], Members, True)
    if value is None:
        return WRONGTYPE
    before = len(value)
    value.update(dict.fromkeys(words[2:]))
    if len(value) > before:
        _store(server, link, words, value)
    return integer(len(value) - before)


def srem(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], Members, True)
    if value is None:
        return WRONGTYPE
    before = len(value)
    for member in words[2:]:
        value.pop(member, None)
    if len(value) < before:
        _store(server, link, words, value)
    return integer(before - len(value))


def smembers(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], Members, False)
    return WRONGTYPE if value is None else bulks(list(value))


def scard(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], Members, False)
    return WRONGTYPE if value is None else integer(len(value))


def sismember(server: Server, link: Connection, words: list[bytes]) -> bytes:
    value = _container(server, link, words[1], Members, False)
    return WRONGTYPE if value is None else integer(int(words[2] in value))
