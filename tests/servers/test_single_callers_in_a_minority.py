"""No quorum, no writes: that holds on the links of single callers too."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from tests.groups import answer
from tests.servers.conftest import Form, MakeNetwork, MakeServers, Watch
from tests.servers.test_blocking import none_waits, waiting
from tests.support import eventually
from txharedis import TransactionLost

on_reactor = pytest_twisted.ensureDeferred

DOWN_AFTER = 2.0
HERE = "127.0.0.101"
THERE = "127.0.0.102"


@on_reactor
async def test_a_minority_ends_them_before_the_majority_elects(
    reactor: Any, make_servers: MakeServers, networks: MakeNetwork, form: Form, watch: Watch
) -> None:
    servers = await make_servers(3, distinct_sources=True)
    old, *majority = servers
    network = networks(servers)
    nodes = [proxy.address for proxy in network.proxies]
    await form(servers, nodes)
    here = watch(nodes, source=HERE, heartbeat=0.5, down_after=DOWN_AFTER).client
    there = watch(nodes, source=THERE, heartbeat=0.5, down_after=DOWN_AFTER).client
    tx = await answer(here.multi())
    await answer(tx.rpush("q", "lost"))
    popped = here.blpop(["q"], 0)
    await eventually(lambda: waiting(old, "blpop"))
    await answer(there.when_ready())

    network.partition(
        {HERE, str(old.source)}, {THERE, *(str(server.source) for server in majority)}
    )
    partitioned = reactor.seconds()
    await eventually(lambda: none_waits(old))
    assert reactor.seconds() - partitioned < DOWN_AFTER
    with pytest.raises(TransactionLost) as lost:
        await tx.commit()
    assert not lost.value.exec_sent
    # What somebody else gives the old master is taken by nobody, and goes with it.
    await old.call("RPUSH", "q", "old")
    await eventually(lambda: there.master not in (None, nodes[0]), 20.0)
    assert await old.call("LLEN", "q") == 1
    assert not popped.called

    network.heal()
    await answer(there.rpush("q", "new"))
    assert await answer(popped) == ["q", "new"]
