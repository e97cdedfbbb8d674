"""The options of a client, checked once and frozen."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote

from txharedis.errors import InvalidOption
from txharedis.events import Event
from txharedis.reads.lag import OwnWrites
from txharedis.tls import TlsContexts
from txharedis.topology import Address, displayed
from txharedis.values import Value

__all__ = [
    "DELIVERIES",
    "READ_POLICIES",
    "RIDES",
    "Nodes",
    "Options",
    "Terms",
    "check_acks",
    "parse_nodes",
]

DELIVERIES = ("exactly-once", "at-least-once", "at-most-once")
#: The kind of reads that go out with whatever stands beside them; see Terms.kinds.
RIDES = -1
READ_POLICIES = ("master", "master_preferred", "replica", "replica_preferred", "nearest", "any")
#: The shortest `max_lag` in time, in seconds: a lag is measured in steps of a quarter of it.
SHORTEST_LAG = 0.05


def _seconds(low: float, high: float = math.inf) -> dict[str, Any]:
    return {"kind": (int, float), "low": low, "high": high}


def _count(low: int, high: float = math.inf) -> dict[str, Any]:
    return {"kind": int, "low": low, "high": high}


class _Default(str):
    """A text that nobody gave."""


_FLAG: dict[str, Any] = {"kind": bool}
_TEXT: dict[str, Any] = {"kind": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one command asks for, where that may differ from command to command.

    A client has the terms of its options; its views (`client.with_options(acks=1)`) have others.
    Bad values are an InvalidOption that names them.

    read_from   who answers reads, one of READ_POLICIES.
    own_writes  the writes that no read on a replica may miss, None where that is not asked for.
    delivery    one of DELIVERIES.
    acks        the number of replicas that have to confirm a write.
    timeout     seconds after which the command fails when it is unanswered, None for never.
    kinds       in what form a command goes out, by its fitness (CommandInfo.fit): twice the acks,
                one more for through the journal; RIDES for a read that goes with either.
    """

    read_from: str = "master"
    own_writes: OwnWrites | None = None
    delivery: str = "at-most-once"
    acks: int = 0
    timeout: float | None = None
    kinds: tuple[int, int, int] = field(default=(0, 0, RIDES), init=False, compare=False)

    def __post_init__(self) -> None:
        check_read_policy(self.read_from)
        _check_delivery(self.delivery)
        _check("acks", self.acks, 0, _count(0))
        _check("timeout", self.timeout, None, _seconds(0.001))
        plain = 2 * self.acks
        journalled = plain + (self.delivery == "exactly-once")
        object.__setattr__(self, "kinds", (plain, journalled, RIDES))


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Options(Value):
    """Every option with its default. Times are in seconds, sizes in bytes.

    A value of the wrong type or out of range is an InvalidOption that names both.

    Commands:
      db               database of the user's commands (0).
      username         ACL user, None for the default user.
      password         password for all nodes, None for none.
      passwords        passwords of single nodes, {"host:port": "password"}, which win over
                       `password` ({}).
      charset          decodes replies and encodes str arguments ("utf-8"); None leaves bytes.
      errors           how str arguments that do not fit the charset are met ("strict").
      convert_numbers  replies that look like numbers become numbers (True, as in txredisapi: "007"
                       becomes 7 and "3.10" becomes 3.1).
      delivery         what happens to a write whose reply was lost: "exactly-once" (it is sent
                       again, and answered as before if it had been executed; the default with two
                       nodes or more), "at-least-once" (it is sent again) or "at-most-once" (it
                       fails with OutcomeUnknown; the default with one node).
      acks             replicas that have to confirm a write before its Deferred fires (0); fewer
                       within ack_timeout, and it fails with NotReplicated. Less than the number of
                       nodes.
      ack_timeout      seconds for that (1.0); the commands behind it wait too.
      command_timeout  seconds after which an unanswered command fails, None for never. Blocking
                       commands have their own timeouts.
      max_pending      commands that may be waiting or unanswered (100000).
      max_pending_bytes  and their bytes (268435456).
      max_dedicated    blocking commands, transactions and monitors at one time (128): each has a
                       link of its own, or waits for one.

    Reads:
      read_from        who answers them: "master" (default), "master_preferred" (a replica while
                       there is no master), "replica", "replica_preferred" (the master when no
                       replica can), "nearest" (the shortest round trip) or "any"; the master is
                       among those of the last two.
      auto_slaveok     True is read_from="replica_preferred".
      max_lag          replicas further behind the master are not used: bytes (an int), or a time as
                       "2s", "500ms" or a timedelta, 50 ms or more (None: any lag).

    Encryption (needs `pip install "txharedis[tls]"`):
      tls              True: TLS to all nodes, their certificates and host names verified (False).
                       Or what decides that: an object that Twisted takes as a contextFactory (of
                       optionsForClientTLS, or a CertificateOptions), used as it is for all nodes,
                       or a function that returns one for a host name.
      tls_ca_file      PEM file of the authorities to trust, None for those of the system.
      tls_cert_file    PEM file of the client's certificate, None for none.
      tls_key_file     PEM file of its key, None when that is in tls_cert_file.
                       Each of these three means tls=True.

    Watching the servers:
      heartbeat        seconds between PINGs on each node (1.0).
      down_after       a node that answers nothing for so long is down (3.0); more than twice the
                       heartbeat.
      survey_interval  seconds between surveys when nothing happens (10.0).
      survey_timeout   seconds to wait for the answers of a survey (0.5).
      connect_timeout  seconds to wait for a connection and its handshake (2.0).
      reconnect_delay  first delay of a redial in seconds (0.05); it doubles up to
      reconnect_max    (5.0).

    Failover:
      lock_time        life of the failover lock in seconds (1.0).
      haredis_db_num   database of the keys that clients share (15); not the user's.
      adopt            nodes whose data may be discarded, as in `nodes`.
      elect            take part in failovers (True). With False, or when it lacks the rights, a
                       client only follows: it changes nothing on the servers.
      tune_nodes       set `repl-ping-replica-period 1` on the master, so that replicas notice a
                       silent master sooner (True).

    Seeing:
      debug_mode       one line a step (False).
      command_logging  one line a command (False).
      on_event         called with each event of txharedis.events, None for nobody.
    """

    db: int = field(default=0, metadata=_count(0))
    username: str | None = field(default=None, metadata=_TEXT)
    password: str | None = field(default=None, metadata=_TEXT, repr=False)
    passwords: Mapping[Any, str] = field(default_factory=dict, repr=False, hash=False)
    tls: Any = field(default=False, repr=False)
    tls_ca_file: str | None = field(default=None, metadata=_TEXT)
    tls_cert_file: str | None = field(default=None, metadata=_TEXT)
    tls_key_file: str | None = field(default=None, metadata=_TEXT)
    charset: str | None = field(default="utf-8", metadata=_TEXT)
    errors: str = field(default="strict", metadata=_TEXT)
    convert_numbers: bool = field(default=True, metadata=_FLAG)
    delivery: str = field(default=_Default("exactly-once"), metadata=_TEXT)
    acks: int = field(default=0, metadata=_count(0))
    ack_timeout: float = field(default=1.0, metadata=_seconds(0.001, 3600))
    command_timeout: float | None = field(default=None, metadata=_seconds(0.001))
    max_pending: int = field(default=100_000, metadata=_count(1))
    max_pending_bytes: int = field(default=256 * 1024 * 1024, metadata=_count(1))
    max_dedicated: int = field(default=128, metadata=_count(1))
    read_from: str = field(default=_Default("master"), metadata=_TEXT)
    auto_slaveok: bool = field(default=False, metadata=_FLAG)
    max_lag: int | str | timedelta | None = None
    heartbeat: float = field(default=1.0, metadata=_seconds(0.01, 3600))
    down_after: float = field(default=3.0, metadata=_seconds(0.05, 3600))
    survey_interval: float = field(default=10.0, metadata=_seconds(0.05, 3600))
    survey_timeout: float = field(default=0.5, metadata=_seconds(0.01, 60))
    connect_timeout: float = field(default=2.0, metadata=_seconds(0.01, 3600))
    reconnect_delay: float = field(default=0.05, metadata=_seconds(0.001, 3600))
    reconnect_max: float = field(default=5.0, metadata=_seconds(0.001, 3600))
    lock_time: float = field(default=1.0, metadata=_seconds(0.05, 60))
    haredis_db_num: int = field(default=15, metadata=_count(0, 62))
    adopt: tuple[Address, ...] = ()
    elect: bool = field(default=True, metadata=_FLAG)
    tune_nodes: bool = field(default=True, metadata=_FLAG)
    debug_mode: bool = field(default=False, metadata=_FLAG)
    command_logging: bool = field(default=False, metadata=_FLAG)
    on_event: Callable[[Event], object] | None = None
    _contexts: TlsContexts | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for option in fields(self):
            if option.metadata:
                _check(option.name, getattr(self, option.name), option.default, option.metadata)
        _check_delivery(self.delivery)
        self._settle_reads()
        if self.down_after <= 2 * self.heartbeat:
            raise InvalidOption(
                f"down_after={self.down_after!r} must be more than twice "
                f"heartbeat={self.heartbeat!r}"
            )
        if self.reconnect_max < self.reconnect_delay:
            raise InvalidOption(
                f"reconnect_max={self.reconnect_max!r} is below "
                f"reconnect_delay={self.reconnect_delay!r}"
            )
        if self.db == self.haredis_db_num:
            raise InvalidOption(
                f"db={self.db!r} is the database of our own keys (haredis_db_num); use another"
            )
        if self.charset is not None:
            try:
                "".encode(self.charset)
            except (LookupError, ValueError) as error:
                raise InvalidOption(f"charset={self.charset!r}: {error}") from None
        try:
            codecs.lookup_error(self.errors)
        except (LookupError, ValueError) as error:
            raise InvalidOption(f"errors={self.errors!r}: {error}") from None
        object.__setattr__(self, "passwords", _passwords(self.passwords))
        for name in ("username", "password"):
            if not _can_be_sent(getattr(self, name)):
                shown = _shown(name, getattr(self, name))
                raise InvalidOption(f"{name}={shown} cannot be sent as UTF-8")
        if self.username is not None and self.password is None and not self.passwords:
            raise InvalidOption(f"username={self.username!r} needs a password")
        if self.on_event is not None and not callable(self.on_event):
            raise InvalidOption(f"on_event={self.on_event!r} cannot be called")
        if isinstance(self.adopt, (str, bytes, int)) or not isinstance(self.adopt, Iterable):
            raise InvalidOption(f"adopt={displayed(self.adopt)} is not a list of nodes")
        object.__setattr__(self, "adopt", tuple(Address.parse(node) for node in self.adopt))
        files = (self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
        if self.tls is not False or any(files):
            object.__setattr__(self, "_contexts", TlsContexts(self.tls, *files))

    def _settle_reads(self) -> None:
        """Give `read_from` its value and `max_lag` its type: an int or a timedelta."""
        policy = check_read_policy(self.read_from)
        if self.auto_slaveok:
            if not isinstance(policy, _Default) and policy != "replica_preferred":
                raise InvalidOption(
                    f"auto_slaveok=True is read_from='replica_preferred', not {policy!r}"
                )
            policy = "replica_preferred"
        object.__setattr__(self, "read_from", str(policy))
        object.__setattr__(self, "max_lag", _lag(self.max_lag))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Options:
        """Options from keywords; an unknown name is an InvalidOption that names it."""
        known = {option.name for option in fields(cls) if option.init}
        for name in values:
            if name not in known:
                raise InvalidOption(f"unknown option {name!r} (known: {', '.join(sorted(known))})")
        return cls(**values)

    def fitted(self, nodes: Iterable[Address]) -> Options:
        """These options for these nodes; what does not fit is an InvalidOption that names it."""
        nodes = tuple(nodes)
        self._check_nodes(nodes)
        check_acks(self.acks, len(nodes))
        chosen = not isinstance(self.delivery, _Default)
        if chosen or len(nodes) > 1:
            return self
        return replace(self, delivery="at-most-once")

    def _check_nodes(self, nodes: Sequence[Address]) -> None:
        for node in self.passwords:
            if node not in nodes:
                raise InvalidOption(f"passwords names {node}, which is not one of the nodes")
        for node in nodes:
            if self.username is not None and self.password_of(node) is None:
                raise InvalidOption(f"username={self.username!r} needs a password for {node}")
            if node.path and len(nodes) > 1:
                raise InvalidOption(
                    f"{node} can only be the one node: other servers cannot replicate over a path"
                )
            if node.path and self._contexts is not None:
                raise InvalidOption(f"tls: no TLS goes over {node}")
            self.tls_context(node.host)

    def password_of(self, node: Address) -> str | None:
        """The password for this node, None for none."""
        return self.passwords.get(node, self.password)

    def tls_context(self, host: str) -> object | None:
        """What TLSMemoryBIOFactory takes for this host, None when there is no TLS."""
        return None if self._contexts is None else self._contexts.of(host)

    @property
    def terms(self) -> Terms:
        """The terms of the commands that ask for nothing special."""
        return Terms(
            read_from=self.read_from,
            delivery=self.delivery,
            acks=self.acks,
            timeout=self.command_timeout,
        )

    @property
    def max_lag_bytes(self) -> int | None:
        """The bytes that a replica may be behind; None where they do not matter."""
        return self.max_lag if isinstance(self.max_lag, int) else None

    @property
    def max_lag_seconds(self) -> float | None:
        """The seconds that a replica may be behind; None where they do not matter."""
        lag = self.max_lag
        return lag.total_seconds() if isinstance(lag, timedelta) else None

    @property
    def lease(self) -> float:
        """Seconds without word from a quorum after which writes stop.

        One and a quarter heartbeats (the quarter is for the jitter) less than `down_after`: the
        other side of a partition counts its `down_after` from the master's last answer, which can
        be a heartbeat older than the partition, and must not be the first to act.
        """
        return self.down_after - 1.25 * self.heartbeat

    @property
    def patience(self) -> float:
        """Seconds for which the answer to a write over the control link is waited for.

        A third of `down_after`: a heartbeat, up to half of it, may have passed before, and the link
        has to be another one before its silence counts.
        """
        return self.down_after / 3


def _check(name: str, value: object, default: object, rule: Mapping[str, Any]) -> None:
    if value is None and (default is None or name == "charset"):
        return
    kind = rule["kind"]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = {bool: "True or False", str: "a text", int: "an integer"}.get(kind, "a number")
        raise InvalidOption(f"{name}={_shown(name, value)} is not {wanted}")
    if "low" in rule:
        assert isinstance(value, (int, float))
        low, high = rule["low"], rule["high"]
        if not low <= value <= high or value == math.inf:
            bound = f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise InvalidOption(f"{name}={value!r} is out of range ({bound})")


def check_seconds(name: str, value: object) -> None:
    """Raise InvalidOption, which names it, when this is no time in seconds above 0."""
    _check(name, value, 0.0, _seconds(0.001))


def check_read_policy(policy: object) -> str:
    """The policy, if it is one; InvalidOption otherwise."""
    if not isinstance(policy, str) or policy not in READ_POLICIES:
        raise InvalidOption(f"read_from={policy!r} is not one of {', '.join(READ_POLICIES)}")
    return policy


def _check_delivery(delivery: str) -> None:
    if delivery not in DELIVERIES:
        raise InvalidOption(f"delivery={delivery!r} is not one of {', '.join(DELIVERIES)}")


def check_acks(acks: int, nodes: int) -> None:
    """InvalidOption when a group of so many nodes has too few replicas for that."""
    if acks >= nodes:
        raise InvalidOption(f"acks={acks!r}: a group of {nodes} has {nodes - 1} replicas")


def _lag(value: object) -> int | timedelta | None:
    if value is None:
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s)", value.strip(), re.ASCII)
        if match is None:
            raise InvalidOption(f"max_lag={value!r} is not a time such as '2s' or '500ms'")
        unit = 0.001 if match[2] == "ms" else 1.0
        try:
            value = timedelta(seconds=float(match[1]) * unit)
        except OverflowError:
            raise InvalidOption(f"max_lag={value!r} is out of range") from None
    if isinstance(value, timedelta):
        if value.total_seconds() < SHORTEST_LAG:
            raise InvalidOption(f"max_lag={value!r} is out of range ({SHORTEST_LAG} s or more)")
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidOption(f"max_lag={value!r} is neither bytes (an int) nor a time ('2s')")
    if value < 0:
        raise InvalidOption(f"max_lag={value!r} is out of range (0 or more)")
    return value


