"""How far a replica is behind, and whether it has come to a place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txharedis.errors import ResponseError
from txharedis.reads.lag import MasterOffsets, OwnWrites, Replication, Token
from txharedis.topology import Address

A, B, C = "a" * 40, "b" * 40, "c" * 40
NODE = Address("n", 1)


def info(**fields: object) -> bytes:
    return "\r\n".join(["# Replication", *(f"{k}:{v}" for k, v in fields.items())]).encode()


def state(offset: int, replid: str = A, **values: Any) -> Replication:
    return Replication(**{"asked_at": 0.0, "offset": offset, "replid": replid, **values})


def test_a_replica_is_read() -> None:
    reply = info(
        role="slave",
        master_link_status="up",
        master_last_io_seconds_ago=2,
        master_sync_in_progress=0,
        slave_read_repl_offset=120,
        slave_repl_offset=100,
        master_replid=A,
        master_replid2=B,
        master_repl_offset=110,
        second_repl_offset=50,
    )
    assert Replication.parse(reply, 7.0) == Replication(
        asked_at=7.0,
        link_up=True,
        last_io=2,
        offset=100,
        replid=A,
        replid2=B,
        parted_at=50,
    )


def test_a_master_is_read() -> None:
    reply = info(role="master", master_replid=A, master_repl_offset=5, second_repl_offset=-1)
    assert Replication.parse(reply, 7.0) == Replication(
        asked_at=7.0, is_master=True, offset=5, replid=A
    )


def test_a_replica_that_syncs_is_read() -> None:
    reply = info(
        role="slave",
        master_link_status="down",
        master_last_io_seconds_ago=-1,
        master_sync_in_progress=1,
        master_replid=A,
        slave_repl_offset=0,
    )
    parsed = Replication.parse(reply, 0.0)
    assert parsed is not None
    assert (parsed.syncing, parsed.link_up, parsed.last_io, parsed.offset) == (True, False, -1, 0)


@pytest.mark.parametrize(
    "reply",
    [
        ResponseError("LOADING"),
        b"",
        b"PONG",
        None,
        info(role="master", master_replid="0" * 40),
        info(role="slave"),
    ],
)
def test_what_says_nothing(reply: object) -> None:
    assert Replication.parse(reply, 0.0) is None


def test_a_number_that_is_none() -> None:
    parsed = Replication.parse(info(role="master", master_replid=A, master_repl_offset="x"), 0.0)
    assert parsed is not None
    assert parsed.offset == 0


# Places


@pytest.mark.parametrize(
    ("replica", "shares", "has"),
    [
        (state(100), True, True),
        (state(101), True, True),
        (state(99), True, False),
        (state(500, B), False, False),
        # It follows a promoted one: what came before the parting is shared.
        (state(500, B, replid2=A, parted_at=101), True, True),
        (state(99, B, replid2=A, parted_at=101), True, False),
        (state(500, B, replid2=A, parted_at=100), False, False),
        (state(500, B, replid2=A, parted_at=-1), False, False),
        (state(500, B, replid2=C, parted_at=400), False, False),
    ],
)
def test_places(replica: Replication, shares: bool, has: bool) -> None:
    token = Token(A, 100)
    assert (replica.shares(token), replica.has(token)) == (shares, has)


# Lag


def samples(*offsets: tuple[float, int]) -> MasterOffsets:
    master = MasterOffsets()
    for asked_at, offset in offsets:
        master.add(NODE, state(offset, asked_at=asked_at, is_master=True))
    return master


@pytest.mark.parametrize(
    ("offset", "behind", "late"),
    [
        (10, 20, 3.0),  # it has what the master had when it was asked at 1
        (19, 11, 3.0),
        (20, 10, 2.0),
        (30, 0, 1.0),
        (35, 0, 1.0),
        (9, 21, None),
    ],
)
def test_lag(offset: int, behind: int, late: float | None) -> None:
    master = samples((1.0, 10), (2.0, 20), (3.0, 30))
    assert master.bytes_behind(state(offset)) == behind
    assert master.seconds_behind(state(offset), 4.0) == late


def test_an_idle_master_makes_nobody_late() -> None:
    master = samples((1.0, 10), (2.0, 10), (3.0, 10))
    assert master.seconds_behind(state(10), 3.5) == 0.5


def test_nothing_is_known_of_another_history() -> None:
    assert MasterOffsets().bytes_behind(state(1)) is None
    assert MasterOffsets().seconds_behind(state(1), 1.0) is None
    master = samples((1.0, 10))
    assert master.bytes_behind(state(10, B)) is None
    assert master.seconds_behind(state(10, B), 1.0) is None
    master.add(NODE, state(12, B, asked_at=2.0))
    assert master.bytes_behind(state(10, A)) is None
    assert master.seconds_behind(state(11, B), 3.0) is None
    assert master.seconds_behind(state(12, B), 3.0) == 1.0


@given(st.data())
def test_the_lag_in_time_is_an_upper_bound(data: st.DataObject) -> None:
    """A master writes, a replica applies later; both are asked now and then."""
    steps = data.draw(st.lists(st.sampled_from("waMR"), max_size=60))
    now, written, applied = 0.0, 0, 0
    master, replica = MasterOffsets(), None
    written_at = [0.0]
    for step in steps:
        now += 1.0
        match step:
            case "w":
                written += 1
                written_at.append(now)
            case "a":
                applied = min(applied + 1, written)
            case "M":
                master.add(NODE, state(written, asked_at=now, is_master=True))
            case "R":
                replica = state(applied, asked_at=now)
        if replica is not None:
            late = master.seconds_behind(replica, now)
            if late is not None and applied < written:
                assert now - written_at[applied + 1] <= late


# Own writes


def test_a_view_that_wrote_nothing_may_ask_anybody() -> None:
    writes = OwnWrites()
    assert writes.settled
    assert writes.token is None
    assert writes.may_ask(NODE, state(0))


def test_a_write_has_to_be_answered_and_covered() -> None:
    writes = OwnWrites()
    writes.begin()
    assert not writes.settled
    assert writes.answered is None
    assert writes.end("reply") == "reply"
    assert not writes.settled
    mark = writes.answered
    assert mark is not None
    writes.cover(mark, Token(A, 10))
    assert writes.settled
    assert writes.token == Token(A, 10)


def test_a_write_after_the_question_is_not_covered_by_the_answer() -> None:
    writes = OwnWrites()
    writes.begin()
    writes.end(None)
    mark = writes.answered
    assert mark is not None
    writes.begin()
    writes.end(None)
    writes.cover(mark, Token(A, 10))
    assert not writes.settled
    later = writes.answered
    assert later is not None
    writes.cover(later, Token(A, 20))
    writes.cover(mark, Token(A, 15))  # an older answer that comes later
    assert writes.settled
    assert writes.token == Token(A, 20)


def test_a_replica_found_behind_is_asked_again_when_it_is_known_to_have_come() -> None:
    writes = OwnWrites()
    writes.cover(0, Token(A, 10))
    assert writes.may_ask(NODE, state(5))
    writes.found_behind(NODE)
    assert not writes.may_ask(NODE, state(9))
    assert not writes.may_ask(NODE, state(10, B))
    assert writes.may_ask(NODE, state(10))
    assert writes.may_ask(Address("n", 2), state(5))
    writes.cover(0, Token(A, 30))
    assert writes.may_ask(NODE, state(9))


def test_a_place_in_a_dead_history_is_renewed() -> None:
    writes = OwnWrites()
    writes.cover(0, Token(A, 10))
    writes.renew(Token(B, 10))  # said of an older place
    assert writes.settled
    writes.renew(Token(A, 10))
    assert not writes.settled
    writes.cover(0, Token(B, 4))
    assert writes.settled
