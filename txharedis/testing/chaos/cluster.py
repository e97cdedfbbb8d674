"""The servers of a history, behind their proxies: how they stand, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from txharedis.testing.chaos.verdict import Data, kind_of
from txharedis.testing.proxy import Network, TcpProxy
from txharedis.testing.servers import LocalServer
from txharedis.testing.waiting import all_of
from txharedis.topology import META_KEY

__all__ = ["Cluster"]

OWN_DB = 15


class Cluster:
    """Servers that know each other by the addresses of proxies.

    `watchers` are other servers that belong to them, sentinels: the first to the first server, and
    so on. They are behind the same network.
    """

    def __init__(
        self, reactor: Any, servers: Sequence[LocalServer], watchers: Sequence[LocalServer] = ()
    ) -> None:
        self.servers = list(servers)
        self.watchers = list(watchers)
        self.network = Network(reactor, [*servers, *watchers])

    def proxy(self, server: LocalServer) -> TcpProxy:
        return self.network.proxies[[*self.servers, *self.watchers].index(server)]

    @property
    def nodes(self) -> list[str]:
        """The addresses of the servers for everybody: those of their proxies."""
        return [self.proxy(server).address for server in self.servers]

    def sources(self, servers: Iterable[LocalServer]) -> set[str]:
        """The addresses from which these servers dial, and those that belong to them."""
        chosen = list(servers)
        beside = [
            watcher
            for server, watcher in zip(self.servers, self.watchers, strict=False)
            if server in chosen
        ]
        return {str(each.source) for each in (*chosen, *beside)}

    async def settled(self) -> LocalServer | None:
        """The master, when exactly one server is it and all others replicate it, linked."""
        if not all(server.running for server in self.servers):
            return None
        infos = await all_of(server.info("replication") for server in self.servers)
        masters = [
            server
            for server, info in zip(self.servers, infos, strict=True)
            if info["role"] == "master"
        ]
        if len(masters) != 1:
            return None
        [master] = masters
        port = str(self.proxy(master).port)
        for info in infos:
            if info["role"] == "slave" and (
                info["master_port"] != port
                or info["master_link_status"] != "up"
                or info["master_sync_in_progress"] != "0"
            ):
                return None
        return master

    async def master(self) -> LocalServer | None:
        """The one server that says it is the master; None when there is none, or several."""
        running = [server for server in self.servers if server.running]
        infos = await all_of(server.info("replication") for server in running)
        masters = [s for s, info in zip(running, infos, strict=True) if info["role"] == "master"]
        return masters[0] if len(masters) == 1 else None

    async def data(self, keys: Iterable[str]) -> dict[str, Data] | None:
        """What the servers hold under these keys, once all of them hold the same; else None."""
        wanted = sorted(keys)
        copies = await all_of(_read(server, wanted) for server in self.servers)
        return copies[0] if all(copy == copies[0] for copy in copies) else None

    async def epoch(self) -> int:
        """The highest epoch that any server knows of."""
        known = await all_of(
            server.call("HGET", META_KEY, "epoch", db=OWN_DB) for server in self.servers
        )
        return max(int(epoch or 0) for epoch in known)

    def promotions(self) -> int:
        """How many times a replica was made a master, by the servers' logs."""
        # Redis writes MASTER, Valkey PRIMARY.
        return sum(server.count_in_log(" MODE enabled (") for server in self.servers)

    async def links(self) -> list[str]:
        """The links of clients that the servers still have; replication and watchers aside."""
        left = []
        for server in self.servers:
            shown: bytes = await server.call("CLIENT", "LIST")
            for line in shown.decode().splitlines():
                fields = dict(word.partition("=")[::2] for word in line.split())
                host = fields["addr"].rpartition(":")[0]
                own = {"127.0.0.1", *self.sources(self.servers)}
                if host not in own:
                    left.append(f"{server.address}: a link from {host}, {fields['cmd']}")
        return left

    async def state(self) -> str:
        """What each server says of itself, for people."""
        return "\n".join(await all_of(map(_state, self.servers)))


async def _read(server: LocalServer, keys: Iterable[str]) -> dict[str, Data]:
    found: dict[str, Data] = {}
    for key in keys:
        kind = kind_of(key)
        if kind == "members":
            found[key] = {item.decode() for item in await server.call("SMEMBERS", key)}
        elif kind == "items":
            found[key] = list(map(int, await server.call("LRANGE", key, 0, -1)))
        else:
            found[key] = int(await server.call("GET", key) or 0)
    return found


_SHOWN = (
    *("role", "master_host", "master_port", "master_link_status", "master_sync_in_progress"),
    *("slave_repl_offset", "slave_read_only", "connected_slaves"),
    *("master_replid", "master_repl_offset"),
)


async def _state(server: LocalServer) -> str:
    try:
        info = await server.info("replication")
        known = {name: info[name] for name in _SHOWN if name in info}
        known |= {name: value for name, value in info.items() if name.startswith("slave0")}
        flat = [word.decode() for word in await server.call("HGETALL", META_KEY, db=OWN_DB)]
        known["meta"] = str(dict(zip(flat[::2], flat[1::2], strict=True)))
    except Exception as error:  # it is shown because something is wrong
        known = {"error": repr(error)}
    words = ", ".join(f"{name} {value}" for name, value in known.items())
    return f"{server!r} from {server.source}: {words}"
