"""FLUSHALL takes our own keys too: the group remains the same one."""

from __future__ import annotations

import pytest_twisted

from tests.groups import DURABLE, answer, keys_of, meta_of, until_settled
from tests.servers.conftest import Form, MakeServers, Watch
from tests.support import eventually
from txharedis.events import Refused

on_reactor = pytest_twisted.ensureDeferred


@on_reactor
async def test_group_survives_flushall_and_takes_back_who_was_away(
    make_servers: MakeServers, form: Form, watch: Watch
) -> None:
    trio = await make_servers(3, options=DURABLE)
    await form(trio)
    master, _, away = trio
    watched = watch(trio, survey_interval=0.5)
    assert await answer(watched.client.set("before", 1)) == "OK"
    await eventually(lambda: away.call("GET", "before"))
    old = await meta_of(master)
    away.kill()
    await away.exited()

    assert await answer(watched.client.flushall()) == "OK"
    assert await answer(watched.client.set("after", 2)) == "OK"
    new = await eventually(lambda: meta_of(master))
    assert new["group"] == old["group"]
    assert int(new["epoch"]) >= int(old["epoch"])
    assert new["master"] == master.address

    await away.restart()
    assert await until_settled(trio) is master
    assert await keys_of(away) == {"after"}
    assert not watched.seen(Refused)
    assert watched.masters == [master.address]
