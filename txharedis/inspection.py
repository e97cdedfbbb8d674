"""A closer look at the nodes than a survey takes: what each says of itself in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from txharedis.errors import LinkLost
from txharedis.interfaces import Args, Clock
from txharedis.node import Node
from txharedis.topology import OPCOUNTER_KEY, Address, Status, parse_info
from txharedis.values import Value

__all__ = ["NodeReport", "ask", "inspect"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NodeReport(Value):
    """What one node said.

    `info` are the fields of its INFO as text, empty where our user may not ask. `opcounter` counts
    the writes of the group's clients that it has, None where it is not ours to read. It took the
    node `took` seconds to answer, until `at` on the client's clock.
    """

    address: Address
    info: Mapping[str, str]
    opcounter: int | None
    took: float
    at: float


def inspect(
    nodes: Iterable[Node], clock: Clock, timeout: float
) -> Deferred[dict[Address, NodeReport]]:
    """Ask all nodes that are up; those that do not answer within `timeout` seconds are left out."""

    async def ask() -> dict[Address, NodeReport]:
        asked = [node for node in nodes if node.status is Status.UP]
        reports = await gatherResults(
            [Deferred.fromCoroutine(_report(node, clock, timeout)) for node in asked],
            consumeErrors=True,
        )
        return {report.address: report for report in reports if report is not None}

    return Deferred.fromCoroutine(ask())


def ask(
    nodes: Iterable[Node], commands: Sequence[Args], timeout: float
) -> Deferred[dict[Address, list[Any]]]:
    """Ask all nodes that are up the same; their replies, errors among them as values.

    Those that do not answer within `timeout` seconds are left out.
    """

    async def one(node: Node) -> list[Any] | None:
        if node.control is None:
            return None
        try:
            return await node.control.exchange(*commands, timeout=timeout)
        except LinkLost:
            return None

    async def ask_all() -> dict[Address, list[Any]]:
        asked = [node for node in nodes if node.status is Status.UP]
        answers = await gatherResults(
            [Deferred.fromCoroutine(one(node)) for node in asked], consumeErrors=True
        )
        return {
            node.address: answer
            for node, answer in zip(asked, answers, strict=True)
            if answer is not None
        }

    return Deferred.fromCoroutine(ask_all())


async def _report(node: Node, clock: Clock, timeout: float) -> NodeReport | None:
    link = node.control
    if link is None:
        return None
    began = clock.seconds()
    try:
        replies: list[Any] = await link.exchange(["INFO"], ["GET", OPCOUNTER_KEY], timeout=timeout)
    except LinkLost:
        return None
    info, counter = replies
    now = clock.seconds()
    return NodeReport(
        address=node.address,
        info=parse_info(info) if isinstance(info, bytes) else {},
        opcounter=_count(counter),
        took=now - began,
        at=now,
    )


def _count(reply: object) -> int | None:
    if reply is None:
        return 0
    return int(reply) if isinstance(reply, bytes) and reply.isdigit() else None
