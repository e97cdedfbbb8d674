"""A planned switchover: the master is moved to a replica, and no write is lost.

The steps are those of a failover, under the same lock. But the old master lives: its writes are
parked until the new one has them all, it lets go first, and only then is the new one promoted. What
was parked is then answered READONLY, which says that it was not executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from txharedis.alarm import Alarm
from txharedis.campaign import Campaign
from txharedis.election import Follow
from txharedis.errors import (
    AccessDenied,
    LinkLost,
    LockLost,
    ResponseError,
    StepFailed,
    SwitchoverFailed,
)
from txharedis.group import Survey
from txharedis.interfaces import Args, Clock, pack
from txharedis.lock import NodeLock, QuorumLock
from txharedis.protocol import NodeProtocol
from txharedis.rights import denied
from txharedis.topology import Address, NodeView, Role, parse_info

__all__ = ["Switchover"]

#: Seconds between two looks at the servers while writes are parked.
BEAT = 0.002


class Switchover(Campaign):
    """One attempt to move the master.

    `hold()` sends nothing more for the clients' callers, and returns when all that was sent is
    answered. `dial(node)` gives a link of one's own to a node. `begun` tells, after `move`, whether
    the old master was told to let go.
    """

    def __init__(
        self,
        *args: Any,
        hold: Callable[[], Awaitable[None]],
        dial: Callable[[Address], Deferred[NodeProtocol]],
    ) -> None:
        super().__init__(*args)
        self._hold = hold
        self._dial = dial
        self.begun = False

    async def move(self, survey: Survey, target: Address) -> NodeView | None:
        """Make `target`, a healthy replica that has caught up, the master.

        Returns the new master, its offset that at which it took over; None when somebody else holds
        the lock. Raises SwitchoverFailed when the old one is master as before. Whatever else it
        raises (LockLost, LinkLost, ResponseError) means the same as long as `begun` is False;
        after that an election follows, among nodes that lack nothing.
        """
        self.begun = False
        before = survey
        lock = await self._lock(survey)
        if lock is None:
            return None
        nudge = _Nudge(self._dial(target))
        try:
            survey = await self._look()
            self._step("look", lock)
            old, new = self._still(survey, target, before)
            if not {old.address, new.address} <= lock.granted.keys():
                raise SwitchoverFailed(f"a node could not be locked: {lock.refusals}")
            await nudge.ready(self._options.lock_time / 4)
            await self._hold()
            offset, follows = await self._hand_over(lock, survey, old, new, nudge)
            new = replace(new, offset=offset)
            self._step("hand over", lock, old.address)
            # A lock that was taken on a master is on its replicas as well. Left to expire on the
            # next master, it would take the next lock on the old one away.
            held = lock.granted[old.address]
            held.demoted()
            master = await self._promote(lock, new, old.group, ["DEL", held.key])
            if follows == master.address:
                held.removed()
            self._serve(master)
            self._step("serve", lock, master.address)
            await self._redirect_replicas(lock, survey, old, master)
            await self._tell_everyone(lock, survey, master)
        finally:
            nudge.end()
            await lock.release()
        self._step("release", lock)
        return master

    def _still(self, survey: Survey, target: Address, before: Survey) -> tuple[NodeView, NodeView]:
        """The two, as they are now that nobody else may change them."""
        decision, first = survey.decision, before.decision
        assert isinstance(first, Follow)
        new = survey.views.get(target)
        if not isinstance(decision, Follow) or decision.master != first.master or new is None:
            raise SwitchoverFailed(f"{first.master} and {target} have changed meanwhile")
        old = survey.views[decision.master]
        if new.follows != old.address or not new.link_up:
            raise SwitchoverFailed(f"{target} has lost its link to {old.address}")
        return old, new

    async def _hand_over(
        self, lock: QuorumLock, survey: Survey, old: NodeView, new: NodeView, nudge: _Nudge
    ) -> tuple[int, Address]:
        """Let the new master have all writes, and the old one let go.

        Returns the last offset, and the name by which the old one follows the new one.
        """
        held = lock.granted[old.address]
        pair = _Pair(survey.controls[old.address], survey.controls[new.address], lock, self._clock)
        credentials = await self._credentials(held, new.address)
        known_as = _name_there(await pair.ask_old(), survey, new.address)
        if known_as is None:
            why = f"it knows {new.address} by another name"
        elif nudge.useless:
            why = nudge.useless
        else:
            # What is left of the lock's life afterwards is enough to take it back.
            patience = max(1, int(lock.left / 2 * 1000))
            order: Args = ["FAILOVER", "TO", *known_as, "TIMEOUT", patience]
            try:
                self.begun = True
                await held.fenced(*credentials, order)
            except StepFailed as error:
                self.begun = False
                raise SwitchoverFailed(f"{old.address} refuses FAILOVER: {error}") from None
            except LockLost:
                self.begun = False
                raise
            except ResponseError as error:
                self.begun = False
                why = str(error)
            else:
                self._log.step("{node} hands over by FAILOVER", node=old.address)
                offset = await self._until_taken_over(pair, held, new, nudge)
                return offset, Address(*known_as)
        self._log.step(
            "{node} cannot use FAILOVER ({why}): its writes are paused", node=old.address, why=why
        )
        return await self._by_pause(pair, held, credentials, new, nudge), new.address

    async def _until_taken_over(
        self, pair: _Pair, held: NodeLock, new: NodeView, nudge: _Nudge
    ) -> int:
        """The old master was told to hand over; wait until it has, or has given it up."""
        while True:
            pair.lock.check()
            nudge.now()
            mine, theirs = await pair.ask_both()
            if theirs.get("role") == "master":
                return _offset(theirs)
            if mine.get("role") == "master" and not _in_failover(mine):
                self.begun = False
                raise SwitchoverFailed(
                    f"FAILOVER was given up: {new.address} did not catch up, or refused"
                )
            if pair.late(0.25) and _in_failover(mine):
                with suppress(StepFailed):  # it has ended in this moment, one way or the other
                    await held.fenced(["FAILOVER", "ABORT"])
                    self.begun = False
                    raise SwitchoverFailed(f"{new.address} did not take over in time")
            await pair.pause()

    async def _by_pause(
        self,
        pair: _Pair,
        held: NodeLock,
        credentials: list[Args],
        new: NodeView,
        nudge: _Nudge,
    ) -> int:
        """As FAILOVER does it: park the writes, wait for the replica, let go.

        The pause outlives the lock on the server that has both. So as long as the lock lets the
        old master be told to let go, it has taken no write; and if it is never told, because this
        client has died, it is master as before when the pause ends.
        """
        old = held.view.address
        try:
            await held.fenced(["CLIENT", "PAUSE", pair.pause_time, "WRITE"])
        except ResponseError as error:
            if denied(error):
                raise AccessDenied(
                    f"{old} allows neither FAILOVER nor CLIENT PAUSE: {error}"
                ) from None
            raise SwitchoverFailed(
                f"{old} can neither FAILOVER nor CLIENT PAUSE: {error}"
            ) from None
        try:
            mine = await pair.ask_old()
            wanted = _offset(mine)
            while not _has_all(await pair.ask_new(), mine):
                if pair.late(0.5):
                    raise SwitchoverFailed(f"{new.address} did not catch up in time")
                await pair.pause()
            await self._until_told(pair, wanted, nudge)
            place = new.address
            pair.lock.check()
            self.begun = True
            await held.fenced(
                *credentials, ["SLAVEOF", place.host, place.port], ["CLIENT", "UNPAUSE"]
            )
        except (SwitchoverFailed, LockLost, LinkLost, ResponseError) as error:
            if isinstance(error, LockLost | SwitchoverFailed) or (
                isinstance(error, ResponseError) and not isinstance(error, StepFailed)
            ):
                self.begun = False
            if not self.begun:
                with suppress(LockLost, LinkLost, ResponseError):  # it ends by itself
                    await held.fenced(["CLIENT", "UNPAUSE"])
            raise
        return wanted

    async def _until_told(self, pair: _Pair, wanted: int, nudge: _Nudge) -> None:
        """Let the old master hear that a replica has it all, if it is to be had.

        A server that lets go breaks off each WAIT, and drops its link with what stands behind it.
        """
        while not nudge.useless and not pair.late(0.5):
            nudge.now()
            if _highest_ack(await pair.ask_old()) >= wanted:
                return
            await pair.pause()

    async def _redirect_replicas(
        self, lock: QuorumLock, survey: Survey, old: NodeView, master: NodeView
    ) -> None:
        """The old master too, where it knows the new one by another name than ours."""
        strangers = getattr(survey.decision, "strangers", ())
        others = [
            replace(view, role=Role.REPLICA) if view is old else view
            for view in survey.views.values()
            if view.address in lock.granted
            and view.address != master.address
            and view not in strangers
        ]
        await gatherResults(
            [Deferred.fromCoroutine(self._redirect(lock, view, master, survey)) for view in others],
            consumeErrors=True,
        )


class _Pair:
    """The two servers while the writes are parked: what they say, and how long it may last."""

    def __init__(
        self, old: NodeProtocol, new: NodeProtocol, lock: QuorumLock, clock: Clock
    ) -> None:
        self.lock = lock
        self._old = old
        self._new = new
        self._alarm = Alarm(clock)

    @property
    def pause_time(self) -> int:
        """Milliseconds that outlive the lock: its whole life, from a moment later on."""
        return math.ceil(self.lock.life * 1000) + 1

    def late(self, part: float) -> bool:
        """Whether less than this part of the lock's life is left."""
        return self.lock.left < part * self.lock.life

    async def pause(self) -> None:
        await self._alarm.sleep(BEAT)

    async def ask_old(self) -> dict[str, str]:
        """What the old master says of its replication. Raises LinkLost."""
        [reply] = await self._old.exchange(["INFO", "replication"], timeout=self.lock.life / 4)
        return parse_info(reply) if isinstance(reply, bytes) else {}

    async def ask_new(self) -> dict[str, str]:
        """As `ask_old`; nothing when there is no answer: the old one has to be told in any case."""
        with suppress(LinkLost):
            [reply] = await self._new.exchange(["INFO", "replication"], timeout=self.lock.life / 4)
            return parse_info(reply) if isinstance(reply, bytes) else {}
        return {}

    async def ask_both(self) -> tuple[dict[str, str], dict[str, str]]:
        mine = await self.ask_old()
        return mine, await self.ask_new()


