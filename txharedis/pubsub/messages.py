"""Message: what a subscription receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Draft", "Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a channel.

    `data` is converted as replies are (options `charset` and `convert_numbers`). `channel` and
    `pattern` are decoded with the charset, and stay bytes where they cannot be or where there is no
    charset; they are never made numbers. `pattern` is the one that matched, None for a message of
    subscribe and ssubscribe. `node` is the server that sent it, as "host:port".
    """

    channel: str | bytes
    data: Any
    pattern: str | bytes | None
    node: str


class Draft:
    """A message in the making: `draft.__class__ = Message` finishes it.

    Both together take less than half the time of Message(...), which has to get around its own
    being frozen.
    """

    __slots__ = ("channel", "data", "node", "pattern")

    def __init__(
        self, channel: str | bytes, data: Any, pattern: str | bytes | None, node: str
    ) -> None:
        self.channel = channel
        self.data = data
        self.pattern = pattern
        self.node = node
