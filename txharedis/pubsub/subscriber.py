"""SubscriberProtocol: the wire of a link that carries messages."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hiredis
from txredisapi import ResponseError

from txharedis.interfaces import Clock, pack
from txharedis.options import Options
from txharedis.protocol import Malformed, NodeProtocol, greeting
from txharedis.pubsub.channels import MessageLink, Receive
from txharedis.topology import Address

__all__ = ["Answer", "Keeper", "SubscriberProtocol"]

#: Takes the outcome of one request: None when it was confirmed, else the server's error.
Answer = Callable[[Exception | None], object]

_END: Any = object()
_MESSAGES = (b"message", b"pmessage", b"smessage")


class Keeper:
    """Receives messages and puts them aside, in `kept`; or forgets them, when that is None."""

    def __init__(self, kept: list[Any] | None) -> None:
        self.kept = kept

    def __call__(self, replies: Iterator[Any], link: MessageLink) -> bool:
        for reply in replies:
            if type(reply) is not list or reply[0] not in _MESSAGES or link.is_marker(reply):
                link.other(reply)
                if link.receive is not self:
                    return False
            else:
                link.note_message()
                if self.kept is not None:
                    self.kept.append(reply)
        return True


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
            lambda _link, _replies: self._begin(),
            lambda error, _replies: denied(error),
        )
        self.receive: Receive = Keeper(None)
        self.node = str(node)
        self.last_message = -math.inf
        self._marker = marker
        self._marked = marked
        self._when_begun = ready
        self._asked: deque[tuple[bytes, bytes, Answer | None]] = deque()

    def _begin(self) -> None:
        # Nothing is left in the old one: nothing was asked for that has not come.
        self._reader = hiredis.Reader(
            protocolError=Malformed, replyError=ResponseError, notEnoughData=_END
        )
        self._when_begun(self)

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
        replies = iter(self._reader.gets, _END)
        try:
            while not self._dead and not self.receive(replies, self):
                pass
        except Malformed:
            self.abort()

    def is_marker(self, reply: list[Any]) -> bool:
        kind, channel, *_ = reply
        return bool(kind == b"message" and channel == self._marker)

    def note_message(self) -> None:
        self.last_message = self.last_heard

    def other(self, reply: Any) -> None:
        """A marker, the answer to a request, or a message that nobody wants any more."""
        if type(reply) is list and reply[0] in _MESSAGES:
            if self.is_marker(reply):
                self._marked(reply[2])
        else:
            self._answered(reply)

    def _answered(self, reply: object) -> None:
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
