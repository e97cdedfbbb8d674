"""OpenTelemetry spans of a client's commands and failovers.

    from txharedis import tracing
    stop = tracing.instrument(client)

It needs the API of OpenTelemetry: pip install "txharedis[otel]". The SDK, and where the spans go,
are the application's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.python.failure import Failure

from txharedis._version import __version__
from txharedis.client import HAClient
from txharedis.errors import HARedisError, ResponseError
from txharedis.events import (
    Event,
    FailoverEnded,
    FailoverStarted,
    FailoverStep,
    HistoryDiscarded,
    LockNotGranted,
)
from txharedis.interfaces import Args
from txharedis.outcomes import Attempts, command_name
from txharedis.topology import Address

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue
except ImportError as error:
    raise ImportError(
        'txharedis.tracing needs opentelemetry-api: pip install "txharedis[otel]"'
    ) from error

__all__ = ["instrument"]

_MOST_OF_A_TEXT = 500  # characters


def instrument(
    client: HAClient, tracer_provider: TracerProvider | None = None
) -> Callable[[], None]:
    """Make a span of each command of this client and its views, and of each of its failovers.

    `tracer_provider` is the global one when None. What is returned, called, ends that; spans that
    were begun are ended as ever.

    A command's span has the kind client and the command's name, of txharedis's table ("GET",
    "CONFIG GET", else "other"). It is a child of the span in whose context the command was given,
    and lasts until its Deferred fires, with all waiting and redispatching. It never has arguments
    nor texts of the server. Its attributes are those of OpenTelemetry's conventions:
      db.system.name            "redis"
      db.operation.name         the command's name
      db.namespace              the number of the database
      server.address, .port     the master at the end, or else at the begin; absent when there was
                                none. A read that a replica answered names the master, too.
      error.type                of a command that failed: the class of the error
      db.response.status_code   the first word of an error reply ("WRONGTYPE")
      haredis.executed          what the error says of the command: "yes", "no" or "unknown"

    A failover of this client is a span `haredis.failover` without a parent, from FailoverStarted to
    FailoverEnded, with its steps as events; haredis.failover.reason and .result are the words of
    the metric haredis_failovers_total.
    """
    tracer = trace.get_tracer("txharedis", __version__, tracer_provider)
    commands = _Commands(client, tracer)
    failovers = _Failovers(client, tracer)
    stops = [client.watch_commands(commands), client.listen(failovers.heard)]

    def stop() -> None:
        for end in stops:
            end()
        failovers.stop()

    return stop


class _Commands:
    """An observer of commands."""

    def __init__(self, client: HAClient, tracer: Tracer) -> None:
        self._client = client
        self._tracer = tracer
        self._servers: dict[str, dict[str, AttributeValue]] = {}

    def __call__(self, args: Args) -> Callable[[object], None]:
        name = command_name(args)
        master = self._client.master
        span = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": "redis",
                "db.operation.name": name,
                "db.namespace": str(self._client.db),
                **self._server(master),
            },
        )

        def ended(outcome: object) -> None:
            if span.is_recording():
                if self._client.master != master:
                    span.set_attributes(self._server(self._client.master))
                if isinstance(outcome, Failure) and outcome.value is not None:
                    _fail(span, outcome.value)
            span.end()

        return ended

    def _server(self, master: str | None) -> dict[str, AttributeValue]:
        """The attributes that name a node; nodes are few."""
        if master is None:
            return {}
        known = self._servers.get(master)
        if known is None:
            address = Address.parse(master)
            known = {"server.address": address.host}
            if address.port:
                known["server.port"] = address.port
            self._servers[master] = known
        return known


_EXECUTED = {True: "yes", False: "no", None: "unknown"}


def _fail(span: Span, error: BaseException) -> None:
    kind = type(error)
    ours = kind.__module__.startswith("txharedis")
    span.set_attribute("error.type", kind.__name__ if ours else _dotted(kind))
    if isinstance(error, HARedisError):
        span.set_attribute("haredis.executed", _EXECUTED[error.executed])
    elif isinstance(error, ResponseError):
        code = re.match(r"[A-Z]{1,32}(?= |$)", str(error))
        if code is not None:
            span.set_attribute("db.response.status_code", code[0])
    span.set_status(StatusCode.ERROR)


def _dotted(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class _Failovers:
    """A listener to events."""

    def __init__(self, client: HAClient, tracer: Tracer) -> None:
        self._tracer = tracer
        self._attempts = Attempts(lambda: client.topology)
        self._span: Span | None = None

    def heard(self, event: Event) -> None:
        attempt = self._attempts.heard(event)
        span = self._span
        match event:
            case FailoverStarted():
                self.stop()
                self._span = self._tracer.start_span(
                    "haredis.failover",
                    context=Context(),  # of no command: whoever is in the way is not its cause
                    attributes={
                        "haredis.failover.id": event.failover_id,
                        "haredis.failover.why": event.reason[:_MOST_OF_A_TEXT],
                    },
                )
            case FailoverStep() if span is not None:
                attributes: dict[str, AttributeValue] = {"haredis.epoch": event.epoch}
                if event.node is not None:
                    attributes["haredis.node"] = str(event.node)
                span.add_event(event.step, attributes)
            case LockNotGranted() if span is not None:
                span.add_event(
                    "lock not granted",
                    {"haredis.epoch": event.epoch, "reason": event.reason[:_MOST_OF_A_TEXT]},
                )
            case HistoryDiscarded() if span is not None:
                lost: dict[str, AttributeValue] = {"haredis.node": str(event.node)}
                if event.count is not None:
                    lost["haredis.lost_bytes"] = event.count
                span.add_event("history discarded", lost)
            case FailoverEnded() if span is not None and attempt is not None:
                self._span = None
                span.set_attributes(
                    {
                        "haredis.failover.reason": attempt.reason,
                        "haredis.failover.result": attempt.result,
                        "haredis.epoch": event.epoch,
                        **_told(event),
                    }
                )
                if attempt.result == "failure":
                    span.set_status(StatusCode.ERROR)
                span.end()

    def stop(self) -> None:
        """End what is under way; its end will not be seen."""
        if self._span is not None:
            self._span.end()
            self._span = None


def _told(event: FailoverEnded) -> dict[str, AttributeValue]:
    facts: dict[str, AttributeValue] = {}
    if event.master is not None:
        facts["haredis.failover.new_master"] = str(event.master)
        facts["haredis.failover.outage"] = event.outage
        facts["haredis.failover.choice"] = event.why[:_MOST_OF_A_TEXT]
    if event.old is not None:
        facts["haredis.failover.old_master"] = str(event.old)
    return facts
