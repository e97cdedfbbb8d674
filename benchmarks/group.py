"""Three servers of a benchmark."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from txharedis.testing.servers import (
    LocalServer,
    ServerProgram,
    default_program,
    find_programs,
    start_group,
)

__all__ = ["NODES", "caught_up", "choose_program", "in_sync", "running_group"]

NODES = 3


def choose_program(name: str | None) -> ServerProgram:
    """The server program of that name ("redis", "valkey-9.1.2"); the default one for None.

    Raises SystemExit when there is none of that name.
    """
    if name is None:
        return default_program()
    for program in find_programs():
        if name in (program.name, str(program)):
            return program
    found = ", ".join(map(str, find_programs())) or "none"
    raise SystemExit(f"no server program {name!r} here; found: {found}")


@asynccontextmanager
async def running_group(reactor: Any, program: ServerProgram) -> AsyncIterator[list[LocalServer]]:
    """Three started servers that know nothing of each other; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="txharedis-benchmark-") as directory:
        servers = await start_group(reactor, program, Path(directory), NODES)
        try:
            yield servers
        finally:
            await DeferredList([Deferred.fromCoroutine(server.stop()) for server in servers])


async def in_sync(servers: list[LocalServer], master: LocalServer) -> bool:
    """Whether, by their own INFO, all others follow `master`, linked and synced."""
    for server in servers:
        info = await server.info("replication")
        if server is master:
            if info["role"] != "master":
                return False
        elif info.get("master_port") != str(master.port) or info["master_link_status"] != "up":
            return False
    return True


async def caught_up(servers: list[LocalServer], master: LocalServer) -> bool:
    """Whether all others have, but for the last few bytes, what the master had just now."""
    newest = int((await master.info("replication"))["master_repl_offset"])
    for server in servers:
        if int((await server.info("replication"))["master_repl_offset"]) < newest - 1024:
            return False
    return True
