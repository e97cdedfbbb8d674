"""Gossip: clients tell each other which node became the master.

A message is a hint: whoever hears it looks for himself. The channel and the payload ("host:port")
are those of Node haredis, so its clients follow our promotions too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from txharedis.factory import NodeFactory
from txharedis.interfaces import Args, Clock, Reactor
from txharedis.options import Options
from txharedis.protocol import NodeProtocol, greeting
from txharedis.rights import denied
from txharedis.topology import GOSSIP_CHANNEL, Address

__all__ = ["Gossip", "GossipProtocol", "announcement"]


def announcement(master: Address) -> Args:
    """The command that tells it to the clients that listen on one node.

    PUBLISH travels from a master to its replicas and not back, so it is sent to every node.
    """
    return ["PUBLISH", GOSSIP_CHANNEL, str(master)]


class GossipProtocol(NodeProtocol):
    """A subscriber link: calls `heard(text)` for each message on the gossip channel.

    `ready(allowed)` is called when it is up. Without the right to listen it stays, and is silent:
    to close it would only mean to dial again.
    """

    def __init__(
        self,
        clock: Clock,
        node: Address,
        options: Options,
        heard: Callable[[str], None],
        ready: Callable[[bool], None],
    ) -> None:
        self._heard = heard
        super().__init__(
            clock,
            [*greeting(options, options.haredis_db_num, node), ["SUBSCRIBE", GOSSIP_CHANNEL]],
            options.connect_timeout,
            lambda _link, replies: ready(not denied(replies[-1])),
            lambda _error, _replies: None,
            last_may_be_denied=True,
        )

    def unasked(self, reply: object) -> None:
        """On a subscribed link everything comes unasked."""
        match reply:
            case [b"message", _, bytes(text)]:
                self._heard(text.decode("utf-8", "replace"))


class Gossip:
    """One subscriber link to each node; `heard(node, text)` is called for each message.

    A link that was lost is redialled while `is_up(node)` says that the node is there.
    `may_listen(node, allowed)` is called for each new link.
    """

    def __init__(
        self,
        reactor: Reactor,
        nodes: Iterable[Address],
        options: Options,
        heard: Callable[[Address, str], None],
        is_up: Callable[[Address], bool],
        may_listen: Callable[[Address, bool], None],
    ) -> None:
        self._is_up = is_up
        self._may_listen = may_listen
        self._reactor = reactor
        self._options = options
        self._heard = heard
        self._factories = {node: self._factory(node) for node in nodes}

    def start(self) -> None:
        for factory in self._factories.values():
            factory.dial()

    def close(self) -> Deferred[Any]:
        """Drop the links for good; fires when they are gone."""
        return gatherResults([factory.close() for factory in self._factories.values()])

    def renew(self, node: Address) -> None:
        """Drop the link to a node that has gone silent; it is redialled."""
        factory = self._factories.get(node)
        if factory is not None and factory.link is not None:
            factory.link.abort()

    def redial_now(self, node: Address) -> None:
        """Do not wait out the delay: the node is back."""
        if node in self._factories:
            self._factories[node].redial_now()

    def _factory(self, node: Address) -> NodeFactory:
        def heard(text: str) -> None:
            self._heard(node, text)

        def build() -> GossipProtocol:
            return GossipProtocol(self._reactor, node, self._options, heard, ready)

        def ready(allowed: bool) -> None:
            factory.link_ready()
            self._may_listen(node, allowed)

        def gone(reason: Failure, was_ready: bool) -> None:
            pass

        factory = NodeFactory(
            self._reactor,
            node,
            build,
            gone,
            self._options,
            first_delay=self._options.reconnect_delay,
            max_delay=self._options.reconnect_max,
            timeout=self._options.connect_timeout,
            goes_by=lambda: self._is_up(node),
        )
        return factory
