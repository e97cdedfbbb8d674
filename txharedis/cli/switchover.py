"""`haredis switchover`: the master is moved, as planned."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

from twisted.python.failure import Failure

from txharedis.cli.looking import opened
from txharedis.cli.running import Program, complain, say
from txharedis.cli.settings import Settings, add_node_options, read_settings
from txharedis.errors import HARedisError, InvalidOption, NoMaster
from txharedis.events import Event, FailoverEnded, Waiting
from txharedis.failover import create_client
from txharedis.topology import Address

__all__ = ["add_to"]


def add_to(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Move the master to a replica that has caught up. Writes stand still for some milliseconds;"
        " none is lost. A password is read from the environment variable HAREDIS_PASSWORD, or from"
        " --password-file. The exit status is 0 when the master has moved, 1 when it has not, 2 for"
        " bad usage."
    )
    add_node_options(parser, waits_for="the group, and for the replica to catch up")
    parser.add_argument(
        "--to", metavar="NODE", help="the node to promote; by default the replica that holds most"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="change nothing: say which node would be taken, and why",
    )
    parser.add_argument("--verbose", action="store_true", help="say each step")
    parser.set_defaults(program=lambda given: _program(parser, given))


def _program(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Program:
    try:
        settings = read_settings(given)
        target = None if given.to is None else Address.parse(given.to)
        if target is not None and target not in settings.nodes:
            raise InvalidOption(f"to={target} is not one of the nodes")
    except InvalidOption as error:
        parser.error(str(error))

    async def program(reactor: Any) -> int:
        try:
            if given.dry_run:
                say(await _rehearse(reactor, settings, target))
            else:
                say(await _move(reactor, settings, target))
        except HARedisError as error:
            complain("switchover", str(error))
            return 1
        return 0

    return program


async def _move(reactor: Any, settings: Settings, target: Address | None) -> str:
    stood: list[float] = []
    why = ""

    def on_event(event: Event) -> None:
        nonlocal why
        if isinstance(event, FailoverEnded) and event.master is not None:
            stood.append(event.outage)
        elif isinstance(event, Waiting):
            why = f": {event.reason}"

    timeout = settings.timeout
    client = create_client(settings.nodes, reactor=reactor, on_event=on_event, **settings.acting)
    began = reactor.seconds()
    try:
        ready = client.when_ready()
        await ready.addTimeout(
            timeout, reactor, lambda *_: Failure(NoMaster(f"no master within {timeout} s{why}"))
        )
        old = client.master
        new = await client.switchover(target, max(0.1, timeout - (reactor.seconds() - began)))
        with suppress(HARedisError):
            await client.history()  # when it is answered, this one is in it
    finally:
        await client.disconnect()
    still = f"; writes stood still for {1000 * stood[-1]:.1f} ms" if stood else ""
    return f"switched over from {old} to {new}{still}"


async def _rehearse(reactor: Any, settings: Settings, target: Address | None) -> str:
    async with opened(reactor, settings) as group:
        await group.settle(settings.timeout)
        if group.service.master is None:
            raise NoMaster(f"there is no master: {await group.why_none()}")
        await group.service.look_at_rights()
        plan = await group.service.rehearse_switchover(target)
    return f"would switch over from {plan.old} to {plan.new}: {plan.why}"
