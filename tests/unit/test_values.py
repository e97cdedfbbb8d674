"""A Value is to its users what a frozen dataclass is."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any

import pytest

from txharedis import events
from txharedis.topology import Address
from txharedis.values import Value


@dataclass(frozen=True, slots=True)
class Plain:
    name: str
    secret: str = field(default="", repr=False)
    noise: int = field(default=0, compare=False)
    passwords: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ours(Value):
    name: str
    secret: str = field(default="", repr=False)
    noise: int = field(default=0, compare=False)
    passwords: dict[str, str] = field(default_factory=dict, hash=False)


CASES: list[tuple[Any, ...]] = [
    ("a",),
    ("b",),
    ("a", "hidden"),
    ("a", "", 7),
    ("a", "", 0, {"x": "y"}),
]


@pytest.mark.parametrize("one", CASES)
@pytest.mark.parametrize("other", CASES)
def test_equal_as_dataclasses_are(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (Ours(*one) == Ours(*other)) is (Plain(*one) == Plain(*other))
    assert (hash(Ours(*one)) == hash(Ours(*other))) is (hash(Plain(*one)) == hash(Plain(*other)))


@pytest.mark.parametrize("case", CASES)
def test_shown_as_dataclasses_are(case: tuple[Any, ...]) -> None:
    assert repr(Ours(*case)) == repr(Plain(*case)).replace("Plain", "Ours")
    assert "hidden" not in repr(Ours(*case))


def test_another_kind_is_never_equal() -> None:
    same: Any = Plain("a")
    assert Ours("a") != same
    assert events.Event(at=1.0) != events.Waiting(at=1.0, reason="")


def test_what_users_do_with_events() -> None:
    event = events.MasterChanged(at=1.5, old=None, new=Address("h", 1), epoch=3)
    assert repr(event) == "MasterChanged(at=1.5, old=None, new=Address(host='h', port=1), epoch=3)"
    assert {event: "kept"}[copy.deepcopy(event)] == "kept"
    assert pickle.loads(pickle.dumps(event)) == event
    assert replace(event, epoch=4) != event
    with pytest.raises(FrozenInstanceError):
        event.epoch = 4  # type: ignore[misc]
    assert not hasattr(event, "__dict__")
