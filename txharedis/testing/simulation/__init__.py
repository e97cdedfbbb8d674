"""A simulated world: the real client on simulated servers, links and clocks, from one seed."""

from .process import Process
from .server import Server
from .world import Overdue, World

__all__ = ["Overdue", "Process", "Server", "World"]
