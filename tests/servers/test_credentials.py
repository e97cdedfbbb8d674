"""Passwords: of all nodes and of single ones, changed while it runs, and never shown."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.logger import LogEvent, eventAsText, globalLogPublisher

from tests.acl import PASSWORD, USER, documented, set_user
from tests.groups import WatchedClient, answer, at_once, until_settled
from tests.servers.conftest import MakeServers, Watch
from tests.support import eventually
from txharedis import AccessDenied, HARedisError
from txharedis.events import MasterChanged, NodeChanged
from txharedis.testing.servers import LocalServer
from txharedis.topology import Role, Status

on_reactor = pytest_twisted.ensureDeferred

SECRET, OTHER = "secret-31415", "secret-27182"
AGAIN = {"delivery": "at-least-once"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Everything that is logged, field by field, and printed; no secret may be in it."""
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        texts.append(eventAsText(event))
        texts.extend(f"{name}={value!r} {value}" for name, value in event.items())

    printed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", printed)
    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)
    texts.append(printed.getvalue())
    assert_no_secret(texts)


def assert_no_secret(texts: Sequence[str]) -> None:
    assert texts
    for secret in (SECRET, OTHER, PASSWORD):
        assert not [text for text in texts if secret in text]


def assert_silent(watched: WatchedClient, *errors: BaseException) -> None:
    """Neither the client's events and picture nor these errors show a secret."""
    client: Any = watched.client
    group = client._group
    things = [*watched.events, client, client.topology, group, group.options, *group._group]
    assert_no_secret([f"{thing!r} {thing}" for thing in (*things, *errors)])


async def fail_over(servers: Sequence[LocalServer], watched: WatchedClient) -> None:
    """Kill the master; it is replaced, and follows when it is back."""
    await answer(watched.client.set("app:k", "before"))
    old = await until_settled(servers)
    old.kill()
    await watched.until(MasterChanged, f"old={watched.seen(MasterChanged)[-1].new!r}")
    await answer(watched.client.set("app:k", "after"))
    await old.exited()
    await old.start()
    assert (await until_settled(servers)).address == watched.client.master != old.address


async def masterauths(servers: Sequence[LocalServer]) -> list[list[bytes]]:
    return [
        [(await server.call("CONFIG", "GET", name))[1] for name in ("masteruser", "masterauth")]
        for server in servers
    ]


@on_reactor
async def test_replicas_are_given_the_password(
    make_servers: MakeServers, watch: Watch, told: list[str]
) -> None:
    """The servers want one and have none for their masters: ours is enough."""
    trio = await make_servers(3, options=("--requirepass", SECRET), auth=(SECRET,))
    watched = watch(trio, password=SECRET, debug_mode=True, command_logging=True, **AGAIN)
    await fail_over(trio, watched)
    await fail_over(trio, watched)
    assert_silent(watched)


@on_reactor
async def test_replicas_are_given_the_user(
    make_servers: MakeServers, watch: Watch, told: list[str]
) -> None:
    options = ["--user", USER, "on", f">{PASSWORD}", *documented("app"), "+psync", "+replconf"]
    trio = await make_servers(3, options=("--requirepass", SECRET, *options), auth=(SECRET,))
    watched = watch(trio, username=USER, password=PASSWORD, debug_mode=True, **AGAIN)
    await fail_over(trio, watched)
    replicas = [server for server in trio if server.address != watched.client.master]
    expected = [USER.encode(), PASSWORD.encode()]
    assert await masterauths(replicas) == [expected, expected]
    assert_silent(watched)


@on_reactor
async def test_the_user_of_an_operator_is_left_alone(
    make_servers: MakeServers, watch: Watch, told: list[str]
) -> None:
    replicator = ["--user", "replicator", "on", f">{OTHER}", "+psync", "+replconf", "+ping"]
    app = ["--user", USER, "on", f">{PASSWORD}", "allkeys", "allchannels", "+@all"]
    own = ["--masteruser", "replicator", "--masterauth", OTHER]
    trio = await make_servers(
        3, options=("--requirepass", SECRET, *own, *replicator, *app), auth=(SECRET,)
    )
    watched = watch(trio, username=USER, password=PASSWORD, debug_mode=True, **AGAIN)
    await fail_over(trio, watched)
    assert await masterauths(trio) == [[b"replicator", OTHER.encode()]] * 3
    assert_silent(watched)


