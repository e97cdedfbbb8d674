"""Every exception of this package: one tree under txredisapi.RedisError.

An error that ends a command says in `executed` what happened to it: False (the server did not
run it), True (it ran) or None (unknown: it was sent and the reply was lost). Errors that a server
itself replies with reach the caller as txredisapi.ResponseError, as they do in txredisapi.
"""

from __future__ import annotations

from collections.abc import Sequence

from txredisapi import RedisError, ResponseError

__all__ = [
    "AccessDenied",
    "HARedisError",
    "InvalidOption",
    "LinkLost",
    "LockLost",
    "NoMaster",
    "OutcomeUnknown",
    "QueueFull",
    "RedisError",
    "ResponseError",
    "ServiceStopped",
    "StepFailed",
    "UnfitNodes",
    "UnsupportedCommand",
    "WouldDiscardData",
]


class HARedisError(RedisError):
    """Base of all errors that this package raises itself."""

    executed: bool | None = False


class InvalidOption(HARedisError, ValueError):
    """An option, a node or a URL that cannot be used; the text names it and its value."""


class UnsupportedCommand(HARedisError):
    """The command would change or block the link that all commands share; it was not sent."""


class NoMaster(HARedisError):
    """No master took the command within `command_timeout` seconds; it was not sent."""


class QueueFull(HARedisError):
    """`max_pending` commands or `max_pending_bytes` bytes already wait; this one was not taken."""


class ServiceStopped(HARedisError):
    """The client was stopped.

    `executed` is False for a command that was still waiting and None for one that had been sent
    and not been answered.
    """

    def __init__(self, message: str, executed: bool | None = False) -> None:
        super().__init__(message)
        self.executed = executed


class OutcomeUnknown(HARedisError):
    """The command was sent, its reply was lost, and its delivery forbids sending it again.

    `command` holds its arguments as the caller gave them.
    """

    executed = None

    def __init__(self, message: str, command: Sequence[object]) -> None:
        super().__init__(message)
        self.command = tuple(command)


class WouldDiscardData(HARedisError):
    """Going on would discard keys or mix two groups of servers; a person has to decide.

    The text names the nodes and their numbers of keys. `adopt=["host:port"]` names nodes whose
    data may go.
    """


class AccessDenied(HARedisError):
    """The servers will not have us: credentials, a certificate, a right, or a database they lack.

    The text names the nodes and their own words.
    """


class UnfitNodes(HARedisError):
    """The nodes given cannot be one group: cluster mode, Sentinel, or a master not among them."""


class LinkLost(HARedisError):
    """A link of ours to a node was lost before the reply; only internal calls see this.

    `replies` are those that came before.
    """

    executed = None
    replies: Sequence[object] = ()


class LockLost(HARedisError):
    """The failover lock expired, changed hands or was wiped; the step changed nothing."""


class StepFailed(ResponseError):
    """A command failed inside EXEC; the rest of its transaction was executed."""
