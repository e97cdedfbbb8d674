"""The conductor: finds the master, keeps it, and replaces it when it dies.

It goes round in one circle: survey the nodes, decide, act. Every decision is made by
txharedis.election; what is changed on a server is changed under txharedis.lock.
"""

from __future__ import annotations

import enum
import random
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from txharedis.alarm import Alarm
from txharedis.campaign import Campaign
from txharedis.crowd import Crowd
from txharedis.dispatch import Dispatch
from txharedis.election import Elect, Follow, Refuse, Wait
from txharedis.errors import (
    AccessDenied,
    InvalidOption,
    LinkLost,
    LockLost,
    ResponseError,
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
from txharedis.interfaces import Reactor
from txharedis.log import ClientLog
from txharedis.losses import LastWord, LastWords
from txharedis.node import Node
from txharedis.options import Options
from txharedis.orders import Orders
from txharedis.pace import STEPS, in_step
from txharedis.pubsub.subscriptions import Subscriptions
from txharedis.rights import SUBSCRIBING, denied
from txharedis.switchover import Switchover
from txharedis.topology import Address, NodeView, Status
from txharedis.traffic import Traffic

__all__ = ["Conductor", "Phase"]

#: So many looks in vain come as soon as if there were no other clients.
_SOON = 3

_ERRORS = {"data": WouldDiscardData, "denied": AccessDenied, "unfit": UnfitNodes}


class Phase(enum.Enum):
    """What the service is about. The value is the word for people."""

    IDLE = "not started"
    ORIENTATING = "orientating"
    FOLLOWING = "following"
    ELECTING = "electing"
    REFUSING = "refusing"
    STOPPED = "stopped"


class Conductor:
    """The parts of one client, and who tells them what to do.

    `group` are the nodes, `traffic` the commands, `dispatch` what callers ask for, `subscriptions`
    their channels, `orders` their switchovers. `emit` is called with each event until `stop`.
    """

    def __init__(
        self,
        reactor: Reactor,
        addresses: Sequence[Address],
        options: Options,
        log: ClientLog,
        emit: Callable[[Event], None],
    ) -> None:
        self.options = options
        self.phase = Phase.IDLE
        self._reactor = reactor
        self._log = log
        self._tell = emit
        self._alarm = Alarm(reactor)
        self.group = NodeGroup(reactor, addresses, options, self, log)
        self._single = len(self.group) == 1
        self.traffic = Traffic(reactor, self.group, options, self._alarm.wake, self._journal_denied)
        self.dispatch = Dispatch(reactor, self.group, self.traffic, options, log)
        self._gossip = Gossip(
            reactor,
            () if self._single else addresses,
            options,
            heard=self._gossip_heard,
            is_up=lambda node: self.group[node].status is Status.UP,
            may_listen=lambda node, may: self.group[node].deny(SUBSCRIBING, not may),
        )
        self.subscriptions = Subscriptions(
            reactor,
            options,
            log,
            self._emit,
            in_use=lambda: self.traffic.master is not None,
            link_of=lambda node: self.group[node].control,
            is_up=lambda node: self.group[node].status is Status.UP,
        )
        steps = (reactor, options, log, self._emit, self._look_again, self._use)
        self._campaign = Campaign(*steps)
        switchover = Switchover(
            *steps,
            hold=lambda: self.traffic.hold(options.lock_time / 4),
            dial=lambda node: self.group[node].dial(
                options.haredis_db_num, self.group[node].run_id, _nothing
            ),
        )
        self.orders = Orders(reactor, self.group, options, switchover, self, self._alarm.wake)
        self._started_at = 0.0
        self._conducting: Deferred[None] | None = None
        self._last_master: NodeView | None = None
        self._last_words = LastWords()
        self._move_id = ""  # of the newest switchover
        self._outage = 0.0  # seconds from the loss of the last master to the use of this one
        self._waits = 0  # in a row
        self._repair_due: float | None = None
        self._stagger = 0.0
        self._crowd = Crowd(reactor, options.lock_time)
        self._gossip_times: dict[str, float] = {}

    @property
    def master(self) -> str | None:
        """The node that commands go to as "host:port", None while there is none."""
        address = self.traffic.address
        return None if address is None else str(address)

    def start(self) -> None:
        """Connect to the nodes, and go round until `stop`."""
        self._started_at = self._now
        self.traffic.downtime.began()
        self._become(Phase.ORIENTATING)
        if len(self.group) == 2:
            self._log.warn(
                "two nodes cannot fail over: add a third, which may be a small one with "
                "replica-priority 0"
            )
        self.group.start()
        self.dispatch.reads.start()
        self._gossip.start()
        self._conducting = Deferred.fromCoroutine(self._conduct())
        self._conducting.addErrback(self._begin_anew)

    def stop(self) -> Deferred[Any]:
        """Fail what is pending, take back what blocks, and drop all links; fires when all is gone.

        See FailoverService.stopService.
        """
        self._become(Phase.STOPPED)
        self.orders.stop()
        self.traffic.stop()
        unsubscribed = self.subscriptions.close()
        if self._conducting is not None:
            self._conducting.cancel()
        taken_back = self.dispatch.stop()
        taken_back.addCallback(lambda _: self._close_links())
        return gatherResults([self._gossip.close(), unsubscribed, taken_back])

    def _close_links(self) -> Deferred[Any]:
        return gatherResults([self.traffic.links.close(), self.group.close()])

    # The circle: survey, decide, act.

    async def _conduct(self) -> None:
        if not self._single:
            await self._first_look()
        while not self.stopped:
            stagger, self._stagger = self._stagger, 0.0
            self._alarm.news = False
            if stagger:
                await self._hold_back(stagger)
                self._alarm.news = False
            survey = await self.look()
            if self._alarm.news and not isinstance(survey.decision, Follow):
                continue  # something has changed meanwhile: a node came up, say, that was not asked
            delay = await self._act(survey)
            if self.stopped:
                return  # a listener closed the client meanwhile, and there was nothing to cancel
            await self._alarm.sleep(delay)

    async def _hold_back(self, seconds: float) -> None:
        """Let others go first."""
        until = self._now + seconds
        await self._alarm.sleep(seconds)
        again = self._crowd.again(self._now - until)
        if again:
            self._alarm.news = False
            await self._alarm.sleep(again)

    async def _first_look(self) -> None:
        """Let commands flow as soon as a quorum has named its master, if nothing is to be changed.

        Less than a quorum decides nothing, as long as others are being dialled. Only who changes
        something needs the rights to it: those of the default user, who mostly has them all, are
        looked at behind this.
        """
        while self.traffic.master is None:
            self._alarm.news = False
            dialling = self._dialling()
            if self.group.count(Status.UP) >= self.group.quorum:
                survey = await self.look(rights=self.options.username is not None)
                decision = survey.decision
                if isinstance(decision, Follow) and _certain(survey):
                    if not decision.repairs:
                        await self._follow(survey, decision)
                    return
            left = self._started_at + self.options.connect_timeout - self._now
            if left <= 0 or not dialling:
                return
            await self._alarm.sleep(left)

    def _begin_anew(self, failure: Failure) -> None:
        if self.phase is Phase.STOPPED:
            return  # cancelled
        # A defect of ours must not leave the caller without a master: say it, and go on.
        self._log.failure("a defect of txharedis; it begins anew", failure)
        self._conducting = Deferred.fromCoroutine(self._conduct_later())
        self._conducting.addErrback(self._begin_anew)

    async def _conduct_later(self) -> None:
        self._alarm.news = False
        await self._alarm.sleep(1.0)
        await self._conduct()

    async def look(self, lock_is_ours: bool = False, *, rights: bool = True) -> Survey:
        following = self.traffic.master is not None
        return await self.group.survey(
            self.traffic.memory, following=following, lock_is_ours=lock_is_ours, rights=rights
        )

    async def _look_again(self) -> Survey:
        return await self.look(lock_is_ours=True, rights=False)  # the lock does not live for long

    async def _act(self, survey: Survey) -> float:
        """Do what was decided; returns the seconds until the next look."""
        survey = await self._let_it_answer(survey)
        decision = survey.decision
        left = self._started_at + self.options.connect_timeout - self._now
        if left > 0 and self._too_early(survey):
            return left
        if self.phase is Phase.REFUSING and not isinstance(decision, Refuse):
            self.traffic.refuse(None)
            self.subscriptions.refuse(None)
            self._become(Phase.ORIENTATING)
        self._tell_what_is_lost(survey)
        match decision:
            case Follow():
                delay = await self._follow(survey, decision)
                if self.orders.pending:
                    return await self.orders.proceed(survey, decision, delay)
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
        master = self.traffic.master
        view = None if master is None else survey.views.get(master.address)
        if master is None or view is None or view.run_id != master.run_id or self._single:
            return survey
        if view.is_master and any(v.epoch > view.epoch for v in survey.views.values()):
            survey = await self.look()
            view = survey.views.get(master.address, view)
        if not view.is_master and view.run_id == master.run_id:
            await self.traffic.hold(self.options.survey_timeout)
        return survey

    def _too_early(self, survey: Survey) -> bool:
        """Whether nodes that have not been heard of since the start may change the decision.

        They cannot when a quorum's newest epoch names a living master.
        """
        return self._dialling() and not _certain(survey)

    def _dialling(self) -> bool:
        return self.group.count(Status.DIALLING) > 0

    def _tell_what_is_lost(self, survey: Survey) -> None:
        remembered = self.traffic.memory.epoch
        newest = max((view.epoch for view in survey.views.values()), default=0)
        blind = any(view.blind for view in survey.views.values())
        if newest < remembered and not blind and isinstance(survey.decision, (Follow, Elect)):
            self._log.once(
                f"no node has the data of epoch {remembered} any more: "
                f"going on with what they hold (epoch {newest})",
                loud=True,
            )

    def _wait(self, survey: Survey, decision: Wait) -> float:
        memory = self.traffic.memory
        newer = (v.epoch > memory.epoch and v.group == memory.group for v in survey.views.values())
        if decision.newer or any(newer):
            self.traffic.lose()  # wherever the newer master may be
        if self._log.once(decision.reason):
            self._emit(Waiting(at=self._now, reason=decision.reason))
        self._waits = min(self._waits + 1, 100)
        # From a few milliseconds up, but never so far that a proof of death would wait for us long.
        patience = min(decision.retry_in * min(1.5**self._waits, 20.0), 0.5)
        spread = self._crowd.between if self._waits > _SOON else random.uniform
        return min(patience * spread(0.7, 1.3), 1.0)

    def _refuse(self, decision: Refuse) -> float:
        if self._log.once(decision.reason, loud=True):
            self._emit(Refused(at=self._now, reason=decision.reason, nodes=decision.nodes))
        self.traffic.lose()
        self._become(Phase.REFUSING)
        self.traffic.refuse(_ERRORS[decision.why](decision.reason))
        self.dispatch.reads.news()
        self.subscriptions.refuse(_ERRORS[decision.why](decision.reason))
        return min(1.0, self.options.survey_interval)

    # Following.

    async def _follow(self, survey: Survey, decision: Follow) -> float:
        master = survey.views[decision.master]
        self._crowd.size = max(1, *(view.listeners for view in survey.views.values()))
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
        if not any(self.group[repair.node].may_elect for repair in decision.repairs):
            self.group.recheck_rights()
            return random.uniform(1.0, 2.0)
        if self._repair_due is None:
            # Often somebody is at it already: the client that failed over.
            self._repair_due = self._now + self._crowd.between(0.0, 0.3)
        if any(view.locked for view in survey.views.values()):
            # Somebody is at it, or died at it: then it is ours as soon as the lock has expired.
            return self._crowd.while_locked()
        if self._now >= self._repair_due:
            self._repair_due = None
            if await self._repair(survey):
                return 0.0
            self._repair_due = self._now + self._crowd.between(0.5, 1.5)
        return max(0.0, self._repair_due - self._now)

    def _until_next_look(self, survey: Survey) -> float:
        views = survey.views.values()
        in_motion = any(view.loading or not (view.is_master or view.link_up) for view in views)
        # One that was asked and did not answer in time may deviate, too.
        in_motion = in_motion or self.group.count(Status.UP) > len(views)
        interval = self.options.survey_interval
        quiet = (min(1.0, interval) if in_motion else interval) * random.uniform(0.8, 1.2)
        quiet = in_step(self._now, quiet, self.options.heartbeat / STEPS)
        return self.traffic.backoff or quiet

    def _use(self, master: NodeView) -> None:
        """Send the traffic to this master from here on."""
        self._waits = 0
        old = self._last_master
        lost_at = self.traffic.lost_at
        changed = self.traffic.use(master)
        self._last_words.followed(master, self._now)
        self.dispatch.reads.news()
        if not changed and self.phase is Phase.FOLLOWING:
            return
        self.dispatch.reads.master_changed()
        self._last_master = master
        self._outage = self._now - lost_at if lost_at is not None else 0.0
        self._log.forget()
        self._crowd.forget_hint()
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
        self.traffic.lose()
        lockable = [v for v in survey.views.values() if v.address in survey.controls]
        lockable = [v for v in lockable if not v.loading and v not in decision.strangers]
        if lockable and min(lockable, key=lambda view: view.address).locked:
            # It is the first that the lock would be asked of: that would be in vain, and only keep
            # from work who holds it.
            self._log.step("somebody else is at it: {reason}", reason=decision.reason)
            self._become(Phase.ORIENTATING)
            return self._crowd.while_locked()
        self._become(Phase.ELECTING)
        failover_id = secrets.token_hex(4)
        masters = sum(view.is_master for view in survey.views.values())
        self._log.step("invalid master count: {count}", count=masters)
        if not decision.reason.startswith("invalid master count"):
            self._log.step("{reason}", reason=decision.reason)
        self._log.step("attempting failover!")
        self._log.step("my failover id: {id}", id=failover_id)
        self._emit(FailoverStarted(at=self._now, reason=decision.reason, failover_id=failover_id))
        self._crowd.forget_hint()
        patience = 0.0
        before, lost_at = self._last_words.newest, self.traffic.lost_at
        try:
            master = await self._campaign.fail_over(survey)
        except (LockLost, LinkLost, ResponseError) as error:
            self._log.warn("failover {id} failed: {error}", id=failover_id, error=str(error))
            if denied(error):
                self.group.recheck_rights()
                patience = 1.0
            master = None
        old = _former(survey) if before is None else before.node
        self._report(master, decision.reason, old, before, lost_at, self._campaign.why)
        if master is not None:
            return 0.0
        self._become(Phase.ORIENTATING)
        # Whoever gave way listens for gossip, and for nothing else, for a while.
        self._alarm.news = self._crowd.hinted
        return patience + self._crowd.while_locked()

    def _report(
        self,
        master: NodeView | None,
        reason: str,
        old: Address | None,
        before: LastWord | None,
        lost_at: float | None,
        why: str = "",
    ) -> None:
        """Say how a failover ended: what is known of the old master from before it was lost."""
        epoch = self.traffic.memory.epoch
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
                old=old,
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
                self.group.recheck_rights()
            return False

    # A switchover.

    def move_begins(self, old: NodeView, target: Address) -> None:
        self._crowd.forget_hint()
        self._move_id = secrets.token_hex(4)
        self._log.step("attempting switchover from {old} to {node}!", old=old.address, node=target)
        self._log.step("my failover id: {id}", id=self._move_id)
        reason = f"switchover from {old.address} to {target}"
        self._emit(FailoverStarted(at=self._now, reason=reason, failover_id=self._move_id))

    def move_ended(self, old: NodeView, master: NodeView | None, why: str) -> None:
        if self.stopped:
            return
        if master is None:
            self._log.warn("switchover {id} failed: {why}", id=self._move_id, why=why)
            self.traffic.let_go()
            self._report(None, "switchover", old.address, None, None)
            return
        # They were level when the old one let go.
        word = LastWord(old.address, old.replid, master.offset, self._now)
        self._report(master, "switchover", old.address, word, None, "as planned")

    # What the nodes, the queue and the gossip tell.

    def node_changed(self, node: Node) -> None:
        self._emit(
            NodeChanged(at=self._now, node=node.address, status=node.status, reason=node.reason)
        )
        is_master = self.traffic.master is not None and (
            self.traffic.master.address == node.address
        )
        state = f"{self.group.count(Status.UP)}/{len(self.group)} nodes up"
        match node.status:
            case Status.UP:
                self._log.step("{node} is up ({state})", node=node.address, state=state)
                self.group.redial_now()
                self._gossip.redial_now(node.address)
                self.subscriptions.redial_now(node.address)
            case Status.DENIED:
                self._log.error("{node} denies us: {why}", node=node.address, why=node.reason)
            case Status.SILENT | Status.REFUSED:
                if is_master:
                    self._log.warn("MASTER is down! ({why})", why=node.reason)
                    self._stagger = self._crowd.stagger()
                if "TLS" in node.reason:
                    self._log.once(f"{node.address}: {node.reason}", loud=True)
                self._log.step("orientating (node down, {state})", state=state)
                self._gossip.renew(node.address)
                self.subscriptions.forsake(node.address)
        if is_master and node.status is not Status.UP:
            self.traffic.note_loss()
        self.dispatch.reads.news()
        if node.status is not Status.DROPPED:  # the redial tells more in a moment
            self._alarm.wake()

    def node_heard(self, node: Node) -> None:
        if self.traffic.pending.held:
            self.traffic.open()
        self.dispatch.reads.heard(node)
        if self.traffic.master is not None and self.traffic.master.address == node.address:
            self._last_words.heard(node.address, node.replication)

    def commands_ready(self, node: Node) -> None:
        self.traffic.open()
        self.dispatch.reads.ready(node)

    def commands_lost(self, node: Node) -> None:
        if self.traffic.master is not None and self.traffic.master.address == node.address:
            self.traffic.pause()

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
        self._alarm.wake()

    def _journal_denied(self, error: Exception) -> None:
        self._log.once(
            f"no journal here: {error}; writes whose reply is lost will not be sent again",
            loud=True,
        )

    def _gossip_heard(self, node: Address, text: str) -> None:
        """A hint: look, but not more often than every 50 ms for the same name."""
        if text == self.master:
            return
        name = text if any(text == str(node.address) for node in self.group) else "elsewhere"
        if self._now - self._gossip_times.get(name, -1.0) < 0.05:
            return
        self._gossip_times[name] = self._now
        self._crowd.hint()
        self._log.step("gossip on {node}: {text} is said to be master", node=node, text=text)
        self._alarm.wake()

    # Small things.

    @property
    def _now(self) -> float:
        return self._reactor.seconds()

    @property
    def stopped(self) -> bool:
        return self.phase is Phase.STOPPED

    def _become(self, phase: Phase) -> None:
        if not self.stopped:
            self.phase = phase

    def _emit(self, event: Event) -> None:
        if not self.stopped:
            self._tell(event)


def _certain(survey: Survey) -> bool:
    """Whether a quorum's newest epoch names a living master."""
    decision = survey.decision
    return (
        isinstance(decision, Follow)
        and not any(view.blind for view in survey.views.values())
        and not any(repair.kind == "meta" for repair in decision.repairs)
    )


def _former(survey: Survey) -> Address | None:
    """The master that the newest meta names, for who has never followed it."""
    newest = max(survey.views.values(), key=lambda view: view.epoch, default=None)
    try:
        return Address.parse(newest.meta_master) if newest and newest.meta_master else None
    except InvalidOption:
        return None


def _nothing() -> None:
    pass
