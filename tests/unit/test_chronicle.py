"""The history of failovers: what is written down, and what is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail

from txharedis.chronicle import HISTORY_KEY, KEPT, Chronicle, FailoverRecord, read_history
from txharedis.errors import LinkLost
from txharedis.events import Event, FailoverEnded, HistoryDiscarded, MasterChanged
from txharedis.topology import Address

A, B, C = (Address("n", port) for port in (1, 2, 3))


class Link:
    """A master that keeps what is written."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}

    def exchange(self, command: tuple[str, ...], **terms: Any) -> Deferred[Any]:
        assert command[:2] == ("HSET", HISTORY_KEY)
        _, _, field, value = map(str.encode, command)
        self.fields[field] = value
        return fail(LinkLost("nobody waits for the reply"))

    @property
    def reply(self) -> list[bytes]:
        return [item for pair in self.fields.items() for item in pair]


def written(*events: Event) -> Link:
    link = Link()
    links: dict[Address, Any] = {B: link, C: link}
    chronicle = Chronicle(links.get, 1.0)
    for event in events:
        chronicle.note(event)
    return link


def ended(epoch: int, old: Address = A, new: Address = B, **terms: Any) -> FailoverEnded:
    return FailoverEnded(at=1.0, master=new, epoch=epoch, old=old, **terms)


def discarded(epoch: int, count: int | None, node: Address = A, master: Address = B) -> Event:
    return HistoryDiscarded(
        at=2.0, node=node, master=master, epoch=epoch, count=count, offset=9, parted_at=None
    )


def test_what_is_written_is_read_back() -> None:
    link = written(
        ended(7, reason="n:1 is refused", why="highest offset", outage=0.25, offset=5, old_offset=6)
    )
    (record,) = read_history(link.reply)
    assert record.at > 1e9
    assert record == FailoverRecord(
        epoch=7,
        at=record.at,
        old="n:1",
        new="n:2",
        reason="n:1 is refused",
        why="highest offset",
        outage=0.25,
        offset=5,
        old_offset=6,
    )
    assert not record.planned


def test_the_newest_is_first_and_the_oldest_makes_room() -> None:
    link = written(*(ended(epoch) for epoch in range(1, KEPT + 6)))
    epochs = [record.epoch for record in read_history(link.reply)]
    assert epochs == list(range(KEPT + 5, 5, -1))


def test_what_came_to_nothing_is_not_written() -> None:
    nothing = FailoverEnded(at=1.0, master=None, epoch=7)
    changed = MasterChanged(at=1.0, old=A, new=B, epoch=7)
    assert written(nothing, changed).fields == {}
    assert written(ended(7, new=A)).fields == {}  # there is no link to it any more


@pytest.mark.parametrize("count", [0, 12, None])
def test_what_the_old_master_discarded_belongs_to_the_failover_before(count: int | None) -> None:
    events = [ended(5), ended(6, old=B, new=C), ended(8), ended(9, old=B, new=C)]
    link = written(*events, discarded(8, count))
    by_epoch = {record.epoch: record.discarded for record in read_history(link.reply)}
    assert by_epoch == {5: None, 6: None, 8: count, 9: None}
    # A repair does not raise the epoch, but its lock is newer than the failover.
    link = written(*events, discarded(10, count))
    assert {r.epoch: r.discarded for r in read_history(link.reply)} == by_epoch


def test_what_cannot_be_read_is_left_out() -> None:
    good = json.dumps({"epoch": 3, "at": 1.0, "old": "a", "new": "b", "reason": "r"}).encode()
    reply = [b"3", good, b"4", b"{", b"5", b"[]", b"6", b'{"epoch": 6}', b"\xff", good]
    reply += [b"7", good.replace(b"3", b'"3"'), b"8", good.replace(b'"a"', b"7")]
    reply += [
        b"discarded:a",
        b"7",
        b"discarded:b",
        b'{"epoch": "8", "count": 1}',
        b"discarded:c",
        b"{}",
    ]
    assert [record.epoch for record in read_history(reply)] == [3]
    assert read_history(reply)[0].discarded is None
    for odd in (None, [], Exception("NOPERM"), b"x"):
        assert read_history(odd) == ()


@pytest.mark.parametrize(
    "odd",
    [
        {"at": float("nan")},
        {"at": float("inf")},
        {"at": 1e300},
        {"at": 10**18},
        {"at": -1.0},
        {"epoch": 10**40},
        {"epoch": -1},
        {"outage": float("inf")},
        {"outage": 1e300},
        {"old_offset_age": float("nan")},
        {"offset": 10**40},
        {"reason": "x" * 5000},
    ],
    ids=lambda odd: str(odd)[:40],
)
def test_what_no_page_could_show_is_left_out(odd: dict[str, Any]) -> None:
    good = {"epoch": 3, "at": 1.0, "old": "a", "new": "b", "reason": "r"}
    reply = [
        b"3",
        json.dumps(good).encode(),
        b"4",
        json.dumps({**good, "epoch": 4, **odd}).encode(),
    ]
    assert [record.epoch for record in read_history(reply)] == [3]


def test_a_field_that_is_too_long_or_too_deep_hides_no_other() -> None:
    good = json.dumps({"epoch": 3, "at": 1.0, "old": "a", "new": "b", "reason": "r"}).encode()
    for odd in (b"[" * 200_000, good[:-1] + b" " * 100_000 + b"}", b"[" * 3000):
        assert [record.epoch for record in read_history([b"4", odd, b"3", good])] == [3]


def test_an_epoch_is_told_once_and_not_more_than_are_kept() -> None:
    entry = {"at": 1.0, "old": "a", "new": "b", "reason": "r"}
    reply: list[bytes] = []
    for number in range(3 * KEPT):
        reply += [b"%d" % number, json.dumps({"epoch": 1 + number // 2, **entry}).encode()]
    epochs = [record.epoch for record in read_history(reply)]
    assert epochs == list(range(3 * KEPT // 2, KEPT // 2, -1))


def test_what_a_later_version_adds_does_no_harm() -> None:
    entry = {"epoch": 3, "at": 1.0, "old": "a", "new": "b", "reason": "r", "more": [1]}
    (record,) = read_history([b"3", json.dumps(entry).encode()])
    assert (record.old, record.new) == ("a", "b")


@pytest.mark.parametrize(
    "field",
    [
        '"at": NaN',
        '"at": 1e300',
        '"at": -1e300',
        '"at": 1, "outage": Infinity',
        '"at": 1, "old_offset_age": -Infinity',
        '"at": 1, "offset": 1000000000000000000000',
    ],
)
def test_numbers_that_nobody_could_show_are_left_out(field: str) -> None:
    good = '{"epoch": 2, "at": 2.0, "old": "n:1", "new": "n:2", "reason": "r"}'
    bad = '{"epoch": 3, "old": "n:1", "new": "n:2", "reason": "r", ' + field + "}"
    reply = [b"2", good.encode(), b"3", bad.encode()]
    assert [record.epoch for record in read_history(reply)] == [2]
