"""Every fault that the nemesis knows. Each ends by itself: what it broke, it mends.

| fault | what is done |
|---|---|
| kill | SIGKILL to the master, or to a replica; started again at once or later, empty or not |
| pause | SIGSTOP to the master, or to a replica; SIGCONT before or after it is missed |
| client cut off | a client process is cut off from the master, or from all servers |
| master cut off | the master is cut off from all other servers; the clients reach it |
| minority | a minority of the servers, with or without the master, and some clients are cut off |
| one-way | the master is not heard, or does not hear: by the servers, a client, or all |
| delay | all bytes to and from the master, or all servers, are late |
| replies dropped | the master's replies to clients stop, then their links are cut |
| links cut | all links to the master are reset, those of replicas too |
| clients | SIGKILL or SIGSTOP to a client process: at any moment; right behind a kill of the |
| | master; by itself, at a step of the failover that it leads |

Where a client is hit behind a kill of the master, the master stays away until it is replaced.
A pause or a partition lasts for less than a third of `down_after`, or for longer than all of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from txharedis.testing.chaos import client_faults, network_faults, server_faults
from txharedis.testing.chaos.scene import Scene

__all__ = ["FAULTS", "Fault"]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    network  it uses the network: only one of those can be on at a time
    traps    it has clients signal themselves: only our own can
    several  it is more than one fault, and only dealt when it is asked for by its name
    """

    name: str
    happen: Callable[[Scene], Awaitable[None]]
    network: bool = False
    traps: bool = False
    several: bool = False


FAULTS = (
    Fault("kill-master", server_faults.kill_master),
    Fault("kill-replica", server_faults.kill_replica),
    Fault("pause-master", server_faults.pause_master),
    Fault("pause-replica", server_faults.pause_replica),
    Fault("client-loses-master", network_faults.client_loses_master, network=True),
    Fault("client-loses-all", network_faults.client_loses_all, network=True),
    Fault("master-alone", network_faults.master_alone, network=True),
    Fault("minority-with-master", network_faults.minority_with_master, network=True),
    Fault("minority-without-master", network_faults.minority_without_master, network=True),
    Fault("one-way", network_faults.one_way, network=True),
    Fault("client-one-way", network_faults.client_one_way, network=True),
    Fault("delay", network_faults.delay, network=True),
    Fault("replies-dropped", network_faults.replies_dropped, network=True),
    Fault("links-cut", network_faults.links_cut, network=True),
    Fault("kill-client", client_faults.kill_client),
    Fault("pause-client", client_faults.pause_client),
    Fault("kill-master-and-client", client_faults.kill_master_and_client),
    Fault("kill-master-pause-client", client_faults.kill_master_pause_client),
    Fault("leader-killed", client_faults.leader_killed, traps=True),
    Fault("leader-paused", client_faults.leader_paused, traps=True),
    Fault(
        "leader-killed-master-back",
        client_faults.leader_killed_master_back,
        traps=True,
        several=True,
    ),
)
