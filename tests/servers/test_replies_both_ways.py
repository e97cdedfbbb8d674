"""Every command answers, and does, the same with and without the journal of exactly-once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import DeferredList, gatherResults
from twisted.python.failure import Failure

from tests.groups import answer, at_once
from tests.servers.command_lines import (
    BARE,
    HARMFUL,
    LINES,
    NEEDS_MORE,
    SETUP,
    UNORDERED,
    VARYING,
)
from tests.servers.conftest import Watch
from tests.servers.test_methods import exact, unordered
from tests.support import eventually
from txharedis import HAClient
from txharedis._command_table import COMMANDS, SUPPLEMENT
from txharedis.commands import JOURNALLED, RIDING, describe, method_names, method_words
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

DELIVERIES = ("at-most-once", "exactly-once")
WORDINGS: list[dict[str, Any]] = [
    {},
    {"charset": None},
    {"charset": None, "convert_numbers": False},
]
TABLE = COMMANDS | SUPPLEMENT

Words = tuple[Any, ...]


def lines_of(name: str) -> list[Words]:
    """The command with each of its sets of arguments; "@DUMP" stands in its place."""
    variants = LINES[name].split("|") if name in LINES else [""]
    return [(*name.split(), *variant.split()) for variant in variants]


ALL = {name: lines_of(name) for name in TABLE if name not in HARMFUL}


def test_every_command_has_its_lines_or_a_reason_for_none() -> None:
    assert LINES.keys() | BARE | HARMFUL.keys() == TABLE.keys()
    assert len(LINES) + len(BARE) + len(HARMFUL) == len(TABLE)
    assert {" ".join(words) for words in map(method_words, method_names()) if words} == set(TABLE)
    # BARE is for what goes as it is.
    assert {name for name in BARE if describe(name.split()).fit} == set()


class Bench:
    """One server, and a client that looks at it and sets it up."""

    def __init__(self, server: LocalServer, watch: Watch) -> None:
        self.server = server
        options = {"charset": None, "convert_numbers": False, "delivery": "at-most-once"}
        self._probes = [watch([server], db=db, **options).client for db in (0, 1)]
        self._dump = b""

    async def set_up(self) -> None:
        """The same data as at every start."""
        first = self._probes[0]
        replies = await answer(
            DeferredList([first.execute_command(*line.split()) for line in SETUP])
        )
        assert all(succeeded for succeeded, _ in replies), replies
        self._dump = await answer(first.dump("text"))

    async def keyspace(self) -> list[Any]:
        """What stands in the databases 0 and 1: names, types, a digest of each value, its life."""
        return [await self._database(probe) for probe in self._probes]

    async def _database(self, probe: HAClient) -> Any:
        keys = sorted(await answer(probe.keys("*")))
        if not keys:
            return []
        digests, *more = await answer(
            gatherResults(
                [probe.execute_command("DEBUG", "DIGEST-VALUE", *keys)]
                + [probe.pttl(key) for key in keys]
                + [probe.type(key) for key in keys]
            )
        )
        lives = [life if life < 0 else round(life / 50_000) for life in more[: len(keys)]]
        return list(zip(keys, digests, lives, more[len(keys) :], strict=True))

    def fill_in(self, line: Words) -> Words:
        return tuple(
            self._dump if word == "@DUMP" else 2**53 + 1 if word == "@BIG" else word
            for word in line
        )

    async def run(self, client: HAClient, lines: Sequence[Words]) -> tuple[list[Any], Any]:
        """Give these in one turn; their outcomes, and what they left."""
        await self.set_up()
        replies = [client.execute_command(*self.fill_in(line)) for line in lines]
        outcomes = await answer(DeferredList(replies, consumeErrors=True))
        if {"BGSAVE", "BGREWRITEAOF"} & {line[0] for line in lines}:
            await eventually(self._no_save_runs)
        told = [
            comparable(line, outcome) for line, (_, outcome) in zip(lines, outcomes, strict=True)
        ]
        return told, await self.keyspace()

    async def compare(self, client: HAClient, lines: Sequence[Words]) -> list[str]:
        """Run these both ways; what differs."""
        ways = [
            await self.run(client.with_options(delivery=delivery), lines) for delivery in DELIVERIES
        ]
        (replies, left), (kept, kept_left) = ways
        differences = [
            f"{line}: {one} and {other}"
            for line, one, other in zip(lines, replies, kept, strict=True)
            if one != other
        ]
        for one, other in zip(left, kept_left, strict=True):
            if one != other:
                only = [key for key in one if key not in other], [k for k in other if k not in one]
                differences.append(f"{lines} left {only[0]} and {only[1]}")
        return differences

    async def _no_save_runs(self) -> bool:
        info = await self.server.info("persistence")
        return all(info[f"{what}_in_progress"] == "0" for what in ("rdb_bgsave", "aof_rewrite"))


def comparable(line: Words, outcome: Any) -> Any:
    """The outcome of one line, as far as it has to be the same."""
    if isinstance(outcome, Failure):
        return type(outcome.value), str(outcome.value)
    name = describe(line).name
    if name == "PTTL":
        return type(outcome), round(outcome / 50_000)
    if name in VARYING:
        return type(outcome)
    if name in UNORDERED:
        return unordered(outcome)
    return exact(outcome)


@pytest_twisted.async_yield_fixture
async def bench(server: LocalServer, watch: Watch) -> AsyncIterator[Bench]:
    made = Bench(server, watch)
    await made.set_up()
    yield made


@on_reactor
@pytest.mark.parametrize("words", WORDINGS, ids=str)
async def test_each_command_alone_and_between_writes(
    bench: Bench, server: LocalServer, watch: Watch, words: dict[str, Any]
) -> None:
    client = watch([server], **words).client
    differences = []
    for lines in ALL.values():
        for line in lines:
            differences += await bench.compare(client, [line])
            around = [("SET", "beside", 1), line, ("INCR", "beside")]
            differences += await bench.compare(client, around)
    assert not differences, "\n".join(differences)


@on_reactor
@pytest.mark.parametrize("words", WORDINGS, ids=str)
async def test_many_commands_in_one_turn(
    bench: Bench, server: LocalServer, watch: Watch, words: dict[str, Any]
) -> None:
    client = watch([server], **words).client
    lines = [
        line
        for name, lines in ALL.items()
        for line in lines
        if describe(line).fit and name not in ("FLUSHALL", "FLUSHDB")
    ]
    plain = [("BITFIELD", "bits", "INCRBY", "i64", 0, 1), ("LRANGE", "list", 0, -1)]
    differences = []
    for stride in (1, 7, 19):
        mixed = [line for start in range(stride) for line in lines[start::stride]]
        for at in range(0, len(mixed), 23):
            turn = [*mixed[at : at + 11], *plain, *mixed[at + 11 : at + 23]]
            differences += await bench.compare(client, turn)
    assert not differences, "\n".join(differences)


@on_reactor
async def test_what_goes_through_the_journal_succeeds_and_fails(
    bench: Bench, server: LocalServer, watch: Watch
) -> None:
    """The comparison compares something: each command is seen both ways, where it exists."""
    client = watch([server], delivery="exactly-once").client
    lacking = []
    for name, lines in ALL.items():
        if describe(lines[0]).fit not in (JOURNALLED, RIDING):
            continue
        kinds = set()
        for line in lines:
            [told], _ = await bench.run(client, [line])
            kinds.add(isinstance(told, tuple) and issubclass(told[0], Exception))
            if isinstance(told, tuple) and "unknown command" in str(told[1]):
                kinds.add(None)
        if kinds != {True, False} and None not in kinds and name not in NEEDS_MORE:
            lacking.append(f"{name}: {'fails' if True in kinds else 'succeeds'} only")
    assert not lacking


@on_reactor
async def test_the_walk_goes_through_the_journal(
    bench: Bench, server: LocalServer, watch: Watch
) -> None:
    client = watch([server], delivery="exactly-once").client
    await at_once([client.set("a", 1), client.get("a"), client.incr("a")])
    [journal] = await server.call("KEYS", "haredis:journal:*", db=15)
    fields = await server.call("HKEYS", journal, db=15)
    assert {b"floor", b"last", b"1"} == set(fields)
