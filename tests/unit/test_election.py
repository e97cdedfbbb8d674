"""Who is followed and who is elected: one row for each rule of docs/design.md, then properties.

Node number 1 is `n:1`. By default the nodes 1, 2 and 3 are one group at epoch 5 with the same data,
promoted was node 1, and a node that is not among the views refuses connections.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txharedis.election import Decision, Elect, Evidence, Follow, Refuse, Wait, decide, rank
from txharedis.topology import Address, NodeView, Role, Status

HISTORY, OTHER, THIRD = "a" * 40, "b" * 40, "c" * 40
GROUP = "g"
DOWN_AFTER = 3.0


def node(number: int) -> Address:
    return Address("n", number)


def view(number: int, role: Role, **fields: Any) -> NodeView:
    values: dict[str, Any] = {
        "run_id": f"run{number}",
        "offset": 100,
        "replid": HISTORY,
        "epoch": 5,
        "group": GROUP,
        "meta_master": "n:1",
        "meta_run_id": "run1",
        "opcounter": 1000,
        "vote": 5,
        "keys": 10,
        "uptime": 60,
        **fields,
    }
    return NodeView(node(number), role=role, **values)


def master(number: int, **fields: Any) -> NodeView:
    return view(number, Role.MASTER, **fields)


def replica(number: int, of: int | None = 1, **fields: Any) -> NodeView:
    """A replica that hears its master; `of` None is a server that is not configured."""
    values = {"link_up": True, "last_io": 0, **fields}
    follows = node(of) if of is not None else None
    text = str(follows) if follows is not None else "foreign:6379"
    return view(number, Role.REPLICA, follows=follows, follows_text=text, **values)


def orphan(number: int, of: int | None = 1, **fields: Any) -> NodeView:
    """A replica whose link to its master is down."""
    return replica(number, of, **{"link_up": False, "last_io": -1, "link_down_for": 0, **fields})


#: What a node without any group carries.
NO_META: dict[str, Any] = {"epoch": 0, "group": "", "meta_master": "", "meta_run_id": "", "vote": 0}
#: A server as it comes out of its package.
FRESH: dict[str, Any] = {**NO_META, "keys": 0, "opcounter": 0, "offset": 0}


def fresh(number: int, **fields: Any) -> NodeView:
    return master(number, **{**FRESH, "replid": f"{number}" * 40, **fields})


def evidence(nodes: int = 3, status: dict[int, Status] | None = None, **fields: Any) -> Evidence:
    numbers = range(1, nodes + 1)
    stands = {node(n): Status.REFUSED for n in numbers}
    stands |= {node(n): s for n, s in (status or {}).items()}
    values: dict[str, Any] = {
        "down_after": DOWN_AFTER,
        "run_ids": {node(n): f"run{n}" for n in numbers},
        **fields,
    }
    return Evidence(tuple(map(node, numbers)), stands, **values)


def decision_on(views: Iterable[NodeView], given: Evidence) -> Decision:
    views = list(views)
    up = dict.fromkeys((v.address for v in views), Status.UP)
    return decide({v.address: v for v in views}, replace(given, status={**given.status, **up}))


def in_short(decision: Decision) -> str:
    """`follow 1, redirect 2`, `elect 2 3`, `wait`, `refuse 1 2`."""

    def numbers(addresses: Iterable[Address]) -> str:
        return "".join(f" {address.port}" for address in addresses)

    match decision:
        case Follow(chosen, repairs, strangers):
            done = "".join(f", {r.kind}{' fully' * r.full} {r.node.port}" for r in repairs)
            text = f"follow {chosen.port}{done}"
        case Elect(candidates, _, _, strangers):
            text = "elect" + numbers(view.address for view in candidates)
        case Refuse(_, nodes, _):
            return "refuse" + numbers(nodes)
        case Wait():
            return "wait"
    return text + (", strangers" + numbers(v.address for v in strangers) if strangers else "")


@dataclass
class Row:
    rule: str
    views: list[NodeView]
    short: str
    because: str = ""
    given: Evidence = field(default_factory=evidence)


ROWS = [
    # A living master.
    Row("a settled group is followed", [master(1), replica(2), replica(3)], "follow 1"),
    Row("a master with a quorum is followed", [master(1), replica(2)], "follow 1"),
    Row(
        "a stale master of a lower epoch is redirected",
        [master(1), replica(2), master(3, epoch=4, meta_run_id="run3", replid=OTHER)],
        "follow 1, redirect fully 3",
    ),
    Row(
        "a restarted replica without data is redirected",
        [master(1), replica(2), fresh(3)],
        "follow 1, redirect fully 3",
    ),
    Row(
        "a former master that can go on by a partial resync is redirected",
        [master(1, replid=OTHER, replid2=HISTORY), replica(2), master(3)],
        "follow 1, redirect 3",
    ),
    Row("a chain is straightened", [master(1), replica(2), replica(3, 2)], "follow 1, redirect 3"),
    Row(
        "a replica of a foreign server is redirected",
        [master(1), replica(2), replica(3, None)],
        "follow 1, redirect 3",
    ),
    Row(
        "a writable replica is put right",
        [master(1), replica(2), replica(3, writable=True)],
        "follow 1, redirect 3",
    ),
    Row(
        "full resyncs are started one at a time",
        [master(1), fresh(2), fresh(3), replica(4, 3)],
        "follow 1, redirect fully 2, redirect 4",
        given=evidence(4),
    ),
    Row(
        "no full resync while another node is syncing",
        [master(1), orphan(2, syncing=True), fresh(3)],
        "follow 1",
    ),
    Row(
        "no full resync while a node is loading, a partial one is",
        [master(1), replica(2, 4), fresh(3, loading=True), fresh(4)],
        "follow 1, redirect 2",
        given=evidence(4),
    ),
    Row("a replica whose link is down is left to itself", [master(1), orphan(2)], "follow 1"),
    # Proof of death.
    Row(
        "refused, and the replicas' links are down",
        [orphan(2), orphan(3)],
        "elect 2 3",
        "MASTER n:1 is down",
    ),
    Row(
        "silent, and the replicas have heard nothing for down_after",
        [replica(2, last_io=3, ping_period=1), replica(3, last_io=4, ping_period=1)],
        "elect 2 3",
        "MASTER n:1 is down",
        evidence(status={1: Status.SILENT}),
    ),
    Row(
        "silent, one replica's link is down, the other has heard nothing",
        [orphan(2, ping_period=1), replica(3, last_io=3)],
        "elect 2 3",
        given=evidence(status={1: Status.SILENT}),
    ),
    Row(
        "a silence of down_after proves nothing if the master was not told to speak",
        [replica(2, last_io=12), replica(3, last_io=12)],
        "wait",
        "2 of 2 of its replicas hear it",
        evidence(status={1: Status.SILENT}),
    ),
    Row(
        "but one of ten seconds more does",
        [replica(2, last_io=13), replica(3, last_io=14)],
        "elect 2 3",
        "MASTER n:1 is down",
        evidence(status={1: Status.SILENT}),
    ),
    Row(
        "that an older master was told to speak says nothing of this one",
        [replica(2, last_io=4), replica(3, last_io=4, epoch=4, ping_period=1)],
        "wait",
        "hear it",
        evidence(status={1: Status.SILENT}),
    ),
    Row(
        "only a period of one second is that of one who was told",
        [replica(2, last_io=4, ping_period=10), replica(3, last_io=4, ping_period=10)],
        "wait",
        "hear it",
        evidence(status={1: Status.SILENT}),
    ),
    Row(
        "a replica that calls its master by a name unknown to us may hear this one",
        [orphan(2), replica(3, None)],
        "wait",
        "1 of 2 of its replicas hear it",
    ),
    Row(
        "unless it hears nothing",
        [orphan(2), orphan(3, None)],
        "elect 2 3",
        "MASTER n:1 is down",
    ),
    Row(
        "refused, and nobody follows it: nobody can contradict",
        [orphan(2, 3), orphan(3, 2)],
        "elect 2 3",
    ),
    Row(
        "silent to us alone: the replicas hear it",
        [replica(2), replica(3)],
        "wait",
        "2 of 2 of its replicas hear it",
        evidence(status={1: Status.SILENT}),
    ),
    Row(
        "refused to us alone: one replica of two hears it",
        [orphan(2), replica(3, last_io=2)],
        "wait",
        "1 of 2 of its replicas hear it",
    ),
    Row(
        "denied: it lives",
        [orphan(2), orphan(3)],
        "wait",
        "denied",
        evidence(status={1: Status.DENIED}),
    ),
    Row(
        "dropped: it may answer the redial",
        [orphan(2), orphan(3)],
        "wait",
        "dropped",
        evidence(status={1: Status.DROPPED}),
    ),
    Row(
        "dialling: not known yet",
        [orphan(2), orphan(3)],
        "wait",
        "dialling",
        evidence(status={1: Status.DIALLING}),
    ),
    Row(
        "connected, but the survey was not answered",
        [orphan(2), orphan(3)],
        "wait",
        "not answering",
        evidence(status={1: Status.UP}),
    ),
    Row(
        "loading after a restart, and the replicas' links are down",
        [master(1, loading=True, **FRESH), orphan(2), orphan(3)],
        "elect 2 3",
        "MASTER n:1 is down",
    ),
    Row(
        "loading, but a replica still hears it",
        [master(1, loading=True, **FRESH), replica(2), orphan(3)],
        "wait",
        "hear it",
    ),
    Row(
        "the last master is known by its address when its run_id is not",
        [orphan(2), replica(3)],
        "wait",
        "hear it",
        evidence(run_ids={}),
    ),
    Row(
        "the last master is known by its run_id when it is called otherwise",
        [orphan(2, meta_master="10.0.0.1:6379"), replica(3, meta_master="10.0.0.1:6379")],
        "wait",
        "hear it",
    ),
    Row(
        "the last master is known by its followers when meta says nothing we know",
        [orphan(2, meta_master="x:1"), replica(3, meta_master="x:1")],
        "wait",
        "hear it",
        evidence(run_ids={}),
    ),
    # A restarted master.
    Row(
        "restarted empty: not followed, and not elected",
        [fresh(1, run_id="again"), orphan(2), orphan(3)],
        "elect 2 3",
        "n:1 has restarted since it was promoted",
    ),
    Row(
        "restarted empty while the replicas have not noticed yet",
        [fresh(1, run_id="again"), replica(2), replica(3)],
        "elect 2 3",
        "has restarted",
    ),
    Row(
        "restarted with an older file: the fresher replica first",
        [
            master(1, run_id="again", replid=OTHER, replid2=HISTORY, offset=60, opcounter=900),
            orphan(2, offset=90, opcounter=990),
            orphan(3),
        ],
        "elect 3 2 1",
        "has restarted",
    ),
    Row(
        "restarted with a file of an older epoch",
        [master(1, run_id="again", epoch=4, opcounter=9999, offset=9999), orphan(2), orphan(3)],
        "elect 2 3",
        "has restarted",
    ),
    Row(
        "all restarted with their files: the freshest first",
        [
            master(1, run_id="again", offset=60),
            orphan(2, run_id="x", link_down_for=-1),
            orphan(3, run_id="y", offset=70, link_down_for=-1),
        ],
        "elect 2 3 1",
        "has restarted",
    ),
    # No master among the living.
    Row(
        "made a replica of a replica of its own: a cycle",
        [replica(1, 2), replica(2, 1), replica(3, 1)],
        "elect 1 2 3",
        "n:1 is no longer master",
    ),
    Row(
        "a cycle without a group",
        [orphan(1, 2, **NO_META), orphan(2, 1, **NO_META), orphan(3, 1, **NO_META)],
        "elect 1 2 3",
    ),
    # First meeting.
    Row("fresh masters", [fresh(1), fresh(2), fresh(3)], "elect 1 2 3", "invalid master count: 3"),
    Row(
        "fresh masters, one with data",
        [fresh(1), fresh(2, keys=1), fresh(3)],
        "elect 2",
        "invalid master count: 3",
    ),
    Row(
        "a ready-made group is followed, and its meta written",
        [master(1, **NO_META), replica(2, **NO_META), replica(3, **NO_META)],
        "follow 1, meta 1",
    ),
    Row(
        "a ready-made group that is empty",
        [master(1, **FRESH), replica(2, **FRESH), replica(3, **FRESH)],
        "follow 1, meta 1",
    ),
    Row(
        "a ready-made group and a fresh replica of nobody",
        [master(1, **NO_META), replica(2, **NO_META), fresh(3)],
        "elect 1 2",
        "invalid master count: 2",
    ),
    Row(
        "a ready-made group whose master is dead",
        [orphan(2, **NO_META), orphan(3, **NO_META)],
        "elect 2 3",
        "invalid master count: 0",
    ),
    Row(
        "a ready-made group whose master is unreachable to us alone",
        [replica(2, **NO_META), replica(3, **NO_META)],
        "wait",
        "hear it",
    ),
    Row(
        "a ready-made group whose master restarted empty",
        [fresh(1), orphan(2, **NO_META), orphan(3, **NO_META)],
        "elect 2 3",
        "invalid master count: 1",
    ),
    Row(
        "the master of a ready-made group is not one of the nodes",
        [replica(1, None, **NO_META), replica(2, None, **NO_META), replica(3, None, **NO_META)],
        "refuse 1 2 3",
        "n:1 follows foreign:6379",
    ),
    Row(
        "an empty foreign master",
        [replica(1, None, **FRESH), replica(2, None, **FRESH)],
        "refuse 1 2",
        "foreign:6379",
    ),
    Row(
        "the master is called by a name unknown to us: its replicas share its history",
        [master(1, **NO_META), replica(2, None, **NO_META), replica(3, None, **NO_META)],
        "follow 1, meta 1, redirect 2, redirect 3",
    ),
    Row(
        "a foreign master with data, and a fresh one",
        [replica(1, None, **NO_META), fresh(2), fresh(3)],
        "refuse 1",
        "n:1 follows foreign:6379",
    ),
    Row(
        "an empty foreign master, and two fresh ones",
        [replica(1, None, **FRESH), fresh(2), fresh(3)],
        "elect 1 2 3",
        "invalid master count: 2",
    ),
    Row(
        "a dead foreign master",
        [orphan(1, None, **NO_META), orphan(2, None, **NO_META)],
        "elect 1 2",
        "invalid master count: 0",
    ),
    # Strangers.
    Row(
        "another group's node with keys is left alone",
        [master(1), replica(2), master(3, group="h", replid=OTHER, meta_run_id="run3")],
        "follow 1, strangers 3",
    ),
    Row(
        "another group's node with a higher epoch has no say",
        [master(1), replica(2), master(3, group="h", epoch=99, replid=OTHER, meta_run_id="run3")],
        "follow 1, strangers 3",
    ),
    Row(
        "another group's node without keys is taken in",
        [master(1), replica(2), master(3, group="h", epoch=99, keys=0, replid=OTHER)],
        "follow 1, redirect fully 3",
    ),
    Row(
        "a node with keys and no group is left alone",
        [master(1), replica(2), master(3, **{**NO_META, "replid": OTHER})],
        "follow 1, strangers 3",
    ),
    Row(
        "a member whose copy of the group's id is on its way is none",
        [master(1), replica(2), replica(3, **NO_META)],
        "follow 1",
    ),
    Row(
        "a stranger is no candidate, and is told to the lock",
        [orphan(2), orphan(3), master(4, group="h", epoch=99, replid=OTHER), orphan(5)],
        "elect 2 3 5, strangers 4",
        given=evidence(5),
    ),
    Row(
        "a stranger does not vote",
        [orphan(2), master(3, group="h", replid=OTHER, meta_run_id="run3")],
        "wait",
        "only 1 nodes can vote (2 needed)",
        evidence(group=GROUP, epoch=5),
    ),
    Row(
        "two groups, one with a quorum",
        [master(1), replica(2), master(3, group="h", epoch=9, replid=OTHER, meta_run_id="run3")],
        "follow 1, strangers 3",
    ),
    Row(
        "two groups, none with a quorum",
        [master(1), master(2, group="h", replid=OTHER), fresh(3)],
        "refuse 1 2",
        "2 groups, none with a quorum",
    ),
    Row(
        "two groups, none with a quorum, but one is ours",
        [master(1), master(2, group="h", replid=OTHER), fresh(3)],
        "follow 1, redirect fully 3, strangers 2",
        given=evidence(group=GROUP, epoch=5),
    ),
    Row(
        "two groups, one of them without data",
        [master(1), master(2, group="h", keys=0, replid=OTHER), fresh(3)],
        "follow 1, redirect fully 2",
    ),
    Row(
        "two histories with data and no group",
        [fresh(1, keys=3), fresh(2, keys=4), fresh(3)],
        "refuse 1 2",
        "n:1 (3 keys), n:2 (4 keys)",
    ),
    Row(
        "adopt: no group, its data may go",
        [fresh(1, keys=3), fresh(2, keys=4), fresh(3)],
        "elect 1",
        given=evidence(adopt=frozenset([node(2)])),
    ),
    Row(
        "adopt: another group's data may go",
        [master(1), replica(2), master(3, group="h", epoch=99, replid=OTHER, meta_run_id="run3")],
        "follow 1, redirect fully 3",
        given=evidence(adopt=frozenset([node(3)])),
    ),
    Row(
        "adopt: two groups, one may go",
        [master(1), master(2, group="h", epoch=99, replid=OTHER), fresh(3)],
        "follow 1, redirect fully 2",
        given=evidence(adopt=frozenset([node(2)])),
    ),
    Row(
        "adopt: the only data there is stays",
        [fresh(1), fresh(2, keys=4), fresh(3)],
        "elect 2",
        given=evidence(adopt=frozenset([node(2)])),
    ),
    # Unfit to be moved at all.
    Row(
        "cluster mode", [master(1, cluster=True), replica(2)], "refuse 1", "n:1 is in cluster mode"
    ),
    Row("Sentinel", [master(1), replica(2, sentinels=3)], "refuse 2", "n:2 is watched by Sentinel"),
    Row("cluster mode, without a quorum", [master(1, cluster=True)], "refuse 1"),
    # Who can be elected.
    Row(
        "a witness (priority 0) votes and is never elected",
        [orphan(2), orphan(3, priority=0, offset=999)],
        "elect 2",
    ),
    Row(
        "witnesses only",
        [orphan(2, priority=0), orphan(3, priority=0)],
        "wait",
        "there is no candidate: n:2 has replica-priority 0; n:3 has replica-priority 0",
    ),
    Row(
        "one in the middle of a full resync is not elected",
        [orphan(2), orphan(3, syncing=True, offset=999)],
        "elect 2",
    ),
    Row(
        "one that was never synced is not elected",
        [orphan(2), orphan(3, **FRESH, link_down_for=-1, replid=OTHER)],
        "elect 2",
    ),
    Row(
        "never synced, all empty, and the master is away",
        [
            orphan(2, **FRESH, link_down_for=-1),
            orphan(3, **FRESH, link_down_for=-1),
        ],
        "wait",
        "n:2 has never been synced with n:1",
    ),
    Row(
        "one of an older epoch is not elected",
        [orphan(2), orphan(3, epoch=4, offset=999, opcounter=9999)],
        "elect 2",
    ),
    Row(
        "one that is loading may be the freshest",
        [orphan(n, link_down_for=-1) for n in (2, 3, 4)] + [orphan(5, loading=True, **FRESH)],
        "wait",
        "may be the freshest is not ready: n:5 is loading",
        evidence(5),
    ),
    Row(
        "but not fresher than one that has lived through it all",
        [orphan(2), *(orphan(n, link_down_for=-1) for n in (3, 4)), fresh(5, loading=True)],
        "elect 2 3 4",
        given=evidence(5),
    ),
    Row(
        "who was linked until the one that is loading died has lived through it all",
        [
            *(orphan(n, link_down_for=-1) for n in (2, 3)),
            orphan(4, link_down_for=5),
            fresh(5, loading=True, uptime=4),
        ],
        "elect 2 3 4",
        given=evidence(5),
    ),
    Row(
        "who lost its link before that has not",
        [
            *(orphan(n, link_down_for=-1) for n in (2, 3)),
            orphan(4, link_down_for=6),
            fresh(5, loading=True, uptime=4),
        ],
        "wait",
        "may be the freshest is not ready: n:5 is loading",
        evidence(5),
    ),
    Row(
        "each one that is loading has to be outlived",
        [
            *(orphan(n, link_down_for=9) for n in (2, 3, 6, 7)),
            fresh(4, loading=True, uptime=60),
            fresh(5, loading=True, uptime=1),
        ],
        "wait",
        "may be the freshest is not ready",
        evidence(7),
    ),
    Row(
        "a link that is up has lived through everything",
        [
            *(replica(n, last_io=20) for n in (2, 3, 4)),
            fresh(5, loading=True, uptime=1),
        ],
        "elect 2 3 4",
        given=evidence(5),
    ),
    # Who will not have us.
    Row(
        "one that denies us is as one that is away",
        [master(1), replica(2)],
        "follow 1",
        given=evidence(status={3: Status.DENIED}, denied={node(3): "NOAUTH"}),
    ),
    Row(
        "more deny us than a quorum can spare",
        [master(1)],
        "refuse 2 3",
        "n:2 denies us: WRONGPASS no; n:3 denies us: NOAUTH who",
        evidence(denied={node(2): "WRONGPASS no", node(3): "NOAUTH who"}),
    ),
    Row(
        "a single node denies us",
        [],
        "refuse 1",
        "n:1 denies us: NOAUTH",
        evidence(1, denied={node(1): "NOAUTH"}),
    ),
    Row(
        "the master denies our commands",
        [master(1), replica(2), replica(3)],
        "refuse 1",
        "n:1 denies us: ERR DB index is out of range",
        evidence(commands_denied={node(1): "ERR DB index is out of range"}),
    ),
    Row(
        "a replica denies our commands",
        [master(1), replica(2), replica(3)],
        "follow 1",
        given=evidence(commands_denied={node(2): "NOPERM"}),
    ),
    Row(
        "a single node denies our commands",
        [fresh(1)],
        "refuse 1",
        "n:1 denies us: NOPERM",
        evidence(1, commands_denied={node(1): "NOPERM"}),
    ),
    Row(
        "those that are loading do not vote",
        [orphan(2), orphan(3, loading=True, **FRESH)],
        "wait",
        "only 1 nodes can vote (2 needed)",
    ),
    # No quorum.
    Row("one of three", [master(1)], "wait", "no quorum: 1 of 3 nodes answer, 2 needed"),
    Row("none of three", [], "wait", "no quorum: 0 of 3"),
    Row("two of five", [master(1), replica(2)], "wait", "3 needed", evidence(5)),
    Row("two of four", [master(1), replica(2)], "wait", "3 needed", evidence(4)),
    Row("two nodes, both there", [master(1), replica(2)], "follow 1", given=evidence(2)),
    Row("two nodes, the master is gone", [orphan(2)], "wait", "no quorum", evidence(2)),
    Row("two nodes, the replica is gone", [master(1)], "wait", "no quorum", evidence(2)),
    # A single node.
    Row("a single node is followed as it is", [fresh(1)], "follow 1", given=evidence(1)),
    Row("also a replica", [orphan(1, None)], "follow 1", given=evidence(1)),
    Row("a single node that is away", [], "wait", "n:1 is refused", evidence(1)),
    Row("that is loading", [fresh(1, loading=True)], "wait", "n:1 is loading", evidence(1)),
    # What this client remembers.
    Row(
        "the stale side of a partition",
        [master(1), replica(2)],
        "wait",
        "no reachable node has the data of epoch 6: the newest here is epoch 5",
        evidence(group=GROUP, epoch=6),
    ),
    Row(
        "the keys of the group were flushed: the servers went on living",
        [
            master(1, **{**NO_META, "keys": 0, "opcounter": 0}),
            replica(2, **{**NO_META, "keys": 0, "opcounter": 0}),
        ],
        "follow 1, meta 1",
        given=evidence(group=GROUP, epoch=5, history=HISTORY),
    ),
    Row(
        "two restarted empty: the third may have what we remember",
        [fresh(1), fresh(2)],
        "wait",
        "no reachable node has the data of epoch 5",
        evidence(group=GROUP, epoch=5, history=HISTORY),
    ),
    Row(
        "two restarted empty, and no history was ever known",
        [fresh(1, replid=""), fresh(2, replid="")],
        "wait",
        "no reachable node has the data of epoch 5",
        evidence(group=GROUP, epoch=5, history=""),
    ),
    Row(
        "two restarted empty, the third is loading what we remember",
        [fresh(1), fresh(2), fresh(3, loading=True)],
        "wait",
        "no reachable node has the data of epoch 5",
        evidence(group=GROUP, epoch=5, history=HISTORY),
    ),
    Row(
        "all restarted empty: what we remember is nowhere any more",
        [fresh(1), fresh(2), fresh(3)],
        "elect 1 2 3",
        "invalid master count: 3",
        evidence(group=GROUP, epoch=5, history=HISTORY),
    ),
    Row(
        "all are there, the newest of them with an older epoch",
        [master(1), replica(2), replica(3)],
        "elect 1 2 3",
        "no node has the data of epoch 6 any more",
        evidence(group=GROUP, epoch=6),
    ),
    Row(
        "but one of them may be reading it",
        [master(1), replica(2), replica(3, syncing=True)],
        "wait",
        "no reachable node has the data of epoch 6",
        evidence(group=GROUP, epoch=6),
    ),
    Row(
        "an epoch of another group is none of theirs",
        [master(1), replica(2), replica(3)],
        "follow 1",
        given=evidence(group="h", epoch=9),
    ),
    Row(
        "what we remember is what we see",
        [master(1), replica(2)],
        "follow 1",
        given=evidence(group=GROUP, epoch=5, history=HISTORY),
    ),
    # Several claimants.
    Row(
        "the higher epoch is followed",
        [master(1), master(2, epoch=6, meta_run_id="run2", replid=OTHER), replica(3)],
        "follow 2, redirect fully 1",
    ),
    Row(
        "two claim the same epoch: one is elected over both",
        [
            master(1, opcounter=1001, replid=OTHER),
            master(2, meta_run_id="run2"),
            replica(3, 2, meta_run_id="run2"),
        ],
        "elect 1 2 3",
        "2 masters claim epoch 5",
    ),
    Row(
        "whose meta counts is never that of an empty node of another group",
        [
            view(2, Role.MASTER, group="h", keys=0, meta_master="n:4", meta_run_id="run4"),
            replica(3),
            orphan(4),
        ],
        "wait",
        "hear it",
        evidence(4, group=GROUP, epoch=5),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_rule(row: Row) -> None:
    decision = decision_on(row.views, row.given)
    assert in_short(decision) == row.short, decision
    if not isinstance(decision, Follow):
        assert row.because in decision.reason


def test_every_rule_has_its_own_name() -> None:
    assert len({row.rule for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("views", "given", "why"),
    [
        ([fresh(1, keys=3), fresh(2, keys=4)], evidence(2), "data"),
        ([master(1), master(2, group="h", replid=OTHER), fresh(3)], evidence(), "data"),
        ([master(1, cluster=True)], evidence(), "unfit"),
        ([replica(1, None, **NO_META), replica(2, None, **NO_META)], evidence(), "unfit"),
        ([], evidence(1, denied={node(1): "NOAUTH"}), "denied"),
        ([master(1), replica(2)], evidence(commands_denied={node(1): "NOPERM"}), "denied"),
    ],
)
def test_a_refusal_says_of_what_kind_it_is(
    views: list[NodeView], given: Evidence, why: str
) -> None:
    refusal = decision_on(views, given)
    assert isinstance(refusal, Refuse)
    assert refusal.why == why


@pytest.mark.parametrize("status", [Status.DROPPED, Status.DIALLING])
def test_an_answer_within_milliseconds_is_looked_for_soon(status: Status) -> None:
    soon = decision_on([orphan(2), orphan(3)], evidence(status={1: status}))
    later = decision_on([orphan(2, priority=0), orphan(3, priority=0)], evidence())
    assert isinstance(soon, Wait)
    assert isinstance(later, Wait)
    assert soon.retry_in < 0.01 < later.retry_in


# rank


@pytest.mark.parametrize(
    ("views", "order", "why"),
    [
        ([replica(1, epoch=9), replica(2, epoch=10)], [2, 1], "highest epoch (10) of 2"),
        ([replica(1, offset=9), replica(2, offset=10)], [2, 1], "highest offset (10"),
        (
            [replica(1, opcounter=9, replid=OTHER), replica(2, opcounter=10)],
            [2, 1],
            "highest opcounter (10) of 2 nodes",
        ),
        ([replica(1, uptime=9), replica(2, uptime=10)], [2, 1], "opcounter (1000) of 2"),
        ([replica(10), replica(9)], [9, 10], "opcounter (1000) of 2"),
        # At equal offsets a master first, however young; its newest write may not count yet.
        ([replica(1), master(2, uptime=1)], [2, 1], "opcounter (1000) of 2"),
        ([replica(1, offset=101), master(2)], [1, 2], "highest offset (101"),
        # The counter is that of the history; inside it the offset decides.
        (
            [
                replica(1, opcounter=1, offset=50),
                replica(2, opcounter=1000, offset=40),
                replica(3, opcounter=999, offset=9999, replid=OTHER),
            ],
            [1, 2, 3],
            "highest offset (50",
        ),
        # Equal counters: data first.
        ([fresh(1), fresh(2, keys=1)], [2, 1], ""),
        # A higher epoch comes first, whatever history it is in.
        (
            [replica(1, epoch=5), replica(2, epoch=3), replica(3, epoch=4, replid=OTHER)],
            [1, 3, 2],
            "highest epoch (5)",
        ),
        ([], [], ""),
    ],
)
def test_rank(views: list[NodeView], order: list[int], why: str) -> None:
    ranking = rank(views)
    assert [v.address.port for v in ranking.order] == order
    assert why in ranking.why


# Properties

NODES = 5
small = st.integers(0, 3)
replids = st.sampled_from([HISTORY, OTHER, THIRD, "0" * 40, ""])
metas = st.one_of(
    st.just(NO_META),
    st.fixed_dictionaries(
        {
            "epoch": st.integers(1, 12),
            "group": st.sampled_from([GROUP, "h"]),
            "meta_master": st.sampled_from(["n:1", "n:2", "x:1"]),
            "meta_run_id": st.sampled_from(["run1", "run2", "run3"]),
        }
    ),
)


@st.composite
def views_of(draw: st.DrawFn, number: int) -> NodeView:
    fields = draw(
        st.fixed_dictionaries(
            {
                "run_id": st.sampled_from([f"run{number}"] * 3 + ["again"]),
                "link_up": st.booleans(),
                "last_io": st.integers(-1, 5),
                "syncing": st.booleans(),
                "link_down_for": st.integers(-1, 4),
                "ping_period": st.sampled_from([0, 1, 10]),
                "offset": st.integers(0, 12),
                "replid": replids,
                "replid2": replids,
                "loading": st.sampled_from([False, False, False, True]),
                "opcounter": st.integers(0, 12),
                "keys": small,
                "uptime": small,
                "priority": st.sampled_from([100, 100, 100, 0]),
                "writable": st.booleans(),
                "cluster": st.sampled_from([False] * 9 + [True]),
                "sentinels": st.sampled_from([0] * 9 + [1]),
            }
        )
    )
    fields |= draw(metas)
    if draw(st.booleans()):
        return master(number, **fields)
    return replica(number, draw(st.none() | st.integers(1, NODES)), **fields)


situations = st.tuples(
    st.lists(st.integers(1, NODES), unique=True).flatmap(
        lambda numbers: st.tuples(*map(views_of, numbers))
    ),
    st.builds(
        evidence,
        st.just(NODES),
        st.dictionaries(st.integers(1, NODES), st.sampled_from(Status)),
        epoch=st.integers(0, 12),
        group=st.sampled_from(["", GROUP, "h"]),
        history=replids,
        adopt=st.frozensets(st.integers(1, NODES).map(node), max_size=2),
        run_ids=st.dictionaries(
            st.integers(1, NODES).map(node), st.sampled_from(["run1", "run2", "run3"])
        ),
    ),
)


@given(situations)
def test_there_is_always_a_decision(situation: tuple[tuple[NodeView, ...], Evidence]) -> None:
    views, given = situation
    decision = decision_on(views, given)
    assert isinstance(decision, Follow) or decision.reason
    if isinstance(decision, Elect):
        assert decision.candidates
        assert decision.why
    if isinstance(decision, Wait):
        assert decision.retry_in > 0


@given(situations)
def test_nobody_is_elected_without_a_quorum_of_ready_nodes(
    situation: tuple[tuple[NodeView, ...], Evidence],
) -> None:
    views, given = situation
    decision = decision_on(views, given)
    if isinstance(decision, Elect):
        ready = [v for v in views if not v.loading and v not in decision.strangers]
        assert len(ready) > NODES / 2


@given(situations)
def test_who_is_elected_is_fit(situation: tuple[tuple[NodeView, ...], Evidence]) -> None:
    views, given = situation
    decision = decision_on(views, given)
    if not isinstance(decision, Elect):
        return
    for chosen in decision.candidates:
        assert not chosen.loading
        assert not chosen.syncing
        assert chosen.priority != 0
        assert chosen not in decision.strangers
    with_say = [v for v in views if not v.loading and v.address not in given.adopt]
    if given.group in {v.group for v in with_say if v.group}:
        assert {v.group for v in decision.candidates} == {given.group}
    groups = {v.group for v in with_say if v.group}
    if len(groups) == 1:
        assert {v.group for v in decision.candidates} == groups


@given(situations)
def test_a_redirect_discards_nothing_that_is_not_the_groups(
    situation: tuple[tuple[NodeView, ...], Evidence],
) -> None:
    views, given = situation
    decision = decision_on(views, given)
    if not isinstance(decision, Follow):
        return
    by_address = {v.address: v for v in views}
    followed = by_address[decision.master]
    for repair in decision.repairs:
        target = by_address[repair.node]
        assert not target.loading
        if repair.kind == "redirect" and target.group not in ("", followed.group):
            assert target.keys == 0 or target.address in given.adopt


@given(situations, st.integers(1, NODES))
def test_who_claims_the_highest_epoch_is_followed_whatever_the_others_say(
    situation: tuple[tuple[NodeView, ...], Evidence], number: int
) -> None:
    views, given = situation
    claimant = master(number, epoch=13, run_id="claims", meta_run_id="claims")
    others = [
        replace(v, group=GROUP if v.epoch else "", cluster=False, sentinels=0)
        for v in views
        if v.address != claimant.address
    ]
    given = replace(given, group=GROUP, adopt=frozenset())
    decision = decision_on([claimant, *others], given)
    if len(others) + 1 > NODES / 2:
        assert isinstance(decision, Follow)
        assert decision.master == claimant.address
    else:
        assert isinstance(decision, Wait)


@given(situations, st.randoms(use_true_random=False))
def test_the_order_of_views_and_nodes_does_not_matter(
    situation: tuple[tuple[NodeView, ...], Evidence], chance: random.Random
) -> None:
    views, given = situation
    others = list(views)
    chance.shuffle(others)
    nodes = list(given.nodes)
    chance.shuffle(nodes)
    run_ids = list(given.run_ids.items())
    chance.shuffle(run_ids)
    one = decision_on(views, given)
    other = decision_on(others, replace(given, nodes=tuple(nodes), run_ids=dict(run_ids)))
    assert type(one) is type(other)
    match one, other:
        case Follow(), Follow():
            assert one.master == other.master
        case Elect(), Elect():
            assert one.candidates == other.candidates


@given(
    st.lists(st.integers(1, 9), unique=True).flatmap(
        lambda numbers: st.tuples(*map(views_of, numbers))
    ),
    st.randoms(use_true_random=False),
)
def test_rank_is_one_order(views: tuple[NodeView, ...], chance: random.Random) -> None:
    order = rank(views).order
    others = list(views)
    chance.shuffle(others)
    assert rank(others).order == order
    assert sorted(v.address for v in order) == sorted(v.address for v in views)
    assert [v.epoch for v in order] == sorted((v.epoch for v in views), reverse=True)
    for better, worse in itertools.pairwise(order):
        if better.epoch == worse.epoch and better.replid == worse.replid == HISTORY:
            assert better.offset >= worse.offset
