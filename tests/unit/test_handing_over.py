"""What clients decide that look while another one moves the master: they wait, and do not fight."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_election import decision_on, evidence, in_short, master, replica
from txharedis.election import Wait
from txharedis.topology import NodeView

# The old master follows the new one, whose copy of the meta still names the old one.
HISTORY: dict[str, Any] = {"replid": "a" * 40, "offset": 100}
LET_GO = replica(1, 2, **HISTORY)
TAKEN_OVER = master(2, meta_run_id="run1", meta_master="n:1", **HISTORY)
LAST = replica(3, 1, **HISTORY)


def moving(**fields: Any) -> list[NodeView]:
    return [
        replica(1, 2, **HISTORY, **fields),
        master(2, meta_run_id="run1", meta_master="n:1", locked=True, **HISTORY),
        replica(3, 1, **HISTORY),
    ]


def test_they_wait_while_somebody_holds_the_lock() -> None:
    decision = decision_on(moving(), evidence(epoch=1))
    assert isinstance(decision, Wait)
    assert "hands over to another master" in decision.reason
    assert not decision.newer  # so nobody drops a link with writes on it


def test_whoever_takes_the_lock_when_it_has_expired_finishes_it() -> None:
    assert in_short(decision_on([LET_GO, TAKEN_OVER, LAST], evidence(epoch=1))) == "elect 2 1 3"
    assert in_short(decision_on(moving(), evidence(epoch=1, lock_is_ours=True))) == "elect 2 1 3"


@pytest.mark.parametrize(("stuck", "short"), [(False, "wait"), (True, "elect 2 1 3")])
def test_a_server_that_hands_over_is_given_its_time(stuck: bool, short: str) -> None:
    views = [replica(1, 2, failing_over=True, **HISTORY), TAKEN_OVER, LAST]
    assert in_short(decision_on(views, evidence(epoch=1, stuck=stuck))) == short


def test_a_master_that_parks_writes_is_followed_all_the_while() -> None:
    views = [
        master(1, failing_over=True, locked=True, **HISTORY),
        replica(2, 1, locked=True, **HISTORY),
        replica(3, 1, locked=True, **HISTORY),
    ]
    assert in_short(decision_on(views, evidence(epoch=1))) == "follow 1"


def test_of_a_dead_master_nobody_waits_for_the_lock() -> None:
    """It is the lock of a failover then; the lock itself says who is first."""
    views = [replica(n, 1, link_up=False, last_io=-1, locked=True, **HISTORY) for n in (2, 3)]
    assert in_short(decision_on(views, evidence(epoch=1))) == "elect 2 3"
