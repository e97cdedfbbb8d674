"""Measure txharedis beside others, on real servers on this machine.

    python -m benchmarks                                 the first seven, half an hour
    python -m benchmarks throughput --rounds 9 --node
    python -m benchmarks latency
    python -m benchmarks pubsub
    python -m benchmarks failover --kills 100 --clients 1 50 --node --json figures.json
    python -m benchmarks failover --signal stop --kills 10
    python -m benchmarks memory
    python -m benchmarks scale --clients 1 50 200
    python -m benchmarks start                           import, and the first reply
    python -m benchmarks observers                       what metrics and spans cost
    python -m benchmarks hops                            a command's way through our code
    python -m benchmarks monitor --pages 100 --seconds 30
    python -m benchmarks reactors                        epoll, asyncio and uvloop
    python -m benchmarks chaos --minutes 30 --nodes 5 --acks 1

`python -m benchmarks throughput --help` lists the options of one of them. Run it from the root of
the repository, on a quiet machine. All traffic stays on 127.0.0.1. docs/performance.md says what is
measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks import (
    chaos,
    failover,
    hops,
    latency,
    memory,
    monitor,
    observers,
    pubsub,
    reactors,
    scale,
    start,
    throughput,
)
from benchmarks.group import choose_program
from benchmarks.node import install
from benchmarks.report import environment
from benchmarks.stage import Stage, count

#: What `all` runs, in this order.
COMMANDS: dict[str, Any] = {
    "throughput": throughput,
    "latency": latency,
    "pubsub": pubsub,
    "failover": failover,
    "memory": memory,
    "scale": scale,
    "start": start,
}
#: What only runs when it is named.
APART: dict[str, Any] = {
    "hops": hops,
    "observers": observers,
    "monitor": monitor,
    "reactors": reactors,
}

#: Which options that several have each of them has.
SHARED: dict[str, tuple[str, ...]] = {
    "throughput": ("rounds", "peers"),
    "latency": ("rounds", "peers"),
    "pubsub": ("rounds", "peers"),
    "failover": ("peers",),
    "memory": ("rounds",),
    "scale": (),
    "start": (),
    "hops": (),
    "observers": ("rounds",),
    "monitor": (),
    "reactors": ("rounds",),
}


def parse(arguments: list[str]) -> argparse.Namespace:
    assert __doc__ is not None
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--server", metavar="NAME", help="redis, valkey, or as redis-7.0.15")
    common.add_argument("--json", metavar="FILE", type=Path, help="keep all figures there")
    rounds = argparse.ArgumentParser(add_help=False)
    rounds.add_argument("--rounds", type=count, default=5, help="of each (%(default)s)")
    peers = argparse.ArgumentParser(add_help=False)
    peers.add_argument(
        "--node",
        action="store_true",
        help="with Node's ioredis and haredis, installed by npm into a temporary directory",
    )
    peers.add_argument(
        "--alone", action="store_true", help="without the peers in processes of their own"
    )
    shared = {"rounds": rounds, "peers": peers}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = parser.add_subparsers(dest="what", metavar="COMMAND")
    for name, module in {**COMMANDS, **APART}.items():
        parents = [common, *(shared[each] for each in SHARED[name])]
        module.add_arguments(choices.add_parser(name, parents=parents, help=_about(module)))
    chaos.add_arguments(choices.add_parser("chaos", parents=[common], help=_about(chaos)))
    parents = [common, *shared.values()]
    choices.add_parser("all", parents=parents, help="the first seven, as they are by default")
    return parser.parse_args(arguments or ["all"])


def _about(module: Any) -> str:
    about: str = module.__doc__.partition("\n")[0]
    return about


async def measure(reactor: Any, options: argparse.Namespace) -> None:
    program = choose_program(options.server)
    kept: dict[str, Any] = {"environment": environment(program)}
    healthy = True
    if options.what == "chaos":
        _tell(kept["environment"])
        totals = await chaos.run(reactor, program, options)
        kept["chaos"] = totals.figures()
        healthy = totals.healthy or options.peer is not None
    else:
        with tempfile.TemporaryDirectory(prefix="txharedis-node-") as directory:
            stage = Stage(
                reactor,
                program,
                getattr(options, "rounds", 1),
                alone=getattr(options, "alone", False),
            )
            if getattr(options, "node", False):
                packages = install(Path(directory))
                if isinstance(packages, str):
                    stage.leave_out("Node", packages)
                else:
                    stage.node = packages
                    kept["environment"].update(packages.versions)
            _tell(kept["environment"])
            for name in COMMANDS if options.what == "all" else [options.what]:
                its = parse([name]) if options.what == "all" else options
                print(f"\n== {name}", flush=True)
                kept[name] = await {**COMMANDS, **APART}[name].run(stage, its)
            kept["left out"] = stage.left_out
    if options.json is not None:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    if not healthy:
        raise SystemExit(1)


def _tell(environment: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in environment.items()), flush=True)


def main(reactor: Any, *arguments: str) -> Deferred[None]:
    return Deferred.fromCoroutine(measure(reactor, parse(list(arguments))))


if __name__ == "__main__":
    react(main, sys.argv[1:])
