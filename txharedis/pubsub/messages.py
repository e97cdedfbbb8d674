"""Message: what a subscription receives."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Message"]


class Message(NamedTuple):
    """One message of a channel: a frozen value.

    (A tuple is made in less than half the time of a frozen dataclass, and messages can be many.)

    `data` is converted as replies are (options `charset` and `convert_numbers`). `channel` and
    `pattern` are decoded with the charset, and stay bytes where they cannot be or where there is no
    charset; they are never made numbers. `pattern` is the one that matched, None for a message of
    subscribe and ssubscribe. `node` is the server that sent it, as "host:port".
    """

    channel: str | bytes
    data: Any
    pattern: str | bytes | None
    node: str
