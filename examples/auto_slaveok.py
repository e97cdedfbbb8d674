"""Read from replicas, write to the master: python examples/auto_slaveok.py HOST:PORT HOST:PORT ...

The log names the node of each command. Replicas more than two seconds behind are not read.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import deferLater, react

from txharedis import create_client

ROUNDS = 10


async def main(reactor: Any, *nodes: str) -> None:
    client = create_client(
        list(nodes),
        reactor=reactor,
        auto_slaveok=True,
        max_lag="2s",
        debug_mode=True,
        command_logging=True,
    )
    await client.when_ready()
    mine = client.read_your_writes()
    for number in range(ROUNDS):
        await mine.set("example", f"round {number}")
        print("own writes are seen:", await mine.get("example"))
        print("a replica, or the master:", await client.get("example"))
        print("the master:", await client.slave_ok(False).get("example"))
        print("the nearest node:", await client.read_from("nearest").get("example"))
        await deferLater(reactor, 0.1)
    await client.quit()


if __name__ == "__main__":
    react(main, sys.argv[1:])
