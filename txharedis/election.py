"""Who is the master, and who should be: the rules, as pure functions.

`decide` takes what the nodes said of themselves and what is known of the others, and returns what
to do. No clock, no I/O, no state. The words are those of docs/design.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from txharedis.topology import Address, NodeView, Status
from txharedis.values import Value

__all__ = [
    "Decision",
    "Elect",
    "Evidence",
    "Follow",
    "Ranking",
    "Refuse",
    "Repair",
    "Wait",
    "decide",
    "doubt_of",
    "majority",
    "rank",
]

#: Seconds to the next look when the answer can change within milliseconds: a replica notices the
#: crash of its master within about 10 ms.
SOON = 0.005
#: Seconds to the next look when somebody has to come back first.
LATER = 0.25
#: Seconds between a master's words to its replicas, unless it was told otherwise.
DEFAULT_PING_PERIOD = 10


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Evidence(Value):
    """What a client knows beside the views.

    `nodes` are the configured nodes, each server once (an address that turned out to be the same
    server as another is left out). `status` says how we stand with each. `run_ids` are the newest
    known run_ids, of unreachable nodes too. `epoch` and `group` are those of the group that this
    client followed, 0 and "" before it did; `history` is the replid of the master that it follows.
    `clusters` are the nodes that deny us because they are in cluster mode, `denied` those that deny
    us for want of a right, with their errors; `commands_denied` deny only the command link. `doubt`
    is what `doubt_of` said, while it has to be heeded. `lock_is_ours` tells that this client holds
    the lock that the views show, `stuck` that a server's own FAILOVER lasts for too long, and
    `follows_only` that this client may change nothing on the servers.
    """

    nodes: tuple[Address, ...]
    status: Mapping[Address, Status]
    down_after: float
    run_ids: Mapping[Address, str] = field(default_factory=dict)
    epoch: int = 0
    group: str = ""
    history: str = ""
    adopt: frozenset[Address] = frozenset()
    clusters: frozenset[Address] = frozenset()
    doubt: str = ""
    lock_is_ours: bool = False
    stuck: bool = False
    denied: Mapping[Address, str] = field(default_factory=dict)
    commands_denied: Mapping[Address, str] = field(default_factory=dict)
    follows_only: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Repair(Value):
    """One thing to put right under the lock, without a promotion.

    "meta": write epoch and group on a master that has none. "redirect": make the node a read-only
    replica of the master; `full` when that takes a full resync.
    """

    kind: str
    node: Address
    full: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Follow(Value):
    """Send the traffic to `master` now. `strangers` are left alone: their data is not ours."""

    master: Address
    repairs: tuple[Repair, ...] = ()
    strangers: tuple[NodeView, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Elect(Value):
    """Promote the first of the candidates; `why` says why it is the first."""

    candidates: tuple[NodeView, ...]
    reason: str
    why: str = ""
    strangers: tuple[NodeView, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Wait(Value):
    """Nothing to do yet; look again in `retry_in` seconds, or when something changes."""

    reason: str
    retry_in: float = LATER
    newer: bool = False  # whether there may be a newer master than the one followed


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Refuse(Value):
    """Going on would destroy data or mix groups: a person has to decide."""

    reason: str
    nodes: tuple[Address, ...] = ()
    why: str = "unfit"  # or "data", that would be lost, or "denied", what we need


Decision = Follow | Elect | Wait | Refuse


def majority(nodes: int) -> int:
    """The quorum: more than half of the configured nodes."""
    return nodes // 2 + 1


def decide(views: Mapping[Address, NodeView], evidence: Evidence) -> Decision:
    """What to do, given the views of one survey.

    `views` holds a view for each node of `evidence.nodes` that answered.
    """
    seen = {address: view for address, view in views.items() if not view.blind}
    if len(seen) == len(views) or len(evidence.nodes) == 1:
        decision = _decide(views, evidence)
    elif evidence.follows_only:
        decision = _decide_by_roles(views, evidence)
    else:
        decision = _decide(seen, evidence)
        if isinstance(decision, Wait):
            by_roles = _decide_by_roles(views, evidence)
            decision = by_roles if isinstance(by_roles, Follow) else decision
    return _only_follow(decision) if evidence.follows_only else decision


def _only_follow(decision: Decision) -> Decision:
    """What is left of it for a client that may not change anything."""
    if isinstance(decision, Follow):
        return Follow(decision.master, (), decision.strangers)
    if isinstance(decision, Elect) or (isinstance(decision, Refuse) and decision.why == "data"):
        reason = f"only clients with the right to elect may act: {decision.reason}"
        return Wait(reason, newer=True)
    return decision


def _decide_by_roles(views: Mapping[Address, NodeView], evidence: Evidence) -> Decision:
    """Whom to follow when the group's own keys cannot be seen: the only one that says master."""
    before = _before_all(views, evidence)
    if before is not None:
        return before
    answered = [views[address] for address in evidence.nodes if address in views]
    masters = [view for view in answered if view.is_master and not view.loading]
    if len(masters) != 1:
        said = ", ".join(str(view.address) for view in masters) or "none"
        return Elect((), f"{len(masters)} nodes say that they are master ({said})")
    [master] = masters
    for view in answered:
        if view.link_up and view.follows not in (None, master.address):
            return Elect((), f"{view.address} follows {view.follows}, not {master.address}")
    return _unless_denied(Follow(master.address), evidence)


