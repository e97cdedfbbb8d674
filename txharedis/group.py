"""NodeGroup: the configured nodes together: what they say, and whether a quorum is heard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from txharedis.election import Decision, Evidence, decide, doubt_of, majority
from txharedis.interfaces import Reactor
from txharedis.log import ClientLog
from txharedis.node import Node, NodeObserver
from txharedis.options import Options
from txharedis.protocol import NodeProtocol
from txharedis.topology import Address, NodePicture, NodeView, Status
from txharedis.values import Value

__all__ = ["Memory", "NodeGroup", "Survey"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Memory(Value):
    """What a client remembers of the group that it followed: the newest epoch, the group's id, and
    the replication history (replid) of its master."""

    epoch: int = 0
    group: str = ""
    history: str = ""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Survey(Value):
    """The views of one moment, what follows from them, and the links to those who gave them.

    There are links only to nodes that we have the rights to lock.
    `nodes` is the number of configured servers, `memory` what this client knew before, `evidence`
    what was held against the views, and `names` maps the hosts and ports that servers may name to
    configured addresses.
    """

    views: Mapping[Address, NodeView]
    decision: Decision
    controls: Mapping[Address, NodeProtocol]
    nodes: int
    memory: Memory
    evidence: Evidence
    names: Mapping[tuple[str, int], Address] = field(default_factory=dict)


class NodeGroup:
    """All the nodes of one client, by address."""

    def __init__(
        self,
        reactor: Reactor,
        addresses: Sequence[Address],
        options: Options,
        observer: NodeObserver,
        log: ClientLog,
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._log = log
        self._doubt_since: float | None = None
        self._failing_over_since: float | None = None
        self._nodes = {address: Node(reactor, address, options, observer) for address in addresses}
        for node in self:
            node.checks_rights = options.elect and len(addresses) > 1
            node.follows_only = not options.elect and len(addresses) > 1

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, address: Address) -> Node:
        return self._nodes[address]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def start(self) -> None:
        for node in self:
            node.start()

    def close(self) -> Deferred[Any]:
        """Drop all links for good; fires when they are gone."""
        return gatherResults([node.close() for node in self])

    def count(self, status: Status) -> int:
        """How many nodes stand so."""
        return sum(node.status is status for node in self)

    def redial_now(self) -> None:
        """Do not wait out the delays: one node is back, others may be too."""
        for node in self:
            node.redial_now()

    async def survey(
        self,
        memory: Memory,
        *,
        following: bool,
        lock_is_ours: bool = False,
        rights: bool = True,
    ) -> Survey:
        """Ask all nodes that can be asked, together, and decide.

        `following` tells whether commands go to a master at the moment, `lock_is_ours` whether this
        client holds the failover lock. Without `rights` it is quicker, and who has not been asked
        before which rights we have there is taken for one who grants them all.
        """
        resolve = self._resolve()
        asked = [node for node in self._distinct() if node.status is Status.UP]
        # The very links that are asked: one that dies meanwhile gives LinkLost to who uses it.
        links = {node: node.control for node in asked if node.control is not None}
        answers = await gatherResults(
            [Deferred.fromCoroutine(node.survey(resolve, rights=rights)) for node in asked],
            consumeErrors=True,
        )
        views = {view.address: view for view in answers if view is not None}
        nodes = self._distinct()
        evidence = Evidence(
            nodes=tuple(node.address for node in nodes),
            status={node.address: node.status for node in nodes},
            down_after=self._options.down_after,
            run_ids={node.address: node.run_id for node in nodes},
            epoch=memory.epoch,
            group=memory.group,
            history=memory.history,
            adopt=frozenset(self._options.adopt),
            # A lock of our own is no sign that somebody else makes a newer master.
            doubt=self._doubt(views.values(), following or lock_is_ours),
            lock_is_ours=lock_is_ours,
            stuck=self._stuck(views.values()),
            denied={node.address: node.reason for node in nodes if node.lacks_right},
            commands_denied={
                node.address: node.commands_denied for node in nodes if node.commands_denied
            },
            clusters=frozenset(node.address for node in nodes if node.cluster),
            follows_only=self._follows_only(nodes),
        )
        return Survey(
            views=views,
            decision=decide(views, evidence),
            controls={node.address: link for node, link in links.items() if node.may_lock},
            nodes=len(nodes),
            memory=memory,
            evidence=evidence,
            names=resolve,
        )

    def _follows_only(self, nodes: Sequence[Node]) -> bool:
        """Whether this client takes no part in failovers: by its option, or for want of rights."""
        votes = sum(node.may_lock for node in nodes)
        able = votes >= majority(len(nodes)) and any(node.may_elect for node in nodes)
        return not (self._options.elect and able)

    def recheck_rights(self) -> None:
        """Something was denied: look with the next survey what it was."""
        for node in self:
            node.recheck_rights()

    def _doubt(self, views: Iterable[NodeView], following: bool) -> str:
        """The doubt of the master that shows, for as long as a failover may take to be seen."""
        doubt = doubt_of(views, following=following)
        now = self._reactor.seconds()
        if not doubt:
            self._doubt_since = None
        elif self._doubt_since is None:
            self._doubt_since = now
        elif now - self._doubt_since > 2 * self._options.lock_time:
            return ""
        return doubt

    def _stuck(self, views: Iterable[NodeView]) -> bool:
        """Whether a server's FAILOVER lasts longer than any client of ours would let it."""
        now = self._reactor.seconds()
        if not any(view.failing_over for view in views):
            self._failing_over_since = None
        elif self._failing_over_since is None:
            self._failing_over_since = now
        else:
            return now - self._failing_over_since > 2 * self._options.lock_time
        return False

    @property
    def quorum(self) -> int:
        """How many nodes are more than half of them, each server counted once."""
        return majority(len(self._distinct()))

    def lease_left(self) -> float:
        """Seconds for which writes may still be sent, counted from a quorum's last words."""
        heard = sorted((node.last_heard for node in self._distinct()), reverse=True)
        return heard[majority(len(heard)) - 1] + self._options.lease - self._reactor.seconds()

    def pictures(self, master: Address | None) -> tuple[NodePicture, ...]:
        view = self[master].view if master is not None else None
        return tuple(node.picture(view) for node in self)

    def _distinct(self) -> list[Node]:
        """The nodes, each server once: two addresses with one run_id are one node."""
        first: dict[str, Node] = {}
        distinct = []
        for node in self:
            twin = first.setdefault(node.run_id, node) if node.run_id else node
            if twin is node:
                distinct.append(node)
            else:
                self._log.once(f"{node.address} and {twin.address} are one server")
        return distinct

    def _resolve(self) -> Mapping[tuple[str, int], Address]:
        """Configured addresses by the host and port that servers may call them."""
        names: dict[tuple[str, int], Address] = {}
        first: dict[str, Address] = {}
        for node in self:
            address = first.setdefault(node.run_id, node.address) if node.run_id else node.address
            for host in (node.address.host, node.peer_host):
                names.setdefault((host, node.address.port), address)
        return names
