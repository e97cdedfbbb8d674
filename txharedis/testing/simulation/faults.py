"""Faults: what may go wrong in a history, each a function of its nemesis."""

from __future__ import annotations

from collections.abc import Callable

from txharedis.topology import GOSSIP_CHANNEL

from .connection import Connection
from .nemesis import Nemesis
from .network import Endpoint
from .process import Process
from .server import Server

__all__ = ["FAULTS", "Fault"]

#: How long it lasts, in seconds, and what ends it.
Fault = tuple[float, Callable[[], None]]


def write(server: Server, *words: bytes) -> None:
    """Somebody writes on a server, in the database of our own keys."""
    link = Connection(server, None, 0)  # type: ignore[arg-type]
    link.db = 15
    if server.alive and not server.paused:
        server.execute(link, [*words])


def crash(nemesis: Nemesis) -> Fault:
    server = nemesis.server()
    nemesis.say(f"{server.name} is killed")
    server.kill()
    # Starting takes longer than to dial it in vain.
    soon = 0.02 + 6 * nemesis.world.network.latency[1]
    return (
        nemesis.span((soon, soon + 0.05), (soon, soon + 0.5), (0.5, 4.0)),
        lambda: nemesis.restart(server),
    )


def crash_while_writing(nemesis: Nemesis) -> Fault:
    """A server is killed right after one of its messages, some of which may be lost."""
    server = nemesis.server()
    nemesis.say(f"{server.name} will be killed in the middle")
    unseen = nemesis.chance.random() < 0.5
    if unseen:
        for process in nemesis.processes:
            nemesis.world.network.cut(server, process, both=False, lossy=True)

    def kill(_: Endpoint) -> None:
        if server.alive:
            server.kill()

    nemesis.at_message(nemesis.chance.randrange(1, 25), lambda owner: owner is server, kill)

    def end() -> None:
        nemesis.calm()
        nemesis.world.network.quiet()
        # Who does not see that a master has died cannot keep its replicas from one that forgets.
        nemesis.restart(server, whole=unseen)

    return nemesis.span((0.3, 0.6), (1.0, 4.0)), end


def pause_server(nemesis: Nemesis) -> Fault:
    server = nemesis.server()
    nemesis.say(f"{server.name} is paused")
    server.pause()
    return nemesis.span((0.01, 0.5), (0.5, 2.0), (3.0, 6.0)), server.resume


def pause_client(nemesis: Nemesis) -> Fault:
    nemesis.harmless = True
    process = nemesis.process()
    if process is None:
        return 0.0, lambda: None
    nemesis.say(f"{process.name} is paused")
    process.pause()
    return nemesis.span((0.01, 0.5), (0.5, 2.0), (3.0, 6.0)), process.resume


def kill_client(nemesis: Nemesis) -> Fault:
    """A client dies at any moment, or after any of its messages."""
    nemesis.harmless = True
    process = nemesis.process()
    if process is None or len(nemesis.processes) < 2:
        return 0.0, lambda: None
    if nemesis.chance.random() < 0.5:
        nemesis.say(f"{process.name} is killed")
        process.kill()
    else:
        count = nemesis.chance.randrange(1, 15)
        nemesis.say(f"{process.name} is killed after its message {count} from now on")

        def kill(_: Endpoint) -> None:
            if len(nemesis.processes) > 1:  # somebody has to be there to repair
                process.kill()

        nemesis.at_message(count, lambda owner: owner is process, kill)
    return nemesis.span((0.05, 0.5)), lambda: None


def strike_failover(nemesis: Nemesis) -> Fault:
    """The master dies, and the client that replaces it is hit at some step.

    It dies, is paused, or is cut off, so that what it says arrives late; at once or a few messages
    later.
    """
    chance, network = nemesis.chance, nemesis.world.network
    master = nemesis.master()
    hit: list[Process] = []
    how = chance.choice(["killed", "paused", "cut off"])
    later = chance.choice([0, 0, 1, 2, 3])
    servers = chance.sample(nemesis.servers, chance.randrange(1, len(nemesis.servers) + 1))

    def strike(process: Process) -> None:
        if how == "killed" and len(nemesis.processes) > 1:
            process.kill()
            return
        hit.append(process)
        if how == "cut off":
            for server in servers:
                network.cut(process, server, both=False)
        else:
            process.pause()

    def stepped(process: Process) -> None:
        if later:
            nemesis.at_message(later, lambda owner: owner is process, lambda _: strike(process))
        else:
            strike(process)

    step = nemesis.at_step(stepped)
    nemesis.say(f"{master.name} is killed; who replaces it is {how}, {later} behind {step}")
    master.kill()

    def end() -> None:
        nemesis.calm()
        for process in hit:
            process.resume()
        network.heal()
        # Until the lock has expired, a master that forgets would take its replicas' data away.
        nemesis.restart(master, whole=True)

    return nemesis.span((0.1, 0.5), (0.8, 1.5), (1.5, 4.0)), end


