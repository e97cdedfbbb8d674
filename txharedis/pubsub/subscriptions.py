"""Subscriptions: the user's channels, as the client asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred

from txharedis.errors import HARedisError, ServiceStopped
from txharedis.events import Event, SubscriptionGap
from txharedis.interfaces import Reactor, Timer
from txharedis.log import ClientLog
from txharedis.options import Options
from txharedis.protocol import NodeProtocol
from txharedis.pubsub.channels import ChannelBook, Kind, OnGap, OnMessage
from txharedis.pubsub.places import Places
from txharedis.pubsub.seating import Seating
from txharedis.pubsub.streams import MessageStream
from txharedis.topology import Address

__all__ = ["Subscriptions"]


class Subscriptions:
    """The channels of one client.

    They live on one node, over a link of their own, which is there only while there are any.

    `in_use()` tells whether commands go to the master at the moment, `link_of` gives the control
    link of a node, None while there is none, and `is_up` tells whether a node is there. The owner
    tells what it finds: `follow`, `place`, `forsake`, `redial_now`, `refuse`. `emit` takes the
    events.
    """

    def __init__(
        self,
        reactor: Reactor,
        options: Options,
        log: ClientLog,
        emit: Callable[[Event], object],
        in_use: Callable[[], bool],
        link_of: Callable[[Address], NodeProtocol | None],
        is_up: Callable[[Address], bool],
    ) -> None:
        self._reactor = reactor
        self._emit = emit
        self._book = ChannelBook(options, log, self._changed)
        self._places = Places(reactor, is_up)
        self._seating = Seating(
            reactor,
            options,
            log,
            self._book,
            self._places,
            gap=self._gap,
            denied=self._fail_waiting,
            in_use=in_use,
            link_of=link_of,
            is_up=is_up,
        )
        self._changed_call: Timer | None = None
        self._verdict: HARedisError | None = None
        self._streams: dict[MessageStream, None] = {}

    def __repr__(self) -> str:
        return f"<Subscriptions {len(self._book.names)} {self._seating!r}>"

    # What the client asks for.

    def subscribe(
        self, channels: Any, on_message: OnMessage, on_gap: OnGap | None = None
    ) -> Deferred[list[Any]]:
        return self._add(Kind.CHANNEL, channels, on_message, on_gap)

    def psubscribe(
        self, patterns: Any, on_message: OnMessage, on_gap: OnGap | None = None
    ) -> Deferred[list[Any]]:
        return self._add(Kind.PATTERN, patterns, on_message, on_gap)

    def ssubscribe(
        self, channels: Any, on_message: OnMessage, on_gap: OnGap | None = None
    ) -> Deferred[list[Any]]:
        return self._add(Kind.SHARD, channels, on_message, on_gap)

    def unsubscribe(
        self, channels: Any = None, on_message: OnMessage | None = None
    ) -> Deferred[list[Any]]:
        return self._book.remove(Kind.CHANNEL, channels, on_message, self._seating.is_asked)

    def punsubscribe(
        self, patterns: Any = None, on_message: OnMessage | None = None
    ) -> Deferred[list[Any]]:
        return self._book.remove(Kind.PATTERN, patterns, on_message, self._seating.is_asked)

    def sunsubscribe(
        self, channels: Any = None, on_message: OnMessage | None = None
    ) -> Deferred[list[Any]]:
        return self._book.remove(Kind.SHARD, channels, on_message, self._seating.is_asked)

    def messages(
        self, names: tuple[str | bytes, ...], buffer: int, on_gap: OnGap | None
    ) -> MessageStream:
        return MessageStream(self, names, buffer, on_gap)

    def join(self, stream: MessageStream) -> None:
        """A stream is told when the client stops."""
        self._streams[stream] = None

    def part(self, stream: MessageStream) -> None:
        self._streams.pop(stream, None)

    def _add(
        self, kind: Kind, channels: Any, on_message: OnMessage, on_gap: OnGap | None
    ) -> Deferred[list[Any]]:
        request = self._book.add(kind, channels, on_message, on_gap, self._seating.is_on)
        if self._verdict is not None:
            self._fail_waiting(self._verdict)
        return request

    def _changed(self) -> None:
        """Once a reactor turn, so that what is asked for together leaves together."""
        if self._changed_call is None and not self._stopped:
            self._changed_call = self._reactor.callLater(0, self._changed_now)

    def _changed_now(self) -> None:
        self._changed_call = None
        self._seating.settle()

    # What the owner tells.

    def follow(self, master: Address, incarnation: str) -> None:
        """Commands go to this master from here on; `incarnation` is its run_id."""
        if not self._stopped:
            self._seating.follow(master, incarnation)

    def place(self, master: Address, replicas: Iterable[Address]) -> None:
        """These replicas are up, linked to this master and not syncing."""
        if not self._stopped:
            self._places.know(master, replicas)
            self._seating.settle()

    def forsake(self, node: Address) -> None:
        """This node is down: do not wait for the link to say so."""
        self._seating.forsake(node)

    def redial_now(self, node: Address) -> None:
        """This node is back."""
        self._seating.redial_now(node)

    def refuse(self, verdict: HARedisError | None) -> None:
        """Fail those who wait for a first confirmation, now and later; None takes it back."""
        if not self._stopped:
            self._verdict = verdict
            if verdict is not None:
                self._fail_waiting(verdict)

    def close(self) -> Deferred[Any]:
        """Fail all who wait with ServiceStopped; fires when the links are gone."""
        self._verdict = ServiceStopped("the service was stopped")
        if self._changed_call is not None and self._changed_call.active():
            self._changed_call.cancel()
        # Those who are told of the end, and ask for something then, find nobody to wait for.
        closed = self._seating.close()
        for stream in list(self._streams):
            stream.fail(ServiceStopped("the service was stopped"))
        self._book.stop(lambda: ServiceStopped("the service was stopped"))
        return closed

    @property
    def _stopped(self) -> bool:
        return isinstance(self._verdict, ServiceStopped)

    def _gap(self, gap: SubscriptionGap) -> None:
        self._emit(gap)
        self._book.tell_gap(gap)

    def _fail_waiting(self, verdict: HARedisError) -> None:
        for request in self._book.waiting:
            self._book.fail(request, type(verdict)(*verdict.args))
