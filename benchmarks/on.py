"""Run the benchmarks on another reactor.

    python -m benchmarks.on uvloop throughput --only small

The names are epoll, asyncio and uvloop (a package of its own). It comes before all imports: whoever
imports txredisapi has a reactor.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
from importlib import import_module

__all__ = ["NAMES", "install"]

NAMES = ("epoll", "asyncio", "uvloop")
REAPING = 0.05
"""Seconds: uvloop takes SIGCHLD for itself, so Twisted is not told that a server has ended."""


def install(name: str) -> None:
    """Make this Twisted's reactor; raises ImportError where a package is missing."""
    if name == "epoll":
        import_module("twisted.internet.epollreactor").install()
        return
    loops = asyncio if name == "asyncio" else import_module("uvloop")
    import_module("twisted.internet.asyncioreactor").install(loops.new_event_loop())
    if name == "uvloop":
        reap = import_module("twisted.internet.process").reapAllProcesses
        reaping = import_module("twisted.internet.task").LoopingCall(reap)
        import_module("twisted.internet.reactor").callWhenRunning(reaping.start, REAPING)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in NAMES:
        install(sys.argv.pop(1))
        runpy.run_module("benchmarks", run_name="__main__")
    else:
        raise SystemExit(f"usage: python -m benchmarks.on {{{','.join(NAMES)}}} COMMAND ...")
