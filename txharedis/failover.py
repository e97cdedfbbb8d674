"""FailoverService: finds the master, keeps it, and replaces it when it dies.

It goes round in one circle: survey the nodes, decide, act. Every decision is made by
txharedis.election; what is changed on a server is changed under txharedis.lock.
"""

from __future__ import annotations

import enum
import random
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.python.failure import Failure

from txharedis.alarm import Alarm
from txharedis.campaign import Campaign
from txharedis.chronicle import HISTORY_KEY, Chronicle, FailoverRecord, read_history
from txharedis.client import HAClient
from txharedis.dedicated.monitoring import Monitoring
from txharedis.dedicated.transaction import Transaction
from txharedis.dispatch import Dispatch
from txharedis.election import Elect, Follow, Refuse, Wait
from txharedis.errors import (
    AccessDenied,
    HARedisError,
    InvalidOption,
    LinkLost,
    LockLost,
    NoMaster,
    ResponseError,
    ServiceStopped,
    SwitchoverFailed,
    UnfitNodes,
    WouldDiscardData,
)
from txharedis.events import (
    Event,
    FailoverEnded,
    FailoverStarted,
    MasterChanged,
    NodeChanged,
    Refused,
    Waiting,
)
from txharedis.gossip import Gossip
from txharedis.group import NodeGroup, Survey
from txharedis.inspection import NodeReport, ask, inspect
from txharedis.interfaces import Args, Reactor
from txharedis.log import ClientLog
from txharedis.losses import LastWord, LastWords
from txharedis.node import Node
from txharedis.observers import Backlog, CommandObserver, Observers
from txharedis.options import Options, Terms, check_seconds, parse_nodes
from txharedis.orders import Orders, Plan
from txharedis.pubsub.subscriptions import Subscriptions
from txharedis.rehearsal import Rehearsal, rehearse
from txharedis.rights import SUBSCRIBING, denied
from txharedis.switchover import Switchover
from txharedis.topology import Address, NodeView, Status, Topology
from txharedis.traffic import Traffic

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


_ERRORS = {"data": WouldDiscardData, "denied": AccessDenied, "unfit": UnfitNodes}


