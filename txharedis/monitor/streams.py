"""The pages that listen: server-sent events, each made once and shared by all of them."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from txharedis.interfaces import Clock, Timer
from txharedis.monitor.watcher import Watcher

__all__ = ["Documents", "Streams", "encoded"]

MOST = 500
"""How many streams there may be."""

BACKLOG = 256 * 1024
"""Bytes that are kept for a page that does not read, beside what its transport holds."""

_PING_EVERY = 4.0  # seconds
_WHOLE = {"cluster": "cluster", "history": "history", "sample": "series", "line": "log"}


def encoded(value: object) -> bytes:
    """As JSON on one line."""
    return json.dumps(value, separators=(",", ":")).encode()


def _frame(kind: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class Documents:
    """The JSON of the four routes, made when it is asked for, and kept until it changes."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._made: dict[str, bytes] = {}

    def changed(self, kind: str) -> None:
        """There is something new of this kind."""
        self._made.pop(_WHOLE[kind], None)

    def of(self, name: str) -> bytes:
        """The whole document: "cluster", "history", "series" or "log"."""
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = encoded(self._value(name))
        return made

    def _value(self, name: str) -> dict[str, Any]:
        match name:
            case "cluster":
                return self._watcher.cluster
            case "history":
                return self._watcher.history()
            case "series":
                return self._watcher.series()
            case _:
                return self._watcher.log()


class Streams:
    """All that listens to one watcher. What comes together leaves in one write."""

    def __init__(self, clock: Clock, watcher: Watcher) -> None:
        self.documents = Documents(watcher)
        self._clock = clock
        self._streams: set[_Stream] = set()
        self._pending: list[tuple[str, bytes]] = []
        self._flush_call: Timer | None = None
        self._pinged = clock.seconds()
        self._unlisten = watcher.listen(self._heard)

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, request: Any) -> bool:
        """Stream to this request from now on; False when there are too many."""
        if len(self._streams) >= MOST:
            return False
        stream = _Stream(request, self._streams.discard)
        self._streams.add(stream)
        documents = [_frame(name, self.documents.of(name)) for name in _WHOLE.values()]
        stream.send(b"retry: 1000\n\n" + b"".join(documents))
        return True

    def close(self) -> None:
        """End all streams."""
        self._unlisten()
        if self._flush_call is not None and self._flush_call.active():
            self._flush_call.cancel()
        for stream in tuple(self._streams):
            stream.drop()

    def _heard(self, kind: str, value: dict[str, Any]) -> None:
        self.documents.changed(kind)
        if not self._streams:
            return
        if kind in ("cluster", "history"):  # whole: the newest is enough
            self._pending = [item for item in self._pending if item[0] != kind]
            self._pending.append((kind, b""))
        else:
            self._pending.append((kind, encoded(value)))
        if self._flush_call is None or not self._flush_call.active():
            self._flush_call = self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        frames = [_frame(kind, data or self.documents.of(kind)) for kind, data in pending]
        if self._clock.seconds() - self._pinged >= _PING_EVERY:
            self._pinged = self._clock.seconds()
            frames.append(b": ping\n\n")
        data = b"".join(frames)
        for stream in tuple(self._streams):
            stream.send(data)


@implementer(IPushProducer)
class _Stream:
    """One page: what it does not read is kept, up to BACKLOG bytes; then it is dropped."""

    def __init__(self, request: Any, gone: Any) -> None:
        self._request = request
        self._gone = gone
        self._paused = False
        self._kept: list[bytes] = []
        self._size = 0
        request.notifyFinish().addBoth(self._ended)
        request.registerProducer(self, True)

    def send(self, data: bytes) -> None:
        if not self._paused:
            self._request.write(data)
            return
        self._kept.append(data)
        self._size += len(data)
        if self._size > BACKLOG:
            self.drop()

    def drop(self) -> None:
        """End it now."""
        self._forget()
        self._request.channel.transport.abortConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        kept, self._kept, self._size = self._kept, [], 0
        if kept:
            self._request.write(b"".join(kept))

    def stopProducing(self) -> None:
        self._forget()

    def _ended(self, _: object) -> None:
        self._forget()

    def _forget(self) -> None:
        self._kept, self._size, self._paused = [], 0, True
        self._gone(self)
