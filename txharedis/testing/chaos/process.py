"""One client in a process of its own, that writes until it is told to stop, or is killed.

Run as ``python -m txharedis.testing.chaos.process ORDERS``, a JSON object:

nodes    their addresses
options  of create_client
and those of `Orders`.

`serve` is the same for any other client: it needs a function that runs a command, and one that
closes the client.

stdin takes orders, one a line; its end ends the process:

stop              write no more, wait for all answers, close the client, say what is left, and exit
arm STEP SIGNAL   signal yourself after this step of your next failover
disarm            do not
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.stdio import StandardIO
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from txharedis.testing.chaos.records import Recorder
from txharedis.testing.chaos.writers import Writers

__all__ = ["Orders", "Served", "serve"]

DRAIN = 30.0
"""Seconds within which all must be answered, and within which the client must close."""

GRACE = 1.0
"""Seconds that sockets and calls may take to go, once the client says that it is closed."""


@dataclass(frozen=True)
class Orders:
    """What every client process is told.

    name    its own
    record  the path of its records
    seed    of the rests of its writers
    rest    seconds between an answer and the next command of a writer, on the average
    source  the address from which it dials
    burst   items that are pushed in one turn
    """

    name: str
    record: str
    seed: str
    rest: float
    source: str
    burst: int

    @classmethod
    def of(cls, orders: dict[str, Any]) -> Orders:
        return cls(**{field.name: orders[field.name] for field in dataclasses.fields(cls)})


@dataclass(frozen=True)
class Served:
    """The client of a process: how to run a command, and how to close it when all is answered."""

    run: Callable[..., Deferred[Any]]
    close: Callable[[], Deferred[Any]]


class Trap:
    """Sends this process a signal at one step of a failover, once."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._step = ""
        self._signal = 0

    def arm(self, step: str, number: int) -> None:
        self._step, self._signal = step, number
        self._recorder.said("armed", step=step)

    def disarm(self) -> None:
        self._step = ""
        self._recorder.said("disarmed")

    def reached(self, step: str) -> None:
        if self._step and step == self._step:
            self._step = ""
            self._recorder.said("sprung", step=step, signal=self._signal)
            os.kill(os.getpid(), self._signal)


def serve(
    reactor: Any, orders: Orders, make: Callable[[Callable[..., None], Trap], Served]
) -> None:
    """Run the reactor until it is over. `make(say, trap)` makes the client, once it runs."""
    if sys.platform == "linux":  # a stopped process would not notice the end of its stdin
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    recorder = Recorder(orders.record)

    def observe(event: LogEvent) -> None:
        text = formatEvent(event)
        if "log_failure" in event:
            text += "\n" + event["log_failure"].getTraceback()
            recorder.said("complaint", text=text)
        if event.get("log_namespace") != "txharedis":  # whose lines are in the log already
            print(text, file=sys.stderr, flush=True)

    def begin() -> None:
        trap = Trap(recorder)
        session = _Session(reactor, recorder, trap)
        StandardIO(session)
        session.begin(make(recorder.said, trap), orders)

    globalLogPublisher.addObserver(cast(Any, observe))
    reactor.callWhenRunning(begin)
    reactor.run()


class _Session(LineOnlyReceiver):
    """The orders of the parent."""

    delimiter = b"\n"

    def __init__(self, reactor: Any, recorder: Recorder, trap: Trap) -> None:
        self._reactor = reactor
        self._recorder = recorder
        self._trap = trap

    def begin(self, served: Served, orders: Orders) -> None:
        self._served = served
        self._writers = Writers(
            self._reactor,
            served.run,
            self._recorder,
            orders.name,
            seed=orders.seed,
            rest=orders.rest,
            burst=orders.burst,
        )
        self._writers.start()

    def connectionMade(self) -> None:
        self._calls, self._watched = self._in_use()
        self._files = _open_files()

    def lineReceived(self, line: bytes) -> None:
        word, *words = line.decode().split()
        if word == "arm":
            self._trap.arm(words[0], int(words[1]))
        elif word == "disarm":
            self._trap.disarm()
        else:
            Deferred.fromCoroutine(self._stop()).addErrback(self._failed)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        os._exit(1)

    async def _stop(self) -> None:
        try:
            await self._writers.stop().addTimeout(DRAIN, self._reactor)
            await self._served.close().addTimeout(DRAIN, self._reactor)
        except TimeoutError:
            self._recorder.said("stuck")
        left: list[str] = []
        deadline = self._reactor.seconds() + GRACE
        while True:
            calls, watched = self._in_use()
            files = _open_files()
            left = sorted(map(str, (calls - self._calls) | (watched - self._watched)))
            if (not left and files <= self._files) or self._reactor.seconds() > deadline:
                break
            await deferLater(self._reactor, 0.01)
        self._recorder.said("end", left=left, files=files - self._files)
        os._exit(0)

    def _failed(self, failure: Failure) -> None:
        self._recorder.said("complaint", text=failure.getTraceback())
        os._exit(1)

    def _in_use(self) -> tuple[set[Any], set[Any]]:
        calls = {call for call in self._reactor.getDelayedCalls() if call.active()}
        return calls, {*self._reactor.getReaders(), *self._reactor.getWriters()}


def _open_files() -> int:
    """How many file descriptors are open."""
    return len(os.listdir("/dev/fd"))


def main(orders: dict[str, Any]) -> None:
    from twisted.internet import reactor

    from txharedis.events import Event, FailoverStarted, FailoverStep
    from txharedis.failover import create_client
    from txharedis.testing.proxy import FromAddress

    told = Orders.of(orders)

    def make(say: Callable[..., None], trap: Trap) -> Served:
        def on_event(event: Event) -> None:
            shown = {f.name: str(getattr(event, f.name)) for f in dataclasses.fields(event)}
            say(type(event).__name__, **shown)
            if isinstance(event, FailoverStarted):
                trap.reached("start")
            elif isinstance(event, FailoverStep):
                trap.reached(event.step)

        client = create_client(
            orders["nodes"],
            reactor=FromAddress(reactor, told.source),
            on_event=on_event,
            debug_mode=True,
            **orders["options"],
        )
        return Served(client.execute_command, client.quit)

    serve(reactor, told, make)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
