"""What is known of the servers: addresses, roles, one node's view of itself, the whole picture.

All of it frozen values. `parse_view` reads the replies of one survey.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from txharedis.errors import InvalidOption
from txharedis.values import Value

__all__ = [
    "DEFAULT_PORT",
    "GOSSIP_CHANNEL",
    "META_KEY",
    "OPCOUNTER_KEY",
    "SENTINEL_CHANNEL",
    "Address",
    "NodePicture",
    "NodeView",
    "Role",
    "Status",
    "Topology",
    "displayed",
    "failover_key",
    "vote_key",
]

DEFAULT_PORT = 6379

OPCOUNTER_KEY = "haredis:opcounter"
META_KEY = "haredis:meta"

GOSSIP_CHANNEL = "haredis:gossip:master"
#: Every Sentinel listens here on every server that it watches.
SENTINEL_CHANNEL = "__sentinel__:hello"


def failover_key(run_id: str) -> str:
    """The lock on the node with this run_id.

    The name carries the node's identity because a lock written on a master is replicated: with one
    name for all it would overwrite the lock that somebody else holds on a replica.
    """
    return f"haredis:failover:{run_id}"


def vote_key(run_id: str) -> str:
    """The highest epoch that the node with this run_id has granted to anyone."""
    return f"haredis:vote:{run_id}"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a server listens: `host` (name, IPv4 or IPv6 without brackets) and `port`.

    Of a unix socket `host` is its path, which begins with "/", and `port` is 0.
    """

    host: str
    port: int

    @property
    def path(self) -> str:
        """The path of a unix socket, "" for a host and a port."""
        return self.host if self.host.startswith("/") else ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, value: object) -> Address:
        """Read "host:port", "host", ":port", "6380", 6380, ("host", port) or "[::1]:6379".

        "unix:/path" is a unix socket. The host defaults to 127.0.0.1, the port to 6379. Anything
        else, or a port outside 1..65535, is an InvalidOption that names the value.
        """
        if isinstance(value, Address):
            return value
        if isinstance(value, bool):
            raise InvalidOption(f"not a node: {value!r}")
        if isinstance(value, int):
            return cls("127.0.0.1", _port(value, value))
        if isinstance(value, (tuple, list)):
            if len(value) != 2 or not isinstance(value[0], str) or "@" in value[0]:
                raise InvalidOption(f"not a node: {displayed(value)} (a pair is (host, port))")
            return cls(_host(value[0].strip("[]") or "127.0.0.1", value), _port(value[1], value))
        if not isinstance(value, str):
            raise InvalidOption(
                f"not a node: {displayed(value)} (use 'host:port', a port or (host, port))"
            )
        if "://" in value:
            shown = re.sub("(?<=://).*@", "***@", value.partition("?")[0], flags=re.DOTALL)
            raise InvalidOption(f"{shown!r} is a URL: it stands for all the nodes, not for one")
        if "@" in value and not value.strip().startswith("unix:/"):
            shown = "***@" + value.rpartition("@")[2]
            raise InvalidOption(
                f"not a node: {shown!r} (a password is an option, or part of a URL)"
            )
        text = value.strip()
        if not text:
            raise InvalidOption(f"not a node: {value!r} is empty")
        if text.startswith("unix:/"):
            return cls(text.removeprefix("unix:"), 0)
        if text.startswith("["):
            match = re.fullmatch(r"\[([^\[\]]+)\](?::(.*))?", text)
            if match is None:
                raise InvalidOption(f"not a node: {value!r} (IPv6 is written '[::1]:6379')")
            host, port = match[1], match[2]
        elif text.isdigit():
            host, port = "", text
        elif text.count(":") > 1:
            raise InvalidOption(f"not a node: {value!r} (IPv6 is written '[::1]:6379')")
        else:
            host, colon, rest = text.partition(":")
            port = rest if colon else None
        return cls(
            _host(host or "127.0.0.1", value),
            DEFAULT_PORT if port is None else _port(port, value),
        )


def displayed(value: object) -> str:
    """A value that is no node, for an error's text, unless there may be a password in it."""
    text = repr(value)
    return f"a {type(value).__name__} (hidden)" if re.search("@|(?i:pass)", text) else text


def _host(host: str, value: object) -> str:
    good = re.fullmatch(r"[^\s/@,\[\]]+", host) is not None
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            good = False
    if not good:
        raise InvalidOption(f"not a node: {value!r} has a bad host {host!r}")
    return host


def _port(port: object, value: object) -> int:
    number = 0
    if isinstance(port, int) and not isinstance(port, bool):
        number = port
    elif isinstance(port, str) and re.fullmatch("[0-9]{1,5}", port):
        number = int(port)
    if not 1 <= number <= 65535:
        raise InvalidOption(f"not a node: {value!r} has a bad port {port!r} (1 to 65535)")
    return number


