"""A master that did not answer one survey is not dead, whatever the replicas' links look like."""

from __future__ import annotations

import pytest

from txharedis.election import Evidence, Wait, decide
from txharedis.topology import Address, NodeView, Role, Status

NODES = tuple(Address("127.0.0.1", port) for port in (7001, 7002, 7003))


def replica(address: Address, follows: Address) -> NodeView:
    return NodeView(
        address, str(address), Role.REPLICA, follows=follows, link_up=True, last_io=0, replid="h"
    )


@pytest.mark.parametrize("status", [Status.UP, Status.DIALLING, Status.DROPPED, Status.REFUSED])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_head_of_a_chain_is_the_master(order: tuple[int, int, int], status: Status) -> None:
    head, middle, tail = (NODES[place] for place in order)
    views = {middle: replica(middle, head), tail: replica(tail, middle)}
    evidence = Evidence(NODES, {head: status, middle: Status.UP, tail: Status.UP}, down_after=3.0)
    decision = decide(views, evidence)
    assert isinstance(decision, Wait)
    assert str(head) in decision.reason