def _shown(name: str, value: object) -> str:
    return "(hidden)" if name == "password" else repr(value)


def _can_be_sent(text: str | None) -> bool:
    """Not so what came from the environment or a file in another encoding."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def _passwords(value: object) -> Mapping[Address, str]:
    if not isinstance(value, Mapping):
        shown = None if value is None else "(hidden)"
        raise InvalidOption(f"passwords={shown} is not a mapping of nodes to passwords")
    passwords: dict[Address, str] = {}
    for name, password in value.items():
        node = Address.parse(name)
        if not isinstance(password, str):
            raise InvalidOption(f"passwords has for {node} what is not a text")
        if not _can_be_sent(password):
            raise InvalidOption(f"passwords has for {node} what cannot be sent as UTF-8")
        if node in passwords:
            raise InvalidOption(f"passwords names {node} twice")
        passwords[node] = password
    return passwords


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Nodes(Value):
    """The configured nodes, and the options that stood in a URL beside them."""

    addresses: tuple[Address, ...]
    options: Mapping[str, Any] = field(repr=False)  # with the password


def parse_nodes(nodes: object = None) -> Nodes:
    """Read the `nodes` argument of create_client.

    A list of items as Address.parse takes them, one such item, None (127.0.0.1:6379), or a URL
    `redis://user:password@host:port/db?addr=host:port&addr=host:port`, `rediss://...` for TLS, or
    `unix://user:password@/path/to/socket?db=0`. An empty list, a duplicate or a bad item is an
    InvalidOption that names it.
    """
    options: dict[str, Any] = {}
    items: list[object]
    if nodes is None:
        items = [Address.parse("127.0.0.1")]
    elif isinstance(nodes, str) and "://" in nodes:
        items, options = _parse_url(nodes)
    elif isinstance(nodes, (str, int, Address)) or _is_pair(nodes):
        items = [nodes]
    elif isinstance(nodes, Iterable) and not isinstance(nodes, bytes):
        items = list(nodes)
    else:
        raise InvalidOption(f"nodes={displayed(nodes)} is not a list of nodes, a node or a URL")
    if not items:
        raise InvalidOption(f"nodes={nodes!r} is empty")
    addresses: list[Address] = []
    for item in items:
        address = Address.parse(item)
        if address in addresses:
            raise InvalidOption(f"node {address} is listed twice")
        addresses.append(address)
    return Nodes(tuple(addresses), options)


def _is_pair(nodes: object) -> bool:
    """Whether this is one ("host", port) rather than a list of two nodes.

    ("a", 6380) is a pair, ("a", "b:1") and ["a", 6380] are lists.
    """
    return (
        isinstance(nodes, tuple)
        and len(nodes) == 2
        and isinstance(nodes[0], str)
        and isinstance(nodes[1], int)
        and ":" not in nodes[0]
    )


def _without_credentials(url: str) -> str:
    """A URL for an error's text: others of its kind take a password as a parameter, too."""
    hidden = re.sub("(?<=://).*@", "***@", url, flags=re.DOTALL)
    return re.sub("([?&](?!addr=|db=)[^=&]*=)[^&]*", r"\1***", hidden)