class Role(enum.Enum):
    """What a server says it is. On the wire Redis says slave; we say replica."""

    MASTER = "master"
    REPLICA = "replica"


class Status(enum.Enum):
    """How a client stands with a node. The value is the word for people.

    Only UP nodes can be asked. REFUSED (a dial was refused or reset) and SILENT (nothing came for
    `down_after` seconds) are evidence of death; DROPPED and DIALLING are not, and DENIED is a
    living server that will not let us in (credentials, number of clients).
    """

    DIALLING = "dialling"
    UP = "up"
    DROPPED = "dropped, redialling"
    REFUSED = "refused"
    SILENT = "silent"
    DENIED = "denied"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NodeView(Value):
    """What one node said of itself in one survey.

    `follows` is the configured node that a replica follows, None when it follows a server that is
    not configured (then `follows_text` says which). `offset` counts bytes of the replication
    stream. `last_io` is the number of whole seconds since the replica heard its master, -1 when
    not connected. `link_down_for` is the number of whole seconds since its link went down, -1 when
    it is up or never was. `keys` counts keys outside the database of our own keys. `vote` is the
    highest epoch this node granted, `listeners` the number of clients that hear gossip there.
    `replid2` is the history that this one goes on from, `parted_at` the first offset not shared.
    `failing_over` tells that the server's own FAILOVER is under way on it.
    A `blind` view is one of a client that has no right to see the group's own keys.
    """

    address: Address
    run_id: str
    role: Role
    follows: Address | None = None
    follows_text: str = ""
    link_up: bool = False
    last_io: int = -1
    syncing: bool = False
    link_down_for: int = -1
    offset: int = 0
    replid: str = ""
    replid2: str = ""
    parted_at: int = -1
    failing_over: bool = False
    loading: bool = False
    epoch: int = 0
    group: str = ""
    meta_master: str = ""
    meta_run_id: str = ""
    ping_period: int = 0
    opcounter: int = 0
    vote: int = 0
    locked: bool = False
    keys: int = 0
    uptime: int = 0
    priority: int = 100
    writable: bool = False
    cluster: bool = False
    sentinels: int = 0
    listeners: int = 0
    blind: bool = False

    @property
    def is_master(self) -> bool:
        return self.role is Role.MASTER

    @property
    def linked_before(self) -> bool:
        """Whether the link to its master was up at any time since the server started."""
        return self.link_up or self.link_down_for >= 0

    @property
    def claims(self) -> bool:
        """Whether this is a master and the very incarnation that its meta names as master."""
        return self.is_master and self.epoch > 0 and self.run_id == self.meta_run_id

    def same_history(self, other: NodeView) -> bool:
        """Whether both hold parts of one replication stream, so that offsets compare."""
        return (_known(self.replid) and self.replid in (other.replid, other.replid2)) or (
            _known(other.replid) and other.replid == self.replid2
        )

    def discards(self, old: NodeView) -> int | None:
        """How many bytes of an old master's history a replica of this master does without.

        They count what the server told its replicas besides writes, too. None when nobody knows:
        their histories do not touch, because the old master has restarted without its own, say.
        """
        if not _known(old.replid):
            return None
        if old.replid == self.replid:  # as it was right before its promotion
            return max(0, old.offset - self.offset)
        if old.replid == self.replid2 and self.parted_at >= 0:
            return max(0, old.offset - (self.parted_at - 1))
        return None


def _known(replid: str) -> bool:
    return replid.strip("0") != ""


def parse_info(text: bytes) -> dict[str, str]:
    """The `field:value` lines of an INFO reply."""
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon and name and name[0] != "#":
            fields[name] = value
    return fields


