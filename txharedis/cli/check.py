"""`haredis check`: what would keep a failover from happening, before one is needed."""

from __future__ import annotations

import argparse
import ipaddress
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from txharedis._version import __version__
from txharedis.cli import advice, findings
from txharedis.cli.findings import Finding, Level
from txharedis.cli.looking import Group, opened
from txharedis.cli.running import Program, say, say_json
from txharedis.cli.settings import Settings, add_node_options, read_settings
from txharedis.errors import HARedisError, InvalidOption
from txharedis.inspection import NodeReport
from txharedis.log import printable
from txharedis.monitor.cluster import NO_MASTER
from txharedis.rights import denied
from txharedis.topology import SENTINEL_CHANNEL, Address, Status

__all__ = ["add_to", "drawn", "exit_status"]


def add_to(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Look for what would keep a failover from happening: rights, settings, versions, the"
        " quorum, and who would win if the master died now. Run it with the user of the clients."
        " Nothing is changed on the servers. The exit status is 0 when there is no problem, 1 when"
        " there is one, 2 when there is no master, or for bad usage."
    )
    add_node_options(parser, waits_for="the nodes to answer")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(program=lambda given: _program(parser, given))


def _program(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Program:
    try:
        settings = read_settings(given)
    except InvalidOption as error:
        parser.error(str(error))

    async def program(reactor: Any) -> int:
        async with opened(reactor, settings) as group:
            await group.settle(settings.timeout)
            since = time.time() - reactor.seconds()
            state, found = await _look(group, settings, since)
        status = exit_status(state["state"], found)
        if given.json:
            say_json(_plain(state, found, status))
        else:
            say(*drawn(found))
        return status

    return program


def exit_status(state: str, found: Sequence[Finding]) -> int:
    """2 without a master, 1 with a problem, else 0."""
    if state == NO_MASTER:
        return 2
    return int(any(finding.level is Level.PROBLEM for finding in found))


def drawn(found: Sequence[Finding]) -> list[str]:
    """One line for each finding."""
    return [
        printable(
            f"{finding.level.value:<8} {finding.topic:<10} "
            + (f"{', '.join(finding.nodes)}: " if finding.nodes else "")
            + finding.text
        )
        for finding in found
    ]


def _plain(state: Mapping[str, Any], found: Sequence[Finding], status: int) -> dict[str, Any]:
    return {
        "version": __version__,
        "at": state["at"],
        "state": state["state"],
        "master": state["master"],
        "status": status,
        "findings": [
            {
                "level": finding.level.value,
                "topic": finding.topic,
                "nodes": list(finding.nodes),
                "text": finding.text,
            }
            for finding in found
        ],
    }


async def _look(
    group: Group, settings: Settings, since: float
) -> tuple[dict[str, Any], list[Finding]]:
    """The state of the group, and what is found; `since` is when the reactor's clock began."""
    service = group.service
    reports = await service.inspect()
    state = await group.state(reports)
    count = len(settings.nodes)
    up = len({report.info.get("run_id") or address for address, report in reports.items()})
    found = list(findings.nodes_up(state))
    found += findings.quorum(count, up, _twins(reports))
    found += await _settings(group, settings, reports)
    found += findings.versions({node["node"]: node["version"] for node in state["nodes"]})
    found += findings.clocks(_clocks(reports, since))
    if count > 1:
        rehearsal = await service.rehearse()
        found.append(findings.election(rehearsal.master, rehearsal.decision))
        found += await _rights(group, settings)
        if rehearsal.master is not None:
            found += await _switchover(group)
    return state, findings.together(found, count)


async def _rights(group: Group, settings: Settings) -> Iterator[Finding]:
    silent = await group.service.look_at_rights()
    missing = {
        str(node.address): node.missing_rights
        for node in group.service.topology.nodes
        if node.status is Status.UP or node.missing_rights
    }
    user = settings.options.get("username") or "default"
    return findings.rights(user, missing, set(map(str, silent)))


async def _settings(
    group: Group, settings: Settings, reports: Mapping[Address, NodeReport]
) -> list[Finding]:
    asked = [["CONFIG", "GET", name] for name in advice.QUESTIONS]
    sentinels = ["PUBSUB", "NUMSUB", SENTINEL_CHANNEL]
    answers = await group.service.ask_nodes(*asked, sentinels)
    remote = not all(map(_is_loopback, settings.nodes))
    found: list[Finding] = []
    for address, (*replies, watching) in answers.items():
        node = str(address)
        if isinstance(watching, list) and watching[1:] and watching[1]:
            text = "it is watched by Sentinel: two systems must not move one master"
            found.append(Finding(Level.PROBLEM, "settings", text, (node,)))
        if denied(replies[0]):
            text = f"they could not be read: {replies[0]}"
            found.append(Finding(Level.WARNING, "settings", text, (node,)))
            continue
        report = reports.get(address)
        found += advice.settings(
            node,
            _config(replies),
            {} if report is None else report.info,
            nodes=len(settings.nodes),
            down_after=group.service.options.down_after,
            remote=remote,
        )
    return found


def _config(replies: Sequence[object]) -> dict[str, str]:
    """Each reply is a name and its value, or nothing where the server does not know it."""
    pairs = [reply for reply in replies if isinstance(reply, list) and len(reply) == 2]
    return {name.decode(): value.decode("utf-8", "replace") for name, value in pairs}


def _is_loopback(address: Address) -> bool:
    if address.path or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def _twins(reports: Mapping[Address, NodeReport]) -> list[tuple[str, str]]:
    first: dict[str, Address] = {}
    twins = []
    for address, report in reports.items():
        run_id = report.info.get("run_id")
        if run_id and first.setdefault(run_id, address) != address:
            twins.append((str(first[run_id]), str(address)))
    return twins


def _clocks(reports: Mapping[Address, NodeReport], since: float) -> dict[str, float]:
    """By how many seconds each node's clock is ahead of ours."""
    ahead = {}
    for address, report in reports.items():
        told = report.info.get("server_time_usec", "")
        if told.isdigit():
            ahead[str(address)] = int(told) / 1e6 - (report.at - report.took / 2 + since)
    return ahead


# Bad forms, so that they do nothing if the transaction was not begun.
_MOVES = (["FAILOVER", "TIMEOUT", "no number"], ["CLIENT", "PAUSE", "no number", "WRITE"])


async def _switchover(group: Group) -> list[Finding]:
    """Whom it would take, and whether our user may do it; the rights to elect are known."""
    service = group.service
    try:
        plan = await service.rehearse_switchover()
    except HARedisError as error:
        return [Finding(Level.WARNING, "switchover", str(error))]
    if any(
        set(node.missing_rights) & {"MULTI", "EXEC", "DISCARD"} for node in service.topology.nodes
    ):
        return []  # it is a finding already, and a transaction could not be left again
    answers = await service.ask_nodes(["MULTI"], *_MOVES, ["DISCARD"])
    found = [
        Finding(
            Level.WARNING,
            "switchover",
            "our user may neither FAILOVER nor CLIENT PAUSE (docs/operations.md, Rights)",
            (str(address),),
        )
        for address, (_, failover, pause, _) in answers.items()
        if isinstance(failover, Exception) and denied(pause)
    ]
    text = f"possible from {plan.old} to {plan.new}: {plan.why}"
    return found or [Finding(Level.OK, "switchover", text)]
