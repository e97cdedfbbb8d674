"""Users with the rights of docs/operations.md, as they are written there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tests.groups import at_once
from txharedis.testing.servers import LocalServer

__all__ = ["PASSWORD", "USER", "documented", "set_user"]

USER, PASSWORD = "app", "app-secret-7A"

_DOCS = Path(__file__).resolve().parents[1] / "docs" / "operations.md"


def documented(kind: str) -> tuple[str, ...]:
    """The rules of the line `ACL SETUSER <kind> ...` of the docs, without name and password."""
    text = _DOCS.read_text(encoding="utf-8")
    [block] = re.findall(rf"^ACL SETUSER {kind} (.*?)\n```", text, re.MULTILINE | re.DOTALL)
    words = block.replace("\\\n", " ").split()
    assert words[:2] == ["on", ">secret"], words
    return tuple(words[2:])


async def set_user(
    servers: Sequence[LocalServer], *rules: str, name: str = USER, password: str = PASSWORD
) -> None:
    """Give these servers a user with these rules and no others."""
    await at_once(
        server.call("ACL", "SETUSER", name, "reset", "on", f">{password}", *rules)
        for server in servers
    )