def _decide(views: Mapping[Address, NodeView], evidence: Evidence) -> Decision:
    before = _before_all(views, evidence)
    if before is not None:
        return before
    nodes = evidence.nodes
    answered = [views[address] for address in nodes if address in views]
    quorum = majority(len(nodes))
    ready = [view for view in answered if not view.loading]
    loading = [view for view in answered if view.loading]
    group = _group_of(ready, evidence, quorum)
    if isinstance(group, Refuse):
        return group
    strangers = tuple(view for view in ready if _is_stranger(view, group, ready, evidence.adopt))
    ours = [view for view in ready if view not in strangers]
    decision = _Case(ours, loading, strangers, group, evidence, quorum).decide()
    return _unless_denied(decision, evidence)


def _before_all(views: Mapping[Address, NodeView], evidence: Evidence) -> Decision | None:
    """What there is to say before the nodes can be compared."""
    nodes = evidence.nodes
    answered = [views[address] for address in nodes if address in views]
    if evidence.clusters:
        address = min(evidence.clusters)
        return Refuse(f"{address} is in cluster mode", (address,))
    if len(evidence.denied) > len(nodes) - majority(len(nodes)):
        return _denied(evidence.denied)
    if len(nodes) == 1:
        if not answered:
            return Wait(f"{nodes[0]} is {_stands(evidence, nodes[0])}", SOON)
        if answered[0].loading:
            return Wait(f"{nodes[0]} is loading its data")
        return _unless_denied(Follow(nodes[0]), evidence)
    unfit = _unfit(answered)
    if unfit is not None:
        return unfit
    quorum = majority(len(nodes))
    if len(answered) < quorum:
        away = ", ".join(f"{a} {_stands(evidence, a)}" for a in nodes if a not in views)
        return Wait(
            f"no quorum: {len(answered)} of {len(nodes)} nodes answer, {quorum} needed ({away})",
            SOON if _in_motion(evidence, views) else LATER,
        )
    return None


def _denied(errors: Mapping[Address, str]) -> Refuse:
    texts = "; ".join(f"{address} denies us: {error}" for address, error in errors.items())
    return Refuse(texts, tuple(errors), why="denied")


def _unless_denied(decision: Decision, evidence: Evidence) -> Decision:
    """A master that will not have our commands is of no use."""
    if isinstance(decision, Follow) and decision.master in evidence.commands_denied:
        return _denied({decision.master: evidence.commands_denied[decision.master]})
    return decision


