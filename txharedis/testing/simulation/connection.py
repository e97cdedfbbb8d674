"""Connection: one client of a simulated server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hiredis

from .network import End
from .resp import bulk, integer

if TYPE_CHECKING:
    from .server import Server
    from .table import Command

__all__ = ["Connection"]


class Connection:
    """What a server knows of one link of a client. Commands are run as they come, in their order.

    Whatever came together is answered together. While `blocked`, what comes waits.
    """

    __slots__ = (
        "_out",
        "_reader",
        "blocked",
        "channels",
        "closing",
        "db",
        "end",
        "flawed",
        "number",
        "offset",
        "patterns",
        "queued",
        "server",
        "spoilt",
        "watching",
    )

    def __init__(self, server: Server, end: End, number: int) -> None:
        self.server = server
        self.end = end
        self.number = number
        self.db = 0
        self.queued: list[tuple[Command, list[bytes]]] | None = None  # in a MULTI
        self.flawed = False  # a command was refused in it: EXECABORT
        self.watching: dict[tuple[int, bytes], None] = {}
        self.spoilt = False  # a watched key was changed
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}
        self.offset = 0  # of the replication, after the newest command
        self.blocked: object = None  # what it waits for
        self.closing = False  # behind its newest reply
        self._reader = hiredis.Reader()
        self._out: list[bytes] | None = None

    def __repr__(self) -> str:
        who = self.end.peer.owner.name if self.end is not None else "nobody"
        return f"<connection {self.number} of {who} to {self.server.name}>"

    @property
    def subscribed(self) -> int:
        """How many channels and patterns it hears."""
        return len(self.channels) + len(self.patterns)

    def spoil(self) -> None:
        """A watched key was changed."""
        self.spoilt = True

    def unwatch(self) -> None:
        if self.watching:
            for db, key in self.watching:
                self.server.keys.unwatch(db, key, self)
            self.watching.clear()
        self.spoilt = False

    # The link.

    def received(self, items: list[Any]) -> None:
        if items[0].__class__ is tuple:
            self.server.connections.pop(self, None)
            self.server.replication.greet(self.end, items)
            return
        feed = self._reader.feed
        for item in items:
            feed(item)
        if self.server.busy:
            self.server.do(self.server.work_time, self.work)
        else:
            self.work()

    def work(self) -> None:
        """Run the commands that have come."""
        if self._out is not None or self not in self.server.connections:
            return  # it is at it, or killed
        self._out = out = []
        gets = self._reader.gets
        execute = self.server.execute
        while self.blocked is None and not self.closing:
            words = gets()
            if words is False:
                break
            reply = execute(self, words)
            if reply is not None:
                out.append(reply)
        self._out = None
        if out:
            self.end.send(out[0] if len(out) == 1 else b"".join(out))
        if self.closing:
            self.close()

    def push(self, data: bytes) -> None:
        """Send what was not asked for, or not just now."""
        if self._out is None:
            self.end.send(data)
        else:
            self._out.append(data)

    def unblock(self, reply: bytes) -> None:
        """What it waited for is there: go on with what has come since."""
        self.blocked = None
        self.push(reply)
        if self.closing:
            self.close()
        else:
            self.work()

    def hear(self, channel: bytes, message: bytes) -> None:
        self.push(b"*3\r\n$7\r\nmessage\r\n" + bulk(channel) + bulk(message))

    def hear_pattern(self, pattern: bytes, channel: bytes, message: bytes) -> None:
        self.push(b"*4\r\n$8\r\npmessage\r\n" + bulk(pattern) + bulk(channel) + bulk(message))

    def confirm(self, verb: bytes, name: bytes | None) -> None:
        self.push(b"*3\r\n" + bulk(verb) + bulk(name) + integer(self.subscribed))

    def ended(self, clean: bool) -> None:
        if self.server.busy:
            self.server.do(0.0, self.server.forget, self)
        else:
            self.server.forget(self)

    def close(self) -> None:
        """Close it, behind what was sent."""
        self.server.forget(self)
        self.end.close()
