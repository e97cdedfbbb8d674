"""Write and read while the servers come and go: python examples/basic.py HOST:PORT HOST:PORT ...

Kill any one of the servers while it runs.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import deferLater, react

from txharedis import OutcomeUnknown, create_client

ROUNDS = 20


async def main(reactor: Any, *nodes: str) -> None:
    client = create_client(list(nodes), reactor=reactor, debug_mode=True, convert_numbers=False)
    for number in range(ROUNDS):
        try:
            await client.set("example", f"round {number}")
        except OutcomeUnknown as error:
            print(error)  # with one node; with several, a write is redispatched, and done once
        print(await client.get("example"), "from", client.master)
        await deferLater(reactor, 0.1)
    await client.quit()


if __name__ == "__main__":
    react(main, sys.argv[1:])
