"""What a registry tells of its clients."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.python.failure import Failure

from tests.unit.scripted import ScriptedGroup
from tests.unit.watched import NODES, SeenClient, picture
from txharedis import HAClient, metrics
from txharedis.chronicle import FailoverRecord
from txharedis.errors import InvalidOption, ResponseError
from txharedis.events import FailoverEnded, FailoverStarted, SubscriptionGap
from txharedis.outcomes import COMMAND_RESULTS
from txharedis.topology import Role, Status

ROOT = Path(__file__).resolve().parents[2]


def registered(client: Any, registry: CollectorRegistry, **options: Any) -> metrics.ClientMetrics:
    return metrics.register(cast(HAClient, client), registry, **options)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def client() -> SeenClient:
    return SeenClient()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_the_group(client: SeenClient, registry: CollectorRegistry) -> None:
    client.set(picture(2, None, status=Status.REFUSED))
    registered(client, registry)
    assert [value(registry, "haredis_node_up", node=str(node)) for node in NODES] == [1, 0, 1]
    assert value(registry, "haredis_masters") == 1
    assert value(registry, "haredis_quorum_ok") == 1
    roles = {
        (str(node), role): value(registry, "haredis_node_role", node=str(node), role=role)
        for node in NODES
        for role in ("master", "replica", "unknown")
    }
    assert {key for key, is_so in roles.items() if is_so} == {
        ("n:1", "master"),
        ("n:2", "unknown"),
        ("n:3", "replica"),
    }
    assert set(roles.values()) == {0, 1}
    assert value(registry, "haredis_node_info", node="n:1", version="7.0.15") == 1
    assert value(registry, "haredis_replication_lag_bytes", node="n:3") == 7
    assert value(registry, "haredis_replication_lag_bytes", node="n:1") is None
    assert value(registry, "haredis_replication_lag_bytes", node="n:2") is None
    assert value(registry, "haredis_replication_offset_bytes", node="n:3") == 93
    assert value(registry, "haredis_unavailable_seconds_total") == 1.5
    assert value(registry, "haredis_queued_commands") == 3
    assert value(registry, "haredis_queued_bytes") == 70
    assert value(registry, "haredis_redispatched_commands_total") == 2
    client.set(picture(1, None, status=Status.SILENT))
    assert value(registry, "haredis_masters") == 0
    assert value(registry, "haredis_quorum_ok") == 0


def test_events_and_commands(client: SeenClient, registry: CollectorRegistry) -> None:
    client.give("GET", "before")(b"")
    figures = registered(client, registry)
    client.give("GET", "k")(b"v")
    client.give("config", "get", "*")(Failure(ResponseError("NOPERM")))
    client.set(picture(1, None, status=Status.REFUSED))
    client.tell(
        FailoverStarted(at=1.0, reason="MASTER n:1 is down", failover_id="f"),
        FailoverEnded(at=1.04, master=NODES[1], epoch=2, offset=1, old=NODES[0], old_offset=43),
        SubscriptionGap(at=2.0, since=1.0, until=2.0),
    )
    assert value(registry, "haredis_commands_total", command="GET", result="success") == 1
    refused = {"command": "CONFIG GET", "result": "error_reply"}
    assert value(registry, "haredis_commands_total", **refused) == 1
    assert value(registry, "haredis_command_duration_seconds_count", command="GET") == 1
    crashed = {"reason": "crashed", "result": "success"}
    assert value(registry, "haredis_failovers_total", **crashed) == 1
    assert value(registry, "haredis_failover_duration_seconds_bucket", le="0.025") == 0
    assert value(registry, "haredis_failover_duration_seconds_bucket", le="0.05") == 1
    assert value(registry, "haredis_failover_duration_seconds_bucket", le="+Inf") == 1
    assert value(registry, "haredis_last_failover_lost_bytes") == 42
    assert value(registry, "haredis_pubsub_gaps_total") == 1
    figures.unregister()
    assert not client.observed
    assert not list(registry.collect())
    figures.unregister()


def test_split_brains_are_looked_for(client: SeenClient, registry: CollectorRegistry) -> None:
    figures = registered(client, registry)
    for seen_at in (0.0, 5.0):
        client.set(*(picture(n, Role.MASTER, seen_at=seen_at) for n in (1, 2)))
        figures.look()
    client.set(picture(2, seen_at=6.0))
    assert value(registry, "haredis_split_brain_total") == 1
    assert value(registry, "haredis_masters") == 1


def test_lag_in_seconds_is_what_the_caller_knows(
    client: SeenClient, registry: CollectorRegistry
) -> None:
    registered(client, registry, lag_seconds=lambda: {NODES[2]: 0.25})
    assert value(registry, "haredis_replication_lag_seconds", node="n:3") == 0.25
    assert value(registry, "haredis_replication_lag_seconds", node="n:1") is None
    registered(SeenClient(), other := CollectorRegistry())
    assert "lag_seconds" not in generate_latest(other).decode()


@pytest.mark.parametrize(
    ("told", "lost"),
    [
        ([], None),
        ([{"discarded": 5, "offset": 1, "old_offset": 9}], 5),
        ([{"offset": 1, "old_offset": 9}], 8),
        ([{}, {"discarded": 5}], None),
    ],
)
def test_the_history_knows_what_was_lost(
    client: SeenClient, registry: CollectorRegistry, told: list[dict[str, int]], lost: int | None
) -> None:
    records = [
        FailoverRecord(epoch=2, at=1.0, old="n:1", new="n:2", reason="r", **fields)
        for fields in told
    ]
    registered(client, registry, history=lambda: records)
    client.tell(
        FailoverEnded(at=1.0, master=NODES[1], epoch=2, offset=1, old=NODES[0], old_offset=43)
    )
    assert value(registry, "haredis_last_failover_lost_bytes") == lost


def test_several_clients_in_one_registry(registry: CollectorRegistry) -> None:
    clients = SeenClient(), SeenClient(), SeenClient()
    clients[1].set(picture(1, None, status=Status.SILENT))
    nameless = registered(clients[0], registry)
    named = registered(clients[1], registry, name="cache")
    assert value(registry, "haredis_masters") == 1
    assert value(registry, "haredis_masters", client="cache") == 0
    for name in (None, "cache"):
        with pytest.raises(InvalidOption, match=f"name={name!r}.* already"):
            registered(clients[2], registry, name=name)
    assert not clients[2].observed
    check(registry)
    nameless.unregister()
    assert value(registry, "haredis_masters") is None
    assert value(registry, "haredis_masters", client="cache") == 0
    registered(clients[2], registry)
    named.unregister()
    nameless.unregister()  # that is not the nameless one of today
    assert value(registry, "haredis_masters") == 1


@pytest.mark.parametrize("name", ["", "x" * 101, 7, b"cache"])
def test_a_bad_name(client: SeenClient, registry: CollectorRegistry, name: object) -> None:
    with pytest.raises(InvalidOption, match="name="):
        registered(client, registry, name=name)
    assert not client.observed


def test_a_registry_with_such_metrics(client: SeenClient, registry: CollectorRegistry) -> None:
    Counter("haredis_commands_total", "somebody else's", registry=registry)
    with pytest.raises(ValueError, match="haredis_commands"):
        registered(client, registry)
    assert not client.observed


def test_a_registry_is_not_kept_alive(client: SeenClient) -> None:
    registry = CollectorRegistry()
    registered(client, registry)
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def check(registry: CollectorRegistry) -> dict[str, Any]:
    """Both texts are what the parsers take; the metrics by their names in the table."""
    text = generate_latest(registry).decode()
    assert list(parse_text(text))
    families = {family.name: family for family in parse_openmetrics(openmetrics_text(registry))}
    assert families.keys() == {
        name.removesuffix("_total").removesuffix("_info")
        for name in metrics.METRICS
        if name in text
    }
    return families


def openmetrics_text(registry: CollectorRegistry) -> str:
    return cast(bytes, generate_openmetrics(registry)).decode()


ODD = ('no"such\n', "x\\", "", "GET\u2028", "a" * 1000, "{}", "NO_SUCH\r\nGET", "\u0000")


def test_odd_commands_and_versions_add_no_series(
    client: SeenClient, registry: CollectorRegistry
) -> None:
    client.set(picture(2), picture(1, Role.MASTER))
    odd = 'v"\n\\' + "9" * 100
    nodes = tuple(
        picture_of_version(node, odd) if number == 2 else node
        for number, node in enumerate(client.topology.nodes)
    )
    client.set(*nodes)
    registered(client, registry, name='my "own"\n\\ client', lag_seconds=lambda: {NODES[1]: 1.5})
    for word in ODD:
        client.give(word, "k")(Failure(ResponseError(word)))
        client.give("CLIENT", word)(b"")
    families = check(registry)
    commands = {sample.labels["command"] for sample in families["haredis_commands"].samples}
    assert commands == {"other"}
    results = {sample.labels["result"] for sample in families["haredis_commands"].samples}
    assert results == set(COMMAND_RESULTS)
    versions = {sample.labels["version"] for sample in families["haredis_node"].samples}
    assert versions == {"7.0.15", odd[:32]}
    names = {sample.labels["client"] for sample in families["haredis_masters"].samples}
    assert names == {'my "own"\n\\ client'}


def picture_of_version(node: Any, version: str) -> Any:
    return replace(node, version=version)


def test_an_outage_counts_while_it_lasts(registry: CollectorRegistry) -> None:
    """After the client's end nothing is one."""
    group = ScriptedGroup()
    figures = registered(group.client, registry)
    before = value(registry, "haredis_unavailable_seconds_total")
    assert before is not None
    assert before <= 1.0
    group.run(5.0)
    assert value(registry, "haredis_unavailable_seconds_total") == before
    for dial in group.reactor.dials:
        if dial.protocol is not None and not dial.over and dial.getPeer().port == 1:
            dial.lose()
    assert group.client.master is None
    group.reactor.rightNow += 3.0
    assert value(registry, "haredis_unavailable_seconds_total") == pytest.approx(before + 3.0)
    group.run(1.0)
    assert group.client.master
    after = value(registry, "haredis_unavailable_seconds_total")
    assert after == pytest.approx(before + 3.0, abs=0.2)
    assert value(registry, "haredis_reconnects_total", node="n:1") == 1
    group.stop()
    group.reactor.rightNow += 9.0
    assert value(registry, "haredis_unavailable_seconds_total") == after
    figures.unregister()


@pytest.mark.parametrize(
    ("module", "needs", "extra"),
    [("metrics", "prometheus_client", "prometheus"), ("tracing", "opentelemetry", "otel")],
)
def test_without_the_extra_the_error_names_it(module: str, needs: str, extra: str) -> None:
    program = f"import sys; sys.modules[{needs!r}] = None; import txharedis.{module}"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert re.match(rf'ImportError: .*pip install "txharedis\[{extra}\]"', last)


def test_the_documentation_has_every_metric() -> None:
    """With its type; the labels are those that a scrape shows."""
    text = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(haredis_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", text, re.MULTILINE)
    assert {name: kind for name, kind, _, _ in rows} == {
        name: kind for name, (kind, _) in metrics.METRICS.items()
    }
    registry, client = CollectorRegistry(), SeenClient()
    registered(client, registry, lag_seconds=lambda: {NODES[1]: 0.0})
    client.give("GET", "k")(b"")
    client.tell(FailoverEnded(at=1.0, master=NODES[1], epoch=2, offset=1, old_offset=43))
    there: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            name = re.sub("_(bucket|count|sum)$", "", sample.name)
            there.setdefault(name, set()).update(sample.labels.keys() - {"le"})
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels, _ in rows} == there
