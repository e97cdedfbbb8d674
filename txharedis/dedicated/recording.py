"""Recording: what a method of txredisapi does to its reply, kept until the reply is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Protocol

__all__ = ["Recorded", "Recorder", "Step", "recording"]

Step = Callable[[Any], Any]


class Recorder(Protocol):
    """Whoever has methods that are recorded: while `records`, its commands are Recorded."""

    records: bool

    @property
    def inMulti(self) -> bool: ...

    def queue_recorded(self, recorded: Recorded) -> Any: ...


class Recorded:
    """Stands in for the Deferred of a queued command while its method is at work on it.

    txredisapi converts some replies with callbacks of the Deferred that it returns. In a MULTI
    that one fires with "QUEUED", so the callbacks wait for the reply in EXEC's list.
    """

    def __init__(self, args: tuple[Any, ...], steps: list[Step]) -> None:
        self.args = args
        self.steps = steps

    def addCallback(self, step: Step, *args: Any, **kwargs: Any) -> Recorded:
        self.steps.append(partial(_called, step, args, kwargs) if args or kwargs else step)
        return self

    def addErrback(self, *args: Any, **kwargs: Any) -> Recorded:
        """Nothing to keep: what failed stands in EXEC's list as it is."""
        return self


def _called(step: Step, args: Any, kwargs: Any, value: Any) -> Any:
    return step(value, *args, **kwargs)


def recording(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def queued(self: Recorder, *args: Any, **kwargs: Any) -> Any:
        if not self.inMulti or self.records:
            return method(self, *args, **kwargs)
        self.records = True
        try:
            result = method(self, *args, **kwargs)
        finally:
            self.records = False
        return self.queue_recorded(result) if isinstance(result, Recorded) else result

    return queued
