"""`haredis failover`: a master that is gone is replaced."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

from twisted.internet.task import deferLater

from txharedis.chronicle import FailoverRecord
from txharedis.cli.looking import Group, opened
from txharedis.cli.running import Program, complain, say
from txharedis.cli.settings import Settings, add_node_options, read_settings
from txharedis.election import Decision, Elect, Follow, Refuse, Wait
from txharedis.errors import HARedisError, InvalidOption
from txharedis.events import Event, FailoverEnded, FailoverStarted, LockNotGranted, MasterChanged
from txharedis.rights import HEARING
from txharedis.topology import Status, Topology

__all__ = ["Election", "add_to", "outlook"]


def add_to(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Replace a master that is gone: take part in the election as any client does, and wait for"
        " its end. A master that lives is left alone (haredis switchover moves it). The exit status"
        " is 0 when a master was elected, 1 when there is none, or one that lives, 2 for bad usage;"
        " with --dry-run it is 0 when there is a node to elect."
    )
    add_node_options(parser, waits_for="a new master")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="change nothing: say what would be done now, and which node would win",
    )
    parser.add_argument("--verbose", action="store_true", help="say each step")
    parser.set_defaults(program=lambda given: _program(parser, given))


def _program(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Program:
    try:
        settings = read_settings(given)
    except InvalidOption as error:
        parser.error(str(error))

    async def program(reactor: Any) -> int:
        began = reactor.seconds()
        if len(settings.nodes) == 1:
            complain("failover", "one node alone: nothing can take its place")
            return 1
        async with opened(reactor, settings) as group:
            await group.settle(settings.timeout)
            master = group.service.topology.master
            if given.dry_run:
                await group.service.look_at_rights()
                rehearsal = await group.service.rehearse()
                lines = outlook(rehearsal.master, rehearsal.decision)
                say(*lines, *_lacking(group.service.topology))
                decision = rehearsal.decision
                return 0 if isinstance(decision, Elect) and decision.candidates else 1
        if master is not None:
            complain("failover", f"{master} is the master and lives: haredis switchover moves it")
            return 1
        return await _take_part(reactor, settings, began + settings.timeout)

    return program


def outlook(master: object, decision: Decision) -> list[str]:
    """What a failover would do, in lines: `decision` is that of a Rehearsal, as is `master`."""
    lines = []
    if master is not None:
        lines.append(f"{master} is the master and lives: now nothing would be done")
    when = "now" if master is None else "if it died now"
    match decision:
        case Elect(candidates=(first, *others), reason=reason, why=why):
            lines.append(f"{when} {first.address} would be elected: {why} ({reason})")
            lines += [f"after it comes {view.address}" for view in others[:1]]
            lines += [f"then {view.address}" for view in others[1:]]
        case Elect(reason=reason):
            lines.append(f"{when} it cannot be told who would be elected: {reason}")
        case Wait(reason=reason) | Refuse(reason=reason):
            lines.append(f"{when} no node would be elected: {reason}")
        case Follow(master=follows):
            lines.append(f"{when} {follows} would be followed")
    return lines


def _lacking(topology: Topology) -> list[str]:
    """On which nodes this user could not help."""
    return [
        f"our user may not {', '.join(missing)} on {node.address}"
        for node in topology.nodes
        if (missing := [right for right in node.missing_rights if right not in HEARING])
    ]


class Election:
    """What became of the election that this client takes part in."""

    def __init__(self) -> None:
        self.won: FailoverEnded | None = None
        self.followed: MasterChanged | None = None
        self.under_way = False
        self.excuse = ""  # why its newest attempt came to nothing

    def note(self, event: Event) -> None:
        match event:
            case FailoverStarted():
                self.under_way = True
            case FailoverEnded():
                self.under_way = False
                if event.master is not None:
                    self.won = event
            case MasterChanged():
                self.followed = event
            case LockNotGranted():
                self.excuse = event.reason

    @property
    def over(self) -> bool:
        """Whether there is a master, and this client has nothing left to do for it."""
        return self.followed is not None and not self.under_way


async def _take_part(reactor: Any, settings: Settings, end: float) -> int:
    election = Election()
    async with opened(reactor, settings, elect=True) as group:
        group.service.listen(election.note)
        while not election.over and (reactor.seconds() < end or election.under_way):
            await deferLater(reactor, 0.02)
        if election.followed is None:
            why = await group.why_none()
            if election.excuse:
                why += f" ({election.excuse})"
            lacking = _lacking(group.service.topology)
            complain(
                "failover", "; ".join([f"no master within {settings.timeout} s: {why}", *lacking])
            )
            return 1
        say(await _result(group, election))
        # Servers that come to their data one after the other need a client as long as that takes.
        while (left := _apart(group.service.topology)) and reactor.seconds() < end:
            await deferLater(reactor, 0.02)
        for node in left:
            complain(
                "failover", f"{node} does not follow it yet: any client that may elect sees to that"
            )
    return 0


def _apart(topology: Topology) -> list[str]:
    """The nodes that are up and not yet replicas of the master, with their links up."""
    return [
        str(node.address)
        for node in topology.nodes
        if node.status is Status.UP
        and node.address != topology.master
        and not (node.link_up and node.follows == str(topology.master))
    ]


async def _result(group: Group, election: Election) -> str:
    """Who was elected and why; the history is asked last, so that what is to be in it is there."""
    assert election.followed is not None
    records: tuple[FailoverRecord, ...] = ()
    with suppress(HARedisError):  # the master is gone again
        records = await group.service.history()
    if election.won is not None:
        won = election.won
        return f"{won.master} was elected, epoch {won.epoch}: {won.why} ({won.reason})"
    followed = election.followed
    text = f"{followed.new} is the master, epoch {followed.epoch}: another client was first"
    for record in records:
        if record.epoch == followed.epoch:
            return f"{text}: {record.why} ({record.reason})"
    return text
