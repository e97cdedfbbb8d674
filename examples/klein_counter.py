"""A web page that counts its visitors, and goes on while the Redis master is killed.

pip install klein
python examples/klein_counter.py tcp:8080:interface=127.0.0.1 HOST:PORT HOST:PORT HOST:PORT
curl http://127.0.0.1:8080/          # how many visits
curl http://127.0.0.1:8080/health    # 200 and the nodes, or 503 while there is no master
"""

from __future__ import annotations

import sys
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.server import Request, Site

from txharedis import HAClient, HARedisError, create_client


class Counter:
    """The pages."""

    app = Klein()

    def __init__(self, redis: HAClient) -> None:
        self.redis = redis

    @app.route("/")
    async def visit(self, request: Request) -> str:
        request.setHeader("content-type", "text/plain")
        try:
            return f"{await self.redis.incr('visits')} visits, says {self.redis.master}\n"
        except HARedisError as error:
            request.setResponseCode(503)
            return f"not counted: {error}\n"

    @app.route("/health")
    def health(self, request: Request) -> str:
        request.setHeader("content-type", "text/plain")
        request.setResponseCode(200 if self.redis.master else 503)
        lines = [f"{node.address} {node.status.value}" for node in self.redis.topology.nodes]
        return "\n".join([f"master {self.redis.master}", *lines, ""])


async def main(reactor: Any, place: str, *nodes: str) -> None:
    # With several nodes a visit is counted once, whatever happens meanwhile.
    redis = create_client(list(nodes), reactor=reactor, command_timeout=10)
    port = await serverFromString(reactor, place).listen(Site(Counter(redis).app.resource()))
    print("listening on", port.getHost().port, flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", redis.quit)
    await Deferred()  # for ever


if __name__ == "__main__":
    react(main, sys.argv[1:])
