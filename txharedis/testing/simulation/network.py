"""Network: links between endpoints, in memory, with latency, partitions and late bytes.

What is sent on a link arrives in its order. What was under way when a link was dropped arrives
before its end does, and is read: so it is with sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .world import World

__all__ = ["Dial", "End", "Endpoint", "Handler", "Network"]


class Handler(Protocol):
    """Who reads one end of a link."""

    def received(self, items: list[Any]) -> None:
        """What was written together: pieces of bytes, or between servers any values."""

    def ended(self, clean: bool) -> None:
        """The other side has closed the link, or (not `clean`) has dropped it."""


class Dialler(Handler, Protocol):
    """Who dials."""

    def connected(self, end: End) -> None: ...

    def refused(self) -> None: ...


class Endpoint:
    """A process with links: it can be paused, resumed and killed.

    name     whatever it is known by; of a server its address
    alive    False after `kill`, until it is started again
    paused   what comes to it waits, and is read when it is resumed
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.paused = False
        self.lives = 0  # that are over
        self.ends: dict[End, None] = {}
        self._late: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Call this now, or when it is resumed; never once it was killed."""
        if self.paused:
            self._late.append((call, args))
        else:
            call(*args)

    def accepted(self, end: End) -> None:
        """Somebody has dialled it."""
        raise NotImplementedError

    def pause(self) -> None:
        """SIGSTOP: its sockets take what comes, and nothing else happens."""
        if self.alive:
            self.world.note(f"{self.name} is paused")
            self.paused = True

    def resume(self) -> None:
        """SIGCONT: what has come meanwhile is read, in its order."""
        if not self.paused:
            return
        self.world.note(f"{self.name} is resumed")
        self.paused = False
        late, self._late = self._late, []
        for place, (call, args) in enumerate(late):
            if self.paused:  # again, meanwhile
                self._late = late[place:] + self._late
                return
            if not self.alive:
                return
            call(*args)

    def kill(self) -> None:
        """SIGKILL: what it has written is under way; its links end, and nothing else happens."""
        self.world.note(f"{self.name} is killed")
        self.alive = self.paused = False
        self.lives += 1
        self._late = []
        ends, self.ends = self.ends, {}
        for end in ends:
            end.drop(clean=self.world.random.random() < 0.5)


class _Over:
    """Ends a link."""

    def __init__(self, clean: bool) -> None:
        self.clean = clean


_CLOSED, _DROPPED = _Over(True), _Over(False)


class End:
    """One end of a link. `send` writes to the other end; what comes goes to `handler`."""

    __slots__ = (
        "_chunk",
        "_chunk_at",
        "_world",
        "closed",
        "handler",
        "held",
        "last",
        "lossy",
        "network",
        "number",
        "owner",
        "peer",
    )

    def __init__(self, network: Network, owner: Endpoint, number: int) -> None:
        self.network = network
        self._world = network.world
        self.owner = owner
        self.number = number
        self.handler: Handler
        self.peer: End
        self.closed = False
        self.last = 0.0  # when the newest of what was sent arrives
        self.held: list[Any] = []  # behind a partition
        self.lossy = False  # something was lost: the link is to break
        self._chunk: list[Any] = []
        self._chunk_at = -1.0
        owner.ends[self] = None

    def __repr__(self) -> str:
        return f"<link {self.number} {self.owner.name} -> {self.peer.owner.name}>"

    def send(self, item: Any) -> None:
        """Write; what is written at one moment arrives together."""
        if self.closed:
            return
        world = self._world
        now = world.now
        if self._chunk_at == now:
            self._chunk.append(item)
            return
        self._chunk_at = now
        self._chunk = chunk = [item]
        network = self.network
        if network.faulty:
            network.carry(self, chunk)
            return
        # As Network.carry without faults, in one piece: every byte of a history comes by here.
        low, high = network.latency
        time = now + low + (high - low) * world.random.random()
        if time < self.last:
            time = self.last
        self.last = time
        world.count = count = world.count + 1
        heappush(world.heap, (time, count, self.peer.arrive, (chunk,)))

    def close(self) -> None:
        """Close it, behind what was sent."""
        self.drop(clean=True)

    def drop(self, *, clean: bool = False) -> None:
        """Drop it. What was sent is under way all the same, unless a partition holds it up."""
        if self.closed:
            return
        self.closed = True
        self.owner.ends.pop(self, None)
        network = self.network
        if not clean:
            self.tear()
            if self.held and network.world.random.random() >= network.late_bytes:
                self.held.clear()
        network.carry(self, _CLOSED if clean else _DROPPED)

    def tear(self) -> None:
        """The link is dropped: perhaps some of what was written last never leaves."""
        random = self._world.random.random
        if self.last > self._world.now and random() < self.network.torn:
            chunk = self._chunk
            self._chunk_at = -1.0  # nothing more goes with it
            if chunk and chunk[0].__class__ is bytes:
                data = b"".join(chunk)
                chunk[:] = [data[: int(random() * (len(data) + 1))]]
            else:
                del chunk[int(random() * (len(chunk) + 1)) :]

    def arrive(self, chunk: Any) -> None:
        """What the other end has sent is here."""
        if self.closed:
            return
        if self.owner.paused:
            self.owner.post(self.arrive, chunk)
        elif chunk.__class__ is list:
            if chunk:
                self.handler.received(chunk)
        else:
            self.closed = True
            self.owner.ends.pop(self, None)
            self.handler.ended(chunk.clean)


class Dial:
    """One attempt to connect."""

    __slots__ = ("_life", "cancelled", "dialler", "source", "target")

    def __init__(self, source: Endpoint, target: Endpoint | None, dialler: Dialler) -> None:
        self.source = source
        self.target = target
        self.dialler = dialler
        self.cancelled = False
        self._life = source.lives

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more: it was given up, or its source died."""
        return self.cancelled or self.source.lives != self._life


