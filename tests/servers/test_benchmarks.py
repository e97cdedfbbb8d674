"""Each benchmark runs, with the smallest settings, and its JSON says what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from benchmarks.processes import PeerFailed, PeerProcess
from txharedis.testing.servers import ServerProgram

on_reactor = pytest_twisted.ensureDeferred

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 180.0
OURS = {
    "txharedis, at-most-once",
    "txharedis, exactly-once",
    "txharedis, exactly-once, acks=1",
}
HERE = {*OURS, "txredisapi, 1 connection", "bare protocol, hiredis"}
REDIS_PY = find_spec("redis") is not None
COREDIS = find_spec("coredis") is not None
UVLOOP = find_spec("uvloop") is not None
ECHO = """
import sys
for line in sys.stdin:
    print("talk")
    print(line, end="", flush=True)
"""


class Measured:
    """What one run has printed, and its figures."""

    def __init__(self, program: ServerProgram, directory: Path, *words: str) -> None:
        file = directory / "figures.json"
        where = ["--server", str(program), "--json", str(file)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *words, *where],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        self.printed = done.stdout
        self.figures: dict[str, Any] = json.loads(file.read_text())

    def goals(self, command: str) -> list[str]:
        """Of what there are goals; each is measured, and judged."""
        goals = self.figures[command]["goals"]
        for goal in goals:
            assert {"what", "wanted", "measured", "reached"} == goal.keys()
            assert (goal["measured"] is None) == (goal["reached"] is None)
            assert goal["what"] in self.printed
        return [goal["what"] for goal in goals]


def test_throughput(server_program: ServerProgram, tmp_path: Path) -> None:
    small = ["--rounds", "2", "--seconds", "0.02", "--in-flight", "5", "--deep", "20"]
    done = Measured(server_program, tmp_path, "throughput", *small)
    cases = done.figures["throughput"]["cases"]
    short = {f"{name} of 32 bytes, {n} in flight" for name in ("SET", "GET") for n in (5, 20)}
    long = {
        f"{name} of {n} bytes, 10 in flight" for name in ("SET", "GET") for n in (1 << 16, 1 << 20)
    }
    assert cases.keys() == short | long | {"LRANGE of 10000 elements, 10 in flight"}
    for case, contestants in cases.items():
        assert contestants.keys() >= HERE, case
        for name, rounds in contestants.items():
            assert len(rounds) == 2, name
            assert all(each["rate"] > 0 for each in rounds), name
    with_peers = cases["SET of 32 bytes, 5 in flight"].keys()
    assert ("redis-py, pipeline" in with_peers) == ("redis-py, tasks" in with_peers) == REDIS_PY
    assert ("coredis, pipeline" in with_peers) == ("coredis, tasks" in with_peers) == COREDIS
    left_out = "\n".join(done.figures["left out"])
    assert "ioredis and Node haredis: without --node" in left_out
    assert ("redis-py: not installed" in left_out) == (not REDIS_PY)
    assert len(done.goals("throughput")) == 2 * 5 + 2 * 3 + 5 * 3
    assert done.figures["environment"].keys() >= {
        *("server", "Python", "Twisted", "hiredis", "txredisapi", "redis", "coredis"),
    }


def test_latency_alone(server_program: ServerProgram, tmp_path: Path) -> None:
    small = ["--rounds", "1", "--seconds", "0.02", "--alone"]
    done = Measured(server_program, tmp_path, "latency", *small)
    cases = done.figures["latency"]["cases"]
    assert cases.keys() == {"SET of 32 bytes, 1 in flight", "GET of 32 bytes, 1 in flight"}
    for contestants in cases.values():
        assert contestants.keys() == HERE
        for [only] in contestants.values():
            assert 0 < only["p50"] <= only["p99"]
    assert done.figures["left out"] == ["left out: all peers in other processes: --alone"]
    assert len(done.goals("latency")) == 6


def test_pubsub(server_program: ServerProgram, tmp_path: Path) -> None:
    small = ["--rounds", "1", "--messages", "500", "--readers", "3"]
    done = Measured(server_program, tmp_path, "pubsub", *small)
    cases = done.figures["pubsub"]["cases"]
    here = {"txharedis, 3 nodes", "txredisapi, SubscriberProtocol"}
    assert cases["text (defaults)"].keys() == here
    assert cases["bytes"].keys() == here | ({"redis-py, listen()"} if REDIS_PY else set())
    slow = done.figures["pubsub"]["slow readers"]
    assert len(slow["dropped"]) == 3
    assert min(slow["dropped"]) > 0
    assert slow["kept"] == [100] * 3
    assert len(done.goals("pubsub")) == 2


def test_reactors(server_program: ServerProgram, tmp_path: Path) -> None:
    small = ["--rounds", "1", "--seconds", "0.02", "--in-flight", "5"]
    done = Measured(server_program, tmp_path, "reactors", *small)
    names = {"epoll", "asyncio", "uvloop"} if UVLOOP else {"epoll", "asyncio"}
    cases = done.figures["reactors"]
    assert len(cases) == 2 * len(OURS)
    for reactors in cases.values():
        assert {name for name, rounds in reactors.items() if rounds} == names
    left_out = "\n".join(done.figures["left out"])
    assert ("uvloop" in left_out) == (not UVLOOP)


def test_failover(server_program: ServerProgram, tmp_path: Path) -> None:
    small = ["--kills", "1", "--peer-kills", "1", "--clients", "1", "2", "--in-flight", "10"]
    done = Measured(server_program, tmp_path, "failover", *small)
    figures = done.figures["failover"]
    for clients in (1, 2):
        series = figures["series"][f"{clients} clients"]
        [fault] = series["faults"]
        assert len(fault["outages"]) == len(fault["gaps"]) == clients
        assert fault["promotions"] == 1
        assert series["lost acknowledged writes"] == series["written twice"] == 0
    sentinel = "Sentinel (down-after 1000 ms), redis-py"
    if REDIS_PY:
        assert figures["peers"][sentinel]["outages"][0] > 1.0
    else:
        assert f"left out: {sentinel}: redis-py is not installed" in done.printed
    assert "left out: Node haredis: without --node" in done.figures["left out"]
    assert len(done.goals("failover")) == 2


def test_failover_of_a_stopped_server(server_program: ServerProgram, tmp_path: Path) -> None:
    small = ["--signal", "stop", "--kills", "1", "--clients", "1", "--in-flight", "5", "--alone"]
    done = Measured(server_program, tmp_path, "failover", *small)
    [fault] = done.figures["failover"]["series"]["1 clients"]["faults"]
    assert fault["outages"][0] > 1.0
    [goal] = done.goals("failover")
    assert goal.startswith("SIGSTOP")


def test_memory(server_program: ServerProgram, tmp_path: Path) -> None:
    done = Measured(server_program, tmp_path, "memory", "--rounds", "1", "--commands", "2000")
    figures = done.figures["memory"]["bytes"]
    kinds = [
        (name.removeprefix("txharedis, "), place)
        for name in (*OURS, "txredisapi, 1 connection")
        for place in ("in flight", "waiting")
    ]
    kinds.remove(("txredisapi, 1 connection", "waiting"))
    for terms, place in kinds:
        [of_python] = figures[f"{terms}, 2000 {place}, tracemalloc"]
        assert 100 < of_python < 10_000
        [resident] = figures[f"{terms}, 2000 {place}, RSS"]
        assert resident < 10_000
    assert len(done.goals("memory")) == 3


def test_scale(server_program: ServerProgram, tmp_path: Path) -> None:
    small = ["--clients", "3", "--processes", "2", "--kills", "1", "--idle", "0.5"]
    done = Measured(server_program, tmp_path, "scale", *small)
    figures = done.figures["scale"]
    series = figures["series"]["3 clients"]
    [outages] = series["outages"]
    assert len(outages) == 3
    assert len(series["servers with idle clients"]["cpu"]) == 3
    assert sum(series["servers with idle clients"]["commands"]) > 0
    assert len(done.goals("scale")) == 2


def test_start(server_program: ServerProgram, tmp_path: Path) -> None:
    done = Measured(server_program, tmp_path, "start", "--starts", "1")
    rounds = done.figures["start"]["rounds"]
    assert rounds.keys() == {"txharedis, 3 nodes", "txharedis, 1 node", "txredisapi"}
    for [started] in rounds.values():
        assert started.keys() == {"imported", "imported_cpu", "reply", "reply_cpu"}
        assert all(seconds > 0 for seconds in started.values())
    assert len(done.goals("start")) == 3


@pytest.mark.skipif("HAREDIS_NPM" not in os.environ, reason="HAREDIS_NPM=1 lets npm fetch packages")
def test_with_node(server_program: ServerProgram, tmp_path: Path) -> None:
    small = ["--rounds", "1", "--seconds", "0.05", "--in-flight", "5", "--only", "small"]
    done = Measured(server_program, tmp_path, "throughput", "--node", *small)
    for contestants in done.figures["throughput"]["cases"].values():
        assert contestants.keys() >= {"ioredis, autopipelining", "Node haredis, 3 nodes"}
    assert done.figures["environment"].keys() >= {"node", "ioredis", "Node haredis"}
    small = ["--kills", "1", "--peer-kills", "1", "--clients", "1", "--in-flight", "5"]
    done = Measured(server_program, tmp_path, "failover", "--node", *small)
    assert len(done.figures["failover"]["peers"]["Node haredis"]["outages"]) == 1


@pytest_twisted.async_yield_fixture
async def echo(reactor: Any) -> Any:
    peer = PeerProcess.start(reactor, "echo", [sys.executable, "-c", ECHO])
    yield peer
    await peer.close()


@on_reactor
async def test_a_peer_answers_in_order(echo: PeerProcess) -> None:
    both = [echo.ask(30, number=number) for number in range(2)]
    assert [await each for each in both] == [{"number": 0}, {"number": 1}]


@on_reactor
async def test_what_a_peer_answers_as_an_error_fails(echo: PeerProcess) -> None:
    with pytest.raises(PeerFailed, match="no such key"):
        await echo.ask(30, error="no such key")


@on_reactor
async def test_a_peer_that_ends_says_why(reactor: Any) -> None:
    peer = PeerProcess.start(reactor, "short", [sys.executable, "-c", "import no_such_module"])
    with pytest.raises(PeerFailed, match="short has ended: ModuleNotFoundError"):
        await peer.ask(30)
    with pytest.raises(PeerFailed, match="short has ended"):
        await peer.ask(30)
    await peer.close()


@on_reactor
async def test_a_peer_that_says_nothing_is_killed(reactor: Any) -> None:
    peer = PeerProcess.start(
        reactor, "mute", [sys.executable, "-c", "import time; time.sleep(600)"]
    )
    with pytest.raises(PeerFailed, match="mute has ended: no answer within 0"):
        await peer.ask(0.2)
    await peer.close()
