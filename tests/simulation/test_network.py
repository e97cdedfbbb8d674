"""The simulated network: what arrives, when, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import ClientFactory, Protocol

from txharedis.interfaces import pack
from txharedis.testing.simulation import Process, Server, World


class Caller(Protocol):
    """Keeps what comes."""

    transport: Any

    def __init__(self) -> None:
        self.came = b""
        self.lost: type[Exception] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.came += data

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]
        self.lost = reason.type

    def send(self, *words: str) -> None:
        self.transport.write(pack(words))


class Factory(ClientFactory):
    noisy = False

    def __init__(self) -> None:
        self.caller: Caller | None = None
        self.failed: type[Exception] | None = None

    def buildProtocol(self, addr: object) -> Caller:
        self.caller = Caller()
        return self.caller

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failed = reason.type


@pytest.fixture
def world() -> World:
    return World(5)


@pytest.fixture
def server(world: World) -> Server:
    return world.server("10.0.0.1")


@pytest.fixture
def process(world: World) -> Process:
    return world.process()


def dial(process: Process, timeout: float = 2.0) -> Factory:
    factory = Factory()
    process.connectTCP("10.0.0.1", 6379, factory, timeout=timeout)
    return factory


def connect(process: Process) -> Caller:
    factory = dial(process)
    process.world.run_until(lambda: factory.caller)
    assert factory.caller is not None
    return factory.caller


def value(server: Server, key: bytes = b"n") -> object:
    return server.keys.dbs[0].get(key)


def test_a_dead_server_refuses(world: World, server: Server, process: Process) -> None:
    server.kill()
    factory = dial(process)
    world.run_until(lambda: factory.failed)
    assert factory.failed is ConnectionRefusedError
    assert world.now < 0.01
    assert not process.timers


def test_dialling_hangs_behind_a_partition(world: World, server: Server, process: Process) -> None:
    world.network.cut(server, process, both=False)
    lost, patient = dial(process, timeout=1.0), dial(process, timeout=60.0)
    world.run(2.0)
    assert lost.failed is not None
    assert patient.caller is None
    world.network.heal()
    world.run(0.01)
    assert patient.caller is not None
    assert lost.caller is None


def test_what_was_written_before_a_kill_is_executed(
    world: World, server: Server, process: Process
) -> None:
    world.network.torn = 0.0
    caller = connect(process)
    caller.send("INCR", "n")
    process.kill()
    assert value(server) is None
    world.run(0.01)
    assert value(server) == b"1"
    assert not server.connections
    assert caller.came == b""


def test_a_dropped_link_may_lose_the_last_bytes(
    world: World, server: Server, process: Process
) -> None:
    world.network.torn = 1.0
    executed = set()
    for number in range(40):
        caller = connect(process)
        for _ in range(3):
            caller.send("INCR", f"n{number}")
        caller.transport.abortConnection()
        world.run(0.01)
        executed.add(value(server, f"n{number}".encode()))
    assert executed == {None, b"1", b"2"} or executed == {None, b"1", b"2", b"3"}


def test_a_partition_holds_bytes_up(world: World, server: Server, process: Process) -> None:
    caller = connect(process)
    world.network.cut(process, server)
    caller.send("INCR", "n")
    world.run(5.0)
    assert value(server) is None
    world.network.heal(process, server)
    world.run(0.01)
    assert caller.came == b":1\r\n"


def test_a_partition_of_one_way(world: World, server: Server, process: Process) -> None:
    caller = connect(process)
    world.network.cut(server, process, both=False)
    caller.send("INCR", "n")
    world.run(1.0)
    assert value(server) == b"1"
    assert caller.came == b""
    world.network.heal()
    world.run(0.01)
    assert caller.came == b":1\r\n"


def test_a_lossy_partition_breaks_the_links_that_were_used(
    world: World, server: Server, process: Process
) -> None:
    used, unused = connect(process), connect(process)
    world.network.cut(process, server, lossy=True)
    used.send("INCR", "n")
    world.run(1.0)
    world.network.heal()
    world.run(0.01)
    assert value(server) is None
    assert used.lost is ConnectionLost
    assert unused.lost is None


@pytest.mark.parametrize(("chance", "executed"), [(1.0, b"1"), (0.0, None)])
def test_late_bytes(
    world: World, server: Server, process: Process, chance: float, executed: bytes | None
) -> None:
    """A partition held them up, and their client has gone meanwhile."""
    world.network.late_bytes = chance
    caller = connect(process)
    world.network.cut(process, server)
    caller.send("INCR", "n")
    world.run(1.0)
    caller.transport.abortConnection()
    world.run(1.0)
    assert len(server.connections) == 1  # it knows nothing
    world.network.heal()
    world.run(0.01)
    assert value(server) == executed
    assert not server.connections


def test_a_slow_way(world: World, server: Server, process: Process) -> None:
    caller = connect(process)
    world.network.slow(process, server, 0.5)
    began = world.now
    caller.send("INCR", "n")
    world.run_until(lambda: caller.came)
    assert 0.5 < world.now - began < 0.51
    world.network.quiet()
    caller.send("INCR", "n")
    assert world.run_until(lambda: b":2" in caller.came) < 0.01


def test_a_slow_server(world: World, server: Server, process: Process) -> None:
    callers = [connect(process) for _ in range(3)]
    server.work_time = 0.1
    for caller in callers:
        caller.send("INCR", "n")
    callers[0].transport.abortConnection()
    assert 0.3 < world.run_until(lambda: callers[1].came and callers[2].came) < 0.31
    assert value(server) in (b"2", b"3")


def test_a_paused_server_takes_what_comes(world: World, server: Server, process: Process) -> None:
    caller = connect(process)
    server.pause()
    caller.send("INCR", "n")
    late = connect(process)
    late.send("INCR", "n")
    caller.transport.loseConnection()
    world.run(3.0)
    assert value(server) is None
    server.resume()
    assert value(server) == b"2"
    world.run(0.01)
    assert late.came == b":2\r\n"


def test_a_killed_server_tells_its_clients(world: World, server: Server, process: Process) -> None:
    caller = connect(process)
    caller.send("INCR", "n")
    server.kill()
    world.run(0.01)
    assert caller.lost in (ConnectionDone, ConnectionLost)
    assert caller.came == b""
    server.restart()
    assert value(server) is None


def test_a_dropped_link_is_heard_of_on_both_sides(
    world: World, server: Server, process: Process
) -> None:
    caller = connect(process)
    world.network.break_links(server, process)
    world.run(0.01)
    assert caller.lost is ConnectionLost
    assert not server.connections
    assert not process.ends
    assert not server.ends


def test_clocks_drift(world: World) -> None:
    fast, slow = world.process(rate=1.1, offset=100.0), world.process(rate=0.9)
    rang: list[tuple[str, float]] = []
    fast.callLater(1.0, lambda: rang.append(("fast", world.now)))
    slow.callLater(1.0, lambda: rang.append(("slow", world.now)))
    world.run(2.0)
    assert [name for name, _ in rang] == ["fast", "slow"]
    assert [at for _, at in rang] == [pytest.approx(1 / 1.1), pytest.approx(1 / 0.9)]
    assert fast.seconds() == pytest.approx(102.2)


def test_a_timer_is_never_early(world: World) -> None:
    process = world.process(rate=0.97, offset=12345.678)
    for _ in range(2000):
        due = process.seconds() + 0.0137
        rang: list[float] = []
        process.callLater(0.0137, lambda rang=rang: rang.append(process.seconds()))
        world.run(0.02)
        assert rang[0] >= due


def test_a_paused_process_is_late(world: World, server: Server, process: Process) -> None:
    caller = connect(process)
    rang: list[float] = []
    process.callLater(1.0, lambda: rang.append(world.now))
    caller.send("INCR", "n")
    process.pause()
    world.run(3.0)
    assert not rang
    assert not caller.came
    process.resume()
    assert rang == [world.now]
    assert caller.came == b":1\r\n"


def test_nothing_happens_to_a_killed_process(
    world: World, server: Server, process: Process
) -> None:
    caller = connect(process)
    rang: list[int] = []
    process.callLater(1.0, rang.append, 1)
    process.pause()
    caller.send("PING")
    world.run(0.5)
    process.kill()
    world.run(3.0)
    assert not rang
    assert not process.timers
    assert caller.lost is None
    assert not server.connections


def test_who_is_killed_in_a_call_dials_nobody_in_it(
    world: World, server: Server, process: Process
) -> None:
    process.kill()
    factory = dial(process)
    world.run(1.0)
    assert factory.caller is None
    assert not server.connections


def test_a_timer_can_be_cancelled(world: World, process: Process) -> None:
    rang: list[int] = []
    timer = process.callLater(1.0, rang.append, 1)
    assert timer.active()
    timer.cancel()
    world.run(2.0)
    assert not rang
    assert not timer.active()


def test_an_unknown_script_fails_loudly(world: World, server: Server, process: Process) -> None:
    caller = connect(process)
    caller.send("EVAL", "return 1", "0")
    with pytest.raises(LookupError, match="no twin"):
        world.run(0.01)


def test_a_durable_server_can_lose_its_newest_writes(world: World, process: Process) -> None:
    server = world.server("10.0.0.1", durable=True)
    caller = connect(process)
    for _ in range(5):
        caller.send("INCR", "n")
        world.run(0.01)
    server.kill()
    server.restart(keep=True, lose=2)
    assert value(server) == b"3"
    server.kill()
    server.restart(keep=True)
    assert value(server) == b"3"
    server.kill()
    server.restart()
    assert value(server) is None
