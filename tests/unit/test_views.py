"""The views of a client: the same group, other terms."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.fakes import FakeReactor
from txharedis.client import HAClient
from txharedis.errors import InvalidOption
from txharedis.failover import FailoverService
from txharedis.options import READ_POLICIES, Options, Terms


class FakeGroup:
    """Keeps the terms of the commands."""

    def __init__(self, **options: Any) -> None:
        self.options = Options(delivery="at-most-once", **options)
        self.terms: list[Terms] = []

    def submitter(self, terms: Any) -> Any:
        return lambda args, packed: self.submit(args, packed, terms)

    def submit(self, args: Any, packed: bytes, terms: Terms) -> Deferred[Any]:
        self.terms.append(terms)
        return Deferred()


def terms_of(client: HAClient) -> Terms:
    group: Any = client._group
    client.get("k")
    terms: Terms = group.terms[-1]
    return terms


@pytest.fixture
def client() -> HAClient:
    group: Any = FakeGroup()
    return HAClient(group)


@pytest.mark.parametrize("policy", READ_POLICIES)
def test_read_from(client: HAClient, policy: str) -> None:
    view = client.read_from(policy)
    assert terms_of(view) == Terms(read_from=policy)
    assert terms_of(client) == Terms()
    assert terms_of(view.read_from("any")) == Terms(read_from="any")
    assert client.read_from(policy) is view


def test_slave_ok(client: HAClient) -> None:
    assert terms_of(client.slave_ok()) == Terms(read_from="replica_preferred")
    assert terms_of(client.slave_ok().slave_ok(False)) == Terms()
    group: Any = FakeGroup(auto_slaveok=True)
    always = HAClient(group)
    assert terms_of(always) == Terms(read_from="replica_preferred")
    assert terms_of(always.slave_ok(False)) == Terms(read_from="master")


@pytest.mark.parametrize("policy", ["slave", "", None])
def test_a_bad_policy_is_named(client: HAClient, policy: Any) -> None:
    with pytest.raises(InvalidOption, match=f"read_from={policy!r}"):
        client.read_from(policy)


def test_own_writes_go_with_the_view(client: HAClient) -> None:
    view = client.read_your_writes()
    terms = terms_of(view)
    assert terms.read_from == "replica_preferred"
    assert terms.own_writes is not None
    other = terms_of(view.read_from("any"))
    assert other == Terms(read_from="any", own_writes=terms.own_writes)
    assert view.read_your_writes() is view
    assert terms_of(client.read_your_writes()).own_writes is not terms.own_writes
    assert terms_of(client.read_from("any").read_your_writes()).read_from == "any"
    assert terms_of(client).own_writes is None


def test_the_service_counts_the_writes_of_a_view() -> None:
    service = FailoverService(["n:1", "n:2", "n:3"], FakeReactor())
    view = service.client.read_your_writes()
    writes = view._terms.own_writes
    assert writes is not None
    view.get("k").addErrback(lambda _: None)
    view.ping().addErrback(lambda _: None)
    assert writes.settled
    failures: list[Any] = []
    for command in (view.set("k", "v"), view.execute_command("EVALSHA", "a" * 40, 0)):
        assert not writes.settled
        command.addErrback(failures.append)
    service.client.set("k", "v").addErrback(lambda _: None)
    assert writes.answered is None
    service.stopService()
    assert len(failures) == 2
    assert writes.answered == 2  # whatever became of them
