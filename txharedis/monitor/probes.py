"""The answers to load balancers and supervisors, as functions of the state of the group.

Each takes the state as `GET /cluster` gives it. Where Patroni's REST API has a check of the same
name, it means the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from txharedis.errors import InvalidOption
from txharedis.topology import Address

__all__ = [
    "CHECKS",
    "Answer",
    "BadParameter",
    "Check",
    "Lag",
    "UnknownNode",
    "health",
    "liveness",
    "parse_lag",
    "parse_node",
    "primary",
    "read_only",
    "readiness",
    "replica",
]

Cluster = Mapping[str, Any]
Node = Mapping[str, Any]


_UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40}
_SECONDS = {"ms": 0.001, "s": 1.0}


class BadParameter(ValueError):
    """A parameter that means nothing; the text names it."""


class UnknownNode(LookupError):
    """A node that is not one of the group's; the text names it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe says: `code` is 200 or 503, `body` says why."""

    code: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind a replica may be: `bytes`, or `seconds`; None for any."""

    bytes: int | None = None
    seconds: float | None = None


Check: TypeAlias = Callable[[Cluster, Node | None, Lag | None], Answer]


def _yes(why: str, **more: Any) -> Answer:
    return Answer(200, {"ok": True, "why": why, **more})


def _no(why: str, **more: Any) -> Answer:
    return Answer(503, {"ok": False, "why": why, **more})


# Parameters.


def parse_lag(text: str) -> Lag:
    """Read "1048576", "10MB" (kB, MB, GB, TB count 1024), "500ms" or "2s"; else BadParameter."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,2})", text, re.ASCII)
    unit = "" if match is None else match[2].lower()
    if match is None or not (unit in _UNITS or unit in _SECONDS):
        raise BadParameter(f"lag={text!r} is neither bytes (1048576, 10MB) nor a time (500ms, 2s)")
    if unit in _SECONDS:
        return Lag(seconds=float(match[1]) * _SECONDS[unit])
    return Lag(bytes=int(float(match[1]) * _UNITS[unit]))


def parse_node(cluster: Cluster, text: str) -> Node:
    """The node that this names, as in --node: BadParameter when it names none, else UnknownNode."""
    try:
        name = str(Address.parse(text))
    except InvalidOption:
        raise BadParameter(f"node={text!r} is not a node (host:port)") from None
    for node in cluster["nodes"]:
        if node["node"] == name:
            return dict(node)
    raise UnknownNode(f"{name} is not one of the nodes")


# Of the process, and of the group.


def liveness(stands_still: bool) -> Answer:
    """Whether this process works, however the group is."""
    if stands_still:
        return _no("the monitor has not looked at the group for more than 10 s")
    return _yes("the monitor works")


def readiness(cluster: Cluster) -> Answer:
    """Whether commands flow to a master."""
    trouble = _no_master(cluster)
    if trouble:
        return _no(trouble, state=cluster["state"])
    return _yes(f"commands flow to {cluster['master']}", master=cluster["master"])


def health(cluster: Cluster) -> Answer:
    """Whether there is a master; the body tells whether all is well."""
    body = {"state": cluster["state"], "master": cluster["master"], "why": list(cluster["why"])}
    code = 503 if cluster["state"] == "no master" else 200
    return Answer(code, {"ok": code == 200, **body})


def _no_master(cluster: Cluster) -> str:
    """Why nothing may be written now, "" when something may."""
    if cluster["master"] is None:
        return "; ".join(["no master", *cluster["why"][:1]])
    if not cluster["quorum_ok"]:
        return f"no quorum of nodes answers, so {cluster['master']} may have been replaced"
    [node] = [node for node in cluster["nodes"] if node["node"] == cluster["master"]]
    if len(cluster["nodes"]) == 1 and node["role"] == "replica":
        return f"{node['node']} is a replica now"
    return _not_up(node)


def _not_up(node: Node) -> str:
    name = node["node"]
    if node["status"] != "up":
        return f"{name} is {node['status']}" + (f": {node['reason']}" if node["reason"] else "")
    return f"{name} is loading its data" if node["loading"] else ""


# Of the nodes.


def primary(cluster: Cluster, node: Node | None = None) -> Answer:
    """Whether this node is the master that commands go to; without a node, whether there is one."""
    trouble = _no_master(cluster)
    master = cluster["master"]
    if trouble:
        return _no(trouble)
    if node is None:
        return _yes(f"{master} is the master", master=master)
    if node["node"] != master:
        return _no(f"{node['node']} is not the master: {master} is", master=master)
    if node["role"] == "replica":
        return _no(f"{master} is a replica now")
    return _yes(f"{master} is the master", master=master)


def replica(cluster: Cluster, node: Node | None = None, lag: Lag | None = None) -> Answer:
    """Whether this node is a replica that may be read from; without a node, whether one is."""
    allowed = Lag() if lag is None else lag
    return _first(cluster, node, lambda one: _replica(cluster, one, allowed))


def read_only(cluster: Cluster, node: Node | None = None, lag: Lag | None = None) -> Answer:
    """Whether this node is the master, or such a replica; without a node, whether one is."""

    def either(one: Node) -> Answer:
        found = primary(cluster, one)
        return found if found.code == 200 else replica(cluster, one, lag)

    return _first(cluster, node, either)


def _first(cluster: Cluster, node: Node | None, check: Callable[[Node], Answer]) -> Answer:
    """The answer for this node; without one, that for the first that will do."""
    if node is not None:
        return check(node)
    answers = [check(one) for one in cluster["nodes"]]
    for found in answers:
        if found.code == 200:
            return found
    return _no("; ".join(found.body["why"] for found in answers))


def _replica(cluster: Cluster, node: Node, allowed: Lag) -> Answer:
    trouble = _not_up(node) or _unfit(cluster, node) or _behind(node, allowed)
    facts = {name: node[name] for name in ("node", "role", "lag_bytes", "lag_seconds")}
    if trouble:
        return _no(trouble, **facts)
    return _yes(f"{node['node']} is a replica of {node['follows'] or 'the master'}", **facts)


def _unfit(cluster: Cluster, node: Node) -> str:
    name, follows = node["node"], node["follows"]
    if node["role"] != "replica" or name == cluster["master"]:
        return f"{name} is no replica"
    if cluster["master"] is not None and follows and follows != cluster["master"]:
        return f"{name} follows {follows}, not {cluster['master']}"
    if node["link"] != "up":
        return f"the link of {name} to its master is {node['link'] or 'not known'}"
    return ""


def _behind(node: Node, allowed: Lag) -> str:
    measures: Sequence[tuple[float | None, float | None, str]] = (
        (allowed.bytes, node["lag_bytes"], "bytes"),
        (allowed.seconds, node["lag_seconds"], "s"),
    )
    for most, lag, unit in measures:
        if most is None:
            continue
        if lag is None:
            return f"the lag of {node['node']} is not known"
        if lag > most:
            return f"{node['node']} is {lag:g} {unit} behind, more than {most:g} {unit}"
    return ""


CHECKS: Mapping[str, Check] = {
    "primary": lambda cluster, node, _: primary(cluster, node),
    "replica": replica,
    "read-only": read_only,
}
"""The checks of `/<name>?node=` and of `/node/<host:port>/<name>`."""
