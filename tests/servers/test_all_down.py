"""Every server is down for a while: the client goes on by itself when enough of them are back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from tests.groups import DURABLE, answer, at_once, until_settled
from tests.servers.conftest import Form, MakeServers, Watch
from tests.support import eventually
from txharedis import HAClient, OutcomeUnknown
from txharedis.events import Waiting

on_reactor = pytest_twisted.ensureDeferred
Push = Callable[[HAClient], "Numbers"]


class Numbers:
    """Pushes rising numbers to one list, several in a turn, whether they are answered or not."""

    def __init__(self, reactor: Any, client: HAClient) -> None:
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.unknown: set[int] = set()
        self.errors: list[object] = []
        self._client = client
        self._answers: list[Deferred[Any]] = []
        self._call = LoopingCall(self._push)
        self._call.clock = reactor
        self._call.start(0.01)

    def _push(self) -> None:
        for _ in range(3):
            number = self.sent
            self.sent += 1
            reply = self._client.rpush("list", number)
            reply.addCallbacks(
                lambda _, n=number: self.acknowledged.add(n), self._failed, errbackArgs=[number]
            )
            reply.addErrback(self.errors.append)
            self._answers.append(reply)

    def _failed(self, failure: Any, number: int) -> None:
        failure.trap(OutcomeUnknown)
        assert failure.value.command == ("RPUSH", "list", number)
        self.unknown.add(number)

    async def more_acknowledged(self, count: int) -> None:
        wanted = len(self.acknowledged) + count
        await eventually(lambda: len(self.acknowledged) >= wanted, 20.0)

    async def stop(self) -> None:
        """Return when all are answered."""
        self.pause()
        await at_once(answer(reply) for reply in self._answers)

    def pause(self) -> None:
        """Push no more."""
        if self._call.running:
            self._call.stop()


@pytest_twisted.async_yield_fixture
async def push(reactor: Any, nothing_left_behind: object) -> AsyncIterator[Push]:
    """`push(client)`: numbers that are being pushed, until the test ends."""
    made: list[Numbers] = []

    def make(client: HAClient) -> Numbers:
        made.append(Numbers(reactor, client))
        return made[-1]

    yield make
    for numbers in made:
        numbers.pause()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
@on_reactor
async def test_order_is_kept_when_all_were_down_and_come_back_one_by_one(
    make_servers: MakeServers, form: Form, watch: Watch, push: Push, order: tuple[int, ...]
) -> None:
    group = await make_servers(3, options=DURABLE)
    await form(group)
    watched = watch(group)
    await answer(watched.client.delete("list"))
    numbers = push(watched.client)
    await numbers.more_acknowledged(100)
    for server in group:
        server.kill()
    await at_once(server.exited() for server in group)
    await watched.until(Waiting, "no quorum: 0 of 3")
    first, second, third = (group[place] for place in order)
    sent = numbers.sent
    await first.start()
    held = [int(item) for item in await eventually(lambda: first.call("LRANGE", "list", 0, -1))]
    await watched.until(Waiting, "no quorum: 1 of 3")
    await eventually(lambda: numbers.sent > sent + 50)
    acknowledged = len(numbers.acknowledged)
    assert acknowledged <= sent
    await second.start()
    await numbers.more_acknowledged(200)
    await third.start()
    await numbers.more_acknowledged(50)
    await numbers.stop()

    master = await until_settled(group)
    items = [int(item) for item in await master.call("LRANGE", "list", 0, -1)]
    assert items == sorted(set(items))
    assert not numbers.errors
    assert numbers.acknowledged | numbers.unknown == set(range(numbers.sent))
    missing = numbers.acknowledged - set(items)
    if group[0] in (first, second):
        # The old master kept all that it had acknowledged, and has the highest counter.
        assert not missing
    else:
        # The two that are a quorum had not read all that the old master had sent them.
        assert not missing & set(held)
        assert all(number > max(held) for number in missing)
        assert len(missing) <= 100
    assert set(range(numbers.sent)) - set(items) <= numbers.unknown | missing
    for server in group:

        async def complete(server: Any = server) -> bool:
            return bool(await server.call("LLEN", "list") == len(items))

        await eventually(complete)
