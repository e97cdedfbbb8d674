"""The command table against what each server here says of itself, and does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hiredis
import pytest
import pytest_twisted

from txharedis import commands
from txharedis._command_table import COMMANDS, SUPPLEMENT
from txharedis.commands import CommandInfo, describe
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

ARGUMENTS_DECIDE = {"XREAD", "XREADGROUP", "SORT", "GEORADIUS", "GEORADIUSBYMEMBER", "BITFIELD"}


def flags_by_name(reply: list[Any]) -> Iterator[tuple[str, set[bytes]]]:
    """Every command and subcommand of a COMMAND reply, with its flags."""
    for entry in reply:
        yield entry[0].decode().upper().replace("|", " "), {bytes(flag) for flag in entry[2]}
        if len(entry) > 9:
            yield from flags_by_name(entry[9])


async def described(server: LocalServer) -> list[tuple[str, set[bytes], CommandInfo]]:
    """The server's own commands: name, flags as the server gives them, and our description."""
    found = dict(flags_by_name(await server.call("COMMAND")))
    assert "GET" in found
    return [
        (name, flags, describe(name.split()))
        for name, flags in found.items()
        if b"module" not in flags
    ]


@on_reactor
async def test_every_command_of_the_server_is_known(server: LocalServer) -> None:
    unknown = [
        name
        for name, _, info in await described(server)
        if name not in COMMANDS | SUPPLEMENT or info.name != name
    ]
    assert unknown == []


@on_reactor
async def test_no_write_is_taken_for_a_read(server: LocalServer) -> None:
    table = await described(server)
    assert [name for name, flags, info in table if b"write" in flags and info.read] == []


@on_reactor
async def test_what_the_server_flags_readonly_is_a_read(server: LocalServer) -> None:
    table = await described(server)
    assert [name for name, flags, info in table if b"readonly" in flags and not info.read] == []


@on_reactor
async def test_blocking_and_noscript_are_never_missed(server: LocalServer) -> None:
    table = await described(server)
    assert [name for name, flags, info in table if b"blocking" in flags and not info.blocking] == []
    assert [name for name, flags, info in table if b"noscript" in flags and not info.noscript] == []


@on_reactor
async def test_only_wait_is_blocking_without_the_flag(server: LocalServer) -> None:
    # Redis 7.0 does not flag WAIT.
    table = await described(server)
    others = {name for name, flags, info in table if info.blocking and b"blocking" not in flags}
    assert others <= {"WAIT"}


def test_commands_whose_arguments_decide() -> None:
    assert set(commands._DEPENDENT) == ARGUMENTS_DECIDE


@on_reactor
async def test_reads_by_their_arguments_change_nothing(server: LocalServer) -> None:
    await server.call("RPUSH", "list", 3, 1, 2)
    await server.call("SET", "bits", "abc")
    await server.call("GEOADD", "geo", "13.36", "38.11", "store")
    await server.call("XADD", "block", "*", "f", "v")
    before = (await server.info("persistence"))["rdb_changes_since_last_save"]
    for line in (
        "SORT list BY store GET # LIMIT 0 2 DESC ALPHA",
        "SORT list BY store GET STORE",
        "GEORADIUS geo 15 37 200 km WITHDIST WITHCOORD WITHHASH COUNT 5 ANY",
        "GEORADIUSBYMEMBER geo store 200 km DESC",
        "BITFIELD bits GET u8 0 OVERFLOW SAT GET u8 #1",
        "BITFIELD set GET u8 0",
        "XREAD COUNT 1 STREAMS block 0",
    ):
        assert describe(line.split()).read
        await server.call(*line.split())
    assert (await server.info("persistence"))["rdb_changes_since_last_save"] == before
    for line in (
        "SORT list BY w_* GET store STORE sorted",
        "GEORADIUS geo 15 37 200 km COUNT 5 STOREDIST near",
        "GEORADIUSBYMEMBER geo store 200 km STORE near",
        "BITFIELD bits GET u8 0 INCRBY u8 0 1",
    ):
        assert not describe(line.split()).read
        await server.call(*line.split())
        changes = (await server.info("persistence"))["rdb_changes_since_last_save"]
        assert changes != before
        before = changes


@on_reactor
async def test_the_server_folds_ascii_only(server: LocalServer) -> None:
    name = "p\N{LATIN SMALL LETTER DOTLESS I}ng"
    assert not describe([name]).read
    with pytest.raises(hiredis.ReplyError, match="unknown command"):
        await server.call(name)
    with pytest.raises(hiredis.ReplyError, match="unknown command"):
        await server.call("CONFIG GET", "maxmemory")
