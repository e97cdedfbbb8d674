"""How the results of txredisapi's tests are judged, and told."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conformance.left_out import LEFT_OUT, LeftOut
from tests.conformance.report import Outcome, judge, summary, write_junit

TABLE = (
    LeftOut("own.*", "not ours", None),
    LeftOut("ours.differs", "it differs", "because"),
    LeftOut("ours.alone", "in single mode", "because", mode="single"),
)
HOLDS = {"own.test": "not run", "ours.differs": "failed", "ours.fine": "passed"}


def judged(
    mode: str = "group", because: str = "because", **changed: str
) -> dict[str, tuple[str, str]]:
    results = {
        test: {"outcome": outcome, "reason": because, "seconds": 0.1}
        for test, outcome in (
            HOLDS | {f"ours.{name}": outcome for name, outcome in changed.items()}
        ).items()
    }
    return {
        outcome.test: (outcome.kind, outcome.reason)
        for outcome in judge("redis-7", mode, results, TABLE)
    }


def test_what_is_on_the_list_is_left_out_with_its_reason() -> None:
    assert judged() == {
        "ours.differs": ("left out", "it differs"),
        "ours.fine": ("passed", ""),
        "own.test": ("left out", "not ours"),
    }


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [("failed", "because"), ("running", "running: because"), ("not run", "not run: because")],
)
def test_what_is_not_on_the_list_must_pass(outcome: str, reason: str) -> None:
    assert judged(fine=outcome)["ours.fine"] == ("failed", reason)


def test_what_skips_itself_is_left_out() -> None:
    assert judged(fine="skipped")["ours.fine"] == ("left out", "it skips itself: because")


def test_what_passes_does_not_belong_on_the_list() -> None:
    kind, reason = judged(differs="passed")["ours.differs"]
    assert kind == "failed"
    assert "it differs" in reason


def test_what_fails_otherwise_than_the_list_says_has_failed() -> None:
    assert judged(because="of a defect")["ours.differs"] == ("failed", "of a defect")


def test_what_ran_to_no_end_is_not_what_the_list_says() -> None:
    assert judged(differs="running")["ours.differs"][0] == "failed"


def test_an_entry_that_no_test_has_is_a_failure() -> None:
    assert judged("single")["ours.alone"][0] == "failed"
    assert "ours.alone" not in judged("group")


def test_an_entry_for_one_mode_leaves_the_other_alone() -> None:
    assert judged("single", alone="failed")["ours.alone"] == ("left out", "in single mode")
    assert judged("group", alone="failed")["ours.alone"] == ("failed", "because")


def test_report_tells_what_failed_and_why_the_rest_was_left_out(tmp_path: Path) -> None:
    outcomes = [
        Outcome("redis-7.group", "module.Class.test_fine", "passed", seconds=0.25),
        Outcome("redis-7.group", "module.Class.test_bad", "failed", "one\ntwo"),
        Outcome("redis-7.group", "module.Class.test_other", "left out", "not ours"),
    ]
    text = summary("redis-7, group", outcomes)
    assert text.splitlines() == [
        "redis-7, group: 1 passed, 1 failed, 1 left out",
        "  FAILED module.Class.test_bad",
        "    one",
        "    two",
        "  left out   1: not ours",
    ]
    write_junit(tmp_path / "junit.xml", outcomes)
    [suite] = ElementTree.parse(tmp_path / "junit.xml").iter("testsuite")
    counted = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1"}
    cases = {case.get("name"): case for case in suite}
    assert cases["test_fine"].get("classname") == "redis-7.group.module.Class"
    assert [child.text for child in cases["test_bad"]] == ["one\ntwo"]
    assert [child.get("message") for child in cases["test_other"]] == ["not ours"]


def test_no_test_is_listed_twice() -> None:
    patterns = [entry.tests for entry in LEFT_OUT]
    assert len(set(patterns)) == len(patterns)
