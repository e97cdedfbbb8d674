"""Run a subcommand with the global reactor, to its end or to Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred

from txharedis.log import printable

__all__ = ["Program", "complain", "run", "say", "say_json"]

Program: TypeAlias = Callable[[Any], Coroutine[Deferred[Any], Any, int]]
"""What a subcommand does: given the reactor, it returns the exit status."""


def say(*lines: str) -> None:
    """Print these lines, at once and together; parts of them come from servers."""
    print("\n".join(map(printable, lines)), flush=True)


def say_json(value: object, *, indent: int | None = 2) -> None:
    """Print it as JSON, which escapes what a terminal would obey."""
    print(json.dumps(value, indent=indent), flush=True)


def complain(command: str, text: str) -> None:
    """Say on standard error why the subcommand of this name did not succeed."""
    print(f"haredis {command}: {printable(text)}", file=sys.stderr)


def run(program: Program) -> int:
    """Run it with the global reactor, and return the exit status.

    SIGINT and SIGTERM cancel it, once; it is given the time to clean up. When nobody reads what it
    says any more it ends as by SIGPIPE.
    """
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    status = 1
    received: list[int] = []

    async def to_the_end() -> None:
        nonlocal status
        try:
            status = await program(reactor)
        except BrokenPipeError:
            status = 128 + signal.SIGPIPE
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

    for output in (sys.stdout, sys.stderr):
        # What a server is called is no reason to fail on a terminal that cannot show it.
        with contextlib.suppress(AttributeError):
            output.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    reactor.callWhenRunning(start)
    reactor.run()
    unread = not _flushed()
    return 128 + signal.SIGPIPE if unread and status == 0 else status


def _flushed() -> bool:
    """Whether what was said went out; if not, the interpreter must not try it again at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return False
    return True
