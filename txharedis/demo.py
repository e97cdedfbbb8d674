"""`haredis demo`: a failover to watch, on real servers, with the books kept of every write."""

from __future__ import annotations

import itertools
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, ensureDeferred
from twisted.internet.task import deferLater

from txharedis.client import HAClient
from txharedis.errors import OutcomeUnknown
from txharedis.events import Event, FailoverEnded
from txharedis.failover import FailoverService
from txharedis.monitor.beside import NoPage, Page, check_endpoint
from txharedis.testing.servers import (
    LocalServer,
    NoServerProgram,
    ServerNotStarted,
    ServerProgram,
    default_program,
    identify,
    start_group,
)
from txharedis.topology import Topology

__all__ = ["Audit", "Kill", "demo"]

DEADLINE = 30.0
"""How long, in seconds, anything here may take before the demo fails."""

WRITERS = 10
"""How many writes are in flight at any moment."""

LULL = 1.0
"""How long, in seconds, there are only writes before each kill."""

WEB_LULL = 5.0
"""The same where somebody watches the status page."""

KEY = "demo:numbers"
_SLICE = 20_000
_Result = TypeVar("_Result")
_Work: TypeAlias = Deferred[_Result] | Coroutine[Deferred[Any], Any, _Result]


class DemoFailed(Exception):
    """The demo could not go on; the text says why."""


@dataclass(frozen=True)
class Kill:
    """One kill of the master: who died, who was elected, and the outage in seconds.

    The outage lasts from the kill to the first acknowledgement of a write that was submitted after
    the kill.
    """

    killed: str
    elected: str
    outage: float


@dataclass(frozen=True)
class Audit:
    """What the client said of the writes, held against the data of the last master.

    acknowledged  the numbers whose write was answered
    unknown       those whose write ended in OutcomeUnknown
    failed        the errors of writes that ended otherwise
    found         the numbers in the data, as often as they stand there
    """

    acknowledged: set[int]
    unknown: set[int]
    failed: Sequence[str]
    found: Sequence[int]

    @property
    def lost(self) -> int:
        """How many writes were acknowledged and are not in the data."""
        return len(self.acknowledged - set(self.found))

    @property
    def repeated(self) -> int:
        """How many times a number stands in the data beside its first time."""
        return len(self.found) - len(set(self.found))

    @property
    def unknown_there(self) -> int:
        """How many of the unknown writes are in the data."""
        return len(self.unknown.intersection(self.found))

    @property
    def ok(self) -> bool:
        """Whether no acknowledged write is lost, none was applied twice, and none failed."""
        return not (self.lost or self.repeated or self.failed)


class Writers:
    """Writers that each push the next number as soon as their last one was answered."""

    def __init__(self, client: HAClient, count: int) -> None:
        self.acknowledged: set[int] = set()
        self.unknown: set[int] = set()
        self.failed: list[str] = []
        self._client = client
        self._numbers = itertools.count(1)
        self._stopping = False
        self._since = math.inf
        self._next: Deferred[float] = Deferred()
        self._ended = DeferredList(
            [ensureDeferred(self._write()) for _ in range(count)], consumeErrors=True
        )

    def next_acknowledged(self) -> Deferred[float]:
        """Fires when a write that was submitted from now on is acknowledged.

        The value is the time from now until then, in seconds.
        """
        self._since = time.monotonic()
        self._next = Deferred()
        return self._next

    async def stop(self) -> None:
        """Submit nothing more, and return when all that was submitted has been answered."""
        self._stopping = True
        await self._ended

    async def _write(self) -> None:
        while not self._stopping:
            number = next(self._numbers)
            submitted = time.monotonic()
            try:
                await self._client.rpush(KEY, number)
            except OutcomeUnknown:
                self.unknown.add(number)
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {error}")
                return
            else:
                self.acknowledged.add(number)
                if submitted >= self._since:
                    self._next.callback(time.monotonic() - self._since)
                    self._since = math.inf


