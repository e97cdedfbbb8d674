"""How much of an old master's history a new one does without, and what was last heard of it."""

from __future__ import annotations

import pytest

from txharedis.losses import LastWords
from txharedis.reads.lag import Replication
from txharedis.topology import Address, NodeView, Role

OLD, NEW, OTHER, NONE = "o" * 40, "n" * 40, "x" * 40, "0" * 40


def master(
    port: int, offset: int, replid: str, replid2: str = NONE, parted_at: int = -1
) -> NodeView:
    return NodeView(
        Address("h", port),
        f"run{port}",
        Role.MASTER,
        offset=offset,
        replid=replid,
        replid2=replid2,
        parted_at=parted_at,
    )


@pytest.mark.parametrize(
    ("old", "new", "count"),
    [
        # It has the new one's old history, beyond the place where they parted.
        (master(1, 150, OLD), master(2, 900, NEW, OLD, 101), 50),
        (master(1, 100, OLD), master(2, 900, NEW, OLD, 101), 0),
        (master(1, 90, OLD), master(2, 900, NEW, OLD, 101), 0),
        # As the new one said of itself right before its promotion.
        (master(1, 150, OLD), master(2, 100, OLD), 50),
        (master(1, 90, OLD), master(2, 100, OLD), 0),
        # It has restarted; or there was another failover meanwhile; or nothing is known.
        (master(1, 150, OTHER), master(2, 900, NEW, OLD, 101), None),
        (master(1, 150, OTHER, OLD, 80), master(2, 900, NEW, OLD, 101), None),
        (master(1, 150, NONE), master(2, 900, NEW, NONE, -1), None),
        (master(1, 150, ""), master(2, 900, NEW, "", 5), None),
    ],
)
def test_what_is_discarded(old: NodeView, new: NodeView, count: int | None) -> None:
    assert new.discards(old) == count


def heard(offset: int, at: float, *, is_master: bool = True) -> Replication:
    return Replication(asked_at=at, is_master=is_master, offset=offset, replid=OLD)


def test_the_newest_word_of_the_master_counts() -> None:
    words = LastWords()
    words.heard(Address("h", 1), heard(1, 0.5))
    assert words.newest is None  # nobody is followed
    words.followed(master(1, 100, OLD), 1.0)
    words.heard(Address("h", 1), heard(120, 2.0))
    words.heard(Address("h", 2), heard(999, 3.0))
    words.heard(Address("h", 1), heard(999, 3.0, is_master=False))
    words.heard(Address("h", 1), None)
    assert words.newest is not None
    assert (words.newest.offset, words.newest.at) == (120, 2.0)
    assert words.newest.compares_with(master(2, 110, OLD))
    assert words.newest.compares_with(master(2, 110, NEW, OLD, 111))
    assert not words.newest.compares_with(master(2, 110, NEW))
