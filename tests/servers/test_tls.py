"""TLS to every server: a group of three through a failover, and what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import pytest_twisted

from tests.certificates import Authority
from tests.groups import WatchedClient, answer, promotions, until_settled
from tests.servers.conftest import MakeServers, Watch
from txharedis import AccessDenied
from txharedis.testing.servers import LocalServer, ServerNotStarted
from txharedis.tls import TlsContexts
from txharedis.topology import Status

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
    own = authority.issue("operator")
    tls = TlsContexts(True, str(authority.file), *own).of("127.0.0.1")

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
            if "tls" in str(error) and "Bad directive" in str(error):
                pytest.skip("this server was built without TLS")
            raise

    return make


async def assert_failover(watched: WatchedClient, servers: list[LocalServer]) -> None:
    await answer(watched.client.set("k", "before"))
    master = await until_settled(servers)
    master.kill()
    await answer(watched.client.set("k", "after"))
    assert await answer(watched.client.get("k")) == "after"
    assert watched.client.master != master.address
    await master.start()
    await until_settled(servers)
    # Whoever came back may have been chosen at the start without having been a replica.
    assert promotions(servers) <= 2


async def assert_denied(watched: WatchedClient, text: str) -> None:
    with pytest.raises(AccessDenied, match=text):
        await answer(watched.client.set("k", "v"))
    [node, *_] = watched.client.topology.nodes
    assert node.status is Status.DENIED
    assert node.reason.startswith("TLS: ")


@on_reactor
async def test_a_group_of_three_fails_over(
    secured: Secured, authority: Authority, watch: Watch
) -> None:
    trio = await secured(3)
    watched = watch(trio, tls_ca_file=str(authority.file))
    await assert_failover(watched, trio)
