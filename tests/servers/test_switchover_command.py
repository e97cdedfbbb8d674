"""`haredis switchover` as its user meets it: a process, its words and its exit status."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.utils import getProcessOutputAndValue

from tests.acl import PASSWORD, USER, documented, set_user
from tests.failovers import Writers
from tests.groups import answer, meta_of, until_settled
from tests.servers.conftest import MakeServers, Watch
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

ROOT = Path(__file__).resolve().parents[2]


async def haredis(*words: str, **environment: str) -> tuple[str, str, int]:
    """Run it: what it says on its two outputs, and its exit status."""
    out, err, status = await getProcessOutputAndValue(
        sys.executable,
        ["-m", "txharedis.cli", "switchover", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    return out.decode(), err.decode(), status


def nodes_of(servers: Sequence[LocalServer]) -> list[str]:
    return [server.address for server in servers]


@on_reactor
async def test_it_moves_the_master_under_load(
    reactor: object, group: list[LocalServer], watch: Watch
) -> None:
    watched = watch(group)
    writers = Writers([watched.client], "n", 20)
    writers.start(reactor)
    await writers.some_more(100)
    out, err, status = await haredis(*nodes_of(group), "--to", group[2].address)
    assert (err, status) == ("", 0)
    assert re.fullmatch(
        f"switched over from {group[0].address} to {group[2].address}; "
        r"writes stood still for \d+\.\d ms\n",
        out,
    )
    await writers.some_more(100)
    await writers.stop()
    assert await until_settled(group) is group[2]
    assert watched.client.master == group[2].address
    assert writers.unknown == 0
    assert await answer(watched.client.get("n")) == len(writers.acknowledged)
    # A URL will do, and the best replica.
    first, *others = nodes_of(group)
    url = f"redis://{first}?" + "&".join(f"addr={other}" for other in others)
    out, err, status = await haredis(url, "--verbose")
    assert status == 0
    assert "attempting switchover" in err
    assert f"from {group[2].address} to {watched.client.master}" in out


@on_reactor
async def test_what_cannot_be_done_ends_with_1(group: list[LocalServer]) -> None:
    out, err, status = await haredis(*nodes_of(group), "--to", group[0].address)
    assert (out, status) == ("", 1)
    assert f"haredis switchover: {group[0].address} is the master already" in err
    out, err, status = await haredis("127.0.0.1:1", "127.0.0.1:2", "--timeout", "0.3")
    assert (out, status) == ("", 1)
    assert "haredis switchover: no master within 0.3 s: no quorum: 0 of 2 nodes answer" in err
    assert "127.0.0.1:1 refused" in err
    assert (await meta_of(group[0]))["epoch"] == "1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: NODE"),
        (("h:1", "h:99999"), "bad port '99999'"),
        (("h:1", "h:1"), "node h:1 is listed twice"),
        (("h:1", "h:2", "--to", "h:3"), "to=h:3 is not one of the nodes"),
        (("h:1", "h:2", "--to", "h:x"), "bad port 'x'"),
        (("h:1", "h:2", "--timeout", "0"), "timeout=0.0 is out of range"),
        (("h:1", "h:2", "--timeout", "soon"), "invalid float value: 'soon'"),
        (("h:1", "h:2", "--user", "app"), "username='app' needs a password"),
        (("h:1", "h:2", "--password-file", "/nowhere"), "--password-file='/nowhere'"),
        (("h:1", "h:2", "--tls-ca-file", "/nowhere"), "/nowhere"),
        (("redis://app:very-secret@h:1?addr=h:2",), "HAREDIS_PASSWORD or --password-file"),
    ],
)
@on_reactor
async def test_bad_usage_ends_with_2_and_names_the_value(
    words: tuple[str, ...], message: str
) -> None:
    out, err, status = await haredis(*words, HAREDIS_PASSWORD="")
    assert (out, status) == ("", 2)
    assert message in err
    assert "very-secret" not in err
    assert "Traceback" not in err


@on_reactor
async def test_the_password_comes_from_the_environment_or_a_file(
    make_servers: MakeServers, watch: Watch, tmp_path: Path
) -> None:
    group = await make_servers(3)
    rules = (*documented("app"), "+failover", "+replconf", "+psync")
    await set_user(group, *rules)
    watched = watch(group, username=USER, password=PASSWORD)
    await watched.client.when_ready()
    await until_settled(group)
    for server in group:
        await server.call("ACL", "SETUSER", "default", "off")
    words = (*nodes_of(group), "--user", USER)
    first = watched.client.master
    out, err, status = await haredis(*words, HAREDIS_PASSWORD=PASSWORD)
    assert (err, status) == ("", 0)
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n", encoding="utf-8")
    out, err, status = await haredis(*words, "--to", str(first), "--password-file", str(file))
    assert (err, status) == ("", 0)
    out, err, status = await haredis(*words, HAREDIS_PASSWORD="wrong-4711")
    assert (out, status) == ("", 1)
    assert "denies us: WRONGPASS" in err
    assert "wrong-4711" not in err
