"""Substitutes: the client's chance and date, while a simulated world runs."""

from __future__ import annotations

import itertools
import random
import secrets
import time
from collections.abc import Callable
from typing import Any

from txharedis import log

__all__ = ["Substitutes"]


class Substitutes:
    """Puts `random`, `secrets`, `time.time` and the numbers of clients under one seed.

    They are those of the whole program: between `install` and `remove` nothing else may run.
    Installed again, they go on where they were.
    """

    def __init__(self, seed: int, now: Callable[[], float]) -> None:
        chance = random.Random(f"secrets {seed}")
        self._chance = random.Random(f"client {seed}").getstate()
        self._ours: list[tuple[Any, str, Any]] = [
            (secrets, "token_hex", lambda count=32: chance.randbytes(count).hex()),
            (secrets, "token_bytes", lambda count=32: chance.randbytes(count)),
            (time, "time", now),
            (log, "_numbers", itertools.count(1)),
        ]
        self._theirs: list[tuple[Any, str, Any]] = []
        self._state: Any = None

    def install(self) -> None:
        if self._state is not None:
            raise RuntimeError("they are installed")
        self._state = random.getstate()
        random.setstate(self._chance)
        self._theirs = [(owner, name, getattr(owner, name)) for owner, name, _ in self._ours]
        for owner, name, ours in self._ours:
            setattr(owner, name, ours)

    def remove(self) -> None:
        for owner, name, theirs in self._theirs:
            setattr(owner, name, theirs)
        self._chance = random.getstate()
        random.setstate(self._state)
        self._state = None
