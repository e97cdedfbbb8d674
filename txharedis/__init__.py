"""High-availability Redis for Twisted, without Sentinel.

from txharedis import create_client

client = create_client(["10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.3:6379"])
await client.set("foo", "bar")
"""

from __future__ import annotations

from txharedis._version import __version__
from txharedis.client import HAClient
from txharedis.errors import (
    AccessDenied,
    HARedisError,
    InvalidOption,
    NoMaster,
    NotInTransaction,
    NotReplicated,
    OutcomeUnknown,
    QueueFull,
    RedisError,
    ResponseError,
    ServiceStopped,
    SwitchoverFailed,
    TransactionLost,
    UnfitNodes,
    UnsupportedCommand,
    WouldDiscardData,
)
from txharedis.events import SubscriptionGap
from txharedis.failover import FailoverService, create_client
from txharedis.options import Options
from txharedis.pubsub.messages import Message
from txharedis.topology import Topology

__all__ = [
    "AccessDenied",
    "FailoverService",
    "HAClient",
    "HARedisError",
    "InvalidOption",
    "Message",
    "NoMaster",
    "NotReplicated",
    "NotInTransaction",
    "Options",
    "OutcomeUnknown",
    "QueueFull",
    "RedisError",
    "ResponseError",
    "ServiceStopped",
    "SubscriptionGap",
    "SwitchoverFailed",
    "Topology",
    "TransactionLost",
    "UnfitNodes",
    "UnsupportedCommand",
    "WouldDiscardData",
    "__version__",
    "create_client",
]
