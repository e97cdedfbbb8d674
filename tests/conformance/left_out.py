"""The tests that are left out, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["LEFT_OUT", "LeftOut", "find"]


@dataclass(frozen=True)
class LeftOut:
    """Some tests that HAClient is not held to.

    tests   a pattern of their names
    reason  why
    says    a part of what each of them must fail with, or it does not belong here. None: they do
            not run, for they would run txredisapi's own classes, or end by chance
    mode    in which they are left out; None for both
    """

    tests: str
    reason: str
    says: str | None
    mode: str | None = None

    @property
    def runs(self) -> bool:
        return self.says is not None

    def covers(self, test: str, mode: str) -> bool:
        return self.mode in (None, mode) and fnmatchcase(test, self.tests)


def _own(tests: str, reason: str) -> LeftOut:
    return LeftOut(tests, f"txredisapi's own {reason}", None)


LEFT_OUT = (
    _own("test_sentinel.*", "Sentinel classes"),
    _own("test_reconnect.*", "connections, pool and redialling"),
    _own("test_ssl.*", "TLS endpoint, on a server that only knows ROLE"),
    _own("test_ipv6.*", "resolving of names, on a server that only knows ROLE"),
    _own("test_protocol.*", "LineReceiver and encoder"),
    _own("test_connection.TestTimeouts.*", "protocol, on a server in memory"),
    _own("test_*.*.test_Sharded*Connection*", "sharding"),
    LeftOut(
        "test_operations.TestRedisConnections.testRedisOperationsSet1",
        "by chance: it reads a value before it expires, 10 ms later",
        None,
    ),
    LeftOut(
        "test_implicit_pipelining.TestImplicitPipelining.testImplicitPipelining",
        "by chance: the replies come in one piece with high probability, as it says itself",
        None,
    ),
    LeftOut(
        "test_basics.TestBasics.test_auth",
        "credentials are options of a client: AUTH would change the link that all commands share",
        "UnsupportedCommand",
    ),
    LeftOut(
        "test_number_conversions.TestNoNumberConversions.test_number_conversions",
        "a float is written in full, 0.1, and not with six digits, 0.100000",
        "'0.1' != '0.100000'",
    ),
    LeftOut(
        "test_subscriber.TestSubscriberProtocol.testDisconnectErrors",
        "a subscription outlives its link",
        "self.fail()",  # where it waits for the ConnectionError
    ),
)


def find(test: str, mode: str) -> LeftOut | None:
    """The entry under which a test is left out in this mode; None if it is not."""
    return next((entry for entry in LEFT_OUT if entry.covers(test, mode)), None)
