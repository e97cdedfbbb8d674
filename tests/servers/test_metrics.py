"""What is told of a client on real servers is what happened to it."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest_twisted
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.internet.threads import deferToThread

from tests.groups import answer, until_settled
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import metrics, tracing
from txharedis.errors import ResponseError
from txharedis.events import FailoverEnded, HistoryDiscarded, NodeChanged
from txharedis.testing.servers import LocalServer
from txharedis.topology import Address

on_reactor = pytest_twisted.ensureDeferred

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "observability"


class Scraped:
    """A registry of its own, and what it tells of a client."""

    def __init__(self, client: Any, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.figures = metrics.register(client, self.registry, **options)

    def __call__(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"haredis_{name}", labels)
        return -1.0 if value is None else value

    @property
    def text(self) -> str:
        return generate_latest(self.registry).decode()


@on_reactor
async def test_a_kill_changes_the_figures(
    reactor: Any, group: list[LocalServer], watch: Watch
) -> None:
    killed = group[0]
    watched = watch(group)
    client = watched.client
    scraped = Scraped(client)
    for number in range(20):
        await answer(client.set("k", number))
    await eventually(lambda: scraped("node_up", node=group[2].address) == 1)
    assert scraped("masters") == scraped("quorum_ok") == 1
    assert scraped("node_role", node=killed.address, role="master") == 1
    assert scraped("commands_total", command="SET", result="success") == 20
    assert scraped("command_duration_seconds_count", command="SET") == 20
    start = scraped("unavailable_seconds_total")
    assert 0 < start < 10
    assert scraped("replication_offset_bytes", node=killed.address) > 0
    assert scraped("last_failover_lost_bytes") == -1

    before = reactor.seconds()
    masters: list[float] = []
    watched.listeners.append(lambda _: masters.append(scraped("masters")))
    killed.kill()
    await answer(client.set("k", "late"))
    await eventually(lambda: scraped("failovers_total", reason="crashed", result="success") == 1)
    assert masters[0] == 0
    assert masters[-1] == 1
    outage = scraped("unavailable_seconds_total") - start
    assert 0 < outage <= reactor.seconds() - before
    assert scraped("failover_duration_seconds_count") == 1
    assert 0 < scraped("failover_duration_seconds_sum") <= reactor.seconds() - before
    assert scraped("node_up", node=killed.address) == 0
    assert scraped("node_role", node=killed.address, role="unknown") == 1
    assert scraped("masters") == scraped("quorum_ok") == 1
    assert scraped("commands_total", command="SET", result="success") == 21
    assert scraped("queued_commands") == 0

    await killed.restart()
    await until_settled(group)
    [discarded] = await eventually(lambda: watched.seen(HistoryDiscarded))
    await eventually(lambda: scraped("node_role", node=killed.address, role="replica") == 1)
    assert scraped("reconnects_total", node=killed.address) == 1
    assert scraped("reconnects_total", node=group[1].address) == 0
    if discarded.count is not None:
        assert scraped("last_failover_lost_bytes") == discarded.count
    else:  # it came back without its history: the offsets stay what is known
        assert scraped("last_failover_lost_bytes") >= 0
    assert scraped("masters") == 1
    assert scraped("split_brain_total") == 0
    assert scraped("unavailable_seconds_total") - start >= outage


@on_reactor
async def test_a_hanging_master_and_a_switchover(group: list[LocalServer], watch: Watch) -> None:
    watched = watch(group, down_after=3.0)
    client = watched.client
    await answer(client.when_ready())
    scraped = Scraped(client, name="sessions")
    await answer(client.switchover(group[1].address))
    moved = {"reason": "switchover", "result": "success", "client": "sessions"}
    await eventually(lambda: scraped("failovers_total", **moved) == 1)
    assert scraped("last_failover_lost_bytes", client="sessions") == 0
    await until_settled(group)
    before = scraped("unavailable_seconds_total", client="sessions")
    group[1].pause()
    hung = {"reason": "hanging", "result": "success", "client": "sessions"}
    await eventually(lambda: scraped("failovers_total", **hung) == 1)
    # It counts from when the client noticed, as FailoverEnded.outage does.
    outage = scraped("unavailable_seconds_total", client="sessions") - before
    ended = watched.seen(FailoverEnded)[-1]
    assert ended.master is not None
    assert 0 < ended.outage < outage + 0.01
    group[1].resume()
    await until_settled(group)


@on_reactor
async def test_odd_commands_add_no_series(group: list[LocalServer], watch: Watch) -> None:
    client = watch(group).client
    scraped = Scraped(client)
    for word in ('NO_SUCH\n"x', "x{y}", "\u00e4\u2028", "CLIENT\x00", "get "):
        for args in ((word,), ("CLIENT", word)):
            try:
                await answer(client.execute_command(*args))
            except ResponseError:
                continue
            raise AssertionError(f"{args!r} was taken")
    families = {family.name: family for family in parse_text(scraped.text)}
    labels = {
        (sample.labels["command"], sample.labels["result"])
        for sample in families["haredis_commands"].samples
        if sample.value
    }
    assert labels == {("other", "error_reply")}
    assert scraped("commands_total", command="other", result="error_reply") == 10


@on_reactor
async def test_a_thread_may_scrape_while_commands_run(
    group: list[LocalServer], watch: Watch
) -> None:
    client = watch(group).client
    await answer(client.when_ready())
    scraped = Scraped(client)

    done = threading.Event()

    def scrape() -> list[str]:
        texts = [scraped.text]
        while not done.is_set():
            texts.append(scraped.text)
        return texts

    scraping = deferToThread(scrape)
    try:
        for _ in range(100):
            await answer(client.set("k", "v"))
            await answer(client.hset("h", "f", "v"))
            await answer(client.execute_command("GET", "k"))
    finally:
        done.set()
        texts = await scraping
    assert len(texts) > 1
    for text in texts:
        assert list(parse_text(text))
    for name in ("SET", "HSET", "GET"):
        assert scraped("commands_total", command=name, result="success") == 100


@on_reactor
async def test_the_examples_name_what_a_scrape_has(group: list[LocalServer], watch: Watch) -> None:
    watched = watch(group)
    client = watched.client
    replicas = {Address.parse(server.address): 0.0 for server in group[1:]}
    scraped = Scraped(client, lag_seconds=lambda: replicas)
    await answer(client.set("k", "v"))
    group[0].kill()
    await answer(client.set("k", "w"))
    await eventually(lambda: scraped("last_failover_lost_bytes") >= 0)
    # Its metrics and their labels, one sample at least of each.
    there: dict[str, set[str]] = {}
    for family in parse_text(scraped.text):
        for sample in family.samples:
            there.setdefault(sample.name, set()).update(sample.labels)
    assert set(metrics.METRICS) <= {re.sub("_(bucket|count|sum)$", "", name) for name in there}
    dashboard = (EXAMPLES / "grafana-dashboard.json").read_text(encoding="utf-8")
    rules = (EXAMPLES / "alerts.yml").read_text(encoding="utf-8")
    tests = (EXAMPLES / "alerts-test.yml").read_text(encoding="utf-8")
    for text in (*_expressions(json.loads(dashboard)), rules, tests):
        named = set(re.findall(r"haredis_\w+", text))
        assert named <= there.keys()
        for name, selector in re.findall(r"(haredis_\w+)\{([^}]*)\}", text):
            labels = set(re.findall(r'(\w+)=~?!?"', selector)) | set(
                re.findall(r'(\w+)!=?~?"', selector)
            )
            assert labels - {"job", "instance"} <= there[name], (name, selector)


def _expressions(dashboard: Any) -> list[str]:
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert found
    return [*found, *(each["expr"] for each in dashboard["annotations"]["list"])]


@on_reactor
async def test_spans_of_a_failover(group: list[LocalServer], watch: Watch) -> None:
    watched = watch(group)
    client = watched.client
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = tracing.instrument(client, provider)
    await answer(client.set("k", "v"))
    late_ones: list[Any] = []

    def write(event: object) -> None:
        if isinstance(event, NodeChanged) and not late_ones:
            late_ones.append(client.set("k", "late"))

    watched.listeners.append(write)
    group[0].kill()
    await eventually(lambda: late_ones)
    await answer(late_ones[0])

    def ended() -> Any:
        spans = exporter.get_finished_spans()
        return next((span for span in spans if span.name == "haredis.failover"), None)

    failover = await eventually(ended)
    stop()
    assert failover.attributes["haredis.failover.reason"] == "crashed"
    assert failover.attributes["haredis.failover.result"] == "success"
    assert failover.attributes["haredis.failover.old_master"] == group[0].address
    assert failover.attributes["haredis.failover.new_master"] == client.master
    steps = [event.name for event in failover.events]
    assert steps[:4] == ["lock", "look", "promote", "serve"]
    first, late = (span for span in exporter.get_finished_spans() if span.name == "SET")
    ports = [dict(span.attributes or {})["server.port"] for span in (first, late)]
    assert ports == [group[0].port, int(str(client.master).rpartition(":")[2])]
    # It waited for the new master, and says so.
    assert late.end_time is not None
    assert late.start_time is not None
    assert late.start_time < failover.end_time
    assert late.end_time > failover.start_time
