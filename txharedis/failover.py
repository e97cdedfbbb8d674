"""FailoverService: finds the master, keeps it, and replaces it when it dies.

It goes round in one circle: survey the nodes, decide, act. Every decision is made by
txharedis.election; what is changed on a server is changed under txharedis.lock.
"""

from __future__ import annotations

import enum
import random
import secrets
from collections.abc import Mapping
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.python.failure import Failure

from txharedis.campaign import Campaign, Survey
from txharedis.client import HAClient
from txharedis.commands import describe
from txharedis.election import Elect, Evidence, Follow, Refuse, Wait, decide, majority
from txharedis.errors import (
    HARedisError,
    LinkLost,
    LockLost,
    ResponseError,
    ServiceStopped,
    UnfitNodes,
    UnsupportedCommand,
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
from txharedis.interfaces import Args, Reactor, Timer
from txharedis.log import ClientLog
from txharedis.node import Node
from txharedis.options import Options, parse_nodes
from txharedis.pending import PendingCommands, PlainDelivery
from txharedis.replies import converter, not_executed
from txharedis.topology import OPCOUNTER_KEY, Address, NodeView, Status, Topology

__all__ = ["FailoverService", "Phase", "create_client"]


def create_client(
    nodes: object = None, *, reactor: Reactor | None = None, **options: object
) -> HAClient:
    """Make a client of these nodes, and return it at once; it connects by itself.

    `nodes` is a list of "host:port", "host", ":port", "6380", 6380, ("host", port) or
    "[::1]:6379"; or one of these; or nothing (127.0.0.1:6379); or a URL
    "redis://user:password@host:port/db?addr=host:port&addr=host:port". One node is single mode:
    the queue and the redispatch, without an election. `reactor` is the global one when None. The
    options are those of txharedis.Options.

    Commands given before a master is known wait their turn. A bad node, an unknown option or a bad
    value raises InvalidOption, which names it. Close the client with `quit()` or `disconnect()`.
    """
    service = FailoverService(nodes, reactor, **options)
    service.startService()
    return service.client


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
        self.options = Options.from_mapping({**parsed.options, **options})
        self._reactor = reactor = _global_reactor() if reactor is None else reactor
        self._log = ClientLog(debug_mode=self.options.debug_mode)
        self._nodes = {
            address: Node(reactor, address, self.options, self) for address in parsed.addresses
        }
        self._single = len(self._nodes) == 1
        self._gossip = Gossip(
            reactor, () if self._single else self._nodes, self.options, self._gossip_heard
        )
        self._pending = PendingCommands(
            reactor,
            PlainDelivery(
                writes_again=self.options.delivery == "at-least-once",
                counter=None if self._single else (OPCOUNTER_KEY, self.options.haredis_db_num),
            ),
            max_pending=self.options.max_pending,
            max_pending_bytes=self.options.max_pending_bytes,
            timeout=self.options.command_timeout,
            convert=converter(self.options.charset, self.options.convert_numbers),
            may_retry=self._may_retry,
            turned_away=self._turned_away,
        )
        self.client = HAClient(self)
        self.phase = Phase.IDLE
        self._master: NodeView | None = None  # the one we follow, as it was when we began
        self._group_epoch = 0
        self._group = ""
        self._campaign = Campaign(
            reactor, self.options, self._log, self._emit, self._look, self._use
        )
        self._refusal: HARedisError | None = None
        self._denials: set[Address] = set()
        self._turned_away_at = 0.0
        self._held_until = 0.0
        self._lost_at: float | None = None
        self._started_at = 0.0
        self._conductor: Deferred[None] | None = None
        self._alarm: Deferred[None] | None = None
        self._woken = False
        self._lease_call: Timer | None = None
        self._impatience = 0
        self._repair_due: float | None = None
        self._tuned = ""
        self._said: set[str] = set()
        self._gossip_times: dict[str, float] = {}
        self._ready: list[Deferred[None]] = []

    def __repr__(self) -> str:
        up = sum(node.status is Status.UP for node in self._nodes.values())
        master = f"master {self.master}" if self.master else "no master"
        return (
            f"<FailoverService #{self._log.number} {self.phase.value}, {master}, "
            f"epoch {self._group_epoch}, {up}/{len(self._nodes)} nodes up, "
            f"{len(self._pending)} commands pending>"
        )

    # What the client asks for.

    def submit(self, args: Args, packed: bytes) -> Deferred[object]:
        """Run one command on the master, now or after the failover in progress.

        `packed` is the command as it goes over the wire. Returns a Deferred with the converted
        reply, or failing with
          ResponseError      the server refused it (it was not executed, or says otherwise itself);
          OutcomeUnknown     it was sent, the reply was lost, and it must not be sent again;
          NoMaster           no master within `command_timeout` seconds;
          QueueFull          `max_pending` commands or `max_pending_bytes` bytes already wait;
          WouldDiscardData   the nodes cannot be made one group without losing data;
          UnsupportedCommand it would change or block the link that all commands share;
          ServiceStopped     the service was stopped first.
        Cancelling it drops an unsent command and stops waiting for a sent one.
        """
        info = describe(args)
        if info.stateful or info.blocking:
            what = "blocks" if info.blocking else "changes the state of"
            return fail(UnsupportedCommand(f"{info.name} {what} the link that all commands share"))
        if self.options.command_logging:
            place = self._master.address if self._master is not None else "nobody yet"
            self._log.info(
                "{command} on {node} (master default)", command=info.name.lower(), node=place
            )
        return self._pending.add(args, packed, info.read)

    @property
    def master(self) -> str | None:
        """The node that commands go to as "host:port", None while there is none."""
        address = self._master_address
        return str(address) if address is not None else None

    @property
    def _master_address(self) -> Address | None:
        if self.phase is Phase.FOLLOWING and self._master is not None:
            address = self._master.address
            return address if self._nodes[address].status is Status.UP else None
        return None

    @property
    def topology(self) -> Topology:
        """The picture of the group as of the newest survey."""
        master = self._master_address
        view = self._nodes[master].view if master is not None else None
        return Topology(
            master=master,
            epoch=self._group_epoch,
            group=self._group,
            quorum=majority(len(self._nodes)),
            nodes=tuple(node.picture(view) for node in self._nodes.values()),
        )

    def when_ready(self) -> Deferred[None]:
        """Fires when commands flow to a master.

        It fails with WouldDiscardData when a person has to decide, and with ServiceStopped.
        """
        ready: Deferred[None] = Deferred(self._forget_ready)
        self._ready.append(ready)
        self._tell_ready()
        return ready

    def _forget_ready(self, ready: Deferred[None]) -> None:
        self._ready.remove(ready)

    def _tell_ready(self) -> None:
        if self.phase is Phase.FOLLOWING and self._can_send():
            outcome: HARedisError | None = None
        elif self._refusal is not None:
            outcome = self._refusal
        elif self.phase is Phase.STOPPED:
            outcome = ServiceStopped("the service was stopped")
        else:
            return
        ready, self._ready = self._ready, []
        for deferred in ready:
            if outcome is None:
                deferred.callback(None)
            else:
                deferred.errback(outcome)

    async def drain(self) -> None:
        """Wait until no command is pending."""
        await self._pending.when_idle()

    # The Service.

    def startService(self) -> None:
        super().startService()
        if self.phase is not Phase.IDLE:
            raise RuntimeError(f"{self!r} cannot be started again: make a new one")
        self._started_at = self._reactor.seconds()
        self._become(Phase.ORIENTATING)
        if len(self._nodes) == 2:
            self._log.warn(
                "two nodes cannot fail over: add a third, which may be a small one with "
                "replica-priority 0"
            )
        for node in self._nodes.values():
            node.start()
        self._gossip.start()
        self._conductor = Deferred.fromCoroutine(self._conduct())
        self._conductor.addErrback(self._conductor_failed)

    def stopService(self) -> Deferred[Any]:
        """Fail what is pending with ServiceStopped and drop all links.

        The Deferred fires when the last link is gone.
        """
        super().stopService()
        if self.phase is Phase.STOPPED:
            return succeed(None)
        self._become(Phase.STOPPED)
        self._pending.stop(
            lambda executed: ServiceStopped("the service was stopped", executed=executed)
        )
        if self._conductor is not None:
            self._conductor.cancel()
        if self._lease_call is not None and self._lease_call.active():
            self._lease_call.cancel()
        closing = [node.close() for node in self._nodes.values()]
        self._tell_ready()
        return gatherResults([*closing, self._gossip.close()])

    # The circle: survey, decide, act.

    async def _conduct(self) -> None:
        while self.phase is not Phase.STOPPED:
            self._woken = False
            survey = await self._look()
            if self._woken and isinstance(survey.decision, Wait):
                continue  # something has changed meanwhile
            await self._sleep(await self._act(survey))

    def _conductor_failed(self, failure: Failure) -> None:
        if self.phase is Phase.STOPPED:
            return  # cancelled
        # A defect of ours must not leave the caller without a master: say it, and go on.
        self._log.failure("a defect of txharedis; it begins anew", failure)
        self._become(Phase.ORIENTATING)
        self._pending.close()
        self._conductor = Deferred.fromCoroutine(self._conduct_later())
        self._conductor.addErrback(self._conductor_failed)

    async def _conduct_later(self) -> None:
        await self._sleep(1.0)
        await self._conduct()

    async def _look(self) -> Survey:
        """Ask all nodes that can be asked, together, and decide."""
        resolve = self._resolve()
        asked = [node for node in self._distinct() if node.status is Status.UP]
        answers = await gatherResults(
            [Deferred.fromCoroutine(node.survey(resolve)) for node in asked], consumeErrors=True
        )
        views = {view.address: view for view in answers if view is not None}
        evidence = self._evidence()
        return Survey(
            views=views,
            decision=decide(views, evidence),
            controls={node.address: node.control for node in asked if node.control is not None},
            nodes=len(evidence.nodes),
            known_epoch=self._group_epoch,
        )

    def _distinct(self) -> list[Node]:
        """The nodes, each server once: two addresses with one run_id are one node."""
        seen: set[str] = set()
        distinct = []
        for node in self._nodes.values():
            run_id = node.identity.run_id if node.identity is not None else ""
            if not run_id or run_id not in seen:
                distinct.append(node)
            else:
                self._say_once(f"{node.address} is the same server as another of the nodes")
            seen.add(run_id)
        return distinct

    def _resolve(self) -> Mapping[tuple[str, int], Address]:
        """Configured addresses by the host and port that servers may call them."""
        names: dict[tuple[str, int], Address] = {}
        first: dict[str, Address] = {}
        for node in self._nodes.values():
            address = node.address
            if node.identity is not None:
                address = first.setdefault(node.identity.run_id, address)
            for host in (node.address.host, node.peer_host):
                names.setdefault((host, node.address.port), address)
        return names

    def _evidence(self) -> Evidence:
        nodes = self._distinct()
        return Evidence(
            nodes=tuple(node.address for node in nodes),
            status={node.address: node.status for node in nodes},
            down_after=self.options.down_after,
            run_ids={
                node.address: node.identity.run_id for node in nodes if node.identity is not None
            },
            epoch=self._group_epoch,
            group=self._group,
            history=self._master.replid if self._master is not None else "",
            adopt=frozenset(self.options.adopt),
        )

    async def _act(self, survey: Survey) -> float:
        """Do what was decided; returns the seconds until the next look."""
        decision = survey.decision
        left = self._started_at + self.options.connect_timeout - self._now
        if left > 0 and self._too_early(survey):
            return left
        if self.phase is Phase.REFUSING and not isinstance(decision, Refuse):
            self._refusal = None
            self._pending.refuse(None)
            self._become(Phase.ORIENTATING)
        match decision:
            case Follow():
                return await self._follow(survey, decision)
            case Elect():
                return await self._elect(survey, decision)
            case Wait():
                return self._wait(decision)
            case Refuse():
                return self._refuse(decision)

    def _too_early(self, survey: Survey) -> bool:
        """Whether nodes that have not been heard of since the start may change the decision.

        They cannot when a quorum's newest epoch names a living master.
        """
        decision = survey.decision
        if isinstance(decision, Follow):
            return any(repair.kind == "meta" for repair in decision.repairs) and self._dialling()
        return self._dialling()

    def _dialling(self) -> bool:
        return any(node.status is Status.DIALLING for node in self._nodes.values())

    def _wait(self, decision: Wait) -> float:
        if self._say_once(decision.reason):
            self._emit(Waiting(at=self._now, reason=decision.reason))
        if not decision.quorum:
            self._pending.close()
        self._impatience += 1
        patience = decision.retry_in * 1.5 ** min(self._impatience, 12)
        return min(patience, 0.5) * random.uniform(0.7, 1.3)

    def _refuse(self, decision: Refuse) -> float:
        if self._say_once(decision.reason, loud=True):
            self._emit(Refused(at=self._now, reason=decision.reason, nodes=decision.nodes))
        self._lose_master()
        self._become(Phase.REFUSING)
        error = WouldDiscardData if decision.data else UnfitNodes
        self._refusal = error(decision.reason)
        self._pending.refuse(lambda: error(decision.reason))
        self._tell_ready()
        return min(1.0, self.options.survey_interval)

    # Following.

    async def _follow(self, survey: Survey, decision: Follow) -> float:
        master = survey.views[decision.master]
        for stranger in decision.strangers:
            text = (
                f"{stranger.address} holds {stranger.keys} keys that are not this group's: it is "
                "left alone (adopt=[...] names nodes whose data may go)"
            )
            if self._say_once(text, loud=True):
                self._emit(Refused(at=self._now, reason=text, nodes=(stranger.address,)))
        self._use(master)
        await self._tune(master)
        if not decision.repairs:
            self._repair_due = None
            return self._until_next_look(survey)
        if self._repair_due is None:
            # Often somebody is at it already: the client that failed over.
            self._repair_due = self._now + random.uniform(0.0, 0.3)
        if self._now >= self._repair_due:
            self._repair_due = None
            if await self._repair(survey):
                return 0.0
            self._repair_due = self._now + random.uniform(0.5, 1.5)
        return max(0.0, self._repair_due - self._now)

    def _until_next_look(self, survey: Survey) -> float:
        if self._held_until > self._now:
            return self._held_until - self._now
        in_motion = any(not v.is_master and not v.link_up for v in survey.views.values())
        interval = self.options.survey_interval
        return (min(1.0, interval) if in_motion else interval) * random.uniform(0.8, 1.2)

    def _use(self, master: NodeView) -> None:
        """Send the traffic to this master from here on."""
        self._impatience = 0
        old = self._master
        same = old is not None and old.run_id == master.run_id and old.address == master.address
        if not same:
            self._lose_master()
            self._held_until = 0.0
        self._master = self._nodes[master.address].view = master
        self._group, self._group_epoch = master.group, master.epoch
        if not same or self.phase is not Phase.FOLLOWING:
            self._said.clear()
            self._become(Phase.FOLLOWING)
            self._log.info("ready, using {node} as master", node=master.address)
        self._open()
        if not same:
            self._emit(
                MasterChanged(
                    at=self._now,
                    old=old.address if old is not None else None,
                    new=master.address,
                    epoch=master.epoch,
                )
            )

    def _lose_master(self) -> None:
        """Stop sending; replies of the old master that are still on their way reach nobody."""
        if self.phase is Phase.FOLLOWING and self._master is not None:
            self._pending.close()
            self._nodes[self._master.address].abort()
            if self._lost_at is None:
                self._lost_at = self._now

    def _can_send(self) -> bool:
        """Whether the link works and leads to the master that we follow, and the lease runs."""
        return (
            self._master is not None
            and self._nodes[self._master.address].serves(
                "" if self._single else self._master.run_id
            )
            and self._lease_left() > 0
            and self._now >= self._held_until
        )

    def _open(self) -> None:
        """Let commands flow, if they may."""
        if self.phase is not Phase.FOLLOWING or not self._can_send():
            return
        assert self._master is not None
        self._lost_at = None
        self._pending.open(self._nodes[self._master.address])
        self._watch_lease()
        self._tell_ready()

    # The lease: no quorum, no writes.

    def _lease_left(self) -> float:
        """Seconds for which commands may still be sent, counted from a quorum's last words."""
        heard = sorted((node.last_heard for node in self._distinct()), reverse=True)
        if len(heard) == 1:
            return self.options.lease
        return heard[majority(len(heard)) - 1] + self.options.lease - self._now

    def _watch_lease(self) -> None:
        if self._lease_call is None and not self._single:
            self._lease_call = self._reactor.callLater(
                max(0.01, self._lease_left()), self._lease_over
            )

    def _lease_over(self) -> None:
        self._lease_call = None
        if self.phase is not Phase.FOLLOWING:
            return
        if self._lease_left() > 0:
            self._watch_lease()
            return
        self._pending.close()
        self._say_once("no word from a quorum: writes wait")
        self._wake()

    # Changing something on the servers.

    async def _elect(self, survey: Survey, decision: Elect) -> float:
        self._lose_master()
        self._become(Phase.ELECTING)
        failover_id = secrets.token_hex(4)
        self._log.step("{reason}", reason=decision.reason)
        self._log.step("attempting failover!")
        self._log.step("my failover id: {id}", id=failover_id)
        self._emit(FailoverStarted(at=self._now, reason=decision.reason, failover_id=failover_id))
        lost_at = self._lost_at
        try:
            master = await self._campaign.fail_over(survey)
        except (LockLost, LinkLost, ResponseError) as error:
            self._log.warn("failover {id} failed: {error}", id=failover_id, error=str(error))
            master = None
        if master is None:
            self._become(Phase.ORIENTATING)
            # Whoever gave way listens for gossip; the delay is for the case that none comes.
            return random.uniform(0.03, 0.12)
        outage = self._now - lost_at if lost_at is not None else 0.0
        self._emit(
            FailoverEnded(
                at=self._now,
                master=master.address,
                epoch=master.epoch,
                reason=decision.reason,
                outage=outage,
            )
        )
        return 0.0

    async def _repair(self, survey: Survey) -> bool:
        try:
            return await self._campaign.repair(survey)
        except (LockLost, LinkLost, ResponseError) as error:
            self._log.warn("a repair failed, will be tried again: {error}", error=str(error))
            return False

    async def _tune(self, master: NodeView) -> None:
        """Let the replicas hear their master every second: they notice its silence sooner."""
        control = self._nodes[master.address].control
        if self._single or not self.options.tune_nodes or self._tuned == master.run_id:
            return
        if control is not None:
            self._tuned = master.run_id
            try:
                await control.ask("CONFIG", "SET", "repl-ping-replica-period", "1")
            except (LinkLost, ResponseError) as error:
                self._log.warn(
                    "repl-ping-replica-period of {node} stays as it is: {error}",
                    node=master.address,
                    error=str(error),
                )

    # What the nodes, the queue and the gossip tell.

    def node_changed(self, node: Node) -> None:
        self._emit(
            NodeChanged(at=self._now, node=node.address, status=node.status, reason=node.reason)
        )
        is_master = self._master is not None and self._master.address == node.address
        up = sum(other.status is Status.UP for other in self._nodes.values())
        total = len(self._nodes)
        match node.status:
            case Status.UP:
                self._log.step(
                    "{node} is up ({up}/{total} nodes up)", node=node.address, up=up, total=total
                )
                for other in self._nodes.values():
                    other.redial_now()
                if not self._single:
                    self._gossip.redial_now(node.address)
            case Status.DENIED:
                self._log.error("{node} denies us: {reason}", node=node.address, reason=node.reason)
            case Status.SILENT | Status.REFUSED:
                if is_master and self.phase is Phase.FOLLOWING:
                    self._log.warn("MASTER is down! ({reason})", reason=node.reason)
                self._log.step("orientating (node down, {up}/{total} nodes up)", up=up, total=total)
                if not self._single:
                    self._gossip.renew(node.address)
            case _:
                pass
        if is_master and node.status is not Status.UP and self._lost_at is None:
            self._lost_at = self._now
        self._wake()

    def node_heard(self, node: Node) -> None:
        if self._pending.held:
            self._open()

    def commands_ready(self, node: Node) -> None:
        self._denials.discard(node.address)
        self._open()

    def commands_lost(self, node: Node) -> None:
        if self._master is not None and self._master.address == node.address:
            self._pending.close()
            if self._lost_at is None:
                self._lost_at = self._now
            self._wake()

    def commands_denied(self, node: Node, error: Exception) -> None:
        if node.address not in self._denials:
            self._denials.add(node.address)
            self._log.error("{node} denies us: {reason}", node=node.address, reason=str(error))

    def _gossip_heard(self, node: Address, text: str) -> None:
        """A hint: look, but not more often than every 50 ms for the same name."""
        if text == self.master:
            return
        name = text if any(text == str(address) for address in self._nodes) else "elsewhere"
        if self._now - self._gossip_times.get(name, -1.0) < 0.05:
            return
        self._gossip_times[name] = self._now
        self._log.step("gossip on {node}: {text} is said to be master", node=node, text=text)
        self._wake()

    def _may_retry(self, error: Exception) -> bool:
        if self._single and str(error).startswith("READONLY"):
            return False  # there is no other node to turn to
        return not_executed(error)

    def _turned_away(self, error: Exception) -> None:
        if self._now - self._turned_away_at > 1.0:
            self._log.step("a command was turned away: {error}", error=str(error))
        # The same node may turn the same command away again: do not let that become a busy loop.
        delay = 0.0 if self._now - self._turned_away_at > 1.0 else random.uniform(0.01, 0.1)
        self._turned_away_at = self._now
        self._held_until = self._now + delay
        self._wake()

    # Small things.

    @property
    def _now(self) -> float:
        return self._reactor.seconds()

    def _become(self, phase: Phase) -> None:
        self.phase = phase

    def _emit(self, event: Event) -> None:
        if self.options.on_event is not None:
            try:
                self.options.on_event(event)
            except Exception:
                self._log.failure("on_event failed")

    def _say_once(self, text: str, *, loud: bool = False) -> bool:
        """Log this unless it was logged since the last change of master."""
        if text in self._said:
            return False
        self._said.add(text)
        (self._log.error if loud else self._log.info)("{what}", what=text)
        return True

    def _wake(self) -> None:
        """Look now, or again when the look in progress is over."""
        self._woken = True
        if self._alarm is not None:
            alarm, self._alarm = self._alarm, None
            alarm.callback(None)

    async def _sleep(self, seconds: float) -> None:
        if self._woken:
            return
        self._alarm = Deferred()
        alarm_clock = self._reactor.callLater(seconds, self._wake)
        try:
            await self._alarm
        finally:
            self._alarm = None
            if alarm_clock.active():
                alarm_clock.cancel()


def _global_reactor() -> Reactor:
    from twisted.internet import reactor

    return cast(Reactor, reactor)
