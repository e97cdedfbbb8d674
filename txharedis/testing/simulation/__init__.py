"""A simulated world: the real client on simulated servers, links and clocks, from one seed.

    with World(seed=7) as world:
        servers = world.trio()
        process = world.process(rate=1.05)
        client = create_client(list(world.servers), reactor=process)
        world.wait(client.set("key", "value"))
        world.servers[client.master].kill()
        world.wait(client.get("key"))

Everything happens within `run`, `run_until` and `wait` of the world; `at` says what is to happen
when. Faults are methods of Server, Process and Network. With `tracing`, `world.trace` tells all.
"""

from .network import Network
from .process import Process
from .server import Server
from .world import Overdue, World

__all__ = ["Network", "Overdue", "Process", "Server", "World"]
