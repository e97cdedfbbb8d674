"""ChannelBook: which channels a client wants, who is called for each, and who waits for what."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from inspect import iscoroutine
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from txredisapi import InvalidData

from txharedis.events import SubscriptionGap
from txharedis.log import ClientLog
from txharedis.options import Options
from txharedis.pubsub.messages import Message
from txharedis.replies import converter

__all__ = ["MARKERS", "ChannelBook", "Kind", "MessageLink", "Name", "OnGap", "OnMessage", "Receive"]

MARKERS = b"haredis:handover:"
"""How the channels of the markers begin. They are no user's: patterns do not show them."""

OnMessage = Callable[[Message], object]
OnGap = Callable[[SubscriptionGap], object]


class MessageLink(Protocol):
    """A link that carries messages, as those see it who receive them.

    `receive` is what is called with what comes; it has to return when it is another function.
    `other` takes what is no message of a user. `note_message` is told when there was one.
    """

    @property
    def node(self) -> str: ...

    @property
    def receive(self) -> Receive: ...

    def other(self, reply: Any) -> None: ...

    def is_marker(self, reply: list[Any]) -> bool: ...

    def note_message(self) -> None: ...


#: Takes replies from the wire; returns False when it left some to the one who is to receive now.
Receive = Callable[[Iterator[Any], MessageLink], bool]


class Kind(enum.Enum):
    """The value is the command that asks for it."""

    CHANNEL = "subscribe"
    PATTERN = "psubscribe"
    SHARD = "ssubscribe"

    @property
    def opposite(self) -> str:
        """The command that ends it."""
        return self.value.replace("sub", "unsub")


#: One subscription of the server: what it asks for, and the channel or pattern.
Name = tuple[Kind, bytes]


@dataclass(eq=False, slots=True)
class _Listener:
    """One callback of one channel. It stays while one of `requests` has not been taken back."""

    on_message: OnMessage
    on_gap: OnGap | None
    requests: list[_Request] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Entry:
    """One channel or pattern.

    `known` tells whether a server ever confirmed it. `calls` is what the hot path needs of
    `listeners`, and `only` the one of them when there is no other.
    """

    text: str | bytes
    listeners: list[_Listener] = field(default_factory=list)
    calls: tuple[OnMessage, ...] = ()
    only: OnMessage | None = None
    known: bool = False
    waiting: list[_Request] = field(default_factory=list)

    def call(self, calls: tuple[OnMessage, ...]) -> None:
        """Each message is for these from here on."""
        self.calls = calls
        self.only = calls[0] if len(calls) == 1 else None


@dataclass(eq=False, slots=True)
class _Request:
    """Somebody who waits until `names`, of those that he `asked` for, are confirmed."""

    verb: str
    kind: Kind
    last: str | bytes | None
    names: set[bytes]
    on_message: OnMessage | None = None
    asked: list[bytes] = field(default_factory=list)
    deferred: Deferred[list[Any]] = field(default_factory=Deferred)


_NO_ENTRY = _Entry("")


