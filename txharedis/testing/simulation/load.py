"""Load: what the clients of a history ask for, and what became of each of their commands."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from txharedis.client import HAClient
from txharedis.errors import HARedisError

from .process import Process, Timer

__all__ = ["Account", "Load", "Operation"]

_VERBS = ("incr", "rpush", "set", "get", "hset")


class Operation:
    """One command of a writer.

    place    its place among the operations of its account
    number   its place among those of its verb, from 1 on
    state    "pending", "done" (with its reply) or "failed" (with its error)
    executed False, True or None, as its error says; True when done
    """

    __slots__ = ("ended", "error", "executed", "given", "number", "place", "reply", "state", "verb")

    def __init__(self, place: int, verb: str, number: int, given: float) -> None:
        self.place = place
        self.verb = verb
        self.number = number
        self.given = given
        self.ended = 0.0
        self.state = "pending"
        self.executed: bool | None = None
        self.reply: Any = None
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        end = {"done": f" = {self.reply!r}", "failed": f": {self.error!r}"}.get(self.state, "")
        return f"{self.verb} {self.number} at {self.given:.6f}, {self.state}{end}"


class Account:
    """What one writer has asked for under one name, which no other writer uses.

    delivery, acks   the terms of all its commands
    """

    def __init__(self, name: str, client: HAClient, delivery: str, acks: int) -> None:
        self.name = name
        self.client = client
        self.delivery = delivery
        self.acks = acks
        self.operations: list[Operation] = []
        self._numbers = dict.fromkeys(_VERBS, 0)

    def __repr__(self) -> str:
        return f"<Account {self.name} {self.delivery} acks={self.acks}>"

    def of(self, verb: str) -> list[Operation]:
        return [operation for operation in self.operations if operation.verb == verb]

    def give(
        self, verb: str, now: Callable[[], float], done: Callable[[Account, Operation], object]
    ) -> None:
        """Give one command."""
        self._numbers[verb] = number = self._numbers[verb] + 1
        operation = Operation(len(self.operations), verb, number, now())
        self.operations.append(operation)

        def succeeded(reply: object) -> None:
            operation.state, operation.reply, operation.executed = "done", reply, True
            operation.ended = now()
            done(self, operation)

        def failed(failure: Failure) -> None:
            operation.state, operation.error = "failed", failure.value
            operation.ended = now()
            if isinstance(failure.value, HARedisError):
                operation.executed = failure.value.executed
            done(self, operation)

        key = f"{verb}:{self.name}"
        client = self.client
        if verb == "incr":
            reply = client.incr(key)
        elif verb == "rpush":
            reply = client.rpush(key, number)
        elif verb == "set":
            reply = client.set(key, number)
        elif verb == "get":
            reply = client.get(f"set:{self.name}")
        else:
            reply = client.hset(key, number, 1)
        reply.addCallbacks(succeeded, failed)


class Load:
    """The writers of one process: bursts of commands, each in one turn of its reactor."""

    def __init__(
        self,
        process: Process,
        accounts: list[Account],
        chance: random.Random,
        done: Callable[[Account, Operation], object],
    ) -> None:
        self.process = process
        self.accounts = accounts
        self.left = 0
        self._chance = chance
        self._done = done
        self._dense = 0
        self._timer: Timer | None = None

    def start(self, dense: int, sparse: int) -> None:
        """So many bursts close together, then some that are not."""
        self._dense, self.left = dense, dense + sparse
        if self._timer is None or not self._timer.active():
            self._next()

    def stop(self) -> None:
        self.left = 0
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _next(self) -> None:
        mean = 0.02 if self._dense > 0 else 0.3
        delay = mean * (0.1 + 1.8 * self._chance.random())
        self._timer = self.process.callLater(delay, self._burst)

    def _burst(self) -> None:
        if self.left <= 0 or not self.process.alive:
            return
        self.left -= 1
        self._dense -= 1
        chance = self._chance
        world = self.process.world
        for _ in range(1 + int(3.5 * chance.random() ** 2)):
            account = chance.choice(self.accounts)
            account.give(chance.choice(_VERBS), lambda: world.now, self._done)
        self._next()
