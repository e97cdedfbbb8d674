"""What would happen if the master died now: the rules of the election, asked in advance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from txharedis.election import Decision, Elect, Evidence, Follow, Refuse, Wait, decide
from txharedis.group import Survey
from txharedis.topology import META_KEY, Address, NodeView, Status
from txharedis.values import Value

__all__ = ["Rehearsal", "rehearse"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Rehearsal(Value):
    """`decision` is what the clients that may elect would do if `master`, which all follow now,
    refused every connection: Elect with the candidates, best first, or Wait or Refuse with the
    reason.

    `master` is None when there is none now: then it is what they do.

    Elect without candidates: they would elect one, and our user may not read the keys that tell
    which; `reason` names the nodes.
    """

    master: Address | None
    decision: Decision


def rehearse(survey: Survey) -> Rehearsal:
    """See Rehearsal; nothing is asked and nothing is changed."""
    now = survey.decision
    if not isinstance(now, Follow):
        if not survey.evidence.follows_only:
            return Rehearsal(None, now)
        # This client does less than they do.
        decision = _of_others(survey.views, survey.evidence)
        if isinstance(decision, Elect) and not decision.candidates:
            decision = replace(decision, reason=f"{now.reason} ({decision.reason})")
        return Rehearsal(None, decision)
    views = {
        address: _orphaned(view, now.master)
        for address, view in survey.views.items()
        if address != now.master
    }
    evidence = replace(
        survey.evidence,
        status={**survey.evidence.status, now.master: Status.REFUSED},
        doubt="",
    )
    return Rehearsal(now.master, _of_others(views, evidence))


def _of_others(views: Mapping[Address, NodeView], evidence: Evidence) -> Decision:
    """What clients that have all rights decide, as far as our user can see it."""
    decision = decide(views, replace(evidence, follows_only=False))
    hidden = ", ".join(str(address) for address, view in views.items() if view.blind)
    if not hidden or not isinstance(decision, Wait):
        return decision
    by_roles = decide(views, replace(evidence, follows_only=True))
    if isinstance(by_roles, Refuse) or (isinstance(by_roles, Wait) and not by_roles.newer):
        return by_roles  # so would everybody
    return Elect((), f"our user may not read {META_KEY} on {hidden}")


def _orphaned(view: NodeView, master: Address) -> NodeView:
    """How a replica looks a moment after its master has died."""
    if view.follows != master:
        return view
    down_for = 0 if view.linked_before else view.link_down_for
    return replace(view, link_up=False, last_io=-1, link_down_for=down_for)
