"""What a command costs, in counts that are the same on each machine and in each run.

The whole client, from the method to the bytes, against simulated servers. Counted are the calls, of
Python functions and of those in C, that our code and txredisapi's make (not those of Twisted, and
not those of the simulated servers), the pieces that are written, the memory blocks that stay, and
how often a long value is in memory.

When a bound is broken, the hot path has become slower, or fatter. Look which functions the failure
names, and whether they have to be called for each command, rather than once for all commands of a
turn. If so, measure with `python -m benchmarks throughput --only small` before and after, say in
the commit what the calls buy, and raise the bound. The bounds are less than one call for each
command above the figures of Python 3.11 (later ones make fewer); when a change has made a command
cheaper, lower them in the same commit.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import txredisapi
from twisted.internet.defer import Deferred

import txharedis
from txharedis import HAClient, create_client
from txharedis.pubsub.subscriber import SubscriberProtocol
from txharedis.testing.simulation import World
from txharedis.testing.simulation.process import Transport

ROUNDS = 10
VALUE = b"v" * 32
OURS = str(Path(txharedis.__file__).parent)
NOT_OURS = str(Path(OURS, "testing"))

AT_MOST_ONCE = {"delivery": "at-most-once"}
EXACTLY_ONCE = {"delivery": "exactly-once"}
CONFIRMED = {"delivery": "exactly-once", "acks": 1}


@dataclass(frozen=True)
class Cost:
    """The most calls for each command, when so many are given in one turn."""

    command: str
    terms: dict[str, Any]
    in_flight: int
    calls: float

    def __str__(self) -> str:
        terms = "-".join(map(str, self.terms.values()))
        return f"{self.command}-{terms}-{self.in_flight}"


COSTS = [
    Cost("set", AT_MOST_ONCE, 100, 19.3),
    Cost("set", EXACTLY_ONCE, 100, 19.6),
    Cost("set", CONFIRMED, 100, 19.7),
    Cost("get", AT_MOST_ONCE, 100, 20.2),
    Cost("get", EXACTLY_ONCE, 100, 20.2),
    Cost("set", AT_MOST_ONCE, 1, 59.4),
    Cost("set", EXACTLY_ONCE, 1, 83.9),
    Cost("set", CONFIRMED, 1, 100.9),
    Cost("get", AT_MOST_ONCE, 1, 49.9),
]

BLOCKS = 7.2
"""That stay for a pending command: the Deferred, our record of it, the words, the packed bytes."""


class Bench:
    """A client on three simulated servers that have nothing else to do."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.trio()
        self.process = world.process()
        self._client = create_client(list(world.servers), reactor=self.process, charset=None)
        world.wait(self._client.when_ready())
        world.run(2.0)

    def view(self, terms: dict[str, Any]) -> HAClient:
        return self._client.with_options(**terms)

    def turn(self, submit: Callable[[int], Deferred[Any]], count: int) -> None:
        """So many commands at once, and their replies."""
        replies: list[object] = []
        for number in range(count):
            submit(number).addCallback(replies.append)
        self.world.run_until(lambda: len(replies) == count)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with World(1) as world:
        yield Bench(world)


def submitter(client: HAClient, command: str) -> Callable[[int], Deferred[Any]]:
    keys = [b"key:%d" % number for number in range(100)]
    if command == "get":
        return lambda number: client.get(keys[number])
    return lambda number: client.set(keys[number], VALUE)


