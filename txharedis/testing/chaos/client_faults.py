"""Client processes that are killed or stopped, also in the middle of a failover."""

from __future__ import annotations

import signal

from txharedis.testing.chaos.clients import ClientProcess
from txharedis.testing.chaos.scene import Scene
from txharedis.testing.chaos.server_faults import come_back
from txharedis.testing.waiting import until

__all__ = [
    "kill_client",
    "kill_master_and_client",
    "kill_master_pause_client",
    "leader_killed",
    "leader_killed_master_back",
    "leader_paused",
    "pause_client",
]

STEPS = ("start", "lock", "look", "promote", "serve", "redirect", "gossip", "release")


async def kill_client(scene: Scene) -> None:
    client = scene.client()
    scene.strike("kill -9 a client", client.name, [client])
    client.kill()
    await client.exited()


async def pause_client(scene: Scene) -> None:
    client = scene.client()
    scene.strike("SIGSTOP a client", client.name, [client])
    client.pause()
    try:
        await scene.outlast()
    finally:
        client.resume()


async def kill_master_and_client(scene: Scene) -> None:
    master, client = scene.master(), scene.client()
    scene.strike("kill -9 the master, then a client", scene.name(master), [client])
    master.kill()
    await scene.rest(0.0, 0.03)
    client.kill()
    await client.exited()
    await come_back(scene, master, replaced=True)


async def kill_master_pause_client(scene: Scene) -> None:
    master, client = scene.master(), scene.client()
    scene.strike("kill -9 the master, SIGSTOP a client", scene.name(master), [client])
    master.kill()
    await scene.rest(0.0, 0.03)
    client.pause()
    try:
        await come_back(scene, master, replaced=True)
        await scene.outlast()
    finally:
        client.resume()


async def leader_killed(scene: Scene) -> None:
    kind = "kill -9 the master, and who replaces it"
    await _trap(scene, signal.SIGKILL, kind, replaced=True)


async def leader_paused(scene: Scene) -> None:
    kind = "kill -9 the master, SIGSTOP who replaces it"
    await _trap(scene, signal.SIGSTOP, kind, replaced=True)


async def leader_killed_master_back(scene: Scene) -> None:
    """The master may be back before anybody can replace it, for its lock is still held."""
    kind = "kill -9 the master, and who replaces it; the master is back"
    await _trap(scene, signal.SIGKILL, kind, replaced=False)


async def _trap(scene: Scene, number: int, kind: str, *, replaced: bool) -> None:
    """Kill the master. All clients but one signal themselves at one step, if they come to it."""
    step = scene.random.choice(STEPS)
    master = scene.master()
    active = [client for client in scene.clients if client.active]
    armed = scene.random.sample(active, len(active) - 1)
    for client in armed:
        client.order("arm", step, int(number))
    await until(
        scene.reactor,
        lambda: all(_state(client) == "armed" or not client.active for client in armed),
        scene.patience,
        "clients that say that they are armed",
    )
    strike = scene.strike(kind, f"{scene.name(master)}, at {step!r}")
    master.kill()
    try:
        await come_back(scene, master, replaced=replaced)
        await scene.outlast()
    finally:
        for client in armed:
            client.order("disarm")
            if _state(client) == "sprung":
                strike.cut |= {client.name}
                client.resume()
    # Nobody may signal himself any more once the next fault begins.
    await until(
        scene.reactor,
        lambda: all(client.killed or _settled(scene, client) for client in armed),
        scene.patience,
        "clients that say that they are disarmed",
    )


def _settled(scene: Scene, client: ClientProcess) -> bool:
    """Whether it is disarmed; one that has stopped itself meanwhile is woken."""
    state = _state(client)
    if client.paused:
        client.resume()
    return state == "disarmed"


def _state(client: ClientProcess) -> str:
    words = ("armed", "disarmed", "sprung")
    said = [said.kind for said in client.read().said if said.kind in words]
    return said[-1] if said else ""
