"""Who answers a read: the policies as pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from txharedis.topology import Address

__all__ = ["WORDS", "nearest", "targets"]

#: The policies, as the lines of the log name them.
WORDS = {
    "master": "master default",
    "master_preferred": "master preferred",
    "replica": "slave",
    "replica_preferred": "slave preferred",
    "nearest": "nearest",
    "any": "any",
}


def targets(policy: str, master: Address | None, replicas: Sequence[Address]) -> Sequence[Address]:
    """The nodes that may answer a read now, none of them better than another.

    `master` is None while no commands flow to one, `replicas` are those that are fit. With no nodes
    the read waits for the first of those that may answer it.
    """
    masters = () if master is None else (master,)
    match policy:
        case "replica":
            return replicas
        case "replica_preferred":
            return replicas or masters
        case "master_preferred":
            return masters or replicas
        case "any" | "nearest":
            return (*masters, *replicas)
    return masters


def nearest(present: Address | None, round_trips: Mapping[Address, float]) -> Address | None:
    """The node with the shortest round trip (in seconds), None where there is none.

    The present one is kept until another is better by a fifth and by a tenth of a millisecond: two
    equals do not take turns with every measurement.
    """
    best = min(round_trips, key=lambda node: (round_trips[node], node), default=None)
    if best is None or present is None or present not in round_trips:
        return best
    better = round_trips[best] < 0.8 * round_trips[present] - 0.0001
    return best if better else present
