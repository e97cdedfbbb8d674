"""Full resyncs between two markers."""

from __future__ import annotations

import pytest

from txharedis.pubsub.resyncs import Standpoint, reaches_back, resynced

BEFORE = Standpoint("run", 1.0, 2, 500)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (None, BEFORE, False),
        (BEFORE, Standpoint("run", 2.0, 2, 900), False),
        (BEFORE, Standpoint("run", 2.0, 3, 900), True),
        (BEFORE, Standpoint("other", 2.0, 3, 900), False),
    ],
)
def test_a_full_resync_shows(before: Standpoint | None, after: Standpoint, found: bool) -> None:
    assert resynced(before, after) is found


@pytest.mark.parametrize(
    ("active", "begin", "found"),
    [
        ("1", "1", True),
        ("1", "501", True),
        ("1", "502", False),
        ("0", "1", False),
        ("1", "?", False),
    ],
)
def test_whose_it_was(active: str, begin: str, found: bool) -> None:
    info = {"repl_backlog_active": active, "repl_backlog_first_byte_offset": begin}
    assert reaches_back(info, BEFORE) is found


def test_what_a_master_says() -> None:
    info = {"master_repl_offset": "500"}
    assert Standpoint.read("run", 1.0, {"sync_full": "2"}, info) == BEFORE
    assert Standpoint.read("run", 1.0, {}, info) is None
    assert not reaches_back({}, BEFORE)