def doubt_of(views: Iterable[NodeView], *, following: bool) -> str:
    """Why the master that claims to be one may have a successor already, "" when nothing says so.

    A replica that granted a higher epoch and follows a node that we cannot see, other than the one
    that its meta names, was sent to a newer master; the meta that says so reaches it only with the
    first bytes of replication. One that is locked for a higher epoch may be sent to one any moment;
    that need not trouble a client that is `following` a master all the while, since repairs take
    the same lock.
    """
    seen = {view.address: view for view in views}
    claims = [view.epoch for view in seen.values() if view.claims]
    for view in seen.values():
        if view.is_master or not claims or view.vote <= max(claims):
            continue
        sent_away = view.meta_master not in (str(view.follows), view.follows_text)
        if view.follows is not None and view.follows not in seen and sent_away:
            return f"{view.address} follows {view.follows}, which may be a newer master"
        if view.locked and not following:
            return f"{view.address} is locked by somebody who may be making a newer master"
    return ""


def _unfit(views: Iterable[NodeView]) -> Refuse | None:
    for view in views:
        if view.cluster:
            return Refuse(f"{view.address} is in cluster mode", (view.address,))
        if view.sentinels:
            return Refuse(
                f"{view.address} is watched by Sentinel: two systems must not move one master",
                (view.address,),
            )
    return None


def _stands(evidence: Evidence, address: Address) -> str:
    status = evidence.status.get(address, Status.DIALLING)
    return "not answering" if status is Status.UP else status.value


def _in_motion(evidence: Evidence, views: Mapping[Address, NodeView]) -> bool:
    """Whether some node may answer within milliseconds."""
    return any(
        evidence.status.get(address) in (Status.DROPPED, Status.DIALLING)
        for address in evidence.nodes
        if address not in views
    )


def _group_of(ready: Sequence[NodeView], evidence: Evidence, quorum: int) -> str | Refuse:
    """The group that these nodes are, "" when none of them was ever in one.

    Adopted nodes have no say. Where there are several groups, it is the one that this client
    followed, or else the one of a quorum.
    """
    members: dict[str, list[NodeView]] = {}
    for view in ready:
        if view.group and view.address not in evidence.adopt:
            members.setdefault(view.group, []).append(view)
    if evidence.group in members:
        return evidence.group
    holders = {
        group: views for group, views in members.items() if any(view.keys for view in views)
    } or members
    if len(holders) <= 1:
        return next(iter(holders), "")
    for group, views in holders.items():
        if len(views) >= quorum:
            return group
    everyone = [view for views in holders.values() for view in views]
    return Refuse(
        f"the nodes belong to {len(holders)} groups, none with a quorum: "
        + ", ".join(f"{view.address} ({view.keys} keys)" for view in everyone)
        + "; name in adopt=[...] those whose data may go",
        tuple(view.address for view in everyone),
        why="data",
    )


