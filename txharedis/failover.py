"""FailoverService: a group of servers as one Twisted service; what its client asks of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.python.failure import Failure

from txharedis.chronicle import HISTORY_KEY, Chronicle, FailoverRecord, read_history
from txharedis.client import HAClient
from txharedis.conductor import Conductor, Phase
from txharedis.dedicated.monitoring import Monitoring
from txharedis.dedicated.transaction import Transaction
from txharedis.errors import (
    HARedisError,
    InvalidOption,
    LinkLost,
    NoMaster,
    ServiceStopped,
    SwitchoverFailed,
)
from txharedis.events import Event
from txharedis.inspection import NodeReport, ask, inspect
from txharedis.interfaces import Args, Reactor, Submitter
from txharedis.log import ClientLog
from txharedis.observers import Backlog, CommandObserver, Observers
from txharedis.options import Options, Terms, check_seconds, parse_nodes
from txharedis.orders import Plan
from txharedis.rehearsal import Rehearsal, rehearse
from txharedis.topology import Address, Status, Topology

__all__ = ["FailoverService", "Phase", "create_client"]


def create_client(
    nodes: object = None, *, reactor: Reactor | None = None, **options: object
) -> HAClient:
    """Make a client of these nodes, and return it at once; it connects by itself.

    `nodes` is a list of "host:port", "host", ":port", "6380", 6380, ("host", port) or
    "[::1]:6379"; or one of these; or nothing (127.0.0.1:6379); or a URL
    "redis://user:password@host:port/db?addr=host:port&addr=host:port" ("rediss://..." for TLS). One
    node is single mode: the queue and the redispatch, without an election; it may be a unix socket,
    "unix:/path/to/socket" or "unix://user:password@/path/to/socket?db=0". `reactor` is the global
    one when None. The options are those of txharedis.Options.

    Commands given before a master is known wait their turn. A bad node, an unknown option or a bad
    value raises InvalidOption, which names it. Close the client with `quit()` or `disconnect()`.
    """
    service = FailoverService(nodes, reactor, **options)
    service.startService()
    return service.client


class FailoverService(Service):
    """A highly available group of Redis servers as a Twisted Service.

    `nodes` and `options` are those of create_client; `reactor` is the global one when None. The
    service works from startService to stopService; `client` is its HAClient and takes commands
    before that too, which then wait.
    """

    def __init__(
        self, nodes: object = None, reactor: Reactor | None = None, **options: object
    ) -> None:
        parsed = parse_nodes(nodes)
        given = Options.from_mapping({**parsed.options, **options})
        self.options = given.fitted(parsed.addresses)
        self._reactor = reactor = _global_reactor() if reactor is None else reactor
        self._log = ClientLog(debug_mode=self.options.debug_mode)
        self._observers = Observers(self._log)
        self._conductor = Conductor(
            reactor, parsed.addresses, self.options, self._log, self._observers.emit
        )
        self._group = self._conductor.group
        self._traffic = self._conductor.traffic
        self._dispatch = self._conductor.dispatch
        self.subscriptions = self._conductor.subscriptions
        chronicle = Chronicle(lambda node: self._group[node].control, self.options.patience)
        self._observers.listen(chronicle.note)
        if self.options.on_event is not None:
            self._observers.listen(self.options.on_event)
        self.client = HAClient(self)
        self._gone = False  # stopped, and no link is left
        self._awaiting_end: list[Deferred[None]] = []

    def __repr__(self) -> str:
        pending = len(self._traffic.pending)
        return (
            f"<FailoverService #{self._log.number} {self.phase.value}, "
            f"{f'master {self.master}' if self.master else 'no master'}, "
            f"epoch {self._traffic.memory.epoch}, "
            f"{self._group.count(Status.UP)}/{len(self._group)} nodes up, "
            f"{pending} commands pending>"
        )

    # What the client asks for.

    def submit(self, args: Args, packed: bytes, terms: Terms) -> Deferred[object]:
        """Run one command on the master, now or after the failover in progress.

        `packed` is the command as it goes over the wire. Returns a Deferred with the converted
        reply, or failing with
          ResponseError      the server refused it (it was not executed, or says otherwise itself);
          OutcomeUnknown     it was sent, the reply was lost, and it must not be sent again;
          NoMaster           no master within `command_timeout` seconds, or none that may answer it;
          QueueFull          `max_pending` commands or `max_pending_bytes` bytes already wait, or
                             `max_dedicated` links of single callers are in use or waited for;
          WouldDiscardData   the nodes cannot be made one group without losing data;
          AccessDenied       the servers lack, or refuse us, what we need;
          UnfitNodes         the nodes cannot be one group;
          UnsupportedCommand it would change the link that all commands share; the text names the
                             method to use instead, where there is one;
          ServiceStopped     the service was stopped first.
        Cancelling it drops an unsent command and stops waiting for a sent one. A blocking command
        goes over a link of its own, is issued again on the next master, and takes nothing away when
        it is cancelled; see docs/guarantees.md.
        """
        reply = self._dispatch.submit(args, packed, terms)
        return self._observers.watch(args, reply) if self._observers.of_commands else reply

    def submitter(self, terms: Terms) -> Submitter:
        """`submit` on these terms, for who gives many commands."""
        return self._dispatch.submitter(terms, self._observers.of_commands, self.submit)

    def begin(self, keys: Any, terms: Terms, *, multi: bool) -> Deferred[Transaction]:
        """A transaction that watches `keys` (None for nothing); see HAClient.multi."""
        return self._dispatch.begin(keys, terms, multi=multi)

    def transact(
        self,
        function: Callable[[Transaction], Any],
        keys: tuple[Any, ...],
        terms: Terms,
        attempts: int,
    ) -> Deferred[list[Any]]:
        """See HAClient.transaction."""
        return self._dispatch.transact(function, keys, terms, attempts)

    def monitor(self, on_line: Callable[[str], object]) -> Deferred[Monitoring]:
        """See HAClient.monitor."""
        return self._dispatch.monitor(on_line)

    def switchover(self, to: object = None, timeout: float = 10.0) -> Deferred[str]:
        """See HAClient.switchover."""
        try:
            check_seconds("timeout", timeout)
        except InvalidOption as error:
            return fail(error)
        node = self._movable(to)
        return (
            fail(node) if isinstance(node, Exception) else self._conductor.orders.add(node, timeout)
        )

    def _movable(self, to: object) -> Address | HARedisError | None:
        """The node that is meant, None for any, or why the master cannot be moved at all."""
        try:
            node = None if to is None else Address.parse(to)
        except InvalidOption as error:
            return error
        if node is not None and all(node != known.address for known in self._group):
            return InvalidOption(f"to={node} is not one of the nodes")
        if self._conductor.stopped:
            return ServiceStopped("the service was stopped")
        return SwitchoverFailed("there is no other node") if len(self._group) == 1 else node

    # What can be seen.

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """See HAClient.listen."""
        return self._observers.listen(listener)

    def watch_commands(self, observer: CommandObserver) -> Callable[[], None]:
        """See HAClient.watch_commands."""
        return self._observers.watch_commands(observer)

    @property
    def backlog(self) -> Backlog:
        """The commands on their way; those in transactions are not among them."""
        pending = self._traffic.pending
        return Backlog(len(pending), pending.size, pending.redispatched)

    @property
    def unavailable_seconds(self) -> float:
        """See HAClient.unavailable_seconds."""
        return self._traffic.downtime.seconds

    @property
    def db(self) -> int:
        """The database that is selected."""
        return self._traffic.pending.db

    def inspect(self) -> Deferred[dict[Address, NodeReport]]:
        """See HAClient.inspect."""
        return inspect(self._group, self._reactor, self.options.survey_timeout)

    def rehearse(self) -> Deferred[Rehearsal]:
        """See HAClient.rehearse."""
        return Deferred.fromCoroutine(self._conductor.look()).addCallback(rehearse)

    def rehearse_switchover(self, to: object = None) -> Deferred[Plan]:
        """See HAClient.rehearse_switchover."""
        node = self._movable(to)
        if isinstance(node, Exception):
            return fail(node)
        look = Deferred.fromCoroutine(self._conductor.look())
        return look.addCallback(self._conductor.orders.plan, node)

    def ask_nodes(self, *commands: Args) -> Deferred[dict[Address, list[Any]]]:
        """Ask every node that is up the same, over the link that the client controls it by.

        Fires with the raw replies by node, errors among them as values; nodes that do not answer
        within `survey_timeout` are not in it. Not for what blocks, or changes that link.
        """
        return ask(self._group, commands, self.options.survey_timeout)

    def look_at_rights(self) -> Deferred[frozenset[Address]]:
        """Find on each node that is up which rights to elect are missing: `topology` tells.

        Fires with those of them that did not answer, as while writes are held back there.
        Nothing is changed; what is missing shows in the servers' ACL LOG.
        """

        async def look() -> frozenset[Address]:
            looks = {n.address: Deferred.fromCoroutine(n.look_at_rights()) for n in self._group}
            answered = await gatherResults(looks.values())
            return frozenset(node for node, known in zip(looks, answered, strict=True) if not known)

        return Deferred.fromCoroutine(look())

    def history(self) -> Deferred[tuple[FailoverRecord, ...]]:
        """See HAClient.history."""
        link = None
        if self._traffic.address is not None:
            link = self._group[self._traffic.address].control
        if link is None:
            return fail(NoMaster("there is no master to ask"))
        asked = link.exchange(["HGETALL", HISTORY_KEY], timeout=self.options.survey_timeout)
        return asked.addCallbacks(lambda replies: read_history(replies[0]), _no_answer)

    @property
    def phase(self) -> Phase:
        """What the service is about."""
        return self._conductor.phase

    @property
    def master(self) -> str | None:
        """The node that commands go to as "host:port", None while there is none."""
        return self._conductor.master

    @property
    def topology(self) -> Topology:
        """The picture of the group as of the newest survey."""
        return Topology(
            master=self._traffic.address,
            epoch=self._traffic.memory.epoch,
            group=self._traffic.memory.group,
            quorum=self._group.quorum,
            nodes=self._group.pictures(self._traffic.address),
        )

    @property
    def size(self) -> int:
        """The number of nodes."""
        return len(self._group)

    @property
    def incarnation(self) -> str:
        """The run_id of the server that answers commands now, "" while there is none."""
        master = self._traffic.master
        return "" if master is None else self._group[master.address].serving

    def when_ready(self) -> Deferred[None]:
        """Fires when commands flow to a master.

        It fails with WouldDiscardData, AccessDenied or UnfitNodes when a person has to act first,
        and with ServiceStopped.
        """
        return self._traffic.when_ready()

    async def drain(self) -> None:
        """Wait until no command is pending, blocking ones and those in transactions among them.

        What waits for a start is not waited for.
        """
        while self.phase not in (Phase.IDLE, Phase.STOPPED) and self._dispatch.busy:
            await self._dispatch.when_idle()

    def end_session(self) -> Deferred[None]:
        """Take away what the servers keep of this client's writes; it fires, whatever happens."""
        return self._traffic.end_session()

    # The Service.

    def startService(self) -> None:
        super().startService()
        if self.phase is not Phase.IDLE:
            raise RuntimeError(f"{self!r} cannot be started again: make a new one")
        self._conductor.start()

    def stopService(self) -> Deferred[Any]:
        """Fail what is pending with ServiceStopped and drop all links.

        Blocking commands are taken back first, for half a second at most: nothing is popped for
        nobody.

        The Deferred fires when the last link is gone.
        """
        super().stopService()
        if self.phase is Phase.STOPPED:
            return self.when_stopped()
        self._conductor.stop().addBoth(self._all_gone)
        return self.when_stopped()

    def when_stopped(self) -> Deferred[None]:
        """Fires when the service has been stopped and the last link is gone."""
        if self._gone:
            return succeed(None)
        stopped: Deferred[None] = Deferred(self._awaiting_end.remove)
        self._awaiting_end.append(stopped)
        return stopped

    def _all_gone(self, result: Any) -> None:
        self._gone = True
        waiting, self._awaiting_end = self._awaiting_end, []
        for stopped in waiting:
            stopped.callback(None)
        if isinstance(result, Failure):
            self._log.failure("a defect of txharedis", result)


def _no_answer(failure: Failure) -> NoReturn:
    failure.trap(LinkLost)
    raise NoMaster(f"the master did not answer: {failure.value}")


def _global_reactor() -> Reactor:
    from twisted.internet import reactor

    return cast(Reactor, reactor)
