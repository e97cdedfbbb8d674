"""One link: the handshake, replies to those who asked, and how it ends."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure

from tests.unit.fakes import Dial, FakeReactor, encode
from txharedis.errors import LinkLost, ResponseError
from txharedis.options import Options
from txharedis.protocol import NodeProtocol, greeting
from txharedis.topology import Address

HANDSHAKE: list[list[Any]] = [["SELECT", 15], ["INFO", "server"]]
INFO = b"run_id:r1\r\n"


class Waiter:
    """Somebody who waits for replies."""

    def __init__(self, link: NodeProtocol | None = None) -> None:
        self.got: list[object] = []
        self.link = link

    def settle(self, reply: object) -> None:
        self.got.append(reply)
        if reply == b"die" and self.link is not None:
            self.link.abort()

    def lost(self) -> None:
        self.got.append("lost")


class Link:
    """A protocol on a fake connection, and what it told."""

    def __init__(
        self, *, timeout: float = 2.0, protocol: type[NodeProtocol] = NodeProtocol
    ) -> None:
        self.reactor = FakeReactor()
        self.ready: list[list[object]] = []
        self.refused: list[str] = []
        self.gone: list[type[BaseException] | None] = []
        self.protocol = protocol(
            self.reactor,
            HANDSHAKE,
            timeout,
            lambda link, replies: self.ready.append(replies),
            lambda error, replies: self.refused.append(str(error)),
        )
        self.dial = Dial(self)
        self.dial.protocol = self.protocol
        self.protocol.makeConnection(self.dial)

    def connectionLost(self, reason: Failure) -> None:  # as a connector
        self.gone.append(reason.type)

    def shake(self) -> Link:
        self.dial.answer("OK", INFO)
        self.dial.commands()
        return self

    @property
    def timers(self) -> int:
        return len(self.reactor.getDelayedCalls())


# The handshake


def test_the_handshake_is_sent_in_one_go_and_its_replies_are_told() -> None:
    link = Link()
    assert link.dial.commands() == [[b"SELECT", b"15"], [b"INFO", b"server"]]
    link.dial.answer("OK")
    assert link.ready == []
    link.dial.answer(INFO)
    assert link.ready == [[b"OK", INFO]]
    assert link.refused == []
    assert link.timers == 0


@given(st.lists(st.integers(1, 20), max_size=30))
def test_replies_may_come_in_any_pieces(cuts: list[int]) -> None:
    link = Link()
    data = encode("OK") + encode(INFO) + encode([1, [b"x", None], b""])
    waiter = Waiter()
    link.protocol.send([b""], [waiter])
    for cut in cuts:
        link.dial.deliver(data[:cut])
        data = data[cut:]
    link.dial.deliver(data)
    assert link.ready == [[b"OK", INFO]]
    assert waiter.got == [[1, [b"x", None], b""]]


def test_an_error_in_the_handshake_refuses_and_closes() -> None:
    link = Link()
    link.dial.answer(ResponseError("NOAUTH Authentication required."), ResponseError("NOAUTH x"))
    assert link.refused == ["NOAUTH Authentication required."]
    assert link.dial.aborted
    settle_link(link)
    assert link.ready == []
    assert link.timers == 0


@pytest.mark.parametrize(
    "text", ["ERR max number of clients reached", "DENIED Redis is running in protected mode"]
)
def test_an_error_instead_of_a_handshake_refuses(text: str) -> None:
    """The server sends one line and closes, whatever it was asked."""
    link = Link()
    link.dial.answer(ResponseError(text))
    link.dial.lose(ConnectionDone())
    assert link.refused == [text]
    assert link.ready == []
    assert link.timers == 0


def test_a_link_that_ends_in_the_handshake_is_not_refused() -> None:
    link = Link()
    link.dial.answer("OK")
    link.dial.lose(ConnectionDone())
    assert (link.ready, link.refused) == ([], [])
    assert link.timers == 0


def test_a_handshake_that_takes_too_long_is_aborted() -> None:
    link = Link(timeout=2.0)
    link.dial.answer("OK")
    link.reactor.advance(1.9)
    assert not link.dial.aborted
    link.reactor.advance(0.1)
    assert link.dial.aborted
    settle_link(link)
    assert link.gone == [ConnectionAborted]
    link.dial.answer(INFO)
    assert link.ready == []


def test_there_is_no_deadline_after_the_handshake() -> None:
    link = Link(timeout=2.0).shake()
    link.reactor.advance(100)
    assert not link.dial.aborted


# Replies


def test_each_waiter_gets_its_reply_in_order() -> None:
    link = Link().shake()
    one, other = Waiter(), Waiter()
    assert link.protocol.send([b"a", b"b", b"c"], [one, other, one])
    assert link.dial.written == b"abc"
    error = ResponseError("ERR no")
    link.dial.answer(1, error, b"007")
    assert one.got == [1, b"007"]
    assert repr(other.got) == repr([error])


def test_replies_stay_raw() -> None:
    link = Link().shake()
    waiter = Waiter()
    link.protocol.send([b""] * 4, [waiter] * 4)
    link.dial.answer("QUEUED", b"\xff", b"3.10", [b"1", ResponseError("ERR")])
    assert waiter.got[:3] == [b"QUEUED", b"\xff", b"3.10"]
    last = waiter.got[3]
    assert isinstance(last, list)
    assert isinstance(last[1], ResponseError)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x01", b"*x\r\n"])
@pytest.mark.parametrize("shaken", [True, False])
def test_garbage_ends_the_link_and_tells_the_waiters(garbage: bytes, shaken: bool) -> None:
    link = Link()
    if shaken:
        link.shake()
    waiter = Waiter()
    link.protocol.send([b"x"], [waiter])
    link.dial.deliver(garbage)
    assert link.dial.aborted
    assert waiter.got == ["lost"]
    settle_link(link)
    assert link.timers == 0


def test_a_reply_that_nobody_asked_for_ends_the_link() -> None:
    link = Link().shake()
    link.dial.answer(b"surprise")
    assert link.dial.aborted


def test_what_comes_unasked_may_be_wanted() -> None:
    class Subscriber(NodeProtocol):
        heard: list[object]

        def unasked(self, reply: object) -> None:
            self.heard.append(reply)

    link = Link(protocol=Subscriber).shake()
    link.protocol.heard = []  # type: ignore[attr-defined]
    link.dial.answer([b"message", b"c", b"1"], [b"message", b"c", b"2"], [b"message", b"c", b"3"])
    assert len(link.protocol.heard) == 3  # type: ignore[attr-defined]
    assert not link.dial.aborted


# Exchanges


def test_an_exchange_gives_all_replies_errors_among_them() -> None:
    link = Link().shake()
    got: list[Any] = []
    link.protocol.exchange(["GET", "a"], ["GET", "b"]).addCallback(got.extend)
    assert link.dial.commands() == [[b"GET", b"a"], [b"GET", b"b"]]
    link.dial.answer(b"1", ResponseError("WRONGTYPE"))
    assert got[0] == b"1"
    assert isinstance(got[1], ResponseError)


def test_an_exchange_that_takes_too_long_is_given_up_and_its_replies_still_count() -> None:
    link = Link().shake()
    slow = link.protocol.exchange(["GET", "a"], ["GET", "b"], timeout=0.5)
    other = link.protocol.exchange(["GET", "c"], timeout=5.0)
    link.reactor.advance(0.5)
    assert isinstance(error_of(slow), LinkLost)
    link.dial.answer(b"late", b"late", b"in time")
    assert other.result == [b"in time"]
    assert not link.dial.aborted
    assert link.timers == 0


def test_the_link_of_an_exchange_that_takes_too_long_may_be_dropped_with_it() -> None:
    link = Link().shake()
    held = link.protocol.exchange(["SET", "a", "1"], timeout=0.5, or_drop=True)
    behind = link.protocol.exchange(["PING"])
    link.reactor.advance(0.4)
    assert not link.dial.aborted
    link.reactor.advance(0.1)
    assert str(error_of(held)) == "no answer within 0.50 s"
    assert isinstance(error_of(behind), LinkLost)
    assert link.dial.aborted
    in_time = Link().shake()
    in_time.protocol.exchange(["SET", "a", "1"], timeout=0.5, or_drop=True)
    in_time.dial.answer("OK")
    in_time.reactor.advance(1.0)
    assert not in_time.dial.aborted


def test_an_exchange_over_a_dead_link_fails_at_once() -> None:
    link = Link().shake()
    link.dial.lose()
    assert isinstance(error_of(link.protocol.exchange(["GET", "a"], ["GET", "b"])), LinkLost)
    assert isinstance(error_of(link.protocol.exchange(["GET", "a"], timeout=1.0)), LinkLost)
    assert link.timers == 0


def test_an_exchange_may_be_cancelled() -> None:
    link = Link().shake()
    asked = link.protocol.exchange(["GET", "a"], timeout=1.0)
    asked.addErrback(lambda _: None)
    asked.cancel()
    link.dial.answer(b"late")
    link.reactor.advance(1.0)
    assert not link.dial.aborted
    assert link.timers == 0


# The end


def test_abort_tells_the_waiters_before_it_returns_and_late_replies_reach_nobody() -> None:
    link = Link().shake()
    waiter = Waiter()
    link.protocol.send([b"a", b"b"], [waiter, waiter])
    link.dial.answer(1)
    link.protocol.abort()
    assert waiter.got == [1, "lost"]
    link.dial.answer(2)
    settle_link(link)
    assert waiter.got == [1, "lost"]


def test_after_an_abort_nothing_is_written() -> None:
    link = Link().shake()
    link.protocol.abort()
    waiter = Waiter()
    assert not link.protocol.send([b"a"], [waiter])
    assert link.dial.written == b""
    assert waiter.got == []


def test_a_waiter_may_abort_the_link_in_the_middle_of_a_piece() -> None:
    link = Link().shake()
    waiter = Waiter(link.protocol)
    link.protocol.send([b"a"] * 3, [waiter] * 3)
    link.dial.answer(b"die", b"late", b"late")
    assert waiter.got == [b"die", "lost", "lost"]


def test_what_is_sent_leaves_at_once_unless_the_link_is_being_closed() -> None:
    link = Link()
    written: list[bytes] = []
    link.dial.doWrite = lambda: written.append(bytes(link.dial.written))
    link.dial.disconnecting = False
    link.protocol.makeConnection(link.dial)
    link.shake()
    written.clear()
    link.protocol.send([b"a", b"b"], [Waiter(), Waiter()])
    assert len(written) == 1
    assert written[0].endswith(b"ab")
    link.dial.disconnecting = True
    link.protocol.send([b"c"], [Waiter()])
    assert len(written) == 1


def test_what_is_to_be_done_after_a_piece_is_done_when_all_its_replies_are_handed_out() -> None:
    link = Link().shake()
    log: list[object] = []

    class Asking(Waiter):
        def settle(self, reply: object) -> None:
            log.append(reply)
            if reply == b"1":
                assert link.protocol.after_read(lambda: log.append("after"))

    waiters = [Asking(), Asking()]
    link.protocol.send([b"a", b"b"], waiters)
    assert not link.protocol.after_read(lambda: log.append("never"))
    link.dial.answer(b"1", b"2")
    assert log == [b"1", b"2", "after"]
    link.protocol.send([b"c"], [Asking()])
    link.dial.answer(b"3")
    assert log == [b"1", b"2", "after", b"3"]


@pytest.mark.parametrize("ends", [b"die", b"raise"])
def test_it_is_done_too_when_the_piece_ends_the_link(ends: bytes) -> None:
    link = Link().shake()
    log: list[object] = []

    class Asking(Waiter):
        def settle(self, reply: object) -> None:
            link.protocol.after_read(lambda: log.append(link.protocol.after_read(log.clear)))
            super().settle(reply)
            if reply == b"raise":
                raise ZeroDivisionError

    link.protocol.send([b"a"], [Asking(link.protocol)])
    with pytest.raises(ZeroDivisionError) if ends == b"raise" else contextlib.nullcontext():
        link.dial.answer(ends)
    assert log == [False]


def test_a_lost_link_tells_each_waiter_once() -> None:
    link = Link().shake()
    waiter = Waiter()
    link.protocol.send([b"a", b"b"], [waiter, waiter])
    link.dial.lose(ConnectionDone())
    link.protocol.abort()
    assert waiter.got == ["lost", "lost"]


def test_any_bytes_count_as_heard() -> None:
    link = Link().shake()
    link.reactor.advance(7)
    assert link.protocol.last_heard == 0
    link.dial.deliver(b"$10\r\nhal")
    assert link.protocol.last_heard == 7


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_end_the_link_or_not_but_do_not_raise(pieces: list[bytes]) -> None:
    link = Link().shake()
    waiter = Waiter()
    link.protocol.send([b"a", b"b"], [waiter, waiter])
    for piece in pieces:
        link.dial.deliver(piece)
    link.dial.lose()
    assert len(waiter.got) == 2


# The greeting


@pytest.mark.parametrize(
    ("options", "commands"),
    [
        ({}, [["SELECT", 3]]),
        ({"password": "pw"}, [["AUTH", "pw"], ["SELECT", 3]]),
        ({"password": "pw", "username": "me"}, [["AUTH", "me", "pw"], ["SELECT", 3]]),
        ({"password": ""}, [["AUTH", ""], ["SELECT", 3]]),
    ],
)
def test_greeting(options: dict[str, Any], commands: list[list[object]]) -> None:
    assert greeting(Options(**options), 3, Address("n", 1)) == commands


def settle_link(link: Link) -> None:
    link.reactor.advance(0)


def error_of(deferred: Any) -> BaseException:
    errors: list[Failure] = []
    deferred.addErrback(errors.append)
    (failure,) = errors
    error = failure.value
    assert isinstance(error, BaseException)
    return error