def _is_stranger(
    view: NodeView, group: str, ready: Sequence[NodeView], adopt: frozenset[Address]
) -> bool:
    """Whether SLAVEOF would discard data that is not the group's.

    It would when the node holds keys and carries another group's id, or none although the group
    has one; not when it shares the history of a member (its copy of the id is on its way).
    """
    if not group or not view.keys or view.group == group or view.address in adopt:
        return False
    if view.group:
        return True
    return not any(view.same_history(other) for other in ready if other.group == group)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Case(Value):
    """One survey of several nodes with a quorum: the members, and what is known of the rest."""

    ours: Sequence[NodeView]
    loading: Sequence[NodeView]
    strangers: tuple[NodeView, ...]
    group: str
    evidence: Evidence
    quorum: int

    @property
    def epoch(self) -> int:
        """The highest epoch of our group that any node here has."""
        return max((view.epoch for view in self.ours if view.group == self.group), default=0)

    def decide(self) -> Decision:
        claimants = [
            view
            for view in self.ours
            if view.claims and view.epoch == self.epoch and view.group == self.group
        ]
        remembered = self.evidence.epoch if self.group in ("", self.evidence.group) else 0
        if self.epoch < remembered:
            return self._without_the_newest(remembered)
        if claimants and self.evidence.doubt:
            return Wait(self.evidence.doubt, SOON, newer=True)
        if len(claimants) == 1:
            return self._follow(claimants[0])
        if claimants:
            return self._elect(f"{len(claimants)} masters claim epoch {self.epoch}")
        if self.epoch == 0:
            return self._first_time()
        return self._handed_over() or self._succeed(self._last_master(), "")

    def _handed_over(self) -> Wait | None:
        """What to wait for while somebody moves the master: the old one lives and has let go.

        The epoch follows in a moment. If whoever does it dies first, its lock expires, and the
        master is elected; those who hold most are equal.
        """
        locked = any(view.locked for view in self.ours) and not self.evidence.lock_is_ours
        newest = [v for v in self.ours if v.epoch == self.epoch and v.group == self.group]
        for view in newest:
            busy = locked or (view.failing_over and not self.evidence.stuck)
            if busy and view.run_id == view.meta_run_id:
                return Wait(f"{view.address} hands over to another master", SOON)
        return None

    def _without_the_newest(self, remembered: int) -> Decision:
        """Nobody here has the epoch that this client has already seen."""
        history = self.evidence.history
        if (
            self.epoch == 0
            and history
            and any(history in (view.replid, view.replid2) for view in self.ours)
        ):
            # Our own keys were flushed, with the rest; the servers went on living.
            return self._first_time()
        if len(self.ours) == len(self.evidence.nodes) and not any(v.syncing for v in self.ours):
            # Everybody was asked and nobody has it: waiting would not bring it back.
            if self.epoch == 0:
                return self._first_time()
            return self._elect(f"no node has the data of epoch {remembered} any more")
        return Wait(
            f"no reachable node has the data of epoch {remembered}: "
            f"the newest here is epoch {self.epoch}"
        )

    def _first_time(self) -> Decision:
        """No node carries a group yet."""
        histories = _histories(view for view in self.ours if view.keys)
        histories = [
            history
            for history in histories
            if not all(view.address in self.evidence.adopt for view in history)
        ]
        if len(histories) > 1:
            holders = [view for history in histories for view in history]
            return Refuse(
                "more than one history holds data: "
                + ", ".join(f"{view.address} ({view.keys} keys)" for view in holders)
                + "; name in adopt=[...] the nodes whose data may go",
                tuple(view.address for view in holders),
                why="data",
            )
        masters = [view for view in self.ours if view.is_master]
        if any(view.keys for view in self._foreign()):
            return self._refuse_foreign()
        if len(masters) == 1:
            master = masters[0]
            if not histories or any(master.same_history(view) for view in histories[0]):
                return self._follow(master)
        return self._succeed(self._followed(), f"invalid master count: {len(masters)}")

    def _foreign(self) -> list[NodeView]:
        """The replicas of a living server that is not one of the nodes."""
        masters = [view for view in self.ours if view.is_master]
        return [
            view
            for view in self.ours
            if not view.is_master
            and view.follows is None
            and view.link_up
            # One that shares a master's history follows it by a name that we do not know.
            and not any(view.same_history(master) for master in masters)
        ]

    def _refuse_foreign(self) -> Refuse:
        foreign = self._foreign()
        return Refuse(
            ", ".join(f"{view.address} follows {view.follows_text}" for view in foreign)
            + ", which is not one of the nodes given",
            tuple(view.address for view in foreign),
        )

    def _last_master(self) -> Address | None:
        """The configured node that the newest meta names: by run_id, by address, by followers."""
        newest = min(
            (v for v in self.ours if v.epoch == self.epoch and v.group == self.group),
            key=lambda view: view.address,
        )
        for address, run_id in sorted(self.evidence.run_ids.items()):
            if run_id == newest.meta_run_id and address in self.evidence.nodes:
                return address
        for address in self.evidence.nodes:
            if str(address) == newest.meta_master:
                return address
        return self._followed()

    def _followed(self) -> Address | None:
        """The node that most replicas here follow, of those that have not spoken themselves."""
        votes: dict[Address, int] = {}
        here = {view.address for view in self.ours}
        for view in self.ours:
            if view.follows is not None and view.follows not in here:
                votes[view.follows] = votes.get(view.follows, 0) + 1
        return max(votes, key=lambda address: (votes[address], str(address)), default=None)

    def _succeed(self, last: Address | None, reason: str) -> Decision:
        """The last master is not one that can be followed: elect, if that is certain."""
        if last is None:
            foreign = self._foreign()
            masters = any(view.is_master for view in self.ours)
            if foreign and (not masters or any(view.keys or view.epoch for view in foreign)):
                return self._refuse_foreign()
            return self._elect(reason or "invalid master count: 0")
        for view in self.ours:
            if view.address == last:
                what = "has restarted since" if view.is_master else "is no longer master though"
                return self._elect(reason or f"{last} {what} it was promoted")
        alive = self._signs_of_life(last)
        return alive if alive is not None else self._elect(reason or f"MASTER {last} is down")

    def _signs_of_life(self, last: Address) -> Wait | None:
        """None when the death of the last master is proved, else what to wait for."""
        is_loading = any(view.address == last for view in self.loading)
        status = self.evidence.status.get(last, Status.DIALLING)
        stands = _stands(self.evidence, last)
        # A replica of a server that we cannot name may well be one of the last master's.
        replicas = [view for view in self.ours if not view.is_master]
        followers = [view for view in replicas if view.follows in (last, None)]
        hearing = [view for view in followers if self._hears(view)]
        if hearing:
            return Wait(
                f"{last} is out of reach from here ({stands}), but {len(hearing)} of "
                f"{len(followers)} of its replicas hear it",
                SOON,
            )
        if not is_loading and status not in (Status.REFUSED, Status.SILENT):
            return Wait(f"MASTER {last} is {stands}", SOON)
        return None

    def _hears(self, view: NodeView) -> bool:
        return view.link_up and view.last_io < self._silence

    @property
    def _silence(self) -> float:
        """Seconds without a word after which a replica's link to the last master says nothing.

        A master that was told to speaks to its replicas every second; by default it does so every
        ten, and an idle link is silent in between.
        """
        newest = [v for v in self.ours if v.epoch == self.epoch and v.group == self.group]
        spoken = any(view.ping_period == 1 for view in newest)
        if spoken:
            # The replicas count whole seconds: after one second of silence they may say two.
            return max(self.evidence.down_after, 3.0)
        return self.evidence.down_after + DEFAULT_PING_PERIOD

    def _elect(self, reason: str) -> Decision:
        if len(self.ours) < self.quorum:
            votes = f"only {len(self.ours)} nodes can vote ({self.quorum} needed)"
            loading = "".join(f"; {view.address} is loading" for view in self.loading)
            return Wait(f"{reason}, and {votes}{loading}")
        unfit = {view.address: self._unfit_because(view) for view in self.ours}
        ranking = rank(view for view in self.ours if not unfit[view.address])
        excuses = [f"{address} {excuse}" for address, excuse in unfit.items() if excuse]
        excuses += [f"{view.address} is loading" for view in self.loading]
        # A node that is loading may be the freshest, unless a candidate was linked until its end.
        if any(not _lived_through(ranking.order, view) for view in self.loading):
            return Wait(
                f"{reason}, but a node that may be the freshest is not ready: {_list(excuses)}"
            )
        if not ranking.order:
            return Wait(f"{reason}, but there is no candidate: {_list(excuses)}")
        return Elect(ranking.order, reason, ranking.why, self.strangers)

    def _unfit_because(self, view: NodeView) -> str:
        """Why this node cannot be elected, "" when it can."""
        if view.priority == 0:
            return "has replica-priority 0"
        if view.syncing:
            return "is in the middle of a full resync"
        if view.epoch < self.epoch or (self.epoch and view.group != self.group):
            return f"lacks the data of epoch {self.epoch}"
        if not view.keys and not view.opcounter and any(other.keys for other in self.ours):
            return "is empty while others hold data"
        here = {other.address for other in self.ours}
        if not (view.is_master or view.linked_before or view.keys or view.epoch) and (
            view.follows is not None and view.follows not in here
        ):
            return f"has never been synced with {view.follows}"
        if (
            view.keys
            and view.address in self.evidence.adopt
            and any(other.keys and other.address not in self.evidence.adopt for other in self.ours)
        ):
            return "holds data that may go (adopt)"
        return ""

    def _follow(self, master: NodeView) -> Follow:
        repairs: list[Repair] = []
        if not (master.epoch and master.claims):
            repairs.append(Repair("meta", master.address))
        busy = any(view.syncing for view in self.ours) or bool(self.loading)
        for view in self.ours:
            if view.address == master.address or not _deviates(view, master):
                continue
            full = not view.same_history(master)
            if full and busy:
                continue
            busy = busy or full
            repairs.append(Repair("redirect", view.address, full))
        return Follow(master.address, tuple(repairs), self.strangers)


