"""Transactions on real servers."""

from __future__ import annotations

import pytest_twisted

from tests.groups import answer
from tests.servers.conftest import Watch
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


@on_reactor
async def test_multi_and_exec(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    tx = await answer(client.multi())
    assert tx.inTransaction
    assert await answer(tx.set("k", "v")) == "QUEUED"
    assert await answer(tx.hset("h", "f", 1)) == "QUEUED"
    assert await answer(tx.hgetall("h")) == "QUEUED"
    assert await answer(tx.sismember("s", 1)) == "QUEUED"
    assert await answer(tx.commit()) == ["OK", 1, {"f": 1}, False]
    assert not tx.inTransaction
    assert await answer(client.get("k")) == "v"
