"""What local servers and proxies share: the reactor they need, and ports of their own."""

from __future__ import annotations

import random
import socket
import weakref
from collections.abc import Callable
from typing import Any, Protocol

LOOPBACK = "127.0.0.1"

# Below every system's ephemeral range: a client that dials a dead port inside that range can be
# given the same port as its own, and is then connected to itself.
_PORTS = range(20000, 32000)


class Timer(Protocol):
    """The part of `IDelayedCall` used here."""

    def active(self) -> int: ...
    def cancel(self) -> None: ...


class Dialler(Protocol):
    """A reactor that tells the time and opens TCP connections."""

    def seconds(self) -> float: ...

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> Timer: ...

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Any: ...


class ReservedPort:
    """A TCP port of 127.0.0.1 that is free, and is not handed out again while this object lives.

    Every user of this class, in any process, holds the UDP port of the same number: so a server
    that is down for a while does not lose its port to somebody else's test.
    Raises OSError if `number` is given and is taken, or if no port is free.
    """

    def __init__(self, number: int | None = None) -> None:
        candidates = [number] if number else random.sample(_PORTS, len(_PORTS))
        for candidate in candidates:
            reservation = _reserve(candidate)
            if reservation is not None:
                self.number = candidate
                self._release = weakref.finalize(self, reservation.close)
                return
        raise OSError(f"port {number} of {LOOPBACK} is taken" if number else "no port is free")

    def release(self) -> None:
        """Let others have the port."""
        self._release()


def _reserve(port: int) -> socket.socket | None:
    reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        reservation.bind((LOOPBACK, port))
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            trial.bind((LOOPBACK, port))
    except OSError:
        reservation.close()
        return None
    return reservation
