"""Runs txredisapi's tests, in a process of its own, with trial's runner, and writes what became.

python suite.py DIRECTORY RESULTS SOCKET HOST:PORT [HOST:PORT ...]

DIRECTORY has their package `tests`; RESULTS is the file to write; SOCKET is the unix socket of the
first server. One address is single mode.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import left_out
import stand_in
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial import runner, util
from twisted.trial.reporter import Reporter

TIMEOUT = 10.0
"""Seconds that one test may take, unless it says otherwise itself."""

LIMIT = 300.0
"""Seconds after which this process says where it hangs, and ends."""


class Recorder(Reporter):
    """Keeps, for each test, how it ended and why."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.results: dict[str, dict[str, Any]] = {}

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self._begun = time.monotonic()
        self._became(test, "running", "")

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._became(test, "passed", "")

    def addSkip(self, test: Any, reason: Any) -> None:
        super().addSkip(test, reason)
        self._became(test, "skipped", str(reason))

    def addFailure(self, test: Any, failure: Any) -> None:
        super().addFailure(test, failure)
        self._failed(test)

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self._failed(test)

    def _failed(self, test: Any) -> None:
        # There can be several, of the test and of what it left in the reactor.
        failures = [str_of(f) for t, f in [*self.failures, *self.errors] if t is test]
        self._became(test, "failed", "\n".join(failures))

    def _became(self, test: Any, outcome: str, reason: str) -> None:
        seconds = time.monotonic() - self._begun if test_id(test) in self.results else 0.0
        self.results[test_id(test)] = {"outcome": outcome, "reason": reason, "seconds": seconds}


def str_of(failure: Any) -> str:
    return failure.getTraceback() if hasattr(failure, "getTraceback") else str(failure)


def test_id(test: Any) -> str:
    return str(test.id()).removeprefix("tests.")


def flat(suite: Any) -> list[Any]:
    try:
        return [test for part in suite for test in flat(part)]
    except TypeError:
        return [suite]


def tear_down(original: Callable[[], Any]) -> Any:
    """What a test does at its end, and then close what it has left open."""

    async def both() -> None:
        try:
            await maybeDeferred(original)
        finally:
            await stand_in.close_all()
            gc.collect()  # a failure that nobody waits for is logged in the test that left it

    return Deferred.fromCoroutine(both())


def run_tests(tests: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Run them with trial's runner; returns what became of each."""
    recorders: list[Recorder] = []

    def recorder(*args: Any) -> Recorder:
        recorders.append(Recorder(*args))
        return recorders[-1]

    for test in tests:
        test.tearDown = functools.partial(tear_down, test.tearDown)
    with tempfile.TemporaryDirectory() as scratch:
        trial = runner.TrialRunner(recorder, workingDirectory=f"{scratch}/trial")
        trial.run(runner.TestSuite(tests))
    return recorders[0].results


def main(directory: str, results: str, socket: str, *nodes: str) -> int:
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    mode = "single" if len(nodes) == 1 else "group"
    stand_in.install(nodes if mode == "group" else ())
    sys.path.insert(0, directory)

    from tests import mixins

    host, port = nodes[0].split(":")
    mixins.REDIS_HOST, mixins.REDIS_PORT = host, int(port)
    from tests import test_unix_connection as over_socket

    over_socket.redis_sock = socket
    over_socket.TestUnixConnectionMethods.skip = None  # it had looked for a socket of its own
    util.DEFAULT_TIMEOUT_DURATION = TIMEOUT
    tests = flat(runner.TestLoader().loadPackage(sys.modules["tests"], recurse=True))
    listed = {test_id(test): left_out.find(test_id(test), mode) for test in tests}
    wanted = [test for test in tests if (entry := listed[test_id(test)]) is None or entry.runs]
    gc.freeze()  # what is there from the start need not be gone through after each test
    results_of = run_tests(wanted)
    not_run = {"outcome": "not run", "reason": "", "seconds": 0.0}
    outcomes = {test: results_of.get(test, not_run) for test in listed}
    Path(results).write_text(json.dumps(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
