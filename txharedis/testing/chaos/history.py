"""One history: servers, client processes and faults for some seconds, and then the accounts."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred, TimeoutError

from txharedis.testing.chaos.clients import ClientProcess
from txharedis.testing.chaos.cluster import Cluster
from txharedis.testing.chaos.nemesis import Nemesis, chosen
from txharedis.testing.chaos.outages import outages
from txharedis.testing.chaos.process import DRAIN
from txharedis.testing.chaos.scene import Scene, Strike
from txharedis.testing.chaos.verdict import Verdict, verdict
from txharedis.testing.servers import LocalServer, ServerNotStarted, ServerProgram
from txharedis.testing.waiting import NotInTime, all_of, until

__all__ = ["Contestant", "Haredis", "History", "NotHealed", "Settings", "play"]

GRACE = 2.0
"""Seconds that the servers may take to see the end of the clients' links."""

BURST = 4
"""Items that are pushed in one turn, in order."""

DURABLE = ("--appendonly", "yes", "--appendfsync", "no")


class NotHealed(AssertionError):
    """A history did not come to its end; the text tells how everybody stood then."""


@dataclass(frozen=True)
class Settings:
    """What one history is made of.

    seconds   for which faults are begun
    nodes     servers
    clients   client processes at any time, each with its writers (`writers.WRITERS`)
    seed      of everything that is drawn by lot; the moments depend on the machine too
    at_once   faults at one time
    faults    names of those to deal; none for all
    rest      seconds between an answer and the next command of a writer, on the average
    patience  seconds after which what has not healed never will, however busy the machine is
    options   of create_client; `down_after` among them says how long faults have to last
    """

    seconds: float = 60.0
    nodes: int = 3
    clients: int = 3
    seed: int = 1
    at_once: int = 1
    faults: tuple[str, ...] = ()
    rest: float = 0.01
    patience: float = 45.0
    options: Mapping[str, Any] = field(
        default_factory=lambda: {"heartbeat": 0.5, "down_after": 2.0, "survey_interval": 2.0}
    )


@dataclass
class History:
    """What happened.

    outages     in seconds, by kind of fault, one for each client: see `outages.outages`
    promotions  how many clients said that they promoted a node, by epoch
    promoted    promotions in the servers' logs
    epoch       the last one
    errors      how commands failed: the class of the error
    left        links, calls, sockets and file descriptors that were left when all was closed
    complaints  of client processes: logged failures, commands that were never answered, bad ends
    """

    settings: Settings
    verdict: Verdict
    strikes: list[Strike]
    outages: dict[str, list[float]]
    promotions: dict[int, int]
    promoted: int
    epoch: int
    errors: Counter[str]
    left: list[str]
    complaints: list[str]

    @property
    def contested(self) -> list[str]:
        """Epochs in which more than one node was promoted, in words."""
        return [f"{n} promotions in epoch {epoch}" for epoch, n in self.promotions.items() if n > 1]


class Contestant(Protocol):
    """A kind of client, with what it needs beside the servers.

    module   of the program of a client process: see `process`
    traps    whether its processes can signal themselves in the middle of a failover
    """

    module: str
    traps: bool

    def watchers(
        self, reactor: Any, program: ServerProgram, folder: Path, servers: list[LocalServer]
    ) -> list[LocalServer]:
        """More servers, not started, each with a source of its own."""
        ...

    async def start(self, cluster: Cluster) -> None:
        """Start the servers, and those that watch them; the network is there."""
        ...

    def orders(self, cluster: Cluster, settings: Settings) -> dict[str, Any]:
        """What the module is told beside `process.Orders`."""
        ...

    async def ready(self, cluster: Cluster) -> bool:
        """Whether those that watch the servers would survive the next fault."""
        ...


class Haredis:
    """This package's client."""

    module = "txharedis.testing.chaos.process"
    traps = True

    def watchers(
        self, reactor: Any, program: ServerProgram, folder: Path, servers: list[LocalServer]
    ) -> list[LocalServer]:
        return []

    async def start(self, cluster: Cluster) -> None:
        await all_of(server.start() for server in cluster.servers)

    def orders(self, cluster: Cluster, settings: Settings) -> dict[str, Any]:
        return {"nodes": cluster.nodes, "options": dict(settings.options), "burst": BURST}

    async def ready(self, cluster: Cluster) -> bool:
        return True


