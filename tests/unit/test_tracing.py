"""The spans of commands and failovers."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.unit.scripted import ScriptedGroup, outcome
from tests.unit.watched import NODES, SeenClient
from txharedis import HAClient, tracing
from txharedis.errors import NoMaster, OutcomeUnknown, ResponseError, ServiceStopped
from txharedis.events import (
    FailoverEnded,
    FailoverStarted,
    FailoverStep,
    HistoryDiscarded,
    LockNotGranted,
    NodeChanged,
)
from txharedis.topology import Status

SECRET = "xyzzy"


class Traced:
    """A client under instruments, and the spans that have ended."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.stop = tracing.instrument(cast(HAClient, client), self.provider)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def span(self) -> Any:
        [only] = self.spans
        return only


@pytest.fixture
def traced() -> Traced:
    return Traced(SeenClient())


def test_a_command(traced: Traced) -> None:
    traced.client.db = 3
    end = traced.client.give("set", "k", SECRET)
    assert traced.spans == []
    end(b"OK")
    assert traced.span.name == "SET"
    assert traced.span.kind is SpanKind.CLIENT
    assert traced.span.status.status_code is StatusCode.UNSET
    assert dict(traced.span.attributes) == {
        "db.system.name": "redis",
        "db.operation.name": "SET",
        "db.namespace": "3",
        "server.address": "n",
        "server.port": 1,
    }


@pytest.mark.parametrize(
    ("master", "attributes"),
    [
        ("[::1]:6379", {"server.address": "::1", "server.port": 6379}),
        ("unix:/run/redis.sock", {"server.address": "/run/redis.sock"}),
        (None, {}),
    ],
)
def test_the_server(traced: Traced, master: str | None, attributes: dict[str, object]) -> None:
    traced.client.master = master
    traced.client.give("GET", "k")(b"v")
    told = {key: value for key, value in traced.span.attributes.items() if key[:6] == "server"}
    assert told == attributes


@pytest.mark.parametrize(
    ("first", "then", "port"), [("n:1", "n:2", 2), ("n:1", None, 1), (None, "n:3", 3)]
)
def test_the_master_at_the_end_counts(
    traced: Traced, first: str | None, then: str | None, port: int
) -> None:
    traced.client.master = first
    end = traced.client.give("GET", "k")
    traced.client.master = then
    end(b"v")
    assert traced.span.attributes["server.port"] == port


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            ResponseError(f"WRONGTYPE {SECRET}"),
            {"error.type": "txredisapi.ResponseError", "db.response.status_code": "WRONGTYPE"},
        ),
        (ResponseError(f"{SECRET} is odd"), {"error.type": "txredisapi.ResponseError"}),
        (
            OutcomeUnknown(SECRET, ("SET", SECRET)),
            {"error.type": "OutcomeUnknown", "haredis.executed": "unknown"},
        ),
        (NoMaster(SECRET), {"error.type": "NoMaster", "haredis.executed": "no"}),
        (ServiceStopped(SECRET), {"error.type": "ServiceStopped", "haredis.executed": "no"}),
        (CancelledError(), {"error.type": "twisted.internet.defer.CancelledError"}),
    ],
)
def test_an_error(traced: Traced, error: Exception, told: dict[str, str]) -> None:
    traced.client.give("SET", "k", SECRET)(Failure(error))
    span = traced.span
    assert span.status.status_code is StatusCode.ERROR
    assert told.items() <= dict(span.attributes).items()
    assert len(span.attributes) == 5 + len(told)


def test_no_argument_and_no_text_of_a_server_is_told(traced: Traced) -> None:
    for word in ("SET", "CONFIG", SECRET, "CLIENT"):
        traced.client.give(word, SECRET, SECRET)(b"OK")
        error = ResponseError(f"ERR unknown command {SECRET!r}, with args beginning with {SECRET}")
        traced.client.give(word, SECRET)(Failure(error))
    assert len(traced.spans) == 8
    assert {span.name for span in traced.spans} == {"SET", "other"}
    assert not any(SECRET in span.to_json() for span in traced.spans)


