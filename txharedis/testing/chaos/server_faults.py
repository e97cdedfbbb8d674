"""Servers that are killed, or that hang."""

from __future__ import annotations

import time

from txharedis.testing.chaos.scene import Scene
from txharedis.testing.servers import LocalServer
from txharedis.testing.waiting import until

__all__ = ["come_back", "kill_master", "kill_replica", "pause_master", "pause_replica"]


async def come_back(scene: Scene, server: LocalServer, *, replaced: bool = False) -> None:
    """Start a server again that was killed: at once, or later; `replaced`: once writes flow."""
    since = time.monotonic()
    await server.exited()
    if replaced:
        await until(
            scene.reactor,
            lambda: any(client.read().last_acknowledged > since for client in scene.clients),
            scene.patience,
            "an acknowledged write after a kill",
        )
    elif scene.random.random() < 0.5:
        await scene.rest(0.0, 1.5)
    await server.restart(empty=not scene.durable or scene.random.random() < 0.5)


async def kill_master(scene: Scene) -> None:
    master = scene.master()
    scene.strike("kill -9 the master", scene.name(master))
    master.kill()
    await come_back(scene, master)


async def kill_replica(scene: Scene) -> None:
    replica = scene.replica()
    scene.strike("kill -9 a replica", scene.name(replica))
    replica.kill()
    await come_back(scene, replica)


async def pause_master(scene: Scene) -> None:
    master = scene.master()
    scene.strike("SIGSTOP the master", scene.name(master))
    master.pause()
    try:
        await scene.outlast()
    finally:
        master.resume()


async def pause_replica(scene: Scene) -> None:
    replica = scene.replica()
    scene.strike("SIGSTOP a replica", scene.name(replica))
    replica.pause()
    try:
        await scene.outlast()
    finally:
        replica.resume()
