"""The book of channels: who is called, with what, and who waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from txredisapi import InvalidData

from tests.unit.pubsub import Ear, logged
from txharedis.errors import ResponseError
from txharedis.events import SubscriptionGap
from txharedis.log import ClientLog
from txharedis.options import Options
from txharedis.pubsub.channels import ChannelBook, Kind
from txharedis.pubsub.messages import Message

GAP = SubscriptionGap(at=3.0, since=1.0, until=3.0)


class Link:
    """Gives the book what came over the wire."""

    node = "n:1"

    def __init__(self, book: ChannelBook) -> None:
        self.receive: Any = book.deliver
        self.others: list[Any] = []
        self.notes = 0

    def other(self, reply: Any) -> None:
        self.others.append(reply)

    def is_marker(self, reply: list[Any]) -> bool:
        return False

    def note_message(self) -> None:
        self.notes += 1

    def feed(self, *replies: Any) -> bool:
        return bool(self.receive(iter(replies), self))


def make_book(**options: Any) -> ChannelBook:
    return ChannelBook(Options(**options), ClientLog(), lambda: None)


def add(
    book: ChannelBook, kind: Kind, names: Any, call: Any, on_gap: Any = None
) -> Deferred[list[Any]]:
    done = book.add(kind, names, call, on_gap, lambda _: False)
    for name in list(book.names):
        book.confirm(name)
    return done


@pytest.mark.parametrize(
    ("options", "data", "value"),
    [
        ({}, b"text", "text"),
        ({}, b"007", 7),
        ({}, b"1.50", 1.5),
        ({}, b"\xff", b"\xff"),
        ({"convert_numbers": False}, b"007", "007"),
        ({"charset": None}, b"7", 7),
        ({"charset": None, "convert_numbers": False}, b"7", b"7"),
    ],
)
def test_data_is_converted_as_replies_are(
    options: dict[str, Any], data: bytes, value: object
) -> None:
    book, ear = make_book(**options), Ear()
    add(book, Kind.CHANNEL, "1", ear)
    add(book, Kind.PATTERN, "2*", ear)
    add(book, Kind.SHARD, "3", ear)
    link = Link(book)
    link.feed(
        [b"message", b"1", data], [b"pmessage", b"2*", b"22", data], [b"smessage", b"3", data]
    )
    names = [("1", None), ("22", "2*"), ("3", None)]
    if options.get("charset", "utf-8") is None:
        names = [(b"1", None), (b"22", b"2*"), (b"3", None)]  # type: ignore[list-item]
    assert ear.messages == [Message(channel, value, glob, "n:1") for channel, glob in names]
    assert link.notes == 1


def test_message_is_frozen_and_compares_by_value() -> None:
    book, ear = make_book(), Ear()
    add(book, Kind.CHANNEL, "c", ear)
    Link(book).feed([b"message", b"c", b"x"])
    [message] = ear.messages
    assert type(message) is Message
    assert message == Message("c", "x", None, "n:1")
    assert hash(message) == hash(Message("c", "x", None, "n:1"))
    assert repr(message) == "Message(channel='c', data='x', pattern=None, node='n:1')"
    with pytest.raises(AttributeError):
        message.data = 1  # type: ignore[misc]


def test_what_is_no_message_of_a_user_goes_to_the_link() -> None:
    book, ear = make_book(), Ear()
    add(book, Kind.PATTERN, "*", ear)
    link = Link(book)
    others = [
        [b"message", b"unknown", b"x"],
        [b"pmessage", b"gone", b"c", b"x"],
        [b"subscribe", b"c", 1],
        [b"pong", b""],
        ResponseError("NOPERM"),
        b"PONG",
        [],
    ]
    assert link.feed(*others[:-1], [b"pmessage", b"*", b"haredis:handover:1", b"7"])
    assert link.others == others[:-1]
    assert ear.messages == []


def test_a_callback_that_raises_hurts_nobody() -> None:
    book, ear = make_book(), Ear()

    def broken(message: Message) -> None:
        raise ValueError("broken")

    async def broken_later(message: Message) -> None:
        raise ValueError("broken later")

    for call in (broken, broken_later, lambda _: fail(ValueError("failed")), ear):
        add(book, Kind.CHANNEL, "c", call)
    with logged() as failures:
        Link(book).feed([b"message", b"c", b"1"], [b"message", b"c", b"2"])
    assert ear.data == [1, 2]
    assert [failure["log_failure"].getErrorMessage() for failure in failures] == [
        "broken",
        "broken later",
        "failed",
    ] * 2


def test_on_gap_that_raises_hurts_nobody() -> None:
    book = make_book()
    told: list[SubscriptionGap] = []

    def broken(gap: SubscriptionGap) -> None:
        raise ValueError("broken")

    add(book, Kind.CHANNEL, "c", print, broken)
    add(book, Kind.CHANNEL, "c", repr, told.append)
    add(book, Kind.PATTERN, "d", repr, told.append)
    with logged() as failures:
        book.tell_gap(GAP)
    assert len(failures) == 1
    assert told == [GAP]


def test_a_callback_may_unsubscribe_itself() -> None:
    book, other = make_book(), Ear()
    heard: list[Any] = []

    def once(message: Message) -> None:
        heard.append(message.data)
        book.remove(Kind.CHANNEL, "c", once, lambda _: True)

    add(book, Kind.CHANNEL, "c", once)
    add(book, Kind.CHANNEL, "c", other)
    Link(book).feed([b"message", b"c", b"1"], [b"message", b"c", b"2"])
    assert heard == [1]
    assert other.data == [1, 2]
    assert list(book.names) == [(Kind.CHANNEL, b"c")]


def test_nobody_is_called_whom_another_callback_has_taken_away() -> None:
    book, ear = make_book(), Ear()

    def take_away(_: Message) -> None:
        book.remove(Kind.CHANNEL, "c", ear, lambda _: False)

    add(book, Kind.CHANNEL, "c", take_away)
    add(book, Kind.CHANNEL, "c", ear)
    Link(book).feed([b"message", b"c", b"x"])
    assert ear.data == []


def test_nobody_is_called_when_another_callback_has_closed_the_client() -> None:
    book, ear = make_book(), Ear()
    add(book, Kind.CHANNEL, "c", lambda _: book.stop(RuntimeError))
    add(book, Kind.CHANNEL, "c", ear)
    Link(book).feed([b"message", b"c", b"x"])
    assert ear.data == []


def test_who_is_told_of_the_withdrawal_may_withdraw_too() -> None:
    book = make_book()
    done = book.add(Kind.CHANNEL, "c", print, None, lambda _: False)
    done.addErrback(lambda _: book.remove(Kind.CHANNEL, "c", None, lambda _: False))
    assert book.remove(Kind.CHANNEL, "c", None, lambda _: False).called
    assert done.called
    assert not book.names


def test_the_same_callback_counts_once_and_takes_the_newer_on_gap() -> None:
    book, ear = make_book(), Ear()
    old: list[Any] = []
    new: list[Any] = []
    add(book, Kind.CHANNEL, "c", ear, old.append)
    again = add(book, Kind.CHANNEL, ["c", "c"], ear, new.append)
    Link(book).feed([b"message", b"c", b"1"])
    book.tell_gap(GAP)
    assert ear.data == [1]
    assert (old, new) == ([], [GAP])
    again.cancel()
    assert list(book.names) == [(Kind.CHANNEL, b"c")]


def test_delivery_stops_where_the_link_changes_its_mind() -> None:
    book = make_book()
    heard: list[Any] = []
    link = Link(book)

    def hear(message: Message) -> None:
        heard.append(message.data)
        link.receive = lambda replies, link: True

    add(book, Kind.CHANNEL, "c", hear)
    assert not link.feed([b"message", b"c", b"1"], [b"message", b"c", b"2"])
    assert heard == [1]


@pytest.mark.parametrize(
    ("channels", "text"),
    [
        (5, "5 is not a channel"),
        (None, "None is not a channel"),
        (["a", 5], "5 is not a channel"),
        ([b"a", None], "None is not a channel"),
        ([], "no channels"),
        ((), "no channels"),
        ("\udcff", "cannot encode"),
    ],
)
def test_bad_channels_are_named(channels: Any, text: str) -> None:
    book = make_book()
    with pytest.raises(InvalidData, match=f"psubscribe: {text}"):
        book.add(Kind.PATTERN, channels, print, None, lambda _: False)
    if channels is not None:  # that is all of them
        with pytest.raises(InvalidData, match=f"punsubscribe: {text}"):
            book.remove(Kind.PATTERN, channels, None, lambda _: False)
    assert not book.names


@pytest.mark.parametrize(
    ("call", "on_gap", "text"),
    [
        (None, None, "subscribe: on_message=None"),
        ("text", None, "on_message='text'"),
        (print, 5, "on_gap=5"),
    ],
)
def test_what_cannot_be_called_is_named(call: Any, on_gap: Any, text: str) -> None:
    book = make_book()
    with pytest.raises(TypeError, match=text):
        book.add(Kind.CHANNEL, "c", call, on_gap, lambda _: False)
    assert not book.names


@pytest.mark.parametrize(
    ("channels", "last"),
    [("c", "c"), (b"c", "c"), ((x for x in "abc"), "c"), (b"\xff", b"\xff"), ({"c": 1}, "c")],
)
def test_channels_may_be_one_or_several(channels: Any, last: Any) -> None:
    book = make_book()
    done = add(book, Kind.CHANNEL, channels, print)
    assert done.result == ["subscribe", last, len(book.names)]


@pytest.mark.parametrize("undo", [lambda book, done: done.cancel(), None])
def test_a_failed_subscription_leaves_what_others_have(
    undo: Callable[[Any, Any], object] | None,
) -> None:
    book, ear, other = make_book(), Ear(), Ear()
    add(book, Kind.CHANNEL, "a", other)
    done = book.add(Kind.CHANNEL, ["a", "b"], ear, None, lambda _: False)
    errors: list[Any] = []
    done.addErrback(errors.append)
    if undo is not None:
        undo(book, done)
    else:
        assert book.refuse((Kind.CHANNEL, b"b"), ResponseError("NOPERM"))
    assert len(errors) == 1
    assert list(book.names) == [(Kind.CHANNEL, b"a")]
    Link(book).feed([b"message", b"a", b"1"])
    assert (ear.data, other.data) == ([], [1])
    assert not book.refuse((Kind.CHANNEL, b"a"), ResponseError("NOPERM"))
    assert list(book.names) == [(Kind.CHANNEL, b"a")]