async def play(
    reactor: Any,
    program: ServerProgram,
    settings: Settings,
    contestant: Contestant | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> History:
    """Play one history to its end, and leave nothing behind.

    Raises NotHealed when servers or clients did not come to rest within their times.
    """
    with tempfile.TemporaryDirectory(prefix="txharedis-chaos-") as folder:
        stage = _Stage(reactor, program, settings, contestant or Haredis(), Path(folder), tell)
        # Each wait is bounded, one thing at a time; this bounds all of them together.
        limit = settings.seconds + 6 * settings.patience + 3 * DRAIN
        playing = Deferred.fromCoroutine(stage.play())
        try:
            return await playing.addTimeout(limit, reactor)
        except (NotInTime, ServerNotStarted, TimeoutError) as error:
            why = str(error) or f"not over within {limit} s"
            raise NotHealed(f"seed {settings.seed}: {why}\n{await stage.state()}") from error
        finally:
            await stage.clear()


class _Stage:
    """One history while it is played."""

    def __init__(
        self,
        reactor: Any,
        program: ServerProgram,
        settings: Settings,
        contestant: Contestant,
        folder: Path,
        tell: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._contestant = contestant
        self._folder = folder
        self._spawned = 0
        lots = random.Random(settings.seed)
        durable = lots.random() < 0.5
        servers = [
            LocalServer(
                reactor,
                program,
                folder / f"server{number}",
                options=DURABLE if durable else (),
                source=f"127.0.0.{11 + number}",
            )
            for number in range(settings.nodes)
        ]
        watchers = contestant.watchers(reactor, program, folder, servers)
        self._cluster = Cluster(reactor, servers, watchers)
        self._scene = Scene(
            reactor,
            self._cluster,
            lots,
            self._spawn,
            down_after=settings.options.get("down_after", 3.0),
            durable=durable,
            traps=contestant.traps,
            wanted=settings.clients,
            patience=settings.patience,
            ready=lambda: contestant.ready(self._cluster),
            tell=tell,
        )

    async def play(self) -> History:
        scene, cluster = self._scene, self._cluster
        cluster.network.start()
        await self._contestant.start(cluster)
        scene.replace()
        await scene.healed()
        nemesis = Nemesis(scene, chosen(self._settings.faults), self._settings.at_once)
        await nemesis.rage(self._settings.seconds)
        epoch = await cluster.epoch()
        await self._drain()
        links = await self._links()
        everything = {client.name: client.operations() for client in scene.clients}
        operations = [each for of_one in everything.values() for each in of_one]
        keys = {operation.key for operation in operations}
        data = await until(
            self._reactor,
            lambda: cluster.data(keys),
            self._settings.patience,
            "the same data on all servers",
            every=0.2,
        )
        return History(
            settings=self._settings,
            verdict=verdict(operations, data),
            strikes=scene.strikes,
            outages=outages(scene.strikes, everything.items()),
            promotions=self._promotions(),
            promoted=cluster.promotions(),
            epoch=epoch,
            errors=Counter(each.error for each in operations if each.error),
            left=[*links, *(thing for client in scene.clients for thing in client.left())],
            complaints=[text for client in scene.clients for text in client.complaints()],
        )

    async def state(self) -> str:
        """How everybody stands, for people."""
        lines = ["faults: " + "; ".join(f"{s.kind} ({s.detail})" for s in self._scene.strikes[-3:])]
        lines.append(await self._cluster.state())
        for client in self._scene.clients:
            if client.ended and client.killed:
                continue
            pending = client.read().pending
            lines += [f"{client!r}, {pending} commands unanswered; its log ends:"]
            lines += [client.log_tail(25), *client.complaints()]
        return "\n".join(lines)

    async def clear(self) -> None:
        """End all processes and links."""
        for client in self._scene.clients:
            client.kill()
        await all_of(_exit(client) for client in self._scene.clients)
        await self._cluster.network.stop()
        servers = [*self._cluster.servers, *self._cluster.watchers]
        await all_of(server.stop() for server in servers)

    def _spawn(self) -> ClientProcess:
        self._spawned += 1
        orders = {
            "name": f"p{self._spawned}",
            "source": f"127.0.0.{100 + self._spawned % 150}",
            "seed": f"{self._settings.seed}:{self._spawned}",
            "rest": self._settings.rest,
            **self._contestant.orders(self._cluster, self._settings),
        }
        return ClientProcess(self._reactor, self._contestant.module, orders, self._folder)

    async def _drain(self) -> None:
        """Let all clients finish, and close themselves."""
        for client in self._scene.clients:
            client.order("stop")
        for client in self._scene.clients:
            ended = client.exited()
            await ended.addTimeout(3 * DRAIN, self._reactor)

    async def _links(self) -> list[str]:
        """The links that the servers still have, after a while for the last to go."""
        try:
            await until(self._reactor, self._no_links, GRACE, "no links of clients")
        except NotInTime:
            return await self._cluster.links()
        return []

    async def _no_links(self) -> bool:
        return not await self._cluster.links()

    def _promotions(self) -> dict[int, int]:
        steps = (
            said.fields
            for client in self._scene.clients
            for said in client.read().heard("FailoverStep")
        )
        return dict(Counter(int(step["epoch"]) for step in steps if step["step"] == "promote"))


async def _exit(client: ClientProcess) -> None:
    await client.exited()