def test_a_command_is_a_child_of_where_it_was_given() -> None:
    group = ScriptedGroup()
    traced = Traced(group.client)
    tracer = traced.provider.get_tracer("test")

    async def handle(name: str) -> None:
        with tracer.start_as_current_span(name):
            await group.client.get("a")
            await group.client.get("b")  # given when the first reply came: elsewhere

    handled = [Deferred.fromCoroutine(handle(name)) for name in ("one", "two")]
    group.run(0.1)
    outcomes = [outcome(deferred) for deferred in handled]
    assert outcomes == [[None], [None]]
    assert trace.get_current_span() is trace.INVALID_SPAN
    parents = {
        span.context.span_id: span.name for span in traced.spans if span.name in ("one", "two")
    }
    gets = [span for span in traced.spans if span.name == "GET"]
    assert sorted(parents[span.parent.span_id] for span in gets if span.parent) == [
        *("one", "one", "two", "two")
    ]
    traced.stop()
    group.client.get("c")
    group.run(0.1)
    assert len(traced.spans) == 6
    group.stop()


def test_commands_of_a_real_client() -> None:
    group = ScriptedGroup(db=2)
    traced = Traced(group.client)
    group.answers["GET"] = deque([ResponseError("WRONGTYPE odd")])
    for given in (group.client.get("k"), group.client.select(5), group.client.set("k", "v")):
        outcome(given)
        group.run(0.1)
    refused = outcome(group.client.execute_command("HELLO", "3"))
    assert refused
    told = [(span.name, dict(span.attributes or {})["db.namespace"]) for span in traced.spans]
    assert told == [("GET", "2"), ("SELECT", "5"), ("SET", "5"), ("HELLO", "5")]
    ends = [span.status.status_code.name for span in traced.spans]
    assert ends == ["ERROR", "UNSET", "UNSET", "ERROR"]
    group.stop()


STARTED = FailoverStarted(at=1.0, reason="MASTER n:1 is down", failover_id="f1")


def test_a_failover(traced: Traced) -> None:
    tracer = traced.provider.get_tracer("test")
    with tracer.start_as_current_span("a request in whose context the reactor runs"):
        traced.client.tell(
            STARTED,
            FailoverStep(at=1.1, step="lock", epoch=7),
            NodeChanged(at=1.1, node=NODES[0], status=Status.REFUSED),
            FailoverStep(at=1.2, step="promote", epoch=7, node=NODES[1]),
            HistoryDiscarded(
                at=1.3, node=NODES[0], master=NODES[1], epoch=7, count=9, offset=9, parted_at=1
            ),
        )
    assert [span.name for span in traced.spans] == ["a request in whose context the reactor runs"]
    traced.client.tell(
        FailoverEnded(
            at=1.5, master=NODES[1], epoch=7, outage=0.5, old=NODES[0], why="highest offset"
        )
    )
    span: Any = traced.spans[-1]
    assert span.name == "haredis.failover"
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {
        "haredis.failover.id": "f1",
        "haredis.failover.why": "MASTER n:1 is down",
        "haredis.failover.reason": "crashed",
        "haredis.failover.result": "success",
        "haredis.failover.old_master": "n:1",
        "haredis.failover.new_master": "n:2",
        "haredis.failover.outage": 0.5,
        "haredis.failover.choice": "highest offset",
        "haredis.epoch": 7,
    }
    assert [(event.name, dict(event.attributes)) for event in span.events] == [
        ("lock", {"haredis.epoch": 7}),
        ("promote", {"haredis.epoch": 7, "haredis.node": "n:2"}),
        ("history discarded", {"haredis.node": "n:1", "haredis.lost_bytes": 9}),
    ]
    assert span.start_time <= span.events[0].timestamp <= span.end_time


@pytest.mark.parametrize(
    ("between", "result", "status"),
    [
        ([LockNotGranted(at=1.1, epoch=7, reason="n:2: taken")], "yielded", StatusCode.UNSET),
        ([], "failure", StatusCode.ERROR),
    ],
)
def test_one_without_a_new_master(
    traced: Traced, between: list[Any], result: str, status: StatusCode
) -> None:
    traced.client.tell(STARTED, *between, FailoverEnded(at=1.2, master=None, epoch=6))
    assert traced.span.attributes["haredis.failover.result"] == result
    assert traced.span.status.status_code is status
    assert len(traced.span.events) == len(between)


def test_stopping_ends_what_is_under_way(traced: Traced) -> None:
    end = traced.client.give("GET", "k")
    traced.client.tell(STARTED)
    traced.stop()
    traced.stop()
    assert not traced.client.observed
    assert traced.span.name == "haredis.failover"
    end(b"v")
    assert [span.name for span in traced.spans] == ["haredis.failover", "GET"]
    # What is told between failovers belongs to none.
    other = Traced(SeenClient())
    other.client.tell(FailoverStep(at=1.0, step="lock", epoch=2))
    other.client.tell(FailoverEnded(at=1.0, master=None, epoch=2))
    assert other.spans == []
