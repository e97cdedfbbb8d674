"""A group of servers in memory whose replies a test scripts, under a client's whole stack."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from tests.unit.fakes import Dial, FakeReactor
from txharedis.counter import COUNT_SCRIPT, COUNT_SHA1
from txharedis.errors import ResponseError
from txharedis.failover import FailoverService
from txharedis.journal import JOURNAL_SCRIPT, JOURNAL_SHA1
from txharedis.topology import META_KEY

NODES = ("n:1", "n:2", "n:3")
_SILENT = object()  # no reply
#: What a client asks for its own sake.
_OWN = frozenset(
    (
        *("SELECT", "INFO", "PING", "HGETALL", "MGET", "CONFIG", "PUBSUB"),
        *("SUBSCRIBE", "SCRIPT", "PUBLISH", "CLIENT"),
    )
)


class ScriptedGroup:
    """Three servers, the first of them the master, and a client that follows it.

    `answers[name]` are the replies to the next commands of that name, one after the other, `always`
    those to all after that; a command of a journal's batch that is answered with an exception of
    `whole` fails the batch. `sent` tells what the caller's commands became: their names, those of a
    batch in brackets.
    """

    def __init__(self, *, whole: bool = True, **options: Any) -> None:
        self.reactor = FakeReactor()
        self.answers: dict[str, deque[object]] = {}
        self.always: dict[str, object] = {}
        self.whole = whole
        self.sent: list[str] = []
        self._queued: dict[Dial, list[object]] = {}  # the replies since MULTI
        self.service = FailoverService(NODES, self.reactor, elect=False, **options)
        self.client = self.service.client
        self.service.startService()
        self.run(1.0)
        assert str(self.client.master) == NODES[0]

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and the servers answer."""
        until = self.reactor.seconds() + seconds
        self.reactor.advance(0)
        while True:
            while self._answer_all():
                self.reactor.advance(0)
            if self.reactor.seconds() >= until:
                return
            self.reactor.advance(0.01)

    def _answer_all(self) -> bool:
        busy = False
        for dial in list(self.reactor.dials):
            if dial.protocol is None and not dial.over:
                dial.accept()
                busy = True
            if dial.protocol is not None and not dial.over:
                for command in dial.commands():
                    busy = True
                    reply = self._reply(dial, command)
                    if reply is not _SILENT and not dial.over:
                        dial.answer(reply)
        return busy

    def stop(self) -> None:
        """Close the client; nothing is left."""
        stopped: Deferred[object] = self.service.stopService()
        self.run(1.0)
        assert stopped.called
        assert self.reactor.getDelayedCalls() == []

    # The servers.

    def _reply(self, dial: Dial, words: list[bytes]) -> object:
        name = words[0].decode().upper()
        if name in _OWN:
            return self._own(dial, name, words)
        if name in ("EVAL", "EVALSHA") and words[1] in (COUNT_SCRIPT, COUNT_SHA1.encode()):
            return "QUEUED" if dial in self._queued else 1
        if name in ("EVAL", "EVALSHA") and words[1] in (JOURNAL_SCRIPT, JOURNAL_SHA1):
            return self._batch(words[3 + int(words[2]) + 7 :])
        self.sent.append(name)
        if name == "MULTI":
            self._queued[dial] = []
        elif name == "EXEC":
            replies = self._queued.pop(dial)
            if any(isinstance(reply, Exception) for reply in replies):
                return ResponseError("EXECABORT Transaction discarded because of previous errors.")
            return self._answer(name, [b"OK"] * len(replies))
        elif dial in self._queued:
            self._queued[dial].append(self._answer(name, "QUEUED"))
            return self._queued[dial][-1]
        return self._answer(name, "OK")

    def _answer(self, name: str, otherwise: object) -> object:
        answers = self.answers.get(name)
        return answers.popleft() if answers else self.always.get(name, otherwise)

    def _batch(self, rest: list[bytes]) -> object:
        names, replies = [], []
        while rest:
            count = abs(int(rest[0]))
            names.append(rest[1].decode())
            replies.append(self._answer(names[-1], "OK"))
            rest = rest[1 + count :]
        self.sent.append(f"[{' '.join(names)}]")
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        return errors[0] if self.whole and errors else [1, *replies]

    def _own(self, dial: Dial, name: str, words: Sequence[bytes]) -> object:
        number = dial.getPeer().port
        match name, [word.decode() for word in words[1:]]:
            case "INFO", ["server"]:
                return f"run_id:run{number}\r\nredis_version:7.0.15\r\nuptime_in_seconds:9".encode()
            case "INFO", ["replication"] if number == 1:
                return f"role:master\r\nmaster_replid:{'a' * 40}\r\nmaster_repl_offset:9".encode()
            case "INFO", ["replication"]:
                return (
                    "role:slave\r\nmaster_host:n\r\nmaster_port:1\r\nmaster_link_status:up\r\n"
                    "master_last_io_seconds_ago:0\r\nslave_repl_offset:9\r\nslave_read_only:1\r\n"
                    f"master_replid:{'a' * 40}"
                ).encode()
            case "INFO", _:
                return b""
            case "PING", _:
                return "PONG"
            case "HGETALL", [key] if key == META_KEY:
                meta = f"epoch 1 group g master {NODES[0]} run_id run1 ping_period 1"
                return [word.encode() for word in meta.split()]
            case "MGET", keys:
                return [None] * len(keys)
            case "CONFIG", ["GET", setting]:
                return [setting.encode(), b"100"]
            case "PUBSUB", ["NUMSUB", *channels]:
                return [item for channel in channels for item in (channel.encode(), 0)]
            case "SUBSCRIBE", [channel]:
                return [b"subscribe", channel.encode(), 1]
            case "SCRIPT", ["LOAD", _]:
                return JOURNAL_SHA1
            case "CLIENT", _:
                return 7
        return "OK"


def outcome(deferred: Deferred[Any]) -> list[Any]:
    """A list that gets the result, or the error, of this Deferred."""
    got: list[Any] = []
    deferred.addCallbacks(got.append, lambda failure: got.append(failure.value))
    return got
