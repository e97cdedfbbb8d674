"""The commands on the server and on the link: roles, settings, clients, transactions, WAIT."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from .data import number
from .resp import NIL_LIST, OK, bulk, bulks, error, integer, many

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["ALIASES", "SETTINGS"]

SETTINGS = {
    b"replica-read-only": b"yes",
    b"replica-serve-stale-data": b"yes",
    b"replica-priority": b"100",
    b"repl-ping-replica-period": b"10",
    b"repl-backlog-size": b"1048576",
    b"min-replicas-to-write": b"0",
    b"min-replicas-max-lag": b"10",
    b"masterauth": b"",
    b"masteruser": b"",
}
"""What CONFIG knows, and the defaults."""

ALIASES = {
    b"slave-read-only": b"replica-read-only",
    b"slave-serve-stale-data": b"replica-serve-stale-data",
    b"slave-priority": b"replica-priority",
    b"repl-ping-slave-period": b"repl-ping-replica-period",
    b"min-slaves-to-write": b"min-replicas-to-write",
    b"min-slaves-max-lag": b"min-replicas-max-lag",
}
_NUMBERS = {name for name, value in SETTINGS.items() if value.isdigit()}
_FLAGS = {name for name, value in SETTINGS.items() if value in (b"yes", b"no")}


def _unknown(words: list[bytes]) -> bytes:
    verb, what = words[0].decode().upper(), words[1].decode("latin-1")
    return error(f"ERR unknown subcommand '{what}'. Try {verb} HELP.")


def ping(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if link.subscribed:
        return bulks([b"pong", words[1] if len(words) > 1 else b""])
    return bulk(words[1]) if len(words) > 1 else b"+PONG\r\n"


def select(server: Server, link: Connection, words: list[bytes]) -> bytes:
    db = number(words[1])
    if db is None:
        return error("ERR value is not an integer or out of range")
    if not 0 <= db < server.databases:
        return error("ERR DB index is out of range")
    link.db = db
    return OK


def quit_(server: Server, link: Connection, words: list[bytes]) -> bytes:
    link.closing = True
    return OK


def hello(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if len(words) > 1 and words[1] != b"2":
        return error("NOPROTO unsupported protocol version")
    role = b"master" if server.following is None else b"replica"
    named = {b"server": b"redis", b"version": server.version.encode()}
    head = [bulk(word) for pair in named.items() for word in pair]
    tail = [bulk(b"proto"), integer(2), bulk(b"id"), integer(link.number)]
    rest = [bulk(word) for word in (b"mode", b"standalone", b"role", role, b"modules")]
    return many([*head, *tail, *rest, b"*0\r\n"])


def config(server: Server, link: Connection, words: list[bytes]) -> bytes:
    verb = words[1].upper()
    if verb == b"GET" and len(words) == 3:
        pattern = words[2].lower()
        if pattern in SETTINGS:
            return bulks([pattern, server.settings[pattern]])
        found = []
        for name in [*SETTINGS, *ALIASES]:
            if fnmatch.fnmatchcase(name, pattern):
                found += [name, server.settings[ALIASES.get(name, name)]]
        return bulks(found)
    if verb == b"SET" and len(words) == 4:
        shown = words[2].decode("latin-1")
        name = ALIASES.get(words[2].lower(), words[2].lower())
        value = words[3]
        if name not in SETTINGS:
            return error(f"ERR Unknown option or number of arguments for CONFIG SET - '{shown}'")
        failed = f"ERR CONFIG SET failed (possibly related to argument '{shown}') - "
        if name in _FLAGS:
            value = value.lower()
            if value not in (b"yes", b"no"):
                return error(f"{failed}argument must be 'yes' or 'no'")
        if name in _NUMBERS and not value.isdigit():
            return error(f"{failed}argument couldn't be parsed into an integer")
        server.settings[name] = value
        server.configured()
        return OK
    return _unknown(words)


# Who is master.


def slaveof(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if words[1].lower() == b"no" and words[2].lower() == b"one":
        server.replication.lead()
        return OK
    port = number(words[2])
    if port is None or not 0 <= port <= 65535:
        return error("ERR Invalid master port")
    if not server.replication.follow(words[1].decode(), port):
        return b"+OK Already connected to specified master\r\n"
    return OK


def role(server: Server, link: Connection, words: list[bytes]) -> bytes:
    replication = server.replication
    following = replication.following
    if following is None:
        replicas = []
        for replica in replication.replicas:
            if replica.online:
                host, _, port = replica.name.rpartition(":")
                told = [host.encode(), port.encode(), b"%d" % replica.acked]
                replicas.append(bulks(told))
        return many([bulk(b"master"), integer(replication.offset), many(replicas)])
    states = {"handshake": b"handshake", "transfer": b"sync", "connected": b"connected"}
    state = states.get(following.state, following.state.encode())
    return many(
        [
            bulk(b"slave"),
            bulk(following.host.encode()),
            integer(following.port),
            bulk(state),
            integer(replication.offset if following.up else -1),
        ]
    )


def replconf(server: Server, link: Connection, words: list[bytes]) -> bytes:
    return error("ERR syntax error") if len(words) % 2 == 0 else OK


def wait(server: Server, link: Connection, words: list[bytes]) -> bytes | None:
    count, timeout = number(words[1]), number(words[2])
    if server.following is not None:
        return error(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis "
            "4.0 if a replica is configured to be writable (which is not the default) writes to "
            "replicas are just local and are not propagated."
        )
    if count is None:
        return error("ERR value is not an integer or out of range")
    if timeout is None:
        return error("ERR timeout is not an integer or out of range")
    if timeout < 0:
        return error("ERR timeout is negative")
    confirmed = server.replication.acknowledged(link.offset)
    if confirmed >= count or server.in_exec:
        return integer(confirmed)
    server.block(link, count, timeout / 1000)
    return None


# Clients.


def client(server: Server, link: Connection, words: list[bytes]) -> bytes:
    verb = words[1].upper()
    if verb == b"ID":
        return integer(link.number)
    if verb == b"KILL" and len(words) >= 4:
        return _kill(server, link, words[2:])
    if verb in (b"SETNAME", b"NO-EVICT", b"SETINFO"):
        return OK
    return _unknown(words)


def _kill(server: Server, link: Connection, filters: list[bytes]) -> bytes:
    kind = None
    spare = True
    for name, value in zip(filters[::2], filters[1::2], strict=False):
        if name.upper() == b"TYPE":
            kind = value.lower()
            if kind not in (b"normal", b"pubsub", b"master", b"replica", b"slave"):
                return error(f"ERR Unknown client type '{value.decode('latin-1')}'")
        elif name.upper() == b"SKIPME" and value.lower() in (b"yes", b"no"):
            spare = value.lower() == b"yes"
        else:
            return error("ERR syntax error")
    if len(filters) % 2:
        return error("ERR syntax error")
    count = 0
    for other in list(server.connections):
        if kind == (b"pubsub" if other.subscribed else b"normal"):
            if other is not link:
                count += 1
                other.close()
            elif not spare:
                count += 1
                link.closing = True
    if kind in (b"replica", b"slave"):
        count += len(server.replication.replicas)
        server.replication.disconnect_replicas()
    return integer(count)


# Transactions.


def multi(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if link.queued is not None:
        return error("ERR MULTI calls can not be nested")
    link.queued = []
    link.flawed = False
    return OK


def discard(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if link.queued is None:
        return error("ERR DISCARD without MULTI")
    link.queued = None
    link.unwatch()
    return OK


def watch(server: Server, link: Connection, words: list[bytes]) -> bytes:
    if link.queued is not None:
        return error("ERR WATCH inside MULTI is not allowed")
    for key in words[1:]:
        link.watching[link.db, key] = None
        server.keys.watch(link.db, key, link)
    return OK


def unwatch(server: Server, link: Connection, words: list[bytes]) -> bytes:
    link.unwatch()
    return OK


def exec_(server: Server, link: Connection, words: list[bytes]) -> bytes:
    queued = link.queued
    if queued is None:
        return error("ERR EXEC without MULTI")
    link.queued = None
    if link.watching:
        keys = server.keys
        spoilt = link.spoilt or any(keys.lapsed(db, key, link) for db, key in link.watching)
    else:
        spoilt = False
    link.unwatch()
    if link.flawed:
        return error("EXECABORT Transaction discarded because of previous errors.")
    if spoilt:
        return NIL_LIST
    server.in_exec = True
    replies = []
    for command, words in queued:
        reply = command.run(server, link, words)
        assert reply is not None, words
        replies.append(reply)
    server.in_exec = False
    return many(replies)


def time_(server: Server, link: Connection, words: list[bytes]) -> bytes:
    now = server.seconds()
    return bulks([b"%d" % int(now), b"%d" % int(now % 1 * 1e6)])