def _lived_through(candidates: Iterable[NodeView], loading: NodeView) -> bool:
    """Whether one of these was linked to its master until the node that is loading died.

    Both times are whole seconds.
    """
    return any(
        view.link_up or (view.linked_before and view.link_down_for <= loading.uptime + 1)
        for view in candidates
    )


def _deviates(view: NodeView, master: NodeView) -> bool:
    return view.is_master or view.follows != master.address or view.writable


def _list(items: Sequence[str]) -> str:
    return "; ".join(items) if items else "no node is there"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ranking(Value):
    """Views, freshest first, and the reason why the first is the first."""

    order: tuple[NodeView, ...]
    why: str


def rank(views: Iterable[NodeView]) -> Ranking:
    """Order by freshness.

    Highest epoch; then the history with the highest opcounter; inside one history the highest
    offset; then a node that is master already, since its newest write may not be counted there yet;
    then the longest uptime; then the address. Offsets of different histories do not
    compare, so between histories with equal counters the one that holds data comes first.
    """

    def worth(history: Sequence[NodeView]) -> tuple[object, ...]:
        return (
            -max(view.epoch for view in history),
            -max(view.opcounter for view in history),
            -max(view.keys > 0 for view in history),
            -max(view.uptime for view in history),
            min(view.address for view in history),
        )

    def place(view: NodeView) -> tuple[object, ...]:
        return (-view.offset, not view.is_master, -view.uptime, view.address)

    histories = sorted(_histories(views), key=worth)
    placed = [view for history in histories for view in sorted(history, key=place)]
    order = tuple(sorted(placed, key=lambda view: -view.epoch))
    return Ranking(order, _why(order, histories) if order else "")


def _why(order: Sequence[NodeView], histories: Sequence[Sequence[NodeView]]) -> str:
    best = order[0]
    rivals = [view for view in histories[0] if view is not best and view.epoch == best.epoch]
    counters = f"highest opcounter ({best.opcounter}) of {len(order)} nodes"
    if any(view.epoch < best.epoch for view in order):
        return f"highest epoch ({best.epoch}) of {len(order)} nodes"
    if any(view.offset < best.offset for view in rivals) and any(
        view.opcounter != best.opcounter or view.offset != best.offset for view in rivals
    ):
        return f"highest offset ({best.offset}, opcounter {best.opcounter}) of {len(order)} nodes"
    return counters


def _histories(views: Iterable[NodeView]) -> list[list[NodeView]]:
    """The views in groups of one replication history each."""
    histories: list[list[NodeView]] = []
    for view in views:
        related = [h for h in histories if any(view.same_history(other) for other in h)]
        merged = [other for history in related for other in history] + [view]
        histories = [history for history in histories if history not in related] + [merged]
    return histories