@on_reactor
async def test_a_password_for_each_node(
    make_servers: MakeServers, watch: Watch, told: list[str]
) -> None:
    trio = [
        (await make_servers(1, options=("--requirepass", secret), auth=(secret,)))[0]
        for secret in (SECRET, OTHER, PASSWORD)
    ]
    passwords = {server.address: server.auth[0] for server in trio[1:]}
    watched = watch(trio, password=SECRET, passwords=passwords, debug_mode=True, **AGAIN)
    for _ in range(2):
        await fail_over(trio, watched)
        master = next(server for server in trio if server.address == watched.client.master)
        replicas = [server for server in trio if server is not master]
        expected = [b"", master.auth[0].encode()]
        assert await masterauths(replicas) == [expected, expected]
    assert_silent(watched)


@on_reactor
async def test_a_password_that_changes_while_it_runs(
    make_servers: MakeServers, watch: Watch, told: list[str]
) -> None:
    options = ("--requirepass", SECRET, "--masterauth", SECRET)
    trio = await make_servers(3, options=options, auth=(SECRET,))
    watched = watch(trio, password=SECRET, reconnect_max=0.2, debug_mode=True)
    await answer(watched.client.set("k", "1"))
    await until_settled(trio)

    async def change(new: str) -> None:
        await at_once(server.call("CONFIG", "SET", "masterauth", new) for server in trio)
        await at_once(server.call("CONFIG", "SET", "requirepass", new) for server in trio)
        for server in trio:
            server.auth = (new,)

    await change(OTHER)
    # Links that are there live on.
    assert await answer(watched.client.set("k", "2")) == "OK"
    assert not [event for event in watched.seen(NodeChanged) if event.status is Status.DENIED]
    # New ones are denied, and the caller is told.
    await at_once(server.call("CLIENT", "KILL", "TYPE", "normal") for server in trio)
    await eventually(lambda: count_denied(watched) == 3)
    with pytest.raises(AccessDenied, match="WRONGPASS") as caught:
        await answer(watched.client.set("k", "3"))
    assert_silent(watched, caught.value)
    assert isinstance(caught.value, HARedisError)
    # Put right again, it works.
    await change(SECRET)
    await eventually(lambda: watched.client.master)
    assert await answer(watched.client.set("k", "4")) == "OK"
    await eventually(
        lambda: {node.role for node in watched.client.topology.nodes} == {Role.MASTER, Role.REPLICA}
    )
    assert_silent(watched)


def count_denied(watched: WatchedClient) -> int:
    return sum(node.status is Status.DENIED for node in watched.client.topology.nodes)


@on_reactor
async def test_a_server_without_auth_repeats_no_password(
    make_servers: MakeServers, watch: Watch, told: list[str]
) -> None:
    """It says which arguments it was given with a command that it does not know."""
    trio = await make_servers(3, options=("--rename-command", "AUTH", ""))
    watched = watch(trio, password=SECRET, debug_mode=True)
    await eventually(lambda: count_denied(watched) == 3)
    assert "unknown command" in watched.seen(NodeChanged)[0].reason
    assert_silent(watched)


@on_reactor
async def test_a_denied_gossip_channel_is_named(
    group: list[LocalServer], watch: Watch, told: list[str]
) -> None:
    rules = [rule for rule in documented("app") if rule != "+subscribe"]
    await set_user(group, *rules)
    watched = watch(group, username=USER, password=PASSWORD, **AGAIN)
    await answer(watched.client.set("app:k", "v"))
    await eventually(
        lambda: (
            [node.missing_rights for node in watched.client.topology.nodes]
            == [("SUBSCRIBE haredis:gossip:master",)] * 3
        )
    )
    line = "user 'app' may not SUBSCRIBE haredis:gossip:master: it hears of failovers later"
    for server in group:
        assert sum(f"{server.address}: {line}" in text for text in told) == 1
    # It elects all the same.
    old = await until_settled(group)
    old.kill()
    await watched.until(MasterChanged, f"old={watched.seen(MasterChanged)[-1].new!r}")
    await answer(watched.client.set("app:k", "after"))
