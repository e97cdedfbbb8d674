"""`twistd haredis-monitor` in front of real servers: its routes, its streams, its failovers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families

from tests.acl import PASSWORD
from tests.failovers import Writers
from tests.groups import answer, promotions, until_settled
from tests.monitors import Monitor, fetch, raw
from tests.servers.conftest import MakeServers, Monitors, Watch
from tests.support import eventually
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}
DOCUMENTS = ("/cluster", "/history", "/series", "/log")
PROBES = ("/liveness", "/readiness", "/health", "/primary", "/replica", "/read-only")
TOLD = "told by the servers"
TOKEN = "a-token-of-this-test"


def obeys(response: Any) -> bool:
    """Whether an answer has the headers that each must have, and tells nothing of our code."""
    return HEADERS.items() <= response.headers.items() and b"Traceback" not in response.body


@on_reactor
async def test_each_route_answers(group: list[LocalServer], monitors: Monitors) -> None:
    monitor = await monitors(group)
    cluster = await monitor.healthy()
    master, *replicas = (server.address for server in group)
    assert cluster["master"] == master
    assert [node["node"] for node in cluster["nodes"]] == [master, *replicas]
    ways = [f"/node/{node}/{kind}" for node in replicas for kind in ("replica", "read-only")]
    ways += [f"/replica?node={node}&lag=10MB" for node in replicas]
    ways += [f"/node/{master}/primary", f"/primary?node={master}", f"/read-only?node={master}"]
    page = ("/", "/static/page.css", "/static/page.js")
    for path in (*page, *DOCUMENTS, *PROBES, *ways, "/metrics"):
        got, head = await monitor.get(path), await monitor.get(path, "HEAD")
        assert got.code == head.code == 200, (path, got.body)
        assert head.body == b""
        assert head.headers["content-type"] == got.headers["content-type"]
        assert obeys(got), path
        assert obeys(head), path
        if path in DOCUMENTS or path in PROBES:
            assert got.json
        posted = await monitor.get(path, "POST")
        assert (posted.code, posted.headers["allow"]) == (405, "GET, HEAD"), path
    refused = [f"/node/{node}/primary" for node in replicas]
    refused += [f"/node/{master}/replica", f"/replica?node={master}"]
    for path in refused:
        got = await monitor.get(path)
        assert (got.code, got.json["ok"]) == (503, False), path
        assert (await monitor.get(path, "HEAD")).code == 503
    head = await monitor.get("/events", "HEAD")
    assert (head.code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    families = {
        family.name: family
        for family in text_string_to_metric_families((await monitor.get("/metrics")).body.decode())
    }
    up = {s.labels["node"]: s.value for s in families["haredis_node_up"].samples}
    assert up == dict.fromkeys([master, *replicas], 1.0)
    # The records of the contract.

    async def second() -> Any:
        return (await monitor.get("/series")).json["samples"][1:]

    sample = (await eventually(second))[-1]
    assert set(sample) == {"at", "writes", "latency", "lag", "master"}
    assert set(sample["lag"]) == set(replicas)
    assert "ready, using" in (await monitor.get("/log")).json["lines"][-1]["text"]


BAD: list[tuple[int, str | bytes, str, dict[str, str], str]] = [
    (404, "/nothing", "GET", {}, "nothing by this name"),
    (404, "/static//page.css", "GET", {}, "nothing by this name"),
    (404, "/cluster/", "GET", {}, "nothing by this name"),
    (404, "/static/../web.py", "GET", {}, "nothing by this name"),
    (404, "/static/%2e%2e%2fweb.py", "GET", {}, "nothing by this name"),
    (404, "/static/index.html", "GET", {}, "nothing by this name"),
    (404, "/node/127.0.0.1:1/primary", "GET", {}, "127.0.0.1:1 is not one of the nodes"),
    (404, "/replica?node=127.0.0.1:1", "GET", {}, "127.0.0.1:1 is not one of the nodes"),
    (404, "/node/127.0.0.1:1/nothing", "GET", {}, "nothing by this name"),
    (400, "/node/a:b:c/primary", "GET", {}, "node='a:b:c'"),
    (400, "/primary?node=", "GET", {}, "node=''"),
    (400, "/primary?node=a:99999", "GET", {}, "node='a:99999'"),
    (400, "/primary?node=%ff", "GET", {}, "node is not UTF-8"),
    (400, "/primary?node=a%0d%0aSet-Cookie:x", "GET", {}, "node="),
    (400, "/read-only?node=a&node=b", "GET", {}, "node is given 2 times"),
    (400, "/replica?lag=", "GET", {}, "lag=''"),
    (400, "/replica?lag=-1", "GET", {}, "lag='-1'"),
    (400, "/replica?lag=1e9", "GET", {}, "lag='1e9'"),
    (400, "/replica?lag=1parsec", "GET", {}, "lag='1parsec'"),
    (400, "/replica?lag=9999999999999999999999", "GET", {}, "lag="),
    (400, "/replica?lag=%00", "GET", {}, "lag="),
    (400, "/%ff", "GET", {}, "not UTF-8"),
    (400, b"/\xff\xfe", "GET", {}, "no HTTP request"),
    (400, "/a%0d%0ab", "GET", {}, "bad path"),
    (400, "*", "OPTIONS", {}, "bad path"),
    (400, "/cluster", "G@T", {}, "no HTTP request"),
    (405, "/cluster", "DELETE", {}, "DELETE is not for this"),
    (405, "/node/127.0.0.1:1/primary", "BREW", {}, "BREW is not for this"),
    (405, "/switchover", "GET", {}, "GET is not for this"),
    (414, "/" + "a" * 3000, "GET", {}, "longer than 2048 bytes"),
    (414, "/primary?node=" + "a" * 3000, "GET", {}, "longer than 2048 bytes"),
    (414, "/" + "a" * 40000, "GET", {}, ""),
    (431, "/cluster", "GET", {"X-Big": "a" * 20000}, "a header is too long"),
    (400, "/cluster", "GET", {f"X-{n}": "a" * 5000 for n in range(5)}, "no HTTP request"),
    (400, "/cluster", "GET", {"Host": "a b"}, "bad Host"),
    (400, "/cluster", "GET", {"Host": "a..b"}, "bad Host"),
    (400, "/cluster", "GET", {"Host": "a" * 64}, "bad Host"),
    (400, "/cluster", "GET", {"Host": "[::1"}, "bad Host"),
    (421, "/cluster", "GET", {"Host": "evil.example"}, "--allow-host"),
    (421, "/switchover", "POST", {"Host": "evil.example:8405"}, "--allow-host"),
    (403, "/switchover", "POST", {}, "--token-file"),
    (403, "/failover", "POST", {}, "--token-file"),
]


@on_reactor
async def test_bad_input_gets_a_reason(group: list[LocalServer], monitors: Monitors) -> None:
    monitor = await monitors(group)
    await monitor.healthy()
    for code, path, method, headers, why in BAD:
        got = await fetch(monitor.port, path, method, **headers)
        assert got.code == code, (path, got.body)
        assert obeys(got), (path, got.headers)
        assert why in got.json["error"], (path, got.body)
        if code == 405:
            assert got.headers["allow"]
    for data in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET /cluster HTTP/9.9\r\n\r\n",
        b"GET /cluster HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /switchover HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /switchover HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + b"a" * 20000,
        b"POST /switchover HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"2000\r\n"
        + b"a" * 0x2000
        + b"\r\n2001\r\n"
        + b"a" * 0x2001
        + b"\r\n0\r\n\r\n",
    ):
        got = await raw(monitor.port, data)
        assert 400 <= got.code < 500, (data[:60], got)
        assert obeys(got), (data[:60], got)
        assert got.json["error"]
    # Unknown parameters mean nothing; no Host is no browser's.
    assert (await monitor.get("/primary?verbose=1&%ff=2")).code == 200
    assert (await raw(monitor.port, b"GET /primary HTTP/1.0\r\n\r\n")).code == 200
    for host in ("localhost", f"localhost:{monitor.port}", "127.0.0.1", "[::1]:80"):
        assert (await monitor.get("/cluster", Host=host)).code == 200
    assert "Traceback" not in monitor.output
    assert "failed" not in monitor.output


def newest(history: Any) -> Any:
    """The newest failover, an empty one where there is none."""
    return next(iter(history["failovers"]), {"seen": ""})


@on_reactor
async def test_streams_tell_of_a_new_master(group: list[LocalServer], monitors: Monitors) -> None:
    monitor = await monitors(group, "--allow-host", "monitor.example")
    await monitor.healthy()
    assert (await monitor.get("/cluster", Host="Monitor.Example:80")).code == 200
    first, second = await monitor.events(), await monitor.events()
    await first.until("sample", lambda _: True)
    assert [kind for kind, _ in first.seen[:4]] == ["cluster", "history", "series", "log"]
    group[0].kill()
    for events in (first, second):
        cluster = await events.until(
            "cluster", lambda c: c["master"] not in (None, group[0].address)
        )
        new = cluster["master"]
        history = await events.until("history", lambda h: newest(h)["seen"] == TOLD)
        assert newest(history)["old"] == group[0].address
        assert newest(history)["new"] == new
        ready = f"ready, using {new}"
        await events.until("line", lambda line, ready=ready: ready in line["text"])
        cluster = await events.until("cluster", lambda c: c["state"] == "degraded")
        assert group[0].address in " ".join(cluster["why"])
    assert (await monitor.get(f"/primary?node={new}")).code == 200
    assert (await monitor.get(f"/primary?node={group[0].address}")).code == 503
    assert (await monitor.get("/health")).json["state"] == "degraded"
    first.close()
    # The others go on.
    before = len(second.values("sample"))
    await eventually(lambda: len(second.values("sample")) > before + 1)
    at = [sample["at"] for sample in second.values("sample")]
    assert all(a < b for a, b in itertools.pairwise(at)), at
    await eventually(lambda: second.comments)
    second.close()


@on_reactor
async def test_a_place_that_others_reach_is_warned_of(
    group: list[LocalServer], monitors: Monitors
) -> None:
    monitor = await monitors(group, http="tcp:0")
    await eventually(lambda: "can be reached from other machines: whoever" in monitor.output)
    assert (await monitor.get("/liveness", Host="monitor.example")).code == 200
    # Its place is taken: the second one ends, and says why.
    second = Monitor([group[0].address], http=f"tcp:{monitor.port}")
    assert await answer(second.ended) == 1
    assert f"--http=tcp:{monitor.port}" in second.output
    assert "Traceback" not in second.output


@on_reactor
async def test_without_a_master_the_probes_say_so(
    group: list[LocalServer], monitors: Monitors
) -> None:
    monitor = await monitors(group, "--no-elect")
    await monitor.healthy()
    for server in group:
        server.kill()

    for path in ("/health", "/readiness", "/primary", "/replica", "/read-only"):

        async def refused(path: str = path) -> Any:
            got = await monitor.get(path)
            return got.json if got.code == 503 else None

        body = await eventually(refused)
        assert (body["ok"], bool(body["why"])) == (False, True), path
    cluster = (await monitor.get("/cluster")).json
    assert (cluster["state"], cluster["elects"]) == ("no master", False)
    assert len(cluster["why"]) >= 3
    assert (await monitor.get("/liveness")).code == 200


@on_reactor
async def test_orders_are_for_who_has_the_token(
    group: list[LocalServer], monitors: Monitors, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    monitor = await monitors(group, "--token-file", str(file))
    await monitor.healthy()
    assert (await monitor.post("/switchover", {})).code == 401
    assert (await monitor.post("/switchover", {}, TOKEN[:-1])).code == 401
    strange = await monitor.post("/switchover", {}, TOKEN, Origin="http://evil.example")
    assert strange.code == 403
    dry = await monitor.post("/switchover", {"dry_run": True}, TOKEN)
    assert dry.code == 200, dry.body
    to = group[2].address
    moved = await monitor.post("/switchover", {"to": to}, TOKEN)
    assert (moved.code, moved.json["new"]) == (200, to), moved.body
    assert (await monitor.get(f"/primary?node={to}")).code == 200
    assert (await monitor.post("/failover", {}, TOKEN)).code == 409
    assert (await monitor.post("/switchover", {"to": "x:1"}, TOKEN)).code == 400
    assert TOKEN not in monitor.output
    for path in DOCUMENTS:
        assert TOKEN.encode() not in (await monitor.get(path)).body


@on_reactor
async def test_the_password_comes_from_a_file_and_is_not_shown(
    make_servers: MakeServers, monitors: Monitors, tmp_path: Path
) -> None:
    servers = await make_servers(3, options=("--requirepass", PASSWORD), auth=(PASSWORD,))
    (tmp_path / "password").write_text(PASSWORD + "\n")
    config = tmp_path / "monitor.toml"
    config.write_text(f'password-file = "{tmp_path / "password"}"\nverbose = true\n')
    monitor = await monitors(servers, "--config", str(config))
    await monitor.healthy()
    for path in (*DOCUMENTS, "/metrics"):
        assert PASSWORD.encode() not in (await monitor.get(path)).body
    assert PASSWORD not in monitor.output


@on_reactor
async def test_two_monitors_and_three_clients_promote_once_a_kill(
    reactor: Any, group: list[LocalServer], monitors: Monitors, watch: Watch
) -> None:
    pair = [await monitors(group) for _ in range(2)]
    watched = [watch(group) for _ in range(3)]
    writers = Writers([one.client for one in watched], "n", 6, pause=0.002)
    writers.start(reactor)
    for kills in range(1, 11):
        await writers.some_more(50)
        old = await until_settled(group)
        old.kill()
        await old.exited()
        await writers.some_more(50)
        await old.start()
        new = await until_settled(group)
        assert new is not old
        assert promotions(group) == kills
    await writers.stop()
    assert writers.unknown == 0
    # The history is the same, whoever made it.
    for monitor in pair:

        async def told(monitor: Monitor = monitor) -> Any:
            failovers = (await monitor.get("/history")).json["failovers"]
            good = [one for one in failovers if one["seen"] == TOLD]
            return len(good) >= 10

        await eventually(told)
        cluster = await monitor.healthy()
        assert cluster["master"] == new.address
    assert await answer(watched[0].client.get("n")) <= len(writers.acknowledged)


@on_reactor
async def test_a_failover_with_nobody_but_a_monitor(
    group: list[LocalServer], monitors: Monitors
) -> None:
    monitor = await monitors(group)
    await monitor.healthy()
    group[0].kill()
    new = await until_settled(group[1:])
    assert promotions(group) == 1
    events = await monitor.events()
    await events.until("cluster", lambda c: c["master"] == new.address)
    events.close()
    assert json.loads((await monitor.get("/history")).body)["failovers"][0]["new"] == new.address
