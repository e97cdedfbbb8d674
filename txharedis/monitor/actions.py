"""What the monitor does when it is told to: move the master, or see to it that there is one.

Off without a token. The token is a secret of whoever may do it, sent as `Authorization: Bearer`.
"""

from __future__ import annotations

import hmac
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request

from txharedis.client import HAClient
from txharedis.errors import (
    HARedisError,
    InvalidOption,
    NoMaster,
    ServiceStopped,
    WouldDiscardData,
)
from txharedis.log import printable
from txharedis.monitor.plans import failover_plan, switchover_plan
from txharedis.options import check_seconds

__all__ = ["Actions", "Refusal", "read_token"]

#: Bytes of a request's body, at most.
MOST = 4096
#: Characters of a token, at least.
SHORTEST = 16


def read_token(file: str) -> str:
    """The token: the first line of this file.

    Raises InvalidOption when the file cannot be read, or the token is too short to be a secret.
    """
    option = f"--token-file={file!r}"
    try:
        path = Path(file)
        token = path.read_text(encoding="utf-8").partition("\n")[0].strip()
        others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except (OSError, ValueError) as error:
        raise InvalidOption(f"{option}: {error}") from None
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidOption(
            f"{option}: the first line must be {SHORTEST} or more ASCII characters without spaces"
        )
    if others:
        Logger(namespace="txharedis").warn("{option} can be read by others", option=option)
    return token


class Refusal(Exception):
    """The answer is this: `code` is the HTTP status. `executed` is as that of all our errors."""

    def __init__(self, code: int, why: str, executed: bool | None = False) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.executed = executed

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"} if self.code == 401 else {}


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for. `timeout` is in seconds."""

    to: str | None = None
    timeout: float = 10.0
    dry_run: bool = False


class Actions:
    """`token` is the secret, None when nothing may be done here."""

    def __init__(self, clock: Any, client: HAClient, token: str | None) -> None:
        self._clock = clock
        self._client = client
        self._token = token
        self._log = Logger(namespace="txharedis")
        self._warned_until = 0.0

    async def switchover(self, request: Request) -> dict[str, Any]:
        """Move the master, as HAClient.switchover does; a dry run says to whom.

        Raises Refusal.
        """
        order = self._order(request)
        try:
            if order.dry_run:
                return switchover_plan(await self._client.rehearse_switchover(order.to))
            self._log.info(
                "{who} asks for a switchover to {node}",
                who=_peer(request),
                node=order.to or "the best replica",
            )
            old = self._client.master
            new = await self._client.switchover(order.to, order.timeout)
        except HARedisError as error:
            raise self._refused(request, error) from None
        return {"result": "switched over", "old": old, "new": new}

    async def failover(self, request: Request) -> dict[str, Any]:
        """Wait until there is a master, and say who; a dry run says who would be elected.

        The election is no different from the one that takes place anyway. With a living master it
        is refused: that one is moved by a switchover. Raises Refusal.
        """
        order = self._order(request)
        if order.to is not None:
            raise Refusal(400, "to: a failover takes the node that has most, and no other")
        try:
            plan = failover_plan(await self._client.rehearse())
            if order.dry_run:
                return plan
            if self._client.master is not None:
                raise Refusal(
                    409, f"{self._client.master} is master and lives: use /switchover to move it"
                )
            self._log.info("{who} asks for a failover", who=_peer(request))

            def too_late(*_: object) -> Failure:
                why = plan["reason"] or "the nodes did not answer"
                return Failure(NoMaster(f"no master within {order.timeout} s: {why}"))

            ready: Deferred[Any] = self._client.when_ready()
            await ready.addTimeout(order.timeout, self._clock, too_late)
        except HARedisError as error:
            raise self._refused(request, error) from None
        return {"result": "elected", "new": self._client.master, "reason": plan["reason"]}

    def _refused(self, request: Request, error: HARedisError) -> Refusal:
        self._log.info(
            "what {who} asks for is not done: {why}", who=_peer(request), why=printable(str(error))
        )
        return _refusal(error)

    def _warn_of(self, request: Request) -> None:
        """Somebody has no token, or guesses: said once a minute, however often it is tried."""
        now = self._clock.seconds()
        if now >= self._warned_until:
            self._warned_until = now + 60.0
            self._log.warn("{who} gave orders without the token", who=_peer(request))

    def _order(self, request: Request) -> Order:
        """What is asked for, by somebody who may."""
        if self._token is None:
            raise Refusal(403, "off: the monitor was started without --token-file")
        _check_origin(request)
        given = request.getHeader(b"authorization") or b""
        scheme, _, token = given.strip().partition(b" ")
        # As bytes, in constant time: it tells nothing of how much of a guess was right.
        good = hmac.compare_digest(token.strip(), self._token.encode())
        if not good or scheme.lower() != b"bearer":
            self._warn_of(request)
            raise Refusal(401, "the token is needed: Authorization: Bearer ...")
        return _parsed(request)


def _check_origin(request: Request) -> None:
    """A page of another site must not make a browser do it."""
    site = request.getHeader(b"sec-fetch-site")
    if site is not None and site not in (b"same-origin", b"none"):
        raise Refusal(403, "a page of another site may not do this")
    origin = request.getHeader(b"origin")
    if origin is not None:
        host = request.getHeader(b"host") or b""
        if origin.lower() not in (b"http://" + host.lower(), b"https://" + host.lower()):
            raise Refusal(403, "Origin: a page of another site may not do this")


def _parsed(request: Request) -> Order:
    body: bytes = b"" if request.content is None else request.content.read(MOST + 1)
    if len(body) > MOST:
        raise Refusal(413, f"the body is longer than {MOST} bytes")
    if not body.strip():
        return Order()
    kind = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refusal(415, "Content-Type: application/json is needed")
    try:
        given = json.loads(body)
    except ValueError:
        raise Refusal(400, "the body is not JSON") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
    if not isinstance(given, dict):
        raise Refusal(400, 'the body is not an object, as {"to": "host:port"}')
    unknown = sorted(set(given) - {"to", "timeout", "dry_run"})
    if unknown:
        raise Refusal(400, f"unknown: {', '.join(unknown)[:80]} (known: dry_run, timeout, to)")
    to, timeout, dry_run = given.get("to"), given.get("timeout", 10.0), given.get("dry_run", False)
    if not isinstance(to, str | None):
        raise Refusal(400, "to: not a text")
    if to is not None and not (to.isprintable() and len(to) <= 255):
        raise Refusal(400, "to: not the name of a node")  # it would be in the log as it is
    if not isinstance(dry_run, bool):
        raise Refusal(400, "dry_run: not true or false")
    try:
        check_seconds("timeout", timeout)
    except InvalidOption as error:
        raise Refusal(400, str(error)) from None
    if timeout > 300:
        raise Refusal(400, f"timeout={timeout} is more than 300 s")
    return Order(to, float(timeout), dry_run)


def _refusal(error: HARedisError) -> Refusal:
    code = 409
    if isinstance(error, InvalidOption):
        code = 400
    elif isinstance(error, NoMaster | ServiceStopped | WouldDiscardData):
        code = 503
    return Refusal(code, str(error), getattr(error, "executed", False))


def _peer(request: Request) -> str:
    return str(getattr(request.getClientAddress(), "host", "somebody"))
