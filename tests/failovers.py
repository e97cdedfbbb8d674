"""What the tests of failovers share: servers' states, writers with accounts, other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.groups import OWN_DB, WatchedClient, at_once, meta_of
from tests.support import PATIENCE, eventually
from txharedis import HAClient, OutcomeUnknown
from txharedis.events import FailoverStep
from txharedis.topology import failover_key

if TYPE_CHECKING:
    from txharedis.testing.servers import LocalServer

__all__ = ["Holder", "Standing", "Writers", "is_locked", "standing", "standings", "steps"]

_HOLDER = Path(__file__).parent / "servers" / "holder.py"
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Standing:
    """How one server stands in its group, and how often anyone told it to change that."""

    role: str
    follows: str
    read_only: bool
    meta: dict[str, str]
    orders: int


async def standing(server: LocalServer) -> Standing:
    """How this server stands now, by its own word and its log."""
    info = await server.info("replication")
    return Standing(
        role=info["role"],
        follows=f"{info['master_host']}:{info['master_port']}" if "master_host" in info else "",
        read_only=info.get("slave_read_only") == "1",
        meta=await meta_of(server),
        # Every SLAVEOF leaves a line, also one that found nothing to do.
        orders=server.count_in_log("(user request from") + server.count_in_log("would result into"),
    )


async def standings(servers: Sequence[LocalServer]) -> list[Standing]:
    return await at_once(standing(server) for server in servers)


async def is_locked(server: LocalServer) -> bool:
    """Whether anyone holds the failover lock of this server."""
    run_id = (await server.info("server"))["run_id"]
    return bool(await server.call("EXISTS", failover_key(run_id), db=OWN_DB))


def steps(clients: Sequence[WatchedClient], step: str) -> int:
    """How many times any of these clients took this step of a failover."""
    taken = [seen for client in clients for seen in client.seen(FailoverStep)]
    return sum(seen.step == step for seen in taken)


@dataclass
class Writers:
    """`count` writers, spread over clients: each sends INCR, awaits its reply, and sends the next.

    `pause` is how many seconds it waits in between.
    `acknowledged` holds the times of the replies on the reactor's clock, `unknown` counts those
    that failed with OutcomeUnknown. Any other failure is raised by `stop`.
    """

    clients: Sequence[HAClient]
    key: str
    count: int
    pause: float = 0.0
    acknowledged: list[float] = field(default_factory=list)
    unknown: int = 0
    _stopping: bool = False
    _running: list[Deferred[None]] = field(default_factory=list)

    def start(self, reactor: Any) -> None:
        for number in range(self.count):
            client = self.clients[number % len(self.clients)]
            self._running.append(Deferred.fromCoroutine(self._write(reactor, client)))

    async def stop(self) -> None:
        """Return when every command has been answered, one way or the other."""
        self._stopping = True
        await at_once(self._running)

    async def some_more(self, number: int, timeout: float = PATIENCE) -> None:
        """Return when so many more writes have been acknowledged."""
        wanted = len(self.acknowledged) + number
        await eventually(lambda: len(self.acknowledged) >= wanted, timeout)

    async def _write(self, reactor: Any, client: HAClient) -> None:
        while not self._stopping:
            try:
                await client.incr(self.key)
            except OutcomeUnknown:
                self.unknown += 1
            else:
                self.acknowledged.append(reactor.seconds())
            if self.pause:
                await deferLater(reactor, self.pause)


class Holder(ProcessProtocol):
    """A client in a process of its own, which signals itself at one step of its failover.

    `said` holds what it told so far: its events, each a dict with its `kind` and the texts of its
    fields, and its replies.
    """

    def __init__(
        self,
        reactor: Any,
        nodes: Sequence[LocalServer],
        at: str,
        number: int,
        *,
        blind: bool = False,
        **options: Any,
    ) -> None:
        self.said: list[dict[str, Any]] = []
        self._line = b""
        self._errors = b""
        self._ended: Deferred[None] = Deferred()
        orders = {
            "nodes": [node.address for node in nodes],
            "at": at,
            "signal": number,
            "blind": blind,
            "options": options,
        }
        self._process = reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, str(_HOLDER), json.dumps(orders)],
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )
        self.pid: int = self._process.pid

    async def until(self, kind: str, timeout: float = PATIENCE, **fields: str) -> dict[str, Any]:
        """The first thing of a kind with these fields that it said, now or later."""

        def heard() -> dict[str, Any] | None:
            assert not self._errors, self._errors.decode()
            wanted = {"kind": kind, **fields}.items()
            return next((said for said in self.said if wanted <= said.items()), None)

        found: dict[str, Any] = await eventually(heard, timeout)
        return found

    def send(self, *words: str) -> None:
        """Let its client run a command, whatever becomes of it."""
        self._process.write(" ".join(words).encode() + b"\n")

    async def run(self, *words: str) -> Any:
        """Let its client run a command; the reply."""
        number = str(sum(said["kind"] == "reply" for said in self.said))
        self.send(*words)
        return (await self.until("reply", number=number))["value"]

    def block_until_signalled(self, timeout: float = PATIENCE) -> None:
        """Return when it is stopped or dead.

        It blocks the whole process, so that the clients of this one notice nothing meanwhile.
        """
        deadline = time.monotonic() + timeout
        while self._state() not in ("T", "Z", ""):
            assert time.monotonic() < deadline, f"it did not get there; it said {self.said}"
            time.sleep(0.001)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _state(self) -> str:
        asked = ["ps", "-o", "stat=", "-p", str(self.pid)]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout[:1]

    async def close(self) -> None:
        """Kill it; return when it is gone. What it complained of is an AssertionError."""
        if not self._ended.called:
            os.kill(self.pid, signal.SIGKILL)
        await self._ended
        assert not self._errors, self._errors.decode()

    def outReceived(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        self.said += [json.loads(line) for line in lines]

    def errReceived(self, data: bytes) -> None:
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        self._ended.callback(None)
