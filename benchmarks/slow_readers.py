"""What subscribers that do not read cost the commands of the same client.

Another process publishes all the time. The client has no subscription, one that is called for each
message, or as many message streams that nobody reads; and runs SET, 100 at a time for the rate,
then one at a time for the latency. Each of the three has a channel of its own, so that it alone
gets what is published in its turn. At the end the streams are read: how many messages each had
kept, and how many it tells that it dropped.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from benchmarks.contestants import TxHARedis
from benchmarks.group import running_group
from benchmarks.lineup import ready_group
from benchmarks.load import Case, Local, fill
from benchmarks.processes import PeerProcess
from benchmarks.report import in_ms, table
from benchmarks.stage import Round, Stage, alternate, as_figures, middle, ratio
from txharedis import HAClient
from txharedis.pubsub.streams import MessageStream

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
        seconds = SECONDS / 4 if warming else SECONDS
        words = ["--paced", str(self._port), self._channel, "32", str(RATE), str(2 * seconds)]
        flood = PeerProcess.start(
            reactor, "flood", [sys.executable, "-m", "benchmarks.flood", *words]
        )
        together = await self._runner.round(Case("set", 100), seconds)
        alone = await self._runner.round(Case("set", 1), seconds)
        await flood.close()
        return replace(together, p50=alone.p50, p99=alone.p99)


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
        kept = [await _kept(stream) for stream in streams]
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
                *(
                    "" if value is None else in_ms(value)
                    for value in (
                        middle(rounds, name, lambda each: each.p50),
                        middle(rounds, name, lambda each: each.p99),
                    )
                ),
            ]
        )
    header = [f"SET, {RATE} messages/s, subscriptions:", "per second", "ratio", "CPU us each"]
    header += ["one at a time: p50 ms", "p99 ms"]
    print(
        f"\n{table(header, rows)}\n\nFor each reader {min(kept)} to {max(kept)} messages kept; "
        f"it was told of {min(dropped)} to {max(dropped)} that were dropped.",
        flush=True,
    )
    return {"rounds": as_figures(rounds), "dropped": dropped, "kept": kept}


async def _kept(stream: MessageStream) -> int:
    """How many messages are read before the stream waits for the next one."""
    number = 0
    while True:
        reading = Deferred.fromCoroutine(anext(stream))
        if not reading.called:
            reading.addErrback(lambda failure: failure.trap(CancelledError))
            reading.cancel()
            return number
        await reading
        number += 1
