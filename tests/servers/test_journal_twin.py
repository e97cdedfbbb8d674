"""The journal's script on a server does what its twin in memory does, on which unit tests rely."""

from __future__ import annotations

import random
from typing import Any

import hiredis
import pytest
import pytest_twisted

from tests.servers.conftest import MakeServers
from tests.unit.journals import JournalServer, words_of
from tests.unit.test_journal import FakeBatch, FakeEntry
from txharedis.interfaces import pack
from txharedis.journal import Journal

STEPS = 25


def entry(chance: random.Random, number: int) -> FakeEntry:
    if chance.random() < 0.3:
        return FakeEntry(pack(("LLEN", "log")), read=True)
    return FakeEntry(pack(("RPUSH", "log", number)))


@pytest.mark.parametrize("seed", range(4))
@pytest_twisted.ensureDeferred
async def test_batches_that_come_again_late_or_never(make_servers: MakeServers, seed: int) -> None:
    [server] = await make_servers(1)
    for history in range(25):
        chance = random.Random(f"{seed} {history}")
        await server.call("FLUSHALL")
        twin, journal, batches = JournalServer(), Journal(15, "n"), list[FakeBatch]()
        for step in range(STEPS):
            if chance.random() < 0.05:
                await server.call("FLUSHALL")
                twin.flush()
                continue
            if batches and chance.random() < 0.45:
                batch = chance.choice(batches)  # again, perhaps after later ones
                if chance.random() < 0.3:
                    chance.choice(batch.commands).deferred = None
                batch.lost_once = chance.random() < 0.7
                batch.after = chance.choice([0, 0, batch.number - 1])
                if chance.random() < 0.3:
                    journal.answered()
                if chance.random() < 0.3:
                    journal.settle(batch.number)
            else:
                commands = [entry(chance, 10 * step + n) for n in range(chance.randint(1, 4))]
                batch = FakeBatch(commands, journal.number())
                batch.after = chance.choice([0, 0, batch.number - 1])
                batches.append(batch)
                if chance.random() < 0.2:
                    continue  # it does not arrive, for now
            packed = journal.encode(batch, 0, 0.0, whole=True)
            assert await server.call(*words_of(packed)) == twin.execute(packed), (history, step)
            assert await server.call("LRANGE", "log", 0, -1) == twin.values(), (history, step)


@pytest_twisted.ensureDeferred
async def test_a_replica_publishes_nothing_for_a_journal(make_servers: MakeServers) -> None:
    [server] = await make_servers(1)
    journal = Journal(15, "n")

    async def run(*commands: tuple[str, ...]) -> Any:
        batch = FakeBatch([FakeEntry(pack(command)) for command in commands], journal.number())
        return await server.call(*words_of(journal.encode(batch, 0, 0.0, whole=True)))

    async def published() -> str:
        stats = await server.info("commandstats")
        return stats["cmdstat_publish"].partition(",")[0]

    assert await run(("PUBLISH", "c", "x")) == [1, 0]
    assert await run(("PUBLISH", "c", "x"), ("SET", "k", "v")) == [1, 0, b"OK"]
    assert await published() == "calls=2"
    await server.call("REPLICAOF", "127.0.0.1", 1)
    for commands in ([("publish", "c", "x")], [("PUBLISH", "c", "x"), ("SET", "k", "v")]):
        with pytest.raises(hiredis.ReplyError, match=r"^READONLY"):
            await run(*commands)
    assert await published() == "calls=2"
