"""What each hop of a command costs: the same code without a network, the best of many turns."""

from __future__ import annotations

import gc
import time
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred

from benchmarks.report import table
from benchmarks.stage import Stage, count
from txharedis import HAClient, create_client
from txharedis.interfaces import Waiter, pack
from txharedis.testing.simulation import World

__all__ = ["add_arguments", "run"]

IN_FLIGHT = 100
KEYS = [b"key:%d" % number for number in range(IN_FLIGHT)]
VALUE = b"v" * 32
ARGS = [("SET", key, VALUE) for key in KEYS]
PACKED = [(args, pack(args)) for args in ARGS]
TERMS: dict[str, dict[str, Any]] = {
    "at-most-once": {"delivery": "at-most-once"},
    "exactly-once": {"delivery": "exactly-once"},
    "exactly-once, acks=1": {"delivery": "exactly-once", "acks": 1},
}


class Link:
    """A link that keeps what is written, and whose replies come when they are wanted."""

    db = 0

    def __init__(self) -> None:
        self.waiting: deque[Waiter] = deque()

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool:
        self.waiting.extend(waiters)
        b"".join(packed)
        return True

    def after_read(self, call: Callable[[], object]) -> bool:
        return True  # it is written when we say so

    def answer(self) -> None:
        while self.waiting:
            waiter = self.waiting.popleft()
            commands = getattr(waiter, "commands", None)  # of a batch
            waiter.settle("OK" if commands is None else [1, *["OK"] * len(commands)])
            if commands is not None and self.waiting and self.waiting[0] is waiter:
                self.waiting.popleft().settle(1)  # its WAIT


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--turns", type=count, default=2000, help="of each (%(default)s)")


async def run(stage: Stage, settings: Namespace) -> dict[str, dict[str, float]]:
    """Measure, print, and return nanoseconds for each SET, by hop and terms."""
    kept = {name: _of(terms, settings.turns) for name, terms in TERMS.items()}
    hops = next(iter(kept.values()))
    rows = [[hop, *(f"{its[hop]:.0f}" for its in kept.values())] for hop in hops]
    print(f"\n{table([f'ns for each SET, {IN_FLIGHT} in a turn', *kept], rows)}", flush=True)
    return kept


def _of(terms: dict[str, Any], turns: int) -> dict[str, float]:
    with _flowing(terms) as (client, flush, link):
        # Each of these begins one hop further down.
        pending = client._group._dispatch._pending  # type: ignore[attr-defined]
        submits: dict[str, Callable[[], object]] = {
            "client.set": lambda: [client.set(key, VALUE) for key in KEYS],
            "execute_command": lambda: [client.execute_command(*args) for args in ARGS],
            "Dispatch.submitter": lambda: [client._send(args, packed) for args, packed in PACKED],
            "PendingCommands.add": lambda: [
                pending.add(args, packed, False, None, client._terms, 1) for args, packed in PACKED
            ],
        }

        def finish() -> None:
            flush()
            link.answer()

        best = {name: _best(turns, submit, finish) for name, submit in submits.items()}
        best["written"] = _best(turns, flush, link.answer, before=submits["client.set"])

        def submitted() -> object:
            replies = submits["client.set"]()
            flush()
            return replies

        best["settled"] = _best(turns, link.answer, before=submitted)
    best["(pack_command)"] = _best(turns, lambda: [pack(args) for args in ARGS])
    best["(a Deferred)"] = _best(turns, lambda: [Deferred() for _ in ARGS])
    return best


@contextmanager
def _flowing(terms: dict[str, Any]) -> Iterator[tuple[HAClient, Callable[[], None], Link]]:
    """A client whose commands go to such a link, and what writes those of a turn."""
    with World(1) as world:
        world.trio()
        client = create_client(
            list(world.servers), reactor=world.process(), charset=None, convert_numbers=False
        ).with_options(**terms)
        world.wait(client.when_ready())
        world.run(2.0)
        pending, link = client._group._dispatch._pending, Link()  # type: ignore[attr-defined]
        pending.open(link)
        gc.disable()
        try:
            yield client, pending._flush_turn, link
        finally:
            gc.enable()
            pending.close()


def _best(
    turns: int,
    measured: Callable[[], object],
    after: Callable[[], object] = lambda: None,
    before: Callable[[], object] = lambda: None,
) -> float:
    best = float("inf")
    for _ in range(turns):
        kept = [before()]  # the callers keep their Deferreds meanwhile
        began = time.perf_counter_ns()
        kept.append(measured())
        best = min(best, time.perf_counter_ns() - began)
        after()
    return best / IN_FLIGHT
