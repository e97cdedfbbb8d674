"""`haredis status`: the group in a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import deferLater

from txharedis.cli.looking import EXIT, opened
from txharedis.cli.running import Program, say, say_json
from txharedis.cli.settings import Settings, add_node_options, read_settings
from txharedis.cli.table import size, table
from txharedis.errors import InvalidOption
from txharedis.log import printable
from txharedis.options import check_seconds

__all__ = ["add_to", "drawn"]


def add_to(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show the group: who is master, and how the other nodes are. Nothing is changed on them."
        " The exit status is 0 when the group is healthy, 1 when it is degraded, 2 when there is no"
        " master, or for bad usage."
    )
    add_node_options(parser, waits_for="the nodes to answer")
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="show it again every so many seconds (default: 2), until Ctrl-C",
    )
    parser.add_argument(
        "--json", action="store_true", help="as JSON; with --watch one object a line"
    )
    parser.set_defaults(program=lambda given: _program(parser, given))


def _program(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Program:
    try:
        settings = read_settings(given)
        if given.watch is not None:
            check_seconds("watch", given.watch)
    except InvalidOption as error:
        parser.error(str(error))

    async def program(reactor: Any) -> int:
        return await _show(reactor, settings, given.watch, as_json=given.json)

    return program


async def _show(reactor: Any, settings: Settings, every: float | None, *, as_json: bool) -> int:
    async with opened(reactor, settings) as group:
        await group.settle(settings.timeout)
        while True:
            state = await group.state()
            if as_json:
                say_json(state, indent=2 if every is None else None)
            elif every is not None and sys.stdout.isatty():
                # Over what stands there, line by line, and what is below it away: no flicker.
                lines = "".join(f"{line}\x1b[K\n" for line in drawn(state))
                print(f"\x1b[H{lines}\x1b[J", end="", flush=True)
            else:
                say(*drawn(state), *([""] if every is not None else []))
            if every is None:
                return EXIT[state["state"]]
            await deferLater(reactor, every)


COLUMNS = {
    "Node": "node",
    "Role": "role",
    "State": "status",
    "Epoch": "epoch",
    "Lag in bytes": "lag_bytes",
    "Offset": "offset",
    "Opcounter": "opcounter",
    "Memory": "memory_bytes",
    "Clients": "connected_clients",
    "Version": "version",
    "Reason": "reason",
}
_NUMBERS = ("Epoch", "Lag in bytes", "Offset", "Opcounter", "Memory", "Clients")


def drawn(state: Mapping[str, Any]) -> list[str]:
    """The lines of the table for a state as cluster_state gives it, and what is wrong below it."""
    columns = [
        name
        for name in COLUMNS
        if name != "Reason" or any(node["reason"] for node in state["nodes"])
    ]
    rows = [[_cell(node, name) for name in columns] for node in state["nodes"]]
    group = state["group"][:8] or "(none)"
    count = len(state["nodes"])
    title = f"Group: {group} (epoch {state['epoch']}, quorum {state['quorum']} of {count})"
    lines = table(columns, rows, title=title, right=_NUMBERS)
    return lines + (
        [printable(f"{state['state']}: {why}") for why in state["why"]] or [state["state"]]
    )


def _cell(node: Mapping[str, Any], column: str) -> str:
    if column == "State":
        return _state(node)
    value = node[COLUMNS[column]]
    if column == "Memory":
        return size(value)
    if column == "Role":
        return "" if value is None else str(value).capitalize()
    if column == "Lag in bytes" and node["role"] == "master":
        return ""
    return "" if value is None else str(value)


def _state(node: Mapping[str, Any]) -> str:
    """In the words of Patroni where it has one."""
    if node["status"] != "up":
        return str(node["status"])
    if node["loading"]:
        return "loading"
    if node["role"] != "replica":
        return "running"
    words = {"up": "streaming", "down": "link down", "syncing": "syncing", None: "running"}
    return words[node["link"]]
