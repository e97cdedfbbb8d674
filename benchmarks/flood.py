"""A publisher in a process of its own.

    python -m benchmarks.flood PORT CHANNEL SIZE COUNT
    python -m benchmarks.flood --paced PORT CHANNEL SIZE RATE SECONDS

It publishes `COUNT` messages of `SIZE` bytes on a server of this machine, in large pipelined
writes, and ends when all of them were answered; or `RATE` a second for some seconds.
"""

from __future__ import annotations

import socket
import sys
import time

import hiredis

from txharedis.interfaces import pack

BATCH = 2000
PERIOD = 0.01
"""Seconds between two writes of who is paced."""


class Publisher:
    def __init__(self, link: socket.socket, channel: str, size: int) -> None:
        self._link = link
        self._command = pack(("PUBLISH", channel, b"v" * size))
        self._reader = hiredis.Reader()

    def publish(self, count: int) -> None:
        """Returns when all are answered."""
        self._link.sendall(self._command * count)
        while count:
            data = self._link.recv(65536)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._reader.feed(data)
            while self._reader.gets() is not False:
                count -= 1


def flood(publisher: Publisher, count: int) -> None:
    while count:
        batch = min(BATCH, count)
        publisher.publish(batch)
        count -= batch


def paced(publisher: Publisher, rate: int, seconds: float) -> None:
    began = time.monotonic()
    published = 0
    while (elapsed := time.monotonic() - began) < seconds:
        due = round(rate * elapsed) - published
        if due > 0:
            publisher.publish(due)
            published += due
        time.sleep(PERIOD)


def main(words: list[str]) -> None:
    is_paced = words[0] == "--paced"
    port, channel, size, amount, *rest = words[1:] if is_paced else words
    with socket.create_connection(("127.0.0.1", int(port))) as link:
        publisher = Publisher(link, channel, int(size))
        if is_paced:
            paced(publisher, int(amount), float(rest[0]))
        else:
            flood(publisher, int(amount))


if __name__ == "__main__":
    main(sys.argv[1:])
