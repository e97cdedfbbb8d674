"""What subscribers that do not read cost the commands of the same client.

Another process publishes all the time. The client has no subscription, one that is called for each
message, or as many message streams that nobody reads; and runs SET, so many at a time. Each of the
three has a channel of its own, so that it alone gets what is published in its turn.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.contestants import TxHARedis
from benchmarks.group import running_group
from benchmarks.lineup import ready_group
from benchmarks.load import Case, Local, fill
from benchmarks.processes import PeerProcess
from benchmarks.report import table
from benchmarks.stage import Round, Stage, alternate, as_figures, middle, ratio
from txharedis import HAClient

__all__ = ["run"]

SECONDS = 1.0
RATE = 2000
"""Messages a second."""

BUFFER = 100
"""Messages that are kept for each reader."""


class _Situation:
    """A client with some subscriptions."""

    def __init__(self, reactor: Any, name: str, channel: str, client: HAClient, port: int) -> None:
        self.name = name
        self._channel = channel
        self.client = client
        self._runner = Local(reactor, TxHARedis(name, client))
        self._port = port

    async def round(self, reactor: Any, warming: bool) -> Round:
        case = Case("set", 100)
        seconds = SECONDS / 4 if warming else SECONDS
        words = ["--paced", str(self._port), self._channel, "32", str(RATE), str(seconds)]
        flood = PeerProcess.start(
            reactor, "flood", [sys.executable, "-m", "benchmarks.flood", *words]
        )
        done = await self._runner.round(case, seconds)
        await flood.close()
        return done


async def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, and return all rounds and how many messages were dropped."""
    reactor = stage.reactor
    async with running_group(reactor, stage.program) as servers, AsyncExitStack() as stack:
        situations = []
        streams = []
        for name in ("none", "one", "many"):
            client, master = await ready_group(reactor, servers, charset=None)
            stack.push_async_callback(client.quit)
            label = {"none": "no subscription", "one": "1 that reads"}.get(
                name, f"{options.readers} that do not read"
            )
            channel = f"slow:{name}"
            if name == "one":
                await client.subscribe(channel, lambda message: None)
            if name == "many":
                for _ in range(options.readers):
                    stream = client.messages(channel, buffer=BUFFER)
                    streams.append(await stack.enter_async_context(stream))
            situations.append(_Situation(reactor, label, channel, client, master.port))
        fill(master.port, Case("set", 100))
        rounds = await alternate(
            stage, situations, lambda situation, warming: situation.round(reactor, warming)
        )
        dropped = [stream.dropped for stream in streams]
    rows = []
    for name in rounds:
        rate = middle(rounds, name, lambda each: each.rate)
        cpu = middle(rounds, name, lambda each: each.cpu)
        times = ratio(rounds, name, situations[0].name, lambda each: each.rate)
        rows.append(
            [
                name,
                "" if rate is None else f"{rate:.0f}",
                "" if times is None else f"{times:.2f}",
                "" if cpu is None else f"{cpu * 1e6:.1f}",
            ]
        )
    header = [f"SET, {RATE} messages/s, subscriptions:", "per second", "ratio", "CPU us each"]
    print(
        f"\n{table(header, rows)}\n\nEach reader was kept {BUFFER} messages; dropped: "
        f"{min(dropped)} to {max(dropped)}.",
        flush=True,
    )
    return {"rounds": as_figures(rounds), "dropped": dropped}
