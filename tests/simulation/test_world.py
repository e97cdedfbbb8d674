"""A simulated world holds a real client, and its histories replay."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from txharedis import HAClient, create_client
from txharedis.events import MasterChanged
from txharedis.testing.simulation import World
from txharedis.testing.simulation.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


def make_client(world: World, **options: object) -> HAClient:
    return create_client(list(world.servers), reactor=world.process(), **options)


def history(seed: int) -> World:
    """A failover under load, with everything that happened in it."""
    world = World(seed, tracing=True)
    with world:
        world.trio()
        clients = [make_client(world, delivery="at-least-once") for _ in range(2)]
        for client in clients:
            world.wait(client.when_ready())
        clients[0].subscribe("news", lambda message: world.note(f"heard {message}"))
        world.wait(clients[1].set("key", "value"))
        world.run(1.5)
        world.servers[str(clients[0].master)].kill()
        hung, other = world.processes.values()
        hung.pause()
        world.network.cut(world.servers["10.0.0.3:6379"], other, both=False, lossy=True)
        world.run(0.5)
        hung.resume()
        world.run(0.5)
        world.network.heal()
        for client in clients:
            world.wait(client.incr("count"))
        world.wait(clients[1].publish("news", "all is well"))
        world.run(1.0)
        for client in clients:
            world.wait(client.disconnect())
        world.run(0.1)
        check_that_nothing_is_left(world)
    return world


def check_that_nothing_is_left(world: World) -> None:
    for process in world.processes.values():
        assert not process.timers
        assert not process.ends
        assert not process.transports
    assert not any(server.connections for server in world.servers.values())


def test_a_group_is_formed_and_fails_over() -> None:
    events: list[object] = []
    with World(1) as world:
        servers = world.trio()
        client = make_client(world, on_event=events.append)
        assert world.wait(client.set("key", "value")) == "OK"
        first = world.servers[str(client.master)]
        world.run_until(lambda: all(server.keys.dbs[0] for server in servers))
        first.kill()
        began = world.now
        assert world.wait(client.get("key")) == "value"
        assert world.now - began < 0.1
        assert client.master != first.name
        assert [event.new for event in events if isinstance(event, MasterChanged)][1:]
        first.restart()
        world.run_until(lambda: first.keys.dbs[0] == {b"key": b"value"})
        assert first.following is not None
        world.wait(client.disconnect())


@pytest.mark.filterwarnings("error")
def test_clients_may_be_left_as_they_are() -> None:
    """Wherever they wait, the garbage collector does not stumble over them."""
    for seed in range(10):
        with World(seed) as world:
            world.trio()
            clients = [make_client(world) for _ in range(3)]
            for client in clients:
                world.wait(client.when_ready())
            world.servers[str(clients[0].master)].kill()
            world.run(0.001 * seed)
            next(iter(world.processes.values())).kill()
            world.run(0.002 * seed)
        del client, clients, world
        gc.collect()


def test_a_seed_replays_exactly() -> None:
    first, second, other = history(7), history(7), history(8)
    assert first.trace == second.trace
    assert first.events == second.events
    assert first.trace != other.trace


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_replays_exactly_in_another_process(hash_seed: str) -> None:
    text = "from tests.simulation.test_world import history; print(history(7).trace)"
    ran = subprocess.run(
        [sys.executable, "-c", text],
        cwd=ROOT,
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == str(history(7).trace)


def test_the_real_sources_of_chance_are_put_back() -> None:
    import random
    import secrets
    import time

    before = secrets.token_hex, time.time, random.getstate()
    history(1)
    assert (secrets.token_hex, time.time, random.getstate()) == before


@pytest.mark.parametrize("seeds", ["20", "5:5", "9:3", "a:b", ":7"])
def test_seeds_that_are_no_range_are_bad_usage(
    seeds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--seeds", seeds])
    assert ended.value.code == 2
    assert f"{seeds!r} is not FROM:TO" in capsys.readouterr().err
