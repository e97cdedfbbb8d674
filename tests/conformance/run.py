"""Runs txredisapi's own tests against HAClient, on each server found, single and on a group.

Prints what passed, what failed and what was left out, and why; writes it as JUnit XML too. The exit
status is 1 when anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fetch import NotFetched, fetch_tests
from hiredis import ReplyError
from left_out import LEFT_OUT
from report import Outcome, judge, summary, write_junit
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ConnectionClosed
from twisted.internet.task import deferLater, react
from twisted.internet.utils import getProcessOutputAndValue

from txharedis import create_client
from txharedis.testing.servers import LocalServer, ServerProgram, find_programs, start_group

MODES = {"single": 1, "group": 3}
"""How many servers each mode has."""

# A script that runs for longer than the limit, in ms, makes the server answer BUSY. Until then it
# answers nothing at all, and one that answers nothing for `down_after` is down.
SERVER_OPTIONS = ("--lua-time-limit", "100", "--unixsocket", "socket")

FORMED_WITHIN = 20.0
"""Seconds that three servers may take to become a group."""

HERE = Path(__file__).parent


async def run(reactor: Any, options: argparse.Namespace) -> int:
    suite = fetch_tests(options.cache)
    programs = [program for program in find_programs() if options.server in (None, program.name)]
    if not programs:
        raise SystemExit("no server program found")
    everything: list[Outcome] = []
    modes = options.mode or list(MODES)
    for program in programs:
        # Side by side: much of the time the tests wait.
        runs = [Deferred.fromCoroutine(run_once(reactor, suite, program, mode)) for mode in modes]
        for mode, (succeeded, result) in zip(modes, await DeferredList(runs), strict=True):
            if not succeeded:
                result.raiseException()
            print(summary(f"{program}, {mode}", result), flush=True)
            everything += result
    if options.junitxml:
        write_junit(options.junitxml, everything)
    print(summary("all", everything, reasons=False))
    return int(any(outcome.kind == "failed" for outcome in everything))


async def run_once(reactor: Any, suite: Path, program: ServerProgram, mode: str) -> list[Outcome]:
    """Start servers, run the tests on them in a process of their own, and judge the results."""
    with tempfile.TemporaryDirectory() as directory:
        servers = await start_group(
            reactor, program, directory, MODES[mode], options=SERVER_OPTIONS
        )
        try:
            if mode == "group":
                await form(reactor, servers)
            results = Path(directory, "results.json")
            socket = servers[0].directory / "socket"
            nodes = [server.address for server in servers]
            words = [str(suite), str(results), str(socket), *nodes]
            output, errors, code = await getProcessOutputAndValue(
                sys.executable, [str(HERE / "suite.py"), *words], env=os.environ
            )
            if code or not results.exists():
                sys.stdout.write((output + errors).decode())
                raise SystemExit(f"the tests on {program}, {mode}, ended with status {code}")
            found = json.loads(results.read_text())
        finally:
            for server in servers:
                await server.stop()
    return judge(str(program), mode, found, LEFT_OUT)


async def form(reactor: Any, servers: Sequence[LocalServer]) -> None:
    """Make them one group, and wait until the replicas replicate."""
    founder = create_client([server.address for server in servers], reactor=reactor)
    try:
        await founder.when_ready()
        deadline = reactor.seconds() + FORMED_WITHIN
        while not all([await settled(server, founder.master) for server in servers]):
            if reactor.seconds() > deadline:
                raise SystemExit(f"no group was formed within {FORMED_WITHIN} s")
            await deferLater(reactor, 0.02)
    finally:
        await founder.disconnect()


async def settled(server: LocalServer, master: str | None) -> bool:
    """Whether it is the master, or its link to it is up."""
    try:
        info = await server.info("replication")
    except (ConnectionClosed, ReplyError):
        return False  # whoever becomes a replica closes its connections
    return server.address == master or info.get("master_link_status") == "up"


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", metavar="NAME", help="redis or valkey; all that are found")
    parser.add_argument("--mode", action="append", choices=MODES, help="both by default")
    parser.add_argument("--junitxml", type=Path, metavar="FILE", help="write the outcomes here")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=Path(sys.prefix),
        help="where txredisapi's tests are kept (this Python's environment)",
    )
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    options = parse(words)

    def start(reactor: Any) -> Deferred[None]:
        async def whole() -> None:
            try:
                status = await run(reactor, options)
            except NotFetched as error:
                raise SystemExit(str(error)) from None
            if status:
                raise SystemExit(status)

        return Deferred.fromCoroutine(whole())

    react(start)


if __name__ == "__main__":
    main(sys.argv[1:])
