"""Transaction: MULTI, WATCH and EXEC on a link of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred, fail
from txredisapi import BaseRedisProtocol, HiredisProtocol, RedisError, WatchError

from txharedis.commands import describe, refusal
from txharedis.counter import count_command
from txharedis.dedicated.links import DedicatedLink, DedicatedLinks, DedicatedTerms
from txharedis.dedicated.recording import Recorded, Step, recording
from txharedis.errors import (
    LinkLost,
    NotInTransaction,
    NotReplicated,
    ResponseError,
    ServiceStopped,
    TransactionLost,
    UnsupportedCommand,
)
from txharedis.interfaces import NOBODY, Clock, Timer, pack, wait_command
from txharedis.methods import CommandMethods
from txharedis.options import Options, Terms
from txharedis.scripts import ScriptCache

__all__ = ["Owner", "Transaction"]


class Owner(Protocol):
    """Whoever begins transactions."""

    clock: Clock
    links: DedicatedLinks
    options: Options
    terms: DedicatedTerms
    scripts: ScriptCache
    stopped: bool

    def asked(self) -> None:
        """A command was sent in a transaction."""

    def answered(self) -> None:
        """It was answered, or its link was lost."""


class Transaction(CommandMethods):
    """A transaction on a link of its own: what `multi()` and `watch()` of a client give.

    It has every command method, with the conversions that the client's have. Before `multi()`
    commands run at once; after it each answers "QUEUED", and `commit()` gives the list of their
    replies, in which a command that failed stands as its ResponseError.

    It ends with commit(), discard(), or unwatch() before multi(); after that every method fails
    with NotInTransaction. When its link or the master is lost, all that is unanswered and all that
    is asked later fails with TransactionLost, which says whether EXEC was sent; when the client is
    closed, with ServiceStopped.

    `inTransaction`, `inMulti`, `pendingTransaction` and `transactions` are txredisapi's: whether
    WATCH or MULTI was answered and nothing has ended it, whether multi() was called, whether it has
    not ended, and how many commands are queued.
    """

    def __init__(self, owner: Owner, link: DedicatedLink, terms: Terms) -> None:
        super().__init__(owner.options)
        self.pendingTransaction = True
        self._owner = owner
        self._link: DedicatedLink | None = link
        self._terms = terms  # of the view in which it was begun
        self._writes = 0
        self._steps: list[list[Step]] = []  # what makes the replies in EXEC's list
        self._replies: list[Deferred[Any]] = []
        self._exec_sent = False
        self.results: list[Any] = []  # of EXEC
        self._why_over: Callable[[], RedisError] | None = None
        self.records = False

    def __repr__(self) -> str:
        state = "over" if self._why_over else "in MULTI" if self.inMulti else "before MULTI"
        return f"<Transaction {state}, {self._link or 'no link'}>"

    # The methods that make a transaction.

    def watch(self, keys: Any) -> Deferred[Any]:
        """Watch these keys too; fires with this transaction."""
        names = [keys] if isinstance(keys, (str, bytes)) else list(keys)
        return self._ask(("WATCH", *names), self._begun)

    def unwatch(self) -> Deferred[Any]:
        """Watch nothing any more: that ends it, unless multi() was called."""
        if self.inMulti:
            return self._queue(("UNWATCH",), [])
        reply = self._ask(("UNWATCH",), self._ended)
        self._end(_over)
        return reply

    def multi(self, keys: Any = None) -> Deferred[Any]:
        """From here on commands are queued; fires with this transaction.

        With `keys`, which are watched before, wait for the Deferred: what is asked until then is
        not queued.
        """
        if keys is not None:
            return self.watch(keys).addCallback(lambda _: self.multi())
        reply = self._ask(("MULTI",), self._begun)
        self.inMulti = self._why_over is None
        return reply

    def commit(self) -> Deferred[Any]:
        """EXEC. Fires with the list of the replies; an error among them is its ResponseError.

        Fails with WatchError (a watched key was changed: nothing was executed), with
        ResponseError (EXECABORT, for one: a command was refused when it was queued, and nothing was
        executed), or with TransactionLost.
        """
        if not self.inMulti and self._why_over is None:
            return fail(NotInTransaction("commit() before multi()"))
        writes = self._writes
        reply = self._ask(("EXEC",), self._executed, writes, exec_sent=True)
        self._end(_over)
        return reply

    def discard(self) -> Deferred[Any]:
        """Give it up."""
        if not self.inMulti and self._why_over is None:
            return fail(NotInTransaction("discard() before multi()"))
        reply = self._ask(("DISCARD",), self._ended)
        self._end(_over)
        self._clear()
        return reply

    def abandon(self) -> None:
        """End it, if it has not ended, and wait for nothing."""
        if self._why_over is None:
            (self.discard() if self.inMulti else self.unwatch()).addErrback(lambda _: None)

    def pipeline(self) -> Deferred[Any]:
        """Not here: what is queued goes out together as it is."""
        return fail(UnsupportedCommand("not in a transaction: it is a method of the client"))

    execute_pipeline = quit = shutdown = pipeline

    def hush(self) -> None:
        """No failure is news any more to who has not waited for it: commit() tells."""
        for reply in self._replies:
            reply.addErrback(lambda _: None)

    # Every other command.

    def execute_command(
        self, *args: Any, post_proc: Step | None = None, apply_timeout: bool = True
    ) -> Any:
        """Run any command, or queue it after multi(); see CommandMethods.execute_command.

        Fails with UnsupportedCommand for what would change the link in other ways, and for a
        blocking command before multi(): use the client for that.
        """
        steps = [] if post_proc is None else [post_proc]
        if self.inMulti and self.records:
            return Recorded(args, steps)
        if self.inMulti:
            return self._queue(args, steps)
        reply = self._checked(args) or self._ask(args, self._answered, self._written(args))
        for step in steps:
            reply.addCallback(step)
        return reply

    def queue_recorded(self, recorded: Recorded) -> Deferred[Any]:
        """Queue a command whose method would have done `steps` to the reply."""
        return self._queue(recorded.args, recorded.steps)

    def _queue(self, args: tuple[Any, ...], steps: list[Step]) -> Deferred[Any]:
        failed = self._checked(args)
        if failed is not None:
            return failed
        reply = self._ask(args, partial(self._queued_now, steps))
        self._writes += self._written(args)
        return reply

    def _checked(self, args: tuple[Any, ...]) -> Deferred[Any] | None:
        info = describe(args or ("",))
        if info.name in _ENDINGS:
            method = _ENDINGS[info.name]
            return fail(UnsupportedCommand(f"{info.name}: use the method {method}()"))
        if info.stateful and info.name != "UNWATCH":
            return fail(UnsupportedCommand(refusal(info.name)))
        if info.blocking and not self.inMulti:
            return fail(UnsupportedCommand(f"{info.name} blocks: give it to the client"))
        return None

    @staticmethod
    def _written(args: tuple[Any, ...]) -> int:
        return int(bool(args) and not describe(args).read)

    # What the server says.

    def _begun(self, reply: object) -> Any:
        if reply != b"OK":
            raise RedisError(f"Invalid response: {reply!r}")
        if self._why_over is None:
            self.inTransaction = True
        return self

    def _answered(self, reply: object) -> Any:
        return self._owner.terms.value(reply)

    def _queued_now(self, steps: list[Step], reply: object) -> Any:
        self._steps.append(steps)
        self.transactions += 1
        return self._owner.terms.value(reply)

    def _ended(self, reply: object) -> Any:
        self._let_go(clean=True)
        return self._owner.terms.value(reply)

    def _executed(self, reply: object) -> Any:
        self._let_go(clean=True)
        self._clear()
        if reply is None:
            raise WatchError("Transaction failed")
        steps = iter(self._steps)
        items = cast(list[object], reply)
        self.results = [self._item(next(steps, []), item) for item in items]
        return self.results

    def _item(self, steps: list[Step], item: object) -> Any:
        if isinstance(item, Exception):
            return item
        value: Any = self._owner.terms.value(item)
        for step in steps:
            value = step(value)
        return value

    # The link.

    def _ask(
        self,
        args: tuple[Any, ...],
        done: Callable[[object], Any],
        writes: int = 0,
        *,
        exec_sent: bool = False,
    ) -> Deferred[Any]:
        """Send a command, and the count of the writes that it makes; `done` gets the raw reply."""
        packed = [self._with_script(args)]
        if self._why_over is not None:
            return fail(self._why_over())
        assert self._link is not None
        asked = _Asked(self, done, args, self._terms, writes=writes)
        self._replies.append(asked.deferred)
        waiters: list[Any] = [asked]
        if writes and self._owner.terms.counter is not None:
            packed.append(pack(tuple(count_command(self._owner.terms.counter, writes))))
            waiters.append(NOBODY)
        if asked.acks:
            packed.append(pack(wait_command(asked.acks, self._owner.options.ack_timeout)))
            waiters.append(asked)
        self._owner.asked()
        if not self._link.send(packed, waiters):
            asked.lost()
            return asked.deferred
        self._exec_sent = self._exec_sent or exec_sent
        if self._terms.timeout is not None:
            asked.expire_after(self._terms.timeout)
        return asked.deferred

    def _with_script(self, args: tuple[Any, ...]) -> bytes:
        """The command as it goes out: nothing in a MULTI can be asked for again.

        So the script of an EVALSHA goes with it, if it is known.
        """
        packed = self._packed(args)
        info = describe(args)
        if info.noscript:
            self._owner.scripts.note(info.name, packed)
            words = self._owner.scripts.whole(info.name, packed)
            return packed if words is None else pack(tuple(words))
        return packed

    def turned_away(self, error: Exception) -> bool:
        """Whether this error reply ends it: the node is the master no more, say."""
        reason = ResponseError(str(error).partition("because of: ")[2] or str(error))
        if not self._owner.terms.may_retry(reason):
            return False
        self._lose(f"the master turned it away: {error}", executed=False)
        self._owner.terms.turned_away(error)
        return True

    def refused(self, done: Callable[[object], Any], error: Exception) -> None:
        """An error reply; of what should have ended it, only EXECABORT tells what it left."""
        if self._why_over is not None and done in (self._executed, self._ended):
            self._let_go(clean=str(error).startswith("EXECABORT"))
            self._clear()

    def link_lost(self, why: str = "its link was lost") -> RedisError:
        """The error for what is not answered any more."""
        self._lose(why, executed=None if self._exec_sent else False)
        assert self._why_over is not None
        return self._why_over()

    def answered(self) -> None:
        self._owner.answered()

    @property
    def clock(self) -> Clock:
        return self._owner.clock

    def _lose(self, why: str, executed: bool | None) -> None:
        if self._link is None:
            return
        sent = self._exec_sent

        def over() -> RedisError:
            if self._owner.stopped:
                return ServiceStopped("the service was stopped", executed)
            when = "after EXEC was sent" if sent else "before EXEC"
            return TransactionLost(f"{why} {when}", sent, executed)

        self._why_over = over
        self._clear()
        self._let_go(clean=False)

    def _end(self, why: Callable[[], RedisError]) -> None:
        if self._why_over is None:
            self._why_over = why
            if not self.inMulti:
                self._clear()

    def _clear(self) -> None:
        self.inTransaction = self.inMulti = self.pendingTransaction = False
        self.transactions = 0

    def _let_go(self, *, clean: bool) -> None:
        link, self._link = self._link, None
        if link is not None and clean:
            self._owner.links.give_back(link)
        elif link is not None:
            self._owner.links.discard(link)


def _over() -> RedisError:
    return NotInTransaction("the transaction is over")


_ENDINGS = {"MULTI": "multi", "WATCH": "watch", "EXEC": "commit", "DISCARD": "discard"}


_NO_REPLY = object()


class _Asked:
    """One command of a transaction, on its link; with `acks`, WAIT's reply comes after its own."""

    def __init__(
        self,
        transaction: Transaction,
        done: Callable[[object], Any],
        args: Sequence[Any],
        terms: Terms,
        *,
        writes: int,
    ) -> None:
        self.deferred: Deferred[Any] = Deferred(lambda _: None)
        self.acks = terms.acks if writes else 0
        self._args = args
        self._reply: object = _NO_REPLY
        self._is_over = False
        self._own_writes = terms.own_writes if writes else None
        if self._own_writes is not None:
            self._own_writes.begin()
        self._transaction = transaction
        self._done = done
        self._timer: Timer | None = None

    def expire_after(self, seconds: float) -> None:
        self._timer = self._transaction.clock.callLater(seconds, self._expired, seconds)

    def _expired(self, seconds: float) -> None:
        self._timer = None
        error = self._transaction.link_lost(f"no reply within {seconds} s")
        self._fire(error)

    def settle(self, reply: object) -> None:
        if self.acks and self._reply is _NO_REPLY:
            self._reply = reply
        elif self.acks:
            self._answered(self._reply, waited=reply)
        else:
            self._answered(reply)

    def _answered(self, reply: object, waited: object = 0) -> None:
        transaction = self._transaction
        self._over()
        outcome: Any
        if isinstance(reply, Exception):
            if transaction.turned_away(reply):
                outcome = transaction.link_lost()
            else:
                transaction.refused(self._done, reply)
                outcome = reply
        else:
            try:
                outcome = self._done(reply)
                short = NotReplicated.of(self._args, reply, self.acks, waited)
                outcome = outcome if short is None else short
            except Exception as error:
                outcome = error
        self._fire(outcome)

    def lost(self) -> None:
        if self._is_over:
            return
        if self._reply is not _NO_REPLY:
            self._answered(self._reply, waited=LinkLost("its link was lost"))
            self._transaction.link_lost()
            return
        self._over()
        self._fire(self._transaction.link_lost())

    def _over(self) -> None:
        self._is_over = True
        self._transaction.answered()
        if self._own_writes is not None:
            self._own_writes.end(None)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _fire(self, outcome: Any) -> None:
        if self.deferred.called:
            return  # cancelled
        if isinstance(outcome, Exception):
            self.deferred.errback(outcome)
        else:
            self.deferred.callback(outcome)


for _name in {*vars(BaseRedisProtocol), *vars(HiredisProtocol)}:
    _method = getattr(HiredisProtocol, _name)
    _ours = _name in vars(CommandMethods) or _name in vars(Transaction)
    if inspect.isfunction(_method) and _name[0] != "_" and not _ours:
        setattr(Transaction, _name, recording(_method))
