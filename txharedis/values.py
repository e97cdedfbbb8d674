"""Value: what frozen values have in common, written once instead of generated for each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

__all__ = ["Value"]


class Value:
    """Base of frozen dataclasses: `repr`, `==` and `hash` as a dataclass has them.

    A dataclass that is told `eq=False, repr=False` takes them from here. What it makes by itself is
    compiled at each import, class by class: with some fifty of them most of what that takes. Those
    that are compared for each command, or are keys, have their own, which are quicker.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        value: Any = self
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(value) if each.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return _compared(self) == _compared(other)

    def __hash__(self) -> int:
        value: Any = self
        return hash(
            tuple(
                getattr(self, each.name)
                for each in fields(value)
                if (each.compare if each.hash is None else each.hash)
            )
        )


def _compared(value: Any) -> tuple[object, ...]:
    return tuple(getattr(value, each.name) for each in fields(value) if each.compare)
