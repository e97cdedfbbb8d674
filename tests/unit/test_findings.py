"""What `haredis check` finds in what the nodes say, and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from txharedis.cli import advice
from txharedis.cli.check import drawn, exit_status
from txharedis.cli.findings import (
    Finding,
    Level,
    clocks,
    election,
    nodes_up,
    quorum,
    rights,
    together,
    versions,
)
from txharedis.election import Elect, Follow, Refuse, Wait
from txharedis.monitor.cluster import DEGRADED, HEALTHY, NO_MASTER
from txharedis.topology import Address, NodeView, Role

OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM

GOOD = {
    "appendonly": "yes",
    "save": "3600 1",
    "min-replicas-to-write": "0",
    "min-replicas-max-lag": "10",
    "repl-ping-replica-period": "1",
    "repl-timeout": "60",
    "repl-backlog-size": "67108864",
    "replica-priority": "100",
    "replica-read-only": "yes",
    "replica-serve-stale-data": "yes",
    "maxmemory": "1000",
    "maxmemory-policy": "noeviction",
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 1 1 1",
    "timeout": "0",
    "lua-time-limit": "1000",
    "protected-mode": "yes",
    "bind": "127.0.0.1 -::1",
}
INFO = {
    "role": "master",
    "redis_mode": "standalone",
    "used_memory": "100",
    "maxmemory": "1000",
    "connected_clients": "10",
    "maxclients": "100",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
}


def advised(
    config: dict[str, str] | None = None, info: dict[str, str] | None = None, **more: Any
) -> list[Finding]:
    where = {"nodes": 3, "down_after": 3.0, **more}
    given = {**GOOD, **(config or {})}
    return list(advice.settings("n:1", given, {**INFO, **(info or {})}, **where))


def test_good_settings() -> None:
    assert advised() == [Finding(OK, "settings", "as recommended", ("n:1",))]
    assert set(GOOD) == set(advice.QUESTIONS)
    assert not any("pass" in name or "auth" in name for name in advice.QUESTIONS)


def test_what_a_server_does_not_tell_is_no_finding() -> None:
    found = list(advice.settings("n:1", {}, {}, nodes=3, down_after=3.0))
    assert [finding.level for finding in found] == [OK]


@pytest.mark.parametrize(
    ("config", "level", "text"),
    [
        ({"appendonly": "no", "save": ""}, WARNING, "appendonly no and no save"),
        ({"appendonly": "no"}, WARNING, "data of its newest save"),
        ({"min-replicas-to-write": "2"}, PROBLEM, "after a failover 1 replicas are left"),
        ({"min-replicas-to-write": "3"}, PROBLEM, "there are 2 replicas"),
        ({"repl-ping-replica-period": "60"}, PROBLEM, "repl-timeout 60 is not above"),
        ({"repl-ping-replica-period": "10"}, WARNING, "repl-ping-replica-period 10"),
        ({"repl-backlog-size": "1048576"}, WARNING, "repl-backlog-size 1 MB"),
        ({"replica-priority": "0"}, WARNING, "never promoted"),
        ({"replica-read-only": "no"}, WARNING, "replica-read-only no"),
        ({"replica-serve-stale-data": "no"}, WARNING, "replica-serve-stale-data no"),
        ({"maxmemory-policy": "allkeys-lru"}, PROBLEM, "haredis:meta"),
        ({"maxmemory-policy": "volatile-ttl"}, WARNING, "journals of exactly-once"),
        ({"client-output-buffer-limit": "slave 1000 0 60"}, WARNING, "replica 1000 0"),
        ({"timeout": "5"}, WARNING, "timeout 5"),
        ({"lua-time-limit": "5000"}, WARNING, "answers after 5000 ms"),
        ({"lua-time-limit": "0"}, WARNING, "answers never"),
    ],
)
def test_settings_in_the_way(config: dict[str, str], level: Level, text: str) -> None:
    [finding] = advised(config)
    assert finding.level is level
    assert text in finding.text


@pytest.mark.parametrize(
    "config",
    [
        {"min-replicas-to-write": "1"},
        {"min-replicas-to-write": "3", "min-replicas-max-lag": "0"},
        {"maxmemory": "0", "maxmemory-policy": "allkeys-lru"},
        {"client-output-buffer-limit": "slave 0 0 0"},
        {"timeout": "300"},
        {"replica-priority": "1"},
    ],
)
def test_settings_that_are_not_in_the_way(config: dict[str, str]) -> None:
    assert [finding.level for finding in advised(config)] == [OK]


@pytest.mark.parametrize(
    ("info", "level", "text"),
    [
        ({"redis_mode": "cluster"}, PROBLEM, "cluster mode"),
        ({"server_mode": "cluster"}, PROBLEM, "cluster mode"),
        ({"used_memory": "950"}, WARNING, "95 % of maxmemory"),
        ({"connected_clients": "80"}, WARNING, "80 of 100 connections"),
        ({"aof_last_write_status": "err"}, PROBLEM, "append-only file"),
        ({"rdb_last_bgsave_status": "err"}, PROBLEM, "last save failed"),
    ],
)
def test_what_info_tells(info: dict[str, str], level: Level, text: str) -> None:
    [finding] = advised(info=info)
    assert finding.level is level
    assert text in finding.text


def test_a_server_on_the_loopback_of_another_machine() -> None:
    [finding] = advised(remote=True)
    assert (finding.level, "bind 127.0.0.1" in finding.text) == (PROBLEM, True)
    assert advised({"bind": "* -::*"}, remote=True)[0].level is OK


def test_only_a_masters_ping_period_matters() -> None:
    assert advised({"repl-ping-replica-period": "10"}, {"role": "slave"})[0].level is OK


@pytest.mark.parametrize(
    ("count", "up", "levels"),
    [
        (1, 1, [WARNING]),
        (2, 2, [PROBLEM]),
        (2, 1, [PROBLEM, PROBLEM]),
        (3, 3, [OK]),
        (3, 2, [WARNING]),
        (3, 1, [PROBLEM]),
        (4, 4, [WARNING]),
        (5, 4, [OK]),
        (5, 3, [WARNING]),
    ],
)
def test_quorum(count: int, up: int, levels: list[Level]) -> None:
    assert [finding.level for finding in quorum(count, up, [])] == levels


def test_twins() -> None:
    first, *_ = quorum(3, 2, [("a:1", "b:1")])
    assert (first.level, first.text) == (PROBLEM, "a:1 and b:1 are one server")


def test_rights_are_named() -> None:
    found = list(
        rights(
            "app",
            {
                "a:1": (),
                "b:1": ("SLAVEOF", "PUBSUB NUMSUB"),
                "c:1": ("MULTI",),
                "d:1": ("PUBSUB NUMSUB",),
                "e:1": (),
                "f:1": ("SLAVEOF",),  # as when it was last seen
            },
            {"e:1", "f:1"},
        )
    )
    assert [(finding.level, finding.nodes[0]) for finding in found] == [
        (OK, "a:1"),
        (PROBLEM, "b:1"),
        (WARNING, "b:1"),
        (PROBLEM, "c:1"),
        (OK, "d:1"),
        (WARNING, "d:1"),
        (WARNING, "e:1"),
        (WARNING, "f:1"),
        (PROBLEM, "f:1"),
    ]
    assert "is not answered" in found[6].text
    assert "user 'app' may not SLAVEOF: it follows only" in found[1].text
    assert "it hears of failovers later" in found[2].text
    assert "may not MULTI: it cannot even vote" in found[3].text


@pytest.mark.parametrize(
    ("said", "levels"),
    [
        (["redis 7.0.15"] * 3, [OK]),
        (["redis 7.0.15", "", "redis 7.0.15"], [OK]),
        (["redis 7.0.15", "valkey 9.1.2", "redis 7.0.15"], [WARNING]),
        (["redis 6.0.9"] * 1, [WARNING, OK]),
        (["redis 4.0.1"] * 1, [PROBLEM, OK]),
        (["", ""], []),
    ],
)
def test_versions(said: list[str], levels: list[Level]) -> None:
    found = versions({f"n:{number}": version for number, version in enumerate(said, 1)})
    assert [finding.level for finding in found] == levels


@pytest.mark.parametrize(
    ("ahead", "level", "text"),
    [
        ({"a": 0.1, "b": -0.2}, OK, "within 1 s"),
        ({"a": 5.0, "b": -0.2}, WARNING, "a is 5.2 s ahead of b"),
        ({"a": 60.0, "b": 60.1}, WARNING, "+60.1 s off this machine's"),
    ],
)
def test_clocks(ahead: dict[str, float], level: Level, text: str) -> None:
    [finding] = clocks(ahead)
    assert finding.level is level
    assert text in finding.text
    assert list(clocks({})) == []


def view(port: int) -> NodeView:
    return NodeView(address=Address("h", port), run_id=str(port), role=Role.REPLICA)


def test_what_would_happen() -> None:
    elect = Elect((view(2), view(3)), "MASTER h:1 is down", "highest offset (9)")
    found = election(Address("h", 1), elect)
    assert found.level is OK
    assert found.text == "if h:1 died now h:2 would be elected: highest offset (9); after it h:3"
    alone = election(None, Elect((view(2),), "r", "w"))
    assert alone.text == "now, without a master, h:2 would be elected: w"
    for decision in (Wait("no quorum"), Refuse("no quorum")):
        found = election(Address("h", 1), decision)
        assert found.level is PROBLEM
        assert found.text == "if h:1 died now nobody would be elected: no quorum"
    for strange in (Follow(Address("h", 2)), Elect((), "by roles")):
        assert election(None, strange).level is PROBLEM


@pytest.mark.parametrize(
    ("state", "why", "level"),
    [(HEALTHY, [], OK), (DEGRADED, ["w"], WARNING), (NO_MASTER, ["w"], PROBLEM)],
)
def test_the_state_is_a_finding(state: str, why: list[str], level: Level) -> None:
    [finding] = nodes_up({"state": state, "why": why, "master": "h:1", "nodes": [1, 2, 3]})
    assert finding.level is level
    assert finding.text == ("w" if why else "h:1 is the master, 2 replicas follow it")


def test_findings_of_all_nodes_are_one() -> None:
    found = [Finding(WARNING, "settings", "x", (node,)) for node in ("a:1", "b:1", "c:1")] + [
        Finding(OK, "settings", "y", ("a:1",)),
        Finding(OK, "settings", "y", ("c:1",)),
    ]
    merged = together(found, 3)
    assert merged == [
        Finding(WARNING, "settings", "x"),
        Finding(OK, "settings", "y", ("a:1", "c:1")),
    ]
    assert drawn(merged) == [
        "warning  settings   x",
        "ok       settings   a:1, c:1: y",
    ]
    assert drawn([Finding(OK, "versions", "redis \x1b[31m7", ("a:1",))]) == [
        "ok       versions   a:1: redis ?[31m7"
    ]


def test_exit_status() -> None:
    fine, bad = Finding(WARNING, "a", "b"), Finding(PROBLEM, "a", "b")
    assert exit_status(HEALTHY, []) == exit_status(DEGRADED, [fine]) == 0
    assert exit_status(HEALTHY, [fine, bad]) == 1
    assert exit_status(NO_MASTER, [fine, bad]) == 2