class Phase(enum.Enum):
    """What the service is about. The value is the word for people."""

    IDLE = "not started"
    ORIENTATING = "orientating"
    FOLLOWING = "following"
    ELECTING = "electing"
    REFUSING = "refusing"
    STOPPED = "stopped"


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
        self._group = NodeGroup(reactor, parsed.addresses, self.options, self, self._log)
        self._single = len(self._group) == 1
        self._alarm = Alarm(reactor)
        self._observers = Observers(self._log)
        self._observers.listen(Chronicle(lambda node: self._group[node].control).note)
        if self.options.on_event is not None:
            self._observers.listen(self.options.on_event)
        self._traffic = Traffic(
            reactor, self._group, self.options, self._alarm.wake, self._journal_denied
        )
        self._dispatch = Dispatch(reactor, self._group, self._traffic, self.options, self._log)
        self._gossip = Gossip(
            reactor,
            () if self._single else parsed.addresses,
            self.options,
            heard=self._gossip_heard,
            is_up=lambda node: self._group[node].status is Status.UP,
            may_listen=lambda node, may: self._group[node].deny(SUBSCRIBING, not may),
        )
        self.subscriptions = Subscriptions(
            reactor,
            self.options,
            self._log,
            self._emit,
            in_use=lambda: self._traffic.master is not None,
            link_of=lambda node: self._group[node].control,
            is_up=lambda node: self._group[node].status is Status.UP,
        )
        self._campaign = Campaign(
            reactor, self.options, self._log, self._emit, self._look_again, self._use
        )
        self._orders = Orders(
            reactor,
            self._group,
            self.options,
            Switchover(
                reactor,
                self.options,
                self._log,
                self._emit,
                self._look_again,
                self._use,
                hold=lambda: self._traffic.hold(self.options.lock_time / 4),
                dial=lambda node: self._group[node].dial(
                    self.options.haredis_db_num, self._group[node].run_id, _nothing
                ),
            ),
            self,
            self._alarm.wake,
        )
        self.phase = Phase.IDLE
        self.client = HAClient(self)
        self._started_at = 0.0
        self._gone = False  # stopped, and no link is left
        self._awaiting_end: list[Deferred[None]] = []
        self._conductor: Deferred[None] | None = None
        self._last_master: NodeView | None = None
        self._last_words = LastWords()
        self._move_id = ""  # of the newest switchover
        self._outage = 0.0  # seconds from the loss of the last master to the use of this one
        self._waits = 0  # in a row
        self._repair_due: float | None = None
        self._stagger = 0.0
        self._fellows = 1  # clients that hear gossip, this one among them
        self._hint = False  # gossip was heard since the newest attempt began
        self._gossip_times: dict[str, float] = {}

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
        return fail(node) if isinstance(node, Exception) else self._orders.add(node, timeout)

    def _movable(self, to: object) -> Address | HARedisError | None:
        """The node that is meant, None for any, or why the master cannot be moved at all."""
        try:
            node = None if to is None else Address.parse(to)
        except InvalidOption as error:
            return error
        if node is not None and all(node != known.address for known in self._group):
            return InvalidOption(f"to={node} is not one of the nodes")
        if self._stopped:
            return ServiceStopped("the service was stopped")
        return SwitchoverFailed("there is no other node") if self._single else node

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
        return Deferred.fromCoroutine(self._look()).addCallback(rehearse)

    def rehearse_switchover(self, to: object = None) -> Deferred[Plan]:
        """See HAClient.rehearse_switchover."""
        node = self._movable(to)
        if isinstance(node, Exception):
            return fail(node)
        look = Deferred.fromCoroutine(self._look())
        return look.addCallback(self._orders.plan, node)

    def ask_nodes(self, *commands: Args) -> Deferred[dict[Address, list[Any]]]:
        """Ask every node that is up the same, over the link that the client controls it by.

        Fires with the raw replies by node, errors among them as values; nodes that do not answer
        within `survey_timeout` are not in it. Not for what blocks, or changes that link.
        """
        return ask(self._group, commands, self.options.survey_timeout)

    def look_at_rights(self) -> Deferred[Any]:
        """Find on each node that is up which rights to elect are missing: `topology` tells.

        Nothing is changed; what is missing shows in the servers' ACL LOG.
        """
        looks = [Deferred.fromCoroutine(node.look_at_rights()) for node in self._group]
        return gatherResults(looks)

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
    def master(self) -> str | None:
        """The node that commands go to as "host:port", None while there is none."""
        address = self._traffic.address
        return None if address is None else str(address)

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
        self._started_at = self._reactor.seconds()
        self._traffic.downtime.began()
        self._become(Phase.ORIENTATING)
        if len(self._group) == 2:
            self._log.warn(
                "two nodes cannot fail over: add a third, which may be a small one with "
                "replica-priority 0"
            )
        self._group.start()
        self._dispatch.reads.start()
        self._gossip.start()
        self._conductor = Deferred.fromCoroutine(self._conduct())
        self._conductor.addErrback(self._conductor_failed)

    def stopService(self) -> Deferred[Any]:
        """Fail what is pending with ServiceStopped and drop all links.

        Blocking commands are taken back first, for half a second at most: nothing is popped for
        nobody.

        The Deferred fires when the last link is gone.
        """
        super().stopService()
        if self.phase is Phase.STOPPED:
            return self.when_stopped()
        self._become(Phase.STOPPED)
        self._orders.stop()
        self._traffic.stop()
        unsubscribed = self.subscriptions.close()
        if self._conductor is not None:
            self._conductor.cancel()
        taken_back = self._dispatch.stop()
        gone = gatherResults(
            [
                self._gossip.close(),
                unsubscribed,
                taken_back.addCallback(lambda _: self._close_links()),
            ]
        )
        gone.addBoth(self._all_gone)
        return self.when_stopped()

    def when_stopped(self) -> Deferred[None]:
        """Fires when the service has been stopped and the last link is gone."""
        if self._gone:
            return succeed(None)
        stopped: Deferred[None] = Deferred(self._awaiting_end.remove)
        self._awaiting_end.append(stopped)
        return stopped

    def _close_links(self) -> Deferred[Any]:
        return gatherResults([self._traffic.links.close(), self._group.close()])

    def _all_gone(self, result: Any) -> None:
        self._gone = True
        waiting, self._awaiting_end = self._awaiting_end, []
        for stopped in waiting:
            stopped.callback(None)
        if isinstance(result, Failure):
            self._log.failure("a defect of txharedis", result)

    # The circle: survey, decide, act.

    async def _conduct(self) -> None:
        while not self._stopped:
            stagger, self._stagger = self._stagger, 0.0
            self._alarm.news = False
            if stagger:
                await self._alarm.sleep(stagger)
                self._alarm.news = False
            survey = await self._look()
            if self._alarm.news and not isinstance(survey.decision, Follow):
                continue  # something has changed meanwhile: a node came up, say, that was not asked
            delay = await self._act(survey)
            if self._stopped:
                return  # a listener closed the client meanwhile, and there was nothing to cancel
            await self._alarm.sleep(delay)

    def _conductor_failed(self, failure: Failure) -> None:
        if self.phase is Phase.STOPPED:
            return  # cancelled
        # A defect of ours must not leave the caller without a master: say it, and go on.
        self._log.failure("a defect of txharedis; it begins anew", failure)
        self._conductor = Deferred.fromCoroutine(self._conduct_later())
        self._conductor.addErrback(self._conductor_failed)

    async def _conduct_later(self) -> None:
        self._alarm.news = False
        await self._alarm.sleep(1.0)
        await self._conduct()

    async def _look(self, lock_is_ours: bool = False) -> Survey:
        following = self._traffic.master is not None
        return await self._group.survey(
            self._traffic.memory, following=following, lock_is_ours=lock_is_ours
        )

    async def _look_again(self) -> Survey:
        return await self._look(lock_is_ours=True)

    async def _act(self, survey: Survey) -> float:
        """Do what was decided; returns the seconds until the next look."""
        survey = await self._let_it_answer(survey)
        decision = survey.decision
        left = self._started_at + self.options.connect_timeout - self._now
        if left > 0 and self._too_early(survey):
            return left
        if self.phase is Phase.REFUSING and not isinstance(decision, Refuse):
            self._traffic.refuse(None)
            self.subscriptions.refuse(None)
            self._become(Phase.ORIENTATING)
        self._tell_what_is_lost(survey)
        match decision:
            case Follow():
                delay = await self._follow(survey, decision)
                if self._orders.pending:
                    return await self._orders.proceed(survey, decision, delay)
                return delay
            case Elect():
                return await self._elect(survey, decision)
            case Wait():
                return self._wait(survey, decision)
            case Refuse():
                return self._refuse(decision)

    async def _let_it_answer(self, survey: Survey) -> Survey:
        """A master that has let go says of each write in flight that it was not run.

        Its own word in a survey may be older than that of its successor: then it is asked again.
        """
        master = self._traffic.master
        view = None if master is None else survey.views.get(master.address)
        if master is None or view is None or view.run_id != master.run_id or self._single:
            return survey
        if view.is_master and any(v.epoch > view.epoch for v in survey.views.values()):
            survey = await self._look()
            view = survey.views.get(master.address, view)
        if not view.is_master and view.run_id == master.run_id:
            await self._traffic.hold(self.options.survey_timeout)
        return survey

    def _too_early(self, survey: Survey) -> bool:
        """Whether nodes that have not been heard of since the start may change the decision.

        They cannot when a quorum's newest epoch names a living master.
        """
        decision = survey.decision
        if isinstance(decision, Follow):
            certain = not any(view.blind for view in survey.views.values()) and not any(
                repair.kind == "meta" for repair in decision.repairs
            )
            return not certain and self._dialling()
        return self._dialling()

    def _dialling(self) -> bool:
        return self._group.count(Status.DIALLING) > 0

    def _tell_what_is_lost(self, survey: Survey) -> None:
        remembered = self._traffic.memory.epoch
        newest = max((view.epoch for view in survey.views.values()), default=0)
        blind = any(view.blind for view in survey.views.values())
        if newest < remembered and not blind and isinstance(survey.decision, (Follow, Elect)):
            self._log.once(
                f"no node has the data of epoch {remembered} any more: "
                f"going on with what they hold (epoch {newest})",
                loud=True,
            )

    def _wait(self, survey: Survey, decision: Wait) -> float:
        memory = self._traffic.memory
        newer = (v.epoch > memory.epoch and v.group == memory.group for v in survey.views.values())
        if decision.newer or any(newer):
            self._traffic.lose()  # wherever the newer master may be
        if self._log.once(decision.reason):
            self._emit(Waiting(at=self._now, reason=decision.reason))
        self._waits = min(self._waits + 1, 100)
        # From a few milliseconds up, but never so far that a proof of death would wait for us.
        patience = decision.retry_in * min(1.5**self._waits, 20.0)
        return min(patience, 0.5) * random.uniform(0.7, 1.3)

    def _refuse(self, decision: Refuse) -> float:
        if self._log.once(decision.reason, loud=True):
            self._emit(Refused(at=self._now, reason=decision.reason, nodes=decision.nodes))
        self._traffic.lose()
        self._become(Phase.REFUSING)
        self._traffic.refuse(_ERRORS[decision.why](decision.reason))
        self._dispatch.reads.news()
        self.subscriptions.refuse(_ERRORS[decision.why](decision.reason))
        return min(1.0, self.options.survey_interval)

    # Following.

    async def _follow(self, survey: Survey, decision: Follow) -> float:
        master = survey.views[decision.master]
        self._fellows = max(1, *(view.listeners for view in survey.views.values()))
        for stranger in decision.strangers:
            text = (
                f"{stranger.address} holds {stranger.keys} keys that are not this group's: it is "
                "left alone (adopt=[...] names nodes whose data may go)"
            )
            if self._log.once(text, loud=True):
                self._emit(Refused(at=self._now, reason=text, nodes=(stranger.address,)))
        self.subscriptions.place(
            master.address,
            (
                view.address
                for view in survey.views.values()
                if view.follows == master.address
                and view.link_up
                and not (view.is_master or view.syncing or view.loading)
            ),
        )
        self._use(master)
        if not decision.repairs:
            self._repair_due = None
            return self._until_next_look(survey)
        if not any(self._group[repair.node].may_elect for repair in decision.repairs):
            self._group.recheck_rights()
            return random.uniform(1.0, 2.0)
        if self._repair_due is None:
            # Often somebody is at it already: the client that failed over.
            self._repair_due = self._now + random.uniform(0.0, 0.3)
        if any(view.locked for view in survey.views.values()):
            # Somebody is at it, or died at it: then it is ours as soon as the lock has expired.
            return random.uniform(0.05, 0.2)
        if self._now >= self._repair_due:
            self._repair_due = None
            if await self._repair(survey):
                return 0.0
            self._repair_due = self._now + random.uniform(0.5, 1.5)
        return max(0.0, self._repair_due - self._now)

    def _until_next_look(self, survey: Survey) -> float:
        views = survey.views.values()
        in_motion = any(view.loading or not (view.is_master or view.link_up) for view in views)
        # One that was asked and did not answer in time may deviate, too.
        in_motion = in_motion or self._group.count(Status.UP) > len(views)
        interval = self.options.survey_interval
        quiet = (min(1.0, interval) if in_motion else interval) * random.uniform(0.8, 1.2)
        return self._traffic.backoff or quiet

    def _use(self, master: NodeView) -> None:
        """Send the traffic to this master from here on."""
        self._waits = 0
        old = self._last_master
        lost_at = self._traffic.lost_at
        changed = self._traffic.use(master)
        self._last_words.followed(master, self._now)
        self._dispatch.reads.news()
        if not changed and self.phase is Phase.FOLLOWING:
            return
        self._dispatch.reads.master_changed()
        self._last_master = master
        self._outage = self._now - lost_at if lost_at is not None else 0.0
        self._log.forget()
        self._become(Phase.FOLLOWING)
        self._log.info("ready, using {node} as master", node=master.address)
        self.subscriptions.follow(master.address, master.run_id)
        if old is None or old.run_id != master.run_id:
            self._emit(
                MasterChanged(
                    at=self._now,
                    old=old.address if old is not None else None,
                    new=master.address,
                    epoch=master.epoch,
                )
            )

    # Changing something on the servers.

    async def _elect(self, survey: Survey, decision: Elect) -> float:
        self._traffic.lose()
        self._become(Phase.ELECTING)
        failover_id = secrets.token_hex(4)
        masters = sum(view.is_master for view in survey.views.values())
        self._log.step("invalid master count: {count}", count=masters)
        if not decision.reason.startswith("invalid master count"):
            self._log.step("{reason}", reason=decision.reason)
        self._log.step("attempting failover!")
        self._log.step("my failover id: {id}", id=failover_id)
        self._emit(FailoverStarted(at=self._now, reason=decision.reason, failover_id=failover_id))
        self._hint = False
        patience = 0.0
        before, lost_at = self._last_words.newest, self._traffic.lost_at
        try:
            master = await self._campaign.fail_over(survey)
        except (LockLost, LinkLost, ResponseError) as error:
            self._log.warn("failover {id} failed: {error}", id=failover_id, error=str(error))
            if denied(error):
                self._group.recheck_rights()
                patience = 1.0
            master = None
        self._report(master, decision.reason, before, lost_at, self._campaign.why)
        if master is not None:
            return 0.0
        self._become(Phase.ORIENTATING)
        # Whoever gave way listens for gossip, and for nothing else, for a while.
        self._alarm.news = self._hint
        return patience + random.uniform(0.03, 0.12)

    def _report(
        self,
        master: NodeView | None,
        reason: str,
        before: LastWord | None,
        lost_at: float | None,
        why: str = "",
    ) -> None:
        """Say how a failover ended: what is known of the old master from before it was lost."""
        epoch = self._traffic.memory.epoch
        if master is None:
            self._emit(FailoverEnded(at=self._now, master=None, epoch=epoch, reason=reason))
            return
        word = before if before is not None and before.compares_with(master) else None
        age = None if word is None or lost_at is None else max(0.0, lost_at - word.at)
        self._emit(
            FailoverEnded(
                at=self._now,
                master=master.address,
                epoch=epoch,
                reason=reason,
                outage=self._outage,
                offset=master.offset,
                old=None if before is None else before.node,
                old_offset=None if word is None else word.offset,
                old_offset_age=age,
                why=why,
            )
        )
        known = "of the old master's offset nothing comparable is known"
        if word is not None:
            known = str(word) if age is None else f"{word}, {age:.3f} s before it was lost"
        self._log.info(
            "{node} took over at offset {offset}; {known}; outage {outage:.3f} s",
            node=master.address,
            offset=master.offset,
            known=known,
            outage=self._outage,
        )

    async def _repair(self, survey: Survey) -> bool:
        try:
            return await self._campaign.repair(survey)
        except (LockLost, LinkLost, ResponseError) as error:
            self._log.warn("a repair failed, will be tried again: {error}", error=str(error))
            if denied(error):
                self._group.recheck_rights()
            return False

    # A switchover.

    def move_begins(self, old: NodeView, target: Address) -> None:
        self._hint = False
        self._move_id = secrets.token_hex(4)
        self._log.step("attempting switchover from {old} to {node}!", old=old.address, node=target)
        self._log.step("my failover id: {id}", id=self._move_id)
        reason = f"switchover from {old.address} to {target}"
        self._emit(FailoverStarted(at=self._now, reason=reason, failover_id=self._move_id))

    def move_ended(self, old: NodeView, master: NodeView | None, why: str) -> None:
        if self._stopped:
            return
        if master is None:
            self._log.warn("switchover {id} failed: {why}", id=self._move_id, why=why)
            self._traffic.let_go()
            self._report(None, "switchover", None, None)
            return
        # They were level when the old one let go.
        word = LastWord(old.address, old.replid, master.offset, self._now)
        self._report(master, "switchover", word, None, "as planned")

    # What the nodes, the queue and the gossip tell.

    def node_changed(self, node: Node) -> None:
        self._emit(
            NodeChanged(at=self._now, node=node.address, status=node.status, reason=node.reason)
        )
        is_master = self._traffic.master is not None and (
            self._traffic.master.address == node.address
        )
        state = f"{self._group.count(Status.UP)}/{len(self._group)} nodes up"
        match node.status:
            case Status.UP:
                self._log.step("{node} is up ({state})", node=node.address, state=state)
                self._group.redial_now()
                self._gossip.redial_now(node.address)
                self.subscriptions.redial_now(node.address)
            case Status.DENIED:
                self._log.error("{node} denies us: {why}", node=node.address, why=node.reason)
            case Status.SILENT | Status.REFUSED:
                if is_master:
                    self._log.warn("MASTER is down! ({why})", why=node.reason)
                    # The more clients notice it, the more the first of them gains when the others
                    # hold back; they hear its gossip meanwhile.
                    self._stagger = random.uniform(0.0, min(0.06, 0.001 * (self._fellows - 1)))
                if "TLS" in node.reason:
                    self._log.once(f"{node.address}: {node.reason}", loud=True)
                self._log.step("orientating (node down, {state})", state=state)
                self._gossip.renew(node.address)
                self.subscriptions.forsake(node.address)
        if is_master and node.status is not Status.UP:
            self._traffic.note_loss()
        self._dispatch.reads.news()
        if node.status is not Status.DROPPED:  # the redial tells more in a moment
            self._alarm.wake()

    def node_heard(self, node: Node) -> None:
        if self._traffic.pending.held:
            self._traffic.open()
        self._dispatch.reads.heard(node)
        if self._traffic.master is not None and self._traffic.master.address == node.address:
            self._last_words.heard(node.address, node.replication)

    def commands_ready(self, node: Node) -> None:
        self._traffic.open()
        self._dispatch.reads.ready(node)

    def commands_lost(self, node: Node) -> None:
        if self._traffic.master is not None and self._traffic.master.address == node.address:
            self._traffic.pause()

    def commands_denied(self, node: Node, error: Exception) -> None:
        self._log.once(f"{node.address} denies us: {error}", loud=True)

    def rights_changed(self, node: Node, missing: Sequence[str]) -> None:
        user = self.options.username or "default"
        if missing:
            self._log.warn(
                "{node}: user {user!r} may not {missing}: {what}",
                node=node.address,
                user=user,
                missing=", ".join(missing),
                what="it hears of failovers later" if node.may_elect else "it follows only",
            )
        elif SUBSCRIBING in node.missing_rights:
            self._gossip.renew(node.address)  # others were granted; this one may have been too
        elif not node.missing_rights:
            self._log.info("{node}: user {user!r} has all rights", node=node.address, user=user)

    def _journal_denied(self, error: Exception) -> None:
        self._log.once(
            f"no journal here: {error}; writes whose reply is lost will not be sent again",
            loud=True,
        )

    def _gossip_heard(self, node: Address, text: str) -> None:
        """A hint: look, but not more often than every 50 ms for the same name."""
        if text == self.master:
            return
        name = text if any(text == str(node.address) for node in self._group) else "elsewhere"
        if self._now - self._gossip_times.get(name, -1.0) < 0.05:
            return
        self._gossip_times[name] = self._now
        self._hint = True
        self._log.step("gossip on {node}: {text} is said to be master", node=node, text=text)
        self._alarm.wake()

    # Small things.

    @property
    def _now(self) -> float:
        return self._reactor.seconds()

    @property
    def _stopped(self) -> bool:
        return self.phase is Phase.STOPPED

    def _become(self, phase: Phase) -> None:
        if not self._stopped:
            self.phase = phase

    def _emit(self, event: Event) -> None:
        if not self._stopped:
            self._observers.emit(event)


def _nothing() -> None:
    pass


def _no_answer(failure: Failure) -> NoReturn:
    failure.trap(LinkLost)
    raise NoMaster(f"the master did not answer: {failure.value}")


def _global_reactor() -> Reactor:
    from twisted.internet import reactor

    return cast(Reactor, reactor)
