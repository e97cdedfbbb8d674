"""The commands on channels."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from .resp import bulk, bulks, error, integer, many

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__: list[str] = []


def publish(server: Server, link: Connection, words: list[bytes]) -> bytes:
    count = server.spread(words[1], words[2])
    server.propagate(link.db, words)
    return integer(count)


def subscribe(server: Server, link: Connection, words: list[bytes]) -> None:
    for channel in words[1:]:
        link.channels[channel] = None
        server.channels.setdefault(channel, {})[link] = None
        link.confirm(b"subscribe", channel)


def psubscribe(server: Server, link: Connection, words: list[bytes]) -> None:
    for pattern in words[1:]:
        link.patterns[pattern] = None
        server.patterns.setdefault(pattern, {})[link] = None
        link.confirm(b"psubscribe", pattern)


def unsubscribe(server: Server, link: Connection, words: list[bytes]) -> None:
    if not words[1:] and not link.channels:
        link.confirm(b"unsubscribe", None)
    for channel in words[1:] or list(link.channels):
        server.leave(link, channel)
        link.confirm(b"unsubscribe", channel)


def punsubscribe(server: Server, link: Connection, words: list[bytes]) -> None:
    if not words[1:] and not link.patterns:
        link.confirm(b"punsubscribe", None)
    for pattern in words[1:] or list(link.patterns):
        server.leave_pattern(link, pattern)
        link.confirm(b"punsubscribe", pattern)


def pubsub(server: Server, link: Connection, words: list[bytes]) -> bytes:
    verb = words[1].upper()
    if verb == b"NUMSUB":
        replies = []
        for channel in words[2:]:
            replies += [bulk(channel), integer(len(server.channels.get(channel, ())))]
        return many(replies)
    if verb == b"NUMPAT":
        return integer(len(server.patterns))
    if verb == b"CHANNELS":
        pattern = words[2] if len(words) > 2 else b"*"
        return bulks([name for name in server.channels if fnmatch.fnmatchcase(name, pattern)])
    what = words[1].decode("latin-1")
    return error(f"ERR unknown subcommand '{what}'. Try PUBSUB HELP.")
