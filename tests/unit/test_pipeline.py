"""A pipeline keeps its commands, and gives them to the client all at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, FirstError
from txredisapi import RedisError, RedisProtocol

from tests.unit.masters import outcome
from txharedis.errors import ResponseError, UnsupportedCommand
from txharedis.options import Options
from txharedis.pipeline import Pipeline


class Sent:
    def __init__(self) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self.replies: list[Deferred[Any]] = []
        self.pipeline = Pipeline(Options(), self._send)

    def _send(self, args: Any, packed: bytes) -> Deferred[Any]:
        self.commands.append(tuple(args))
        self.replies.append(Deferred())
        return self.replies[-1]


def test_nothing_is_sent_before_it_is_executed() -> None:
    sent = Sent()
    assert isinstance(sent.pipeline, RedisProtocol)
    assert sent.pipeline.pipelining
    replies = [
        sent.pipeline.set("k", 1),
        sent.pipeline.hgetall("h"),
        sent.pipeline.sismember("s", 1),
    ]
    assert sent.commands == []
    assert repr(sent.pipeline) == "<Pipeline of 3 commands>"
    got = outcome(sent.pipeline.execute_pipeline())
    assert [command[0] for command in sent.commands] == ["SET", "HGETALL", "SISMEMBER"]
    for reply, value in zip(sent.replies, ("OK", ["f", 1], 0), strict=True):
        assert got == []
        reply.callback(value)
    assert got == [["OK", {"f": 1}, False]]
    assert [reply.result for reply in replies] == ["OK", {"f": 1}, False]


def test_after_that_it_keeps_nothing_until_it_is_begun_again() -> None:
    sent = Sent()
    assert outcome(sent.pipeline.execute_pipeline()) == [[]]
    assert not sent.pipeline.pipelining
    assert isinstance(outcome(sent.pipeline.execute_pipeline())[0], RedisError)
    sent.pipeline.get("k")
    assert len(sent.commands) == 1
    assert outcome(sent.pipeline.pipeline()) == [sent.pipeline]
    sent.pipeline.get("k")
    assert len(sent.commands) == 1


def test_the_first_error_is_its_error() -> None:
    sent = Sent()
    for key in "abc":
        sent.pipeline.get(key)
    got = outcome(sent.pipeline.execute_pipeline())
    sent.replies[1].errback(ResponseError("WRONGTYPE"))
    [error] = got
    assert isinstance(error, FirstError)
    assert error.subFailure.check(ResponseError)
    assert error.index == 1
    sent.replies[0].callback("a")
    sent.replies[2].errback(ResponseError("consumed"))


def test_a_cancelled_command_is_not_sent() -> None:
    sent = Sent()
    sent.pipeline.get("a")
    cancelled = sent.pipeline.get("b")
    got = outcome(cancelled)
    cancelled.cancel()
    assert isinstance(got[0], CancelledError)
    sent.pipeline.execute_pipeline()
    assert [command[1] for command in sent.commands] == ["a"]


def test_what_has_no_place_here() -> None:
    sent = Sent()
    pipeline: Any = sent.pipeline
    for reply in (
        pipeline.multi(),
        pipeline.watch("k"),
        pipeline.monitor(),
        pipeline.quit(),
        pipeline.shutdown(),
    ):
        assert isinstance(outcome(reply)[0], UnsupportedCommand)
