"""Few words for many things: what a command was, what came of it, and of a failover.

They name series and spans, so there is a bound to how many there are, whatever callers and servers
say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from txharedis._command_table import COMMANDS, SUPPLEMENT
from txharedis.commands import describe
from txharedis.errors import (
    AccessDenied,
    NoMaster,
    NotReplicated,
    OutcomeUnknown,
    QueueFull,
    ResponseError,
    ServiceStopped,
    UnfitNodes,
    UnsupportedCommand,
    WouldDiscardData,
)
from txharedis.events import Event, FailoverEnded, FailoverStarted, LockNotGranted
from txharedis.topology import Status, Topology

__all__ = [
    "COMMAND_RESULTS",
    "FAILOVER_REASONS",
    "FAILOVER_RESULTS",
    "OTHER",
    "SUCCESS",
    "Attempt",
    "Attempts",
    "command_name",
    "result_of",
]

OTHER = "other"
SUCCESS = "success"

_RESULTS: dict[type[BaseException], str] = {
    ResponseError: "error_reply",
    NoMaster: "no_master",
    QueueFull: "queue_full",
    OutcomeUnknown: "outcome_unknown",
    NotReplicated: "not_replicated",
    UnsupportedCommand: "refused",
    AccessDenied: "refused",
    UnfitNodes: "refused",
    WouldDiscardData: "refused",
    ServiceStopped: "stopped",
    CancelledError: "cancelled",
}

#: Every word of `result_of`.
COMMAND_RESULTS = (SUCCESS, *dict.fromkeys(_RESULTS.values()), OTHER)

#: Every word for why there was a failover, and for what came of it.
FAILOVER_REASONS = ("crashed", "hanging", "switchover", OTHER)
FAILOVER_RESULTS = (SUCCESS, "yielded", "failure")

_KNOWN = frozenset(COMMANDS | SUPPLEMENT)


def command_name(args: Sequence[object]) -> str:
    """The command as the table writes it ("GET", "CONFIG GET"), "other" when it is not there."""
    name = describe(args).name
    return name if name in _KNOWN else OTHER


def result_of(outcome: object) -> str:
    """The word for what a command's Deferred fired with, or for the error in its Failure."""
    if not isinstance(outcome, Failure):
        return SUCCESS
    for kind in type(outcome.value).__mro__:
        word = _RESULTS.get(kind)
        if word is not None:
            return word
    return OTHER


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failover of this client that has ended.

    `reason` is one of FAILOVER_REASONS: the master "crashed" (it refuses connections, or has
    restarted) or is "hanging" (it answers nothing), or it was a "switchover".
    `result` is one of FAILOVER_RESULTS: "success", "yielded" (the lock was not granted: mostly
    somebody else was faster), or "failure" (it promoted none for another reason: the next survey
    decides anew). It took `took` seconds, None when its start was not seen.
    """

    reason: str
    result: str
    took: float | None


class Attempts:
    """Makes Attempts out of events; `topology()` is asked at the start of each."""

    def __init__(self, topology: Callable[[], Topology]) -> None:
        self._topology = topology
        self._started: FailoverStarted | None = None
        self._reason = OTHER
        self._yielded = False

    def heard(self, event: Event) -> Attempt | None:
        """The failover that ended with this event."""
        match event:
            case FailoverStarted():
                self._started = event
                self._reason = _reason(event.reason, self._topology())
                self._yielded = False
            case LockNotGranted():
                self._yielded = True
            case FailoverEnded():
                started, self._started = self._started, None
                known = started is not None
                result = "yielded" if known and self._yielded else "failure"
                return Attempt(
                    self._reason if known else _reason(event.reason, self._topology()),
                    result if event.master is None else SUCCESS,
                    None if started is None else max(0.0, event.at - started.at),
                )
        return None


_STANDS = {Status.REFUSED: "crashed", Status.SILENT: "hanging"}


def _reason(text: str, topology: Topology) -> str:
    """The word for the text of FailoverStarted, and for how the client stands with the master."""
    if text.startswith("switchover"):
        return "switchover"
    if "has restarted since" in text:
        return "crashed"
    found = re.match(r"MASTER (\S+) is down", text)
    if found is None:
        return OTHER
    for node in topology.nodes:
        if str(node.address) == found[1]:
            # One that is up though is loading its data: it has restarted.
            return "crashed" if node.status is Status.UP else _STANDS.get(node.status, OTHER)
    return OTHER
