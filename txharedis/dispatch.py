"""Dispatch: where each thing that a client asks for goes.

Most commands go to the queue of the master; some to a replica, and some, with transactions and
monitors, over a link of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.python.failure import Failure

from txharedis.commands import PLAIN, CommandInfo, describe, refusal
from txharedis.dedicated.blocking import Blocking
from txharedis.dedicated.links import DedicatedTerms
from txharedis.dedicated.monitoring import Monitoring, Monitors
from txharedis.dedicated.transaction import Transaction
from txharedis.dedicated.transactions import Transactions
from txharedis.errors import InvalidOption, UnsupportedCommand
from txharedis.group import NodeGroup
from txharedis.interfaces import Args, Reactor, Submitter, pack
from txharedis.journal import MOST_WORDS
from txharedis.log import ClientLog
from txharedis.options import Options, Terms
from txharedis.reads.reading import ReplicaReads
from txharedis.replies import converter
from txharedis.scripts import ScriptCache
from txharedis.traffic import Traffic

__all__ = ["Dispatch"]

_CONFIRMING = frozenset({"WAIT", "WAITAOF"})


class Dispatch:
    """What one client has under way.

    `reads` are those that replicas may answer; the owner tells it what it hears of the nodes.
    """

    def __init__(
        self,
        reactor: Reactor,
        group: NodeGroup,
        traffic: Traffic,
        options: Options,
        log: ClientLog,
    ) -> None:
        self._options = options
        self._traffic = traffic
        self._pending = traffic.pending
        self._log = log
        self._scripts = ScriptCache()
        terms = DedicatedTerms(
            counter=traffic.counter,
            convert=converter(options.charset, options.convert_numbers),
            may_retry=traffic.may_retry,
            turned_away=traffic.turned_away,
        )
        self._blocking = Blocking(
            reactor, traffic.links, traffic.pending, log, terms, options.ack_timeout
        )
        self._transactions = Transactions(reactor, traffic.links, options, terms, self._scripts)
        self._monitors = Monitors(reactor, traffic.links, log)
        self.reads = ReplicaReads(
            reactor,
            group,
            options,
            traffic.pending,
            log,
            lambda: traffic.master if traffic.address is not None else None,
        )

    @property
    def busy(self) -> bool:
        """Whether something is not answered yet."""
        return any((self._pending, self._blocking, self._transactions))

    def when_idle(self) -> Deferred[Any]:
        """Fires when all that is under way now is answered."""
        parts = (self._pending, self._blocking, self._transactions)
        return gatherResults([part.when_idle() for part in parts])

    def stop(self) -> Deferred[None]:
        """End all with ServiceStopped; `Traffic.stop` has been called.

        The Deferred fires when what waits on the servers has been taken back, or after a moment.
        """
        self.reads.stop()
        self._transactions.stop()
        self._monitors.stop()
        return self._blocking.stop()

    def submitter(
        self, terms: Terms, observed: Sequence[object], submit: Callable[..., Deferred[object]]
    ) -> Submitter:
        """What takes commands on these terms by the shortest way.

        Simple ones go to the queue at once. All others are given to `submit`, with the terms; so
        are all while there is anything in `observed`.
        """
        add = self._pending.add
        straight = (
            terms.read_from == "master"
            and terms.own_writes is None
            and not self._options.command_logging
        )

        def take(args: Args, packed: bytes) -> Deferred[object]:
            info = describe(args)
            if straight and info.simple and not observed and len(args) <= MOST_WORDS:
                return add(args, packed, info.read, None, terms, info.fit)
            return submit(args, packed, terms)

        return take

    def submit(self, args: Args, packed: bytes, terms: Terms) -> Deferred[object]:
        """See FailoverService.submit."""
        info = describe(args)
        if info.name == "SELECT":
            return self._select(args, packed)
        if info.stateful:
            return fail(UnsupportedCommand(refusal(info.name)))
        if info.replica and terms.read_from != "master":
            read = self.reads.add(args, packed, info, terms)
            return self._with_scripts(read, info, packed, terms) if info.noscript else read
        if self._options.command_logging:
            place = self._traffic.address or "nobody yet"
            self._log.info(
                "{command} on {node} (master default)", command=info.name.lower(), node=place
            )
        if info.blocking:
            acks = 0 if info.read or info.name in _CONFIRMING else terms.acks
            reply = self._blocking.submit(
                info.name, args, packed, self._db, read=info.read, acks=acks
            )
        else:
            fit = info.fit if len(args) <= MOST_WORDS else PLAIN
            reply = self._pending.add(args, packed, info.read, terms=terms, fit=fit)
        if info.noscript:
            reply = self._with_scripts(reply, info, packed, terms)
        if terms.own_writes is not None and not info.read:
            terms.own_writes.begin()
            reply.addBoth(terms.own_writes.end)
        return reply

    def _with_scripts(
        self, reply: Deferred[object], info: CommandInfo, packed: bytes, terms: Terms
    ) -> Deferred[object]:
        self._scripts.note(info.name, packed)
        return reply.addErrback(self._script_again, info, packed, self._db, terms)

    def _script_again(
        self, failure: Failure, info: CommandInfo, packed: bytes, db: int, terms: Terms
    ) -> Failure | Deferred[object]:
        """A master that does not know a script of ours is given it."""
        words = self._scripts.again(info.name, packed, failure.value)
        if words is None:
            return failure
        return self._pending.add(words, pack(tuple(words)), info.read, db, terms)

    @property
    def _db(self) -> int:
        """The database that is selected."""
        return self._pending.db

    def _select(self, args: Args, packed: bytes) -> Deferred[object]:
        try:
            db = int(args[1])
        except (IndexError, ValueError):
            return fail(InvalidOption(f"{list(args[1:])!r} names no database"))
        if db == self._options.haredis_db_num:
            return fail(
                InvalidOption(f"{db} is the database of our own keys (haredis_db_num); use another")
            )
        return self._traffic.select(db, args, packed)

    def begin(self, keys: Any, terms: Terms, *, multi: bool) -> Deferred[Transaction]:
        """See FailoverService.begin."""
        begun = self._transactions.begin(keys, self._db, terms, multi=multi)
        return Deferred.fromCoroutine(begun)

    def transact(
        self,
        function: Callable[[Transaction], Any],
        keys: tuple[Any, ...],
        terms: Terms,
        attempts: int,
    ) -> Deferred[list[Any]]:
        """See FailoverService.transact."""
        run = self._transactions.run(function, keys, self._db, terms, attempts)
        return Deferred.fromCoroutine(run)

    def monitor(self, on_line: Callable[[str], object]) -> Deferred[Monitoring]:
        """See FailoverService.monitor."""
        return self._monitors.start(on_line, self._db)
