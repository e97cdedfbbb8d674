"""The writers of one client process: what `verdict` knows how to judge, over and over."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater

from txharedis.testing.chaos.records import Recorder

__all__ = ["WRITERS", "Writers"]

WRITERS = 7
"""How many there are in a process."""


class Writers:
    """Some of each kind, each writing, waiting for the answer and resting, until `stop`.

    name   stands in the keys that belong to this process alone
    run    gives one command to the client: `run("INCR", "n")`
    rest   seconds between an answer and the next command, on the average
    burst  items that are pushed in one turn
    """

    def __init__(
        self,
        clock: Any,
        run: Callable[..., Deferred[Any]],
        recorder: Recorder,
        name: str,
        *,
        seed: object,
        rest: float,
        burst: int,
    ) -> None:
        self._clock = clock
        self._run = run
        self._recorder = recorder
        self._name = name
        self._random = random.Random(str(seed))
        self._rest = rest
        self._burst = burst
        self._number = 0
        self._stopping = False
        self._running: list[Deferred[Any]] = []

    def start(self) -> None:
        own = [f"counter:{self._name}:{number}" for number in range(2)]
        counting = [self._count(key) for key in (*own, "shared", "shared")]
        for chain in (*counting, self._add(), self._push(), self._set_and_get()):
            self._running.append(Deferred.fromCoroutine(chain))

    def stop(self) -> Deferred[Any]:
        """Write no more; fires when all has been answered."""
        self._stopping = True
        return DeferredList(self._running, fireOnOneErrback=True)

    async def _count(self, key: str) -> None:
        while not self._stopping:
            await self._ask("INCR", key)
            await self._pause()

    async def _add(self) -> None:
        added = 0
        while not self._stopping:
            added += 1
            await self._ask("SADD", f"members:{self._name}", f"{self._name}.{added}")
            await self._pause()

    async def _push(self) -> None:
        pushed = 0
        while not self._stopping:
            burst = range(pushed + 1, pushed + 1 + self._burst)
            pushed += self._burst
            items = [self._ask("RPUSH", f"items:{self._name}", number) for number in burst]
            await DeferredList(list(map(Deferred.fromCoroutine, items)), fireOnOneErrback=True)
            await self._pause()

    async def _set_and_get(self) -> None:
        value = 0
        while not self._stopping:
            value += 1
            await self._ask("SET", f"register:{self._name}", value)
            await self._ask("GET", f"register:{self._name}")
            await self._pause()

    async def _ask(self, command: str, key: str, *value: object) -> Any:
        self._number += 1
        number = self._number
        self._recorder.submitted(number, command, key, value[0] if value else None)
        try:
            reply = await self._run(command, key, *value)
        except CancelledError:  # the process gives up waiting: it stays unanswered
            raise
        except Exception as error:
            # A server's own error has no `executed`: it refused the command.
            executed = getattr(error, "executed", False)
            self._recorder.failed(number, type(error).__name__, executed)
        else:
            self._recorder.acknowledged(number, reply)

    async def _pause(self) -> None:
        await deferLater(self._clock, self._rest * self._random.uniform(0.5, 1.5))
