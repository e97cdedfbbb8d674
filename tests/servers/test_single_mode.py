"""One server: no election, but the queue, and the redispatch of what was not executed."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.groups import DURABLE, OWN_DB, answer, keys_of, promotions
from tests.servers.conftest import MakeServers, Watch
from txharedis import OutcomeUnknown, ResponseError
from txharedis.events import FailoverStarted, NodeChanged
from txharedis.topology import Status

on_reactor = pytest_twisted.ensureDeferred


@on_reactor
async def test_commands_wait_for_the_server_in_their_order(
    make_servers: MakeServers, watch: Watch
) -> None:
    [server] = await make_servers(1, options=DURABLE)
    watched = watch([server])
    assert await answer(watched.client.rpush("list", "before")) == 1
    server.kill()
    await server.exited()
    await watched.until(NodeChanged, "refused")
    replies = [watched.client.rpush("list", number) for number in range(100)]
    assert not any(reply.called for reply in replies)
    await server.start()
    assert [await answer(reply) for reply in replies] == list(range(2, 102))
    items = await server.call("LRANGE", "list", 0, -1)
    assert items == [b"before", *(b"%d" % number for number in range(100))]


@on_reactor
async def test_server_may_be_started_after_its_client(
    make_servers: MakeServers, watch: Watch
) -> None:
    [server] = await make_servers(1)
    await server.stop()
    watched = watch([server])
    reply = watched.client.set("k", "v")
    await watched.until(NodeChanged, "refused")
    assert not reply.called
    await server.start()
    assert await answer(reply) == "OK"


@on_reactor
async def test_unanswered_read_is_sent_again_and_unanswered_write_is_not(
    reactor: Any, make_servers: MakeServers, watch: Watch
) -> None:
    [server] = await make_servers(1, options=DURABLE)
    watched = watch([server])
    assert await answer(watched.client.set("k", 1)) == "OK"
    server.pause()
    read = watched.client.get("k")
    write = watched.client.incr("k")
    await deferLater(reactor, 0)  # they leave at the end of their turn
    server.kill()
    with pytest.raises(OutcomeUnknown) as unknown:
        await answer(write)
    assert unknown.value.command == ("INCRBY", "k", 1)
    assert not read.called
    await server.exited()
    await server.start()
    # It never got to execute what was sent to it while it hung.
    assert await answer(read) == 1
    assert await answer(watched.client.get("k")) == 1


@on_reactor
async def test_hung_server_is_noticed_and_used_again_when_it_wakes(
    make_servers: MakeServers, watch: Watch
) -> None:
    [server] = await make_servers(1)
    watched = watch([server], heartbeat=0.4, down_after=1.0, reconnect_max=0.5)
    assert await answer(watched.client.set("k", 1)) == "OK"
    server.pause()
    await watched.until(NodeChanged, "silent")
    reply = watched.client.incr("k")
    server.resume()
    assert await answer(reply) == 2


@on_reactor
async def test_loading_server_is_waited_for(make_servers: MakeServers, watch: Watch) -> None:
    [server] = await make_servers(1)
    fill = "for i = 1, 300 do redis.call('set', 'key:' .. i, string.rep('x', 100)) end"
    await server.call("EVAL", fill, 0)
    await server.call("SAVE")
    slow = ("--key-load-delay", "4000", "--loading-process-events-interval-bytes", "1024")
    await server.restart(options=slow)
    watched = watch([server])
    reply = watched.client.get("key:300")
    assert (await server.info("persistence"))["loading"] == "1"
    assert not reply.called
    assert await answer(reply) == "x" * 100


@on_reactor
async def test_readonly_is_handed_to_the_caller(make_servers: MakeServers, watch: Watch) -> None:
    server, other = await make_servers(2)
    await server.call("SLAVEOF", "127.0.0.1", other.port)
    watched = watch([server])
    with pytest.raises(ResponseError, match="READONLY"):
        await answer(watched.client.set("k", "v"))
    assert await answer(watched.client.get("k")) is None
    await server.call("SLAVEOF", "NO", "ONE")
    assert await answer(watched.client.set("k", "v")) == "OK"


@on_reactor
async def test_nothing_but_the_commands_reaches_the_server(
    make_servers: MakeServers, watch: Watch
) -> None:
    [server] = await make_servers(1)
    watched = watch([server])
    assert await answer(watched.client.set("k", "v")) == "OK"
    assert await keys_of(server) == {"k"}
    assert await server.call("DBSIZE", db=OWN_DB) == 0
    assert await server.call("CONFIG", "GET", "repl-ping-replica-period") == [
        b"repl-ping-replica-period",
        b"10",
    ]
    assert promotions([server]) == 0
    assert not watched.seen(FailoverStarted)
    assert watched.client.topology.quorum == 1
    assert [node.status for node in watched.client.topology.nodes] == [Status.UP]
