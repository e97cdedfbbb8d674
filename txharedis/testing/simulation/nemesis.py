"""Nemesis: who is hit by the faults of a history, and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from txharedis.events import Event, FailoverStarted, FailoverStep

from .network import Endpoint
from .process import Process
from .server import Server

if TYPE_CHECKING:
    from .world import World

__all__ = ["Nemesis"]

_STEPS = ("start", "lock", "look", "promote", "serve", "redirect", "gossip", "release")


class Nemesis:
    """Chooses and does what goes wrong. All its chance is its own.

    amnesia   how many servers may forget data when they restart
    journals  tells the keys of the journals that may be lost
    done      what it did, for people
    journals_lost   whether any were
    harmless  whether the newest fault leaves the master well, for all but one client
    """

    def __init__(self, world: World, servers: list[Server], chance: random.Random) -> None:
        self.world = world
        self.servers = servers
        self.chance = chance
        self.amnesia = 1
        self.journals: Callable[[], list[bytes]] = list
        self.done: list[str] = []
        self.harmless = False
        self.journals_lost = False
        self._forgetful: set[str] = set()
        self._strike: Callable[[Process, str], None] | None = None
        self._written: tuple[int, Callable[[Endpoint], bool], Callable[[Endpoint], None]] | None
        self._written = None
        carry = world.network.carry

        def carried(end: Any, chunk: Any) -> None:
            carry(end, chunk)
            if self._written is not None:
                self._count_written(end.owner)

        world.network.carry = carried  # type: ignore[method-assign]

    # Who.

    @property
    def processes(self) -> list[Process]:
        return [process for process in self.world.processes.values() if process.alive]

    def master(self) -> Server:
        """The master, or one of those who think so."""
        masters = [server for server in self.servers if server.alive and server.following is None]
        return self.chance.choice(masters or self.servers)

    def server(self) -> Server:
        """Any server; the master most of the time."""
        return self.master() if self.chance.random() < 0.6 else self.chance.choice(self.servers)

    def process(self) -> Process | None:
        return self.chance.choice(self.processes) if self.processes else None

    def say(self, text: str) -> None:
        self.done.append(text)
        self.world.note(f"nemesis: {text}")

    def span(self, *choices: tuple[float, float]) -> float:
        low, high = self.chance.choice(choices)
        return low + (high - low) * self.chance.random()

    # Strikes: what happens when something else does.

    def stepped(self, process: Process, event: Event) -> None:
        """A client tells of an event."""
        if self._strike is not None:
            if isinstance(event, FailoverStep):
                self._strike(process, event.step)
            elif isinstance(event, FailoverStarted):
                self._strike(process, "start")

    def at_step(self, call: Callable[[Process], None]) -> str:
        """Call this with the process that has just done a step; returns which step."""
        step = self.chance.choice(_STEPS)

        def strike(process: Process, done: str) -> None:
            if done == step:
                self._strike = None
                call(process)

        self._strike = strike
        return step

    def at_message(
        self, count: int, of: Callable[[Endpoint], bool], call: Callable[[Endpoint], None]
    ) -> None:
        """Call this right after the message of that number that one of these writes."""
        self._written = (count, of, call)

    def calm(self) -> None:
        """What was to happen when something else does is not to happen any more."""
        self._strike = self._written = None

    def _count_written(self, owner: Endpoint) -> None:
        assert self._written is not None
        left, of, call = self._written
        if not of(owner):
            return
        self._written = (left - 1, of, call)
        if left <= 1:
            self._written = None
            self.world.at(0.0, call, owner)

    # The end of all.

    def heal(self) -> None:
        """No faults any more: whoever still lives, lives on."""
        self.calm()
        self.world.network.quiet()
        for server in self.servers:
            server.resume()
            if not server.alive:
                self.restart(server)
        for process in self.processes:
            process.resume()

    def restart(self, server: Server, *, whole: bool = False) -> None:
        """Start a dead server with what it had, or, when that is allowed, with less."""
        if server.alive:
            return
        forgets = not whole and (
            server.name in self._forgetful or len(self._forgetful) < self.amnesia
        )
        kind = self.chance.choice(["empty", "older", "keep"]) if forgets else "keep"
        load_time = self.span((0.0, 0.0), (0.0, 0.0), (0.01, 0.5))
        if kind != "keep":
            self._forgetful.add(server.name)
        self.say(f"{server.name} restarts ({kind})")
        if kind == "empty":
            server.restart()
        else:
            lose = self.chance.randrange(1, 30) if kind == "older" else 0
            server.restart(keep=True, lose=lose, load_time=load_time)