class ChannelBook:
    """The subscriptions of one client.

    `changed()` is called when `names` may have changed. What a server confirms is told by
    `confirm`, `left` and `refuse`; its messages are delivered by `deliver`.
    """

    def __init__(self, options: Options, log: ClientLog, changed: Callable[[], object]) -> None:
        self._charset = options.charset
        self._errors = options.errors
        self._convert = converter(options.charset, options.convert_numbers)
        self._log = log
        self._changed = changed
        self._entries: dict[Kind, dict[bytes, _Entry]] = {kind: {} for kind in Kind}
        self._channels = self._entries[Kind.CHANNEL]
        self._patterns = self._entries[Kind.PATTERN]
        self._shards = self._entries[Kind.SHARD]
        self._leaving: dict[Name, list[_Request]] = {}
        self.names: dict[Name, None] = {}  # in the order in which they were asked for

    # What the user asks for.

    def add(
        self,
        kind: Kind,
        channels: object,
        on_message: OnMessage,
        on_gap: OnGap | None,
        confirmed: Callable[[Name], bool],
    ) -> Deferred[list[Any]]:
        """Call `on_message` for each message of the channels.

        The Deferred fires when all are confirmed; `confirmed(name)` tells which are already.
        """
        if not callable(on_message):
            raise TypeError(f"{kind.value}: on_message={on_message!r} cannot be called")
        if on_gap is not None and not callable(on_gap):
            raise TypeError(f"{kind.value}: on_gap={on_gap!r} cannot be called")
        names = self._names(kind.value, channels)
        request = _Request(kind.value, kind, self._text(names[-1]), set(), on_message)
        request.deferred = Deferred(lambda _: self._withdraw(request))
        for name in dict.fromkeys(names):
            entry = self._entries[kind].get(name)
            if entry is None:
                entry = self._entries[kind][name] = _Entry(self._text(name))
                self.names[(kind, name)] = None
            request.asked.append(name)
            _set_listener(entry, request, on_message, on_gap)
            if not confirmed((kind, name)):
                request.names.add(name)
                entry.waiting.append(request)
        self._fire_if_done(request)
        self._changed()
        return request.deferred

    def remove(
        self,
        kind: Kind,
        channels: object,
        on_message: OnMessage | None,
        confirmed: Callable[[Name], bool],
    ) -> Deferred[list[Any]]:
        """Call `on_message`, or nobody when it is None, for the channels (all when None) any more.

        The Deferred fires when a server has confirmed it for those that nobody listens to then.
        """
        entries = self._entries[kind]
        names = list(entries) if channels is None else self._names(kind.opposite, channels)
        request = _Request(
            kind.opposite, kind, self._text(names[-1]) if names else None, set(), on_message
        )
        request.deferred = Deferred(lambda _: request.names.clear())
        for name in dict.fromkeys(names):
            entry = entries.get(name)
            if entry is None:
                continue
            self._drop_listener(kind, name, entry, on_message)
            if name not in entries and confirmed((kind, name)):
                request.names.add(name)
                self._leaving.setdefault((kind, name), []).append(request)
        self._fire_if_done(request)
        self._changed()
        return request.deferred

    def count(self, kind: Kind) -> int:
        """How many subscriptions servers have confirmed, counted as they do."""
        kinds = [kind] if kind is Kind.SHARD else [Kind.CHANNEL, Kind.PATTERN]
        return sum(entry.known for each in kinds for entry in self._entries[each].values())

    @property
    def waiting(self) -> list[_Request]:
        """Those who wait for a confirmation of a subscription."""
        requests = {
            id(request): request
            for entries in self._entries.values()
            for entry in entries.values()
            for request in entry.waiting
        }
        return list(requests.values())

    # What the servers say.

    def confirm(self, name: Name) -> None:
        """A server has confirmed it, and its messages are delivered."""
        entry = self._entries[name[0]].get(name[1])
        if entry is not None:
            entry.known = True
            waiting, entry.waiting = entry.waiting, []
            self._tell(waiting, name[1])

    def left(self, name: Name) -> None:
        """No server sends it any more."""
        self._tell(self._leaving.pop(name, []), name[1])

    def leave_all_but(self, asked: set[Name]) -> None:
        """No server sends the names any more, but for those that one was `asked` to leave."""
        for name in [name for name in self._leaving if name not in asked]:
            self.left(name)

    def refuse(self, name: Name, error: Exception) -> bool:
        """A server refused it: those who wait for it get the error, and nothing of theirs is kept.

        Returns False when it had been confirmed before: then it is still wanted.
        """
        entry = self._entries[name[0]].get(name[1])
        if entry is None:
            return True
        for request in list(entry.waiting):
            self.fail(request, error)
        return not entry.known

    def fail(self, request: _Request, error: Exception) -> None:
        """Undo a subscription and tell its caller why."""
        self._withdraw(request)
        if not request.deferred.called:
            request.deferred.errback(error)

    def stop(self, error: Callable[[], Exception]) -> None:
        """Fail all who wait, and call nobody any more."""
        for entries in self._entries.values():
            for entry in entries.values():
                entry.call(())
        for request in self.waiting:
            self.fail(request, error())
        leaving, self._leaving = self._leaving, {}
        for requests in leaving.values():
            for request in requests:
                if not request.deferred.called:
                    request.deferred.errback(error())

    # The hot path.

    def deliver(self, replies: Iterator[Any], link: MessageLink) -> bool:
        """Call those who want these messages (as they came over the wire).

        What is none goes to `link.other`. Returns False when the link does not want it to go on.
        """
        channels, convert, node, receive = self._channels, self._convert, link.node, link.receive
        new = tuple.__new__  # Message(...) takes twice as long
        message: Message | None = None
        newest, newest_entry = b"", _NO_ENTRY  # most messages are of the channel of the one before
        for reply in replies:
            kind = reply[0] if type(reply) is list else None
            if kind == b"message":
                _, name, data = reply
                if name == newest and newest_entry.only is not None:  # it is not forgotten
                    entry = newest_entry
                elif (found := channels.get(name)) is not None:
                    newest, newest_entry = name, found
                    entry = found
                else:
                    link.other(reply)
                    if link.receive is not receive:
                        return False
                    continue
                if convert is not None:
                    data = convert(data)
                message = new(Message, (entry.text, data, None, node))
            elif kind == b"pmessage" and (found := self._patterns.get(reply[1])) is not None:
                _, _, name, data = reply
                if name.startswith(MARKERS):
                    continue
                entry = found
                if convert is not None:
                    data = convert(data)
                message = new(Message, (self._text(name), data, entry.text, node))
            elif kind == b"smessage" and (found := self._shards.get(reply[1])) is not None:
                data = reply[2]
                entry = found
                if convert is not None:
                    data = convert(data)
                message = new(Message, (entry.text, data, None, node))
            else:
                link.other(reply)
                if link.receive is not receive:
                    return False
                continue
            only = entry.only
            if only is None:
                self._call_all(entry, message)
            else:
                try:
                    if (result := only(message)) is not None:
                        self._follow(result)
                except Exception:
                    self._log.failure("on_message failed")
            if link.receive is not receive:
                return False
        if message is not None:
            link.note_message()
        return True

    def _call_all(self, entry: _Entry, message: Message) -> None:
        calls = entry.calls
        for call in calls:
            if entry.calls is not calls and call not in entry.calls:
                continue  # another callback has taken it away
            try:
                if (result := call(message)) is not None:
                    self._follow(result)
            except Exception:
                self._log.failure("on_message failed")

    def tell_gap(self, gap: SubscriptionGap) -> None:
        """Call on_gap of each subscription that a server has confirmed, once each."""
        told: list[OnGap] = []
        for entries in list(self._entries.values()):
            for entry in list(entries.values()):
                for listener in entry.listeners if entry.known else ():
                    on_gap = listener.on_gap
                    if on_gap is not None and on_gap not in told:
                        told.append(on_gap)
        for on_gap in told:
            try:
                self._follow(on_gap(gap), "on_gap failed")
            except Exception:
                self._log.failure("on_gap failed")

    def _follow(self, result: object, failed: str = "on_message failed") -> None:
        """The callback is a coroutine function, or returned a Deferred: its failure is logged."""
        if iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addErrback(lambda failure: self._log.failure(failed, failure))

    # Small things.

    def _names(self, verb: str, channels: object) -> list[bytes]:
        if isinstance(channels, (str, bytes)):
            return [self._encode(verb, channels)]
        if not isinstance(channels, Iterable):
            raise InvalidData(f"{verb}: {channels!r} is not a channel (text or bytes)")
        names = [self._encode(verb, channel) for channel in channels]
        if not names:
            raise InvalidData(f"{verb}: no channels in {channels!r}")
        return names

    def _encode(self, verb: str, channel: object) -> bytes:
        if isinstance(channel, bytes):
            return channel
        if not isinstance(channel, str):
            raise InvalidData(f"{verb}: {channel!r} is not a channel (text or bytes)")
        try:
            return channel.encode(self._charset or "utf-8", self._errors)
        except UnicodeEncodeError as error:
            raise InvalidData(f"{verb}: cannot encode {channel!r}: {error}") from error

    def _text(self, name: bytes) -> str | bytes:
        if self._charset is not None:
            try:
                return name.decode(self._charset)
            except UnicodeError:
                pass
        return name

    def _drop_listener(
        self, kind: Kind, name: bytes, entry: _Entry, on_message: OnMessage | None
    ) -> None:
        if on_message is not None:
            _drop(entry, on_message)
        else:
            entry.listeners = []
            _note_calls(entry)
        withdrawn = [
            request
            for request in entry.waiting
            if on_message is None or request.on_message == on_message
        ]
        for request in withdrawn:
            entry.waiting.remove(request)
            request.names.discard(name)
        if not entry.listeners:
            self._forget(kind, name)
        for request in withdrawn:
            if not request.names and not request.deferred.called:
                request.deferred.errback(CancelledError(f"{request.verb} was withdrawn"))

    def _forget(self, kind: Kind, name: bytes) -> None:
        """Nobody listens to it any more."""
        del self._entries[kind][name]
        del self.names[(kind, name)]

    def _withdraw(self, request: _Request) -> None:
        """Take back what a subscription brought in, and nobody else asked for as well."""
        request.names.clear()
        for name in request.asked:
            entry = self._entries[request.kind].get(name)
            if entry is None:
                continue
            if request in entry.waiting:
                entry.waiting.remove(request)
            for listener in entry.listeners:
                if request in listener.requests:
                    listener.requests.remove(request)
                    if not listener.requests:
                        _drop(entry, listener.on_message)
                    break
            if not entry.listeners:
                self._forget(request.kind, name)
        self._changed()

    def _tell(self, requests: list[_Request], name: bytes) -> None:
        for request in requests:
            request.names.discard(name)
            self._fire_if_done(request)

    def _fire_if_done(self, request: _Request) -> None:
        if not request.names and not request.deferred.called:
            request.deferred.callback([request.verb, request.last, self.count(request.kind)])


def _set_listener(
    entry: _Entry, request: _Request, on_message: OnMessage, on_gap: OnGap | None
) -> None:
    """Add it, or give it another `on_gap` when it is there."""
    for listener in entry.listeners:
        if listener.on_message == on_message:
            listener.on_gap = on_gap
            # One that has succeeded cannot be taken back: it speaks for all after it.
            if not any(other.deferred.called for other in listener.requests):
                listener.requests.append(request)
            return
    entry.listeners.append(_Listener(on_message, on_gap, [request]))
    _note_calls(entry)


def _drop(entry: _Entry, on_message: OnMessage) -> None:
    entry.listeners = [each for each in entry.listeners if each.on_message != on_message]
    _note_calls(entry)


def _note_calls(entry: _Entry) -> None:
    entry.call(tuple(listener.on_message for listener in entry.listeners))
