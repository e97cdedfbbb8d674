"""Monitors: MONITOR on the master, whichever it is."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, succeed

from txharedis.alarm import Alarm
from txharedis.dedicated.links import DedicatedLink, DedicatedLinks
from txharedis.errors import HARedisError, LinkLost, ResponseError, ServiceStopped
from txharedis.interfaces import Clock
from txharedis.log import ClientLog

__all__ = ["Monitoring", "Monitors"]

PAUSE = 0.01
"""Seconds between the loss of a link and the next one."""
RETRY = 1.0
"""Seconds after which a master that refused is asked again."""


class Monitors:
    """The monitors of one client."""

    def __init__(self, clock: Clock, links: DedicatedLinks, log: ClientLog) -> None:
        self.clock = clock
        self.links = links
        self.log = log
        self._all: dict[Monitoring, None] = {}

    def start(self, on_line: Callable[[str], object], db: int) -> Deferred[Monitoring]:
        """See HAClient.monitor."""
        monitoring = Monitoring(self, on_line, db)
        self._all[monitoring] = None
        monitoring.ended.addBoth(lambda _: self._all.pop(monitoring, None))
        monitoring.begin()
        return monitoring.confirmed

    def stop(self) -> None:
        """End them all; their links go with the others."""
        for monitoring in tuple(self._all):
            monitoring.end(ServiceStopped("the service was stopped"))


class Monitoring:
    """A MONITOR that goes on until `stop()`, on one master after the other."""

    def __init__(self, owner: Monitors, on_line: Callable[[str], object], db: int) -> None:
        self.confirmed: Deferred[Monitoring] = Deferred(lambda _: self.end(CancelledError()))
        self.ended: Deferred[None] = Deferred()
        self._owner = owner
        self._on_line = on_line
        self._db = db
        self._link: DedicatedLink | None = None
        self._over = False
        self._taking: Deferred[DedicatedLink] | None = None
        self._lost = Alarm(owner.clock)

    def __repr__(self) -> str:
        place = "nobody" if self._link is None else str(self._link.node.address)
        return f"<Monitoring of {place}>"

    @property
    def node(self) -> str | None:
        """The node that is monitored, as "host:port"; None while there is no master."""
        return None if self._link is None else str(self._link.node.address)

    def stop(self) -> Deferred[None]:
        """End it: `on_line` is not called any more. Fires at once."""
        self.end(CancelledError())
        return succeed(None)

    def begin(self) -> None:
        """Called once."""
        Deferred.fromCoroutine(self._run()).addErrback(
            lambda failure: self._owner.log.failure("a monitor failed", failure)
        )

    def end(self, why: Exception) -> None:
        """No more lines; who still waits for the beginning gets `why`."""
        if self._over:
            return
        self._over = True
        if self._taking is not None:
            self._taking.cancel()
        if self._link is not None:
            self._owner.links.discard(self._link)
        self._lost.wake()
        if not self.confirmed.called:
            self.confirmed.errback(why)
        self.ended.callback(None)

    async def _run(self) -> None:
        while not self._over:
            try:
                await self._monitor()
                await self._lost.sleep(PAUSE)
            except LinkLost:
                await self._lost.sleep(PAUSE)
            except (HARedisError, ResponseError, CancelledError) as error:
                if not self.confirmed.called:
                    self.end(error)
                elif not self._over:
                    self._owner.log.warn("MONITOR was refused: {error}", error=str(error))
                    await self._lost.sleep(RETRY)

    async def _monitor(self) -> None:
        """Monitor one master until its link is lost."""
        self._taking = self._owner.links.take(self._db)
        try:
            self._link = link = await self._taking
        finally:
            self._taking = None
        try:
            assert link.protocol is not None
            lost = link.protocol.listen(self._heard)
            [reply] = await link.exchange(["MONITOR"])
            if isinstance(reply, Exception):
                raise reply
            if not self.confirmed.called:
                self.confirmed.callback(self)
            await lost
        finally:
            self._link = None
            self._owner.links.discard(link)

    def _heard(self, line: object) -> None:
        if isinstance(line, bytes) and not self._over:
            try:
                self._on_line(line.decode("utf-8", "backslashreplace"))
            except Exception:
                self._owner.log.failure("on_line failed")
