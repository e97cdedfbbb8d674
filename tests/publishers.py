"""What the tests of subscriptions share: a publisher and a subscriber with accounts."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.groups import at_once
from tests.support import eventually
from txharedis import HAClient, Message, OutcomeUnknown, SubscriptionGap
from txharedis.testing.servers import LocalServer

__all__ = ["Publisher", "Received", "listeners", "on_one", "on_one_replica", "patterns"]


@dataclass
class Publisher:
    """Publishes numbers, in turn on each of the channels, one after the other.

    `sent` holds, for each number, when it was given to the client, `answered` when its reply came,
    or OutcomeUnknown did.
    """

    reactor: Any
    client: HAClient
    channels: Sequence[str]
    pause: float = 0.001
    sent: list[float] = field(default_factory=list)
    answered: dict[int, float] = field(default_factory=dict)
    unknown: int = 0
    _stopping: bool = False
    _running: Deferred[None] | None = None

    def start(self) -> None:
        self._running = Deferred.fromCoroutine(self._publish())

    async def stop(self) -> None:
        """Return when all has been answered."""
        self._stopping = True
        assert self._running is not None
        await self._running

    async def some_more(self, number: int, timeout: float = 10.0) -> None:
        """Return when so many more were answered."""
        wanted = len(self.answered) + number
        await eventually(lambda: len(self.answered) >= wanted, timeout)

    async def _publish(self) -> None:
        while not self._stopping:
            number = len(self.sent)
            self.sent.append(self.reactor.seconds())
            try:
                await self.client.publish(self.channels[number % len(self.channels)], number)
            except OutcomeUnknown:
                self.unknown += 1
            self.answered[number] = self.reactor.seconds()
            await deferLater(self.reactor, self.pause)

    def unexplained(self, seen: Iterable[int], gaps: Sequence[SubscriptionGap]) -> list[int]:
        """The numbers that were not seen, though they were published outside all gaps.

        A server executed it at some time between `sent` and `answered`.
        """
        missing = set(range(len(self.sent))) - set(seen)
        return sorted(
            number
            for number in missing
            if not any(
                gap.since <= self.answered[number] and self.sent[number] <= gap.until
                for gap in gaps
            )
        )


class Received:
    """What a subscriber got: the numbers of each subscription, in their order."""

    def __init__(self) -> None:
        self.numbers: Mapping[Any, list[int]] = defaultdict(list)

    def __call__(self, message: Message) -> None:
        self.numbers[message.pattern or message.channel].append(message.data)

    def __len__(self) -> int:
        return sum(map(len, self.numbers.values()))

    @property
    def all(self) -> list[int]:
        return [number for numbers in self.numbers.values() for number in numbers]

    def check(self) -> None:
        """Each at most once for each subscription, and in order."""
        for name, numbers in self.numbers.items():
            wrong = [(one, other) for one, other in itertools.pairwise(numbers) if one >= other]
            assert not wrong, f"{name}: {wrong}"


async def listeners(servers: Sequence[LocalServer], *channels: str) -> list[list[int]]:
    """How many subscribers each server has, of each channel."""
    replies = await at_once(server.call("PUBSUB", "NUMSUB", *channels) for server in servers)
    return [reply[1::2] for reply in replies]


async def patterns(servers: Sequence[LocalServer]) -> list[int]:
    """How many patterns are subscribed to on each server."""
    return await at_once(server.call("PUBSUB", "NUMPAT") for server in servers)


async def on_one(
    servers: Sequence[LocalServer],
    channels: Sequence[str],
    wanted: LocalServer | None = None,
    *,
    globs: int = 0,
) -> LocalServer | None:
    """The server that has each channel, and `globs` patterns, once, when no other has any.

    None when it is not the `wanted` one.
    """
    numbers = await listeners(servers, *channels)
    counts = await patterns(servers)
    full = [
        server
        for server, each, count in zip(servers, numbers, counts, strict=True)
        if set(each) == {1} and count == globs
    ]
    if len(full) != 1 or sum(map(sum, numbers)) != len(channels) or sum(counts) != globs:
        return None
    return full[0] if wanted in (None, full[0]) else None


async def on_one_replica(
    servers: Sequence[LocalServer], channels: Sequence[str], globs: int = 0
) -> LocalServer | None:
    """The server of `on_one`, when it is a replica."""
    server = await on_one(servers, channels, globs=globs)
    if server is None or (await server.info("replication"))["role"] != "slave":
        return None
    return server
