"""The accounts of all clients beside the data of the servers: what was lost, and what came twice.

Each key has one kind of write, and its name begins with it:

counter   INCR, by one writer that waits for each reply
shared    INCR, by writers of all processes
members   SADD of a member that is never added again
items     RPUSH of rising numbers, several in one turn
register  SET of rising numbers, and GET after each

An acknowledged write that is not there is lost; one that is there more often than it was asked for
is duplicated. A write that failed as "executed" or "unknown", or that was not answered before its
process was killed, may be there or not. It is late when it overtook a later one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from txharedis.testing.chaos.accounts import Operation, Outcome

__all__ = ["KINDS", "Data", "Verdict", "kind_of", "verdict"]

Data = Any
"""int for counters and registers (0 when missing), list of int for items, set of str for members"""

KINDS = ("counter", "shared", "members", "items", "register")


def kind_of(key: str) -> str:
    return key.partition(":")[0]


@dataclass
class Verdict:
    """How many commands, and what became of them.

    acknowledged  writes that were answered
    reads         GETs that were answered
    refused       failed as not executed (`executed` is False)
    unconfirmed   writes that failed as executed (`executed` is True): too few replicas have them
    unknown       writes that failed with `executed` None, or were not answered before their process
                  was killed
    lost          acknowledged writes that are not there
    duplicated    writes that are there once more than they were asked for
    wrong         writes that failed as not executed, and are there; values that nobody wrote
    disordered    acknowledged writes that stand behind a later one of the same writer
    stale         GETs that were older than the last acknowledged SET of the same writer
    late          writes of unknown outcome that took effect after a later, acknowledged one

    `findings` says where, for the first ones.
    """

    acknowledged: int = 0
    reads: int = 0
    refused: int = 0
    unconfirmed: int = 0
    unknown: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    disordered: int = 0
    stale: int = 0
    late: int = 0
    findings: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        """Add the figures of another one."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def figures(self) -> dict[str, int]:
        """The counts by their names."""
        return {name: value for name, value in vars(self).items() if name != "findings"}

    def found(self, what: str, number: int, where: str) -> None:
        """Count something that should not be."""
        if number:
            setattr(self, what, getattr(self, what) + number)
            if len(self.findings) < 50:
                self.findings.append(f"{what} {number}: {where}")


def verdict(operations: Iterable[Operation], data: Mapping[str, Data]) -> Verdict:
    """Compare. The operations of one writer come in the order in which it submitted them."""
    result = Verdict()
    by_key: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        _count(result, operation)
        by_key[operation.key].append(operation)
    for key, all_of_it in by_key.items():
        _JUDGES[kind_of(key)](result, key, all_of_it, data[key])
    return result


def _count(result: Verdict, operation: Operation) -> None:
    outcome = operation.outcome
    if outcome is Outcome.REFUSED:
        result.refused += 1
    elif not operation.is_write:
        result.reads += outcome is Outcome.ACKNOWLEDGED
    elif outcome is Outcome.ACKNOWLEDGED:
        result.acknowledged += 1
    elif outcome is Outcome.UNCONFIRMED:
        result.unconfirmed += 1
    else:
        result.unknown += 1


def _counter(result: Verdict, key: str, operations: list[Operation], data: int) -> None:
    # The value is `sure`, or up to `possible` more: writes of unknown outcome, which may also be
    # executed at any time later.
    sure = possible = 0

    def reaches(value: int, where: str) -> None:
        nonlocal sure, possible
        result.found("lost", max(0, sure - value), f"{where}, not {sure}")
        extra = max(0, value - sure)
        most = f", not {sure} to {sure + possible}"
        result.found("duplicated", max(0, extra - possible), where + most)
        possible -= min(extra, possible)
        sure = value

    for operation in operations:
        if operation.outcome is Outcome.ACKNOWLEDGED:
            sure += 1
            reaches(int(operation.reply), f"{key} answered {operation.reply}")
        elif operation.may_be_there:
            possible += 1
    reaches(data, f"{key} is {data}")


