"""Every fault that the nemesis knows. Each ends by itself: what it broke, it mends.

docs/design.md has the table. A pause or a partition lasts for less than a third of `down_after`, or
for longer than all of it. Where a client is hit behind a kill of the master, the master stays away
until it is replaced.
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
