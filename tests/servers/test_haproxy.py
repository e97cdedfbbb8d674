"""HAProxy in front of a group, its checks the monitor's probes, as docs/monitor.md has it."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.groups import answer, until_settled
from tests.monitors import exchange
from tests.servers.conftest import Monitors
from tests.support import eventually
from txharedis.testing._loopback import ReservedPort
from txharedis.testing.servers import LocalServer

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "monitor.md"

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


class HAProxy(ProcessProtocol):
    def __init__(self, config: Path) -> None:
        self.output = ""
        self.ended: Deferred[None] = Deferred()
        words = [str(HAPROXY), "-db", "-f", str(config)]
        self.process: Any = reactor.spawnProcess(self, words[0], words)  # type: ignore[attr-defined]

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


@pytest_twisted.async_yield_fixture
async def haproxy(nothing_left_behind: object) -> AsyncIterator[Any]:
    """`haproxy(config)`: started, and killed after the test."""
    made: list[HAProxy] = []

    def start(config: Path) -> HAProxy:
        made.append(HAProxy(config))
        return made[-1]

    yield start
    for one in made:
        if not one.ended.called:
            one.process.signalProcess("KILL")
        await answer(one.ended)


def documented(port: int, monitor: int, nodes: list[str]) -> str:
    """The example of the docs, for this machine."""
    match = re.search(r"```\n(defaults\n.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert match
    text = match[1].replace("127.0.0.1:6380", f"127.0.0.1:{port}")
    text = text.replace("port 8405", f"port {monitor}")
    for number, node in enumerate(nodes, 1):
        text = text.replace(f"10.0.0.{number}:6379", node)
    assert "10.0.0" not in text
    return text


@pytest_twisted.ensureDeferred
async def test_it_follows_a_failover(
    group: list[LocalServer], monitors: Monitors, haproxy: Any, tmp_path: Path
) -> None:
    monitor = await monitors(group)
    await monitor.healthy()
    port = ReservedPort()
    config = tmp_path / "haproxy.cfg"
    nodes = [server.address for server in group]
    config.write_text(documented(port.number, monitor.port, nodes))
    running = haproxy(config)

    async def master() -> str:
        """Who answers a plain client."""
        request = hiredis.pack_command(("INFO", "server")) + hiredis.pack_command(("QUIT",))
        try:
            reply = await exchange(port.number, request)
        except ConnectError:
            return ""
        assert not running.ended.called, running.output
        found = re.search(rb"^tcp_port:(\d+)", reply, re.MULTILINE)
        return f"127.0.0.1:{found[1].decode()}" if found else ""

    async def leads_to(server: LocalServer) -> bool:
        return {await master() for _ in range(6)} == {server.address}

    # Until the first check HAProxy takes all of them for good.
    await eventually(lambda: leads_to(group[0]))
    old = group[0]
    old.kill()
    await old.exited()
    new = await until_settled(group[1:])
    await eventually(lambda: leads_to(new))
    await old.start()
    assert await until_settled(group) is new
    assert await leads_to(new)
    write = hiredis.pack_command(("SET", "k", "v")) + hiredis.pack_command(("QUIT",))
    assert await exchange(port.number, write) == b"+OK\r\n+OK\r\n"
