"""The whole monitor as one service: the client, what watches it, and the HTTP server."""

from __future__ import annotations

import os
from collections.abc import Collection
from ipaddress import ip_address
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txharedis.failover import FailoverService
from txharedis.log import ClientLog
from txharedis.monitor import DEFAULT_ENDPOINT
from txharedis.monitor.watcher import Watcher
from txharedis.monitor.web import serve

__all__ = ["monitor_service"]


def monitor_service(
    nodes: object,
    reactor: Any,
    *,
    http: str = DEFAULT_ENDPOINT,
    token: str | None = None,
    allow_hosts: Collection[str] = (),
    **options: object,
) -> MultiService:
    """A service for twistd: it holds a FailoverService and serves what that sees.

    `nodes` and `options` are those of create_client; the others are those of
    txharedis.monitor.web.serve. A bad node or option raises InvalidOption.
    """
    whole = MultiService()
    # It writes nothing, so it needs no journal, and no rights for one.
    failover = FailoverService(nodes, reactor, **{"delivery": "at-most-once", **options})
    watcher = Watcher(reactor, failover)
    http_server = _Http(reactor, watcher, http, token, allow_hosts)
    for part in (failover, watcher, http_server):
        part.setServiceParent(whole)
    return whole


class _CannotServe(SystemExit, Exception):
    """Ends the process with status 1 and one line.

    An Exception too: twistd tells such a one to whoever started it as a daemon, who would wait for
    ever otherwise, and takes its pid file away.
    """


class _Http(Service):
    """Listens from its start to its stop. What cannot listen ends the process with status 1."""

    def __init__(
        self,
        reactor: Any,
        watcher: Watcher,
        endpoint: str,
        token: str | None,
        allow_hosts: Collection[str],
    ) -> None:
        self._reactor = reactor
        self._watcher = watcher
        self._endpoint = endpoint
        self._token = token
        self._allow_hosts = allow_hosts
        self._log = ClientLog()
        self._listening: Deferred[Any] | None = None
        self._port: Any = None
        self._trouble = ""

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listening = serve(
            self._reactor,
            self._watcher,
            self._endpoint,
            token=self._token,
            allow_hosts=self._allow_hosts,
        )
        self._listening.addCallbacks(self._bound, self._not_bound)
        if self._trouble:
            raise _CannotServe(f"haredis-monitor: {self._trouble}")

    def startService(self) -> None:
        super().startService()
        if self._listening is None:
            self.privilegedStartService()

    def stopService(self) -> Any:
        super().stopService()
        if self._listening is not None:
            self._listening.cancel()
        return None if self._port is None else self._port.stopListening()

    def _not_bound(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._trouble = f"--http={self._endpoint}: {failure.getErrorMessage()}"
        if self._reactor.running:  # an endpoint that takes its time
            self._log.error("haredis-monitor cannot serve: {why}", why=self._trouble)
            self._reactor.stop()

    def _bound(self, port: Any) -> None:
        self._port = port
        host = port.getHost()
        self._log.info("haredis-monitor serves on {place}", place=_place(host))
        if not _is_private(getattr(host, "host", "")):
            self._log.warn(
                "haredis-monitor can be reached from other machines: whoever reaches {place} sees"
                " the group",
                place=_place(host),
            )


def _place(host: Any) -> str:
    if hasattr(host, "port"):
        name = f"[{host.host}]" if ":" in host.host else host.host
        return f"{name}:{host.port}"
    name = getattr(host, "name", host)
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)


def _is_private(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return True  # a unix socket
