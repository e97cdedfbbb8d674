"""A server in memory that follows the journal's rules: the script's twin, in Python."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from txharedis.counter import COUNT_SHA1
from txharedis.errors import ResponseError
from txharedis.interfaces import Waiter
from txharedis.journal import JOURNAL_SCRIPT, JOURNAL_SHA1

READONLY = "READONLY You can't write against a read only replica."
NOSCRIPT = "NOSCRIPT No matching script. Please use EVAL."
NO_WAIT = "ERR WAIT cannot be used with replica instances."
NO_EVALSHA = "NOPERM this user has no permissions to run the 'evalsha' command"


def words_of(packed: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(packed)
    words: list[bytes] = reader.gets()
    return words


class JournalServer:
    """RPUSH, LLEN, LRANGE, WAIT, and EVALSHA of the journal and of the counter.

    `state` is what replicas copy: `past` holds it as it was after each command that changed it, and
    `confirmed` how much of that a replica has. `replicates` tells whether WAIT finds it in time.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"lists": {}, "journals": {}, "writes": 0}
        self.past = [copy.deepcopy(self.state)]
        self.confirmed = 0
        self.replicates = True
        self.read_only = False
        self.knows_script = True
        self.denies = False
        self.names: list[str] = []  # of the commands that came, those of batches too

    def promoted(self, prefix: int) -> JournalServer:
        """The replica that had this much of the history, made master."""
        new = JournalServer()
        new.past = copy.deepcopy(self.past[: prefix + 1])
        new.state = copy.deepcopy(new.past[-1])
        new.confirmed = prefix
        return new

    def values(self, key: bytes = b"log") -> list[bytes]:
        values: list[bytes] = self.state["lists"].get(key, [])
        return values

    def flush(self) -> None:
        """FLUSHALL."""
        self.state.update(lists={}, journals={}, writes=0)
        self._changed()

    def _changed(self) -> None:
        self.past.append(copy.deepcopy(self.state))

    def execute(self, packed: bytes) -> object:
        before = copy.deepcopy(self.state)
        reply = self._run(words_of(packed))
        if self.state != before:
            self._changed()
        return reply

    def _run(self, words: list[bytes]) -> object:
        name = words[0].decode().upper()
        if name in ("EVAL", "EVALSHA"):
            if self.denies:
                return ResponseError(NO_EVALSHA)
            if words[1] == COUNT_SHA1.encode():
                self.state["writes"] += int(words[-1])
                return self.state["writes"]
            if name == "EVAL":
                assert words[1] == JOURNAL_SCRIPT
                self.knows_script = True
            assert words[1] in (JOURNAL_SHA1, JOURNAL_SCRIPT)
            return (
                self._journal(words[3], words[3 + int(words[2]) :])
                if self.knows_script
                else ResponseError(NOSCRIPT)
            )
        if name == "WAIT":
            if self.read_only:
                return ResponseError(NO_WAIT)
            if self.replicates:
                self.confirmed = len(self.past) - 1
            return int(self.replicates)
        return self._command(words)

    def _command(self, words: list[bytes]) -> object:
        name, key, *rest = words
        self.names.append(name.decode())
        values = self.state["lists"].get(key, [])
        match name:
            case b"RPUSH":
                if self.read_only:
                    return ResponseError(READONLY)
                values = self.state["lists"].setdefault(key, [])
                values.extend(rest)
                return len(values)
            case b"LLEN":
                return len(values)
            case b"LRANGE":
                return list(values)
        raise AssertionError(name)

    def _journal(self, key: bytes, rest: list[bytes]) -> object:
        number, settled, after, again = (int(word) for word in rest[:4])
        commands = rest[7:]
        journal = self.state["journals"].get(key)
        if journal is None:
            if again:
                return [0]
            if after:
                return [-2]
            if self.read_only:
                return ResponseError(READONLY)
            journal = self.state["journals"][key] = {"floor": settled, "last": settled}
        elif number <= journal["floor"]:
            return [-1]
        elif number not in journal and number <= journal["last"]:
            return [0]
        elif number not in journal and journal["last"] < after:
            return [-2]
        kept = journal.get(number)
        replies: list[object] = []
        while commands:
            count = int(commands[0])
            words, commands = commands[1 : 1 + abs(count)], commands[1 + abs(count) :]
            if count == 0:
                replies.append(None)
            elif kept is not None and count > 0:
                replies.append(kept[len(replies)])
            else:
                reply = self._command(words)
                if isinstance(reply, ResponseError) and str(reply).startswith("READONLY"):
                    return reply
                replies.append(reply)
        if kept is not None:
            return [2, *replies]
        journal[number] = replies
        journal["last"] = number
        for old in range(journal["floor"] + 1, settled + 1):
            journal.pop(old, None)
        journal["floor"] = max(journal["floor"], settled)
        return [1, *replies]


class ServerLink:
    """A link to such a server, on which everything happens when it is told to."""

    def __init__(self, server: JournalServer, db: int = 0) -> None:
        self.db = db
        self.server = server
        self.alive = True
        self.unread: deque[bytes] = deque()  # written, and not yet executed
        self.replies: deque[object] = deque()  # executed, and not yet delivered
        self.waiters: deque[Waiter] = deque()

    def after_read(self, call: Callable[[], object]) -> bool:
        return False  # nothing is being handed out

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool:
        if not self.alive:
            return False
        assert len(packed) == len(waiters)
        self.unread.extend(packed)
        self.waiters.extend(waiters)
        return True

    def execute(self, many: int = 1000) -> None:
        for _ in range(min(many, len(self.unread))):
            self.replies.append(self.server.execute(self.unread.popleft()))

    def deliver(self, many: int = 1000) -> None:
        while many and self.replies and self.alive:
            many -= 1
            self.waiters.popleft().settle(self.replies.popleft())

    def die(self) -> list[bytes]:
        """It is lost; returns what the server has not read yet, and may read later."""
        self.alive = False
        self.replies.clear()
        waiters, self.waiters = self.waiters, deque()
        for waiter in waiters:
            waiter.lost()
        late, self.unread = list(self.unread), deque()
        return late
