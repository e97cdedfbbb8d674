"""The monitor over HTTP: the page, its streams, the JSON of the group, and the probes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping
from importlib.resources import files
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from txharedis.log import ClientLog
from txharedis.monitor import DEFAULT_ENDPOINT, probes
from txharedis.monitor.actions import Actions, Refusal
from txharedis.monitor.figures import Figures
from txharedis.monitor.site import Door, Hosts, MonitorSite, answer
from txharedis.monitor.streams import Streams
from txharedis.monitor.watcher import Watcher

__all__ = ["make_app", "serve"]

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def serve(
    reactor: Any,
    watcher: Watcher,
    endpoint: str = DEFAULT_ENDPOINT,
    *,
    token: str | None = None,
    allow_hosts: Collection[str] = (),
) -> Deferred[Any]:
    """Serve what the watcher knows on this endpoint (a text, as Twisted's serverFromString has it).

    `token` is the secret that POST asks for, None for no POST; `allow_hosts` are names beside
    localhost that a browser may call a server on a loopback address by. Fires with the listening
    port, whose stopListening() ends all connections too; fails as the endpoint does when it cannot
    listen. A text that is no endpoint raises ValueError.
    """
    place = serverFromString(reactor, endpoint)
    streams = Streams(reactor, watcher)
    hosts = Hosts(allow_hosts)
    figures = Figures(watcher)
    app = make_app(watcher, streams, figures, Actions(reactor, watcher.watched.client, token))

    def close() -> None:
        streams.close()
        figures.close()

    listening: Deferred[Any] = place.listen(_Site(Door(app.resource(), hosts), reactor, close))

    def bound(port: Any) -> Any:
        host = port.getHost()
        hosts.bound(getattr(host, "host", ""))
        return port

    def failed(failure: Failure) -> Failure:
        close()
        return failure

    return listening.addCallbacks(bound, failed)


class _Site(MonitorSite):
    def __init__(self, door: Door, reactor: Any, close: Callable[[], None]) -> None:
        super().__init__(door, reactor)
        self._close = close

    def stopFactory(self) -> None:
        self._close()
        super().stopFactory()


def make_app(watcher: Watcher, streams: Streams, figures: Figures, actions: Actions) -> Klein:
    """All routes."""
    app = Klein()
    log = ClientLog()
    _add_errors(app, log)
    _add_page(app)
    _add_documents(app, streams)
    _add_figures(app, figures)
    _add_probes(app, watcher)
    _add_actions(app, actions)
    return app


def _add_errors(app: Klein, log: ClientLog) -> None:
    """What goes wrong is told as JSON; what we did wrong, in the log alone."""

    @app.handle_errors(probes.BadParameter)
    def bad(request: Any, failure: Failure) -> bytes:
        return answer(request, 400, {"error": str(failure.value)})

    @app.handle_errors(probes.UnknownNode)
    def unknown(request: Any, failure: Failure) -> bytes:
        return answer(request, 404, {"error": str(failure.value)})

    @app.handle_errors(MethodNotAllowed)
    def method(request: Any, failure: Failure) -> bytes:
        allowed = sorted(getattr(failure.value, "valid_methods", None) or ())
        why = f"{request.method.decode()} is not for this; {', '.join(allowed)} are"
        return answer(request, 405, {"error": why}, Allow=", ".join(allowed))

    @app.handle_errors(RequestRedirect)
    def elsewhere(request: Any, failure: Failure) -> bytes:
        return answer(request, 404, {"error": "there is nothing by this name"})

    @app.handle_errors(HTTPException)
    def http(request: Any, failure: Failure) -> bytes:
        error: Any = failure.value
        text = "there is nothing by this name" if error.code == 404 else str(error.name)
        return answer(request, error.code or 500, {"error": text})

    @app.handle_errors(Exception)
    def defect(request: Any, failure: Failure) -> bytes:
        log.failure("a request to the monitor failed", failure)
        return answer(request, 500, {"error": "the monitor failed; its log says more"})


def _page_files() -> Mapping[str, tuple[str, bytes]]:
    """The files of the page by name, each with its type."""
    found = {}
    for item in files("txharedis.monitor").joinpath("page").iterdir():
        kind = _KINDS.get("." + item.name.rpartition(".")[2])
        if kind is not None and item.is_file():
            found[item.name] = (kind, item.read_bytes())
    return found


def _add_page(app: Klein) -> None:
    pages = _page_files()

    @app.route("/", methods=["GET"])
    def index(request: Any) -> bytes:
        kind, data = pages["index.html"]
        return answer(request, 200, data, content_type=kind)

    @app.route("/static/<name>", methods=["GET"])
    def static(request: Any, name: str) -> bytes:
        if name not in pages or name == "index.html":
            return answer(request, 404, {"error": "there is nothing by this name"})
        kind, data = pages[name]
        return answer(request, 200, data, content_type=kind)


def _add_documents(app: Klein, streams: Streams) -> None:
    def add(name: str) -> None:
        @app.route(f"/{name}", methods=["GET"], endpoint=name)
        def document(request: Any) -> bytes:
            return answer(request, 200, streams.documents.of(name))

    for name in ("cluster", "history", "series", "log"):
        add(name)

    @app.route("/events", methods=["GET"])
    def events(request: Any) -> Any:
        request.setHeader("Content-Type", "text/event-stream; charset=utf-8")
        request.setHeader("X-Accel-Buffering", "no")
        if request.method == b"HEAD":
            return b""
        if not streams.add(request):
            return answer(request, 503, {"error": "too many pages listen already"})
        return Deferred()  # until the page is gone


def _add_figures(app: Klein, figures: Figures) -> None:
    @app.route("/metrics", methods=["GET"])
    def told(request: Any) -> bytes:
        return answer(request, 200, figures.text(), content_type=_PROMETHEUS)


def _add_probes(app: Klein, watcher: Watcher) -> None:
    def told(request: Any, found: probes.Answer) -> bytes:
        return answer(request, found.code, found.body)

    @app.route("/liveness", methods=["GET"])
    def liveness(request: Any) -> bytes:
        return told(request, probes.liveness(watcher.stands_still))

    @app.route("/readiness", methods=["GET"])
    def readiness(request: Any) -> bytes:
        return told(request, probes.readiness(watcher.cluster))

    @app.route("/health", methods=["GET"])
    def health(request: Any) -> bytes:
        return told(request, probes.health(watcher.cluster))

    def add(kind: str, check: probes.Check) -> None:
        @app.route(f"/{kind}", methods=["GET"], endpoint=kind)
        def by_parameter(request: Any) -> bytes:
            text = _parameter(request, "node")
            node = None if text is None else probes.parse_node(watcher.cluster, text)
            return told(request, check(watcher.cluster, node, lag_of(request, kind)))

        @app.route(f"/node/<path:name>/{kind}", methods=["GET"], endpoint=f"node {kind}")
        def by_path(request: Any, name: str) -> bytes:
            node = probes.parse_node(watcher.cluster, name)
            return told(request, check(watcher.cluster, node, lag_of(request, kind)))

    def lag_of(request: Any, kind: str) -> probes.Lag | None:
        text = None if kind == "primary" else _parameter(request, "lag")
        return None if text is None else probes.parse_lag(text)

    for kind, check in probes.CHECKS.items():
        add(kind, check)


def _add_actions(app: Klein, actions: Actions) -> None:
    def add(name: str, act: Callable[[Any], Coroutine[Any, Any, dict[str, Any]]]) -> None:
        @app.route(f"/{name}", methods=["POST"], endpoint=name)
        async def posted(request: Any) -> bytes:
            try:
                return answer(request, 200, await act(request))
            except Refusal as refusal:
                body = {"error": refusal.why, "executed": refusal.executed}
                return answer(request, refusal.code, body, **refusal.headers)

    add("switchover", actions.switchover)
    add("failover", actions.failover)


def _parameter(request: Any, name: str) -> str | None:
    """A parameter of the URL, None where it is not there; BadParameter for what is no text."""
    values = request.args.get(name.encode())
    if values is None:
        return None
    if len(values) > 1:
        raise probes.BadParameter(f"{name} is given {len(values)} times")
    try:
        text = str(values[0].decode())
    except UnicodeDecodeError:
        raise probes.BadParameter(f"{name} is not UTF-8") from None
    if not text.isprintable():
        raise probes.BadParameter(f"{name}={text!r} cannot be printed")
    return text
