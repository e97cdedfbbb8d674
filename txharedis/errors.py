"""Every exception of this package: one tree under txredisapi.RedisError.

An error that ends a command says in `executed` what happened to it: False (the server did not
run it), True (it ran) or None (unknown: it was sent and the reply was lost). Errors that a server
itself replies with reach the caller as txredisapi.ResponseError, as they do in txredisapi. Where
that one has its ConnectionError, NoMaster, OutcomeUnknown, ServiceStopped and TransactionLost are
such too.
"""

from __future__ import annotations

from collections.abc import Sequence

from txredisapi import ConnectionError as TxConnectionError
from txredisapi import RedisError, ResponseError

__all__ = [
    "AccessDenied",
    "HARedisError",
    "InvalidOption",
    "LinkLost",
    "LockLost",
    "NotInTransaction",
    "NoMaster",
    "NotReplicated",
    "OutcomeUnknown",
    "QueueFull",
    "RedisError",
    "ResponseError",
    "ServiceStopped",
    "StepFailed",
    "SwitchoverFailed",
    "TransactionLost",
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
    """The command would change the link that all commands share; it was not sent.

    AUTH, HELLO, CLIENT REPLY, RESET, SYNC and the like have no place in a client whose links come
    and go. Others have a method of their own, which the text names: multi(), watch(), monitor(),
    subscribe(), select(). Transactions and pipelines fail with it for what they do not have.
    """


class NoMaster(HARedisError, TxConnectionError):
    """No master took the command, or transaction, within `command_timeout` seconds; not sent.

    Nor did a replica, where one may answer; the text names the policy then (`read_from`).
    """


class QueueFull(HARedisError):
    """A bound is reached, and this command was not taken; the text names it.

    `max_pending` commands or `max_pending_bytes` bytes already wait, or `max_dedicated` blocking
    commands and transactions have a link of their own or wait for one.
    """


class ServiceStopped(HARedisError, TxConnectionError):
    """The client was stopped.

    `executed` is False for a command that was still waiting and None for one that had been sent
    and not been answered.
    """

    def __init__(self, message: str, executed: bool | None = False) -> None:
        super().__init__(message)
        self.executed = executed


class OutcomeUnknown(HARedisError, TxConnectionError):
    """The command was sent, its reply was lost, and it cannot be sent again.

    Its delivery forbids it ("at-most-once"), or it is one that the journal of "exactly-once" cannot
    keep, or the journal itself is gone; the text says so. `command` holds its arguments as the
    caller gave them. `executed` is None, or True when only the reply is lost: it was too large to
    be kept, or an integer that a script cannot hold.
    """

    def __init__(
        self, message: str, command: Sequence[object], executed: bool | None = None
    ) -> None:
        super().__init__(message)
        self.command = tuple(command)
        self.executed = executed


class NotReplicated(HARedisError):
    """The master has executed the write, and too few replicas confirmed it within `ack_timeout`.

    Or the link, or the master's role, was lost before they did, and it does not go again.
    It is there, and may be lost with the master. `command` holds its arguments as the caller gave
    them, `reply` is the server's raw reply, `replicas` the number of those that confirmed.
    """

    executed = True

    def __init__(
        self, message: str, command: Sequence[object], reply: object, replicas: int
    ) -> None:
        super().__init__(message)
        self.command = tuple(command)
        self.reply = reply
        self.replicas = replicas

    @classmethod
    def of(
        cls, command: Sequence[object], reply: object, acks: int, waited: object
    ) -> NotReplicated | None:
        """The error when WAIT for `acks` replicas was answered so; None when they confirmed."""
        replicas = waited if isinstance(waited, int) else 0
        if replicas >= acks:
            return None
        why = f": {waited}" if isinstance(waited, Exception) else ""
        return cls(
            f"{command[0] if command else '?'} was executed on the master, and {replicas} of "
            f"{acks} replicas confirmed it in time{why}",
            command,
            reply,
            replicas,
        )


class TransactionLost(HARedisError, TxConnectionError):
    """A failover, or the loss of its link, ended a transaction before it was answered.

    `exec_sent` tells whether EXEC had been sent. `executed` is False when the server did not
    execute what stood between MULTI and EXEC, None when nobody knows: EXEC was sent and the reply
    was lost. Writes between WATCH and MULTI are executed at once, so it says nothing of them.
    """

    def __init__(
        self, message: str, exec_sent: bool = False, executed: bool | None = False
    ) -> None:
        super().__init__(message)
        self.exec_sent = exec_sent
        self.executed = executed


class NotInTransaction(HARedisError):
    """The transaction is over, or multi() was not called before; nothing was sent."""


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


class SwitchoverFailed(HARedisError):
    """The master was not moved; the text says why, and who is master.

    `executed` is False when nothing has changed. It is None when it was begun and the client lost
    sight of it: then another master than the one asked for was elected, or soon is. No write is
    lost in either case.
    """

    def __init__(self, message: str, executed: bool | None = False) -> None:
        super().__init__(message)
        self.executed = executed


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
