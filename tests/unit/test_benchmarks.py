"""The benchmarks' own arithmetic, and how they take turns."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from benchmarks import hops, lineup
from benchmarks.__main__ import parse
from benchmarks.load import Case
from benchmarks.node import install
from benchmarks.processes import PeerFailed
from benchmarks.report import Goal, quantile, show_goals, spread
from benchmarks.stage import Round, Stage, alternate, middle, ratio


@dataclass(frozen=True)
class Someone:
    name: str


def stage(rounds: int) -> Stage:
    program: Any = None
    return Stage(None, program, rounds)


@pytest.mark.parametrize(
    ("values", "part", "wanted"),
    [
        ([3.0], 0.5, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 0.99, 4.0),
        ([float(number) for number in range(1, 101)], 0.99, 99.0),
        ([float(number) for number in range(1, 51)], 0.99, 50.0),
    ],
)
def test_quantile(values: list[float], part: float, wanted: float) -> None:
    assert quantile(values, part) == wanted


def test_spread() -> None:
    values = [float(number) for number in range(1, 101)]
    assert spread(values) == {"median": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal("rate", 3.0, 3.0), True),
        (Goal("rate", 2.99, 3.0), False),
        (Goal("outage", 60.0, 60.0, most=True), True),
        (Goal("outage", 60.1, 60.0, most=True), False),
        (Goal("rate", None, 3.0), None),
    ],
)
def test_goals(goal: Goal, reached: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    [kept] = show_goals([goal])
    assert kept["reached"] is goal.reached is reached
    assert {True: "yes", False: "NO", None: "not measured"}[reached] in capsys.readouterr().out


def test_contestants_take_turns_and_begin_in_turn() -> None:
    turns: list[str] = []

    async def measure(someone: Someone, warming: bool) -> Round:
        turns.append(someone.name.lower() if warming else someone.name)
        return Round(rate=float(len(turns)))

    everybody = [Someone(name) for name in "ABC"]
    rounds = Deferred.fromCoroutine(alternate(stage(3), everybody, measure)).result
    assert "".join(turns) == "cabABCBCACAB"
    assert middle(rounds, "A", lambda each: each.rate) == 9.0
    assert middle(rounds, "nobody", lambda each: each.rate) is None


def test_a_ratio_compares_what_was_measured_in_the_same_round() -> None:
    rates = {"ours": [200.0, 20.0, 210.0], "theirs": [100.0, 10.0, 90.0], "none": []}
    rounds = {name: [Round(rate) for rate in done] for name, done in rates.items()}
    assert ratio(rounds, "ours", "theirs", lambda each: each.rate) == 2.0
    assert ratio(rounds, "ours", "none", lambda each: each.rate) is None
    assert ratio(rounds, "ours", "theirs", lambda each: each.cpu) is None


def test_who_fails_is_left_out_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    async def measure(someone: Someone, warming: bool) -> Round:
        if someone.name == "B" and not warming:
            raise PeerFailed("B has ended")
        return Round(rate=1.0)

    where = stage(2)
    everybody = [Someone(name) for name in "AB"]
    rounds = Deferred.fromCoroutine(alternate(where, everybody, measure)).result
    assert rounds == {"A": [Round(rate=1.0)] * 2}
    assert where.left_out == ["left out: B: B has ended"]
    assert "left out: B: B has ended" in capsys.readouterr().out


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineup, "find_spec", lambda name: None)
    where = stage(1)
    assert lineup.start_python_peer(where, "redis-py", 6379) is None
    assert where.left_out == ["left out: redis-py: not installed (pip install redis)"]


def test_node_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install(tmp_path) == "there is no node on the PATH"


def test_what_the_commands_are_told() -> None:
    assert parse([]).what == "all"
    assert parse(["latency", "--rounds", "9"]).rounds == 9
    assert parse(["failover", "--clients", "1", "3"]).clients == [1, 3]


@pytest.mark.parametrize(
    "words",
    [
        ["throughput", "--rounds", "0"],
        ["throughput", "--seconds", "0"],
        ["throughput", "--only", "tiny"],
        ["latency", "--seconds", "inf"],
        ["failover", "--kills", "-1"],
        ["failover", "--signal", "term"],
        ["memory", "--node"],
        ["scale", "--clients", "0"],
    ],
    ids=" ".join,
)
def test_bad_options_are_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words)
    assert words[1] in capsys.readouterr().err


def test_the_keys_of_a_case() -> None:
    assert Case("get", 2).keys == ["benchmark:0", "benchmark:1"]
    assert Case("lrange", 2, 32, 10).keys == ["benchmark:list:10"] * 2


def test_hops(capsys: pytest.CaptureFixture[str]) -> None:
    measured = Deferred.fromCoroutine(hops.run(stage(1), Namespace(turns=2)))
    figures: Any = measured.result
    assert figures.keys() == hops.TERMS.keys()
    for each in figures.values():
        assert {"client.set", "Dispatch.submitter", "written", "settled"} <= each.keys()
        assert all(0 < nanoseconds < 1e9 for nanoseconds in each.values())
    assert "client.set" in capsys.readouterr().out
