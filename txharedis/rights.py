"""Rights: what a client needs on a node to take part in failovers, asked without doing it.

A server checks the rights when a command is queued in a transaction, so all of them are queued and
thrown away. Each has a form that changes nothing if it is run after all, because the transaction
itself was denied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from txharedis.interfaces import Args
from txharedis.topology import (
    GOSSIP_CHANNEL,
    META_KEY,
    OPCOUNTER_KEY,
    SENTINEL_CHANNEL,
    failover_key,
    vote_key,
)

__all__ = [
    "ACTING",
    "HEARING",
    "PUBLISHING",
    "PROBES",
    "SUBSCRIBING",
    "TRANSACTION",
    "denied",
    "lacking",
]

_LOCK, _VOTE = failover_key("rights"), vote_key("rights")  # keys that are never there

#: The means of every change, which leave nothing behind. It begins and ends a transaction.
TRANSACTION: Sequence[Args] = (["WATCH", _LOCK], ["UNWATCH"], ["MULTI"], ["EXEC"])

#: The others, to be queued.
PROBES: Sequence[Args] = (
    ["INFO", "replication"],
    ["SLAVEOF", "nobody", "no port"],
    ["CONFIG", "GET", "replica-priority"],
    ["CONFIG", "SET", "no-such-setting", "1"],
    ["CLIENT", "KILL", "TYPE", "no such type"],
    ["EVAL", "return 0", 0],
    ["EVALSHA", "0" * 40, 0],
    ["GET", _LOCK],
    ["SET", _LOCK, "", "PX", "no number"],
    ["EXISTS", _LOCK],
    ["DEL", _LOCK],
    ["GET", _VOTE],
    ["SET", _VOTE, "", "PX", "no number"],
    ["HGETALL", META_KEY],
    ["HGET", META_KEY, "epoch"],
    ["HSET", META_KEY, "a", "field", "too many"],
    ["HDEL", META_KEY, "no such field"],
    ["MGET", OPCOUNTER_KEY, _VOTE, _LOCK],
    ["INCRBY", OPCOUNTER_KEY, "no number"],
    ["PUBSUB", "NUMSUB", SENTINEL_CHANNEL, GOSSIP_CHANNEL],
)

#: To be queued too, but never to be run: everybody would hear it.
PUBLISHING: Args = ["PUBLISH", GOSSIP_CHANNEL, ""]

#: The name of the right that the gossip link needs.
SUBSCRIBING = f"SUBSCRIBE {GOSSIP_CHANNEL}"

#: Rights without which a client elects all the same: to hear of others' failovers at once, and to
#: count those who do.
HEARING = frozenset({SUBSCRIBING, "PUBSUB NUMSUB"})

#: Rights without which a node can still be locked, and so have its vote.
ACTING = HEARING | {"SLAVEOF", "CLIENT KILL", "EVALSHA", f"INCRBY {OPCOUNTER_KEY}"}


_DENIED = re.compile("NOPERM|EXECABORT .*NOPERM", re.DOTALL)


def denied(reply: object) -> bool:
    """Whether this reply says that the user lacks a right.

    For EXEC it says so as EXECABORT.
    """
    return isinstance(reply, Exception) and _DENIED.match(str(reply)) is not None


def lacking(probes: Sequence[Args], replies: Sequence[object]) -> tuple[str, ...]:
    """The names of the rights that are missing, in the order of the probes, each once."""
    names = [_name(probe) for probe, reply in zip(probes, replies, strict=True) if denied(reply)]
    return tuple(dict.fromkeys(names))


def _name(probe: Args) -> str:
    """The command; of one on our keys and channels, its key or channel too."""
    first, *rest = [str(word) for word in probe]
    if first in ("CONFIG", "CLIENT", "PUBSUB"):
        return f"{first} {rest[0]}"
    if first == "MGET":
        return f"MGET {_pattern(rest[0])} ..."
    if rest and rest[0].startswith("haredis:"):
        return f"{first} {_pattern(rest[0])}"
    return first


def _pattern(key: str) -> str:
    return key.removesuffix("rights") + "*" if key in (_LOCK, _VOTE) else key
