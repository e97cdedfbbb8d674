"""The journal's numbers, what goes over the wire, and how the script's answer is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from txharedis.interfaces import pack
from txharedis.journal import (
    INEXACT,
    JOURNAL_LIFE,
    JOURNAL_SCRIPT,
    JOURNAL_SHA1,
    LOAD_JOURNAL,
    TOO_LARGE,
    Journal,
    Ran,
    read_replies,
)


@dataclass
class FakeEntry:
    packed: bytes
    read: bool = False
    deferred: object = True


@dataclass
class FakeBatch:
    commands: list[FakeEntry]
    number: int = 1
    sent_at: float | None = None
    lost_once: bool = False
    after: int = 0


def entry(*words: Any, read: bool = False) -> FakeEntry:
    return FakeEntry(pack(words), read)


def unpacked(packed: bytes) -> list[bytes]:
    """The words of exactly one command."""
    reader = hiredis.Reader()
    reader.feed(packed)
    words: list[bytes] = reader.gets()
    assert reader.gets() is False
    assert pack(tuple(words)) == packed, "as any other encoder would write it"
    return words


@dataclass
class Sent:
    """An encoded batch, taken apart as the script does it."""

    head: list[bytes]
    keys: list[bytes]
    number: int
    settled: int
    after: int
    again: bool
    life: int
    db: int
    own_db: int
    commands: list[tuple[int, list[bytes]]] = field(default_factory=list)


def sent(packed: bytes) -> Sent:
    command, script, keys, *rest = unpacked(packed)
    names, rest = rest[: int(keys)], rest[int(keys) :]
    numbers, rest = [int(word) for word in rest[:7]], rest[7:]
    number, settled, after, again, life, db, own_db = numbers
    result = Sent([command, script], names, number, settled, after, bool(again), life, db, own_db)
    while rest:
        count = int(rest[0])
        words, rest = rest[1 : 1 + abs(count)], rest[1 + abs(count) :]
        assert len(words) == abs(count)
        result.commands.append((count, words))
    return result


# What goes over the wire


def test_a_batch_is_one_command_that_names_the_script() -> None:
    journal = Journal(15, "haredis:opcounter")
    batch = FakeBatch(
        [
            entry("SET", "k", b"\xff\r\n"),
            entry("GET", "k", read=True),
            FakeEntry(pack(("DEL", "gone")), deferred=None),
            entry("INCR", "n"),
        ],
        journal.number(),
    )
    it = sent(journal.encode(batch, 3, 0.0, whole=False))
    assert it.head == [b"EVALSHA", JOURNAL_SHA1]
    assert it.keys == [journal.key.encode(), b"haredis:opcounter"]
    assert (it.number, it.settled, it.after, it.again, it.db, it.own_db) == (1, 0, 0, False, 3, 15)
    assert it.commands == [
        (3, [b"SET", b"k", b"\xff\r\n"]),
        (-2, [b"GET", b"k"]),
        (0, []),
        (2, [b"INCR", b"n"]),
    ]


def test_it_can_bring_the_script() -> None:
    journal = Journal(9, None)
    it = sent(journal.encode(FakeBatch([entry("INCR", "n")], 4, after=3), 0, 0.0, whole=True))
    assert it.head == [b"EVAL", JOURNAL_SCRIPT]
    assert it.keys == [journal.key.encode()]
    assert (it.number, it.after, it.own_db) == (4, 3, 9)
    assert unpacked(LOAD_JOURNAL) == [b"SCRIPT", b"LOAD", JOURNAL_SCRIPT]


@given(
    st.lists(
        st.tuples(st.lists(st.binary(max_size=9), min_size=1, max_size=12), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_any_commands_arrive_in_their_order(commands: list[tuple[list[bytes], bool]]) -> None:
    journal = Journal(15, None)
    batch = FakeBatch([entry(*words, read=read) for words, read in commands])
    it = sent(journal.encode(batch, 0, 0.0, whole=False))
    assert it.commands == [(-len(words) if read else len(words), words) for words, read in commands]


def test_sessions_are_told_apart() -> None:
    keys = {Journal(15, None).key for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("haredis:journal:") for key in keys)


# Numbers


def test_numbers_rise_and_all_below_the_oldest_open_one_are_settled() -> None:
    journal = Journal(15, None)
    assert not journal.used
    assert journal.settled == 0
    assert [journal.number() for _ in range(4)] == [1, 2, 3, 4]
    assert journal.used
    assert journal.settled == 0
    journal.settle(2)
    assert journal.settled == 0
    journal.settle(1)
    assert journal.settled == 2
    journal.settle(1)  # again
    assert journal.settled == 2
    journal.settle(4)
    journal.settle(3)
    assert journal.settled == 4
    assert journal.number() == 5
    assert journal.settled == 4


@given(st.permutations(range(1, 9)))
def test_the_settled_number_is_below_every_open_one(order: list[int]) -> None:
    journal = Journal(15, None)
    for _ in order:
        journal.number()
    still_open = set(order)
    for number in order:
        journal.settle(number)
        still_open.remove(number)
        assert journal.settled == min(still_open, default=9) - 1


# A missing journal


def is_again(journal: Journal, now: float = 100.0, **values: Any) -> bool:
    return sent(
        journal.encode(FakeBatch([entry("INCR", "n")], **values), 0, now, whole=False)
    ).again


def test_a_missing_journal_was_lost_when_one_was_there_and_this_batch_may_be_in_it() -> None:
    journal = Journal(15, None)
    assert not is_again(journal, lost_once=True, sent_at=99.0)  # it may be the first of all
    journal.answered()
    assert is_again(journal, lost_once=True, sent_at=99.0)
    assert is_again(journal, lost_once=True)
    assert not is_again(journal, lost_once=False, sent_at=99.0)


def test_a_missing_journal_may_have_expired_when_the_batch_is_old() -> None:
    journal = Journal(15, None)
    now = 10_000.0
    old = now - JOURNAL_LIFE / 2 - 1
    assert is_again(journal, now, lost_once=True, sent_at=old)
    assert not is_again(journal, now, lost_once=True, sent_at=old + 2)
    assert not is_again(journal, now, lost_once=False, sent_at=old)


def test_its_life_is_prolonged_once_a_minute() -> None:
    journal = Journal(15, None)

    def life(now: float) -> int:
        batch = FakeBatch([entry("INCR", "n")])
        return sent(journal.encode(batch, 0, now, whole=False)).life

    full = JOURNAL_LIFE * 1000
    times = [5.0, 6.0, 64.9, 65.0, 66.0, 1000.0]
    assert [life(now) for now in times] == [full, 0, 0, full, 0, full]


# What the script answers


@pytest.mark.parametrize(
    ("answer", "ran", "replies", "odd"),
    [
        ([1, b"OK", 7, None], Ran.NOW, [b"OK", 7, None], {}),
        ([2, [b"a", 1]], Ran.BEFORE, [[b"a", 1]], {}),
        ([0], Ran.UNKNOWN, [], {}),
        ([-1], Ran.SETTLED, [], {}),
        ([-2], Ran.NOT_YET, [], {}),
        ([[1, 2, b"9007199254740993"], b"OK", 0], Ran.NOW, [b"OK", 2**53 + 1], {}),
        ([[1, 1, b"-9223372036854775808"], 0], Ran.NOW, [-(2**63)], {}),
        ([[1, 2, INEXACT], b"OK", 0], Ran.NOW, [b"OK", 0], {1: INEXACT}),
        ([[2, 1, TOO_LARGE, 3, b"9223372036854775807"], 0, 1, 0], Ran.BEFORE,
         [0, 1, 2**63 - 1], {0: TOO_LARGE}),
    ],
)  # fmt: skip
def test_answers(answer: list[Any], ran: int, replies: list[Any], odd: dict[int, bytes]) -> None:
    outcome = read_replies(answer)
    assert (outcome.ran, list(outcome.replies), outcome.odd) == (ran, replies, odd)
