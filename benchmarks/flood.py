"""A publisher in a process of its own: python -m benchmarks.flood PORT CHANNEL SIZE COUNT

It publishes `COUNT` messages of `SIZE` bytes on a server of this machine, in large pipelined
writes, and ends when all of them were answered.
"""

from __future__ import annotations

import socket
import sys

import hiredis

from txharedis.interfaces import pack

BATCH = 2000


def publish(port: int, channel: str, size: int, count: int) -> None:
    command = pack(("PUBLISH", channel, b"v" * size))
    reader = hiredis.Reader()
    with socket.create_connection(("127.0.0.1", port)) as link:
        left = count
        while left:
            batch = min(BATCH, left)
            link.sendall(command * batch)
            left -= batch
            while batch:
                reader.feed(link.recv(65536))
                while reader.gets() is not False:
                    batch -= 1


if __name__ == "__main__":
    publish(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