async def demo(
    reactor: Any,
    *,
    kills: int = 1,
    keep: bool = False,
    server: str | None = None,
    web: str | None = None,
) -> int:
    """Start three servers, kill the master `kills` times under load, and hold the books against it.

    reactor  runs it all, and must handle SIGCHLD
    keep     leave the servers running at the end, until this is cancelled
    server   path (or name on PATH) of the server program; None for the default one
    web      a Twisted endpoint: serve the monitor's status page there, and keep all running

    Returns the exit status: 0 when no acknowledged write was lost and none applied twice, 1 when
    one was or when something took longer than `DEADLINE` seconds, 2 without a server program, or
    when the page cannot be served.
    Cancelling it stops the servers, and then raises CancelledError (with `keep`, and everything
    done, it returns).
    """
    try:
        if web is not None:
            check_endpoint(reactor, web)
        program = _program(server)
    except NoServerProgram as error:
        _complain(str(error))
        return 2
    except NoPage as error:
        _complain(f"--web: {error}")
        return 2
    try:
        async with AsyncExitStack() as cleanup:
            return await _Demo(reactor, program, cleanup).run(kills, keep, web)
    except NoPage as error:
        _complain(f"--web: {error}")
        return 2
    except (DemoFailed, ServerNotStarted, OSError) as error:
        _complain(str(error))
        return 1
    except CancelledError:
        _complain("interrupted; the servers are stopped")
        raise


def _program(path: str | None) -> ServerProgram:
    if path is None:
        return default_program()
    found = shutil.which(path)
    program = identify(Path(found).absolute()) if found else None
    if program is None:
        raise NoServerProgram(f"{path} is not a redis-server or valkey-server that runs here")
    return program


class _Demo:
    """The servers, their client, and what is done to them. `cleanup` ends them all."""

    def __init__(self, reactor: Any, program: ServerProgram, cleanup: AsyncExitStack) -> None:
        self._reactor = reactor
        self._program = program
        self._cleanup = cleanup
        self._failover_ended: Deferred[None] = Deferred()
        self._servers: list[LocalServer]
        self._service: FailoverService
        self._client: HAClient
        self._lull = LULL

    async def run(self, kills: int, keep: bool, web: str | None) -> int:
        await self._start()
        if web is not None:
            await self._serve(web)
        writers = Writers(self._client, WRITERS)
        _say("", f"{WRITERS} writers: each appends a number to a list, again and again.")
        done = [await self._kill(writers, f"Kill {n} of {kills}") for n in range(1, kills + 1)]
        await self._within(writers.stop(), "answering the last writes")
        found = await self._within(self._numbers(), "reading the data")
        audit = Audit(writers.acknowledged, writers.unknown, writers.failed, found)
        _say("", *_report(audit, done))
        if keep or web is not None:
            await self._keep()
        return 0 if audit.ok else 1

    async def _start(self) -> None:
        directory = self._cleanup.enter_context(
            tempfile.TemporaryDirectory(prefix="haredis-demo-", ignore_cleanup_errors=True)
        )
        _say(f"Starting three servers, {self._program.name} {self._program.version}:")
        starting = start_group(self._reactor, self._program, directory, 3)
        self._servers = await self._within(starting, "starting the servers")
        for server in self._servers:
            self._cleanup.push_async_callback(self._stop, server)
        self._show_servers()
        _say("They know nothing of each other. The client makes them one group;")
        _say("the lines with a time are its log (debug_mode=True).", "")
        self._service = FailoverService(
            [server.address for server in self._servers],
            self._reactor,
            acks=1,
            debug_mode=True,
            on_event=self._note,
        )
        self._client = self._service.client
        self._service.startService()
        self._cleanup.push_async_callback(self._disconnect)
        await self._complete("making one group of the servers")

    async def _serve(self, endpoint: str) -> None:
        page = Page(self._reactor, self._service, endpoint)
        self._cleanup.push_async_callback(self._close, page)
        await self._within(page.start(), "serving the status page")
        self._lull = WEB_LULL
        _say("", f"The status page: {page.url}")

    async def _close(self, page: Page) -> None:
        await self._within(page.stop(), "closing the status page")

    async def _kill(self, writers: Writers, title: str) -> Kill:
        """Kill the master, wait until another one serves, and bring the dead one back."""
        await deferLater(self._reactor, self._lull)
        before = len(writers.acknowledged)
        victim = self._master()
        _say("", f"{title}: kill -9 {victim.pid}, the master {victim.address},")
        _say(f"after {before} acknowledged writes.", "")
        self._failover_ended = Deferred()
        victim.kill()
        outage = await self._within(
            writers.next_acknowledged(), f"the next write after the death of {victim.address}"
        )
        elected = self._master()
        await self._within(self._failover_ended, "the rest of the failover")
        _say("", f"Outage: {_ms(outage)}, from the kill to the next acknowledged write.")
        _say(f"Starting {victim.address} again, empty.", "")
        began = time.monotonic()
        await self._within(victim.restart(), f"restarting {victim.address}")
        await self._complete(f"the return of {victim.address}")
        took = time.monotonic() - began
        _say("", f"{victim.address} (pid {victim.pid}) follows {elected.address} as a replica")
        _say(f"and has a copy of its data, {took:.1f} s after its start.")
        return Kill(victim.address, elected.address, outage)

    async def _keep(self) -> None:
        _say("", "The servers and the client keep running; Ctrl-C stops them.")
        self._show_servers()
        _say("Kill one and look: kill -9 PID. (Two must live: it needs a majority.)")
        try:
            await Deferred()
        except CancelledError:
            _say("", "Stopping the servers.")

    async def _complete(self, what: str) -> None:
        """Return when one node is the master and the others its replicas, with their links up."""

        async def until_complete() -> None:
            while not _is_complete(self._client.topology):
                await deferLater(self._reactor, 0.01)

        await self._within(until_complete(), what)

    async def _numbers(self) -> list[int]:
        """All numbers on the master, asked over a connection that is not the client's."""
        master = self._master()
        numbers: list[int] = []
        for start in range(0, await master.call("LLEN", KEY), _SLICE):
            numbers += map(int, await master.call("LRANGE", KEY, start, start + _SLICE - 1))
        return numbers

    def _master(self) -> LocalServer:
        for server in self._servers:
            if server.address == self._client.master:
                return server
        raise DemoFailed("the client has no master just now")

    def _show_servers(self) -> None:
        _say(*(f"  {server.address}  pid {server.pid}" for server in self._servers))

    def _note(self, event: Event) -> None:
        if isinstance(event, FailoverEnded) and event.master and not self._failover_ended.called:
            self._failover_ended.callback(None)

    async def _stop(self, server: LocalServer) -> None:
        await self._within(server.stop(), f"stopping {server.address}")

    async def _disconnect(self) -> None:
        await self._within(self._client.disconnect(), "closing the client")

    def _within(self, work: _Work[_Result], what: str) -> Deferred[_Result]:
        """The same, but it fails with DemoFailed after `DEADLINE` seconds."""

        def too_late(outcome: object, timeout: float) -> _Result:
            raise DemoFailed(f"{what} took more than {timeout:g} s")

        return ensureDeferred(work).addTimeout(DEADLINE, self._reactor, too_late)