def crash_with_lag(nemesis: Nemesis) -> Fault:
    """The master dies, and its newest writes have not reached some of its replicas."""
    chance, network = nemesis.chance, nemesis.world.network
    master = nemesis.master()
    others = [server for server in nemesis.servers if server is not master]
    behind = chance.sample(others, chance.randrange(1, len(others) + 1))
    for server in behind:
        network.cut(master, server, both=False, lossy=True)
    nemesis.say(f"{master.name} is not heard by {', '.join(s.name for s in behind)}, then killed")

    def kill() -> None:
        for server in behind:
            network.heal(master, server)
        if master.alive:
            master.kill()

    delay = nemesis.span((0.02, 0.3))
    nemesis.world.at(delay, kill)

    return delay + nemesis.span((0.1, 0.5), (0.5, 3.0)), lambda: nemesis.restart(master)


def blackout(nemesis: Nemesis) -> Fault:
    """All servers die together, and come back one by one with what they had.

    Before, the newest writes have not reached some of them.
    """
    chance, world = nemesis.chance, nemesis.world
    master = nemesis.master()
    others = [server for server in nemesis.servers if server is not master]
    behind = chance.sample(others, chance.randrange(len(others)))
    # In the writes that these lack, the opcounter gets one digit more.
    count = 10 ** chance.randrange(2, 7) - chance.randrange(1, 4)
    write(master, b"SET", b"haredis:opcounter", b"%d" % count)

    def cut() -> None:
        for server in behind:
            world.network.cut(master, server, both=False, lossy=True)

    soon = 3 * world.network.latency[1]
    world.at(soon, cut)
    names = ", ".join(server.name for server in behind) or "nobody"
    nemesis.say(f"{master.name} is not heard by {names}, then all are killed")
    delay = soon + nemesis.span((0.02, 0.4))

    def kill() -> None:
        for server in nemesis.servers:
            if server.alive:
                server.kill()
        for server in behind:
            world.network.heal(master, server)

    world.at(delay, kill)
    for server in chance.sample(nemesis.servers, len(nemesis.servers)):
        delay += nemesis.span((0.02, 0.2), (0.1, 1.0))
        world.at(delay, lambda server=server: nemesis.restart(server, whole=True))
    return delay + 0.01, lambda: None


def partition(nemesis: Nemesis) -> Fault:
    """Somebody is cut off from somebody."""
    chance, network = nemesis.chance, nemesis.world.network
    one: Endpoint = (
        nemesis.server() if chance.random() < 0.7 else nemesis.process() or (nemesis.server())
    )
    servers: list[Endpoint] = [other for other in nemesis.servers if other is not one]
    processes: list[Endpoint] = [other for other in nemesis.processes if other is not one]
    if isinstance(one, Process):
        nemesis.harmless = True
        others = servers
        if chance.random() < 0.5:
            others = [chance.choice(servers)]
    else:
        others = chance.choice([servers, processes, servers + processes])
        if chance.random() < 0.3 and others:
            others = chance.sample(others, chance.randrange(1, len(others) + 1))
    way = chance.choice(["both", "to", "from"])
    lossy = chance.random() < 0.5
    names = ", ".join(other.name for other in others)
    nemesis.say(f"{one.name} is cut off from {names} ({way}{', lossy' if lossy else ''})")
    for other in others:
        if way == "from":
            network.cut(other, one, both=False, lossy=lossy)
        else:
            network.cut(one, other, both=way == "both", lossy=lossy)
    pairs = [(one, other) for other in others]

    def end() -> None:
        for pair in pairs:
            network.heal(*pair)

    return nemesis.span((0.02, 0.5), (0.5, 2.5), (3.0, 7.0)), end


def reset_links(nemesis: Nemesis) -> Fault:
    """Links are dropped, as by a firewall: what was under way may be lost."""
    network = nemesis.world.network
    server = nemesis.server()
    others: list[Endpoint] = [*nemesis.processes]
    if nemesis.chance.random() < 0.3:
        others = [other for other in nemesis.servers if other is not server]
    elif nemesis.chance.random() < 0.5 and others:
        others = [nemesis.chance.choice(others)]
    nemesis.say(f"links of {server.name} to {', '.join(o.name for o in others)} are dropped")
    for other in others:
        network.break_links(server, other)
    return nemesis.span((0.01, 0.3)), lambda: None