class _Nudge:
    """Makes a replica tell its master at once how far it is; by itself it does once a second.

    A server does not answer this, and so it has a link of its own. `useless` says why it cannot be
    done, once `ready` has returned, "" when it can.
    """

    def __init__(self, dialled: Deferred[NodeProtocol]) -> None:
        self.useless = "there is no link to the replica"
        self._dialled = dialled
        self._link: NodeProtocol | None = None
        dialled.addCallbacks(self._connected, lambda _: None)

    def _connected(self, link: NodeProtocol) -> None:
        self._link = link

    async def ready(self, timeout: float) -> None:
        """Wait for the link, and ask whether our user may do it. Never fails."""
        await self._dialled
        if self._link is not None:
            with suppress(LinkLost):
                [reply] = await self._link.exchange(["REPLCONF", "odd"], timeout=timeout)
                self.useless = "our user may not REPLCONF" if denied(reply) else ""

    def now(self) -> None:
        if self._link is not None:
            self._link.send([pack(("REPLCONF", "GETACK", "*"))], [])

    def end(self) -> None:
        if self._link is not None:
            self._link.abort()
        else:
            self._dialled.cancel()


def _in_failover(info: dict[str, str]) -> bool:
    return info.get("master_failover_state", "no-failover") != "no-failover"


def _offset(info: dict[str, str]) -> int:
    text = info.get("slave_repl_offset") or info.get("master_repl_offset") or "-1"
    return int(text) if text.isdecimal() else -1


def _has_all(replica: dict[str, str], master: dict[str, str]) -> bool:
    """Whether a replica has come to where its master is."""
    same = replica.get("master_replid", "") == master.get("master_replid")
    return same and _offset(replica) >= _offset(master) >= 0


def _online(info: dict[str, str]) -> list[dict[str, str]]:
    """What a master says of each of its replicas that is up."""
    replicas = [
        dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
        for name, value in info.items()
        if re.fullmatch("slave[0-9]+", name)
    ]
    return [fields for fields in replicas if fields.get("state") == "online"]


def _highest_ack(info: dict[str, str]) -> int:
    """The highest offset that any replica has told its master, -1 for none."""
    return max((int(fields.get("offset", "-1")) for fields in _online(info)), default=-1)


def _name_there(info: dict[str, str], survey: Survey, node: Address) -> tuple[str, int] | None:
    """The host and port by which a master knows its replica, None when it is not among them."""
    for fields in _online(info):
        place = fields.get("ip", ""), int(fields.get("port", "0"))
        if survey.names.get(place) == node:
            return place
    return None
