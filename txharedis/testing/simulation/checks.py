"""Checks: what must hold in every history, looked at while it happens and at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from txharedis.errors import OutcomeUnknown
from txharedis.interfaces import Link
from txharedis.lock import _ACQUIRE
from txharedis.pending import Command
from txharedis.topology import META_KEY, failover_key

from .connection import Connection
from .keyspace import Snapshot
from .load import Account, Operation
from .server import Server

if TYPE_CHECKING:
    from txharedis.failover import FailoverService

__all__ = ["Counts", "Watch", "check_account", "check_known"]

_OWN_DB = 15
_WATCHED = frozenset({b"EXEC", b"EVAL"})
_META = META_KEY.encode()


class Watch:
    """Watches the servers: every vote, every change under a lock, every promotion.

    problems   the rules that were broken, for people
    forgetful  whether votes may be lost between two masters of one epoch, as many restarts at
               once can lose them; `epochs_twice` counts what was acknowledged then
    """

    def __init__(self, quorum: int, now: Callable[[], float]) -> None:
        self.problems: list[str] = []
        self.promotions = 0
        self.forgetful = False
        self.epochs_twice = 0
        self._now = now
        self._quorum = quorum
        self._granted: set[tuple[str, int, int]] = set()
        self._replaced: dict[Server, int] = {}  # how often the data of each were
        self._votes: dict[tuple[bytes, int], set[str]] = {}
        self._tokens: dict[Connection, bytes] = {}
        self._claims: dict[tuple[str, int], set[str]] = {}
        self._accepted: dict[tuple[str, int], str] = {}

    def problem(self, text: str) -> None:
        self.problems.append(f"at {self._now():.6f}: {text}")

    def watch(self, server: Server) -> None:
        """Look at what this server is asked for from here on."""
        execute, load = server.execute, server.load
        self._replaced[server] = 0

        def loaded(data: Snapshot) -> None:
            self._replaced[server] += 1
            load(data)

        def watched(link: Connection, words: list[bytes]) -> bytes | None:
            if words[0] in _WATCHED:
                return self._execute(server, execute, link, words)
            return execute(link, words)

        server.execute = watched  # type: ignore[method-assign]
        server.load = loaded  # type: ignore[method-assign]

    def _execute(
        self,
        server: Server,
        execute: Callable[[Connection, list[bytes]], bytes | None],
        link: Connection,
        words: list[bytes],
    ) -> bytes | None:
        if words[0] == b"EVAL":
            reply = execute(link, words)
            if words[1] == _ACQUIRE and reply is not None and reply.startswith(b"*4\r\n:1\r\n"):
                self._voted(server, link, words[-3], int(words[-1]))
            return reply
        queued = [words for _, words in link.queued or ()]
        held = self.lock_on(server)
        reply = execute(link, words)
        if reply is not None and reply[:1] == b"*" and reply != b"*-1\r\n":
            self._changed(server, link, queued, held)
        return reply

    @staticmethod
    def lock_on(server: Server) -> bytes | None:
        """Who holds the lock of this server, None for nobody."""
        key = failover_key(server.run_id).encode()
        if server.keys.is_expired(_OWN_DB, key):
            return None
        found: bytes | None = server.keys.dbs[_OWN_DB].get(key)
        return found

    def _voted(self, server: Server, link: Connection, token: bytes, epoch: int) -> None:
        # What a node has granted is in its data: it forgets that with a restart or a full resync.
        vote = (server.run_id, self._replaced[server], epoch)
        if vote in self._granted:
            self.problem(f"{server.name} has granted epoch {epoch} twice")
        self._granted.add(vote)
        self._votes.setdefault((token, epoch), set()).add(server.name)
        self._tokens[link] = token

    def _changed(
        self, server: Server, link: Connection, queued: list[list[bytes]], held: bytes | None
    ) -> None:
        names = [words[0] for words in queued]
        crowned = any(words[:2] == [b"HSET", _META] for words in queued)
        if not crowned and b"SLAVEOF" not in names:
            return
        token = self._tokens.get(link)
        if token is None or held != token:
            self.problem(f"{server.name} was changed by {link!r}, which did not hold its lock")
        if not crowned:
            return
        if b"SLAVEOF" in names:
            self.promotions += 1
        meta = server.keys.dbs[_OWN_DB].get(_META, {})
        epoch = int(meta.get(b"epoch", b"0"))
        votes = self._votes.get((token or b"", epoch), ())
        if len(votes) < self._quorum:
            voters = ", ".join(sorted(votes)) or "nobody"
            self.problem(f"{server.name} got epoch {epoch} with the votes of {voters}")
        group = meta.get(b"group", b"").decode()
        claims = self._claims.setdefault((group, epoch), set())
        claims.add(server.run_id)

    def watch_writing(self, service: FailoverService) -> None:
        """Look at when this client writes commands: only while it hears a quorum."""
        delivery, group, options = service._traffic.delivery, service._group, service.options
        clock = delivery.clock
        write = delivery.write

        def written(link: Link, commands: Sequence[Command]) -> int | None:
            heard = sorted((node.last_heard for node in group), reverse=True)[self._quorum - 1]
            silence = clock.seconds() - heard
            if silence > options.down_after:
                self.problem(f"{service!r} writes, and has heard no quorum for {silence:.3f} s")
            return write(link, commands)

        delivery.write = written  # type: ignore[method-assign]

    def accepted(self, service: FailoverService) -> None:
        """A write was acknowledged to the caller of this client."""
        master = service._traffic.master
        if master is None:
            self.problem(f"{service!r} has acknowledged a write without a master")
        elif master.epoch:
            epoch = (master.group, master.epoch)
            first = self._accepted.setdefault(epoch, master.run_id)
            if first == master.run_id:
                return
            if self.forgetful and {first, master.run_id} <= self._claims.get(epoch, set()):
                self.epochs_twice += 1  # somebody has granted it twice, and forgotten that between
            else:
                self.problem(f"two masters have accepted writes in epoch {master.epoch}")


class Counts(dict[str, int]):
    """Numbers by name, 0 at first."""

    def __missing__(self, name: str) -> int:
        return 0

    def add(self, other: dict[str, int]) -> None:
        for name, number in other.items():
            self[name] += number


def check_account(
    account: Account, master: Server, counts: Counts, *, confirmed: bool, alive: bool
) -> list[str]:
    """What is wrong with the data of one writer, on the master at the end.

    `confirmed` tells that what was acknowledged must be there; `alive` that its client was.
    """
    problems: list[str] = []
    data: dict[bytes, Any] = master.keys.dbs[0]

    def found(verb: str, empty: Any) -> Any:
        return data.get(f"{verb}:{account.name}".encode(), empty)

    def wrong(what: str, operation: Operation | None = None) -> None:
        problems.append(f"{account!r}: {what}{f' ({operation!r})' if operation else ''}")

    operations = account.operations
    for operation in operations:
        counts[operation.state] += 1
        if operation.state == "failed":
            counts[type(operation.error).__name__] += 1
            if not hasattr(operation.error, "executed"):
                wrong("it failed with an error of no kind of ours", operation)
        elif operation.state == "pending" and alive:
            wrong("its Deferred has never fired", operation)

    # Counters: how many were counted, and what each was told.
    _check_steps(account.of("incr"), int(found("incr", b"0")), wrong, counts, confirmed)

    # Lists: nothing twice, in order, and what each was told.
    pushes = account.of("rpush")
    numbers = [int(item) for item in found("rpush", [])]
    _check_members(pushes, set(numbers), wrong, counts, confirmed)
    if len(set(numbers)) < len(numbers):
        wrong(f"an element is there twice: {numbers}")
    settled = account.delivery == "exactly-once"
    ordered = [n for n in numbers if settled or pushes[n - 1].state == "done"]
    if ordered != sorted(ordered):
        wrong(f"the elements are out of order: {numbers}")
    _check_steps(pushes, len(numbers), wrong, counts, confirmed, told=False)

    # Hashes: a field that was new is told so.
    hsets = account.of("hset")
    _check_members(hsets, {int(name) for name in found("hset", {})}, wrong, counts, confirmed)
    for operation in hsets:
        if operation.state == "done" and operation.reply != 1:
            wrong("it was run twice", operation)

    _check_register(account, int(found("set", b"0")), wrong, counts, confirmed)
    return problems


def check_known(account: Account) -> list[str]:
    """What nobody should have been told: with a journal and confirmations, all is known."""
    if account.delivery != "exactly-once":
        return []
    return [
        f"{account!r}: nobody knows, though there is a journal ({operation!r})"
        for operation in account.operations
        if isinstance(operation.error, OutcomeUnknown)
    ]


def _may_have_run(operation: Operation) -> bool:
    return operation.executed is not False or operation.state == "pending"


def _check_members(
    operations: list[Operation],
    there: set[int],
    wrong: Callable[..., None],
    counts: Counts,
    confirmed: bool,
) -> None:
    for operation in operations:
        if operation.number in there:
            if operation.executed is False and operation.state == "failed":
                wrong("it is there, though it was not executed", operation)
        elif operation.state == "done":
            counts["lost"] += 1
            if confirmed:
                wrong("it was acknowledged, and is not there", operation)


def _check_steps(
    operations: list[Operation],
    value: int,
    wrong: Callable[..., None],
    counts: Counts,
    confirmed: bool,
    *,
    told: bool = True,
) -> None:
    """Each adds one, and is told the sum."""
    possible = certain = 0
    for operation in operations:
        possible += _may_have_run(operation)
        if operation.state != "done":
            continue
        certain += 1
        if operation.reply > possible:
            wrong(f"it was told more than the {possible} that were asked for by then", operation)
        if confirmed and operation.reply < certain:
            wrong(f"it was told less than the {certain} that had been done", operation)
    if value > possible:
        wrong(f"{value} were counted, and {possible} can have been")
    if told and value < certain:
        counts["lost"] += certain - value
        if confirmed:
            wrong(f"{value} were counted, and {certain} were acknowledged")


def _check_register(
    account: Account, value: int, wrong: Callable[..., None], counts: Counts, confirmed: bool
) -> None:
    """What is read is never older than what was acknowledged before it was asked for."""
    sets = account.of("set")
    acknowledged = [operation for operation in sets if operation.state == "done"]
    # What is unknown may take effect late, and not in its order, where it is not kept.
    late = {
        operation.number
        for operation in sets
        if account.delivery != "exactly-once" and operation.state != "done"
    }

    def look(value: int, before: float, operation: Operation | None) -> None:
        if value and not _may_have_run(sets[value - 1]):
            wrong(f"the value {value} is there, though it was not executed", operation)
        newest = max((op.number for op in acknowledged if op.ended < before), default=0)
        if value < newest and value not in late:
            counts["lost" if operation is None else "old"] += 1
            if confirmed:
                wrong(f"the value is {value}, and {newest} was acknowledged", operation)

    for operation in account.of("get"):
        if operation.state == "done":
            look(int(operation.reply or 0), operation.given, operation)
    look(value, float("inf"), None)
