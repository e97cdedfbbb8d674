"""The state of a group as plain values, ready for JSON: the same for a page and for a terminal."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from txharedis.inspection import NodeReport
from txharedis.rights import HEARING
from txharedis.topology import Address, NodePicture, Role, Status, Topology

__all__ = ["DEGRADED", "HEALTHY", "NO_MASTER", "Health", "cluster_state", "health"]

HEALTHY, DEGRADED, NO_MASTER = "healthy", "degraded", "no master"

_ROLES = {"master": Role.MASTER, "slave": Role.REPLICA, "replica": Role.REPLICA}


@dataclass(frozen=True, slots=True)
class Health:
    """`state` is HEALTHY, DEGRADED or NO_MASTER; `why` are sentences, none when it is healthy."""

    state: str
    why: tuple[str, ...] = ()


def cluster_state(
    topology: Topology,
    reports: Mapping[Address, NodeReport],
    *,
    phase: str,
    elects: bool,
    version: str,
    at: float,
    asked: Collection[Address] | None = None,
    lag_seconds: Mapping[Address, float] | None = None,
    failover: Mapping[str, Any] | None = None,
    reason: str = "",
    db_num: int = 15,
) -> dict[str, Any]:
    """The whole state, as `GET /cluster` gives it.

    `reports` are those of `client.inspect()`, {} when nobody was asked; `asked` who was, by default
    all nodes if there are reports: of one that gave none the lag is not known. `phase` is the word
    of the service's Phase, `elects` whether this client takes part in failovers, `version` that of
    txharedis, `at` seconds since 1970. `lag_seconds` is how far in time each replica is behind;
    `failover` tells of one that is under way here; `reason` why there is no master, if it is known;
    `db_num` is the database of the keys that clients share.
    What is unknown is None.
    """
    master = None if topology.master is None else reports.get(topology.master)
    lags = lag_seconds or {}
    if asked is None:
        asked = [picture.address for picture in topology.nodes] if reports else ()
    unheard = {address for address in asked if address not in reports}
    nodes = [
        _node(picture, reports.get(picture.address), master, topology.master, lags, unheard)
        for picture in topology.nodes
    ]
    quorum_ok = _answering(topology, reports) >= topology.quorum
    health_now = health(
        nodes,
        master=None if topology.master is None else str(topology.master),
        quorum=topology.quorum,
        quorum_ok=quorum_ok,
        elects=elects,
        reason=reason,
        unheard={str(address) for address in unheard},
        strangers=_strangers(topology, reports, db_num),
    )
    lost = health_now.state == NO_MASTER
    heard = [p.listeners for p in topology.nodes if p.listeners is not None]
    # A client that has not followed a master yet knows of its group what the nodes say.
    newest = max(topology.nodes, key=lambda picture: picture.epoch, default=None)
    known = topology if topology.epoch or newest is None else newest
    return {
        "version": version,
        "at": at,
        "state": health_now.state,
        "why": list(health_now.why),
        # A client that has lost its master still follows it, until it knows better.
        "phase": "waiting" if lost and phase == "following" else phase,
        "master": None if topology.master is None else str(topology.master),
        "epoch": known.epoch,
        "group": known.group,
        "quorum": topology.quorum,
        "quorum_ok": quorum_ok,
        "elects": elects,
        "failover": None if failover is None else dict(failover),
        "clients": max(heard, default=None),
        "nodes": nodes,
    }


def health(
    nodes: Sequence[Mapping[str, Any]],
    *,
    master: str | None,
    quorum: int,
    quorum_ok: bool,
    elects: bool = False,
    reason: str = "",
    unheard: Collection[str] = (),
    strangers: Mapping[str, int] | None = None,
) -> Health:
    """How the group is, by its nodes as they stand in `cluster_state`, and why.

    Without a quorum there is no master to write to, whatever one of the nodes says of itself.
    A node that is alone is followed whatever it is; it takes writes as a master with its data only.
    `unheard` are the nodes that were asked for their INFO and gave none; `strangers` tells of
    masters that are not of this group how many keys they hold.
    """
    foreign = strangers or {}
    why = [
        sentence
        for node in nodes
        for sentence in _troubles(node, master, elects, unheard, foreign.get(node["node"], 0))
    ]
    useless = len(nodes) == 1 and (nodes[0]["role"] == "replica" or nodes[0]["loading"])
    up = sum(node["status"] == Status.UP.value for node in nodes)
    if master is None and not reason:
        reason = "no node is followed as the master"
    if not quorum_ok and not reason.startswith("no quorum"):
        why.insert(0, f"no quorum: {up} of {len(nodes)} nodes are up, {quorum} needed")
    if master is None:
        why.insert(0, reason)
    if master is None or not quorum_ok or useless:
        return Health(NO_MASTER, tuple(why))
    return Health(DEGRADED if why else HEALTHY, tuple(why))


def _answering(topology: Topology, reports: Mapping[Address, NodeReport]) -> int:
    """How many servers are up; one with two addresses counts once."""
    up = [picture.address for picture in topology.nodes if picture.status is Status.UP]
    named = {address: _said(reports.get(address)).get("run_id", "") for address in up}
    return len({run_id or address for address, run_id in named.items()})


def _strangers(
    topology: Topology, reports: Mapping[Address, NodeReport], db_num: int
) -> dict[str, int]:
    """How many keys each master holds that carries another group's id than ours, or none.

    A client does not make it a replica: its data would be gone.
    """
    found = {}
    for picture in topology.nodes:
        info = _said(reports.get(picture.address))
        if (
            topology.group not in ("", picture.group)
            and info.get("role") == "master"
            and not picture.missing_rights
        ):
            held = [
                value
                for name, value in info.items()
                if re.fullmatch("db[0-9]+", name) and name != f"db{db_num}"
            ]
            counts = [re.match("keys=([0-9]{1,18}),", value) for value in held]
            found[str(picture.address)] = sum(int(count[1]) for count in counts if count)
    return found


def _said(report: NodeReport | None) -> Mapping[str, str]:
    return {} if report is None else report.info


def _node(
    picture: NodePicture,
    report: NodeReport | None,
    master: NodeReport | None,
    master_address: Address | None,
    lags: Mapping[Address, float],
    unheard: Collection[Address],
) -> dict[str, Any]:
    up = picture.status is Status.UP
    info = _said(report) if up else {}
    role = _ROLES.get(info.get("role", ""), picture.role) if up else None
    is_master = picture.address == master_address and role is Role.MASTER
    old = picture.address in unheard or master_address in unheard
    lag = None if old else _lag(picture, info, _said(master), role)
    return {
        "node": str(picture.address),
        "role": None if role is None else role.value,
        "status": picture.status.value,
        "reason": picture.reason,
        "link": _link(picture, info) if role is Role.REPLICA else None,
        "follows": _follows(picture, info) if role is Role.REPLICA else "",
        "offset": _offset(picture, info) if up else None,
        "lag_bytes": 0 if is_master else lag,
        "lag_seconds": 0.0 if is_master else lags.get(picture.address) if up else None,
        "opcounter": None if report is None or not up else report.opcounter,
        "memory_bytes": _number(info, "used_memory"),
        "memory_max_bytes": _number(info, "maxmemory"),
        "connected_clients": _number(info, "connected_clients"),
        "commands_per_second": _float(info, "instantaneous_ops_per_sec"),
        "latency_seconds": None if report is None or not up else report.took,
        "version": _version(picture, info),
        "uptime_seconds": _number(info, "uptime_in_seconds"),
        "epoch": picture.epoch or None,
        "priority": picture.priority,
        "loading": picture.loading or info.get("loading") == "1",
        "missing_rights": list(picture.missing_rights),
    }


def _link(picture: NodePicture, info: Mapping[str, str]) -> str | None:
    if picture.syncing if not info else info.get("master_sync_in_progress") == "1":
        return "syncing"
    if info:
        return "up" if info.get("master_link_status") == "up" else "down"
    if picture.link_up is None or not picture.version:
        return None
    return "up" if picture.link_up else "down"


def _follows(picture: NodePicture, info: Mapping[str, str]) -> str:
    """By the name that the client knows the master by, if it does."""
    if picture.follows or "master_host" not in info:
        return picture.follows
    return str(Address(info["master_host"], _number(info, "master_port") or 0))


def _offset(picture: NodePicture, info: Mapping[str, str]) -> int | None:
    if "master_repl_offset" in info:
        own = "slave_repl_offset" if info.get("role") == "slave" else "master_repl_offset"
        return _number(info, own if own in info else "master_repl_offset")
    # A user who may not INFO sees no version either.
    return picture.offset if picture.version and picture.role is not None else None


def _lag(
    picture: NodePicture, info: Mapping[str, str], master: Mapping[str, str], role: Role | None
) -> int | None:
    """Bytes behind the master, where both have one history."""
    if role is not Role.REPLICA:
        return None
    if "master_repl_offset" in info and "master_repl_offset" in master:
        if info.get("master_replid") != master.get("master_replid"):
            return None
        offset, newest = _offset(picture, info), _number(master, "master_repl_offset")
        return None if offset is None or newest is None else max(0, newest - offset)
    return picture.lag if picture.version else None


def _version(picture: NodePicture, info: Mapping[str, str]) -> str:
    for name in ("valkey", "redis"):
        if f"{name}_version" in info:
            return f"{name} {info[f'{name}_version']}"
    return picture.version


def _number(info: Mapping[str, str], field: str) -> int | None:
    try:
        return int(info[field])
    except (KeyError, ValueError):
        return None


def _float(info: Mapping[str, str], field: str) -> float | None:
    try:
        number = float(info[field])
    except (KeyError, ValueError):
        return None
    return number if isfinite(number) else None


def _troubles(
    node: Mapping[str, Any],
    master: str | None,
    elects: bool,
    unheard: Collection[str],
    foreign: int,
) -> list[str]:
    """What is wrong with one node."""
    name = node["node"]
    if node["status"] != Status.UP.value:
        return [f"{name} is {node['status']}" + (f": {node['reason']}" if node["reason"] else "")]
    if node["loading"]:
        return [f"{name} is loading its data"]
    troubles = []
    if node["reason"]:
        troubles.append(f"{name}: {node['reason']}")
    if name in unheard:
        troubles.append(f"{name} does not answer in time")
    if node["role"] == "master" and foreign and master != name:
        troubles.append(
            f"{name} is a master with {foreign} keys that are not this group's: it is left alone"
            " (adopt names nodes whose data may go)"
        )
    elif node["role"] == "master" and master not in (None, name):
        troubles.append(f"{name} says that it is a master, beside {master}")
    if node["role"] == "replica":
        troubles += _replica_troubles(node, master)
    missing = [right for right in node["missing_rights"] if right not in HEARING]
    if elects and missing:
        troubles.append(f"{name}: our user may not {', '.join(missing)}")
    return troubles


def _replica_troubles(node: Mapping[str, Any], master: str | None) -> list[str]:
    name, follows = node["node"], node["follows"]
    if master == name:
        return [f"{name} is a replica now"]
    if master is not None and follows and follows != master:
        return [f"{name} follows {follows}, not {master}"]
    if node["link"] == "syncing":
        return [f"{name} is in the middle of a full resync"]
    if node["link"] == "down":
        return [f"{name} is not linked to {follows or 'its master'}"]
    return []
