"""What happens, as frozen values: `on_event` receives them in the order in which they happen.

`at` is the client's own clock in seconds (the reactor's `seconds()`), comparable only with other
events of the same client.
"""

from __future__ import annotations

from dataclasses import dataclass

from txharedis.topology import Address, Status
from txharedis.values import Value

__all__ = [
    "Event",
    "FailoverEnded",
    "FailoverStarted",
    "FailoverStep",
    "HistoryDiscarded",
    "LockNotGranted",
    "MasterChanged",
    "NodeChanged",
    "Refused",
    "SubscriptionGap",
    "Waiting",
]


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Event(Value):
    """Base of all events."""

    at: float


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class NodeChanged(Event):
    """This client stands differently with a node; `reason` says why, for people."""

    node: Address
    status: Status
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class MasterChanged(Event):
    """Commands go to `new` from here on; `old` is None at the start."""

    old: Address | None
    new: Address
    epoch: int


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Waiting(Event):
    """Nothing can be done for a master just now; `reason` says why. Said once per reason."""

    reason: str


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Refused(Event):
    """Going on would destroy data or mix groups; a person has to act. Said once per reason."""

    reason: str
    nodes: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class SubscriptionGap(Event):
    """Messages of the subscribed channels may have been missed.

    Whatever a master acknowledged to its publisher before `since`, and whatever was published
    after `until`, is not concerned; both are on the client's clock, as `at` is.
    """

    since: float
    until: float


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class FailoverStarted(Event):
    """This client tries to fail over; `reason` says what is wrong with the master."""

    reason: str
    failover_id: str


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class FailoverStep(Event):
    """One step is done: "lock", "look", "promote", "serve", "redirect", "gossip" or "release".

    In a switchover "hand over" comes before "promote": the old master has let go.

    `node` is the node it was done on, None where it concerns them all.
    """

    step: str
    epoch: int
    node: Address | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class FailoverEnded(Event):
    """This client's failover ended: `master` is the node it promoted, None when it promoted none.

    Then somebody else was first, or it failed, or was not needed any more. `reason` says what was
    wrong with the old master, `why` why this one was the best. `outage` is in seconds,
    from the moment this client lost the old master until it used the new one; 0.0 when it had none
    before.

    `offset` is the new master's at its promotion: what it has of the old history. `old_offset` is
    the newest that is known of the old master `old`, `old_offset_age` seconds before it was lost:
    what the old one took since then, and what lies between the two, was confirmed by no replica
    that is still there. They are None where nothing is known, or where the two do not compare.
    """

    master: Address | None
    epoch: int
    reason: str = ""
    outage: float = 0.0
    offset: int | None = None
    old: Address | None = None
    old_offset: int | None = None
    old_offset_age: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class LockNotGranted(Event):
    """This client asked for the failover lock of `epoch` and a quorum did not grant it.

    `reason` says what each node answered: mostly that somebody else was faster.
    """

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class HistoryDiscarded(Event):
    """This client made a master that came back a replica of the present one.

    `count` is how many bytes of its replication history nobody had confirmed and are lost, 0 for
    none, None when nobody knows: it has restarted without its history, or the master was replaced
    more than once meanwhile. `offset` is what it had when it came back, `parted_at` the first
    offset at which the two differ, None when that is unknown.
    Beside writes, the PINGs of a master to its replicas count too (14 bytes each).
    """

    node: Address
    master: Address
    epoch: int
    count: int | None
    offset: int
    parted_at: int | None
