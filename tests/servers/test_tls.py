"""TLS to every server: a group of three through a failover, and what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.certificates import Authority
from tests.groups import WatchedClient, answer, promotions, until_settled
from tests.servers.conftest import MakeServers, Watch
from tests.support import eventually
from txharedis import AccessDenied
from txharedis.events import MasterChanged, NodeChanged, Waiting
from txharedis.testing.servers import LocalServer, ServerNotStarted
from txharedis.tls import TlsContexts
from txharedis.topology import Address, Status

# Twisted gives pyOpenSSL a client's certificate in the form that was its own.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

on_reactor = pytest_twisted.ensureDeferred

Secured = Callable[..., Awaitable[list[LocalServer]]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secured(make_servers: MakeServers, authority: Authority) -> Secured:
    """`await secured(3)`: servers that speak TLS only, also among themselves."""
    # It shows a certificate, and verifies none: some here are bad on purpose.
    tls = ssl.CertificateOptions(**key_and_certificate(authority, "operator"))

    async def make(
        count: int, *, names: tuple[str, ...] = ("127.0.0.1",), clients: str = "no"
    ) -> list[LocalServer]:
        cert_file, key_file = authority.issue("server", names)
        options = [
            *("--tls-cert-file", cert_file, "--tls-key-file", key_file),
            *("--tls-ca-cert-file", str(authority.file)),
            *("--tls-auth-clients", clients, "--tls-replication", "yes"),
        ]
        try:
            return await make_servers(count, options=options, tls=tls)
        except ServerNotStarted as error:
            if "Failed finding TLS support" in str(error):
                pytest.skip("this server was built without TLS")
            raise

    return make


async def assert_failover(watched: WatchedClient, servers: list[LocalServer]) -> None:
    await answer(watched.client.set("k", "before"))
    master = await until_settled(servers)
    assert watched.client.master == master.address
    master.kill()
    await watched.until(MasterChanged, f"old={master_of(watched)!r}")
    await answer(watched.client.set("k", "after"))
    assert await answer(watched.client.get("k")) == "after"
    await master.exited()
    await master.start()
    assert (await until_settled(servers)).address == watched.client.master != master.address


def master_of(watched: WatchedClient) -> Address:
    return watched.seen(MasterChanged)[-1].new


async def assert_denied(watched: WatchedClient, text: str) -> None:
    with pytest.raises(AccessDenied, match=text):
        await answer(watched.client.set("k", "v"))
    [node, *_] = watched.client.topology.nodes
    assert node.status is Status.DENIED
    assert node.reason.startswith("TLS: ")
    # It is told once, however often it is dialled again.
    denials = [event for event in watched.seen(NodeChanged) if event.status is Status.DENIED]
    assert len(denials) == len(watched.client.topology.nodes)


@on_reactor
async def test_a_group_of_three_fails_over(
    secured: Secured, authority: Authority, watch: Watch
) -> None:
    trio = await secured(3)
    await assert_failover(watch(trio, tls_ca_file=str(authority.file)), trio)


@on_reactor
async def test_long_values_and_short_ones_keep_their_order(
    secured: Secured, authority: Authority, watch: Watch
) -> None:
    [server] = await secured(1)
    client = watch([server], tls_ca_file=str(authority.file)).client
    await answer(client.set("k", "before"))
    words = [b"v" * size for size in (300_000, 3, 20_000, 1_000_000, 5, 70_000)]
    replies = [client.rpush("list", word) for word in words]
    assert [await answer(reply) for reply in replies] == [1, 2, 3, 4, 5, 6]
    assert await answer(client.lrange("list", 0, -1)) == [word.decode() for word in words]


@on_reactor
async def test_host_names_are_verified_and_sent(
    secured: Secured, authority: Authority, watch: Watch
) -> None:
    trio = await secured(3, names=("localhost", "127.0.0.1"))
    nodes = [f"localhost:{server.port}" for server in trio]
    asked: list[str] = []

    def context(host: str) -> Any:
        asked.append(host)
        return TlsContexts(True, str(authority.file), None, None).of(host)

    watched = watch(nodes, tls=context)
    await answer(watched.client.set("k", "v"))
    assert set(asked) == {"localhost"}


@on_reactor
async def test_the_name_of_the_host_is_in_the_greeting(
    reactor: Any, authority: Authority, watch: Watch
) -> None:
    """SNI: a server with several names is told which one is meant."""
    named: Deferred[bytes | None] = Deferred()
    options: Any = ssl.CertificateOptions(**key_and_certificate(authority, "localhost"))
    context = options.getContext()

    def note(connection: Any) -> None:
        if not named.called:
            named.callback(connection.get_servername())

    context.set_tlsext_servername_callback(note)
    silent: Any = Factory.forProtocol(Protocol)
    silent.noisy = False
    port = reactor.listenSSL(0, silent, options, interface="127.0.0.1")
    try:
        watched = watch([f"localhost:{port.getHost().port}"], tls_ca_file=str(authority.file))
        assert await answer(named) == b"localhost"
        await watched.client.disconnect()
    finally:
        await port.stopListening()


def key_and_certificate(authority: Authority, name: str) -> dict[str, Any]:
    cert_file, key_file = (Path(file).read_bytes() for file in authority.issue(name, (name,)))
    private = ssl.PrivateCertificate.loadPEM(key_file + cert_file)
    return {"privateKey": private.privateKey.original, "certificate": private.original}


@on_reactor
async def test_a_server_of_another_authority_is_denied(
    secured: Secured, tmp_path: Path, watch: Watch
) -> None:
    trio = await secured(3)
    other = Authority(tmp_path, "other")
    await assert_denied(watch(trio, tls_ca_file=str(other.file)), "certificate verify failed")
    assert promotions(trio) == 0


@on_reactor
async def test_the_authorities_of_the_system_do_not_know_ours(
    secured: Secured, watch: Watch
) -> None:
    [server] = await secured(1)
    await assert_denied(watch([server], tls=True), "certificate verify failed")


@on_reactor
async def test_a_certificate_for_another_host_is_denied(
    secured: Secured, authority: Authority, watch: Watch
) -> None:
    trio = await secured(3, names=("elsewhere.test", "127.0.0.9"))
    ca = str(authority.file)
    await assert_denied(watch(trio, tls_ca_file=ca), "another host name")
    names = [f"localhost:{server.port}" for server in trio]
    await assert_denied(watch(names, tls_ca_file=ca), "another host name")


@on_reactor
async def test_client_certificates(
    secured: Secured, authority: Authority, tmp_path: Path, watch: Watch
) -> None:
    trio = await secured(3, clients="yes")
    ca = str(authority.file)
    await assert_denied(watch(trio, tls_ca_file=ca), "client certificate")
    cert_file, key_file = Authority(tmp_path, "other").issue("stranger")
    stranger = watch(trio, tls_ca_file=ca, tls_cert_file=cert_file, tls_key_file=key_file)
    await assert_denied(stranger, "does not trust our certificate")
    cert_file, key_file = authority.issue("client")
    known = watch(trio, tls_ca_file=ca, tls_cert_file=cert_file, tls_key_file=key_file)
    await assert_failover(known, trio)


@on_reactor
async def test_a_plain_client_of_a_tls_port_is_told(secured: Secured, watch: Watch) -> None:
    trio = await secured(3)
    watched = watch(trio)
    refused = await watched.until(NodeChanged, "Status.REFUSED")
    assert refused.reason == "connection reset, as by a port that expects TLS (tls=True)"
    await watched.until(Waiting, "no quorum: 0 of 3")
    assert watched.client.topology.master is None


@on_reactor
async def test_a_tls_client_of_a_plain_port_is_told(
    trio: list[LocalServer], authority: Authority, watch: Watch
) -> None:
    hurry = {"heartbeat": 0.1, "down_after": 0.5, "connect_timeout": 0.3}
    watched = watch(trio, tls_ca_file=str(authority.file), **hurry)
    silent = await watched.until(NodeChanged, "Status.SILENT")
    assert silent.reason.endswith(", as from a port without TLS")
    await watched.until(Waiting, "no quorum: 0 of 3")
    assert watched.client.topology.master is None


@on_reactor
async def test_a_denied_node_is_served_when_it_has_a_good_certificate(
    secured: Secured, authority: Authority, watch: Watch
) -> None:
    [server] = await secured(1, names=("127.0.0.9",))
    watched = watch([server], tls_ca_file=str(authority.file), reconnect_max=0.2)
    await assert_denied(watched, "another host name")
    authority.issue("server", ("127.0.0.1",))
    await server.restart()
    await watched.until(NodeChanged, "Status.UP")
    assert await eventually(lambda: watched.client.master) == server.address
    assert await answer(watched.client.set("k", "v")) == "OK"


@on_reactor
async def test_an_unverified_master_that_lives_is_not_replaced(
    secured: Secured, authority: Authority, tmp_path: Path, watch: Watch
) -> None:
    """A certificate that one client cannot verify is no proof of a death."""
    trio = await secured(3)
    ca = str(authority.file)
    first = watch(trio, tls_ca_file=ca)
    await answer(first.client.set("k", "v"))
    master = await until_settled(trio)
    before = promotions(trio)
    cert_file, key_file = Authority(tmp_path, "other").issue("renewed", ("127.0.0.1",))
    await master.call("CONFIG", "SET", "tls-cert-file", cert_file, "tls-key-file", key_file)
    second = watch(trio, tls_ca_file=ca)
    await second.until(Waiting, "replicas hear it")
    await second.until(NodeChanged, "certificate verify failed")
    await answer(first.client.set("k", "w"))
    assert promotions(trio) == before
