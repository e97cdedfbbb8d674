"""Server: a simulated Redis server, and what may happen to it."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .connection import Connection
from .control import SETTINGS
from .execution import call, execute
from .keyspace import Keyspace, Snapshot
from .network import End, Endpoint
from .replication import Effects, Following, Replication
from .resp import error, integer
from .table import TABLE

if TYPE_CHECKING:
    from .scripts import Twin
    from .world import World

__all__ = ["Server"]

_UNBLOCKED = error(
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
)


class _Waiter:
    """A link that waits for replicas."""

    def __init__(self, link: Connection, count: int) -> None:
        self.link = link
        self.count = count
        self.offset = link.offset


class Server(Endpoint):
    """A server at `host`:`port`, over its restarts. World.server makes one.

    rate, offset   its clock, as a Process has one
    priority       its replica-priority
    durable        keeps all that it does in a file, which `restart` can read
    databases      how many it has
    fork_time, transfer_time   seconds, from and to: until a full resync begins, and its length
    work_time      seconds that it needs for whatever comes in one piece (0)
    executed       called with (server, connection, words, reply) when a command of a client was
                   answered (a whole transaction with its EXEC); None for nobody
    wrote          called with (server, effects) when clients, or the time, have changed data here,
                   before anybody hears of it; what a master sends does not count. None for nobody

    Faults: `kill` and then `restart`; `pause` and `resume`; see Network for those of its links.
    """

    version = "7.0.15"

    def __init__(
        self,
        world: World,
        host: str,
        port: int,
        *,
        rate: float = 1.0,
        offset: float = 0.0,
        priority: int = 100,
        durable: bool = False,
        databases: int = 16,
    ) -> None:
        super().__init__(world, f"{host}:{port}")
        self.host = host
        self.port = port
        self.rate = rate
        self.durable = durable
        self.databases = databases
        self.fork_time = (0.0, 0.05)
        self.transfer_time = (0.005, 0.05)
        self.work_time = 0.0
        self.backlog_size = 1024 * 1024
        self.executed: Callable[[Server, Connection, list[bytes], bytes], object] | None = None
        self.wrote: Callable[[Server, Effects], object] | None = None
        self._date = world.time() + offset
        self._priority = priority
        self._life = 0  # counts its lives
        world.network.listen(host, port, self)

    def __repr__(self) -> str:
        role = "dead" if not self.alive else "master" if self.following is None else "replica"
        return f"<Server {self.name} {role}>"

    # Its lives.

    def start(self, data: Snapshot | None = None, *, load_time: float = 0.0) -> None:
        """A new life, as a master, with these data; for `load_time` seconds it loads them."""
        self._life += 1
        self.alive = True
        self.paused = False
        self.run_id = self.new_id()
        self.started_at = self.seconds()
        self.settings = {**SETTINGS, b"replica-priority": b"%d" % self._priority}
        self.configured()
        self.keys = Keyspace(self.milliseconds, self._expired)
        self.replication = Replication(self)
        self.scripts: dict[str, Twin] = {}
        self.connections: dict[Connection, None] = {}
        self.channels: dict[bytes, dict[Connection, None]] = {}
        self.patterns: dict[bytes, dict[Connection, None]] = {}
        self.in_exec = False
        self._unit: Effects = []
        self._waiting: dict[_Waiter, None] = {}
        self._numbers = 0
        self._beats = 0
        self._sweep_at: int | None = None
        self._file: tuple[Snapshot, list[Effects]] = (({}, {}), [])
        self._busy_until = 0.0
        self.loading = load_time > 0
        self._master_link = Connection(self, None, 0)  # type: ignore[arg-type]
        if data is not None:
            self._file = (data, [])
            self.keys.load(data)
            self._sweep_soon()
        if self.loading:
            self.later(load_time, self._loaded)
        self.later(self.chance(0.0, 1.0), self._beat)
        self.world.note(f"{self.name} starts as {self.run_id[:8]}")

    def restart(self, *, keep: bool = False, lose: int = 0, load_time: float = 0.0) -> None:
        """Start it again after `kill`, empty.

        With `keep` (and `durable`) it has what it had, without the `lose` newest of its writes.
        """
        self.start(self.saved(lose) if keep else None, load_time=load_time)

    def saved(self, lose: int = 0) -> Snapshot:
        """What its file holds, without the newest writes."""
        data, units = self._file
        scratch = Keyspace(lambda: 0, lambda *_: False)
        scratch.load(data)
        keys, self.keys = self.keys, scratch
        unit, self._unit = self._unit, []
        for effects in units[: len(units) - lose]:
            self._apply(effects)
        self.keys, self._unit = keys, unit
        return scratch.snapshot()

    def kill(self) -> None:
        super().kill()
        self.connections.clear()
        self.replication.replicas.clear()

    def _loaded(self) -> None:
        self.loading = False

    # Its clock and its chance.

    def seconds(self) -> float:
        """The date by its clock, in seconds since 1970."""
        return self._date + self.world.now * self.rate

    def milliseconds(self) -> int:
        return int(self.seconds() * 1000)

    @property
    def uptime(self) -> int:
        return int(self.seconds()) - int(self.started_at)

    def later(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """Call this in so many seconds of its clock, unless it has been killed by then."""
        self.world.at(delay / self.rate, self._due, self._life, call, args)

    def _due(self, life: int, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if life == self._life and self.alive:
            self.post(call, *args)

    def chance(self, low: float, high: float) -> float:
        return low + (high - low) * self.world.random.random()

    def new_id(self) -> str:
        return f"{self.world.random.getrandbits(160):040x}"

    def _beat(self) -> None:
        self._beats += 1
        if not self.loading:
            self.replication.beat(self._beats)
        self.later(1.0, self._beat)

    # What it is set to.

    def configured(self) -> None:
        """The settings have changed."""
        settings = self.settings
        self.read_only = settings[b"replica-read-only"] == b"yes"
        self.serves_stale = settings[b"replica-serve-stale-data"] == b"yes"
        self.ping_period = max(1, int(settings[b"repl-ping-replica-period"]))
        self.needed = int(settings[b"min-replicas-to-write"])

    @property
    def following(self) -> Following | None:
        """Its link to its master; None when it is one."""
        return self.replication.following

    @property
    def guarded(self) -> bool:
        """Whether there is anything that it may refuse."""
        return self.replication.following is not None or self.needed > 0 or self.loading

    @property
    def stale(self) -> bool:
        """Whether it keeps its data to itself, for want of a link to its master."""
        following = self.replication.following
        return following is not None and not self.serves_stale and not following.up

    @property
    def lacks_replicas(self) -> bool:
        """Whether min-replicas-to-write forbids writing."""
        if not self.needed or self.replication.following is not None:
            return False
        lag = int(self.settings[b"min-replicas-max-lag"])
        return self.replication.good_replicas(lag) < self.needed

    # Links.

    @property
    def busy(self) -> bool:
        """Whether it cannot do at once what comes."""
        return self.work_time > 0 or self._busy_until > self.world.now

    def do(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Call this when all that came before is done, and so many seconds later."""
        self._busy_until = max(self.world.now, self._busy_until) + seconds
        self.world.at_time(self._busy_until, self._due, self._life, call, args)

    def accepted(self, end: End) -> None:
        self._numbers += 1
        link = Connection(self, end, self._numbers)
        end.handler = link
        self.connections[link] = None

    def forget(self, link: Connection) -> None:
        """The link is gone, or will be."""
        self.connections.pop(link, None)
        link.unwatch()
        for channel in list(link.channels):
            self.leave(link, channel)
        for pattern in list(link.patterns):
            self.leave_pattern(link, pattern)
        if link.blocked is not None:
            self._waiting.pop(link.blocked, None)  # type: ignore[call-overload]

    def leave(self, link: Connection, channel: bytes) -> None:
        link.channels.pop(channel, None)
        _leave(self.channels, channel, link)

    def leave_pattern(self, link: Connection, pattern: bytes) -> None:
        link.patterns.pop(pattern, None)
        _leave(self.patterns, pattern, link)

    def spread(self, channel: bytes, message: bytes) -> int:
        """Tell those who listen here; returns how many."""
        count = 0
        for link in list(self.channels.get(channel, ())):
            link.hear(channel, message)
            count += 1
        for pattern, links in list(self.patterns.items()):
            if fnmatch.fnmatchcase(channel, pattern):
                for link in list(links):
                    link.hear_pattern(pattern, channel, message)
                    count += 1
        return count

    # Commands.

    def execute(self, link: Connection, words: list[bytes]) -> bytes | None:
        """Run one command of a client, or queue it; None when its reply comes otherwise."""
        reply = execute(self, link, words)
        if self._unit:
            self._publish_unit()
        if link.queued is None and reply is not None:
            link.offset = self.replication.offset
        if self.world.trace is not None:
            self.world.note(f"{link!r}: {_shown(words)} -> {reply!r}")
        if self.executed is not None and reply is not None:
            self.executed(self, link, words, reply)
        return reply

    def call(self, link: Connection, words: list[bytes]) -> bytes:
        """Run one command of a script."""
        return call(self, link, words)

    # What becomes of the data.

    def propagate(self, db: int, words: list[bytes]) -> None:
        """This is to be replicated, together with the rest of what is being run."""
        self._unit.append((db, words))

    def _publish_unit(self) -> None:
        """What was run is through: it goes to the file and to the replicas."""
        unit, self._unit = self._unit, []
        if self.wrote is not None:
            self.wrote(self, unit)
        if self.durable:
            self._file[1].append(unit)
        if self.replication.following is None:
            self.replication.feed(unit)

    def obey(self, effects: Effects) -> None:
        """Do what the master has done."""
        self._apply(effects)
        if self.durable:
            self._file[1].append(effects)

    def _apply(self, effects: Effects) -> None:
        link = self._master_link
        keys = self.keys
        keys.obeying = True
        for db, words in effects:
            link.db = db
            command = TABLE.get(words[0]) or TABLE[words[0].lower()]
            command.run(self, link, words)
        keys.obeying = False
        self._unit.clear()

    def load(self, data: Snapshot) -> None:
        """Have these data and no others."""
        self.keys.load(data)
        self._file = (data, [])
        self._sweep_soon()

    def expire(self, db: int, key: bytes, moment: int) -> None:
        """The key is to be gone at this date, in milliseconds."""
        self.keys.expires[db, key] = moment
        if self._sweep_at is None or moment < self._sweep_at:
            self._sweep(moment)

    def _sweep_soon(self) -> None:
        if self.keys.expires:
            self._sweep(min(self.keys.expires.values()))

    def _sweep(self, moment: int) -> None:
        """Look for expired keys soon after this date."""
        self._sweep_at = moment
        delay = max(0.0, moment / 1000 - self.seconds()) + self.chance(0.001, 0.1)
        self.later(delay, self._sweep_now)

    def _sweep_now(self) -> None:
        keys = self.keys
        now = self.milliseconds()
        self._sweep_at = None
        ahead = None
        for (db, key), moment in list(keys.expires.items()):
            if moment >= now:
                if ahead is None or moment < ahead:
                    ahead = moment
            else:
                keys.find(db, key, True)  # which deletes it, where that is ours to do
        if self._unit:
            self._publish_unit()
        if ahead is not None:
            self._sweep(ahead)

    def _expired(self, db: int, key: bytes, writing: bool) -> bool:
        if self.replication.following is None:
            self.propagate(db, [b"DEL", key])
            return True
        return writing and not self.read_only

    # WAIT.

    def block(self, link: Connection, count: int, timeout: float) -> None:
        """The link goes on when so many replicas have what it wrote, or it is too late."""
        link.blocked = waiter = _Waiter(link, count)
        self._waiting[waiter] = None
        if timeout:
            self.later(timeout, self._give_up, waiter)
        self.replication.ask_for_acks()

    def count_acks(self) -> None:
        """A replica has confirmed more."""
        for waiter in list(self._waiting):
            confirmed = self.replication.acknowledged(waiter.offset)
            if confirmed >= waiter.count:
                self._waiting.pop(waiter, None)
                waiter.link.unblock(integer(confirmed))

    def _give_up(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            del self._waiting[waiter]
            confirmed = self.replication.acknowledged(waiter.offset)
            waiter.link.unblock(integer(confirmed))

    def unblock_all(self) -> None:
        """It becomes a replica: nobody waits here any more."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            waiter.link.closing = True
            waiter.link.unblock(_UNBLOCKED)


def _leave(table: dict[bytes, dict[Connection, None]], name: bytes, link: Connection) -> None:
    links = table.get(name, {})
    links.pop(link, None)
    if not links:
        table.pop(name, None)


def _shown(words: list[bytes]) -> str:
    text = b" ".join(words).decode("utf-8", "backslashreplace").replace("\n", " ")
    return text if len(text) <= 120 else text[:117] + "..."
