"""A killed master comes back, with more or with less than it had: it is a replica from then on."""

from __future__ import annotations

import shutil

import pytest
import pytest_twisted

from tests.failovers import Writers
from tests.groups import (
    DURABLE,
    OWN_DB,
    answer,
    append_to_file,
    at_once,
    keys_of,
    meta_of,
    opcounter_of,
    promotions,
    replicates,
    until_settled,
)
from tests.servers.conftest import Form, MakeServers, Watch
from tests.support import eventually
from txharedis.testing.servers import LocalServer
from txharedis.topology import OPCOUNTER_KEY

on_reactor = pytest_twisted.ensureDeferred

HIGH = 10**12


def add_writes_that_nobody_confirmed(server: LocalServer) -> None:
    """As if it had gone on alone for long."""
    append_to_file(
        server,
        ("SELECT", 0),
        ("SET", "k", "lost"),
        ("SET", "extra", "lost"),
        ("SELECT", OWN_DB),
        ("SET", OPCOUNTER_KEY, HIGH),
    )


@on_reactor
async def test_higher_counter_does_not_beat_a_higher_epoch(
    make_servers: MakeServers, form: Form, watch: Watch
) -> None:
    servers = await make_servers(3, options=DURABLE)
    await form(servers)
    old, *others = servers
    watched = watch(servers)
    await answer(watched.client.set("k", "v"))
    old.kill()
    await old.exited()
    await answer(watched.client.set("k", "w"))
    new = await until_settled(others)
    add_writes_that_nobody_confirmed(old)
    await old.start()
    assert await until_settled(servers) is new
    assert watched.masters == [old.address, new.address]
    assert promotions(servers) == 1
    assert await at_once(server.call("GET", "k") for server in servers) == [b"w"] * 3
    assert await keys_of(old) == {"k"}
    assert await opcounter_of(old) < HIGH
    assert await answer(watched.client.get("k")) == "w"


@on_reactor
async def test_newcomer_is_not_deceived_by_a_higher_counter(
    make_servers: MakeServers, form: Form, watch: Watch
) -> None:
    servers = await make_servers(3, options=DURABLE)
    await form(servers)
    old, *others = servers
    before = watch(servers)
    await answer(before.client.set("k", "v"))
    old.kill()
    await old.exited()
    await answer(before.client.set("k", "w"))
    new = await until_settled(others)
    await before.client.disconnect()
    # The master of epoch 2 is gone: who is left is one that knows of epoch 2, and the old one.
    new.kill()
    await new.exited()
    [last] = [server for server in others if server is not new]
    add_writes_that_nobody_confirmed(old)
    await old.start()
    assert await eventually(lambda: opcounter_of(old)) == HIGH
    assert (await meta_of(old))["epoch"] == "1"
    watched = watch(servers)
    assert await answer(watched.client.get("k")) == "w"
    assert watched.masters == [last.address]
    assert await until_settled([old, last]) is last
    assert promotions([old]) == 0
    assert await keys_of(old) == {"k"}
    assert (await meta_of(last))["epoch"] == "3"


@pytest.mark.parametrize(
    ("file", "clients"), [("no file", 1), ("an older file", 1), ("no file", 4)]
)
@on_reactor
async def test_master_killed_and_restarted_at_once_thrice_costs_no_data(
    reactor: object,
    make_servers: MakeServers,
    form: Form,
    watch: Watch,
    file: str,
    clients: int,
) -> None:
    servers = await make_servers(3, options=DURABLE)
    await form(servers)
    watched = [watch(servers) for _ in range(clients)]
    client = watched[0].client
    await answer(client.set("since", "always"))
    for server in servers:
        await eventually(lambda server=server: has_older_file(server))
        shutil.copytree(server.directory / "appendonlydir", server.directory / "older")
    writers = Writers([one.client for one in watched], "n", 20)
    writers.start(reactor)
    kills = 3
    for _ in range(kills):
        await writers.some_more(200)
        [master] = [server for server in servers if server.address == client.master]
        master.kill()
        await master.exited()
        if file == "an older file":
            shutil.rmtree(master.directory / "appendonlydir")
            shutil.copytree(master.directory / "older", master.directory / "appendonlydir")
        await master.restart(empty=file == "no file")
        await writers.some_more(200)
        new = await until_settled(servers)
        assert new is not master
    await writers.stop()
    acknowledged = len(writers.acknowledged)
    new = await until_settled(servers)
    counter = int(await new.call("GET", "n"))
    # A server writes to its replicas before it answers the last of those whom it answers in one
    # turn. So of several links, the others may have been told what died with it.
    lost = 0 if clients == 1 else kills * 20
    assert acknowledged - lost <= counter <= acknowledged + writers.unknown
    assert writers.unknown <= kills * 20
    for server in servers:
        await eventually(lambda server=server: has(server, "n", counter))
        assert await keys_of(server) == {"since", "n"}
        assert server is new or await replicates(server, new)
    assert all(one.client.master == new.address for one in watched)


async def has_older_file(server: LocalServer) -> bool:
    """Whether its append-only file is whole, and knows of the first write."""
    info = await server.info("persistence")
    quiet = info["aof_rewrite_in_progress"] == info["aof_rewrite_scheduled"] == "0"
    return quiet and await server.call("GET", "since") == b"always"


async def has(server: LocalServer, key: str, number: int) -> bool:
    return bool(await server.call("GET", key) == b"%d" % number)
