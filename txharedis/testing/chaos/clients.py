"""The client processes, as seen by the process that started them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from txharedis.testing.chaos.accounts import Account, Operation
from txharedis.testing.chaos.records import Tail
from txharedis.testing.servers import ServerReactor

__all__ = ["ClientProcess"]

_ROOT = Path(__file__).resolve().parents[3]


class ClientProcess(ProcessProtocol):
    """One client process: its account, and how it fares.

    module   what is run: `python -m module ORDERS`
    orders   as that module takes them; with `name`, and `source`, the address it dials from
    folder   where its records and its log are kept

    killed   whether it was killed on purpose: what it had not answered is unknown
    """

    def __init__(
        self, reactor: ServerReactor, module: str, orders: dict[str, Any], folder: Path
    ) -> None:
        self.name: str = orders["name"]
        self.source: str = orders["source"]
        self.account = Account(self.name)
        self.killed = False
        self.ended = False
        self.paused = False
        self.log = folder / f"{self.name}.log"
        record = folder / f"{self.name}.records"
        self._tail = Tail(record)
        self._waiting: list[Deferred[None]] = []
        self._outcome = ""
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
        with self.log.open("ab") as log:
            self._process = reactor.spawnProcess(
                self,
                sys.executable,
                [sys.executable, "-m", module, json.dumps({**orders, "record": str(record)})],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                childFDs={0: "w", 1: log.fileno(), 2: log.fileno()},
            )
        self.pid: int = self._process.pid

    def __repr__(self) -> str:
        state = self._outcome or ("paused" if self.paused else f"running, pid {self.pid}")
        return f"<ClientProcess {self.name} from {self.source} {state}>"

    @property
    def active(self) -> bool:
        """Whether it runs and can write."""
        return not self.ended and not self.paused and not self.killed

    def read(self) -> Account:
        """Its account, with all that it has written down until now."""
        known = len(self.account.said)
        self.account.take(self._tail.news())
        for said in self.account.said[known:]:
            if said.kind == "sprung":  # it has sent itself what it was armed with
                self.killed |= said.fields["signal"] == signal.SIGKILL
                self.paused |= said.fields["signal"] == signal.SIGSTOP
        return self.account

    def operations(self) -> list[Operation]:
        """All of its commands, in order."""
        return list(self.read().operations.values())

    def order(self, *words: str | int) -> None:
        """Give it an order."""
        with contextlib.suppress(KeyError):  # it is dead, and so is the pipe
            self._process.writeToChild(0, " ".join(map(str, words)).encode() + b"\n")

    def kill(self) -> None:
        """SIGKILL, also while it is paused."""
        self.killed = True
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.paused = False
        self._signal(signal.SIGCONT)

    def exited(self) -> Deferred[None]:
        """Fires when it is gone."""
        waiting: Deferred[None] = Deferred()
        if self.ended:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def complaints(self) -> list[str]:
        """What must not happen in a client process: failures that it logged, a bad end."""
        account = self.read()
        found = [said.fields["text"] for said in account.heard("complaint")]
        if account.heard("stuck"):
            found.append(f"not drained in time, {account.pending} commands unanswered")
        if self.ended and not self.killed and not account.heard("end"):
            found.append(f"ended by itself ({self._outcome}); its log ends:\n{self.log_tail(15)}")
        return [f"{self.name}: {text}" for text in found]

    def left(self) -> list[str]:
        """What it still had when its client was closed: calls, sockets, file descriptors."""
        left: list[str] = []
        for said in self.read().heard("end"):
            left += [f"{self.name}: {thing}" for thing in said.fields["left"]]
            if said.fields["files"] > 0:
                left.append(f"{self.name}: {said.fields['files']} file descriptors")
        return left

    def log_tail(self, lines: int) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _signal(self, number: int) -> None:
        if not self.ended:
            os.kill(self.pid, number)

    def processEnded(self, reason: Failure) -> None:
        self.ended = True
        self._outcome = str(reason.value)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(None)
