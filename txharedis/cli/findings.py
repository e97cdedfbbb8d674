"""What `haredis check` finds: the rules, as pure functions of what the nodes say."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from txharedis.election import Decision, Elect, Refuse, Wait, majority
from txharedis.rights import ACTING, HEARING

__all__ = [
    "Finding",
    "Level",
    "clocks",
    "election",
    "nodes_up",
    "quorum",
    "rights",
    "together",
    "versions",
]


class Level(enum.Enum):
    """How bad it is; the value is the word for people."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    `topic` is a word, `nodes` are those that it is about, none when it is about the group.
    """

    level: Level
    topic: str
    text: str
    nodes: tuple[str, ...] = ()


def together(findings: Iterable[Finding], count: int) -> list[Finding]:
    """What is found of several nodes as one finding; of all `count` of them without their names."""
    merged: dict[tuple[Level, str, str], list[str]] = {}
    for finding in findings:
        merged.setdefault((finding.level, finding.topic, finding.text), []).extend(finding.nodes)
    return [
        Finding(*key, () if len(nodes) == count > 1 else tuple(nodes))
        for key, nodes in merged.items()
    ]


def nodes_up(state: Mapping[str, Any]) -> Iterator[Finding]:
    """How the group is now: `state` is that of cluster_state."""
    level = {"degraded": Level.WARNING, "no master": Level.PROBLEM}.get(state["state"], Level.OK)
    for why in state["why"]:
        yield Finding(level, "group", why)
    if not state["why"]:
        count = len(state["nodes"])
        replicas = f", {count - 1} replicas follow it" if count > 1 else ""
        yield Finding(Level.OK, "group", f"{state['master']} is the master{replicas}")


def quorum(count: int, up: int, twins: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Whether a majority survives: `up` of `count` nodes are up, `twins` are one server each."""
    for one, other in twins:
        yield Finding(Level.PROBLEM, "quorum", f"{one} and {other} are one server")
    if count == 1:
        yield Finding(Level.WARNING, "quorum", "one node alone: nothing can take its place")
        return
    needed = majority(count)
    if count == 2:
        text = "two nodes cannot fail over: add a third, which may be a small one with"
        yield Finding(Level.PROBLEM, "quorum", f"{text} replica-priority 0")
    elif count % 2 == 0:
        text = f"{count} nodes survive the loss of {count - needed}, as {count - 1} do: add one"
        yield Finding(Level.WARNING, "quorum", text)
    if up < needed:
        text = f"{up} of {count} nodes are up, {needed} needed"
        yield Finding(Level.PROBLEM, "quorum", text)
    elif count > 2 and up == needed:
        text = f"{up} of {count} nodes are up: one more loss, and there is no quorum"
        yield Finding(Level.WARNING, "quorum", text)
    elif count > 2 and count % 2:
        text = f"{up} of {count} nodes are up, {needed} needed"
        yield Finding(Level.OK, "quorum", text)


def rights(
    user: str, missing: Mapping[str, Sequence[str]], silent: Collection[str]
) -> Iterator[Finding]:
    """What `user` may not do on each node that could be asked; the `silent` did not answer."""
    advice = "(docs/operations.md, Rights)"
    for node, names in missing.items():
        for_failover = [name for name in names if name not in HEARING]
        if node in silent:
            text = f"what user {user!r} may do is not answered: are writes held back?"
            yield Finding(Level.WARNING, "rights", text, (node,))
        elif not for_failover:
            text = f"user {user!r} has all that a failover takes"
            yield Finding(Level.OK, "rights", text, (node,))
        if for_failover:
            what = "it follows only" if set(names) <= ACTING else "it cannot even vote there"
            text = f"user {user!r} may not {', '.join(for_failover)}: {what} {advice}"
            yield Finding(Level.PROBLEM, "rights", text, (node,))
        if len(for_failover) < len(names):
            hearing = ", ".join(name for name in names if name in HEARING)
            text = f"user {user!r} may not {hearing}: it hears of failovers later {advice}"
            yield Finding(Level.WARNING, "rights", text, (node,))


#: The oldest that knows all that a switchover takes.
OLDEST, FOR_SWITCHOVER = (5, 0), (6, 2)


def versions(said: Mapping[str, str]) -> Iterator[Finding]:
    """`said` is the version of each node, as "redis 7.0.15", "" where it is unknown."""
    known = {node: version for node, version in said.items() if version}
    for node, version in known.items():
        found = re.search(r"(\d+)\.(\d+)", version)
        number = (int(found[1]), int(found[2])) if found else FOR_SWITCHOVER
        if number < OLDEST:
            text = f"{version} is too old: 5.0 or later is needed"
            yield Finding(Level.PROBLEM, "versions", text, (node,))
        elif number < FOR_SWITCHOVER:
            text = f"{version}: a switchover takes 6.2 or later"
            yield Finding(Level.WARNING, "versions", text, (node,))
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{node} {version}" for node, version in known.items())
        text = f"mixed: {listed}; an older one may not be able to copy the data of a newer one"
        yield Finding(Level.WARNING, "versions", text)
    elif known:
        yield Finding(Level.OK, "versions", next(iter(known.values())), tuple(known))


#: Seconds by which clocks may differ before it is worth a line.
SKEW = 1.0


def clocks(ahead: Mapping[str, float]) -> Iterator[Finding]:
    """`ahead` is by how many seconds each node's clock is ahead of ours."""
    if not ahead:
        return
    first, last = min(ahead, key=ahead.__getitem__), max(ahead, key=ahead.__getitem__)
    apart = ahead[last] - ahead[first]
    if apart > SKEW:
        text = (
            f"{last} is {apart:.1f} s ahead of {first}: failovers do not mind, keys that expire do"
        )
        yield Finding(Level.WARNING, "clocks", text)
    elif max(map(abs, ahead.values())) > SKEW:
        yield Finding(Level.WARNING, "clocks", f"they are {ahead[last]:+.1f} s off this machine's")
    else:
        yield Finding(Level.OK, "clocks", f"within {SKEW:g} s of each other and of this machine's")


def election(master: object, decision: Decision) -> Finding:
    """What would happen if the master died now, or happens without one."""
    when = "now, without a master," if master is None else f"if {master} died now"
    match decision:
        case Elect(candidates=(first, *others), why=why):
            rest = f"; after it {', '.join(str(view.address) for view in others)}" if others else ""
            text = f"{when} {first.address} would be elected: {why}{rest}"
            return Finding(Level.OK, "failover", text)
        case Wait(reason=reason) | Refuse(reason=reason):
            return Finding(Level.PROBLEM, "failover", f"{when} nobody would be elected: {reason}")
        case Elect(reason=reason):
            text = f"{when} it cannot be told who would be elected: {reason}"
            return Finding(Level.PROBLEM, "failover", text)
    return Finding(Level.PROBLEM, "failover", f"{when} it is not clear who would be elected")
