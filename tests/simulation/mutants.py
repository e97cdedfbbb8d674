"""Mutants: the client, and its scripts on the servers, each with one rule broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from txharedis import campaign, delivery, election, group, journal, lock, pending
from txharedis.conductor import Conductor
from txharedis.errors import NotReplicated
from txharedis.lock import NodeLock
from txharedis.testing.simulation import scripts
from txharedis.testing.simulation.resp import integer, many
from txharedis.topology import NodeView

__all__ = ["MUTANTS", "mutated"]

Patch = pytest.MonkeyPatch
MUTANTS: dict[str, Callable[[Patch], None]] = {}


def mutant(name: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def add(function: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[name] = function
        return function

    return add


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """The rule of this name is broken inside."""
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        yield


def twin(patch: Patch, script: bytes, run: scripts.Twin) -> None:
    patch.setitem(scripts.TWINS, script, run)


# The lock.


@mutant("no fence")
def _(patch: Patch) -> None:
    async def unfenced(self: Any, *commands: Any) -> None:
        await self._ask(
            ["MULTI"], *commands, ["CONFIG", "SET", "replica-read-only", "yes"], ["EXEC"]
        )

    patch.setattr(NodeLock, "fenced", unfenced)


@mutant("no vote")
def _(patch: Patch) -> None:
    def acquire(run: Any, keys: list[bytes], args: list[bytes]) -> bytes:
        if run.get(keys[0]) is not None:
            return many([integer(0), integer(0), integer(0), integer(1)])
        run.call(b"set", keys[0], args[0], b"PX", args[1])
        return many([integer(1), integer(int(args[2])), integer(0), integer(0)])

    twin(patch, lock._ACQUIRE, acquire)


@mutant("no quorum of locks")
def _(patch: Patch) -> None:
    patch.setattr(campaign, "majority", lambda nodes: 1)


@mutant("no quorum of answers")
def _(patch: Patch) -> None:
    patch.setattr(election, "majority", lambda nodes: 1)


@mutant("the lock's life is not looked at, and it is not watched")
def _(patch: Patch) -> None:
    async def unwatched(self: Any, *commands: Any) -> None:
        _, (holder,) = await self._ask(["GET", self._key])
        if holder == self._token.encode():
            read_only = ["CONFIG", "SET", "replica-read-only", "yes"]
            await self._ask(["MULTI"], *commands, read_only, ["EXEC"])

    patch.setattr(NodeLock, "fenced", unwatched)
    patch.setattr(lock.QuorumLock, "check", lambda self: None)


# The decision.


@mutant("counters as strings")
def _(patch: Patch) -> None:
    rank = election.rank

    def by_text(views: Any) -> election.Ranking:
        given = {view.address: view for view in views}
        as_text = [
            replace(view, opcounter=int(str(view.opcounter).ljust(12, "0")))
            for view in given.values()
        ]
        found = rank(as_text)
        return election.Ranking(tuple(given[view.address] for view in found.order), found.why)

    patch.setattr(election, "rank", by_text)


@mutant("a restarted master keeps its claim")
def _(patch: Patch) -> None:
    patch.setattr(NodeView, "claims", property(lambda self: self.is_master and self.epoch > 0))


@mutant("what the replicas hear is not asked for")
def _(patch: Patch) -> None:
    patch.setattr(election._Case, "_hears", lambda self, view: False)


@mutant("the offset does not count")
def _(patch: Patch) -> None:
    rank = election.rank

    def without(views: Any) -> election.Ranking:
        given = {view.address: view for view in views}
        found = rank([replace(view, offset=0) for view in given.values()])
        return election.Ranking(tuple(given[view.address] for view in found.order), found.why)

    patch.setattr(election, "rank", without)


@mutant("gossip on trust")
def _(patch: Patch) -> None:
    def trust(self: Any, node: Any, text: str) -> None:
        for other in self.group:
            if str(other.address) == text and other.view is not None:
                self._use(other.view)

    patch.setattr(Conductor, "_gossip_heard", trust)


@mutant("the lease is ignored")
def _(patch: Patch) -> None:
    patch.setattr(group.NodeGroup, "lease_left", lambda self: 1.0)


# The journal.


def _journal(patch: Patch, change: Callable[[Any, list[bytes], list[bytes]], None]) -> None:
    whole = scripts.TWINS[journal.JOURNAL_SCRIPT]

    def changed(run: Any, keys: list[bytes], args: list[bytes]) -> bytes:
        args = args.copy()
        change(run, keys, args)
        return whole(run, keys, args)

    twin(patch, journal.JOURNAL_SCRIPT, changed)


def _forget(run: Any, keys: list[bytes], *fields: bytes) -> None:
    found = run.server.keys.dbs[15].get(keys[0])
    if found is not None:
        for field in fields:
            found[field] = b"0"


@mutant("no journal floor")
def _(patch: Patch) -> None:
    _journal(patch, lambda run, keys, args: _forget(run, keys, b"floor"))


@mutant("the journal's last is not looked at")
def _(patch: Patch) -> None:
    def change(run: Any, keys: list[bytes], args: list[bytes]) -> None:
        _forget(run, keys, b"last")
        args[2] = b"0"

    _journal(patch, change)


@mutant("neither floor nor last")
def _(patch: Patch) -> None:
    def change(run: Any, keys: list[bytes], args: list[bytes]) -> None:
        _forget(run, keys, b"floor", b"last")
        args[2] = b"0"

    _journal(patch, change)


@mutant("no order of batches (after)")
def _(patch: Patch) -> None:
    def change(run: Any, keys: list[bytes], args: list[bytes]) -> None:
        args[2] = b"0"

    _journal(patch, change)


@mutant("a lost journal is not noticed")
def _(patch: Patch) -> None:
    def change(run: Any, keys: list[bytes], args: list[bytes]) -> None:
        args[3] = b"0"

    _journal(patch, change)


@mutant("batches get new numbers when they go again")
def _(patch: Patch) -> None:
    lost = delivery._Batch.lost

    def renumbered(self: Any) -> None:
        lost(self)
        self._delivery.journal.settle(self.number)
        self.number = self._delivery.journal.number()

    patch.setattr(delivery._Batch, "lost", renumbered)


@mutant("at-most-once is sent again")
def _(patch: Patch) -> None:
    def lost(self: Any, command: Any) -> None:
        self.close()
        self._off_link(command)
        if self._stopped is not None:
            self._finish(command, self._stopped(None))
        else:
            self._return(command)
        if not self._in_flight:
            self._drained()

    patch.setattr(pending.PendingCommands, "lost", lost)


@mutant("WAIT is ignored")
def _(patch: Patch) -> None:
    patch.setattr(NotReplicated, "of", classmethod(lambda *_: None))
