"""Message streams: the bounded buffer, and the end."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from txredisapi import InvalidData

from tests.unit.pubsub import A, World
from txharedis.errors import ResponseError, ServiceStopped


def read(stream: Any, count: int) -> list[Any]:
    """The data of the next messages, which must be there."""
    got: list[Any] = []

    async def reader() -> None:
        for _ in range(count):
            got.append((await anext(stream)).data)

    assert Deferred.fromCoroutine(reader()).called
    return got


def entered(world: World, *names: str, **options: Any) -> Any:
    stream = world.subscriptions.messages(names, options.get("buffer", 1000), options.get("on_gap"))
    entering = Deferred.fromCoroutine(stream.__aenter__())
    world.run()
    assert entering.result is stream
    return stream


def left(world: World, stream: Any) -> None:
    leaving = Deferred.fromCoroutine(stream.__aexit__(None, None, None))
    world.run()
    assert leaving.called
    assert leaving.result is None


def test_channels_and_patterns_in_the_order_in_which_they_come() -> None:
    world = World().start(A)
    stream = entered(world, "c", "log.*")
    assert world.where("c") == world.where("log.*") == [A]
    [dial] = world.servers[A].links
    dial.answer([b"pmessage", b"log.*", b"log.x", b"1"], [b"message", b"c", b"2"])
    assert read(stream, 2) == [1, 2]
    left(world, stream)
    assert world.where("c") == world.where("log.*") == []


def test_the_oldest_is_dropped_and_counted() -> None:
    world = World().start(A)
    stream = entered(world, "c", buffer=2)
    for number in range(5):
        world.publish("c", number)
    world.run()
    assert stream.dropped == 3
    assert read(stream, 2) == [3, 4]


def test_a_reader_waits_and_only_one() -> None:
    world = World().start(A)
    stream = entered(world, "c")
    waiting = Deferred.fromCoroutine(stream.__anext__())
    second = Deferred.fromCoroutine(stream.__anext__())
    second.addErrback(lambda failure: failure.trap(RuntimeError))
    assert second.called
    assert not waiting.called
    world.publish("c", "x")
    world.run()
    assert waiting.result.data == "x"
    cancelled = Deferred.fromCoroutine(stream.__anext__())
    cancelled.cancel()
    cancelled.addErrback(lambda failure: failure.trap(CancelledError))
    world.publish("c", "y")
    world.run()
    assert read(stream, 1) == ["y"]


def test_ends_with_the_client_after_what_was_kept() -> None:
    world = World().start(A)
    stream = entered(world, "c")
    world.publish("c", "x")
    world.run()
    world.subscriptions.close()
    assert read(stream, 1) == ["x"]
    with pytest.raises(ServiceStopped):
        read_error(stream)
    left(world, stream)


def read_error(stream: Any) -> None:
    errors: list[Any] = []
    Deferred.fromCoroutine(stream.__anext__()).addErrback(errors.append)
    errors[0].raiseException()


@pytest.mark.parametrize("entering", [True, False])
def test_the_end_of_the_client_is_told_to_who_enters_or_leaves(entering: bool) -> None:
    world = World().start(A)
    if entering:
        stream = world.subscriptions.messages(("c", "log.*"), 1000, None)
        moving: Deferred[Any] = Deferred.fromCoroutine(stream.__aenter__())
        world.reactor.advance(0)
        for _ in range(3):
            world.servers[A].serve()
        world.reactor.advance(0)  # PSUBSCRIBE is on its way
    else:
        stream = entered(world, "c", "log.*")
        moving = Deferred.fromCoroutine(stream.__aexit__(None, None, None))
    assert not moving.called
    world.subscriptions.close()
    errors: list[Any] = []
    moving.addErrback(errors.append)
    assert [type(error.value) for error in errors] == [ServiceStopped]


def test_a_refused_stream_leaves_nothing() -> None:
    world = World().start(A)
    world.servers[A].refused = {b"secret*"}
    stream = world.subscriptions.messages(("c", "secret*"), 10, None)
    entering = Deferred.fromCoroutine(stream.__aenter__())
    errors: list[Any] = []
    entering.addErrback(errors.append)
    world.run()
    assert errors[0].check(ResponseError)
    assert not world.servers[A].links


def test_the_gap_is_told() -> None:
    world = World().start()
    told: list[Any] = []
    entered(world, "c", on_gap=told.append)
    for server in world.servers.values():
        for dial in [*server.links]:
            dial.lose()
    world.advance(2.0)
    assert told == world.gaps
    assert told


@pytest.mark.parametrize(
    ("names", "options", "error", "text"),
    [
        ((), {}, InvalidData, "no channels"),
        ((5,), {}, InvalidData, "5 is not a channel"),
        (("c",), {"buffer": 0}, InvalidData, "buffer=0"),
        (("c",), {"buffer": True}, InvalidData, "buffer=True"),
        (("c",), {"buffer": "7"}, InvalidData, "buffer='7'"),
        (("c",), {"on_gap": 5}, TypeError, "on_gap=5"),
    ],
)
def test_bad_arguments_are_named(
    names: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        World().subscriptions.messages(names, options.get("buffer", 1), options.get("on_gap"))