class Counts:
    """`calls` by caller and callee; `writes` to sockets."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.writes = 0

    def most(self, commands: int) -> str:
        """The functions that made or took the most calls, for each command."""
        lines = [f"{count / commands:6.2f}  {name}" for name, count in self.calls.most_common(25)]
        return "\n".join(lines)


@contextmanager
def counted() -> Iterator[Counts]:
    """All that happens meanwhile."""
    counts = Counts()
    of_txredisapi = txredisapi.__file__
    write = Transport.write.__code__

    def observe(frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "c_call"):
            return
        code = frame.f_code
        file = code.co_filename
        if code is write and event == "call":
            counts.writes += 1
        if file == of_txredisapi or (file.startswith(OURS) and not file.startswith(NOT_OURS)):
            name = code.co_qualname
            if event == "c_call":
                name += f" -> {getattr(argument, '__qualname__', argument)}"
            counts.calls[name] += 1

    before = sys.getprofile()
    sys.setprofile(observe)
    try:
        yield counts
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("cost", COSTS, ids=str)
def test_calls_for_each_command(bench: Bench, cost: Cost) -> None:
    submit = submitter(bench.view(cost.terms), cost.command)
    bench.turn(submit, cost.in_flight)
    with counted() as counts:
        for _ in range(ROUNDS):
            bench.turn(submit, cost.in_flight)
    commands = ROUNDS * cost.in_flight
    calls = counts.calls.total() / commands
    assert calls <= cost.calls, (
        f"{cost}: {calls:.2f} calls for each command, {cost.calls} are allowed (see the head of "
        f"this file); most of them:\n{counts.most(commands)}"
    )


@pytest.mark.parametrize("terms", [AT_MOST_ONCE, EXACTLY_ONCE, CONFIRMED], ids=str)
def test_a_turn_is_one_write(bench: Bench, terms: dict[str, Any]) -> None:
    submit = submitter(bench.view(terms), "set")
    bench.turn(submit, 100)
    with counted() as counts:
        for _ in range(ROUNDS):
            bench.turn(submit, 100)
    # What the heartbeats and the other links write in that time is a few at most.
    assert ROUNDS <= counts.writes <= ROUNDS + 3


@pytest.mark.parametrize("in_flight", [1, 100])
def test_who_gives_the_next_command_when_the_last_is_answered_costs_no_timer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, in_flight: int
) -> None:
    timers: list[str] = []
    call_later = bench.process.callLater

    def noted(delay: float, call: Any, *args: Any) -> Any:
        timers.append(call.__qualname__)
        return call_later(delay, call, *args)

    monkeypatch.setattr(bench.process, "callLater", noted)
    get = submitter(bench.view(AT_MOST_ONCE), "get")
    answered = 0

    def again(_: object, number: int) -> None:
        nonlocal answered
        answered += 1
        if answered < ROUNDS * in_flight:
            get(number).addCallback(again, number)

    for number in range(in_flight):
        get(number).addCallback(again, number)
    bench.world.run_until(lambda: answered >= ROUNDS * in_flight)
    assert timers.count("PendingCommands._flush_turn") == 1


@pytest.mark.parametrize("terms", [AT_MOST_ONCE, EXACTLY_ONCE, CONFIRMED], ids=str)
def test_blocks_that_a_pending_command_keeps(bench: Bench, terms: dict[str, Any]) -> None:
    client = bench.view(terms)
    bench.turn(submitter(client, "set"), 100)
    count = 2000
    keys = [b"key:%d" % number for number in range(count)]
    gc.collect()
    before = sys.getallocatedblocks()
    for key in keys:
        client.set(key, VALUE)
    blocks = (sys.getallocatedblocks() - before) / count
    assert blocks <= BLOCKS, (
        f"{blocks:.2f} memory blocks for each pending command, {BLOCKS} are allowed "
        "(see the head of this file)"
    )


@pytest.mark.parametrize("terms", [AT_MOST_ONCE, EXACTLY_ONCE, CONFIRMED], ids=str)
def test_answered_commands_leave_nothing_to_the_garbage_collector(
    bench: Bench, terms: dict[str, Any]
) -> None:
    submit = submitter(bench.view(terms), "set")
    bench.turn(submit, 100)
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            bench.turn(submit, 100)
        found = gc.collect()
    finally:
        gc.enable()
    assert not found, f"{found} objects were left in cycles by {100 * ROUNDS} SETs"


LONG_VALUE = 1 << 20
MESSAGE = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$32\r\n%b\r\n" % VALUE
OTHER_MESSAGE = MESSAGE.replace(b"news", b"more")


# The callback is one of the calls.
@pytest.mark.parametrize(
    ("options", "wire", "bound"),
    [
        ({"charset": None, "convert_numbers": False}, MESSAGE * 2, 2.1),
        ({"charset": None, "convert_numbers": False}, MESSAGE + OTHER_MESSAGE, 3.1),
        ({"charset": "utf-8", "convert_numbers": True}, MESSAGE * 2, 4.1),
    ],
    ids=["bytes", "two channels", "text"],
)
def test_calls_for_each_message(options: dict[str, Any], wire: bytes, bound: float) -> None:
    with World(1) as world:
        world.trio()
        process = world.process()
        client = create_client(list(world.servers), reactor=process, **options)
        heard: list[object] = []
        world.wait(client.subscribe(["news", "more"], heard.append))
        world.run(2.0)
        [link] = [
            transport._protocol
            for transport in process.transports
            if isinstance(transport._protocol, SubscriberProtocol)
            and transport._protocol.receive.__name__ == "deliver"
        ]
        with counted() as counts:
            link.dataReceived(wire * 500)
        assert len(heard) == 1000
    calls = counts.calls.total() / 1000
    assert calls <= bound, (
        f"{calls:.2f} calls for each message, {bound} are allowed (see the head of this file); "
        f"most of them:\n{counts.most(1000)}"
    )


@pytest.mark.parametrize(
    ("terms", "times"), [(AT_MOST_ONCE, 1), (EXACTLY_ONCE, 2), (CONFIRMED, 2)], ids=str
)
@pytest.mark.parametrize("values", [1, 3])
def test_copies_of_a_long_value(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, terms: dict[str, Any], times: int, values: int
) -> None:
    """One when it is packed; one more in its batch. (Twisted's transport makes one when it has
    several pieces to send.)"""
    client = bench.view(terms)
    bench.turn(submitter(client, "set"), 100)
    data = bytes(LONG_VALUE)
    sent = 0

    def swallow(_transport: Transport, pieces: list[bytes] | bytes) -> None:
        nonlocal sent
        sent += len(pieces) if isinstance(pieces, bytes) else sum(map(len, pieces))

    monkeypatch.setattr(Transport, "write", swallow)
    monkeypatch.setattr(Transport, "writeSequence", swallow)
    tracemalloc.start()
    try:
        for number in range(values):
            client.set(b"key:%d" % number, data)
        bench.world.run_until(lambda: sent >= values * LONG_VALUE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    copies = peak / LONG_VALUE / values
    assert times <= copies <= times + 0.1, f"{copies:.2f} copies of each value"


@pytest.mark.parametrize(
    "command",
    [
        lambda client, value: client.set(b"key", value, expire=10),
        lambda client, value: client.hset(b"key", b"field", value),
        lambda client, value: client.lpush(b"key", value),
        lambda client, value: client.setex(b"key", 10, value.decode()),
    ],
    ids=["set", "hset", "lpush", "text"],
)
def test_a_long_value_is_packed_in_one_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, command: Callable[[HAClient, bytes], Any]
) -> None:
    packed: list[object] = []
    pack_long = txharedis.methods.pack_long
    monkeypatch.setattr(
        "txharedis.methods.pack_long", lambda args: packed.append(args) or pack_long(args)
    )
    command(bench.view(EXACTLY_ONCE), b"v" * LONG_VALUE)
    assert packed
