"""Who wants to know: of events, and of each command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from twisted.internet.defer import Deferred

from txharedis.events import Event
from txharedis.interfaces import Args
from txharedis.log import ClientLog
from txharedis.values import Value

__all__ = ["Backlog", "CommandObserver", "Observers"]

_Item = TypeVar("_Item")

CommandObserver: TypeAlias = Callable[[Args], Callable[[object], object]]
"""Called with each command when it is given; what it returns is called with its reply or Failure.
"""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Backlog(Value):
    """The commands on their way: how many wait or are unanswered, and their bytes.

    `redispatched` counts those that went back into the queue for another master, or another link,
    since the start.
    """

    commands: int
    bytes: int
    redispatched: int


class Observers:
    """Listeners to events, and observers of commands; one that raises is logged."""

    def __init__(self, log: ClientLog) -> None:
        self._log = log
        self._listeners: list[Callable[[Event], object]] = []
        self.of_commands: list[CommandObserver] = []

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call it with each event; what is returned ends that."""
        return _added(self._listeners, listener)

    def watch_commands(self, observer: CommandObserver) -> Callable[[], None]:
        """Call it with each command; what is returned ends that."""
        return _added(self.of_commands, observer)

    def emit(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                self._log.failure("a listener to events failed")

    def watch(self, args: Args, reply: Deferred[object]) -> Deferred[object]:
        """Tell of this command now, and of its reply."""
        for observer in tuple(self.of_commands):
            try:
                ended = observer(args)
            except Exception:
                self._log.failure("an observer of commands failed")
            else:
                reply.addBoth(self._tell, ended)
        return reply

    def _tell(self, result: object, ended: Callable[[object], object]) -> object:
        try:
            ended(result)
        except Exception:
            self._log.failure("an observer of commands failed")
        return result


def _added(items: list[_Item], item: _Item) -> Callable[[], None]:
    items.append(item)

    def remove() -> None:
        if item in items:
            items.remove(item)

    return remove
