"""What a server does with the words of a command: run them, queue them, or refuse them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .resp import MASTERDOWN, error
from .table import (
    IN_EXEC,
    LOADING,
    NEVER_QUEUED,
    NO_SCRIPT,
    STALE,
    SUBSCRIBED,
    TABLE,
    WRITE,
    Command,
)

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["call", "command_of", "execute"]

_READONLY = error("READONLY You can't write against a read only replica.")
_LOADING = error("LOADING Redis is loading the dataset in memory")
_NOREPLICAS = error("NOREPLICAS Not enough good replicas to write.")
_QUEUED = b"+QUEUED\r\n"


def command_of(words: list[bytes]) -> Command | None:
    return TABLE.get(words[0]) or TABLE.get(words[0].lower())


def execute(server: Server, link: Connection, words: list[bytes]) -> bytes | None:
    """The reply to one command of a client; None when it comes otherwise.

    The checks, and their order, are those of the real servers.
    """
    command = TABLE.get(words[0]) or TABLE.get(words[0].lower())
    if command is None:
        link.flawed = True
        name = words[0].decode("latin-1")
        rest = " ".join(f"'{word.decode('latin-1')}'" for word in words[1:])
        return error(f"ERR unknown command '{name}', with args beginning with: {rest}")
    count = len(words)
    if count != command.arity if command.arity > 0 else count < -command.arity:
        link.flawed = True
        return error(f"ERR wrong number of arguments for '{command.name}' command")
    queued = link.queued
    if server.guarded or link.channels or link.patterns:
        refusal = _refusal(server, link, command)
        if refusal is not None:
            link.flawed = True
            if command.flags & IN_EXEC and queued is not None:
                link.queued = None
                link.unwatch()
                why = refusal[1:-2].decode()
                return error(f"EXECABORT Transaction discarded because of: {why}")
            return refusal
    if queued is not None and not command.flags & NEVER_QUEUED:
        queued.append((command, words))
        return _QUEUED
    return command.run(server, link, words)


def _refusal(server: Server, link: Connection, command: Command) -> bytes | None:
    flags = command.flags
    writes = flags & WRITE
    if flags & IN_EXEC and link.queued:
        writes = any(other.flags & WRITE for other, _ in link.queued)
    if writes:
        if server.lacks_replicas:
            return _NOREPLICAS
        if server.read_only and server.replication.following is not None:
            return _READONLY
    if (link.channels or link.patterns) and not flags & SUBSCRIBED:
        return error(
            f"ERR Can't execute '{command.name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE"
            " / PING / QUIT / RESET are allowed in this context"
        )
    if not flags & STALE and server.stale:
        return MASTERDOWN
    if server.loading and not flags & LOADING:
        return _LOADING
    return None


def call(server: Server, link: Connection, words: list[bytes]) -> bytes:
    """redis.pcall: the reply to a command within a script."""
    command = command_of(words)
    if command is None:
        return error("ERR Unknown Redis command called from script")
    if not command.takes(len(words)):
        return error("ERR Wrong number of args calling Redis command from script")
    if command.flags & NO_SCRIPT:
        return error("ERR This Redis command is not allowed from script")
    if command.flags & WRITE:
        if server.read_only and server.replication.following is not None:
            return _READONLY
        if server.lacks_replicas:
            return _NOREPLICAS
    reply = command.run(server, link, words)
    assert reply is not None, words
    return reply
