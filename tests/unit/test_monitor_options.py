"""What `twistd haredis-monitor` takes; what it does not take is named."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.python.usage import UsageError

from txharedis.monitor import DEFAULT_ENDPOINT
from txharedis.monitor.plugin import Options, makeService
from txharedis.monitor.site import Hosts

ROOT = Path(__file__).resolve().parents[2]
NODE = "--node=a:1"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HAREDIS_NODES", "HAREDIS_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def parsed(*words: str) -> Options:
    options = Options()
    options.parseOptions(list(words))
    return options


def test_the_defaults() -> None:
    options = parsed(NODE, "--node", "b:2")
    assert options.nodes == ["a:1", "b:2"]
    assert options.client_options == {"elect": True, "haredis_db_num": 15}
    assert options["http"] == DEFAULT_ENDPOINT
    assert options.token is None


def test_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\nmore\n")
    (tmp_path / "token").write_text("0123456789abcdef\n")
    (tmp_path / "token").chmod(0o600)
    options = parsed(
        *(NODE, "--no-elect", "--user=u", "--db-num=3", "--tls", "--verbose"),
        f"--password-file={tmp_path / 'password'}",
        f"--token-file={tmp_path / 'token'}",
        "--http=unix:/tmp/x",
        "--allow-host=monitor.example",
    )
    assert options.client_options == {
        "elect": False,
        "username": "u",
        "password": "secret",
        "haredis_db_num": 3,
        "tls": True,
        "debug_mode": True,
    }
    assert options.token == "0123456789abcdef"
    assert options["allow-host"] == ["monitor.example"]


def test_the_environment_and_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(
        'node = ["f:1", "f:2"]\nhttp = "tcp:1"\nno_elect = true\npassword-file = "password"\n'
        'down-after = 5\nusername = "u"\nallow-host = "x.example"\n'
    )
    (tmp_path / "password").write_text("of the file\n")
    config = f"--config={file}"
    options = parsed(config)
    assert options.nodes == ["f:1", "f:2"]
    assert options["http"] == "tcp:1"
    assert options["allow-host"] == ["x.example"]
    assert options.client_options == {
        "elect": False,
        "down_after": 5,
        "username": "u",
        "password": "of the file",
        "haredis_db_num": 15,
    }
    monkeypatch.setenv("HAREDIS_NODES", "e:1, e:2")
    monkeypatch.setenv("HAREDIS_PASSWORD", "of the environment")
    options = parsed(config)
    assert options.nodes == ["e:1", "e:2"]
    assert options.client_options["password"] == "of the environment"
    options = parsed(config, NODE, "--http=tcp:2", "--user=v")
    assert options.nodes == ["a:1"]
    assert options["http"] == "tcp:2"
    assert options.client_options["username"] == "v"
    monkeypatch.setenv("HAREDIS_NODES", "redis://u:p@e:1?addr=e:2")
    assert parsed().nodes == "redis://u:p@e:1?addr=e:2"


BAD = [
    ((), "--node is missing"),
    (("--node=a:b",), "--node: not a node: 'a:b'"),
    ((NODE, NODE), "--node: node a:1 is listed twice"),
    (("--node=u:p@a:1",), "--node: a password on the command line"),
    (("--node=redis://a:1", NODE), "--node: "),
    ((NODE, "--http=tcp:x"), "--http='tcp:x' is not an endpoint"),
    ((NODE, "--http=nothing"), "--http='nothing' is not an endpoint"),
    ((NODE, "--http=ssl:1:privateKey=/nope"), "--http="),
    ((NODE, "--user=u"), "--user: username='u' needs a password"),
    ((NODE, "--db-num=x"), "--db-num='x'"),
    ((NODE, "--db-num=63"), "--db-num='63'"),
    ((NODE, "--password-file=/nope"), "--password-file='/nope'"),
    ((NODE, "--password-file=/dev/null"), "--password-file='/dev/null' has an empty first line"),
    ((NODE, "--token-file=/nope"), "--token-file='/nope'"),
    ((NODE, "--token-file=/dev/null"), "--token-file='/dev/null'"),
    ((NODE, "--tls-ca-file=/nope"), "--tls-ca-file: tls_ca_file='/nope'"),
    ((NODE, "--tls-key-file=/nope"), "--tls-key-file: tls_key_file needs"),
    ((NODE, "--allow-host=a/b"), "--allow-host='a/b'"),
    ((NODE, "--allow-host="), "--allow-host=''"),
    ((NODE, "--config=/nope"), "--config='/nope'"),
    ((NODE, "--nothing"), "--nothing not recognized"),
    ((NODE, "word"), "Wrong number of arguments"),
]


@pytest.mark.parametrize(("words", "why"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_bad_is_named(words: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError) as raised:
        parsed(*words)
    assert why in str(raised.value)


BAD_FILES = [
    ("nothing = 1", "unknown key 'nothing' (known: adopt, allow-host,"),
    ('password = "x"', "password is not written here"),
    ("no-elect = 1", "no-elect is not true or false"),
    ('db-num = "1"', "db-num is not an integer"),
    ("http = 1", "http is not a text"),
    ("node = 1", "node is not a list of texts"),
    ("node = [1]", "node is not a list of texts"),
    ('node = "a:b"', "node: not a node: 'a:b'"),
    ('node = "a:1"\nnodes = "a:1"', "'node' stands there twice"),
    ('node = "a:1"\ndown-after = true', "down-after is not a number"),
    ('node = "a:1"\ndown-after = 0', "down_after=0 is out of range"),
    ('node = "a:1"\npassword-file = "nope"', "nope"),
    ("[http]\na = 1", "http is not a text"),
    ("=", "--config="),
    ("\x00", "--config="),
]


@pytest.mark.parametrize(("text", "why"), BAD_FILES)
def test_what_is_bad_in_a_file_is_named(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        parsed(f"--config={file}")
    assert why in str(raised.value)


def test_the_keys_of_the_group_may_be_in_database_0() -> None:
    assert parsed(NODE, "--db-num=0").client_options["haredis_db_num"] == 0


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from txharedis.monitor import plugin

    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "txharedis\[monitor\]"'):
        parsed(NODE)


def test_it_makes_a_service(reactor: Any) -> None:
    failover, watcher, _ = makeService(parsed(NODE, "--node=b:2", "--no-elect"))
    assert watcher.watched is failover
    assert not failover.options.elect
    assert failover.options.delivery == "at-most-once"


def run(*words: str, daemon: bool = False) -> tuple[int, str]:
    """twistd with these words, in a process."""
    front = () if daemon else ("-n",)
    done = subprocess.run(
        [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *front, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_bad_option_ends_it_with_1_and_without_a_traceback() -> None:
    for words, why in (
        ((NODE, "--db-num=x"), "--db-num='x'"),
        ((NODE, "--http=tcp:99999999"), "--http=tcp:99999999"),
    ):
        status, text = run("--pidfile=", "haredis-monitor", *words)
        assert status == 1, text
        assert why in text
        assert "Traceback" not in text


@pytest.mark.parametrize("daemon", [True, False])
def test_what_cannot_listen_says_so_and_leaves_no_pid_file(tmp_path: Path, daemon: bool) -> None:
    pid_file, log = tmp_path / "pid", tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"--http=tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        words = (f"--pidfile={pid_file}", f"--logfile={log}", "haredis-monitor", NODE, endpoint)
        status, text = run(*words, daemon=daemon)
    assert status == 1
    assert endpoint in text + log.read_text()
    assert "Traceback" not in text + log.read_text()
    assert not pid_file.exists()


def test_the_unit_for_systemd_uses_options_that_are_there() -> None:
    unit = (ROOT / "examples" / "haredis-monitor.service").read_text(encoding="utf-8")
    [line] = re.findall(r"^ExecStart=(.*)", unit, re.MULTILINE)
    words = line.split(" haredis-monitor ")[1].split()
    names = [word.removeprefix("--").partition("=")[0] for word in words]
    assert {"config", "password-file"} == set(names)
    assert {f"{name}=" for name in names} <= set(Options().longOpt)


def test_the_unit_for_systemd_leaves_tls_its_callbacks() -> None:
    """cffi needs memory that is written and run: with this line no link by TLS can be made."""
    unit = (ROOT / "examples" / "haredis-monitor.service").read_text(encoding="utf-8")
    assert not re.search(r"^MemoryDenyWriteExecute=", unit, re.MULTILINE)


def test_what_is_wrong_in_the_file_is_not_said_of_another_option(tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text('node = ["a:1", "b:1"]\nheartbeat = -1\n')
    with pytest.raises(UsageError, match=r"^--config=.*monitor\.toml': heartbeat=-1"):
        parsed("--config", str(file))


def test_help_tells_of_every_option() -> None:
    status, text = run("haredis-monitor", "--help")
    assert status == 0
    docs = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")
    options = [*Options().longOpt]
    assert len(options) > 14
    for name in options:
        name = name.rstrip("=")
        assert f"--{name}" in text
        assert f"`--{name}" in docs or name in ("help", "version")


@pytest.mark.parametrize(
    ("bound", "host", "good"),
    [
        ("127.0.0.1", b"127.0.0.1:8405", True),
        ("127.0.0.1", b"localhost", True),
        ("127.0.0.1", b"LOCALHOST.:1", True),
        ("127.0.0.1", b"[::1]:8405", True),
        ("127.0.0.1", None, True),
        ("127.0.0.1", b"evil.example", False),
        ("127.0.0.1", b"127.0.0.1.evil.example", False),
        ("127.0.0.1", b"127.0.0.2", False),
        ("127.0.0.1", b"", False),
        ("127.0.0.1", b"[::1", False),
        ("127.9.9.9", b"127.9.9.9", True),
        ("::1", b"evil.example", False),
        ("0.0.0.0", b"evil.example", True),
        ("10.0.0.1", b"monitor.example", True),
        ("", b"anything", True),
    ],
)
def test_hosts_on_loopback_are_named(bound: str, host: bytes | None, good: bool) -> None:
    hosts = Hosts()
    hosts.bound(bound)
    assert hosts.accepts(host) is good


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "10.0.0.1", ""])
def test_where_hosts_are_allowed_no_others_are(bound: str) -> None:
    hosts = Hosts(["ok.example"])
    hosts.bound(bound)
    assert hosts.accepts(b"OK.example:8405")
    assert hosts.accepts(b"localhost")
    assert hosts.accepts(None)
    assert not hosts.accepts(b"evil.example")
