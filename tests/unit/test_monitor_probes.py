"""What the monitor answers to load balancers and supervisors, by the state of the group."""

from __future__ import annotations

from typing import Any

import pytest

from txharedis.monitor import probes
from txharedis.monitor.probes import BadParameter, Lag, UnknownNode

A, B, C = "a:1", "b:2", "c:3"


def node(name: str, **different: Any) -> dict[str, Any]:
    return {
        "node": name,
        "role": "replica",
        "status": "up",
        "reason": "",
        "link": "up",
        "follows": A,
        "lag_bytes": 0,
        "lag_seconds": 0.0,
        "loading": False,
        **different,
    }


def cluster(a: Any = None, b: Any = None, **different: Any) -> dict[str, Any]:
    """Master a, replicas b and c, all well; and what is different from that."""
    return {
        "state": "healthy",
        "why": [],
        "master": A,
        "quorum_ok": True,
        "nodes": [
            node(A, **{"role": "master", "link": None, "follows": "", **(a or {})}),
            node(B, **(b or {})),
            node(C),
        ],
        **different,
    }


def lost(**different: Any) -> dict[str, Any]:
    return cluster(
        {"status": "refused", "role": None, "reason": "connection refused"},
        state="no master",
        master=None,
        why=["no quorum"],
        **different,
    )


@pytest.mark.parametrize(
    ("state", "kind", "name", "lag", "code", "why"),
    [
        (cluster(), "primary", A, None, 200, "a:1 is the master"),
        (cluster(), "primary", B, None, 503, "b:2 is not the master: a:1 is"),
        (cluster(), "primary", None, None, 200, "a:1 is the master"),
        (cluster({"role": "replica"}), "primary", A, None, 503, "a:1 is a replica now"),
        (cluster({"status": "silent"}), "primary", A, None, 503, "a:1 is silent"),
        (cluster({"loading": True}), "primary", A, None, 503, "loading"),
        (cluster(quorum_ok=False), "primary", A, None, 503, "no quorum"),
        (cluster(quorum_ok=False), "read-only", A, None, 503, "a:1 is no replica"),
        (cluster(quorum_ok=False), "replica", B, None, 200, "b:2 is a replica of a:1"),
        (lost(), "primary", A, None, 503, "no master"),
        (lost(), "primary", None, None, 503, "no master; no quorum"),
        (lost(), "replica", B, None, 200, "b:2 is a replica of a:1"),
        (lost(), "replica", A, None, 503, "a:1 is refused: connection refused"),
        (cluster(), "replica", B, None, 200, "b:2 is a replica"),
        (cluster(), "replica", A, None, 503, "a:1 is no replica"),
        (cluster(), "replica", None, None, 200, "b:2 is a replica"),
        (cluster(b={"link": "down"}), "replica", B, None, 503, "the link of b:2"),
        (cluster(b={"link": "down"}), "replica", None, None, 200, "c:3 is a replica"),
        (cluster(b={"link": "syncing"}), "replica", B, None, 503, "is syncing"),
        (cluster(b={"link": None}), "replica", B, None, 503, "is not known"),
        (cluster(b={"follows": "x:9"}), "replica", B, None, 503, "follows x:9, not a:1"),
        (cluster(b={"role": "master"}), "replica", B, None, 503, "b:2 is no replica"),
        (cluster(b={"status": "denied"}), "replica", B, None, 503, "b:2 is denied"),
        (cluster(b={"lag_bytes": 11}), "replica", B, Lag(10), 503, "11 bytes behind"),
        (cluster(b={"lag_bytes": 10}), "replica", B, Lag(10), 200, "b:2 is a replica"),
        (cluster(b={"lag_bytes": None}), "replica", B, Lag(10), 503, "lag of b:2 is not known"),
        (cluster(b={"lag_bytes": None}), "replica", B, None, 200, "b:2 is a replica"),
        (cluster(b={"lag_seconds": 2.1}), "replica", B, Lag(seconds=2.0), 503, "2.1 s behind"),
        (cluster(b={"lag_seconds": 2.0}), "replica", B, Lag(seconds=2.0), 200, "b:2"),
        (cluster(b={"lag_seconds": 0.1}), "replica", B, Lag(seconds=0.0), 503, "0.1 s behind"),
        (cluster(b={"lag_seconds": None}), "replica", B, Lag(seconds=2.0), 503, "not known"),
        (cluster(), "read-only", A, None, 200, "a:1 is the master"),
        (cluster(), "read-only", B, None, 200, "b:2 is a replica"),
        (cluster(b={"lag_bytes": 11}), "read-only", B, Lag(10), 503, "11 bytes behind"),
        (lost(), "read-only", None, None, 200, "b:2 is a replica"),
    ],
)
def test_a_node_is_what_it_is_asked_for(
    state: Any, kind: str, name: str | None, lag: Lag | None, code: int, why: str
) -> None:
    asked = None if name is None else probes.parse_node(state, name)
    found = probes.CHECKS[kind](state, asked, lag)
    assert (found.code, found.body["ok"]) == (code, code == 200)
    assert why in found.body["why"]


@pytest.mark.parametrize(
    ("state", "ready", "healthy"),
    [
        (cluster(), 200, 200),
        (cluster(state="degraded", why=["b:2 is silent"]), 200, 200),
        (cluster({"status": "refused"}, state="degraded"), 503, 200),
        (cluster(quorum_ok=False, state="degraded"), 503, 200),
        (lost(), 503, 503),
    ],
)
def test_the_group_is_ready_and_healthy(state: Any, ready: int, healthy: int) -> None:
    assert probes.readiness(state).code == ready
    found = probes.health(state)
    assert found.code == healthy
    assert found.body["state"] == state["state"]
    assert found.body["why"] == state["why"]


def test_liveness_is_of_the_process_alone() -> None:
    assert probes.liveness(stands_still=False).code == 200
    assert probes.liveness(stands_still=True).code == 503


@pytest.mark.parametrize(
    ("text", "lag"),
    [
        ("0", Lag(0)),
        ("1048576", Lag(1048576)),
        ("10MB", Lag(10 * 2**20)),
        ("1.5kB", Lag(1536)),
        ("16 kb", Lag(16384)),
        ("2GB", Lag(2**31)),
        ("7B", Lag(7)),
        ("500ms", Lag(seconds=0.5)),
        ("2s", Lag(seconds=2.0)),
        ("0.25s", Lag(seconds=0.25)),
    ],
)
def test_lags(text: str, lag: Lag) -> None:
    assert probes.parse_lag(text) == lag


@pytest.mark.parametrize(
    "text", ["", "-1", "1e9", "MB", "10 parsecs", "1.2.3", "10XB", "٣", "2s ", "inf", "1" * 16]
)
def test_bad_lags_are_named(text: str) -> None:
    with pytest.raises(BadParameter, match="lag="):
        probes.parse_lag(text)


@pytest.mark.parametrize("text", ["", "a:b", "a:b:c", "redis://a:1", "a:70000"])
def test_bad_nodes_are_named(text: str) -> None:
    with pytest.raises(BadParameter, match="node="):
        probes.parse_node(cluster(), text)


def test_unknown_nodes_are_named() -> None:
    with pytest.raises(UnknownNode, match="d:4 is not one of the nodes"):
        probes.parse_node(cluster(), "d:4")


def test_a_replica_that_is_alone_is_no_master() -> None:
    alone = cluster(nodes=[node(A, role="replica", link="up", follows="x:9")])
    answer = probes.primary(alone)
    assert answer.code == 503
    assert answer.body["why"] == "a:1 is a replica now"
