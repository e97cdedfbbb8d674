"""What the floors ask of each other and of the reactor, as structural types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import hiredis
from twisted.internet.defer import Deferred

__all__ = [
    "LONG",
    "NOBODY",
    "Args",
    "Clock",
    "DialledLink",
    "Link",
    "Reactor",
    "Submitter",
    "Timer",
    "Waiter",
    "pack",
    "pack_long",
    "wait_command",
]

#: One command with its arguments, as hiredis encodes them.
Args = Sequence[bytes | str | int | float]


#: Takes one command, and as it goes over the wire; the Deferred fires with its converted reply.
Submitter: TypeAlias = Callable[[Args, bytes], Deferred[object]]

#: Encodes one command, a tuple, as it goes over the wire. It raises TypeError for what it does not
#: know how to encode and UnicodeEncodeError for text that is not UTF-8.
pack: Callable[[Any], bytes] = hiredis.pack_command

#: The length from which on a copy of a word costs more than a few calls.
LONG = 16 * 1024


def pack_long(args: Args) -> bytes:
    """As `pack`, where words may be long: it copies them once, `pack` does so twice.

    Short words are left to `pack`, with its errors.
    """
    parts = [b"*%d\r\n" % len(args)]
    for word in args:
        data = word.encode() if isinstance(word, str) else word
        if isinstance(data, bytes) and len(data) >= LONG:
            parts += (b"$%d\r\n" % len(data), data, b"\r\n")
        else:
            parts.append(pack((word,))[len(b"*1\r\n") :])
    return b"".join(parts)


def wait_command(acks: int, timeout: float) -> tuple[str, int, int]:
    """The WAIT for the confirmation of so many replicas, `timeout` seconds at most.

    Its 0 would be no limit: it is one millisecond at least.
    """
    return ("WAIT", acks, max(1, round(timeout * 1000)))


class Timer(Protocol):
    """IDelayedCall, as far as we use it."""

    def active(self) -> bool: ...

    def cancel(self) -> None: ...


class Clock(Protocol):
    """IReactorTime, as far as we use it: `task.Clock` is one."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> Timer: ...


class Reactor(Clock, Protocol):
    """What we need of a reactor: the time, and to dial (IReactorTCP)."""

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = ...) -> Any: ...


class Waiter(Protocol):
    """Somebody who waits for a reply; exactly one of the two is called for each command written."""

    def settle(self, reply: object) -> None: ...

    def lost(self) -> None: ...


class Link(Protocol):
    """A link, as seen by those who send commands over it.

    `send` writes the commands in one piece; each waiter gets one reply, in order. It returns False,
    and has written nothing, when the link is gone. `db` is the database that is selected on it.
    While replies are handed out, `after_read` takes what is to be called when all that have arrived
    are; it returns False, and takes nothing, at other times.
    """

    db: int

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool: ...

    def after_read(self, call: Callable[[], object]) -> bool: ...


class DialledLink(Protocol):
    """A connection, as seen by the factory that keeps it."""

    factory: Any

    def abort(self) -> None: ...


class _Nobody:
    """Waits for a reply that tells nothing."""

    def settle(self, reply: object) -> None:
        pass

    def lost(self) -> None:
        pass


NOBODY = _Nobody()
