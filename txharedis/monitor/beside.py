"""The status page beside a program that has a client already."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError

from txharedis.failover import FailoverService

__all__ = ["NoPage", "Page", "check_endpoint"]


class NoPage(Exception):
    """The page cannot be served; the text says why."""


def check_endpoint(reactor: Any, endpoint: str) -> None:
    """Raise NoPage when there is nothing to serve it with, or no such endpoint."""
    missing = [name for name in ("klein", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise NoPage(f'not installed: {", ".join(missing)}; run  pip install "txharedis[monitor]"')
    try:
        serverFromString(reactor, endpoint)
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise NoPage(f"{endpoint!r} is not an endpoint such as tcp:8405: {error}") from None


class Page:
    """The page of what `service` sees, from `start` to `stop`; `url` is where it is."""

    def __init__(self, reactor: Any, service: FailoverService, endpoint: str) -> None:
        from txharedis.monitor.watcher import Watcher

        self.url = ""
        self._reactor = reactor
        self._endpoint = endpoint
        self._watcher = Watcher(reactor, service)
        self._port: Any = None

    async def start(self) -> None:
        """Return when it is served; raises NoPage when it cannot be."""
        from txharedis.monitor.web import serve

        self._watcher.startService()
        try:
            self._port = await serve(self._reactor, self._watcher, self._endpoint)
        except CannotListenError as error:
            raise NoPage(f"{self._endpoint!r}: {error}") from None
        self.url = _url(self._port.getHost())

    async def stop(self) -> None:
        """Return when all connections are closed."""
        self._watcher.stopService()
        if self._port is not None:
            closed = self._port.stopListening()
            if isinstance(closed, Deferred):
                await closed


def _url(place: Any) -> str:
    """Where a browser finds what is served there."""
    if not hasattr(place, "port"):
        return str(getattr(place, "name", place))
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place.host, place.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{place.port}/"