def slow_links(nemesis: Nemesis) -> Fault:
    """What goes between two takes long, and arrives late."""
    network = nemesis.world.network
    server = nemesis.server()
    everybody: list[Endpoint] = [*nemesis.processes, *nemesis.servers]
    others = [other for other in everybody if other is not server]
    others = nemesis.chance.sample(others, nemesis.chance.randrange(1, len(others) + 1))
    seconds = nemesis.span((0.005, 0.1), (0.1, 1.0))
    nemesis.say(f"{server.name} and {', '.join(o.name for o in others)} are {seconds:.3f} s apart")
    for other in others:
        if nemesis.chance.random() < 0.7:
            network.slow(server, other, seconds)
        if nemesis.chance.random() < 0.7:
            network.slow(other, server, seconds)

    def end() -> None:
        for other in others:
            network.slow(server, other, 0)
            network.slow(other, server, 0)

    return nemesis.span((0.1, 1.0), (1.0, 4.0)), end


def flush_scripts(nemesis: Nemesis) -> Fault:
    """The servers forget all scripts; or some of them, again and again, for a moment."""
    nemesis.harmless = True
    chance, world = nemesis.chance, nemesis.world
    back = chance.random() < 0.7
    servers = [server for server in nemesis.servers if chance.random() < 0.7]
    names = ", ".join(server.name for server in servers) or "nobody"
    nemesis.say(f"SCRIPT FLUSH on {names}{', for moments' if back else ''}")

    def flush(server: Server, moment: float) -> None:
        kept = server.scripts.copy()
        server.scripts.clear()
        if back:
            world.at(moment, server.scripts.update, kept)

    times = 5 if back else 1
    for server in servers:
        for place in range(times):
            world.at(0.02 * place, flush, server, 0.02 * chance.random())
    return 0.02 * times + 0.01, lambda: None


def lose_journals(nemesis: Nemesis) -> Fault:
    """The replies of a master are lost, and so are the journals in which they were kept.

    But not while there is something under way that was sent before: that would be run again.
    """
    network = nemesis.world.network
    if nemesis.world.now < network.late_until + 0.1:
        return 0.0, lambda: None
    master = nemesis.master()
    nemesis.journals_lost = True
    nemesis.say(f"replies of {master.name} are lost, and its journals")
    for process in nemesis.processes:
        network.cut(master, process, both=False, lossy=True)

    def end() -> None:
        if master.alive and master.following is None:
            for key in nemesis.journals():
                write(master, b"DEL", key)
        for process in nemesis.processes:
            network.heal(master, process)

    return nemesis.span((0.05, 0.3)), end


def rumour(nemesis: Nemesis) -> Fault:
    """Any text can arrive on a channel."""
    nemesis.harmless = True
    for server in nemesis.servers:
        name = nemesis.chance.choice([*(other.name for other in nemesis.servers), "nobody"])
        if server.alive and not server.paused:
            nemesis.say(f"{name} is said to be master on {server.name}")
            server.spread(GOSSIP_CHANNEL.encode(), name.encode())
    return 0.1, lambda: None


def operator(nemesis: Nemesis) -> Fault:
    """Somebody changes roles by hand, without the lock."""
    server = nemesis.server()
    other = nemesis.chance.choice([each for each in nemesis.servers if each is not server])
    if server.alive and not server.paused:
        if server.following is not None and nemesis.chance.random() < 0.6:
            nemesis.say(f"somebody says SLAVEOF NO ONE to {server.name}")
            server.replication.lead()
        elif server.following is not None:
            nemesis.say(f"somebody makes {server.name} follow {other.name}")
            server.replication.follow(other.host, other.port)
        else:
            nemesis.say(f"somebody makes master {server.name} follow {other.name}")
            server.replication.follow(other.host, other.port)
    return nemesis.span((0.05, 0.5)), lambda: None


#: What may happen, and how often.
FAULTS: dict[Callable[[Nemesis], Fault], int] = {
    crash: 6,
    crash_while_writing: 5,
    pause_server: 3,
    pause_client: 2,
    kill_client: 2,
    crash_with_lag: 2,
    blackout: 2,
    strike_failover: 5,
    partition: 6,
    reset_links: 2,
    slow_links: 2,
    flush_scripts: 2,
    lose_journals: 1,
    operator: 1,
    rumour: 1,
}
