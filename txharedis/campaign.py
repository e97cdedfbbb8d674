"""What one client does to the servers: a failover or a repair, under the lock, step by step.

A client that dies after any of these steps leaves a state that the next survey of any other client
decides and repairs; its lock is gone after `lock_time`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from twisted.internet.defer import Deferred, DeferredList, gatherResults

from txharedis.election import Elect, Follow, Repair, majority
from txharedis.errors import LinkLost, LockLost, ResponseError, StepFailed
from txharedis.events import Event, FailoverStep, HistoryDiscarded, LockNotGranted
from txharedis.gossip import announcement
from txharedis.group import Survey
from txharedis.interfaces import Args, Clock
from txharedis.lock import NodeLock, QuorumLock
from txharedis.log import ClientLog
from txharedis.options import Options
from txharedis.topology import META_KEY, Address, NodeView, Role

__all__ = ["Campaign"]


class Campaign:
    """One attempt.

    `look` surveys and decides anew; `serve(master)` lets commands flow to the new master, before
    the others are redirected.
    """

    def __init__(
        self,
        clock: Clock,
        options: Options,
        log: ClientLog,
        emit: Callable[[Event], None],
        look: Callable[[], Awaitable[Survey]],
        serve: Callable[[NodeView], None],
    ) -> None:
        self._clock = clock
        self._options = options
        self._log = log
        self._emit = emit
        self._look = look
        self._serve = serve
        self.why = ""  # the newest winner was the best

    async def fail_over(self, survey: Survey) -> NodeView | None:
        """Promote the freshest node and make the others follow it.

        Returns the new master, None when there was nothing to do or somebody else is doing it.
        Raises LockLost, LinkLost or ResponseError when the winner could not be promoted; then
        nothing has changed.
        """
        before = survey
        if await self._take_back(survey):
            return None
        lock = await self._lock(survey)
        if lock is None:
            return None
        try:
            survey = await self._look()
            self._step("look", lock)
            decision = survey.decision
            if not isinstance(decision, Elect):
                self._log.step("no failover needed any more")
                return None
            master = await self._promote_one(survey, decision, lock)
            if master is None:
                return None
            self._serve(master)
            self._step("serve", lock, master.address)
            await self._redirect_others(lock, before, survey, decision, master)
            await self._tell_everyone(lock, survey, master)
        finally:
            await lock.release()
        self._step("release", lock)
        return master

    async def _take_back(self, survey: Survey) -> bool:
        """End a server's FAILOVER whose target and whose client are gone.

        It refuses SLAVEOF and parks what we write, the lock as well. So this alone is done without
        the lock: when nobody has held one for long. The server is master again, as before.
        """
        stuck = [v for v in survey.views.values() if v.failing_over and not v.is_master]
        for view in stuck:
            if view.address in survey.controls:
                self._log.warn("{node} could not hand over: it takes it back", node=view.address)
                await survey.controls[view.address].exchange(
                    ["FAILOVER", "ABORT"], timeout=self._options.survey_timeout
                )
        return bool(stuck)

    async def repair(self, survey: Survey) -> bool:
        """Put right what deviates from the master's group, with no promotion.

        Returns whether anything was put right.
        """
        before = survey
        lock = await self._lock(survey)
        if lock is None:
            return False
        done = 0
        try:
            survey = await self._look()
            decision = survey.decision
            if isinstance(decision, Follow):
                for repair in decision.repairs:
                    done += await self._put_right(lock, before, survey, decision.master, repair)
        finally:
            await lock.release()
        return done > 0

    async def _lock(self, survey: Survey) -> QuorumLock | None:
        strangers = getattr(survey.decision, "strangers", ())
        views = [v for v in survey.views.values() if not v.loading and v not in strangers]
        lock = QuorumLock(
            self._clock,
            [(v, survey.controls[v.address]) for v in views if v.address in survey.controls],
            quorum=majority(survey.nodes),
            life=self._options.lock_time,
            patience=self._options.patience,
        )
        epoch = max([survey.memory.epoch, *(max(view.epoch, view.vote) for view in views)]) + 1
        for _ in range(3):
            if await lock.acquire(epoch):
                self._log.step(
                    "lock was a success! ({held} of {nodes} nodes, epoch {epoch})",
                    held=len(lock.granted),
                    nodes=survey.nodes,
                    epoch=epoch,
                )
                self._step("lock", lock)
                return lock
            if not lock.outrun:
                break
            epoch = lock.highest + 1
        self._log.step("lock was not granted: {why}", why=lock.refusals)
        self._emit(LockNotGranted(at=self._clock.seconds(), epoch=epoch, reason=str(lock.refusals)))
        if "NOPERM" in lock.refusals:
            raise ResponseError(f"NOPERM for the lock: {lock.refusals}")
        return None

    def _winner(self, decision: Elect, lock: QuorumLock) -> NodeView | None:
        candidates = [view for view in decision.candidates if view.address in lock.granted]
        if not candidates:
            self._log.warn("no candidate could be locked: {why}", why=lock.refusals)
            return None
        why = decision.why
        if candidates[0] is not decision.candidates[0]:
            why = f"the best rank of {len(candidates)} nodes that could be locked"
        self._log.info("{node} had {why}. congrats!", node=candidates[0].address, why=why)
        self.why = why
        return candidates[0]

    async def _promote_one(
        self, survey: Survey, decision: Elect, lock: QuorumLock
    ) -> NodeView | None:
        """Promote the winner; when it refuses, another that holds as much, but none that lacks."""
        winner = self._winner(decision, lock)
        if winner is None:
            return None
        best = winner
        others = [
            view
            for view in decision.candidates
            if view is not best and view.address in lock.granted and _holds_as_much(view, best)
        ]
        for address, held in lock.granted.items():
            if address != best.address:
                held.prepare()  # writes that need a replica's word wait for its redirection
        while True:
            try:
                return await self._promote(lock, winner, _group(winner, survey))
            except StepFailed:
                raise  # it may be master by now
            except ResponseError as error:
                if not others:
                    raise
                self._log.warn(
                    "{node} refuses to be master: {error}", node=winner.address, error=str(error)
                )
                winner = others.pop(0)

    async def _promote(
        self, lock: QuorumLock, winner: NodeView, group: str, *also: Args
    ) -> NodeView:
        lock.check()
        crowned = _crowned(winner, lock.epoch, group)
        await lock.granted[winner.address].fenced(
            ["SLAVEOF", "NO", "ONE"],
            *self._crown(crowned),
            *also,
            announcement(winner.address),
        )
        self._step("promote", lock, winner.address)
        return crowned

    async def _redirect_others(
        self,
        lock: QuorumLock,
        before: Survey,
        survey: Survey,
        decision: Elect,
        master: NodeView,
    ) -> None:
        """All that can go on by a partial resync, and one that needs a full one."""
        others = [
            survey.views[address]
            for address in lock.granted
            if address != master.address
            and address in survey.views  # one that did not answer again is left to a repair
            and survey.views[address] not in decision.strangers
        ]
        quick = [view for view in others if view.same_history(master)]
        slow = [view for view in others if view not in quick]
        await gatherResults(
            [
                Deferred.fromCoroutine(self._redirect(lock, view, master, before))
                for view in [*quick, *slow[:1]]
            ],
            consumeErrors=True,
        )

    async def _redirect(
        self, lock: QuorumLock, view: NodeView, master: NodeView, before: Survey
    ) -> bool:
        """Make one node a read-only replica; a failure is left to the next survey's repairs.

        `before` is from before the lock, which is a write too.
        """
        self._log.step("making {node} into a slave", node=view.address)
        place = master.address
        commands: list[Args] = [["SLAVEOF", place.host, place.port]]
        held = lock.granted[view.address]
        if view.is_master:
            # Nobody shall go on writing to it, or listening to silence.
            commands.append(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            commands.append(["CLIENT", "KILL", "TYPE", "pubsub"])
        try:
            commands[:0] = await self._credentials(held, place)
            lock.check()
            await held.finish(*commands)
        except (LockLost, LinkLost, ResponseError) as error:
            self._log.warn(
                "making {node} into a slave failed, will be tried again: {error}",
                node=view.address,
                error=str(error),
            )
            return False
        self._step("redirect", lock, view.address)
        if view.is_master and (before.memory.epoch or view.epoch):  # not when a group begins
            came_back = before.views.get(view.address, view)
            old = came_back if came_back.replid == view.replid else view
            self._tell_what_went(old, master, lock.epoch)
        return True

    def _tell_what_went(self, old: NodeView, master: NodeView, epoch: int) -> None:
        count = master.discards(old)
        parted = None if count is None else old.offset - count + 1
        (self._log.warn if count or (count is None and old.keys) else self._log.info)(
            "{node} was master and is a replica now: {count} bytes of its history were confirmed "
            "by nobody and are gone (its offset {offset}, parted at {parted})",
            node=old.address,
            count="unknown, how many" if count is None else count,
            offset=old.offset,
            parted="unknown" if parted is None else parted,
        )
        self._emit(
            HistoryDiscarded(
                at=self._clock.seconds(),
                node=old.address,
                master=master.address,
                epoch=epoch,
                count=count,
                offset=old.offset,
                parted_at=parted,
            )
        )

    async def _credentials(self, held: NodeLock, master: Address) -> list[Args]:
        """The commands that let a node in at the master that it is to follow.

        None without a password of ours, when our user has no right to replicate, nor where an
        operator has named another user for that.
        """
        view = held.view
        password = self._options.password_of(master)
        if password is None:
            return []
        ours = self._options.username or ""
        user, auth = await held.setting("masteruser"), await held.setting("masterauth")
        if auth and _user(user) != _user(ours):
            return []
        if not await held.may("REPLCONF", "odd"):
            self._log.step("our user may not REPLCONF: {node} is not given it", node=view.address)
            return []
        commands: list[Args] = []
        if user is not None and _user(user) != _user(ours):
            commands.append(["CONFIG", "SET", "masteruser", ours])
        if auth is not None and auth != password:
            commands.append(["CONFIG", "SET", "masterauth", password])
        return commands

    async def _put_right(
        self,
        lock: QuorumLock,
        before: Survey,
        survey: Survey,
        master: Address,
        repair: Repair,
    ) -> bool:
        held = lock.granted.get(repair.node)
        if held is None:
            self._log.step("{node} could not be locked for a repair", node=repair.node)
            return False
        if repair.kind == "redirect":
            view = survey.views[repair.node]
            return await self._redirect(lock, view, survey.views[master], before)
        view = survey.views[master]
        group = _group(view, survey)
        lock.check()
        await held.fenced(*self._crown(_crowned(view, lock.epoch, group)), announcement(master))
        self._log.info(
            "{node} is the master of group {group} from epoch {epoch} on",
            node=master,
            group=group,
            epoch=lock.epoch,
        )
        return True

    async def _tell_everyone(self, lock: QuorumLock, survey: Survey, master: NodeView) -> None:
        self._log.step("publishing gossip:master {node}", node=master.address)
        gossip = announcement(master.address)
        timeout = min(self._options.survey_timeout, self._options.patience)
        told = [
            control.exchange(gossip, timeout=timeout, or_drop=True)
            for control in survey.controls.values()
        ]
        await DeferredList(told, consumeErrors=True)  # whoever does not hear it sees it
        self._step("gossip", lock, master.address)

    def _crown(self, master: NodeView) -> list[Args]:
        """The commands that make this incarnation of a node the master of an epoch.

        A replica of a master that speaks every second notices its silence sooner.
        """
        fields: dict[str, str | int] = {
            "epoch": master.epoch,
            "group": master.group,
            "master": master.meta_master,
            "run_id": master.meta_run_id,
            "since": round(time.time() * 1000),
        }
        commands: list[Args] = []
        if self._options.tune_nodes:
            commands.append(["CONFIG", "SET", "repl-ping-replica-period", "1"])
            fields["ping_period"] = 1
        else:
            commands.append(["HDEL", META_KEY, "ping_period"])
        flat: list[str | int] = [item for pair in fields.items() for item in pair]
        return [*commands, ["HSET", META_KEY, *flat]]

    def _step(self, step: str, lock: QuorumLock, node: Address | None = None) -> None:
        self._emit(FailoverStep(at=self._clock.seconds(), step=step, epoch=lock.epoch, node=node))


def _user(name: str | None) -> str:
    return name or "default"


def _holds_as_much(view: NodeView, best: NodeView) -> bool:
    """Whether it has every write that the best one has.

    The count of the writes is replicated behind them; the offset may differ by the master's PINGs.
    """
    same = view.epoch == best.epoch and view.same_history(best)
    return same and (view.offset >= best.offset or view.opcounter >= best.opcounter > 0)


def _group(view: NodeView, survey: Survey) -> str:
    """The group's id: the one it has, or had before its keys were flushed, or a new one."""
    return view.group or survey.memory.group or secrets.token_hex(8)


def _crowned(view: NodeView, epoch: int, group: str) -> NodeView:
    """The view of a node right after its promotion."""
    return replace(
        view,
        role=Role.MASTER,
        follows=None,
        follows_text="",
        link_up=False,
        writable=False,
        epoch=epoch,
        group=group,
        meta_master=str(view.address),
        meta_run_id=view.run_id,
    )
