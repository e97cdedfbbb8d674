"""Transactions: how those of one client begin, and how a function is run in one."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, TimeoutError, succeed
from txredisapi import WatchError

from txharedis.alarm import Alarm
from txharedis.dedicated.links import DedicatedLink, DedicatedLinks, DedicatedTerms
from txharedis.dedicated.transaction import Transaction
from txharedis.errors import NoMaster, TransactionLost
from txharedis.interfaces import Clock
from txharedis.options import Options, Terms
from txharedis.scripts import ScriptCache

__all__ = ["Transactions"]

Keys = str | bytes | Iterable[str | bytes]


class Transactions:
    """The transactions of one client."""

    def __init__(
        self,
        clock: Clock,
        links: DedicatedLinks,
        options: Options,
        terms: DedicatedTerms,
        scripts: ScriptCache,
    ) -> None:
        self.clock = clock
        self.links = links
        self.options = options
        self.terms = terms
        self.scripts = scripts
        self.stopped = False
        self._unanswered = 0
        self._sleepers: dict[Alarm, None] = {}
        self._idle: list[Deferred[None]] = []

    def __len__(self) -> int:
        """How many commands in transactions, and functions that run in one, are not over yet."""
        return self._unanswered

    def when_idle(self) -> Deferred[None]:
        """Fires when all commands in transactions are answered, and no function runs in one."""
        if not self._unanswered:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def stop(self) -> None:
        """What is lost from here on is lost because the client was closed."""
        self.stopped = True
        for alarm in tuple(self._sleepers):
            alarm.wake()

    def asked(self) -> None:
        """A command was sent in a transaction, or a function is to be run in one."""
        self._unanswered += 1

    def answered(self) -> None:
        """It was answered, or its link was lost; the function is over."""
        self._unanswered -= 1
        if not self._unanswered:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)

    async def begin(self, keys: Keys | None, db: int, terms: Terms, *, multi: bool) -> Transaction:
        """A transaction that watches these keys, and has begun when `multi`.

        Waits for a master, and after a failover for the next one: nothing is lost yet. Fails with
        what DedicatedLinks.take says, NoMaster after `command_timeout`, or the server's refusal.
        """
        if keys is not None and not isinstance(keys, (str, bytes)):
            keys = tuple(keys)  # they may have to be watched more than once
        while True:
            transaction = Transaction(self, await self._link(db, terms.timeout), terms)
            try:
                if keys is not None:
                    await transaction.watch(keys)
                if multi:
                    await transaction.multi()
                return transaction
            except TransactionLost:
                await self._sleep(0.01)
            except BaseException:
                transaction.abandon()
                raise

    async def _link(self, db: int, seconds: float | None) -> DedicatedLink:
        taken = self.links.take(db)
        if seconds is not None:
            taken.addTimeout(seconds, cast(Any, self.clock))
        try:
            return await taken
        except TimeoutError:
            raise NoMaster(f"no master took the transaction within {seconds} s") from None

    async def run(
        self,
        function: Callable[[Transaction], Any],
        keys: Sequence[Any],
        db: int,
        terms: Terms,
        attempts: int,
    ) -> list[Any]:
        """HAClient.transaction, which see."""
        if attempts < 1:
            raise ValueError(f"attempts={attempts!r} is not 1 or more")
        self.asked()
        try:
            return await self._run(function, keys, db, terms, attempts)
        finally:
            self.answered()

    async def _run(
        self,
        function: Callable[[Transaction], Any],
        keys: Sequence[Any],
        db: int,
        terms: Terms,
        attempts: int,
    ) -> list[Any]:
        attempt = 0
        while True:
            attempt += 1
            transaction = await self.begin(keys or None, db, terms, multi=False)
            try:
                try:
                    await _result(function(transaction))
                    if transaction.inMulti:
                        await transaction.commit()
                    return transaction.results
                finally:
                    transaction.hush()
                    transaction.abandon()
            except WatchError:
                if attempt == attempts:
                    raise
            except TransactionLost as lost:
                if lost.executed is not False or attempt == attempts:
                    raise
            # Those who were in each other's way do not meet again at once.
            await self._sleep(random.uniform(0, min(0.1, 0.001 * 2 ** min(attempt, 10))))

    async def _sleep(self, seconds: float) -> None:
        alarm = Alarm(self.clock)
        self._sleepers[alarm] = None
        try:
            if not self.stopped:
                await alarm.sleep(seconds)
        finally:
            self._sleepers.pop(alarm, None)


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