def _shared(result: Verdict, key: str, operations: list[Operation], data: int) -> None:
    replies = [int(each.reply) for each in operations if each.outcome is Outcome.ACKNOWLEDGED]
    possible = sum(each.may_be_there for each in operations)
    # Two replies with one value: the first of the two writes was lost in between. So was one whose
    # reply is higher than the end. The others stand for one step each.
    there = len({reply for reply in replies if reply <= data})
    said = f"{key} is {data} after {len(replies)} acknowledged and {possible} unknown"
    said += f", and {there} of the replies can be true"
    result.found("lost", len(replies) - there, said)
    result.found("duplicated", max(0, data - there - possible), said)


def _members(result: Verdict, key: str, operations: list[Operation], data: set[str]) -> None:
    lost, again, wrong = [], [], []
    for each in operations:
        there = str(each.value) in data
        if each.outcome is Outcome.ACKNOWLEDGED:
            if not there:
                lost.append(each.value)
            if int(each.reply) == 0:
                again.append(each.value)
        elif each.outcome is Outcome.REFUSED and there:
            wrong.append(each.value)
    result.found("lost", len(lost), f"{key} lacks {_some(lost)}")
    result.found("duplicated", len(again), f"{key} had already {_some(again)}")
    result.found("wrong", len(wrong), f"{key} has, not executed: {_some(wrong)}")
    _strangers(result, key, operations, data)


def _items(result: Verdict, key: str, operations: list[Operation], data: list[int]) -> None:
    times = Counter(data)
    by_value = {each.value: each for each in operations}
    lost, again, wrong = [], [], []
    for value, each in by_value.items():
        again += [value] * (times[value] - 1)
        if each.outcome is Outcome.ACKNOWLEDGED and not times[value]:
            lost.append(value)
        elif each.outcome is Outcome.REFUSED and times[value]:
            wrong.append(value)
    result.found("lost", len(lost), f"{key} lacks {_some(lost)}")
    result.found("duplicated", len(again), f"{key} has more than once {_some(again)}")
    result.found("wrong", len(wrong), f"{key} has, not executed: {_some(wrong)}")
    highest = 0
    for value in dict.fromkeys(data):  # the first of each
        if value < highest and value in by_value:
            sure = by_value[value].outcome is Outcome.ACKNOWLEDGED
            result.found("disordered" if sure else "late", 1, f"{key} has {value} after {highest}")
        highest = max(highest, value)
    _strangers(result, key, operations, data)


def _register(result: Verdict, key: str, operations: list[Operation], data: int) -> None:
    outcome_of = {each.value: each.outcome for each in operations if each.is_write}
    outcome_of[0] = Outcome.ACKNOWLEDGED  # before all
    floor = 0

    def shows(what: str, value: int, where: str) -> None:
        outcome = outcome_of.get(value)
        if outcome in (None, Outcome.REFUSED):
            result.found("wrong", 1, where)
        elif value < floor:
            late = outcome is not Outcome.ACKNOWLEDGED
            result.found("late" if late else what, 1, f"{where} after {floor}")

    for each in operations:
        if each.outcome is Outcome.ACKNOWLEDGED:
            if each.is_write:
                floor = each.value
            else:
                shows("stale", int(each.reply or 0), f"{key} answered {each.reply}")
    shows("lost", data, f"{key} is {data}")


def _strangers(
    result: Verdict, key: str, operations: Iterable[Operation], data: Iterable[Any]
) -> None:
    strange = set(map(str, data)) - {str(each.value) for each in operations}
    result.found("wrong", len(strange), f"{key} has what nobody wrote: {_some(sorted(strange))}")


def _some(values: list[Any]) -> str:
    more = ", ..." if len(values) > 5 else ""
    return ", ".join(map(str, values[:5])) + more


_JUDGES: dict[str, Callable[[Verdict, str, list[Operation], Data], None]] = {
    "counter": _counter,
    "shared": _shared,
    "members": _members,
    "items": _items,
    "register": _register,
}
