"""INFO: the fields that clients read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .resp import bulk

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["info"]


def info(server: Server, link: Connection, words: list[bytes]) -> bytes:
    wanted = [word.lower() for word in words[1:]] or [b"default"]
    everything = any(word in (b"default", b"all", b"everything") for word in wanted)
    parts = [part(server) for name, part in _INFO.items() if everything or name in wanted]
    return bulk("\r\n".join(parts).encode())


def _info_server(server: Server) -> str:
    return (
        f"# Server\r\nredis_version:{server.version}\r\nredis_mode:standalone\r\n"
        f"run_id:{server.run_id}\r\ntcp_port:{server.port}\r\n"
        f"uptime_in_seconds:{server.uptime}\r\n"
    )


def _info_clients(server: Server) -> str:
    return f"# Clients\r\nconnected_clients:{len(server.connections)}\r\n"


def _info_persistence(server: Server) -> str:
    return f"# Persistence\r\nloading:{int(server.loading)}\r\n"


def _info_replication(server: Server) -> str:
    replication = server.replication
    following = replication.following
    lines = ["# Replication", f"role:{'master' if following is None else 'slave'}"]
    if following is not None:
        up = following.up
        now = int(server.seconds())
        known = up or following.can_go_on
        offset = replication.offset if known else 1
        lines += [
            f"master_host:{following.host}",
            f"master_port:{following.port}",
            f"master_link_status:{'up' if up else 'down'}",
            f"master_last_io_seconds_ago:{now - int(following.heard_at) if up else -1}",
            f"master_sync_in_progress:{int(following.state == 'transfer')}",
            f"slave_read_repl_offset:{offset}",
            f"slave_repl_offset:{offset}",
        ]
        if not up:
            since = following.down_since
            lines.append(f"master_link_down_since_seconds:{now - int(since) if since else -1}")
        lines += [
            f"slave_priority:{server.settings[b'replica-priority'].decode()}",
            f"slave_read_only:{int(server.read_only)}",
            "replica_announced:1",
        ]
    lines.append(f"connected_slaves:{len(replication.replicas)}")
    for place, replica in enumerate(replication.replicas):
        host, _, port = replica.name.rpartition(":")
        state = "online" if replica.online else "wait_bgsave"
        lag = int(server.seconds()) - int(replica.acked_at)
        lines.append(
            f"slave{place}:ip={host},port={port},state={state},offset={replica.acked},lag={lag}"
        )
    lines += [
        "master_failover_state:no-failover",
        f"master_replid:{replication.replid}",
        f"master_replid2:{replication.replid2}",
        f"master_repl_offset:{replication.offset}",
        f"second_repl_offset:{replication.second_offset}",
        f"repl_backlog_histlen:{replication.backlog_size}",
        "",
    ]
    return "\r\n".join(lines)


def _info_keyspace(server: Server) -> str:
    lines = ["# Keyspace"]
    expires = server.keys.expires
    for db in range(server.databases):
        keys = server.keys.dbs[db]
        if keys:
            mortal = sum(place[0] == db for place in expires)
            lines.append(f"db{db}:keys={len(keys)},expires={mortal},avg_ttl=0")
    lines.append("")
    return "\r\n".join(lines)


_INFO = {
    b"server": _info_server,
    b"clients": _info_clients,
    b"persistence": _info_persistence,
    b"replication": _info_replication,
    b"keyspace": _info_keyspace,
}
