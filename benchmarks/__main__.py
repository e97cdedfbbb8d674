"""Measure txharedis beside others, on real servers on this machine.

    python -m benchmarks                                 all of it, some ten minutes
    python -m benchmarks throughput --rounds 9
    python -m benchmarks pubsub
    python -m benchmarks observers                       what metrics and spans cost
    python -m benchmarks failover --kills 50 --clients 1 50 --peer sentinel --json figures.json
    python -m benchmarks monitor --pages 100 --seconds 30
    python -m benchmarks chaos --minutes 30 --nodes 5 --acks 1

Run it from the root of the repository, on a quiet machine. All traffic stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks import chaos, failover, monitor, observers, pubsub, sentinel, throughput
from benchmarks.group import choose_program
from benchmarks.report import environment
from txharedis.options import DELIVERIES


def parse(arguments: list[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=["throughput", "pubsub", "failover", "observers", "monitor", "chaos", "all"],
        default="all",
        help="(all: without observers, monitor and chaos)",
    )
    parser.add_argument("--server", metavar="NAME", help="redis, valkey, or as redis-7.0.15")
    parser.add_argument("--json", metavar="FILE", type=Path, help="keep all figures there")
    load = throughput.Settings()
    group = parser.add_argument_group("throughput")
    group.add_argument("--rounds", type=int, default=load.rounds, help="(%(default)s)")
    group.add_argument(
        "--seconds",
        type=float,
        help=f"of each round ({load.seconds}), or of the monitor ({monitor.Settings().seconds})",
    )
    group.add_argument("--in-flight", type=int, default=load.in_flight, help="(%(default)s)")
    group.add_argument(
        "--profile", metavar="FILE", help="only this: cProfile's figures of SET by txharedis"
    )
    flood = pubsub.Settings()
    group = parser.add_argument_group("pubsub (in as many rounds as throughput)")
    group.add_argument(
        "--messages", type=int, default=flood.messages, help="of each round (%(default)s)"
    )
    outage = failover.Settings()
    group = parser.add_argument_group("failover")
    group.add_argument("--kills", type=int, default=outage.kills, help="(%(default)s)")
    group.add_argument(
        "--clients",
        type=int,
        nargs="+",
        default=outage.clients,
        metavar="N",
        help="one series of kills for each number of clients (1 50)",
    )
    group.add_argument("--delivery", choices=DELIVERIES, default=outage.delivery)
    group.add_argument("--acks", type=int, default=outage.acks, help="(%(default)s)")
    group.add_argument("--peer", choices=["sentinel"], help="the same kill with another software")
    group.add_argument("--peer-kills", type=int, default=5, help="(%(default)s)")
    watch = monitor.Settings()
    group = parser.add_argument_group("monitor")
    group.add_argument(
        "--pages", type=int, default=watch.pages, help="that are open at once (%(default)s)"
    )
    chaos.add_arguments(parser)
    return parser.parse_args(arguments)


async def measure(reactor: Any, options: argparse.Namespace) -> None:
    program = choose_program(options.server)
    kept: dict[str, Any] = {"environment": environment(program)}
    print(", ".join(f"{name} {value}" for name, value in kept["environment"].items()), flush=True)
    if options.what in ("throughput", "all"):
        load = throughput.Settings(
            options.rounds,
            options.seconds or throughput.Settings().seconds,
            options.in_flight,
            options.profile,
        )
        kept["throughput"] = await throughput.run(reactor, program, load)
    if options.what in ("pubsub", "all"):
        flood = pubsub.Settings(options.rounds, options.messages)
        kept["pubsub"] = await pubsub.run(reactor, program, flood)
    if options.what in ("failover", "all"):
        outage = failover.Settings(
            options.kills, tuple(options.clients), options.delivery, options.acks
        )
        kept["failover"] = await failover.run(reactor, program, outage)
        if options.peer == "sentinel":
            kept["sentinel"] = await sentinel.run(reactor, program, options.peer_kills)
    if options.what == "monitor":
        watched = monitor.Settings(options.pages, options.seconds or monitor.Settings().seconds)
        kept["monitor"] = await monitor.run(reactor, program, watched)
    if options.what == "observers":
        kept["observers"] = await observers.run(reactor, program, options.rounds, options.in_flight)
    healthy = True
    if options.what == "chaos":
        totals = await chaos.run(reactor, program, options)
        kept["chaos"] = totals.figures()
        healthy = totals.healthy or options.peer is not None
    if options.json is not None:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    if not healthy:
        raise SystemExit(1)


def main(reactor: Any, *arguments: str) -> Deferred[None]:
    return Deferred.fromCoroutine(measure(reactor, parse(list(arguments))))


if __name__ == "__main__":
    react(main, sys.argv[1:])
