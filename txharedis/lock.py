"""The failover lock, and the fence: nothing is changed on a server without it.

The lock is one key on each node, held when a quorum of the configured nodes granted it. A node
grants an epoch once (its vote), as long as it has its data, so two holders never share one. Each
change is one transaction that watches the lock of the node it is made on: when the lock has
expired, changed hands or been wiped meanwhile, the server refuses it all. A client that was paused
past its lock's life therefore changes nothing when it wakes.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from txharedis.errors import LinkLost, LockLost, StepFailed
from txharedis.interfaces import Args, Clock
from txharedis.protocol import NodeProtocol
from txharedis.replies import redacted
from txharedis.rights import denied
from txharedis.topology import META_KEY, Address, NodeView, failover_key, vote_key

__all__ = ["NodeLock", "QuorumLock"]

# KEYS: lock, vote, meta. ARGV: token, life in ms, epoch. Answers granted (1 or 0), the vote, the
# epoch of the meta, and whether the lock is held by somebody.
_ACQUIRE = b"""
local vote = tonumber(redis.call('get', KEYS[2]) or '0')
local epoch = tonumber(redis.call('hget', KEYS[3], 'epoch') or '0')
local held = redis.call('exists', KEYS[1])
local asked = tonumber(ARGV[3])
if held == 1 or asked <= vote or asked <= epoch then
    return {0, vote, epoch, held}