def _number(text: object, default: int = 0) -> int:
    try:
        return int(text) if isinstance(text, (str, bytes)) else default
    except ValueError:
        return default


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Identity(Value):
    """What cannot change while a link lives: the server's run_id, its start, version and mode."""

    run_id: str
    uptime: int
    version: str
    cluster: bool

    @classmethod
    def parse(cls, info_server: bytes) -> Identity:
        fields = parse_info(info_server)
        return cls(
            run_id=fields.get("run_id", ""),
            uptime=_number(fields.get("uptime_in_seconds")),
            version=fields.get("valkey_version") or fields.get("redis_version", ""),
            cluster=fields.get("redis_mode", fields.get("server_mode")) == "cluster",
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SurveyReplies(Value):
    """The raw replies of one survey of one node, in the order in which they are asked."""

    replication: object
    keyspace: object
    meta: object
    counters: object  # opcounter, vote, lock
    priority: object
    listeners: object  # to Sentinel's channel, to gossip


def parse_view(
    address: Address,
    identity: Identity,
    replies: SurveyReplies,
    uptime: int,
    db: int,
    resolve: Mapping[tuple[str, int], Address],
) -> NodeView:
    """Read one survey.

    `uptime` is the server's age in seconds now, `db` the database of our own keys, and `resolve`
    maps the hosts and ports that servers may name to configured addresses. Replies that are errors
    read as nothing known; a LOADING error marks the view as loading.
    """
    info = parse_info(replies.replication) if isinstance(replies.replication, bytes) else {}
    role = Role.MASTER if info.get("role") == "master" else Role.REPLICA
    host, port = info.get("master_host", ""), _number(info.get("master_port"))
    meta = _pairs(replies.meta)
    counters = replies.counters if isinstance(replies.counters, list) else []
    opcounter, vote, lock = [*counters, None, None, None][:3]
    listeners = replies.listeners if isinstance(replies.listeners, list) else []
    _, sentinels, _, clients = [*listeners, None, None, None, None][:4]
    offset = info.get("slave_repl_offset") if role is Role.REPLICA else None
    return NodeView(
        address=address,
        run_id=identity.run_id,
        role=role,
        follows=resolve.get((host, port)) if role is Role.REPLICA else None,
        follows_text=str(Address(host, port)) if role is Role.REPLICA else "",
        link_up=info.get("master_link_status") == "up",
        last_io=_number(info.get("master_last_io_seconds_ago"), -1),
        syncing=info.get("master_sync_in_progress") == "1",
        link_down_for=_number(info.get("master_link_down_since_seconds"), -1),
        offset=max(0, _number(offset or info.get("master_repl_offset"))),
        replid=info.get("master_replid", ""),
        replid2=info.get("master_replid2", ""),
        parted_at=_number(info.get("second_repl_offset"), -1),
        failing_over=info.get("master_failover_state", "no-failover") != "no-failover",
        loading=any(
            isinstance(reply, Exception) and str(reply).startswith("LOADING")
            for reply in (replies.meta, replies.counters)
        ),
        epoch=_number(meta.get("epoch")),
        group=meta.get("group", ""),
        meta_master=meta.get("master", ""),
        meta_run_id=meta.get("run_id", ""),
        ping_period=_number(meta.get("ping_period")),
        opcounter=_number(opcounter),
        vote=_number(vote),
        locked=lock is not None,
        keys=_keys(replies.keyspace, db),
        uptime=uptime,
        priority=_number(_pairs(replies.priority).get("replica-priority"), 100),
        writable=role is Role.REPLICA and info.get("slave_read_only") == "0",
        cluster=identity.cluster,
        sentinels=sentinels if isinstance(sentinels, int) else 0,
        listeners=clients if isinstance(clients, int) else 0,
        blind=isinstance(replies.meta, Exception) and str(replies.meta).startswith("NOPERM"),
    )


_ROLES = {"master": Role.MASTER, "replica": Role.REPLICA, "slave": Role.REPLICA}


def parse_hello(address: Address, hello: object, role_reply: object = None) -> NodeView | None:
    """The view of a node that answers HELLO, or ROLE, at most; None when it tells no role."""
    fields = _pairs(hello)
    word = fields.get("role", "")
    if isinstance(role_reply, list) and role_reply and isinstance(role_reply[0], bytes):
        word = role_reply[0].decode("utf-8", "replace")
    role = _ROLES.get(word)
    if role is None:
        return None
    cluster = fields.get("mode") == "cluster"
    return NodeView(address=address, run_id="", role=role, cluster=cluster, blind=True)


def _pairs(reply: object) -> dict[str, str]:
    if not isinstance(reply, list):
        return {}
    texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else "" for item in reply]
    return dict(zip(texts[::2], texts[1::2], strict=False))


def _keys(keyspace: object, own_db: int) -> int:
    if not isinstance(keyspace, bytes):
        return 0
    total = 0
    for name, value in parse_info(keyspace).items():
        match = re.match(r"keys=(\d+)", value)
        if match and name.startswith("db") and name != f"db{own_db}":
            total += int(match[1])
    return total


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NodePicture(Value):
    """One node in the picture: who it is, how we stand with it, and its newest view if any.

    `lag` is in bytes behind the master's offset, None when unknown. `missing_rights` names what our
    user may not do there and would have to for failovers, such as "SLAVEOF". `follows` is the
    master that a replica names, `listeners` the number of clients that hear gossip there. `seen_at`
    is the time of that view on the client's clock, `group` the id that it has of its group. What is
    None is unknown.
    """

    address: Address
    status: Status
    reason: str = ""
    role: Role | None = None
    epoch: int = 0
    offset: int = 0
    lag: int | None = None
    link_up: bool | None = None
    follows: str = ""
    version: str = ""
    missing_rights: tuple[str, ...] = ()
    syncing: bool = False
    loading: bool = False
    priority: int | None = None
    listeners: int | None = None
    seen_at: float | None = None
    group: str = ""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Topology(Value):
    """The whole picture at one moment, as this client sees it."""

    master: Address | None = None
    epoch: int = 0
    group: str = ""
    quorum: int = 1
    nodes: Sequence[NodePicture] = field(default_factory=tuple)
