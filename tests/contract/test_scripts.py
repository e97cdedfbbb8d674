"""The client's own scripts do what their twins do."""

from __future__ import annotations

from tests.contract.lab import Lab, Link, code
from txharedis.counter import COUNT_SCRIPT, COUNT_SHA1
from txharedis.lock import _ACQUIRE, _RELEASE

LOCK, VOTE, META = "haredis:failover:x", "haredis:vote:x", "haredis:meta"


async def acquire(link: Link, token: str, epoch: int, life: int = 60000) -> object:
    return await link("EVAL", _ACQUIRE, 3, LOCK, VOTE, META, token, life, epoch)


async def test_the_lock(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert await acquire(link, "one", 5) == [1, 5, 0, 0]
    assert await acquire(link, "two", 6) == [0, 5, 0, 1]
    assert 0 < await link("PTTL", LOCK) <= 60000
    assert await link("EVAL", _RELEASE, 1, LOCK, "two") is None
    assert await link("EVAL", _RELEASE, 1, LOCK, "one") == 1
    assert await acquire(link, "two", 5) == [0, 5, 0, 0]
    await link("HSET", META, "epoch", 9)
    assert await acquire(link, "two", 9) == [0, 5, 9, 0]
    assert await acquire(link, "two", 10, life=40) == [1, 10, 9, 0]
    await lab.sleep(0.06)
    assert await acquire(link, "three", 11) == [1, 11, 9, 0]


async def test_the_count(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert code(await link("EVALSHA", COUNT_SHA1, 1, "count", 15, 2)) == "NOSCRIPT"
    assert await link("EVAL", COUNT_SCRIPT, 1, "count", 15, 2) == 2
    assert await link("EVALSHA", COUNT_SHA1, 1, "count", 15, 3) == 5
    assert await link("GET", "count") is None
    await link("SELECT", 15)
    assert await link("GET", "count") == b"5"
    await link("SET", "count", "x")
    assert code(await link("EVALSHA", COUNT_SHA1, 1, "count", 15, 3)) == "ERR"


async def test_the_cache(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert await link("SCRIPT", "EXISTS", COUNT_SHA1, "0" * 40) == [0, 0]
    assert await link("SCRIPT", "LOAD", COUNT_SCRIPT) == COUNT_SHA1.encode()
    assert await link("SCRIPT", "EXISTS", COUNT_SHA1.upper(), "0" * 40) == [1, 0]
    assert await link("SCRIPT", "FLUSH") == b"OK"
    assert code(await link("EVALSHA", COUNT_SHA1, 1, "count", 15, 3)) == "NOSCRIPT"


async def test_scripts_on_replicas(lab: Lab) -> None:
    master, replica = await lab.make(2)
    link = await lab.connect(replica)
    await lab.follow(link, master)
    refused = await acquire(link, "one", 1)
    assert "READONLY" in str(refused)
    assert code(await link("EVALSHA", COUNT_SHA1, 1, "count", 15, 3)) == "NOSCRIPT"
    assert "READONLY" in str(await link("EVAL", COUNT_SCRIPT, 1, "count", 15, 3))
    await link("CONFIG", "SET", "replica-read-only", "no")
    assert await acquire(link, "one", 1) == [1, 1, 0, 0]
    await link("CONFIG", "SET", "replica-serve-stale-data", "no")
    master.kill()

    async def cut_off() -> bool:
        return not await lab.is_up(link)

    await lab.until(cut_off)
    assert "MASTERDOWN" in str(await acquire(link, "one", 2))


async def test_a_script_and_replicas_that_are_missing(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    await link("CONFIG", "SET", "min-replicas-to-write", 1)
    assert "NOREPLICAS" in str(await acquire(link, "one", 1))
    assert code(await link("SET", "a", 1)) == "NOREPLICAS"
    assert await link("GET", "a") is None
