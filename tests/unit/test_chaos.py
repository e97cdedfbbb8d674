"""The accounts of the chaos tests: what they would notice."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from txharedis.testing.chaos.accounts import Account, Operation, Outcome
from txharedis.testing.chaos.nemesis import Nemesis, chosen
from txharedis.testing.chaos.outages import outages
from txharedis.testing.chaos.records import Recorder, Tail
from txharedis.testing.chaos.scene import Strike
from txharedis.testing.chaos.verdict import verdict

OK, NO, MAYBE, WEAK = (
    Outcome.ACKNOWLEDGED,
    Outcome.REFUSED,
    Outcome.UNKNOWN,
    Outcome.UNCONFIRMED,
)
CLEAN = {"lost", "duplicated", "wrong", "disordered", "stale", "late"}


def done(
    command: str, key: str, *each: tuple[Outcome, Any] | tuple[Outcome, Any, Any]
) -> list[Operation]:
    """Operations: (outcome, value), or (outcome, value, reply)."""
    return [
        Operation(command, key, one[1], float(number), one[0], reply=(*one, None)[2])
        for number, one in enumerate(each)
    ]


def count(*each: Any) -> list[Operation]:
    """INCRs: a reply is one that was acknowledged with it, an Outcome one that was not."""
    return [
        Operation("INCR", "counter:p", None, 0.0, one)
        if isinstance(one, Outcome)
        else Operation("INCR", "counter:p", None, 0.0, OK, reply=one)
        for one in each
    ]


def shared(*each: Any) -> list[Operation]:
    made = count(*each)
    for one in made:
        one.key = "shared"
    return made


def add(*each: Any) -> list[Operation]:
    return done("SADD", "members:p", *each)


def push(*each: Any) -> list[Operation]:
    return done("RPUSH", "items:p", *each)


def register(*each: Any) -> list[Operation]:
    """SETs as (outcome, value), GETs as the value that they answered."""
    return [
        Operation("GET", "register:p", None, 0.0, OK, reply=one)
        if isinstance(one, int)
        else Operation("SET", "register:p", one[1], 0.0, one[0])
        for one in each
    ]


def found(operations: Iterable[Operation], data: Any) -> dict[str, int]:
    operations = list(operations)
    result = verdict(operations, {operations[0].key: data})
    counts = {name: number for name, number in result.figures().items() if number}
    assert bool(result.findings) == bool(counts.keys() & CLEAN)
    return {name: number for name, number in counts.items() if name in CLEAN}


@pytest.mark.parametrize(
    ("operations", "data", "expected"),
    [
        (count(1, 2, 3), 3, {}),
        (count(1, 2, 3), 2, {"lost": 1}),
        (count(1, 2, 3), 4, {"duplicated": 1}),
        (count(1, 3, 4), 4, {"duplicated": 1}),
        (count(1, 2, 2, 3), 3, {"lost": 1}),  # rolled back in between
        (count(1, MAYBE, 2), 2, {}),
        (count(1, MAYBE, 3), 3, {}),
        (count(1, MAYBE, 2), 3, {}),  # executed late
        (count(1, MAYBE, 3), 4, {"duplicated": 1}),
        (count(1, MAYBE, 4), 4, {"duplicated": 1}),
        (count(1, WEAK, 2), 2, {}),
        (count(1, Outcome.PENDING), 2, {}),
        (count(1, NO, 2), 2, {}),
        (count(1, NO, 3), 3, {"duplicated": 1}),
        (shared(2, 1, 3), 3, {}),
        (shared(2, 1, 2), 2, {"lost": 1}),
        (shared(2, 1, 2), 3, {"lost": 1, "duplicated": 1}),  # nobody was told 3
        (shared(2, 1, 2, MAYBE), 3, {"lost": 1}),
        (shared(1, 2, 3, MAYBE), 3, {}),
        (shared(1, 2, 5, MAYBE, MAYBE), 3, {"lost": 1}),  # 5 is no more; one of unknown outcome is
        (shared(2, 1), 3, {"duplicated": 1}),
        (shared(2, 1, MAYBE), 3, {}),
        (shared(2, 1, NO), 3, {"duplicated": 1}),
        (add((OK, "a", 1), (OK, "b", 1)), {"a", "b"}, {}),
        (add((OK, "a", 1), (OK, "b", 1)), {"a"}, {"lost": 1}),
        (add((OK, "a", 1), (OK, "b", 0)), {"a", "b"}, {"duplicated": 1}),
        (add((OK, "a", 1), (NO, "b")), {"a", "b"}, {"wrong": 1}),
        (add((OK, "a", 1), (MAYBE, "b"), (WEAK, "c")), {"a", "b"}, {}),
        (add((OK, "a", 1)), {"a", "z"}, {"wrong": 1}),
        (push((OK, 1), (OK, 2), (OK, 3)), [1, 2, 3], {}),
        (push((OK, 1), (OK, 2), (OK, 3)), [1, 3], {"lost": 1}),
        (push((OK, 1), (OK, 2), (OK, 3)), [1, 3, 2], {"disordered": 1}),
        (push((OK, 1), (OK, 2), (OK, 3)), [1, 2, 3, 3], {"duplicated": 1}),
        (push((OK, 1), (MAYBE, 2), (OK, 3)), [1, 3], {}),
        (push((OK, 1), (MAYBE, 2), (OK, 3)), [1, 3, 2], {"late": 1}),
        (push((OK, 1), (MAYBE, 2)), [1, 2, 2], {"duplicated": 1}),
        (push((OK, 1), (NO, 2)), [1, 2], {"wrong": 1}),
        (push((OK, 1)), [1, 7], {"wrong": 1}),
        (register((OK, 1), 1, (OK, 2), 2), 2, {}),
        (register((OK, 1), (OK, 2)), 1, {"lost": 1}),
        (register((OK, 1)), 0, {"lost": 1}),
        (register((OK, 1), (OK, 2), 1), 2, {"stale": 1}),
        (register((OK, 1), (MAYBE, 2), 1), 2, {}),
        (register((OK, 1), (MAYBE, 2), (OK, 3), 2), 3, {"late": 1}),
        (register((OK, 1), (NO, 2), 2), 2, {"wrong": 2}),
        (register((OK, 1)), 9, {"wrong": 1}),
    ],
)
def test_what_is_found(operations: list[Operation], data: Any, expected: dict[str, int]) -> None:
    assert found(operations, data) == expected


def test_every_outcome_is_counted() -> None:
    operations = add((OK, "a", 1), (NO, "b"), (WEAK, "c"), (MAYBE, "d"), (Outcome.PENDING, "e"))
    operations += register((OK, 1), 1)
    figures = verdict(operations, {"members:p": {"a", "c"}, "register:p": 1}).figures()
    counted = {name: figures[name] for name in figures if figures[name]}
    assert counted == {
        "acknowledged": 2,
        "reads": 1,
        "refused": 1,
        "unconfirmed": 1,
        "unknown": 2,
    }


def test_records_are_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "records"
    account, tail = Account("p"), Tail(path)
    account.take(tail.news())
    recorder = Recorder(path)
    recorder.submitted(1, "INCR", "counter:p", None)
    recorder.submitted(2, "SADD", "members:p", "m")
    account.take(tail.news())
    assert account.pending == 2
    recorder.acknowledged(1, 1)
    recorder.failed(2, "OutcomeUnknown", None)
    recorder.submitted(3, "SET", "register:p", 1)
    recorder.failed(3, "NotReplicated", True)
    recorder.submitted(4, "SET", "register:p", 2)
    recorder.failed(4, "NoMaster", False)
    recorder.said("MasterChanged", new="127.0.0.1:1")
    # The last line of a process that was killed while it wrote.
    with path.open("ab") as file:
        file.write(b'[1.0,"submitted",5')
    account.take(tail.news())
    account.take(tail.news())
    outcomes = [each.outcome for each in account.operations.values()]
    assert outcomes == [OK, MAYBE, WEAK, NO]
    assert [said.fields for said in account.heard("MasterChanged")] == [{"new": "127.0.0.1:1"}]
    assert account.last_acknowledged == account.operations[1].submitted


def test_outage_ends_with_the_first_answer_to_a_later_write() -> None:
    def write(submitted: float, answered: float | None, command: str = "INCR") -> Operation:
        outcome = Outcome.PENDING if answered is None else OK
        return Operation(command, "shared", None, submitted, outcome, answered)

    writes = [
        write(1.0, 5.5),  # submitted before the fault: proves nothing
        write(5.1, None),
        write(5.2, 7.0),
        write(5.3, 6.0, "GET"),
        write(5.4, 6.5),
        write(8.0, 8.1),
    ]
    kill, later = Strike("kill", 5.0, ""), Strike("cut", 7.5, "", frozenset({"p"}))
    found = outages([kill, later], [("p", writes), ("new", writes[2:])])
    assert found == {
        "kill": [1.5],
        "cut (those hit)": [pytest.approx(0.6)],
        "cut": [pytest.approx(0.6)],
    }
    # Killed before it was answered: it has no outage.
    assert outages([kill], [("p", writes[:2])]) == {}


def test_faults_are_chosen_by_name() -> None:
    assert [fault.name for fault in chosen(["delay", "kill-client"])] == ["delay", "kill-client"]
    assert not any(fault.several for fault in chosen([]))
    with pytest.raises(ValueError, match="no faults nonsense"):
        chosen(["nonsense"])


@pytest.mark.parametrize(
    ("names", "at_once", "dealt"),
    [
        (["delay", "one-way", "links-cut"], 3, 1),  # there is one network
        (["kill-master", "delay", "kill-client"], 2, 2),
        (["kill-master", "leader-killed"], 2, 1),  # nobody to set a trap for
    ],
)
@pytest_twisted.ensureDeferred
async def test_faults_at_one_time(names: list[str], at_once: int, dealt: int) -> None:
    clock, done = Clock(), []

    class Quiet:
        reactor, random, traps = clock, random.Random(1), False
        replace = staticmethod(lambda: clock.advance(1.0))

        async def nothing(self, *words: object) -> None:
            pass

        rest = look = healed = nothing

    async def happen(name: str, scene: object) -> None:
        done.append(name)

    faults = [replace(f, happen=functools.partial(happen, f.name)) for f in chosen(names)]
    await Nemesis(cast(Any, Quiet()), faults, at_once).rage(1.0)
    assert len(done) == dealt
    assert set(done) <= set(names)
