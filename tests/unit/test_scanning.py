"""Cursors and the servers that they belong to."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from txharedis.errors import ResponseError
from txharedis.reads.scanning import ScanIterator, pairs, scan_options, scored, singles

Answer = tuple[str, Any]  # which server, and what it says


class Servers:
    """They answer the steps one after the other: `answers` of (server, reply)."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.cursors: list[int] = []
        self.now = ""
        self.waiting: Deferred[Any] | None = None

    def step(self, cursor: int) -> Deferred[Any]:
        self.cursors.append(cursor)
        self.waiting = Deferred()
        return self.waiting

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, None
        assert waiting is not None
        self.now, reply = self.answers.pop(0)
        if isinstance(reply, Exception):
            waiting.errback(reply)
        else:
            waiting.callback(reply)

    def all_of(self, scan: ScanIterator) -> list[Any]:
        async def collect() -> list[Any]:
            return [item async for item in scan]

        collected = Deferred.fromCoroutine(collect())
        while not collected.called:
            self.answer()
            self.now = "nobody"  # between the replies it does not matter
        found: list[Any] = []
        collected.addCallbacks(found.extend, found.append)
        return found

    def scan(self) -> ScanIterator:
        return ScanIterator(self.step, lambda: self.now, singles)


def test_one_server() -> None:
    servers = Servers(("a", ["5", ["x", "y"]]), ("a", ["3", []]), ("a", ["0", ["z"]]))
    scan = servers.scan()
    assert servers.all_of(scan) == ["x", "y", "z"]
    assert servers.cursors == [0, 5, 3]
    assert scan.restarted == 0


@pytest.mark.parametrize("zero", [0, "0", b"0"])
def test_nothing(zero: object) -> None:
    servers = Servers(("a", [zero, []]))
    assert servers.all_of(servers.scan()) == []


def test_another_server_begins_again() -> None:
    servers = Servers(
        ("a", ["5", ["x", "y"]]),
        ("b", ["0", ["w"]]),  # what it says to a's cursor means nothing
        ("b", ["9", ["z", "x"]]),
        ("b", ["0", ["y"]]),
    )
    scan = servers.scan()
    assert servers.all_of(scan) == ["x", "y", "z", "x", "y"]
    assert servers.cursors == [0, 5, 0, 9]
    assert scan.restarted == 1


def test_the_first_step_may_be_answered_by_anybody() -> None:
    servers = Servers(("b", ["7", ["x"]]), ("b", ["0", []]))
    servers.now = "a"
    scan = servers.scan()
    assert servers.all_of(scan) == ["x"]
    assert scan.restarted == 0


def test_what_another_server_says_against_the_cursor_is_no_error() -> None:
    servers = Servers(
        ("a", ["5", ["x"]]), ("b", ResponseError("ERR invalid cursor")), ("b", ["0", ["x"]])
    )
    scan = servers.scan()
    assert servers.all_of(scan) == ["x", "x"]
    assert scan.restarted == 1


def test_an_error_of_the_same_server_is_one_and_the_iterator_may_go_on() -> None:
    servers = Servers(("a", ["5", ["x"]]), ("a", ResponseError("OOM")), ("a", ["0", ["y"]]))
    scan = servers.scan()
    [failure] = servers.all_of(scan)
    failure.trap(ResponseError)
    assert servers.all_of(scan) == ["y"]
    assert servers.cursors == [0, 5, 5]


def test_two_unknown_servers_are_not_one() -> None:
    servers = Servers(("", ["5", ["x"]]), ("", ["0", ["y"]]), ("", ["0", ["x", "y"]]))
    scan = servers.scan()
    assert servers.all_of(scan) == ["x", "x", "y"]
    assert scan.restarted == 1


def test_shapes() -> None:
    assert list(pairs(["f", 1, "g", 2])) == [("f", 1), ("g", 2)]
    assert list(scored(["m", b"1.5", "n", 2, "o", "inf"])) == [
        ("m", 1.5),
        ("n", 2.0),
        ("o", float("inf")),
    ]
    assert scan_options(None, None) == ()
    assert scan_options("a*", 10) == ("MATCH", "a*", "COUNT", 10)
