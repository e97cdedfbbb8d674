"""What a client lets one see of its group: the history, each node's word, and the rehearsal."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from tests.groups import answer, promotions, until_settled
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import InvalidOption, ServiceStopped, SwitchoverFailed
from txharedis.election import Elect, Wait
from txharedis.events import FailoverEnded, HistoryDiscarded
from txharedis.testing.servers import LocalServer
from txharedis.topology import Address

on_reactor = pytest_twisted.ensureDeferred


@on_reactor
async def test_the_servers_keep_the_history(group: list[LocalServer], watch: Watch) -> None:
    watched, other = watch(group), watch(group, elect=False)
    client = watched.client
    await answer(client.set("k", "v"))
    assert await answer(client.history()) == ()
    await answer(client.switchover(group[1].address))
    await until_settled(group)
    group[1].kill()
    await eventually(lambda: client.master not in (None, group[1].address))
    await answer(client.set("k", "w"))
    await eventually(lambda: _entries(client, 2))
    killed, moved = await answer(client.history())
    assert (moved.old, moved.new) == (group[0].address, group[1].address)
    assert moved.planned
    assert moved.why == "as planned"
    assert (killed.old, killed.new) == (group[1].address, client.master)
    assert not killed.planned
    assert killed.epoch > moved.epoch
    assert killed.at >= moved.at > 1e9
    assert "congrats" not in killed.why
    assert killed.why
    assert killed.reason
    assert killed.outage > 0
    assert killed.discarded is None
    # Any client can read it, and the old master's return is written into it.
    await group[1].restart()
    await eventually(lambda: watched.seen(HistoryDiscarded))
    lost = watched.seen(HistoryDiscarded)[-1].count

    async def told() -> bool:
        newest = (await answer(other.client.history()))[0]
        return bool(newest.discarded == lost and newest.new == killed.new)

    await eventually(told)


async def _entries(client: Any, count: int) -> bool:
    return len(await answer(client.history())) == count


@on_reactor
async def test_what_would_happen_if_the_master_died(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    await answer(client.when_ready())
    await group[1].call("CONFIG", "SET", "replica-priority", 0)

    async def foreseen() -> Any:
        rehearsal = await answer(client.rehearse())
        return rehearsal if isinstance(rehearsal.decision, Elect) else None

    rehearsal = await eventually(foreseen)  # when all nodes are up
    assert str(rehearsal.master) == client.master == group[0].address
    decision = rehearsal.decision
    assert [str(view.address) for view in decision.candidates] == [group[2].address]
    assert decision.why
    # And that is who wins.
    group[0].kill()
    await eventually(lambda: client.master == group[2].address)
    await eventually(lambda: client.topology.nodes[0].status.value == "refused")
    after = await answer(client.rehearse())
    assert isinstance(after.decision, Wait)
    assert "quorum" in after.decision.reason or "1 of 3" in after.decision.reason


@on_reactor
async def test_each_node_tells_of_itself(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    for _ in range(3):
        await answer(client.incr("n"))
    group[2].kill()
    await eventually(lambda: client.topology.nodes[2].status.value == "refused")

    async def told() -> Any:
        reports = await answer(client.inspect())
        return reports if len(reports) == 2 else None

    reports = await eventually(told)  # when both are up
    assert {str(address) for address in reports} == {server.address for server in group[:2]}
    report = reports[Address.parse(group[0].address)]
    assert report.info["role"] == "master"
    assert int(report.info["used_memory"]) > 0
    assert int(report.info["connected_clients"]) > 0
    assert report.opcounter == 3
    assert 0 < report.took < 5


@on_reactor
async def test_what_a_switchover_would_do(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    await answer(client.when_ready())

    async def planned(to: object = None) -> Any:
        return await answer(client.rehearse_switchover(to))

    async def linked() -> bool:
        try:
            return bool(await planned())
        except SwitchoverFailed:
            return False

    await eventually(linked)
    plan = await planned()
    assert str(plan.old) == client.master == group[0].address
    assert str(plan.new) in {group[1].address, group[2].address}
    assert plan.why
    assert str((await planned(group[2].address)).new) == group[2].address
    await group[1].call("CONFIG", "SET", "replica-priority", 0)
    assert str((await planned()).new) == group[2].address
    for to, why in (
        (group[1].address, "has replica-priority 0"),
        (group[0].address, "is the master already"),
    ):
        with pytest.raises(SwitchoverFailed, match=why):
            await planned(to)
    with pytest.raises(InvalidOption, match="not one of the nodes"):
        await planned("127.0.0.1:1")
    assert client.master == group[0].address
    assert promotions(group) == 0
    await client.disconnect()
    with pytest.raises(ServiceStopped):
        await planned()


@on_reactor
async def test_who_comes_after_the_death_names_the_old_master_too(
    group: list[LocalServer], watch: Watch
) -> None:
    first = watch(group).client
    await answer(first.set("k", "v"))
    await until_settled(group)
    await first.disconnect()
    group[0].kill()
    await group[0].exited()
    later = watch(group)
    assert await answer(later.client.get("k")) == "v"
    await eventually(lambda: later.seen(FailoverEnded))
    ended = later.seen(FailoverEnded)[-1]
    assert (str(ended.old), ended.old_offset) == (group[0].address, None)
    await eventually(lambda: _entries(later.client, 1))
    (record,) = await answer(later.client.history())
    assert (record.old, record.new) == (group[0].address, later.client.master)
