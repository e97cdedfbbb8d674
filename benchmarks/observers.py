"""What metrics and spans add to each command: the same load with and without them, in turns."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from statistics import median

from twisted.internet.defer import Deferred, DeferredList

from benchmarks.group import running_group
from benchmarks.report import table
from benchmarks.stage import Stage, count
from txharedis import HAClient, create_client

__all__ = ["add_arguments", "run"]

COMMANDS = 20000
"""So many SETs are one round."""

Observe = Callable[[HAClient], Callable[[], object]]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--in-flight", type=count, default=100, help="(%(default)s)")


async def run(stage: Stage, settings: Namespace) -> dict[str, list[float]]:
    """Measure, print, and return the seconds of CPU for each command, round by round.

    It needs the extra `prometheus` and opentelemetry-sdk.
    """
    observers: dict[str, Observe] = {"none": lambda _: lambda: None, **_observers()}
    spent: dict[str, list[float]] = {name: [] for name in observers}
    reactor, in_flight = stage.reactor, settings.in_flight
    async with running_group(reactor, stage.program) as servers:
        nodes = [server.address for server in servers]
        client = create_client(nodes, reactor=reactor, charset=None, convert_numbers=False)
        try:
            await client.when_ready().addTimeout(20, reactor)
            await _load(client, in_flight)  # to warm up
            for _ in range(stage.rounds):
                for name, observe in observers.items():
                    stop = observe(client)
                    spent[name].append(await _load(client, in_flight))
                    stop()
        finally:
            await client.disconnect()
    base = median(spent["none"])
    rows = [
        [name, f"{median(each) * 1e6:.1f}", f"{(median(each) - base) * 1e6:+.1f}"]
        for name, each in spent.items()
    ]
    print(f"\n{table([f'set, {in_flight} in flight', 'CPU us each', 'added'], rows)}", flush=True)
    return spent


def _observers() -> dict[str, Observe]:
    from opentelemetry.sdk.trace import TracerProvider
    from prometheus_client import CollectorRegistry

    from txharedis import metrics, tracing

    provider = TracerProvider(shutdown_on_exit=False)
    return {
        "metrics": lambda client: metrics.register(client, CollectorRegistry()).unregister,
        "spans, exported nowhere": lambda client: tracing.instrument(client, provider),
    }


async def _load(client: HAClient, in_flight: int) -> float:
    each = COMMANDS // in_flight

    async def worker() -> None:
        for _ in range(each):
            await client.set("benchmark", b"v" * 32)

    began = time.process_time()
    await DeferredList(
        [Deferred.fromCoroutine(worker()) for _ in range(in_flight)], fireOnOneErrback=True
    )
    return (time.process_time() - began) / (each * in_flight)
