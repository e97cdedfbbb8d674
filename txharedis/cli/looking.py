"""A client that looks at a group and changes nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.task import deferLater

from txharedis._version import __version__
from txharedis.cli.settings import Settings
from txharedis.election import Elect, Refuse, Wait
from txharedis.failover import FailoverService
from txharedis.inspection import NodeReport
from txharedis.monitor.cluster import DEGRADED, HEALTHY, NO_MASTER, cluster_state
from txharedis.topology import Address, NodePicture, Status, Topology

__all__ = ["EXIT", "Group", "opened", "settled"]

EXIT = {HEALTHY: 0, DEGRADED: 1, NO_MASTER: 2}
"""The exit status for each state of a group."""

_STEP = 0.02
#: Seconds that a failover which is under way is given before it is said that there is no master.
_GRACE = 1.0


class Group:
    """A group as a client sees it; `service` is the client's."""

    def __init__(self, reactor: Any, settings: Settings, options: Mapping[str, Any]) -> None:
        self.service = FailoverService(settings.nodes, reactor, **options)
        self._reactor = reactor

    async def settle(self, timeout: float) -> None:
        """Return when it is known how each node stands, and who is master if there is one.

        That takes `timeout` seconds at most.
        """
        now = self._reactor.seconds()
        end, grace_ends = now + timeout, None
        while now < end:
            topology = self.service.topology
            if settled(topology):
                if topology.master is not None:
                    return
                grace_ends = grace_ends or now + _GRACE
                if now >= grace_ends:
                    return
            await deferLater(self._reactor, _STEP)
            now = self._reactor.seconds()

    async def state(self, reports: Mapping[Address, NodeReport] | None = None) -> dict[str, Any]:
        """See txharedis.monitor.cluster.cluster_state; the nodes are asked, if not before."""
        if reports is None:
            reports = await self.service.inspect()
        reason = "" if self.service.master is not None else await self.why_none()
        return cluster_state(
            self.service.topology,
            reports,
            phase=self.service.phase.value,
            elects=self.service.options.elect,
            version=__version__,
            at=time.time(),
            reason=reason,
            db_num=self.service.options.haredis_db_num,
        )

    async def why_none(self) -> str:
        """Why there is no master just now."""
        rehearsal = await self.service.rehearse()
        match rehearsal.decision:
            case _ if rehearsal.master is not None:
                return f"{rehearsal.master} is the master, and was not followed in time"
            case Elect(reason=reason):
                return f"{reason}, and no client has elected another node yet"
            case Wait(reason=reason) | Refuse(reason=reason):
                return reason
        raise AssertionError(rehearsal)


@asynccontextmanager
async def opened(reactor: Any, settings: Settings, *, elect: bool = False) -> AsyncIterator[Group]:
    """A group that is looked at; with `elect` this client takes part in its failovers."""
    group = Group(reactor, settings, settings.acting if elect else settings.watching)
    group.service.startService()
    try:
        yield group
    finally:
        await group.service.stopService()


def settled(topology: Topology) -> bool:
    """Whether it is known how each node stands."""
    return all(map(_is_known, topology.nodes))


def _is_known(node: NodePicture) -> bool:
    if node.status is Status.UP:
        return node.role is not None or node.reason != ""
    return node.status not in (Status.DIALLING, Status.DROPPED)
