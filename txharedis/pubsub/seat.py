"""Seat: the user's channels on one node."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txharedis.factory import NodeFactory
from txharedis.interfaces import Reactor
from txharedis.options import Options
from txharedis.pubsub.channels import ChannelBook, Kind, Name, Receive
from txharedis.pubsub.subscriber import Answer, Keeper, SubscriberProtocol
from txharedis.topology import Address

__all__ = ["Seat", "SeatObserver"]


class SeatObserver(Protocol):
    """Whoever owns the seats and has to know."""

    def seat_confirmed(self, seat: Seat, name: Name) -> None:
        """The server sends it from here on."""

    def seat_left(self, seat: Seat, name: Name) -> None:
        """The server does not send it any more."""

    def seat_refused(self, seat: Seat, name: Name, error: Exception) -> None:
        """The server will not send it."""

    def seat_answered(self, seat: Seat) -> None:
        """Nothing is asked of the server that it has not answered."""

    def seat_marked(self, seat: Seat, number: int) -> None:
        """A marker came; it is the newest that `seat.marked` tells."""

    def seat_lost(self, seat: Seat) -> None:
        """The link is gone, or could not be made; it is redialled while the node is up."""

    def seat_denied(self, seat: Seat, error: Exception) -> None:
        """The server will not have the link."""


class Seat:
    """A link to one node that is kept, and asks for what the book wants.

    What comes is dropped at first; `keep` puts it aside, and `deliver` hands out what was put aside
    and then all that comes.
    """

    def __init__(
        self,
        reactor: Reactor,
        address: Address,
        options: Options,
        book: ChannelBook,
        marker: bytes,
        observer: SeatObserver,
        is_up: Callable[[Address], bool],
    ) -> None:
        self.address = address
        self.link: SubscriberProtocol | None = None
        self.on: dict[Name, None] = {}
        self.refused: set[Name] = set()
        self.leaving: set[Name] = set()
        self.delivers = False
        self.ready_at = -math.inf
        self.marked = 0
        self._reactor = reactor
        self._options = options
        self._book = book
        self._marker = (Kind.CHANNEL, marker)
        self._observer = observer
        self._asked: dict[Name, None] = {}
        self._unanswered = 0
        self._kept: list[list[Any]] = []
        self._receive: Receive = Keeper(None)
        self._factory = NodeFactory(
            reactor,
            address,
            self._build,
            self._gone,
            options,
            first_delay=options.reconnect_delay,
            max_delay=options.reconnect_max,
            timeout=options.connect_timeout,
            goes_by=lambda: is_up(address),
        )

    def __repr__(self) -> str:
        state = "no link" if self.link is None else f"{len(self.on)} on"
        return f"<Seat {self.address} {state}{', delivers' if self.delivers else ''}>"

    def open(self) -> None:
        self._factory.dial()

    def close(self) -> Deferred[None]:
        """Drop the link for good; nothing is told any more. Fires when it is gone."""
        self.drop()
        self._observer = _NOBODY
        return self._factory.close()

    def abort(self) -> None:
        """Drop the link; it is redialled."""
        if self._factory.link is not None:
            self._factory.link.abort()

    def redial_now(self) -> None:
        self._factory.redial_now()

    @property
    def last_heard(self) -> float:
        """When anything came, in seconds of the reactor's clock."""
        return self.link.last_heard if self.link is not None else -math.inf

    @property
    def last_message(self) -> float:
        """When the newest message came."""
        return self.link.last_message if self.link is not None else -math.inf

    def asks(self, name: Name) -> bool:
        """Whether the server was asked for it."""
        return name in self._asked

    @property
    def hears_markers(self) -> bool:
        """Whether a marker that is published now will show."""
        return self._marker in self.on

    @property
    def idle(self) -> bool:
        """Whether nothing is on, or asked for, that a user may wait for."""
        return not self._unanswered and self._asked.keys() <= {self._marker}

    # What becomes of messages.

    def drop(self) -> None:
        self.delivers = False
        self._kept = []
        self._set_receive(Keeper(None))

    def keep(self) -> None:
        self.delivers = False
        self._set_receive(Keeper(self._kept))

    def deliver(self) -> None:
        if self.delivers:
            return
        self.delivers = True
        kept, self._kept = iter(self._kept), []
        self._set_receive(self._book.deliver)
        if self.link is not None:
            self._book.deliver(kept, self.link)

    def _set_receive(self, receive: Receive) -> None:
        self._receive = receive
        if self.link is not None:
            self.link.receive = receive

    # What is asked of the server.

    def sync(self) -> None:
        """Ask for what is wanted and was not asked for, and leave what is not wanted any more."""
        if self.link is None:
            return
        wanted = dict.fromkeys(self._book.names)
        more = [name for name in wanted if name not in self._asked]
        less = [name for name in self._asked if name not in wanted and name != self._marker]
        # The last of all: when markers show, everything else that was asked for does.
        marker = [self._marker] if self._marker not in self._asked else []
        self._asked = {**wanted, self._marker: None}
        self.refused &= self._asked.keys()
        for name in less:
            self.on.pop(name, None)
        self.leaving.update(less)
        for kind in Kind:
            self._ask(kind.opposite, kind, less, self._left)
            self._ask(kind.value, kind, more, self._confirmed)
        self._ask(Kind.CHANNEL.value, Kind.CHANNEL, marker, self._confirmed)

    def retry(self) -> None:
        """Ask again for what was refused."""
        self._asked = {name: None for name in self._asked if name not in self.refused}
        self.refused.clear()
        self.sync()

    def ping(self) -> None:
        if self.link is not None:
            self.link.ping()

    def _ask(
        self,
        verb: str,
        kind: Kind,
        names: list[Name],
        answered: Callable[[Name, Exception | None], None],
    ) -> None:
        own = [name for of, name in names if of is kind]
        if not own or self.link is None:
            return
        self._unanswered += len(own)
        link = self.link

        def answer(name: bytes) -> Answer:
            def told(error: Exception | None) -> None:
                if link is self.link:
                    self._unanswered -= 1
                    answered((kind, name), error)
                    if not self._unanswered:
                        self._observer.seat_answered(self)

            return told

        link.ask(verb, own, answer)

    def _confirmed(self, name: Name, error: Exception | None) -> None:
        if error is None:
            self.on[name] = None
            self._observer.seat_confirmed(self, name)
        else:
            self.refused.add(name)
            self._observer.seat_refused(self, name, error)

    def _left(self, name: Name, error: Exception | None) -> None:
        self.on.pop(name, None)
        self.leaving.discard(name)
        self._observer.seat_left(self, name)

    # The link.

    def _build(self) -> SubscriberProtocol:
        return SubscriberProtocol(
            self._reactor,
            self._options,
            self.address,
            self._marker[1],
            self._saw_marker,
            self._ready,
            lambda error: self._observer.seat_denied(self, error),
        )

    def _saw_marker(self, text: bytes) -> None:
        if text.isdigit():
            self.marked = int(text)
            self._observer.seat_marked(self, self.marked)

    def _ready(self, link: SubscriberProtocol) -> None:
        self._factory.link_ready()
        self.link = link
        link.receive = self._receive
        self.ready_at = self._reactor.seconds()
        self._asked = {}
        self._unanswered = 0
        self.sync()

    def _gone(self, reason: Failure, was_ready: bool) -> None:
        self.link = None
        self.on.clear()
        self.leaving.clear()
        self.refused.clear()
        self._asked = {}
        self._observer.seat_lost(self)


class _Nobody:
    """Observes a seat that is given up."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


_NOBODY: Any = _Nobody()
