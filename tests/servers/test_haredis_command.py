"""`haredis` as its user meets it: processes, their words and their exit status."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue

from tests.acl import PASSWORD, USER, documented, set_user
from tests.certificates import Authority
from tests.groups import answer, at_once, meta_of, until_settled
from tests.monitors import Events, connect, fetch
from tests.servers.conftest import Form, MakeServers, Watch
from tests.support import PATIENCE, eventually
from txharedis.testing.servers import LocalServer, ServerNotStarted, ServerProgram

on_reactor = pytest_twisted.ensureDeferred

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "txharedis.cli"]


def environment(**changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HAREDIS_")}
    return {**kept, "PYTHONPATH": str(ROOT), **changed}


async def haredis(*words: str, **changed: str) -> tuple[str, str, int]:
    """Run it: what it says on its two outputs, and its exit status."""
    program, *before = PROGRAM
    out, err, status = await getProcessOutputAndValue(
        program, [*before, *words], env=environment(**changed)
    )
    assert "Traceback" not in err.decode()
    return out.decode(), err.decode(), status


def nodes_of(servers: Sequence[LocalServer]) -> list[str]:
    return [server.address for server in servers]


class Running(ProcessProtocol):
    """A command that runs on: what it has said, and its exit status when it has ended."""

    def __init__(self) -> None:
        self.out = self.err = ""
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.out += data.decode()

    def errReceived(self, data: bytes) -> None:
        self.err += data.decode()

    def processEnded(self, reason: Any) -> None:
        reason.trap(ProcessDone, ProcessTerminated)
        code = reason.value.exitCode
        self.ended.callback(-1 if code is None else code)

    @property
    def pid(self) -> int:
        assert self.transport is not None
        return int(self.transport.pid)

    async def end(self, number: int) -> int:
        """Send it this signal, and return its exit status."""
        os.kill(self.pid, number)
        return await self.ended.addTimeout(PATIENCE, _reactor())


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest_twisted.async_yield_fixture
async def start(reactor: Any, nothing_left_behind: object) -> AsyncIterator[Callable[..., Running]]:
    """`start("status", ...)`: the command in the background, killed after the test."""
    made: list[Running] = []

    def run(*words: str, usePTY: bool = False, **changed: str) -> Running:
        made.append(Running())
        reactor.spawnProcess(
            made[-1], sys.executable, [*PROGRAM, *words], environment(**changed), usePTY=usePTY
        )
        return made[-1]

    yield run
    for running in made:
        if not running.ended.called:
            os.kill(running.pid, signal.SIGKILL)
            await running.ended


async def commands_run(servers: Sequence[LocalServer]) -> set[str]:
    """What the servers have executed since CONFIG RESETSTAT, but for what they do themselves."""
    run: set[str] = set()
    for server in servers:
        for name, value in (await server.info("commandstats")).items():
            if not re.search(r"calls=0\b", value.split(",")[0]):
                run.add(name.removeprefix("cmdstat_"))
    return run


#: What a client that only looks may do to a server.
LOOKING = {
    *("auth", "hello", "select", "ping", "info", "role", "multi", "exec", "discard", "watch"),
    *("unwatch", "get", "mget", "hgetall", "config|get", "pubsub|numsub", "subscribe", "command"),
}
#: What replicas do, and this test.
OWN = {"replconf", "psync", "config|resetstat", "unsubscribe"}


@on_reactor
async def test_the_exit_status_says_how_the_group_is(group: list[LocalServer]) -> None:
    nodes = nodes_of(group)
    out, err, status = await haredis("status", *nodes)
    assert (err, status) == ("", 0)
    assert out.startswith("+ Group: ")
    assert f"| {nodes[0]} | Master  | running   |" in out
    assert f"| {nodes[1]} | Replica | streaming |" in out
    assert out.endswith("\nhealthy\n")
    out, err, status = await haredis("status", "--json", *nodes)
    state = json.loads(out)
    assert (state["state"], state["why"], status) == ("healthy", [], 0)
    assert state["master"] == nodes[0]
    assert state["elects"] is False
    assert [node["node"] for node in state["nodes"]] == nodes
    assert state["epoch"] == int((await meta_of(group[0]))["epoch"])

    group[2].kill()
    out, err, status = await haredis("status", *nodes)
    assert (err, status) == ("", 1)
    assert f"degraded: {nodes[2]} is refused: connection refused" in out
    assert "Reason" in out.splitlines()[1]
    # Only a client that may elect would replace it, and none is there.
    group[0].kill()
    out, err, status = await haredis("status", *nodes)
    assert (err, status) == ("", 2)
    assert "no master: no quorum: 1 of 3 nodes answer, 2 needed" in out
    assert (await group[1].call("ROLE"))[0] == b"slave"
    group[1].kill()
    out, err, status = await haredis("status", "--json", *nodes)
    assert status == 2
    assert json.loads(out)["state"] == "no master"


@on_reactor
async def test_looking_changes_nothing(group: list[LocalServer]) -> None:
    nodes = nodes_of(group)
    before = [await meta_of(server) for server in group]
    await at_once(server.call("CONFIG", "RESETSTAT") for server in group)
    for words in (
        ("status",),
        ("check",),
        ("history",),
        ("failover",),
        ("failover", "--dry-run"),
        ("switchover", "--dry-run"),
    ):
        await haredis(*words, *nodes)
    assert await commands_run(group) <= LOOKING | OWN
    group[0].kill()
    for words in (("status",), ("check",), ("failover", "--dry-run")):
        await haredis(*words, *nodes)
    assert await commands_run(group[1:]) <= LOOKING | OWN
    assert [await meta_of(server) for server in group[1:]] == before[1:]


@on_reactor
async def test_nodes_and_options_from_elsewhere(group: list[LocalServer], tmp_path: Path) -> None:
    nodes = nodes_of(group)
    for text in (",".join(nodes), f"redis://{nodes[0]}?addr={nodes[1]}&addr={nodes[2]}"):
        out, err, status = await haredis("status", HAREDIS_NODES=text)
        assert (err, status) == ("", 0)
    file = tmp_path / "haredis.toml"
    file.write_text(f"nodes = {json.dumps(nodes)}\nharedis_db_num = 15\n", encoding="utf-8")
    out, err, status = await haredis("status", "--config", str(file))
    assert (err, status) == ("", 0)
    out, err, status = await haredis("status", HAREDIS_CONFIG=str(file))
    assert (err, status) == ("", 0)
    file.write_text("nodse = []\n", encoding="utf-8")
    for command in ("status", "check", "history", "switchover", "failover"):
        out, err, status = await haredis(command, HAREDIS_CONFIG=str(file))
        assert (out, status) == ("", 2)
        assert f"haredis {command}: error: --config='{file}': unknown key 'nodse'" in err
        out, err, status = await haredis(command, "redis://app:very-secret@h:1")
        assert (out, status) == ("", 2)
        assert "HAREDIS_PASSWORD" in err
        assert "very-secret" not in err
    out, err, status = await haredis("status", *nodes, "--watch", "0")
    assert status == 2
    assert "watch=0.0 is out of range" in err


@on_reactor
async def test_a_failover_is_held_when_no_client_is_there(group: list[LocalServer]) -> None:
    nodes = nodes_of(group)
    out, err, status = await haredis("failover", *nodes)
    assert (out, status) == ("", 1)
    assert f"{nodes[0]} is the master and lives: haredis switchover moves it" in err
    out, err, status = await haredis("failover", "--dry-run", *nodes)
    assert (err, status) == ("", 0)
    assert out.startswith(f"{nodes[0]} is the master and lives: now nothing would be done\n")
    [winner] = re.findall(r"^if it died now (\S+) would be elected: \S+", out, re.MULTILINE)
    await group[1].call("CONFIG", "SET", "replica-priority", 0)
    group[0].kill()
    out, err, status = await haredis("failover", "--dry-run", *nodes)
    assert (err, status) == ("", 0)
    assert re.match(f"now {nodes[2]} would be elected: .* .MASTER {nodes[0]} is down.\n", out)
    assert winner in nodes[1:]
    out, err, status = await haredis("failover", *nodes)
    assert (err, status) == ("", 0)
    assert re.match(f"{nodes[2]} was elected, epoch 2: .* .MASTER {nodes[0]} is down.\n", out)
    assert (await group[2].call("ROLE"))[0] == b"master"
    await eventually(lambda: _follows(group[1], group[2]))
    # It is in the history, for whoever asks later, and when there is no master any more too.
    out, err, status = await haredis("history", "--json", *nodes)
    [newest] = json.loads(out)["failovers"]
    assert (newest["new"], newest["epoch"], newest["planned"]) == (nodes[2], 2, False)
    group[2].kill()
    for command, expected in (("failover", 1), ("history", 0)):
        out, err, status = await haredis(command, *nodes, "--timeout", "1.5")
        assert status == expected
        assert ("no quorum" in err) is (command == "failover")
    assert f"| {nodes[2]}" in out
    group[1].kill()
    out, err, status = await haredis("history", *nodes)
    assert (out, status) == ("", 1)
    assert f"no node tells of the history: {nodes[0]} is refused" in err
    out, err, status = await haredis("failover", "--dry-run", *nodes)
    assert status == 1
    assert out.startswith("now no node would be elected: no quorum")


async def _follows(replica: LocalServer, master: LocalServer) -> bool:
    info = await replica.info("replication")
    return info.get("master_port") == str(master.port) and info["master_link_status"] == "up"


@on_reactor
async def test_a_switchover_is_rehearsed_and_then_in_the_history(
    group: list[LocalServer],
) -> None:
    nodes = nodes_of(group)
    out, err, status = await haredis("history", *nodes)
    assert (out, err, status) == ("no failover is known\n", "", 0)
    out, err, status = await haredis("switchover", "--dry-run", *nodes, "--to", nodes[2])
    assert (out, err, status) == (
        f"would switch over from {nodes[0]} to {nodes[2]}: as asked for\n",
        "",
        0,
    )
    await group[1].call("CONFIG", "SET", "replica-priority", 0)
    out, err, status = await haredis("switchover", "--dry-run", *nodes)
    assert (err, status) == ("", 0)
    assert out.startswith(f"would switch over from {nodes[0]} to {nodes[2]}: highest ")
    out, err, status = await haredis("switchover", "--dry-run", *nodes, "--to", nodes[1])
    assert (out, status) == ("", 1)
    assert f"{nodes[1]} has replica-priority 0" in err
    assert (await group[0].call("ROLE"))[0] == b"master"
    out, err, status = await haredis("switchover", *nodes)
    assert (err, status) == ("", 0)
    await until_settled(group)
    out, err, status = await haredis("history", "--limit", "1", *nodes)
    assert (err, status) == ("", 0)
    assert f"| {nodes[0]} | {nodes[2]} | switchover |" in out
    out, err, status = await haredis("history", "--limit", "0", *nodes)
    assert status == 2
    assert "'0' is not a whole number from 1 on" in err


@on_reactor
async def test_check_finds_what_is_in_the_way(group: list[LocalServer]) -> None:
    nodes = nodes_of(group)
    out, err, status = await haredis("check", *nodes)
    assert (err, status) == ("", 0), out
    assert "ok       quorum     3 of 3 nodes are up, 2 needed" in out
    assert re.search(rf"^ok +failover +if {nodes[0]} died now \S+ would be elected: ", out, re.M)
    assert re.search(rf"^ok +switchover +possible from {nodes[0]} to \S+: ", out, re.M)
    assert re.search(r"^ok +rights +user 'default' has all that a failover takes$", out, re.M)
    assert re.search(r"^ok +clocks +within 1 s ", out, re.M)
    assert re.search(r"^ok +versions +(redis|valkey) \d", out, re.M)
    # A setting that would stop the writes, and a warning for a witness.
    for server in group[1:]:
        await server.call("CONFIG", "SET", "replica-priority", 0)
    await group[0].call("CONFIG", "SET", "min-replicas-to-write", 2)
    out, err, status = await haredis("check", "--json", *nodes)
    assert (err, status) == ("", 1)
    report = json.loads(out)
    assert (report["state"], report["status"], report["master"]) == ("healthy", 1, nodes[0])
    problems = [found for found in report["findings"] if found["level"] == "problem"]
    texts = " ".join(found["text"] for found in problems)
    assert [found["topic"] for found in problems] == ["settings", "failover"]
    assert "min-replicas-to-write 2" in texts
    assert f"if {nodes[0]} died now nobody would be elected: " in texts
    assert f"{nodes[1]} has replica-priority 0" in texts
    assert problems[0]["nodes"] == [nodes[0]]
    for server in group[1:]:
        server.kill()
    out, err, status = await haredis("check", *nodes)
    assert (err, status) == ("", 2)
    assert "problem  group" in out


@on_reactor
async def test_check_names_the_rights_that_are_missing(
    group: list[LocalServer], tmp_path: Path
) -> None:
    nodes = nodes_of(group)
    words = ("check", *nodes, "--user", USER)
    await set_user(group, *documented("app"), "+failover")
    out, err, status = await haredis(*words, HAREDIS_PASSWORD=PASSWORD)
    assert (err, status) == ("", 0), out
    assert f"user '{USER}' has all that a failover takes" in out
    assert re.search("^ok +switchover ", out, re.M)
    await set_user(group, *documented("app"))
    out, err, status = await haredis(*words, HAREDIS_PASSWORD=PASSWORD)
    assert (err, status) == ("", 0), out
    assert "our user may neither FAILOVER nor CLIENT PAUSE" in out
    await set_user(group, *documented("app"), "-slaveof", "-config|set")
    out, err, status = await haredis(*words, HAREDIS_PASSWORD=PASSWORD)
    assert status == 1
    assert re.search(rf"^problem +rights +user '{USER}' may not SLAVEOF, CONFIG SET: ", out, re.M)
    # Held back, a write that is queued is not answered.
    await group[1].call("CLIENT", "PAUSE", 60_000, "WRITE")
    out, err, status = await haredis(*words, HAREDIS_PASSWORD=PASSWORD)
    assert re.search(
        rf"^warning +rights +{group[1].address}: what user .* is not answered", out, re.M
    )
    await group[1].call("CLIENT", "UNPAUSE")
    # A follower sees little, and nothing breaks.
    await set_user(group, *documented("follower"))
    for command in ("status", "check", "history", "failover", "switchover"):
        out, err, status = await haredis(
            command,
            *nodes,
            *("--user", USER, "--timeout", "3"),
            *(["--dry-run"] if command in ("failover", "switchover") else []),
            HAREDIS_PASSWORD=PASSWORD,
        )
        assert status == (0 if command == "status" else 1), (command, out, err)
        assert PASSWORD not in out + err
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n", encoding="utf-8")
    (tmp_path / "haredis.toml").write_text(
        f'nodes = {json.dumps(nodes)}\nusername = "{USER}"\npassword_file = "password"\n',
        encoding="utf-8",
    )
    out, err, status = await haredis("status", "--config", str(tmp_path / "haredis.toml"))
    assert (err, status) == ("", 0)
    out, err, status = await haredis("status", *nodes, "--user", USER, HAREDIS_PASSWORD="wrong-77")
    assert status == 2
    assert "denied" in out
    assert "wrong-77" not in out + err


@on_reactor
async def test_watching_ends_with_ctrl_c(
    group: list[LocalServer], start: Callable[..., Running]
) -> None:
    nodes = nodes_of(group)
    await set_user(group, *documented("app"))
    running = start(
        *("status", "--watch", "0.05", "--user", USER, *nodes), HAREDIS_PASSWORD=PASSWORD
    )
    await eventually(lambda: running.out.count("healthy") >= 2)
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(running.pid)], capture_output=True, check=True
    ).stdout.decode()
    assert "status" in shown
    assert PASSWORD not in shown
    group[2].kill()
    await eventually(lambda: "degraded" in running.out)
    assert await running.end(signal.SIGINT) == 130
    assert running.err == ""
    assert "\x1b" not in running.out
    assert PASSWORD not in running.out
    lines = start("status", "--watch", "0.05", "--json", *nodes)
    await eventually(lambda: lines.out.count("\n") >= 2)
    assert await lines.end(signal.SIGTERM) == 143
    states = [json.loads(line)["state"] for line in lines.out.splitlines()]
    assert set(states) == {"degraded"}


@on_reactor
async def test_on_a_terminal_it_is_drawn_over(
    group: list[LocalServer], start: Callable[..., Running]
) -> None:
    running = start("status", "--watch", "0.05", *nodes_of(group), usePTY=True)
    await eventually(lambda: running.out.count("healthy") >= 2)
    assert running.out.count("\x1b[H") >= 2
    assert await running.end(signal.SIGINT) == 130
    assert "Traceback" not in running.out


@on_reactor
async def test_a_reader_that_goes_away_is_no_error(group: list[LocalServer]) -> None:
    command = " ".join(map(shlex.quote, [*PROGRAM, "status", *nodes_of(group)]))
    for options, statuses in ((" --watch 0.01", {"141"}), ("", {"0", "141"})):
        script = f"{command}{options} | head -n 1; echo ${{PIPESTATUS[0]}}"
        out, err, _ = await getProcessOutputAndValue("bash", ["-c", script], env=environment())
        first, status = out.decode().splitlines()
        assert first.startswith("+ Group: ")
        assert status in statuses
        assert err == b""


@on_reactor
async def test_tls(make_servers: MakeServers, watch: Watch, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert_file, key_file = authority.issue("server", ("127.0.0.1",))
    options = [
        *("--tls-cert-file", cert_file, "--tls-key-file", key_file),
        *("--tls-ca-cert-file", str(authority.file)),
        *("--tls-auth-clients", "no", "--tls-replication", "yes"),
    ]
    try:
        group = await make_servers(3, options=options, tls=ssl.CertificateOptions())
    except ServerNotStarted as error:
        if "Failed finding TLS support" in str(error):
            pytest.skip("this server was built without TLS")
        raise
    watched = watch(group, tls_ca_file=str(authority.file))
    await answer(watched.client.when_ready())
    await until_settled(group)
    nodes = nodes_of(group)
    out, err, status = await haredis("status", *nodes, "--tls-ca-file", str(authority.file))
    assert (err, status) == ("", 0)
    url = f"rediss://{nodes[0]}?addr={nodes[1]}&addr={nodes[2]}"
    (tmp_path / "haredis.toml").write_text(
        f'nodes = "{url}"\ntls_ca_file = "{authority.file.name}"\n', encoding="utf-8"
    )
    out, err, status = await haredis("check", "--config", str(tmp_path / "haredis.toml"))
    assert (err, status) == ("", 0), out
    out, err, status = await haredis("status", *nodes, "--tls")
    assert status == 2
    assert "TLS: certificate verify failed" in out


@on_reactor
async def test_two_nodes_are_a_problem(make_servers: MakeServers, form: Form) -> None:
    pair = await make_servers(2)
    await form(pair)
    out, err, status = await haredis("status", *nodes_of(pair))
    assert (err, status) == ("", 0)
    out, err, status = await haredis("check", *nodes_of(pair))
    assert (err, status) == ("", 1)
    assert "problem  quorum     two nodes cannot fail over: add a third" in out
    assert "nobody would be elected: no quorum" in out


@on_reactor
async def test_one_node(server: LocalServer) -> None:
    out, err, status = await haredis("status", server.address)
    assert (err, status) == ("", 0)
    out, err, status = await haredis("check", server.address)
    assert (err, status) == ("", 0), out
    assert "one node alone" in out
    out, err, status = await haredis("switchover", "--dry-run", server.address)
    assert (out, status) == ("", 1)
    assert "there is no other node" in err
    out, err, status = await haredis("failover", "--dry-run", server.address)
    assert (out, status) == ("", 1)
    assert "one node alone" in err
    await server.call("REPLICAOF", "127.0.0.1", "1")
    out, err, status = await haredis("status", server.address)
    assert (err, status) == ("", 2), out
    assert f"no master: {server.address} is a replica now" in out


@on_reactor
async def test_the_demo_with_the_status_page_beside_it(
    server_program: ServerProgram, start: Callable[..., Running], tmp_path: Path
) -> None:
    pytest.importorskip("klein", reason="the extra `monitor` is not installed")
    pytest.importorskip("prometheus_client", reason="the extra `monitor` is not installed")
    words = ("--web", "tcp:0:interface=127.0.0.1", "--server", str(server_program.path))
    demo = start("demo", *words, TMPDIR=str(tmp_path))
    [port] = await eventually(
        lambda: re.findall(r"^The status page: http://127.0.0.1:(\d+)/$", demo.out, re.M)
    )
    page = await fetch(int(port), "/")
    assert b"<!DOCTYPE html>" in page.body
    events = await connect(int(port), Events(int(port)))
    [killed] = await eventually(lambda: re.findall(r"the master (127\S+),$", demo.out, re.M))
    # What is kept is there to be looked at, with what has happened.
    await events.until("cluster", lambda state: state["master"] not in (None, killed))
    await eventually(lambda: "Ctrl-C stops them" in demo.out)
    await events.until(
        "history", lambda told: killed in [failover["old"] for failover in told["failovers"]]
    )
    assert await demo.end(signal.SIGINT) == 0, demo.out
    assert demo.out.endswith("Stopping the servers.\n")
    await eventually(lambda: events.lost)
    assert "Traceback" not in demo.out + demo.err
    assert list(tmp_path.iterdir()) == []


@on_reactor
async def test_a_page_that_cannot_be_served_is_named() -> None:
    pytest.importorskip("klein", reason="the extra `monitor` is not installed")
    pytest.importorskip("prometheus_client", reason="the extra `monitor` is not installed")
    for endpoint, named in (
        ("nonsense:1", "haredis demo: --web: 'nonsense:1' is not an endpoint such as tcp:8405"),
        ("tcp:80:interface=192.0.2.1", "haredis demo: --web: 'tcp:80:interface=192.0.2.1': "),
    ):
        _, err, status = await haredis("demo", "--web", endpoint)
        assert status == 2
        assert named in err
    hide = "import sys; sys.modules['klein'] = None; import txharedis.cli as cli; "
    run = f"{hide}sys.exit(cli.main(['demo', '--web']))"
    out, err, status = await getProcessOutputAndValue(
        sys.executable, ["-c", run], env=environment()
    )
    assert (out, status) == (b"", 2)
    message = 'haredis demo: --web: not installed: klein; run  pip install "txharedis[monitor]"\n'
    assert err.decode() == message
