"""How many commands a second, and how long one alone takes: ours beside two others.

The three take turns on the same server: A B C A B C ..., each for some seconds, and the median of
the rounds counts. So what else the machine does in the meantime hits them alike.
"""

from __future__ import annotations

import cProfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred

from benchmarks.contestants import Bare, Contestant, TxHARedis, TxRedisApi
from benchmarks.group import in_sync, running_group
from benchmarks.report import quantile, table
from txharedis import create_client
from txharedis.testing.servers import ServerProgram
from txharedis.testing.waiting import until

__all__ = ["Settings", "run"]

VALUE = b"v" * 32


@dataclass(frozen=True)
class Settings:
    """`rounds` of `seconds` each, with `in_flight` commands at a time.

    `profile` is a file for cProfile's figures of SET by txharedis, instead of everything else.
    """

    rounds: int = 5
    seconds: float = 2.0
    in_flight: int = 100
    profile: str | None = None


@dataclass(frozen=True)
class Round:
    """rate in commands a second; cpu in seconds of this process for each; latencies in seconds."""

    rate: float
    cpu: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Case:
    """Which command, and how many of it at a time."""

    command: str
    in_flight: int

    def __str__(self) -> str:
        return f"{self.command}, {self.in_flight} in flight"


async def run(reactor: Any, program: ServerProgram, settings: Settings) -> dict[str, Any]:
    """Measure, print the tables, and return all rounds of all cases."""
    async with running_group(reactor, program) as servers:
        client = create_client(
            [server.address for server in servers],
            reactor=reactor,
            charset=None,
            convert_numbers=False,
        )
        contestants: list[Contestant] = [
            TxHARedis("at-most-once", client.with_options(delivery="at-most-once")),
            TxHARedis("exactly-once", client.with_options(delivery="exactly-once")),
            TxHARedis("exactly-once, acks=1", client.with_options(acks=1)),
        ]
        try:
            await client.when_ready().addTimeout(20, reactor)
            master = next(server for server in servers if server.address == client.master)
            await until(reactor, lambda: in_sync(servers, master), 20, "three nodes in sync")
            contestants.append(await TxRedisApi.connect(master.port))
            contestants.append(await Bare.connect(reactor, master.port))
            if settings.profile is not None:
                await _profile(reactor, contestants[0], settings)
                return {}
            results = {}
            for case in (
                Case("set", settings.in_flight),
                Case("get", settings.in_flight),
                Case("set", 1),
                Case("get", 1),
            ):
                rounds = await _compare(reactor, contestants, case, settings)
                _show(case, rounds)
                results[str(case)] = {
                    name: [asdict(each) for each in done] for name, done in rounds.items()
                }
            return results
        finally:
            for contestant in contestants:
                await contestant.close()


async def _compare(
    reactor: Any, contestants: Sequence[Contestant], case: Case, settings: Settings
) -> dict[str, list[Round]]:
    rounds: dict[str, list[Round]] = {contestant.name: [] for contestant in contestants}
    for contestant in contestants:
        await _measure(reactor, contestant, case, 0.3)  # to warm up
    for _ in range(settings.rounds):
        for contestant in contestants:
            done = await _measure(reactor, contestant, case, settings.seconds)
            rounds[contestant.name].append(done)
    return rounds


async def _measure(reactor: Any, contestant: Contestant, case: Case, seconds: float) -> Round:
    keys = [b"benchmark:%d" % number for number in range(case.in_flight)]
    for key in keys:
        await contestant.set(key, VALUE)
    submit = _submitter(contestant, case.command)
    load = _Load(submit, keys, timed=case.in_flight == 1)
    reactor.callLater(seconds, load.stop)
    began, cpu_began = time.perf_counter(), time.process_time()
    await load.run().addTimeout(seconds + 20, reactor)
    cpu, elapsed = time.process_time() - cpu_began, time.perf_counter() - began
    latencies = load.latencies or [elapsed * case.in_flight / load.count]
    return Round(
        rate=load.count / elapsed,
        cpu=cpu / load.count,
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
    )


def _submitter(contestant: Contestant, command: str) -> Callable[[bytes], Deferred[Any]]:
    if command == "get":
        return contestant.get
    set_key = contestant.set
    return lambda key: set_key(key, VALUE)


class _Load:
    """One chain for each key: it submits its next command when the former is answered.

    With `timed`, `latencies` holds the seconds that each took; that is for one chain.
    """

    def __init__(
        self, submit: Callable[[bytes], Deferred[Any]], keys: Sequence[bytes], *, timed: bool
    ) -> None:
        self.count = 0
        self.latencies: list[float] = []
        self._submit = submit
        self._keys = keys
        self._timed = timed
        self._stopping = False
        self._running = len(keys)
        self._done: Deferred[None] = Deferred()

    def run(self) -> Deferred[None]:
        """Fires when the last chain has ended, after `stop`; fails with a command's error."""
        for key in self._keys:
            self._next(key)
        return self._done

    def stop(self) -> None:
        self._stopping = True

    def _next(self, key: bytes) -> None:
        answered = self._answered_timed if self._timed else self._answered
        self._sent = time.perf_counter()
        self._submit(key).addCallbacks(answered, self._failed, callbackArgs=(key,))

    def _answered_timed(self, reply: object, key: bytes) -> None:
        self.latencies.append(time.perf_counter() - self._sent)
        self._answered(reply, key)

    def _answered(self, reply: object, key: bytes) -> None:
        self.count += 1
        if not self._stopping:
            self._next(key)
            return
        self._running -= 1
        if not self._running:
            self._done.callback(None)

    def _failed(self, failure: Any) -> None:
        if not self._done.called:
            self._done.errback(failure)


def _show(case: Case, rounds: dict[str, list[Round]]) -> None:
    def middle(name: str, what: str) -> float:
        return float(median(getattr(each, what) for each in rounds[name]))

    base = TxRedisApi.name
    header = [str(case), "per second", "ratio", "CPU us each", "CPU ratio"]
    if case.in_flight == 1:
        header += ["p50 us", "p99 us"]
    rows = []
    for name in rounds:
        row = [
            name,
            f"{middle(name, 'rate'):.0f}",
            f"{middle(name, 'rate') / middle(base, 'rate'):.2f}",
            f"{middle(name, 'cpu') * 1e6:.1f}",
            f"{middle(base, 'cpu') / middle(name, 'cpu'):.2f}",
        ]
        if case.in_flight == 1:
            row += [f"{middle(name, what) * 1e6:.0f}" for what in ("p50", "p99")]
        rows.append(row)
    print(f"\n{table(header, rows)}", flush=True)


async def _profile(reactor: Any, contestant: Contestant, settings: Settings) -> None:
    case = Case("set", settings.in_flight)
    await _measure(reactor, contestant, case, 0.3)
    profiler = cProfile.Profile()
    with profiler:
        await _measure(reactor, contestant, case, settings.seconds)
    assert settings.profile is not None
    profiler.dump_stats(settings.profile)
    print(f"python -m pstats {settings.profile}")
