"""How long writes stand still when the master is killed (SIGKILL) or hangs (SIGSTOP).

`outage` is the time from the signal to the first acknowledged write that was submitted after it;
`gap` is the longest time between two consecutive acknowledged writes of a client, the last one
before the fault included. The server is started again, empty, and is a replica in sync before the
next fault. Three servers each: ours, those of Sentinel and those of Node haredis take turns, and
who has not the turn does not write.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any, Protocol

from benchmarks.node_failover import NodePeer
from benchmarks.outage import SIGNALS, Fault, Ours, Pace
from benchmarks.processes import PeerFailed
from benchmarks.report import Goal, in_ms, show_goals, spread, table
from benchmarks.sentinel import SentinelPeer
from benchmarks.stage import Stage, count
from txharedis import Options
from txharedis.options import DELIVERIES
from txharedis.testing.waiting import NotInTime

__all__ = ["add_arguments", "run"]

HEADER = ["outage in ms", "faults", "median", "p90", "p99", "max"]
DOWN_AFTER = Options().down_after


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--kills", type=count, default=50, help="faults of each series (%(default)s)")
    add("--peer-kills", type=int, default=5, help="of each peer (%(default)s)")
    add(
        "--clients",
        type=count,
        nargs="+",
        default=[1, 50],
        metavar="N",
        help="one series for each number of clients in one process (1 50)",
    )
    add("--in-flight", type=count, default=100, metavar="N", help="of 1 client (%(default)s)")
    add("--signal", choices=list(SIGNALS), default="kill", help="(%(default)s)")
    add("--delivery", choices=DELIVERIES, default="exactly-once", help="(%(default)s)")
    add("--acks", type=int, default=1, help="(%(default)s)")


class Peer(Protocol):
    """Another software; `outages` in seconds."""

    name: str
    outages: list[float]

    async def strike(self) -> None: ...


async def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the tables, and return what each fault did, and the goals."""
    series: dict[str, Any] = {}
    outages: dict[str, list[float]] = {}
    goals: list[Goal] = []
    fault = f"SIG{options.signal.upper()}"
    print(f"{fault}; {options.delivery}, acks={options.acks}", flush=True)
    for number, clients in enumerate(options.clients):
        several = clients > 1
        pace = Pace(1, 0.01) if several else Pace(options.in_flight, 0.0)
        async with AsyncExitStack() as stack:
            ours = await stack.enter_async_context(
                Ours.running(
                    stage,
                    clients,
                    pace,
                    options.signal,
                    delivery=options.delivery,
                    acks=options.acks,
                )
            )
            peers = await _peers(stage, options, stack) if number == 0 else []
            await _take_turns(stage, ours, peers, options)
            outages[f"txharedis, {clients} client(s)"] = [
                one for struck in ours.faults for one in struck.outages
            ]
            outages |= {peer.name: peer.outages for peer in peers if peer.outages}
            series[f"{clients} clients"] = _figures(ours)
            _show(clients, ours)
        if not several:
            goals += _goals(ours.faults, options)
    rows = [
        [name, len(values), *map(in_ms, spread(values).values())]
        for name, values in outages.items()
    ]
    print(f"\nSide by side, {fault}:\n\n{table(HEADER, rows)}", flush=True)
    return {
        "signal": options.signal,
        "series": series,
        "peers": {name: {"outages": values} for name, values in outages.items()},
        "goals": show_goals(goals),
    }


async def _peers(stage: Stage, options: argparse.Namespace, stack: AsyncExitStack) -> list[Peer]:
    if stage.alone or not options.peer_kills:
        stage.leave_out("Sentinel and Node haredis", "--alone, or --peer-kills 0")
        return []
    peers: list[Peer] = []
    for kind in (SentinelPeer, NodePeer):
        why = kind.missing(stage)
        if why is None:
            peers.append(await stack.enter_async_context(kind.running(stage, options.signal)))
        else:
            stage.leave_out(kind.name, why)
    return peers


async def _take_turns(
    stage: Stage, ours: Ours, peers: Sequence[Peer], options: argparse.Namespace
) -> None:
    """The faults of the peers are spread over ours."""
    going = list(peers)
    for turn in range(max(options.kills, options.peer_kills if going else 0)):
        if turn < options.kills:
            await ours.strike()
        due = (turn + 1) * options.peer_kills / max(options.kills, options.peer_kills)
        for peer in list(going):
            if len(peer.outages) < int(due):
                try:
                    await peer.strike()
                except (PeerFailed, NotInTime) as error:
                    stage.leave_out(f"{peer.name}, after {len(peer.outages)} faults", str(error))
                    going.remove(peer)


def _figures(ours: Ours) -> dict[str, Any]:
    return {
        "faults": [asdict(fault) for fault in ours.faults],
        "lost acknowledged writes": sum(fault.lost for fault in ours.faults),
        "written twice": sum(fault.twice for fault in ours.faults),
        "failed writes": dict(ours.failed),
    }


def _goals(faults: list[Fault], options: argparse.Namespace) -> list[Goal]:
    outages = spread([fault.outages[0] * 1000 for fault in faults])
    what = f"{options.in_flight} in flight, {options.delivery}, acks={options.acks}"
    if options.signal == "stop":
        bound = DOWN_AFTER * 1000 + 500
        return [Goal(f"SIGSTOP, {what}: longest outage", outages["max"], bound, True, " ms")]
    what = f"SIGKILL, {what}, {len(faults)} kills: outage"
    return [
        Goal(f"{what}, median", outages["median"], 15, True, " ms"),
        Goal(f"{what}, p99", outages["p99"], 60, True, " ms"),
    ]


def _show(clients: int, ours: Ours) -> None:
    rows: list[list[object]] = []
    faults = ours.faults

    def row(name: str, values: list[float]) -> None:
        rows.append([name, len(faults), *map(in_ms, spread(values).values())])

    if clients == 1:
        row("txharedis, 1 client", [fault.outages[0] for fault in faults])
        row("txharedis, 1 client, gap", [fault.gaps[0] for fault in faults])
    else:
        row(f"txharedis, {clients} clients, all", [one for each in faults for one in each.outages])
        row(f"txharedis, {clients} clients, the slowest", [max(each.outages) for each in faults])
        row(f"txharedis, {clients} clients, the slowest gap", [max(each.gaps) for each in faults])
    row("processor time of this process", [fault.cpu for fault in faults])
    promotions = [fault.promotions for fault in faults]
    exactly = "one each" if set(promotions) == {1} else f"NOT one each: {promotions}"
    print(
        f"\n{table(HEADER, rows)}\n\n"
        f"Promotions in the servers' logs: {sum(promotions)} ({exactly}). "
        f"Lost acknowledged writes: {sum(fault.lost for fault in faults)}, "
        f"written twice: {sum(fault.twice for fault in faults)}. "
        f"Failed writes: {dict(ours.failed) or 'none'}.",
        flush=True,
    )
