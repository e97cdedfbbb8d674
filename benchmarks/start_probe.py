"""A program that starts: python -m benchmarks.start_probe txharedis|txredisapi NODE ...

{"do": "start"} is answered with the seconds that `import` took, and those from making the client to
its first reply, and with the processor time of both. Nothing of Twisted is imported before that,
and the reactor runs when the client is made.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def start(module: str, nodes: list[str]) -> dict[str, Any]:
    began = _now()
    if module == "txharedis":
        from txharedis import create_client
    else:
        import txredisapi
    answer: dict[str, Any] = {}
    _note(answer, "import", began)

    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    running: Any = reactor

    async def first_reply() -> None:
        began = _now()
        if module == "txharedis":
            client: Any = create_client(nodes, reactor=running)
        else:
            host, port = nodes[0].split(":")
            client = await txredisapi.Connection(host, int(port), reconnect=False)
        await client.get("start")
        _note(answer, "reply", began)
        await (client.quit() if module == "txharedis" else client.disconnect())

    def failed(failure: Any) -> None:
        answer["error"] = failure.getErrorMessage()

    def begin() -> None:
        done: Deferred[None] = Deferred.fromCoroutine(first_reply())
        done.addErrback(failed)
        done.addBoth(lambda _: running.stop())

    running.callWhenRunning(begin)
    running.run()
    return answer


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _note(answer: dict[str, Any], what: str, began: tuple[float, float]) -> None:
    now = _now()
    answer[what] = now[0] - began[0]
    answer[f"{what} cpu"] = now[1] - began[1]


if __name__ == "__main__":
    sys.stdin.readline()
    print(json.dumps(start(sys.argv[1], sys.argv[2:])), flush=True)
