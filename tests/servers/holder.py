"""A client in a process of its own, which signals itself at one step of its failover.

Run as ``python holder.py ORDERS``, a JSON object:

nodes    their addresses
at       the FailoverStep after which it signals itself, once; or "start": when it has decided to
         fail over; or "transaction": after the WATCH of a fenced change and before its MULTI
signal   the number of that signal
blind    whether it forgets to look at its own clock, so that the servers alone can stop it
options  of the client

stdin takes commands, one a line, "switchover" among them; its end ends the process. stdout says in
JSON, one object a line, each event (its `kind` and its fields, as texts) and each reply.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import sys
from typing import Any

from twisted.internet import reactor, stdio
from twisted.logger import formatEvent, globalLogPublisher
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from txharedis import HAClient, create_client
from txharedis.events import Event, FailoverStarted, FailoverStep
from txharedis.lock import QuorumLock
from txharedis.protocol import NodeProtocol


def say(kind: str, **fields: Any) -> None:
    """Say it before anything else happens: the next thing may be a signal."""
    os.write(1, (json.dumps({"kind": kind, **fields}) + "\n").encode())


class Signaller:
    """Sends this process the signal, once."""

    def __init__(self, at: str, number: int) -> None:
        self._at: str | None = at
        self._number = number

    def reached(self, place: str) -> None:
        if place == self._at:
            self._at = None
            os.kill(os.getpid(), self._number)

    def on_event(self, event: Event) -> None:
        texts = {f.name: str(getattr(event, f.name)) for f in dataclasses.fields(event)}
        say(type(event).__name__, **texts)
        if isinstance(event, FailoverStarted):
            self.reached("start")
        elif isinstance(event, FailoverStep):
            self.reached(event.step)

    def watch_transactions(self) -> None:
        exchange = NodeProtocol.exchange

        def watched(link: NodeProtocol, *commands: Any, **options: Any) -> Any:
            if {"MULTI", "SLAVEOF", "EXEC"} <= {command[0] for command in commands}:
                self.reached("transaction")
            return exchange(link, *commands, **options)

        NodeProtocol.exchange = watched  # type: ignore[method-assign]


class Commands(LineOnlyReceiver):
    """Runs what stdin says."""

    delimiter = b"\n"

    def __init__(self, client: HAClient) -> None:
        self._client = client
        self._answered = 0

    def lineReceived(self, line: bytes) -> None:
        command, *rest = words = line.decode().split()
        if command == "switchover":
            self._client.switchover(*rest).addBoth(self._answer)
        else:
            self._client.execute_command(*words).addBoth(self._answer)

    def _answer(self, reply: Any) -> None:
        value = repr(reply.value) if isinstance(reply, Failure) else reply
        say("reply", number=str(self._answered), value=value)
        self._answered += 1

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        os._exit(0)


def complain(event: Any) -> None:
    if "log_failure" in event:
        print(formatEvent(event), event["log_failure"].getTraceback(), file=sys.stderr, flush=True)


def main(orders: dict[str, Any]) -> None:
    if sys.platform == "linux":  # a stopped process would not notice the end of its stdin
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    globalLogPublisher.addObserver(complain)
    signaller = Signaller(orders["at"], orders["signal"])
    signaller.watch_transactions()
    if orders["blind"]:
        QuorumLock.expired = property(lambda self: False)  # type: ignore[method-assign, assignment]
    client = create_client(orders["nodes"], on_event=signaller.on_event, **orders["options"])
    stdio.StandardIO(Commands(client))
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
