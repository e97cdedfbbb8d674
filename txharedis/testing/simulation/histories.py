"""Histories: from a seed, clients under load on servers that go wrong, and what came of it."""

from __future__ import annotations

import math
import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher

from txharedis.client import HAClient
from txharedis.errors import NotReplicated
from txharedis.events import Event, Refused
from txharedis.failover import FailoverService, Phase

from .checks import Counts, Watch, check_account, check_known
from .faults import FAULTS
from .load import Account, Load, Operation
from .nemesis import Nemesis
from .process import Process
from .server import Server
from .world import World

__all__ = ["MODES", "History"]

#: "one": each fault ends, and the group heals, before the next. "many": all at once.
MODES = ("one", "many")
#: Seconds within which a group without faults has to be whole.
PATIENCE = 40.0


class Client:
    """One client process of a history."""

    def __init__(self, process: Process, service: FailoverService, load: Load) -> None:
        self.process = process
        self.service = service
        self.load = load


class History:
    """One history. `run` it once; then

    problems   the rules that were broken, for people
    counts     of commands by their end, of faults, promotions, events, ...
    world      with its trace, when `tracing`
    """

    def __init__(self, seed: int, mode: str = "one", *, tracing: bool = False) -> None:
        self.seed = seed
        self.mode = mode
        self.world = World(seed, tracing=tracing)
        self.counts = Counts()
        self.clients: list[Client] = []
        self.chance = random.Random(f"history {mode} {seed}")
        self.problems: list[str] = []
        self._tracing = tracing
        self._over = False
        self._refused: set[str] = set()  # the servers whose data some client would not let go

    def run(self) -> History:
        """Let it happen."""
        observer: Any = self._logged
        globalLogPublisher.addObserver(observer)
        try:
            with self.world:
                self._run()
                self._over = True
        finally:
            globalLogPublisher.removeObserver(observer)
        return self

    def _logged(self, event: LogEvent) -> None:
        if self._over:
            pass  # what the dead say
        elif event.get("log_failure") is not None:
            self.problems.append(f"an error was logged: {event['log_failure'].getTraceback()}")
        elif self._tracing and event.get("log_namespace") == "txharedis":
            text = (event.get("log_format") or "").format_map(event)
            self.world.note(f"client {event.get('client')}: {text}")

    def _run(self) -> None:
        self._make()
        happen = self._one_by_one if self.mode == "one" else self._all_at_once
        if self._settle("at the beginning") and happen():
            self._end()
        self.problems += self.watch.problems
        self.counts["promotions"] = self.watch.promotions
        self.counts["in epochs granted twice"] = self.watch.epochs_twice
        self.counts["events"] = self.world.events
        self.counts["faults"] = len(self.nemesis.done)

    # Who is in it.

    def _make(self) -> None:
        chance, world = self.chance, self.world
        nodes = 3 if chance.random() < 0.85 else 5
        has_witness = chance.random() < 0.1 and self.mode == "one"
        # One that cannot be elected may be the one that has confirmed.
        self.acks = nodes // 2 + has_witness
        slowest = chance.choice([0.001, 0.001, 0.005, 0.02])
        world.network.latency = (slowest / 10, slowest)
        world.network.late_bytes = chance.choice([0.5, 0.9])
        self.servers: list[Server] = []
        for place in range(nodes):
            witness = place == nodes - 1 and has_witness
            server = world.server(
                f"10.0.0.{place + 1}",
                rate=chance.uniform(0.97, 1.03),
                offset=chance.uniform(-1000.0, 1000.0),
                priority=0 if witness else 100,
                durable=True,
            )
            server.fork_time = (0.0, chance.choice([0.01, 0.05]))
            server.transfer_time = (0.001, chance.choice([0.01, 0.1]))
            self.servers.append(server)
        self.watch = Watch(nodes // 2 + 1, lambda: world.now)
        self.watch.forgetful = self.mode == "many"
        for server in self.servers:
            self.watch.watch(server)
        self.nemesis = Nemesis(world, self.servers, chance)
        self.nemesis.journals = self._journals
        self.nemesis.amnesia = 1 if self.mode == "one" else (nodes - 1) // 2
        heartbeat, down_after = chance.choice([(1.0, 3.0), (0.5, 1.5), (0.2, 0.8)])
        options: dict[str, Any] = {
            "heartbeat": heartbeat,
            "down_after": down_after,
            "survey_interval": chance.choice([2.0, 10.0]),
            "lock_time": chance.choice([1.0, 1.0, 0.3]),
            "ack_timeout": chance.choice([0.2, 1.0]),
        }
        for place in range(chance.choice([1, 2, 2, 2, 3, 4])):
            self._make_client(f"client{place + 1}", options)

    def _make_client(self, name: str, options: dict[str, Any]) -> None:
        chance, world = self.chance, self.world
        process = world.process(
            name, rate=chance.uniform(0.97, 1.03), offset=chance.uniform(0.0, 1000.0)
        )

        def stepped(event: Event) -> None:
            world.note(f"{name}: {event}")
            if isinstance(event, Refused):
                self._refused |= set(map(str, event.nodes))
            self.nemesis.stepped(process, event)

        terms = [("exactly-once", self.acks)] * 4 + [
            ("exactly-once", 0),
            ("at-most-once", self.acks),
            ("at-most-once", 0),
        ]
        delivery, acks = chance.choice(terms)
        nodes = [server.name for server in self.servers]
        chance.shuffle(nodes)
        service = FailoverService(
            nodes,
            process,
            delivery=delivery,
            acks=acks,
            command_timeout=chance.choice([None, None, 2.0]),
            on_event=stepped,
            **options,
        )
        self.watch.watch_writing(service)
        accounts = [Account(f"{name}a", service.client, delivery, acks)]
        if chance.random() < 0.4:
            delivery, acks = chance.choice(terms)
            view: HAClient = service.client.with_options(delivery=delivery, acks=acks)
            accounts.append(Account(f"{name}b", view, delivery, acks))

        def done(account: Account, operation: Operation) -> None:
            if world.trace is not None:
                world.note(f"{account.name}: {operation!r}")
            if operation.state == "done" and operation.verb != "get":
                self.watch.accepted(service)

        self.clients.append(Client(process, service, Load(process, accounts, chance, done)))
        process.callLater(0.02 * chance.random(), service.startService)

    @property
    def living(self) -> list[Client]:
        return [client for client in self.clients if client.process.alive]

    def _journals(self) -> list[bytes]:
        """Those of clients that have been answered: a session does not begin in them."""
        journals = [client.service._traffic.delivery.journal for client in self.clients]
        return [journal.key.encode() for journal in journals if journal._answered]

    # What happens.

    def _one_by_one(self) -> bool:
        chance = self.chance
        faults = list(FAULTS)
        for _ in range(chance.choice([1, 1, 2, 3])):
            [fault] = chance.choices(faults, weights=[*FAULTS.values()])
            self._start_loads()
            self.world.run(0.15 * chance.random())
            promotions = self.watch.promotions
            self.nemesis.harmless = False
            duration, end = fault(self.nemesis)
            self.world.run(duration)
            end()
            self.world.run(0.1 * chance.random())
            self.nemesis.heal()
            self.world.run(0.1)
            if self.nemesis.harmless and self.watch.promotions > promotions:
                self.problems.append(f"{self.nemesis.done[-1:]} has led to a failover")
            if not self._settle(f"after {self.nemesis.done[-1:]}"):
                return False
        return True

    def _all_at_once(self) -> bool:
        chance, world = self.chance, self.world
        faults = list(FAULTS)
        at = 0.0
        for _ in range(chance.randrange(3, 8)):
            at += chance.choice([0.05, 0.4, 1.5]) * chance.random()
            [fault] = chance.choices(faults, weights=[*FAULTS.values()])
            world.at(at, self._strike, fault)
        for _ in range(3):
            self._start_loads()
            world.run((at + 1.5) / 3)
        self.nemesis.heal()
        return self._settle("after many faults")

    def _strike(self, fault: Any) -> None:
        duration, end = fault(self.nemesis)
        self.world.at(duration, end)

    def _start_loads(self) -> None:
        for client in self.living:
            client.load.start(self.chance.randrange(4, 12), self.chance.randrange(0, 8))

    def _settle(self, when: str) -> bool:
        """Wait until all is well; False when that never comes."""
        world = self.world
        began = world.now
        step = 0.02
        while True:
            world.run(step)
            step = min(0.2, step * 1.3)
            if world.now - began > 0.3:
                for client in self.clients:
                    client.load.stop()
            why = self._unsettled()
            if not why:
                self.counts["settling ms"] += int(1000 * (world.now - began))
                return True
            if world.now - began > PATIENCE:
                if self._is_up_to_people():
                    self.counts["left to people"] += 1
                else:
                    self.problems.append(f"{when}, not within {PATIENCE} s: {why}")
                return False

    def _is_up_to_people(self) -> bool:
        """Whether many faults took the group's epoch from all, and left data of several histories.

        Whose may go, nobody but the operator can say (`adopt`): docs/guarantees.md.
        """
        emptied = any("(empty)" in fault for fault in self.nemesis.done)
        masters = {server.name for server in self.servers if server.following is None}
        return (
            self.mode == "many"
            and emptied
            and all(
                client.service.phase is Phase.REFUSING
                or masters - self._refused <= {client.service.master}
                for client in self.living
            )
        )

    def _unsettled(self) -> str:
        """Why it is not true that there is one master and everybody agrees; "" when it is."""
        masters = [server for server in self.servers if server.following is None]
        if len(masters) != 1:
            return f"{len(masters)} masters"
        [master] = masters
        for server in self.servers:
            following = server.following
            if following is not None and not (
                following.up and (following.host, following.port) == (master.host, master.port)
            ):
                return f"{server.name} does not follow {master.name}"
            if following is not None and not server.read_only:
                return f"{server.name} can be written to"
        if sum(replica.online for replica in master.replication.replicas) < len(self.servers) - 1:
            return f"{master.name} does not have all its replicas"
        for client in self.living:
            if client.load.left > 0:
                return f"{client.process.name} is busy"
            service = client.service
            if service.phase is not Phase.FOLLOWING or service.master != master.name:
                return f"{client.process.name}: {service!r}"
            if len(service._traffic.pending) or service._traffic.pending.held:
                return f"{client.process.name}: {service!r}"
        self.master = master
        return ""

    # The end.

    def _end(self) -> None:
        confirmed = self.mode == "one"
        for client in self.clients:
            accounts = client.load.accounts
            if confirmed and self._all_is_known(client):
                for account in accounts:
                    self.problems += check_known(account)
            for account in accounts:
                self.problems += check_account(
                    account,
                    self.master,
                    self.counts,
                    confirmed=confirmed and account.acks >= self.acks,
                    alive=client.process.alive,
                )
        self._close()

    def _all_is_known(self, client: Client) -> bool:
        """Whether this session's journal was always confirmed, kept, and waited for."""
        return (
            client.service.options.command_timeout is None
            and not self.nemesis.journals_lost
            and all(account.acks >= self.acks for account in client.load.accounts)
            and not any(
                isinstance(operation.error, NotReplicated)
                for account in client.load.accounts
                for operation in account.operations
            )
        )

    def _close(self) -> None:
        """Nothing may be left of the clients."""
        world = self.world
        open_: set[str] = set()
        quitting: list[Client] = []
        for client in self.living:
            name = client.process.name
            open_.add(name)
            if self.chance.random() < 0.8:
                quitting.append(client)
                closed: Deferred[Any] = client.service.client.quit()
            else:
                closed = client.service.client.disconnect()
            closed.addCallback(_discard, open_, name)
        began = world.now
        while open_ and world.now - began < 10.0:
            world.run(0.02)
        if open_:
            self.problems.append(f"never closed: {sorted(open_)}")
        world.run(2.0)
        for client in self.living:
            process = client.process
            if process.timers:
                self.problems.append(f"{process.name} leaves {list(process.timers)}")
            if process.ends:
                self.problems.append(f"{process.name} leaves {list(process.ends)}")
        for server in self.servers:
            if server.connections:
                self.problems.append(f"{server.name} still has {list(server.connections)}")
            if self.watch.lock_on(server) is not None:
                self.problems.append(f"{server.name} is still locked")
        keys = self.master.keys
        for client in quitting:
            journal = client.service._traffic.delivery.journal
            if not journal._answered:
                continue  # its first batch may have come after the end, with a journal of its own
            key = journal.key
            left = keys.expires.get((15, key.encode()), math.inf) - self.master.milliseconds()
            if key.encode() in keys.dbs[15] and left > 60_000:
                self.problems.append(f"{self.master.name} still has {key}")


def _discard(_: object, names: set[str], name: str) -> None:
    names.discard(name)
