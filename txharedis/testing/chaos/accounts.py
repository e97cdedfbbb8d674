"""What one client process asked for, and how each command ended, by its own records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["Account", "Operation", "Outcome", "Said"]


class Outcome(Enum):
    """How a command ended for its caller."""

    PENDING = "not answered"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "failed, not executed"
    UNCONFIRMED = "failed, executed"
    UNKNOWN = "failed, unknown"


_FAILURES = {False: Outcome.REFUSED, True: Outcome.UNCONFIRMED, None: Outcome.UNKNOWN}


@dataclass(slots=True)
class Operation:
    """One command. `submitted` and `answered` are times in seconds; `error` is a class's name."""

    command: str
    key: str
    value: Any
    submitted: float
    outcome: Outcome = Outcome.PENDING
    answered: float | None = None
    reply: Any = None
    error: str = ""

    @property
    def is_write(self) -> bool:
        return self.command != "GET"

    @property
    def may_be_there(self) -> bool:
        """Whether it may have been executed, or may still be, without an acknowledgement."""
        return self.outcome in (Outcome.PENDING, Outcome.UNCONFIRMED, Outcome.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that a process said beside its commands."""

    at: float
    kind: str
    fields: dict[str, Any]


@dataclass
class Account:
    """All that the process `name` has written down so far. `operations` are by their numbers."""

    name: str
    operations: dict[int, Operation] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)
    last_acknowledged: float = 0.0
    """When the newest of the writes was submitted that has been acknowledged."""

    def take(self, records: Iterable[list[Any]]) -> None:
        """Enter what `Recorder` has written."""
        for at, what, *words in records:
            if what == "submitted":
                number, command, key, value = words
                self.operations[number] = Operation(command, key, value, at)
            elif what == "acknowledged":
                number, reply = words
                operation = self.operations[number]
                operation.outcome, operation.reply = Outcome.ACKNOWLEDGED, reply
                operation.answered = at
                if operation.is_write:
                    self.last_acknowledged = max(self.last_acknowledged, operation.submitted)
            elif what == "failed":
                number, error, executed = words
                operation = self.operations[number]
                operation.outcome, operation.error = _FAILURES[executed], error
                operation.answered = at
            else:
                kind, fields = words
                self.said.append(Said(at, kind, fields))

    def heard(self, kind: str) -> list[Said]:
        """All that it said of one kind."""
        return [said for said in self.said if said.kind == kind]

    @property
    def pending(self) -> int:
        """How many commands have not been answered."""
        return sum(each.outcome is Outcome.PENDING for each in self.operations.values())
