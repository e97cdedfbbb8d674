"""What would happen if the master died: the election's own answer to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from txharedis.election import Elect, Evidence, Follow, Refuse, Wait, decide
from txharedis.group import Memory, Survey
from txharedis.rehearsal import rehearse
from txharedis.topology import Address, NodeView, Role, Status

A, B, C = NODES = tuple(Address("n", port) for port in (1, 2, 3))


def view(node: Address, **fields: Any) -> NodeView:
    base = NodeView(
        address=node,
        run_id=f"run{node.port}",
        role=Role.REPLICA,
        follows=A,
        follows_text=str(A),
        link_up=True,
        last_io=0,
        offset=100,
        replid="h" * 40,
        epoch=3,
        group="g",
        meta_master=str(A),
        meta_run_id="run1",
        opcounter=7,
        keys=1,
        uptime=60,
    )
    return replace(base, **fields)


def master(node: Address = A) -> NodeView:
    return view(node, role=Role.MASTER, follows=None, follows_text="", link_up=False)


def survey(*views: NodeView, **status: Status) -> Survey:
    seen = {one.address: one for one in views}
    standing = {node: Status.UP if node in seen else Status.REFUSED for node in NODES}
    evidence = Evidence(NODES, standing, 3.0, epoch=3, group="g", history="h" * 40)
    return Survey(seen, decide(seen, evidence), {}, 3, Memory(3, "g"), evidence)


def test_the_freshest_replica_would_win() -> None:
    now = survey(master(), view(B, offset=90, opcounter=6), view(C))
    assert isinstance(now.decision, Follow)
    rehearsal = rehearse(now)
    assert rehearsal.master == A
    assert isinstance(rehearsal.decision, Elect)
    assert [candidate.address for candidate in rehearsal.decision.candidates] == [C, B]
    assert rehearsal.decision.why
    assert now.views[B].link_up  # the survey itself is as it was


def test_without_a_quorum_nobody_would() -> None:
    rehearsal = rehearse(survey(master(), view(B)))
    assert rehearsal.master == A
    assert isinstance(rehearsal.decision, Wait)


def test_who_may_not_is_no_candidate() -> None:
    rehearsal = rehearse(survey(master(), view(B, priority=0), view(C, opcounter=6, offset=90)))
    decision = rehearsal.decision
    if isinstance(decision, Elect):  # it says who; a witness that alone has the newest blocks it
        assert B not in [candidate.address for candidate in decision.candidates]
    else:
        assert isinstance(decision, (Wait, Refuse))
        assert decision.reason


def test_without_a_master_it_is_what_they_do_now() -> None:
    now = survey(view(B, link_up=False, link_down_for=5), view(C, link_up=False, link_down_for=5))
    assert isinstance(now.decision, Elect)
    assert rehearse(now).master is None
    assert rehearse(now).decision is now.decision


def test_a_client_that_only_follows_can_tell_what_the_others_would_do() -> None:
    for views in (
        (master(), view(B), view(C)),
        (view(B, link_up=False, link_down_for=5), view(C, link_up=False, link_down_for=5)),
    ):
        seen = survey(*views)
        follower = replace(seen.evidence, follows_only=True)
        decision = decide(seen.views, follower)
        assert not isinstance(decision, Elect)
        told = rehearse(replace(seen, evidence=follower, decision=decision))
        assert told == rehearse(seen)
        assert isinstance(told.decision, Elect)


def blind(address: Address, role: Role = Role.REPLICA) -> NodeView:
    follows = A if role is Role.REPLICA else None
    return NodeView(address=address, run_id="", role=role, follows=follows, blind=True)


def followed(*views: NodeView) -> Survey:
    """As a client sees them whose user may only follow."""
    now = survey(*views)
    evidence = replace(now.evidence, follows_only=True, epoch=0, group="", history="")
    return replace(now, evidence=evidence, decision=decide(now.views, evidence))


def test_who_cannot_see_the_keys_cannot_tell_who_would_win() -> None:
    now = followed(blind(A, Role.MASTER), blind(B), blind(C))
    assert isinstance(now.decision, Follow)
    rehearsal = rehearse(now)
    assert rehearsal.master == A
    # The nodes do answer, so it is no lack of a quorum.
    reason = "our user may not read haredis:meta on n:2, n:3"
    assert rehearsal.decision == Elect((), reason)


def test_who_cannot_see_the_keys_says_what_he_sees_without_a_master() -> None:
    now = followed(blind(A, Role.MASTER), blind(B, Role.MASTER), blind(C))
    decision = rehearse(now).decision
    assert isinstance(decision, Elect)
    assert not decision.candidates
    assert "2 nodes say that they are master (n:1, n:2)" in decision.reason
    assert "may not read haredis:meta on n:1, n:2, n:3" in decision.reason


def test_who_cannot_see_the_keys_still_counts_the_nodes() -> None:
    decision = rehearse(followed(blind(A, Role.MASTER))).decision
    assert isinstance(decision, Wait)
    assert decision.reason.startswith("no quorum: 1 of 3 nodes answer")
    decision = rehearse(followed(blind(A, Role.MASTER), blind(B))).decision
    assert isinstance(decision, Wait)
    assert decision.reason == (
        "no quorum: 1 of 3 nodes answer, 2 needed (n:1 refused, n:3 refused)"
    )
