"""MessageStream: messages to iterate over, with a bounded buffer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol

from twisted.internet.defer import Deferred, FirstError, gatherResults
from txredisapi import InvalidData

from txharedis.events import SubscriptionGap
from txharedis.pubsub.messages import Message

__all__ = ["Channels", "MessageStream"]

_GLOB = frozenset("*?[")


class Channels(Protocol):
    """The subscriptions of a client, as it and its streams use them."""

    def subscribe(
        self, channels: Any, on_message: Any, on_gap: Any = None
    ) -> Deferred[list[Any]]: ...

    def psubscribe(
        self, patterns: Any, on_message: Any, on_gap: Any = None
    ) -> Deferred[list[Any]]: ...

    def unsubscribe(self, channels: Any = None, on_message: Any = None) -> Deferred[list[Any]]: ...

    def punsubscribe(self, patterns: Any = None, on_message: Any = None) -> Deferred[list[Any]]: ...

    def ssubscribe(
        self, channels: Any, on_message: Any, on_gap: Any = None
    ) -> Deferred[list[Any]]: ...

    def sunsubscribe(self, channels: Any = None, on_message: Any = None) -> Deferred[list[Any]]: ...

    def messages(
        self, names: tuple[str | bytes, ...], buffer: int, on_gap: Any
    ) -> MessageStream: ...

    def join(self, stream: MessageStream) -> None: ...

    def part(self, stream: MessageStream) -> None: ...


class MessageStream:
    """`async with client.messages("news", "log.*") as stream: async for message in stream: ...`

    `dropped` counts the messages that were dropped, the oldest first, because the buffer was full.
    """

    def __init__(
        self,
        channels: Channels,
        names: tuple[str | bytes, ...],
        buffer: int,
        on_gap: Callable[[SubscriptionGap], object] | None,
    ) -> None:
        if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
            raise InvalidData(f"messages: buffer={buffer!r} is not a number of messages")
        if not names:
            raise InvalidData("messages: no channels given")
        for name in names:
            if not isinstance(name, (str, bytes)):
                raise InvalidData(f"messages: {name!r} is not a channel (text or bytes)")
        if on_gap is not None and not callable(on_gap):
            raise TypeError(f"messages: on_gap={on_gap!r} cannot be called")
        self._channels = channels
        self._exact = [name for name in names if not _is_pattern(name)]
        self._globs = [name for name in names if _is_pattern(name)]
        self._limit = buffer
        self._on_gap = on_gap
        self._buffer: deque[Message] = deque()
        self._reader: Deferred[None] | None = None
        self._end: Exception | None = None
        self.dropped = 0

    async def __aenter__(self) -> MessageStream:
        self._channels.join(self)
        try:
            if self._exact:
                await self._channels.subscribe(self._exact, self._heard, self._on_gap)
            if self._globs:
                await self._channels.psubscribe(self._globs, self._heard, self._on_gap)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()

    def __aiter__(self) -> MessageStream:
        return self

    def __anext__(self) -> Coroutine[Deferred[Any], Any, Message]:
        return self._next()

    def fail(self, error: Exception) -> None:
        """There will be no more: raise this when the buffer has been read."""
        self._end = error
        self._wake()

    async def _next(self) -> Message:
        while not self._buffer:
            if self._end is not None:
                raise self._end
            if self._reader is not None:
                raise RuntimeError("only one can read a stream")
            self._reader = Deferred()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._buffer.popleft()

    def _heard(self, message: Message) -> None:
        if len(self._buffer) == self._limit:
            self._buffer.popleft()
            self.dropped += 1
        self._buffer.append(message)
        if self._reader is not None:
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.called:
            self._reader.callback(None)

    async def _leave(self) -> None:
        self._channels.part(self)
        if self._end is not None:
            return  # the client was stopped
        left = []
        if self._exact:
            left.append(self._channels.unsubscribe(self._exact, self._heard))
        if self._globs:
            left.append(self._channels.punsubscribe(self._globs, self._heard))
        try:
            await gatherResults(left, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()


def _is_pattern(name: str | bytes) -> bool:
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    return not _GLOB.isdisjoint(text)
