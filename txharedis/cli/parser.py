"""The command line: its subcommands, and what they are told."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from txharedis._version import __version__
from txharedis.cli import check, demo, failover, history, status, switchover
from txharedis.cli.running import Program, run

__all__ = ["main"]

_COMMANDS = (
    ("status", status, "show the group: who is master, and how the others are"),
    ("check", check, "look for what would keep a failover from happening"),
    ("history", history, "list the failovers of the group"),
    ("switchover", switchover, "move the master to another node, as planned"),
    ("failover", failover, "replace a master that is gone, or say what would happen"),
    ("demo", demo, "watch a failover on three servers of its own"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, those of the process when None.

    Returns the exit status: that of the subcommand, or 128 + the number of the signal that ended
    it. Bad usage prints a message and raises SystemExit(2). The global reactor runs in here, which
    it can do once in a process.
    """
    arguments = _parser().parse_args(argv)
    program: Program = arguments.program(arguments)
    return run(program)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="haredis",
        description="High availability for Redis and Valkey without Sentinel.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module, summary in _COMMANDS:
        module.add_to(commands.add_parser(name, help=summary, allow_abbrev=False))
    return parser
