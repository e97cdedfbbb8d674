"""Orders: the switchover that a caller asked for; when it may begin, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred, fail

from txharedis.election import Follow, majority, rank
from txharedis.errors import (
    AccessDenied,
    HARedisError,
    LinkLost,
    LockLost,
    NoMaster,
    ResponseError,
    ServiceStopped,
    SwitchoverFailed,
)
from txharedis.group import NodeGroup, Survey
from txharedis.interfaces import Clock, Timer
from txharedis.options import Options
from txharedis.switchover import Switchover
from txharedis.topology import Address, NodeView, Status
from txharedis.values import Value

__all__ = ["Mover", "Orders", "Plan"]

#: Seconds between two surveys while a replica has to catch up.
AGAIN = 0.02


class Mover(Protocol):
    """Whoever carries a switchover out, and tells of it."""

    @property
    def master(self) -> str | None: ...

    def move_begins(self, old: NodeView, target: Address) -> None: ...

    def move_ended(self, old: NodeView, master: NodeView | None, why: str) -> None: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plan(Value):
    """What a switchover would do now: from `old` to `new`; `why` says why this one."""

    old: Address
    new: Address
    why: str


class _NotYet(Exception):
    """It may become possible: the text says what there is to wait for."""


@dataclass
class _Order:
    """`done` fires with the new master. `mark` is an offset of the master and when it had it; a
    replica that has come to it within a moment has caught up. `target` is set when it has begun.
    """

    to: Address | None
    timeout: float
    done: Deferred[str]
    timer: Timer
    excuse: str = ""
    mark: tuple[str, int, float] | None = None
    under_way: bool = False
    target: Address | None = None


class Orders:
    """At most one at a time."""

    def __init__(
        self,
        clock: Clock,
        group: NodeGroup,
        options: Options,
        switchover: Switchover,
        mover: Mover,
        news: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._group = group
        self._options = options
        self._switchover = switchover
        self._mover = mover
        self._news = news
        self._order: _Order | None = None

    @property
    def pending(self) -> bool:
        return self._order is not None

    def add(self, to: Address | None, timeout: float) -> Deferred[str]:
        """See FailoverService.switchover."""
        if self._order is not None:
            return fail(SwitchoverFailed("another switchover of this client is under way"))
        timer = self._clock.callLater(timeout, self._too_late)
        self._order = _Order(to, timeout, Deferred(self._cancelled), timer)
        self._news()
        return self._order.done

    def plan(self, survey: Survey, to: Address | None) -> Plan:
        """Whom a switchover would promote now, and nothing is done.

        Raises what it would fail with, if nothing changed until its timeout, whether or not this
        client may elect.
        """
        decision = survey.decision
        if not isinstance(decision, Follow):
            raise NoMaster(f"there is no master: {decision.reason}")
        try:
            new, why = self._successor(survey, decision, to)
        except _NotYet as excuse:
            raise SwitchoverFailed(f"not now: {excuse}") from None
        return Plan(decision.master, new.address, "as asked for" if to is not None else why)

    def stop(self) -> None:
        """Fail it with ServiceStopped."""
        order = self._order
        if order is not None:
            begun = order.target is not None or (order.under_way and self._switchover.begun)
            executed = None if begun else False
            self._end(ServiceStopped("the service was stopped", executed))

    async def proceed(self, survey: Survey, decision: Follow, otherwise: float) -> float:
        """Do what can be done about it now; returns the seconds until the next look.

        `otherwise` is when the next one would be without it.
        """
        order = self._order
        assert order is not None
        if order.target is not None:
            self._find_out(order, decision.master)
            return otherwise
        try:
            if not self._options.elect:
                raise SwitchoverFailed("elect=False: this client changes nothing on the servers")
            target, _ = self._successor(survey, decision, order.to)
            self._catch_up(order, survey.views[decision.master], target)
        except _NotYet as excuse:
            order.excuse = str(excuse)
            return min(otherwise, AGAIN)
        except HARedisError as error:
            self._end(error)
            return otherwise
        return await self._move(order, survey, survey.views[decision.master], target.address)

    async def _move(self, order: _Order, survey: Survey, old: NodeView, target: Address) -> float:
        order.under_way = True
        master, why = None, ""
        self._mover.move_begins(old, target)
        try:
            master = await self._switchover.move(survey, target)
            why = "somebody else holds the failover lock"
        except (SwitchoverFailed, LockLost, LinkLost, ResponseError, AccessDenied) as error:
            why = str(error)
            if not self._switchover.begun:
                denied = isinstance(error, AccessDenied)
                text = f"{why}; {old.address} is master as before"
                self._end(AccessDenied(text) if denied else SwitchoverFailed(text))
            else:
                order.target, order.excuse = target, why
                if order.timer.active():
                    order.timer.cancel()
                order.timer = self._clock.callLater(order.timeout, self._too_late)
        finally:
            order.under_way = False
            self._mover.move_ended(old, master, why)
        if master is not None:
            self._end(str(master.address))
            return 0.0
        if order.target is None:
            order.excuse = why
            if not order.timer.active():
                self._too_late()
            return AGAIN * 3
        return 0.0

    def _find_out(self, order: _Order, master: Address) -> None:
        """It was lost from sight after the old master had let go; this is the master now."""
        if master == order.target:
            self._end(str(master))
        else:
            self._end(
                SwitchoverFailed(
                    f"{order.target} could not be promoted ({order.excuse}); {master} is master, "
                    "and no write is lost",
                    None,
                )
            )

    # Whom to promote.

    def _successor(
        self, survey: Survey, decision: Follow, to: Address | None
    ) -> tuple[NodeView, str]:
        """The node, and why it is the best."""
        master = survey.views[decision.master]
        if to == master.address:
            raise SwitchoverFailed(f"{to} is the master already")
        if len(survey.controls) < majority(survey.nodes):
            missing = {name for node in self._group for name in node.missing_rights}
            raise AccessDenied(
                "rights are missing on a quorum of the nodes"
                + (f": {', '.join(sorted(missing))}" if missing else "")
            )
        others = [n.address for n in self._group if n.address != master.address]
        excuses: dict[Address, Exception] = {}
        for address in others if to is None else [to]:
            try:
                self._check(survey, decision, master, address)
            except (_NotYet, HARedisError) as excuse:
                excuses[address] = excuse
        fit = [survey.views[a] for a in ([to] if to else others) if a not in excuses]
        if fit:
            ranking = rank(fit)
            return ranking.order[0], ranking.why
        text = "; ".join(map(str, excuses.values()))
        if any(isinstance(excuse, _NotYet) for excuse in excuses.values()):
            raise _NotYet(text)
        denied = any(isinstance(excuse, AccessDenied) for excuse in excuses.values())
        raise AccessDenied(text) if denied else SwitchoverFailed(text)

    def _check(self, survey: Survey, decision: Follow, master: NodeView, address: Address) -> None:
        """Raise what keeps this node from being promoted: _NotYet when it may pass."""
        node, view = self._group[address], survey.views.get(address)
        if node.status in (Status.REFUSED, Status.SILENT, Status.DENIED):
            raise SwitchoverFailed(f"{address} is {node.status.value}: {node.reason}")
        if view is None:
            raise _NotYet(f"{address} does not answer")
        if view.run_id == master.run_id:
            raise SwitchoverFailed(f"{address} is the master already, by another name")
        if view in decision.strangers:
            raise SwitchoverFailed(f"{address} holds data that are not this group's")
        if view.priority == 0:
            raise SwitchoverFailed(f"{address} has replica-priority 0")
        if not node.may_elect:
            raise AccessDenied(f"{address} denies us {', '.join(node.missing_rights)}")
        if view.loading:
            raise _NotYet(f"{address} is loading its data")
        if view.follows != master.address or not view.link_up:
            raise _NotYet(f"{address} is not linked to {master.address}")
        if view.syncing or not view.same_history(master):
            raise _NotYet(f"{address} is in the middle of a full resync")

    def _catch_up(self, order: _Order, master: NodeView, target: NodeView) -> None:
        """Whether it comes to where the master was a moment ago."""
        now = self._clock.seconds()
        if order.mark is not None:
            replid, offset, at = order.mark
            reached = replid == master.replid and target.offset >= offset
            if reached and now - at <= self._options.lock_time / 2:
                return
            if replid == master.replid and not reached:
                behind = master.offset - target.offset
                raise _NotYet(f"{target.address} is {behind} bytes behind {master.address}")
        order.mark = (master.replid, master.offset, now)
        raise _NotYet(f"{target.address} has not caught up with {master.address}")

    # The end.

    def _too_late(self) -> None:
        order = self._order
        if order is None or order.under_way:
            return  # it has an end of its own, soon
        within = f"within {order.timeout} s"
        if order.target is not None:
            text = f"the switchover to {order.target} was begun, and no master was seen {within}"
            self._end(SwitchoverFailed(text, None))
        elif self._mover.master is None:
            self._end(NoMaster(f"no master {within}"))
        else:
            excuse = order.excuse or "the nodes did not answer"
            master = self._mover.master
            self._end(SwitchoverFailed(f"not {within}: {excuse}; {master} is master as before"))

    def _cancelled(self, done: Deferred[str]) -> None:
        if self._order is not None and self._order.done is done and not self._order.under_way:
            self._forget()

    def _end(self, result: str | HARedisError) -> None:
        order = self._order
        if order is not None:
            self._forget()
            if order.done.called:
                return  # cancelled
            if isinstance(result, str):
                order.done.callback(result)
            else:
                order.done.errback(result)

    def _forget(self) -> None:
        order, self._order = self._order, None
        if order is not None and order.timer.active():
            order.timer.cancel()
