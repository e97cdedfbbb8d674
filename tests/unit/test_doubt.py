"""When a master that claims to be one may have a successor already."""

from __future__ import annotations

from dataclasses import replace

import pytest

from txharedis.campaign import _holds_as_much
from txharedis.election import Evidence, Follow, Wait, decide, doubt_of
from txharedis.topology import Address, NodeView, Role, Status

NODES = tuple(Address("n", number) for number in (1, 2, 3))
OLD = NodeView(
    NODES[0],
    "run1",
    Role.MASTER,
    epoch=1,
    group="g",
    meta_master="n:1",
    meta_run_id="run1",
    vote=1,
    offset=100,
    opcounter=10,
    replid="a" * 40,
)
LOYAL = replace(OLD, address=NODES[2], run_id="run3", role=Role.REPLICA, follows=NODES[0])


@pytest.mark.parametrize(
    ("replica", "following", "doubted"),
    [
        (LOYAL, False, False),
        # It was sent to node 2, which is not seen, for an epoch that it granted.
        (replace(LOYAL, follows=NODES[1], vote=2), False, True),
        (replace(LOYAL, follows=NODES[1], vote=2), True, True),
        # It follows node 2 by mistake: nobody has asked it for a newer epoch.
        (replace(LOYAL, follows=NODES[1]), False, False),
        # It still follows the master of before, which is gone; somebody asked for a newer epoch.
        (replace(LOYAL, follows=NODES[1], meta_master="n:2", vote=2), False, False),
        # Somebody is at it, with a failover or a repair.
        (replace(LOYAL, vote=2, locked=True), False, True),
        (replace(LOYAL, vote=2, locked=True), True, False),
        # Somebody was at it, and it came to nothing.
        (replace(LOYAL, vote=2), False, False),
    ],
)
def test_doubt(replica: NodeView, following: bool, doubted: bool) -> None:
    assert bool(doubt_of([OLD, replica], following=following)) is doubted


def test_there_is_no_doubt_of_a_master_that_replicas_follow_at_its_own_epoch() -> None:
    new = replace(OLD, address=NODES[1], run_id="run2", epoch=2, meta_run_id="run2", vote=2)
    follower = replace(LOYAL, follows=NODES[1], vote=2)
    assert doubt_of([OLD, new, follower], following=False) == ""


@pytest.mark.parametrize(("doubt", "kind"), [("", Follow), ("a newer one", Wait)])
def test_a_doubted_master_is_waited_for(doubt: str, kind: type) -> None:
    views = {view.address: view for view in (OLD, LOYAL)}
    status = {NODES[0]: Status.UP, NODES[1]: Status.SILENT, NODES[2]: Status.UP}
    decision = decide(views, Evidence(NODES, status, down_after=3.0, doubt=doubt))
    assert isinstance(decision, kind)
    assert getattr(decision, "newer", bool(doubt)) is bool(doubt)


@pytest.mark.parametrize(
    ("changes", "enough"),
    [
        ({}, True),
        ({"offset": 99}, True),  # a PING of the master less
        ({"opcounter": 9, "offset": 99}, False),  # a write less
        ({"opcounter": 0, "offset": 99}, False),
        ({"epoch": 0}, False),
        ({"replid": "b" * 40}, False),
    ],
)
def test_who_may_stand_in_for_a_winner_that_refuses(
    changes: dict[str, object], enough: bool
) -> None:
    assert _holds_as_much(replace(LOYAL, **changes), LOYAL) is enough  # type: ignore[arg-type]
