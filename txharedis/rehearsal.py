"""What would happen if the master died now: the rules of the election, asked in advance."""

from __future__ import annotations

from dataclasses import dataclass, replace

from txharedis.election import Decision, Follow, decide
from txharedis.group import Survey
from txharedis.topology import Address, NodeView, Status

__all__ = ["Rehearsal", "rehearse"]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`decision` is what the clients that may elect would do if `master`, which all follow now,
    refused every connection: Elect with the candidates, best first, or Wait or Refuse with the
    reason.

    `master` is None when there is none now: then it is what they do.
    """

    master: Address | None
    decision: Decision


def rehearse(survey: Survey) -> Rehearsal:
    """See Rehearsal; nothing is asked and nothing is changed."""
    now = survey.decision
    if not isinstance(now, Follow):
        if survey.evidence.follows_only:  # this client does less than they do
            now = decide(survey.views, replace(survey.evidence, follows_only=False))
        return Rehearsal(None, now)
    views = {
        address: _orphaned(view, now.master)
        for address, view in survey.views.items()
        if address != now.master
    }
    evidence = replace(
        survey.evidence,
        status={**survey.evidence.status, now.master: Status.REFUSED},
        doubt="",
        follows_only=False,
    )
    return Rehearsal(now.master, decide(views, evidence))


def _orphaned(view: NodeView, master: Address) -> NodeView:
    """How a replica looks a moment after its master has died."""
    if view.follows != master:
        return view
    down_for = 0 if view.linked_before else view.link_down_for
    return replace(view, link_up=False, last_io=-1, link_down_for=down_for)
