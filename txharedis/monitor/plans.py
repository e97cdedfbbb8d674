"""What would be done, for people and programs to read before it is."""

from __future__ import annotations

from typing import Any

from txharedis.election import Elect, Follow
from txharedis.orders import Plan
from txharedis.rehearsal import Rehearsal
from txharedis.topology import NodeView

__all__ = ["failover_plan", "switchover_plan"]


def failover_plan(rehearsal: Rehearsal) -> dict[str, Any]:
    """What the clients would do if the master died now; without one, what they do.

    `would` is "elect" (then there are a `winner` and the `candidates`, best first; none when our
    user may not see who), "wait", "refuse", or "follow": there is a master that is not used yet.
    """
    decision = rehearsal.decision
    plan: dict[str, Any] = {
        "master": None if rehearsal.master is None else str(rehearsal.master),
        "would": type(decision).__name__.lower(),
        "winner": None,
        "reason": "" if isinstance(decision, Follow) else decision.reason,
        "why": "",
        "candidates": [],
    }
    if isinstance(decision, Elect) and decision.candidates:
        plan["winner"] = str(decision.candidates[0].address)
        plan["why"] = decision.why
        plan["candidates"] = [_candidate(view) for view in decision.candidates]
    return plan


def switchover_plan(plan: Plan) -> dict[str, Any]:
    """Whom a switchover would promote now."""
    return {
        "master": str(plan.old),
        "would": "switch over",
        "winner": str(plan.new),
        "why": plan.why,
    }


def _candidate(view: NodeView) -> dict[str, Any]:
    return {
        "node": str(view.address),
        "epoch": view.epoch,
        "opcounter": view.opcounter,
        "offset": view.offset,
        "priority": view.priority,
    }
