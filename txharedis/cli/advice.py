"""Which settings of a server are in the way of a failover, or of the data: docs/operations.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from txharedis.cli.findings import Finding, Level

__all__ = ["QUESTIONS", "settings"]

#: What is asked for with CONFIG GET. None of them is a secret.
QUESTIONS = (
    "appendonly",
    "save",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "repl-ping-replica-period",
    "repl-timeout",
    "repl-backlog-size",
    "replica-priority",
    "replica-read-only",
    "replica-serve-stale-data",
    "maxmemory",
    "maxmemory-policy",
    "client-output-buffer-limit",
    "timeout",
    "lua-time-limit",
    "protected-mode",
    "bind",
)

_MB = 1024 * 1024
_Note = tuple[Level, str]
_Rule = Callable[["_Server"], _Note | None]


class _Server:
    """One node's settings and INFO, and what it is in its group."""

    def __init__(
        self,
        config: Mapping[str, str],
        info: Mapping[str, str],
        *,
        nodes: int,
        down_after: float,
        remote: bool,
    ) -> None:
        self.config = config
        self.info = info
        self.nodes = nodes
        self.down_after = down_after
        self.remote = remote

    @property
    def is_master(self) -> bool:
        return self.info.get("role") == "master"

    def text(self, name: str) -> str:
        return self.config.get(name, "")

    def number(self, name: str) -> int | None:
        return _number(self.config.get(name))

    def said(self, name: str) -> int | None:
        return _number(self.info.get(name))


def settings(
    node: str,
    config: Mapping[str, str],
    info: Mapping[str, str],
    *,
    nodes: int,
    down_after: float,
    remote: bool = False,
) -> Iterator[Finding]:
    """What stands in this node's settings that should not; `config` holds those it told.

    `info` are the fields of its INFO, `nodes` is the number of nodes of the group, `down_after` the
    client's option, and `remote` whether some node is on another machine.
    """
    server = _Server(config, info, nodes=nodes, down_after=down_after, remote=remote)
    notes = [note for rule in _RULES if (note := rule(server)) is not None]
    for level, text in notes:
        yield Finding(level, "settings", text, (node,))
    if not notes:
        yield Finding(Level.OK, "settings", "as recommended", (node,))


def _persistence(server: _Server) -> _Note | None:
    if server.text("appendonly") != "no" or "save" not in server.config:
        return None
    if not server.text("save"):
        return (
            Level.WARNING,
            "appendonly no and no save: it restarts empty; when all die at once, all data is gone",
        )
    return (
        Level.WARNING,
        "appendonly no: it restarts with the data of its newest save; when all die at once, what"
        " was written since then is gone",
    )


def _min_replicas(server: _Server) -> _Note | None:
    wanted, lag = server.number("min-replicas-to-write"), server.number("min-replicas-max-lag")
    if not wanted or lag == 0:
        return None
    replicas = server.nodes - 1
    if wanted > replicas:
        text = (
            f"min-replicas-to-write {wanted}: there are {replicas} replicas, so it takes no writes"
        )
        return Level.PROBLEM, text
    if wanted > replicas - 1:
        return (
            Level.PROBLEM,
            f"min-replicas-to-write {wanted}: after a failover {replicas - 1} replicas are left,"
            " and the new master takes no writes",
        )
    return None


def _ping_period(server: _Server) -> _Note | None:
    period, timeout = server.number("repl-ping-replica-period"), server.number("repl-timeout")
    if period is None:
        return None
    if timeout is not None and timeout <= period:
        text = f"repl-timeout {timeout} is not above repl-ping-replica-period {period}"
        return Level.PROBLEM, f"{text}: idle replicas lose their links"
    if server.is_master and period > 1 and server.nodes > 1:
        return (
            Level.WARNING,
            f"repl-ping-replica-period {period}: that a master is silent is noticed so much later"
            " (clients with tune_nodes set it to 1)",
        )
    return None


def _backlog(server: _Server) -> _Note | None:
    size = server.number("repl-backlog-size")
    if size is None or size >= 64 * _MB or server.nodes == 1:
        return None
    return (
        Level.WARNING,
        f"repl-backlog-size {size / _MB:g} MB: a node that misses more than that needs a full"
        " resync (64 MB or more)",
    )