end
redis.call('set', KEYS[2], ARGV[3])
redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, asked, epoch, 0}
"""

_RELEASE = b"if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"


class NodeLock:
    """The lock on one node, over its control link, for `life` seconds.

    It waits `patience` seconds at most for an answer, and for a quarter of `life`.
    `refusal` says why the node did not grant it, "" when it did; `highest` is the epoch, granted or
    seen before, for which it refused, 0 when that was not the reason.
    """

    def __init__(
        self,
        control: NodeProtocol,
        view: NodeView,
        token: str,
        life: float,
        patience: float = math.inf,
    ) -> None:
        self._life = life
        # One silent node must not use up the life of the lock.
        self._patience = min(life / 4, patience)
        self.view = view
        self.held = False
        self.taken_by_other = False
        self.refusal = ""
        self.highest = 0
        self._control = control
        self._token = token
        self._key = failover_key(view.run_id)
        self._watching: Deferred[object] | None = None  # who holds it, when that was asked ahead
        # What has to be set, name by name, for our commands to be taken, and what it was before.
        self._needed: dict[str, tuple[str, str]] = {}
        if not view.is_master:
            self._needed["replica-read-only"] = ("no", "yes")

    async def acquire(self, epoch: int) -> None:
        """Ask for the lock, and for the vote for `epoch`."""
        self.refusal, self.highest, self.taken_by_other = "", 0, False
        try:
            reply = await self._try_to_acquire(epoch)
        except LinkLost as error:
            reply = error
        match reply:
            case [int(granted), int(vote), int(seen), int(held)]:
                self.held = granted == 1
                self.taken_by_other = held == 1
                if self.taken_by_other:
                    self.refusal = "it is locked"
                elif not self.held:
                    self.highest = max(vote, seen)
                    self.refusal = f"it has granted epoch {self.highest}"
            case _:
                self.refusal = str(redacted(reply) if isinstance(reply, Exception) else reply)

    async def _try_to_acquire(self, epoch: int) -> object:
        keys: list[str | int] = [self._key, vote_key(self.view.run_id), META_KEY]
        args: list[str | int] = [self._token, round(self._life * 1000), epoch]
        while True:
            refused, (reply,) = await self._ask(["EVAL", _ACQUIRE, len(keys), *keys, *args])
            if refused is not None and isinstance(reply, Exception):
                return refused
            in_the_way = _setting_in_the_way(reply)
            if in_the_way is None or in_the_way in self._needed:
                return reply
            found, (value,) = await self._ask(["CONFIG", "GET", in_the_way])
            if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], bytes)):
                return found or reply
            self._needed[in_the_way] = (_SETTINGS[in_the_way], value[1].decode())

    async def _ask(self, *commands: Args) -> tuple[Exception | None, list[object]]:
        """Run commands with the settings that they need.

        All of it is one write: the server reads it at once, so nobody ever sees the settings
        changed, even if this process dies right after. Only one that holds writes back stops in
        the middle: then this client puts them back over its next link; if it dies first, the
        others put `replica-read-only` back. Returns the first error in setting them, and the
        replies to the commands.
        """
        before = [_set(name, value) for name, (value, _) in self._needed.items()]
        after = [_set(name, value) for name, (_, value) in self._needed.items()]
        asked = self._control.exchange(
            *before, *commands, *after, timeout=self._patience, or_drop=True
        )
        owed = [] if asked.called else after  # over a link that was gone nothing was written
        self._control.owed += owed
        replies = await asked
        self._control.paid(owed)
        errors = [reply for reply in replies[: len(before)] if isinstance(reply, Exception)]
        end = len(replies) - len(after)
        return (errors[0] if errors else None), replies[len(before) : end]

    async def setting(self, name: str) -> str | None:
        """A setting of the server, None when it tells none. Raises LinkLost."""
        [reply] = await self._control.exchange(["CONFIG", "GET", name], timeout=self._patience)
        match reply:
            case [_, bytes(value)]:
                return value.decode("utf-8", "surrogateescape")
        return None

    async def may(self, *command: str) -> bool:
        """Whether our user has the right to this command, which is run. Raises LinkLost."""
        [reply] = await self._control.exchange(command, timeout=self._patience)
        return not denied(reply)

    def prepare(self) -> None:
        """Do the first half of the next `fenced` now: it takes two exchanges."""
        if self._watching is None:
            self._watching = Deferred.fromCoroutine(self._watch())

    async def _watch(self) -> object:
        _, (_, holder) = await self._ask(["WATCH", self._key], ["GET", self._key])
        return holder

    async def fenced(self, *commands: Args) -> None:
        """Run commands on this node in one transaction, if the lock is still ours.

        It leaves the node with `replica-read-only yes`. Raises LockLost when the lock is not ours
        any more and ResponseError when the server refused: then nothing has changed. Raises
        StepFailed when a command failed inside EXEC, and LinkLost when there was no answer in time:
        then it may have happened, or may still.
        """
        watching, self._watching = self._watching, None
        holder = await (self._watch() if watching is None else watching)
        if holder != self._token.encode():
            await self._ask(["UNWATCH"])
            raise LockLost(f"the lock on {self.view.address} is not ours any more")
        read_only = _set("replica-read-only", "yes")
        refused, (*queued, outcome) = await self._ask(["MULTI"], *commands, read_only, ["EXEC"])
        if outcome is None:
            raise LockLost(f"the lock on {self.view.address} was lost during the transaction")
        if isinstance(outcome, Exception):
            errors = [reply for reply in (refused, *queued) if isinstance(reply, Exception)]
            raise redacted(errors[0] if errors else outcome)
        for reply in outcome if isinstance(outcome, list) else ():
            if isinstance(reply, Exception):
                raise StepFailed(str(redacted(reply))) from None

    async def finish(self, *commands: Args) -> None:
        """As `fenced`, and the lock is given back in the same transaction."""
        await self.fenced(*commands, ["DEL", self._key])
        self.held = False

    @property
    def key(self) -> str:
        """The name of the lock on this node."""
        return self._key

    def demoted(self) -> None:
        """The node is a read-only replica from here on."""
        self._needed["replica-read-only"] = ("no", "yes")

    def removed(self) -> None:
        """The lock was removed, or is soon, by other means than `release`."""
        self.held = False

    async def release(self) -> None:
        """Give the lock back if it is still ours. Never fails: it expires by itself."""
        commands: list[Args] = []
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.addErrback(lambda _: None)
            commands.append(["UNWATCH"])  # its removal must not spoil a later transaction
        if self.held:
            self.held = False
            commands.append(["EVAL", _RELEASE, 1, self._key, self._token])
        if commands:
            with suppress(LinkLost):
                await self._ask(*commands)


# Settings that can keep a node from taking a lock, and the value with which they do not.
_SETTINGS = {"replica-serve-stale-data": "yes", "min-replicas-to-write": "0"}


def _setting_in_the_way(reply: object) -> str | None:
    """The setting because of which a node refused to run our script, None when it is none."""
    if isinstance(reply, Exception):
        if "MASTERDOWN" in str(reply):
            return "replica-serve-stale-data"
        if "NOREPLICAS" in str(reply):
            return "min-replicas-to-write"
    return None


def _set(name: str, value: str) -> Args:
    return ["CONFIG", "SET", name, value]


class QuorumLock:
    """The lock on a quorum of nodes, for `life` seconds of our own clock from `acquire` on.

    A node is waited for as long as NodeLock says.
    """

    def __init__(
        self,
        clock: Clock,
        nodes: Sequence[tuple[NodeView, NodeProtocol]],
        *,
        quorum: int,
        life: float,
        patience: float = math.inf,
    ) -> None:
        self.token = secrets.token_hex(8)
        self._clock = clock
        self._quorum = quorum
        self.life = life
        self._deadline = 0.0
        self.epoch = 0
        self._locks = {
            view.address: NodeLock(control, view, self.token, life, patience)
            for view, control in sorted(nodes, key=lambda node: node[0].address)
        }

    @property
    def granted(self) -> dict[Address, NodeLock]:
        """The nodes that granted it, in the order of their addresses."""
        return {address: lock for address, lock in self._locks.items() if lock.held}

    @property
    def highest(self) -> int:
        """The highest epoch for which any node refused."""
        return max((lock.highest for lock in self._locks.values()), default=0)

    @property
    def refusals(self) -> str:
        """Why nodes did not grant it, for people."""
        return "; ".join(f"{a}: {lock.refusal}" for a, lock in self._locks.items() if lock.refusal)

    @property
    def outrun(self) -> bool:
        """Whether it failed only because a higher epoch was granted: ask for a higher one."""
        return not any(lock.taken_by_other for lock in self._locks.values()) and (
            self.highest >= self.epoch
        )

    async def acquire(self, epoch: int) -> bool:
        """Ask the first node alone, then the others together.

        Whoever finds the first node taken stops there: somebody else is at it. A node that cannot
        answer is passed over. Returns whether a quorum granted it; if not, what was granted has
        been given back.
        """
        self.epoch = epoch
        self._deadline = self._clock.seconds() + self.life
        waiting = list(self._locks.values())
        while waiting:
            first = waiting.pop(0)
            await first.acquire(epoch)
            if first.held:
                await _together(lock.acquire(epoch) for lock in waiting)
                break
            if first.taken_by_other or first.highest:
                break
        if len(self.granted) >= self._quorum and not self.expired:
            return True
        await self.release()
        return False

    @property
    def left(self) -> float:
        """Seconds of its life that are left by our own clock, below 0 when it has passed."""
        return self._deadline - self._clock.seconds()

    @property
    def expired(self) -> bool:
        """Whether its life has passed by our own clock; then we act no more."""
        return self._clock.seconds() >= self._deadline

    def check(self) -> None:
        """Raise LockLost when its life has passed."""
        if self.expired:
            raise LockLost(f"the lock's {self.life} s have passed")

    async def release(self) -> None:
        """Give back what is still ours. Never fails."""
        await _together(lock.release() for lock in self.granted.values())


async def _together(steps: Iterable[Coroutine[Deferred[Any], Any, None]]) -> None:
    await gatherResults([Deferred.fromCoroutine(step) for step in steps], consumeErrors=True)
