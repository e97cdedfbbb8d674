"""HAClient: the Redis commands; it submits them, nothing else.

It stands below the service that owns it: of the service it knows only what `Group` says.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed

from txharedis.errors import UnsupportedCommand
from txharedis.events import Event, SubscriptionGap
from txharedis.interfaces import Submitter
from txharedis.methods import CommandMethods
from txharedis.observers import Backlog, CommandObserver
from txharedis.options import Options, Terms, check_acks
from txharedis.pipeline import Pipeline
from txharedis.pubsub.messages import Message
from txharedis.pubsub.streams import Channels, MessageStream
from txharedis.reads.lag import OwnWrites
from txharedis.reads.scanning import ScanIterator, pairs, scan_options, scored, singles
from txharedis.topology import Topology

__all__ = ["Group", "HAClient"]


class _Unset(enum.Enum):
    """The value of what was not given, where None is a value."""

    UNSET = enum.auto()


_UNSET = _Unset.UNSET
_MOST_VIEWS = 64  # that are kept
_Names = str | bytes | Iterable[str | bytes]


class Group(Protocol):
    """What a client needs of the service behind it."""

    @property
    def options(self) -> Options: ...

    @property
    def master(self) -> str | None: ...

    @property
    def topology(self) -> Topology: ...

    @property
    def size(self) -> int: ...

    @property
    def incarnation(self) -> str: ...

    @property
    def subscriptions(self) -> Channels: ...

    def submitter(self, terms: Terms) -> Submitter: ...

    def begin(self, keys: Any, terms: Terms, *, multi: bool) -> Deferred[Any]: ...

    def transact(
        self, function: Callable[[Any], Any], keys: tuple[Any, ...], terms: Terms, attempts: int
    ) -> Deferred[list[Any]]: ...

    def monitor(self, on_line: Callable[[str], object]) -> Deferred[Any]: ...

    def switchover(self, to: object = None, timeout: float = 10.0) -> Deferred[str]: ...

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]: ...

    def watch_commands(self, observer: CommandObserver) -> Callable[[], None]: ...

    @property
    def backlog(self) -> Backlog: ...

    @property
    def unavailable_seconds(self) -> float: ...

    @property
    def db(self) -> int: ...

    def inspect(self) -> Deferred[Any]: ...

    def rehearse(self) -> Deferred[Any]: ...

    def rehearse_switchover(self, to: object = None) -> Deferred[Any]: ...

    def history(self) -> Deferred[Any]: ...

    def when_ready(self) -> Deferred[None]: ...

    def drain(self) -> Coroutine[Deferred[Any], Any, None]: ...

    def end_session(self) -> Deferred[None]: ...

    def stopService(self) -> Deferred[object]: ...

    def when_stopped(self) -> Deferred[None]: ...


class HAClient(CommandMethods):
    """A client of a highly available group: any Redis client, only that its server does not die.

    It has every method of txredisapi with its signature and its reply conversion, and every other
    command of the servers under its own name: `client.xadd("s", "*", "f", "v")`,
    `client.config_get("maxmemory")`. `execute_command("ANY", ...)` sends what has no name here.
    All return Deferreds; FailoverService.submit lists how they can fail.

    Arguments are str (encoded with `charset`), bytes, int, float (in full, as repr writes it), or
    anything else as its str; None is an InvalidData error.
    """

    def __init__(self, group: Group, terms: Terms | None = None) -> None:
        super().__init__(group.options)
        self._group = group
        self._terms = group.options.terms if terms is None else terms
        self._send = group.submitter(self._terms)
        self._views: dict[Terms, HAClient] = {}

    def __repr__(self) -> str:
        return f"<HAClient of {self._group!r}>"

    @property
    def master(self) -> str | None:
        """The node that commands go to, as "host:port"; None while there is none."""
        return self._group.master

    @property
    def topology(self) -> Topology:
        """The picture of the group, as of the newest survey: frozen values."""
        return self._group.topology

    def when_ready(self) -> Deferred[HAClient]:
        """Fires with this client when commands flow to a master.

        Fails with WouldDiscardData, AccessDenied or UnfitNodes when a person has to act first, and
        with ServiceStopped.
        """
        return self._group.when_ready().addCallback(lambda _: self)

    whenConnected = when_ready  # txredisapi's name for it

    def whenDisconnected(self) -> Deferred[HAClient]:
        """Fires with this client when it has been closed; links that come and go do not count."""
        return self._group.when_stopped().addCallback(lambda _: self)

    # Other terms.

    def with_options(
        self,
        *,
        delivery: str | None = None,
        acks: int | None = None,
        timeout: float | _Unset | None = _UNSET,
    ) -> HAClient:
        """This client, with other terms for the commands given to the view that this returns.

        `delivery`, `acks` and `timeout` (command_timeout: seconds, None for never) are those of
        Options; what is not given stays as it is. A bad value is an InvalidOption.

            await client.with_options(acks=1, timeout=2).incr("k")
        """
        terms = self._terms
        if delivery is not None:
            terms = replace(terms, delivery=delivery)
        if acks is not None:
            terms = replace(terms, acks=acks)
            check_acks(acks, self._group.size)
        if not isinstance(timeout, _Unset):
            terms = replace(terms, timeout=timeout)
        return self._with(terms)

    def read_from(self, policy: str) -> HAClient:
        """This client, with its reads answered by whom `policy` says (see Options.read_from).

        Another policy than those is an InvalidOption.
        """
        return self._with(replace(self._terms, read_from=policy))

    def slave_ok(self, flag: bool = True) -> HAClient:
        """This client, its reads answered by a replica where one can; False: by the master."""
        return self.read_from("replica_preferred" if flag else "master")

    def read_your_writes(self) -> HAClient:
        """This client, with reads on replicas that are never older than its own writes.

        Own are the writes given to the view that this returns, and to views of that one. A read
        goes to the master while one of them is unanswered, and the first after that too; then to a
        replica, whose answer counts when the replica has the writes. Where reads go to the master
        anyway, they are "replica_preferred" from here on.
        """
        terms = self._terms
        return self._with(
            replace(
                terms,
                read_from="replica_preferred" if terms.read_from == "master" else terms.read_from,
                own_writes=terms.own_writes or OwnWrites(),
            )
        )

    def _with(self, terms: Terms) -> HAClient:
        """A view that shares everything but the terms; those without writes are kept."""
        if terms == self._terms:
            return self
        if terms.own_writes is not None:
            return HAClient(self._group, terms)
        view = self._views.get(terms)
        if view is None:
            if len(self._views) == _MOST_VIEWS:
                self._views.clear()
            view = self._views[terms] = HAClient(self._group, terms)
            view._views = self._views
        return view

    # Subscriptions. They are kept across failovers, on a link of their own.

    def subscribe(
        self,
        channels: _Names,
        on_message: Callable[[Message], object],
        on_gap: Callable[[SubscriptionGap], object] | None = None,
    ) -> Deferred[list[Any]]:
        """Call `on_message(message)` for each message of the channels, in their order.

        `channels` is one str or bytes, or several. `on_gap(gap)` is called when messages may have
        been missed. What a callback raises, or a coroutine or Deferred that it returns fails with,
        is logged. One callback counts once for a channel.

        The Deferred fires when the server has confirmed, with ["subscribe", the last channel, the
        number of subscriptions]. It waits while there is no node, and fails with
          ResponseError      the server refuses one of the channels (then none of them is kept);
          AccessDenied, UnfitNodes, WouldDiscardData   as commands do;
          CancelledError     it was unsubscribed, or cancelled, before;
          ServiceStopped     the client was closed.
        Bad channels raise InvalidData, what cannot be called a TypeError; both name the value.
        """
        return self._group.subscriptions.subscribe(channels, on_message, on_gap)

    def psubscribe(
        self,
        patterns: _Names,
        on_message: Callable[[Message], object],
        on_gap: Callable[[SubscriptionGap], object] | None = None,
    ) -> Deferred[list[Any]]:
        """As subscribe, for all channels that match the patterns."""
        return self._group.subscriptions.psubscribe(patterns, on_message, on_gap)

    def ssubscribe(
        self,
        channels: _Names,
        on_message: Callable[[Message], object],
        on_gap: Callable[[SubscriptionGap], object] | None = None,
    ) -> Deferred[list[Any]]:
        """As subscribe, for what is published with SPUBLISH; servers before 7.0 refuse it."""
        return self._group.subscriptions.ssubscribe(channels, on_message, on_gap)

    def unsubscribe(
        self,
        channels: _Names | None = None,
        on_message: Callable[[Message], object] | None = None,
    ) -> Deferred[list[Any]]:
        """Call `on_message` (all callbacks when None) for the channels (all when None) no more.

        No callback is called after this returns. The Deferred fires when the server has confirmed,
        with ["unsubscribe", the last channel, the number of subscriptions left].
        """
        return self._group.subscriptions.unsubscribe(channels, on_message)

    def punsubscribe(
        self,
        patterns: _Names | None = None,
        on_message: Callable[[Message], object] | None = None,
    ) -> Deferred[list[Any]]:
        """Undo psubscribe, as unsubscribe does subscribe."""
        return self._group.subscriptions.punsubscribe(patterns, on_message)

    def sunsubscribe(
        self,
        channels: _Names | None = None,
        on_message: Callable[[Message], object] | None = None,
    ) -> Deferred[list[Any]]:
        """Undo ssubscribe, as unsubscribe does subscribe."""
        return self._group.subscriptions.sunsubscribe(channels, on_message)

    def messages(
        self,
        *names: str | bytes,
        buffer: int = 1000,
        on_gap: Callable[[SubscriptionGap], object] | None = None,
    ) -> MessageStream:
        """Messages to iterate over; names with one of *?[ are patterns.

            async with client.messages("news", "log.*") as stream:
                async for message in stream: ...

        `buffer` messages are kept for a slow reader, then the oldest is dropped, and
        `stream.dropped` counts it. Entering waits for the server's confirmation and fails as
        subscribe does; leaving unsubscribes. When the client is closed, the iteration raises
        ServiceStopped after what was kept.
        """
        return self._group.subscriptions.messages(names, buffer, on_gap)

    def set(
        self,
        key: Any,
        value: Any,
        expire: Any = None,
        pexpire: Any = None,
        only_if_not_exists: bool = False,
        only_if_exists: bool = False,
    ) -> Deferred[Any]:
        """SET, as in txredisapi; without options it is the command that is given most."""
        reply: Deferred[Any]
        if expire is pexpire is None and not (only_if_not_exists or only_if_exists):
            reply = self.execute_command("SET", key, value)
        else:
            reply = super().set(key, value, expire, pexpire, only_if_not_exists, only_if_exists)
        return reply

    # Cursors.

    def scan_iter(
        self, match: str | bytes | None = None, count: int | None = None, type: str | None = None
    ) -> ScanIterator:
        """The names of the keys, as in `async for key in client.scan_iter("user:*")`.

        `match` is a glob pattern, `count` a hint how much work one step may do, `type` as in SCAN.
        See ScanIterator for what is promised.
        """
        options = scan_options(match, count)
        if type is not None:
            options += ("TYPE", type)
        return self._scan(("SCAN",), options, singles)

    def sscan_iter(
        self, key: str | bytes, match: str | bytes | None = None, count: int | None = None
    ) -> ScanIterator:
        """The members of a set; see `scan_iter`."""
        return self._scan(("SSCAN", key), scan_options(match, count), singles)

    def hscan_iter(
        self, key: str | bytes, match: str | bytes | None = None, count: int | None = None
    ) -> ScanIterator:
        """The (field, value) pairs of a hash; see `scan_iter`."""
        return self._scan(("HSCAN", key), scan_options(match, count), pairs)

    def zscan_iter(
        self, key: str | bytes, match: str | bytes | None = None, count: int | None = None
    ) -> ScanIterator:
        """The (member, score) pairs of a sorted set, the score a float; see `scan_iter`."""
        return self._scan(("ZSCAN", key), scan_options(match, count), scored)

    def _scan(
        self,
        words: tuple[str | bytes, ...],
        options: tuple[str | bytes | int, ...],
        items: Callable[[list[Any]], Iterable[Any]],
    ) -> ScanIterator:
        def step(cursor: int) -> Deferred[Any]:
            return self.execute_command(*words, cursor, *options)

        return ScanIterator(step, lambda: self._group.incarnation, items)

    # Transactions and pipelines.

    def multi(self, keys: Any = None) -> Deferred[Any]:
        """Begin a transaction on a link of its own.

        Fires with a txharedis.dedicated.transaction.Transaction. Its commands answer "QUEUED", its
        `commit()` gives the list of their replies. `keys` (one or several) are watched before. It
        waits for a master, for `command_timeout` at most (NoMaster), and fails with QueueFull when
        `max_dedicated` links are in use or waited for, and with what else ends a command.
        """
        return self._group.begin(keys, self._terms, multi=True)

    def watch(self, keys: Any) -> Deferred[Any]:
        """Begin a transaction by watching keys; its commands run at once until its `multi()`.

        As `multi` otherwise.
        """
        return self._group.begin(keys, self._terms, multi=False)

    def transaction(
        self, function: Callable[[Any], Any], *keys: Any, attempts: int = 50
    ) -> Deferred[list[Any]]:
        """Run a whole transaction, and again when it met another one.

        Watches `keys` and calls `function(tx)`, which may return a Deferred or be a coroutine
        function. What it reads with `tx` is read at once; after `tx.multi()` its commands are
        queued, and EXEC follows when it has returned. Fires with the list of EXEC's replies (a
        command that failed stands there as its ResponseError), or with an empty list when
        `function` has queued nothing: without multi() there is nothing to execute.

        `function` is called again, after a moment, when a watched key was changed, and after a
        failover when EXEC had not been sent or was refused; so it should do nothing but use `tx`.
        What it writes before `tx.multi()` is not taken back. Fails with
          WatchError       in none of `attempts` was nobody else faster;
          TransactionLost  the reply to EXEC was lost with its link (executed=None), or there was a
                           failover in the last attempt;
          ResponseError    a command was refused when it was queued (EXECABORT): nothing was done;
          what `function` raises: then the transaction is given up;
          what `multi` fails with.
        """
        return self._group.transact(function, keys, self._terms, attempts)

    def commit(self) -> Deferred[Any]:
        """Not here: a transaction has it, and `multi()` gives one."""
        return self.execute_command("EXEC")

    def discard(self) -> Deferred[Any]:
        """Not here: a transaction has it, and `multi()` gives one."""
        return self.execute_command("DISCARD")

    def pipeline(self) -> Deferred[Any]:
        """Fires with a txharedis.pipeline.Pipeline, which keeps commands until they are executed.

        There is little need of it: commands of one reactor turn leave in one write anyway.
        """
        return succeed(Pipeline(self._group.options, self._send))

    def execute_pipeline(self) -> Deferred[Any]:
        """Not here: what `pipeline()` gives has it."""
        return fail(UnsupportedCommand("execute_pipeline() is a method of what pipeline() gives"))

    def monitor(self, on_line: Callable[[str], object]) -> Deferred[Any]:
        """MONITOR on the master: `on_line(line)` is called with each command that it executes.

        The Deferred fires with a txharedis.dedicated.monitoring.Monitoring when the server has
        confirmed; its `stop()` ends it, and so does the end of the client. After a failover it goes
        on, on the new master; what the old one did meanwhile is missed. An `on_line` that raises is
        logged. Fails with ResponseError where the server refuses.
        """
        return self._group.monitor(on_line)

    def switchover(self, to: object = None, timeout: float = 10.0) -> Deferred[str]:
        """Move the master to another node, as planned: no write is lost, and none fails.

        (With `acks` some may: see docs/guarantees.md.)

        `to` is one of the nodes, as create_client takes it; None is the replica that holds most. It
        is waited for until it has caught up, `timeout` seconds at most. Then writes stand still for
        a few milliseconds, those of this client in its queue and those of others in the server.
        Fires with the new master as "host:port". Fails with
          SwitchoverFailed  it was not moved; the text says why, and who is master. With
                            executed=False nothing has changed, with None it was begun;
          NoMaster          there was none to begin with, within `timeout`;
          AccessDenied      a right is missing; docs/operations.md names those that it takes;
          InvalidOption     `to` is not one of the nodes, or `timeout` is not a time;
          ServiceStopped    the client was closed.
        Cancelling it before it has begun takes it back; later it only stops waiting.
        """
        return self._group.switchover(to, timeout)

    # What can be seen.

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call `listener(event)` with each event of txharedis.events, as `on_event` does.

        What is returned, called, ends that. A listener that raises is logged.
        """
        return self._group.listen(listener)

    def watch_commands(self, observer: CommandObserver) -> Callable[[], None]:
        """Call `observer(args)` with each command when it is given to this client or its views.

        What that returns is called with the reply, or with the Failure. What is returned here,
        called, ends it all. Commands in transactions and pipelines' own EXEC are not told.
        """
        return self._group.watch_commands(observer)

    @property
    def backlog(self) -> Backlog:
        """The commands on their way, their bytes, and how many were redispatched so far."""
        return self._group.backlog

    @property
    def unavailable_seconds(self) -> float:
        """For how many seconds since its start this client could send commands to no master.

        It includes the start itself, and an outage that is under way; it stands still when the
        client has been closed.
        """
        return self._group.unavailable_seconds

    @property
    def db(self) -> int:
        """The database that commands use now; `select(n)` changes it."""
        return self._group.db

    def inspect(self) -> Deferred[Any]:
        """Ask every node that is up for its INFO now.

        Fires with a dict of txharedis.inspection.NodeReport by Address; nodes that do not answer
        within `survey_timeout` are not in it.
        """
        return self._group.inspect()

    def rehearse(self) -> Deferred[Any]:
        """What would happen if the master died now: fires with a txharedis.rehearsal.Rehearsal."""
        return self._group.rehearse()

    def rehearse_switchover(self, to: object = None) -> Deferred[Any]:
        """What `switchover(to)` would do now: fires with a txharedis.orders.Plan.

        Nothing is changed. Fails with what the switchover would fail with, or wait for.
        """
        return self._group.rehearse_switchover(to)

    def history(self) -> Deferred[Any]:
        """The newest failovers of the group, newest first, as its servers keep them.

        Fires with a tuple of txharedis.chronicle.FailoverRecord, a hundred at most; fails with
        NoMaster when there is none to ask. It is empty without the right to read `haredis:*`.
        """
        return self._group.history()

    def shutdown(self) -> Deferred[Any]:
        """Shut the master down: the others then replace it."""
        return self.execute_command("SHUTDOWN")

    def quit(self) -> Deferred[None]:
        """Wait until all commands are answered, then close; fires when the last link is gone.

        Blocking commands are waited for too: cancel those that would wait for ever. So is what
        `transaction()` runs; one that was begun by `multi()` or `watch()` is not.
        """

        async def drain_and_stop() -> None:
            await self._group.drain()
            await self._group.end_session()
            await self._group.stopService()

        return Deferred.fromCoroutine(drain_and_stop())

    def disconnect(self) -> Deferred[object]:
        """Close now: what is pending fails with ServiceStopped; fires when the links are gone.

        Blocking commands are taken back first, for half a second at most.
        """
        return self._group.stopService()