def _priority(server: _Server) -> _Note | None:
    if server.number("replica-priority") != 0:
        return None
    return Level.WARNING, "replica-priority 0: it is never promoted, and still votes (a witness)"


def _read_only(server: _Server) -> _Note | None:
    if server.text("replica-read-only") != "no":
        return None
    return Level.WARNING, "replica-read-only no: as a replica it takes writes, which are lost"


def _stale_data(server: _Server) -> _Note | None:
    if server.text("replica-serve-stale-data") != "no":
        return None
    return (
        Level.WARNING,
        "replica-serve-stale-data no: clients with elect=False do not count it while its master is"
        " gone",
    )


def _eviction(server: _Server) -> _Note | None:
    policy = server.text("maxmemory-policy")
    if not server.number("maxmemory") or policy in ("", "noeviction"):
        return None
    if policy.startswith("allkeys"):
        return (
            Level.PROBLEM,
            f"maxmemory-policy {policy}: it may evict haredis:meta, by which the master is known",
        )
    return (
        Level.WARNING,
        f"maxmemory-policy {policy}: it may evict the journals of exactly-once (noeviction)",
    )


def _memory(server: _Server) -> _Note | None:
    used, limit = server.said("used_memory"), server.said("maxmemory")
    if not used or not limit or used < 0.9 * limit:
        return None
    return Level.WARNING, f"{100 * used / limit:.0f} % of maxmemory is used"


def _output_buffer(server: _Server) -> _Note | None:
    words = server.text("client-output-buffer-limit").split()
    for kind, hard, soft, _ in zip(words[::4], words[1::4], words[2::4], words[3::4], strict=False):
        limits = [value for value in (_number(hard), _number(soft)) if value]
        if kind in ("slave", "replica") and limits and min(limits) < 64 * _MB:
            return (
                Level.WARNING,
                f"client-output-buffer-limit replica {hard} {soft}: a replica that falls behind"
                " so far is cut off (256 MB 64 MB 60, or more)",
            )
    return None


def _idle(server: _Server) -> _Note | None:
    timeout = server.number("timeout")
    if not timeout or timeout > 10:
        return None
    return Level.WARNING, f"timeout {timeout}: it closes links that are idle (0, or more than 10)"


def _slow_scripts(server: _Server) -> _Note | None:
    limit = server.number("lua-time-limit")
    if limit is None or 0 < limit < 1000 * server.down_after:
        return None
    after = "never" if limit == 0 else f"after {limit} ms"
    return (
        Level.WARNING,
        f"lua-time-limit {limit}: it answers {after} while a script runs, and counts as hung after"
        f" {1000 * server.down_after:.0f} ms (1000)",
    )


def _protected(server: _Server) -> _Note | None:
    loopback = ("127.", "::1", "-::1", "localhost")
    bound = server.text("bind").split()
    if not server.remote or not bound or not all(host.startswith(loopback) for host in bound):
        return None
    return Level.PROBLEM, f"bind {' '.join(bound)}: other machines cannot reach it"


def _cluster(server: _Server) -> _Note | None:
    if "cluster" not in (server.info.get("redis_mode"), server.info.get("server_mode")):
        return None
    return Level.PROBLEM, "it is in cluster mode: cluster-enabled no"


def _saving(server: _Server) -> _Note | None:
    info: Mapping[str, Any] = server.info
    if info.get("aof_enabled") == "1" and info.get("aof_last_write_status") == "err":
        return Level.PROBLEM, "it cannot write its append-only file: look at its disk"
    if info.get("rdb_last_bgsave_status") == "err":
        return (
            Level.PROBLEM,
            "its last save failed: as a master it takes no writes (stop-writes-on-bgsave-error)",
        )
    return None


def _connections(server: _Server) -> _Note | None:
    clients, limit = server.said("connected_clients"), server.said("maxclients")
    if not clients or not limit or clients < 0.8 * limit:
        return None
    return Level.WARNING, f"{clients} of {limit} connections (maxclients) are in use"


_RULES: tuple[_Rule, ...] = (
    _cluster,
    _persistence,
    _saving,
    _min_replicas,
    _priority,
    _ping_period,
    _backlog,
    _output_buffer,
    _eviction,
    _memory,
    _read_only,
    _stale_data,
    _slow_scripts,
    _idle,
    _connections,
    _protected,
)


def _number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