class Network:
    """All links of a world.

    latency     seconds that bytes take, from and to; the one-way time
    late_bytes  the chance that bytes which a partition held up when their link was dropped arrive
                after it; otherwise they are lost
    late_until  when the last of them arrive
    torn        the chance that a link which is dropped loses a part of what was written last
    faulty      whether anything is cut or slow
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.latency = (0.0001, 0.001)
        self.late_bytes = 0.5
        self.late_until = 0.0
        self.torn = 0.2
        self.faulty = False
        self._hosts: dict[tuple[str, int], Endpoint] = {}
        self._cut: dict[tuple[Endpoint, Endpoint], bool] = {}
        self._slow: dict[tuple[Endpoint, Endpoint], float] = {}
        self._ends: dict[End, None] = {}  # those that hold something back
        self._dials: list[Dial] = []  # that hang
        self._links = 0

    # Faults.

    def cut(
        self, one: Endpoint, other: Endpoint, *, both: bool = True, lossy: bool = False
    ) -> None:
        """Nothing gets from `one` to `other` from here on, nor back unless `both` is False.

        What is sent waits for `heal`. With `lossy` it is lost instead, and its link breaks when
        that is healed, as when TCP gives up. Dialling hangs, also when only one way is cut.
        """
        self.world.note(f"cut {one.name} -> {other.name}{', both ways' if both else ''}")
        self.faulty = True
        self._cut[one, other] = lossy
        if both:
            self._cut[other, one] = lossy

    def heal(self, one: Endpoint | None = None, other: Endpoint | None = None) -> None:
        """Undo `cut` between these two, both ways; all cuts of the network without arguments."""
        for pair in list(self._cut):
            if one is None or pair in ((one, other), (other, one)):
                self.world.note(f"healed {pair[0].name} -> {pair[1].name}")
                del self._cut[pair]
        self.faulty = bool(self._cut or self._slow)
        for end in list(self._ends):
            if (end.owner, end.peer.owner) not in self._cut:
                del self._ends[end]
                held, end.held = end.held, []
                if end.lossy:
                    end.lossy = False
                    self._break(end)
                # What a link that was dropped has held up may come at any time.
                late = end.closed and self.world.random.random() < 0.5
                delay = 1.5 * self.world.random.random() if late else 0.0
                self.late_until = max(self.late_until, self.world.now + delay)
                for chunk in held:
                    self._schedule(end, chunk, delay)
        dials, self._dials = self._dials, []
        for dial in dials:
            self.world.at(self._delay(dial.source, dial.target), self._knock, dial)

    def is_cut(self, one: Endpoint, other: Endpoint) -> bool:
        """Whether nothing gets from one to the other."""
        return (one, other) in self._cut

    def slow(self, one: Endpoint, other: Endpoint, seconds: float) -> None:
        """What `one` sends to `other` takes so much longer from here on; 0 ends that."""
        self.world.note(f"{one.name} -> {other.name} takes {seconds:.3f} s more")
        if seconds:
            self._slow[one, other] = seconds
        else:
            self._slow.pop((one, other), None)
        self.faulty = bool(self._cut or self._slow)

    def quiet(self) -> None:
        """No faults any more."""
        self._slow.clear()
        self.heal()

    def break_links(self, one: Endpoint, other: Endpoint) -> None:
        """Drop all links between these two, as a firewall does: both sides hear of it."""
        self.world.note(f"links {one.name} - {other.name} are dropped")
        for end in [end for end in one.ends if end.peer.owner is other]:
            self._break(end)

    def _break(self, end: End) -> None:
        for side in (end, end.peer):
            side.tear()
            self._schedule(side, _DROPPED)

    # Traffic.

    def carry(self, end: End, chunk: Any) -> None:
        """Take what one end sends."""
        if self._cut:
            lossy = self._cut.get((end.owner, end.peer.owner))
            if lossy is not None:
                self._ends[end] = None
                if lossy and chunk.__class__ is not _Over:
                    end.lossy = True
                else:
                    end.held.append(chunk)
                return
        self._schedule(end, chunk)

    def _schedule(self, end: End, chunk: Any, delay: float = 0.0) -> None:
        world = self.world
        low, high = self.latency
        time = world.now + delay + low + (high - low) * world.random.random()
        if self._slow:
            time += self._slow.get((end.owner, end.peer.owner), 0.0)
        if time < end.last:
            time = end.last
        end.last = time
        world.at_time(time, end.peer.arrive, chunk)

    def _delay(self, source: Endpoint, target: Endpoint | None) -> float:
        low, high = self.latency
        delay = low + (high - low) * self.world.random.random()
        return delay + (self._slow.get((source, target), 0.0) if target is not None else 0.0)

    # Dialling.

    def listen(self, host: str, port: int, endpoint: Endpoint) -> None:
        """From here on, who dials this reaches the endpoint, or is refused while it is dead."""
        self._hosts[host, port] = endpoint

    def dial(self, source: Endpoint, host: str, port: int, dialler: Dialler) -> Dial:
        """Connect: `dialler.connected(end)` or `dialler.refused()` is called, or it hangs."""
        dial = Dial(source, self._hosts.get((host, port)), dialler)
        # What a process does in the very call in which it is killed comes to nothing.
        dial.cancelled = not source.alive
        self.world.at(self._delay(source, dial.target), self._knock, dial)
        return dial

    def _knock(self, dial: Dial) -> None:
        if dial.over:
            return
        source, target = dial.source, dial.target
        if target is not None and ((source, target) in self._cut or (target, source) in self._cut):
            self._dials.append(dial)
        elif target is None or not target.alive:
            self.world.at(self._delay(source, target), self._refuse, dial)
        else:
            self._links += 1
            near, far = End(self, source, self._links), End(self, target, self._links)
            near.peer, far.peer = far, near
            near.handler = dial.dialler
            target.post(target.accepted, far)
            far.last = self.world.now + self._delay(target, source)
            self.world.at_time(far.last, self._connect, dial, near)

    def _refuse(self, dial: Dial) -> None:
        if not dial.over:
            dial.source.post(self._tell_refused, dial)

    @staticmethod
    def _tell_refused(dial: Dial) -> None:
        if not dial.cancelled:
            dial.dialler.refused()

    def _connect(self, dial: Dial, near: End) -> None:
        if not near.closed:
            dial.source.post(self._tell_connected, dial, near)

    @staticmethod
    def _tell_connected(dial: Dial, near: End) -> None:
        if dial.cancelled:
            near.drop()
        else:
            dial.dialler.connected(near)