def _parse_url(url: str) -> tuple[list[object], dict[str, Any]]:
    shown = _without_credentials(url)
    if "#" in url:
        raise InvalidOption(f"URL {shown!r} has a fragment (in a password, # is written %23)")
    match = re.fullmatch(r"(rediss?|unix)://([^/?]*)([^?]*)(?:\?(.*))?", url, re.DOTALL)
    if match is None:
        raise InvalidOption(
            f"URL {shown!r} does not begin with redis:// (or rediss:// for TLS, or unix://)"
        )
    scheme, netloc, path, query = match[1], match[2], match[3], match[4] or ""
    if "@" in path + query:
        raise InvalidOption(
            f"URL {shown!r} has an @ behind its hosts (in a password, / is written %2F and ? %3F)"
        )
    options: dict[str, Any] = {"tls": True} if scheme == "rediss" else {}
    credentials, at, place = netloc.rpartition("@")
    if at:
        username, colon, password = credentials.partition(":")
        if not colon or not password:
            raise InvalidOption(f"URL {shown!r} names a user without a password")
        options["password"] = unquote(password)
        if username:
            options["username"] = unquote(username)
    items: list[object]
    if scheme == "unix":
        if place or path in ("", "/"):
            raise InvalidOption(f"URL {shown!r} names no path (unix:///path/to/socket)")
        items, database, known = [f"unix:{unquote(path)}"], "", "db"
    else:
        database = path.strip("/")
        items = [unquote(item) for item in place.split(",")] if place else ["127.0.0.1"]
        known = "addr"
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != known:
            raise InvalidOption(f"URL {shown!r} has an unknown parameter {name!r} (known: {known})")
        if name == "db":
            database = value
        else:
            items.append(value)
    if database:
        if not re.fullmatch("[0-9]{1,9}", database):
            raise InvalidOption(f"URL {shown!r} has a bad database {database!r}")
        options["db"] = int(database)
    return items, options
