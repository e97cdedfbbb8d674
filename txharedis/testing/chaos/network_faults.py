"""Links that are cut, slow, silent, or dead in one direction."""

from __future__ import annotations

from txharedis.testing.chaos.clients import ClientProcess
from txharedis.testing.chaos.scene import Scene
from txharedis.testing.servers import LocalServer

__all__ = [
    "client_loses_all",
    "client_loses_master",
    "client_one_way",
    "delay",
    "links_cut",
    "master_alone",
    "minority_with_master",
    "minority_without_master",
    "one_way",
    "replies_dropped",
]


async def _apart(
    scene: Scene, kind: str, detail: str, cut: list[ClientProcess], *sides: set[str]
) -> None:
    scene.strike(kind, detail, cut)
    scene.cluster.network.partition(*sides)
    try:
        await scene.outlast()
    finally:
        scene.cluster.network.heal(abort=scene.random.random() < 0.5)


async def client_loses_master(scene: Scene) -> None:
    client, master = scene.client(), scene.master()
    detail = f"{client.name} | {scene.name(master)}"
    sides = {client.source}, scene.cluster.sources([master])
    await _apart(scene, "a client cut off from the master", detail, [client], *sides)


async def client_loses_all(scene: Scene) -> None:
    client = scene.client()
    sides = {client.source}, scene.cluster.sources(scene.cluster.servers)
    await _apart(scene, "a client cut off from all", client.name, [client], *sides)


async def master_alone(scene: Scene) -> None:
    master = scene.master()
    others = [server for server in scene.cluster.servers if server is not master]
    sides = scene.cluster.sources([master]), scene.cluster.sources(others)
    await _apart(scene, "the master cut off from the servers", scene.name(master), [], *sides)


async def minority_with_master(scene: Scene) -> None:
    await _minority(scene, scene.master(), "a minority with the master cut off")


async def minority_without_master(scene: Scene) -> None:
    await _minority(scene, scene.replica(), "a minority without the master cut off")


async def _minority(scene: Scene, first: LocalServer, kind: str) -> None:
    servers = scene.cluster.servers
    more = [server for server in servers if server not in (first, scene.leader)]
    few = [first, *scene.random.sample(more, (len(servers) - 1) // 2 - 1)]
    many = [server for server in servers if server not in few]
    with_few = scene.some_clients()
    with_many = [client for client in scene.clients if client not in with_few]
    here = scene.cluster.sources(few) | {client.source for client in with_few}
    there = scene.cluster.sources(many) | {client.source for client in with_many}
    shown = ", ".join([*map(scene.name, few), *(client.name for client in with_few)])
    await _apart(scene, kind, shown, with_few, here, there)


async def one_way(scene: Scene) -> None:
    master = scene.master()
    others = [server for server in scene.cluster.servers if server is not master]
    one, rest = scene.cluster.sources([master]), scene.cluster.sources(others)
    cut: list[ClientProcess] = []
    if scene.random.random() < 0.5:
        cut = [client for client in scene.clients if client.active]
        rest |= {client.source for client in cut}
    await _mute(scene, one, rest, cut, scene.name(master))


async def client_one_way(scene: Scene) -> None:
    client, master = scene.client(), scene.master()
    one = scene.cluster.sources([master])
    await _mute(scene, one, {client.source}, [client], f"{scene.name(master)}, {client.name}")


async def _mute(
    scene: Scene, master: set[str], others: set[str], cut: list[ClientProcess], detail: str
) -> None:
    silent = scene.random.random() < 0.5
    who = "a client" if len(cut) == 1 else "all" if cut else "the servers"
    kind = f"one-way: the master {'is not heard by' if silent else 'does not hear'} {who}"
    scene.strike(kind, detail, cut)
    scene.cluster.network.mute(*((master, others) if silent else (others, master)))
    try:
        await scene.outlast()
    finally:
        scene.cluster.network.heal(abort=scene.random.random() < 0.5)


async def delay(scene: Scene) -> None:
    everywhere = scene.random.random() < 0.3
    servers = scene.cluster.servers if everywhere else [scene.master()]
    late = scene.random.uniform(0.005, 0.15)
    scene.strike("delay", f"{late:.3f} s, {', '.join(map(scene.name, servers))}")
    for server in servers:
        scene.cluster.proxy(server).delay(late, to_target=True)
    try:
        await scene.rest(0.5, scene.down_after)
    finally:
        for server in servers:
            scene.cluster.proxy(server).delay(0.0, to_target=True)


async def replies_dropped(scene: Scene) -> None:
    master = scene.master()
    sources = {client.source for client in scene.clients}
    proxy = scene.cluster.proxy(master)
    scene.strike("replies dropped", scene.name(master))
    proxy.sever(sources.__contains__, to_target=False)
    try:
        await scene.rest(0.02, 0.3)
    finally:
        proxy.mend(abort=True)


async def links_cut(scene: Scene) -> None:
    master = scene.master()
    proxy = scene.cluster.proxy(master)
    scene.strike("links to the master cut", scene.name(master))
    proxy.cut()
    try:
        await scene.rest(0.0, 0.3)
    finally:
        proxy.restore()