def _is_complete(topology: Topology) -> bool:
    master = topology.master
    return master is not None and all(
        node.address == master or (node.link_up and node.follows == str(master))
        for node in topology.nodes
    )


def _report(audit: Audit, kills: Sequence[Kill]) -> Iterator[str]:
    """The table at the end, line by line."""
    rows = [
        ("writes acknowledged", len(audit.acknowledged), ""),
        ("lost", audit.lost, "acknowledged, but not in the data"),
        ("applied twice", audit.repeated, ""),
        (
            "unknown",
            len(audit.unknown),
            f"reply lost with the master; {audit.unknown_there} are in the data",
        ),
        ("failed", len(audit.failed), "; ".join(sorted(set(audit.failed)))),
    ]
    for name, count, note in rows:
        yield f"{name:<20}{count:>9,}  {note if count else ''}".rstrip()
    yield ""
    yield f"{'kill':<6}{'master killed':<17}{'elected':<17}{'outage':>8}"
    for number, kill in enumerate(kills, 1):
        yield f"{number:<6}{kill.killed:<17}{kill.elected:<17}{_ms(kill.outage):>8}"
    yield ""
    if audit.ok:
        yield "No acknowledged write was lost, and none was applied twice."
    elif audit.lost:
        yield "ACKNOWLEDGED WRITES WERE LOST, though each was confirmed by a replica (acks=1)."
    else:
        yield "NOT AS IT SHOULD BE: see above."


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


def _complain(text: str) -> None:
    print(f"haredis demo: {text}", file=sys.stderr, flush=True)
