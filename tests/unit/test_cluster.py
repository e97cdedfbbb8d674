"""The state of a group as JSON: what is in it, when it is healthy, and why it is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from txharedis.inspection import NodeReport
from txharedis.monitor.cluster import DEGRADED, HEALTHY, NO_MASTER, cluster_state
from txharedis.topology import Address, NodePicture, Role, Status, Topology

A, B, C = (Address("h", port) for port in (1, 2, 3))

MASTER_INFO = {
    "role": "master",
    "run_id": "run-a",
    "redis_version": "7.0.15",
    "master_replid": "r1",
    "master_repl_offset": "1000",
    "used_memory": "1048576",
    "maxmemory": "0",
    "connected_clients": "7",
    "instantaneous_ops_per_sec": "12",
    "uptime_in_seconds": "60",
    "loading": "0",
}


def replica_info(run_id: str, **fields: str) -> dict[str, str]:
    return {
        **MASTER_INFO,
        "role": "slave",
        "run_id": run_id,
        "master_host": "h",
        "master_port": "1",
        "master_link_status": "up",
        "master_sync_in_progress": "0",
        "slave_repl_offset": "990",
        **fields,
    }


def picture(address: Address, **fields: Any) -> NodePicture:
    common: dict[str, Any] = {
        "status": Status.UP,
        "epoch": 12,
        "offset": 1000,
        "version": "7.0.15",
        "priority": 100,
        "listeners": 3,
    }
    if address == A:
        common |= {"role": Role.MASTER, "lag": 0}
    else:
        common |= {"role": Role.REPLICA, "link_up": True, "follows": "h:1", "lag": 10}
    return NodePicture(address, **{**common, **fields})


def report(address: Address, info: Mapping[str, str], **fields: Any) -> NodeReport:
    return NodeReport(address, info, **{"opcounter": 5, "took": 0.001, "at": 9.0, **fields})


def reports(**changed: Mapping[str, str]) -> dict[Address, NodeReport]:
    infos = {"a": MASTER_INFO, "b": replica_info("run-b"), "c": replica_info("run-c"), **changed}
    return {
        address: report(address, info)
        for address, info in zip((A, B, C), infos.values(), strict=True)
        if info
    }


def state(
    *pictures: NodePicture,
    master: Address | None = A,
    said: Mapping[Address, NodeReport] | None = None,
    elects: bool = False,
    **more: Any,
) -> dict[str, Any]:
    by_address = {one.address: one for one in (picture(A), picture(B), picture(C), *pictures)}
    topology = Topology(
        master=master, epoch=12, group="g", quorum=2, nodes=tuple(by_address.values())
    )
    found = cluster_state(
        topology,
        reports() if said is None else said,
        phase="following",
        elects=elects,
        version="1.2.3",
        at=1790000000.5,
        **more,
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_a_healthy_group_in_full() -> None:
    failover = {"since": 1.0, "reason": "MASTER h:1 is down", "step": "lock"}
    found = state(lag_seconds={B: 0.25}, failover=failover)
    nodes = found.pop("nodes")
    assert found == {
        "version": "1.2.3",
        "at": 1790000000.5,
        "state": HEALTHY,
        "why": [],
        "phase": "following",
        "master": "h:1",
        "epoch": 12,
        "group": "g",
        "quorum": 2,
        "quorum_ok": True,
        "elects": False,
        "failover": failover,
        "clients": 3,
    }
    assert nodes[0] == {
        "node": "h:1",
        "role": "master",
        "status": "up",
        "reason": "",
        "link": None,
        "follows": "",
        "offset": 1000,
        "lag_bytes": 0,
        "lag_seconds": 0.0,
        "opcounter": 5,
        "memory_bytes": 1048576,
        "memory_max_bytes": 0,
        "connected_clients": 7,
        "commands_per_second": 12.0,
        "latency_seconds": 0.001,
        "version": "redis 7.0.15",
        "uptime_seconds": 60,
        "epoch": 12,
        "priority": 100,
        "loading": False,
        "missing_rights": [],
    }
    assert nodes[1] == {
        **nodes[0],
        "node": "h:2",
        "role": "replica",
        "link": "up",
        "follows": "h:1",
        "offset": 990,
        "lag_bytes": 10,
        "lag_seconds": 0.25,
    }
    assert nodes[2]["lag_seconds"] is None


def test_of_a_node_that_is_gone_no_lag_is_told() -> None:
    found = state(picture(B, status=Status.REFUSED, role=None), lag_seconds={B: 0.0, C: 0.5})
    told = [(node["lag_bytes"], node["lag_seconds"]) for node in found["nodes"]]
    assert told == [(0, 0.0), (None, None), (10, 0.5)]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"status": Status.REFUSED, "reason": "connection refused", "role": None},
            "h:3 is refused: connection refused",
        ),
        ({"status": Status.DIALLING, "role": None}, "h:3 is dialling"),
        ({"loading": True}, "h:3 is loading its data"),
        ({"reason": "BUSY"}, "h:3: BUSY"),
        ({"follows": "h:9"}, "h:3 follows h:9, not h:1"),
    ],
)
def test_what_the_pictures_say_against_a_node(changed: dict[str, Any], why: str) -> None:
    found = state(picture(C, **changed))
    assert (found["state"], found["why"]) == (DEGRADED, [why])


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (replica_info("c", master_link_status="down"), "h:3 is not linked to h:1"),
        (
            replica_info("c", master_link_status="down", master_sync_in_progress="1"),
            "h:3 is in the middle of a full resync",
        ),
        (replica_info("c", loading="1"), "h:3 is loading its data"),
        (MASTER_INFO, "h:3 says that it is a master, beside h:1"),
        ({}, "h:3 does not answer in time"),
    ],
)
def test_what_the_nodes_say_against_themselves(info: dict[str, str], why: str) -> None:
    found = state(said=reports(c=info))
    assert found["state"] == DEGRADED
    assert why in found["why"]


def test_rights_matter_to_who_elects() -> None:
    lacking = picture(C, missing_rights=("SLAVEOF", "PUBSUB NUMSUB"))
    assert state(lacking)["state"] == HEALTHY
    found = state(lacking, elects=True)
    assert found["why"] == ["h:3: our user may not SLAVEOF"]
    assert found["nodes"][2]["missing_rights"] == ["SLAVEOF", "PUBSUB NUMSUB"]


def test_no_master_says_why() -> None:
    down = [picture(a, status=Status.REFUSED, reason="gone", role=None) for a in (A, B)]
    found = state(*down, master=None, said=reports(a={}, b={}), reason="MASTER h:1 is down")
    assert found["state"] == NO_MASTER
    assert found["master"] is None
    assert not found["quorum_ok"]
    assert found["why"] == [
        "MASTER h:1 is down",
        "no quorum: 1 of 3 nodes are up, 2 needed",
        "h:1 is refused: gone",
        "h:2 is refused: gone",
    ]
    assert found["nodes"][0]["offset"] is found["nodes"][0]["lag_bytes"] is None
    assert state(master=None)["why"] == ["no node is followed as the master"]
    assert state(master=None)["phase"] == "waiting"
    found = state(*down, master=None, said=reports(a={}, b={}), reason="no quorum: it says why")
    assert found["why"][:2] == ["no quorum: it says why", "h:1 is refused: gone"]


def test_without_a_master_the_nodes_tell_of_their_group() -> None:
    nodes = (picture(B, epoch=11, group="old"), picture(C, group="g2"))
    found = cluster_state(
        Topology(quorum=2, nodes=nodes), {}, phase="orientating", elects=False, version="", at=0.0
    )
    assert (found["epoch"], found["group"]) == (12, "g2")


def test_a_master_without_a_quorum_is_none_to_write_to() -> None:
    down = [picture(a, status=Status.SILENT, role=None) for a in (B, C)]
    found = state(*down, said=reports(b={}, c={}))
    assert found["state"] == NO_MASTER
    assert found["master"] == "h:1"
    assert found["why"][0] == "no quorum: 1 of 3 nodes are up, 2 needed"


def test_a_server_with_two_addresses_counts_once() -> None:
    down = picture(C, status=Status.REFUSED, role=None)
    said = reports(b=replica_info("run-a"), c={})
    assert not state(down, said=said)["quorum_ok"]


def test_a_lag_is_told_only_within_one_history() -> None:
    said = reports(b=replica_info("run-b", master_replid="other"))
    assert [node["lag_bytes"] for node in state(said=said)["nodes"]] == [0, None, 10]


def test_the_lag_of_a_node_that_does_not_answer_is_not_known() -> None:
    """What it last said would be a promise that nobody can keep."""
    for found in (state(said=reports(c={})), state(said={}, asked=[A, B, C])):
        assert found["nodes"][2]["lag_bytes"] is None
        assert "h:3 does not answer in time" in found["why"]
    without_master = {address: said for address, said in reports().items() if address != A}
    assert [node["lag_bytes"] for node in state(said=without_master)["nodes"]] == [0, None, None]


@pytest.mark.parametrize("number", ["nan", "inf", "1e999", "many"])
def test_a_figure_that_json_does_not_know_is_not_known(number: str) -> None:
    found = state(said=reports(c=replica_info("c", instantaneous_ops_per_sec=number)))
    assert found["nodes"][2]["commands_per_second"] is None


def test_a_node_that_was_not_asked_is_not_late() -> None:
    assert state(said=reports(c={}), asked=[A, B])["why"] == []


def test_what_a_user_without_info_sees() -> None:
    blind = [
        picture(a, version="", offset=0, epoch=0, lag=0, priority=None, listeners=None)
        for a in (A, B, C)
    ]
    silent = {a: report(a, {}, opcounter=None) for a in (A, B, C)}
    found = state(*blind, said=silent)
    assert found["state"] == HEALTHY
    assert found["clients"] is None
    for node in found["nodes"][1:]:
        assert node["role"] == "replica"
        unknown = ("link", "offset", "lag_bytes", "opcounter", "memory_bytes", "epoch", "priority")
        assert [node[name] for name in unknown] == [None] * len(unknown)
        assert node["version"] == ""


def test_without_reports_the_pictures_stand() -> None:
    found = state(said={})
    assert (found["state"], found["why"]) == (HEALTHY, [])
    node = found["nodes"][1]
    assert (node["offset"], node["lag_bytes"], node["link"]) == (1000, 10, "up")
    assert (node["version"], node["memory_bytes"]) == ("7.0.15", None)


def test_a_master_with_data_of_its_own_is_no_second_master() -> None:
    alien = {**MASTER_INFO, "run_id": "run-c", "db0": "keys=2,expires=0", "db3": "keys=1,expires=0"}
    pictures = picture(B, group="g"), picture(C, role=Role.MASTER, group="", epoch=0)
    found = state(picture(A, group="g"), *pictures, said=reports(c=alien))
    assert found["state"] == DEGRADED
    assert found["why"] == [
        "h:3 is a master with 3 keys that are not this group's: it is left alone"
        " (adopt names nodes whose data may go)"
    ]
    # With nothing but what clients share it is made a replica, like one of the group.
    shared = {**MASTER_INFO, "run_id": "run-c", "db15": "keys=2,expires=0"}
    found = state(picture(A, group="g"), *pictures, said=reports(c=shared))
    assert found["why"] == ["h:3 says that it is a master, beside h:1"]
    member = picture(C, role=Role.MASTER, group="g", epoch=11)
    found = state(picture(A, group="g"), picture(B, group="g"), member, said=reports(c=alien))
    assert found["why"] == ["h:3 says that it is a master, beside h:1"]


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (replica_info("run-a"), "h:1 is a replica now"),
        ({**MASTER_INFO, "loading": "1"}, "h:1 is loading its data"),
    ],
)
def test_a_node_alone_is_a_master_only_when_it_takes_writes(
    info: Mapping[str, str], why: str
) -> None:
    alone = Topology(master=A, epoch=0, group="", quorum=1, nodes=(picture(A, epoch=0),))
    found = cluster_state(
        alone, {A: report(A, info)}, phase="following", elects=False, version="1.2.3", at=1.0
    )
    assert (found["state"], found["why"]) == (NO_MASTER, [why])


@pytest.mark.parametrize("rate", ["nan", "inf", "-inf", "many"])
def test_a_rate_that_is_no_number_is_unknown(rate: str) -> None:
    # `state` checks that it can be written as JSON.
    found = state(said=reports(a={**MASTER_INFO, "instantaneous_ops_per_sec": rate}))
    assert found["nodes"][0]["commands_per_second"] is None
