"""`haredis history`: the failovers of the group, as its servers keep them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from txharedis.chronicle import HISTORY_KEY, FailoverRecord, read_history
from txharedis.cli.looking import opened
from txharedis.cli.running import Program, complain, say, say_json
from txharedis.cli.settings import Settings, add_node_options, read_settings
from txharedis.cli.table import moment, table
from txharedis.errors import InvalidOption
from txharedis.topology import Address

__all__ = ["add_to", "drawn", "newest"]


def add_to(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the failovers and switchovers of the group, newest first: the servers keep the newest"
        " hundred, and any of them that is up can tell. The exit status is 0, or 1 when none can be"
        " read, 2 for bad usage."
    )
    add_node_options(parser, waits_for="the nodes to answer")
    parser.add_argument("--limit", type=_limit, metavar="N", help="the newest N of them only")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(program=lambda given: _program(parser, given))


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _program(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Program:
    try:
        settings = read_settings(given)
    except InvalidOption as error:
        parser.error(str(error))

    async def program(reactor: Any) -> int:
        try:
            records = await _ask(reactor, settings)
        except _NotTold as error:
            complain("history", str(error))
            return 1
        records = records[: given.limit]
        if given.json:
            say_json({"failovers": list(map(_plain, records))})
        elif records:
            say(*drawn(records))
        else:
            say("no failover is known")
        return 0

    return program


class _NotTold(Exception):
    """No node tells; the text says why."""


async def _ask(reactor: Any, settings: Settings) -> tuple[FailoverRecord, ...]:
    async with opened(reactor, settings) as group:
        await group.settle(settings.timeout)
        master = group.service.topology.master
        answers = await group.service.ask_nodes(["HGETALL", HISTORY_KEY])
        nodes = group.service.topology.nodes
    told = {node: replies[0] for node, replies in answers.items()}
    if not any(isinstance(reply, list) for reply in told.values()):
        troubles = [f"{node} says: {reply}" for node, reply in told.items()]
        troubles += [
            f"{node.address} is {node.status.value}" + (f": {node.reason}" if node.reason else "")
            for node in nodes
            if node.address not in told
        ]
        raise _NotTold("no node tells of the history: " + "; ".join(troubles))
    return newest(told, master)


def newest(told: Mapping[Address, object], master: Address | None) -> tuple[FailoverRecord, ...]:
    """The history that is the right one: the master's, or without one that which goes furthest."""
    if master is not None and isinstance(told.get(master), list):
        return read_history(told[master])
    histories = [read_history(reply) for reply in told.values()]
    return max(histories, key=lambda history: (history[0].epoch if history else -1, len(history)))


def _plain(record: FailoverRecord) -> dict[str, Any]:
    return {**asdict(record), "planned": record.planned, "seen": "told by the servers"}


COLUMNS = ("At", "Epoch", "From", "To", "Kind", "Outage", "Offsets", "Discarded", "Why")


def drawn(records: Sequence[FailoverRecord]) -> list[str]:
    """The lines of the table."""
    return table(COLUMNS, list(map(_row, records)), right=("Epoch", "Outage", "Discarded"))


def _row(record: FailoverRecord) -> list[str]:
    before = "?" if record.old_offset is None else str(record.old_offset)
    after = "?" if record.offset is None else str(record.offset)
    return [
        moment(record.at),
        str(record.epoch),
        record.old or "(none)",
        record.new,
        "switchover" if record.planned else "failover",
        f"{1000 * record.outage:.1f} ms" if record.outage else "",
        f"{before} -> {after}",
        "" if record.discarded is None else f"{record.discarded} B",
        "; ".join(filter(None, (record.reason, record.why))),
    ]
