"""SubscriberProtocol: the wire of a link that carries messages."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from txharedis.interfaces import Clock, pack
from txharedis.options import Options
from txharedis.protocol import Malformed, NodeProtocol, greeting
from txharedis.topology import Address

__all__ = ["MARKERS", "Answer", "Receive", "SubscriberProtocol", "drop"]

MARKERS = b"haredis:handover:"
"""How the channels of the markers begin. They are no user's: patterns do not show them."""

#: Takes a message as it came over the wire, and the node ("host:port") that sent it.
Receive = Callable[[list[Any], str], object]
#: Takes the outcome of one request: None when it was confirmed, else the server's error.
Answer = Callable[[Exception | None], object]


def drop(reply: list[Any], node: str) -> None:
    """Receive, and forget."""


class SubscriberProtocol(NodeProtocol):
    """A link in subscribed mode: messages come at any time, confirmations in order of the requests.

    `receive` is called with each message, except for those of the channel `marker`: their text goes
    to `marked`. A reply that nobody asked for closes the link.
    """

    def __init__(
        self,
        clock: Clock,
        options: Options,
        node: Address,
        marker: bytes,
        marked: Callable[[bytes], object],
        ready: Callable[[SubscriberProtocol], None],
        denied: Callable[[Exception], None],
    ) -> None:
        super().__init__(
            clock,
            greeting(options, options.db, node),
            options.connect_timeout,
            lambda _link, _replies: ready(self),
            lambda error, _replies: denied(error),
        )
        self.receive: Receive = drop
        self.last_message = -math.inf
        self._node = str(node)
        self._marker = marker
        self._marked = marked
        self._asked: deque[tuple[bytes, bytes, Answer | None]] = deque()

    def ask(self, verb: str, names: Iterable[bytes], answer: Callable[[bytes], Answer]) -> None:
        """Send one SUBSCRIBE (or the like) for each name, in one write.

        One command for many would be refused as a whole for the sake of one.
        """
        packed = []
        for name in names:
            self._asked.append((verb.encode(), name, answer(name)))
            packed.append(pack((verb.upper(), name)))
        self.transport.write(b"".join(packed))

    def ping(self) -> None:
        """Ask for a sign of life; it shows in `last_heard`."""
        self._asked.append((b"pong", b"", None))
        self.transport.write(pack(("PING",)))

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        if self._waiting or self._dead:
            super().dataReceived(data)  # the handshake
            return
        self.last_heard = self._clock.seconds()
        self._reader.feed(data)
        gets = self._reader.gets
        node, marker = self._node, self._marker
        try:
            reply = gets()
            while reply is not False and not self._dead:
                kind = reply[0] if type(reply) is list and len(reply) > 2 else None
                if kind == b"message":
                    if reply[1] == marker:
                        self._marked(reply[2])
                    else:
                        self.last_message = self.last_heard
                        self.receive(reply, node)
                elif kind == b"pmessage":
                    if not reply[2].startswith(MARKERS):
                        self.last_message = self.last_heard
                        self.receive(reply, node)
                elif kind == b"smessage":
                    self.last_message = self.last_heard
                    self.receive(reply, node)
                else:
                    self.unasked(reply)
                reply = gets()
        except Malformed:
            self.abort()

    def unasked(self, reply: object) -> None:
        """The answer to a request."""
        if not self._asked:
            self.abort()
            return
        verb, name, answer = self._asked.popleft()
        match reply:
            case Exception():
                if answer is not None:
                    answer(reply)
            case [bytes(said), bytes(of), int()] if said == verb and of == name:
                if answer is not None:
                    answer(None)
            case [b"pong", b""] | b"PONG" if verb == b"pong":
                pass
            case _:
                self.abort()
