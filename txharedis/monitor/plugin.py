"""What `twistd haredis-monitor` takes, and the service that it makes of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from txharedis.errors import InvalidOption
from txharedis.monitor import DEFAULT_ENDPOINT
from txharedis.monitor.config import read_config
from txharedis.options import Options as ClientOptions
from txharedis.options import parse_nodes

__all__ = ["Options", "makeService"]

_LONGEST_LINE = 4096
_FLAGS = ("no-elect", "tls", "verbose")
#: What only the file can say of the client.
_OF_THE_CLIENT = (
    *("db", "adopt", "tune-nodes"),
    *("connect-timeout", "survey-timeout", "heartbeat", "down-after", "lock-time"),
)
#: The client's names for our options.
_CLIENTS_NAMES = {
    "user": "username",
    "password-file": "password",
    "db-num": "haredis_db_num",
    "tls-ca-file": "tls_ca_file",
    "tls-cert-file": "tls_cert_file",
    "tls-key-file": "tls_key_file",
    "tls": "tls",
}


class Options(usage.Options):
    """The options; a bad one is a UsageError that names it.

    After parsing, `nodes` and `client_options` are what FailoverService takes, and `token` is what
    POST asks for.
    """

    longdesc = (
        "Watches a group of Redis or Valkey servers, takes part in their failovers, and serves a"
        " status page, probes and metrics. The nodes are also read from the environment variable"
        " HAREDIS_NODES (separated by spaces or commas, or one URL), the password from"
        " HAREDIS_PASSWORD. The command line wins over the environment, and that over the file of"
        " --config."
    )
    optParameters = (
        ["http", None, None, f"where to serve: a Twisted endpoint [default: {DEFAULT_ENDPOINT}]"],
        ["user", None, None, "the ACL user"],
        ["password-file", None, None, "the password is the first line of this file"],
        ["tls-ca-file", None, None, "PEM file of the authorities to trust; means --tls"],
        ["tls-cert-file", None, None, "PEM file of the client's certificate; means --tls"],
        ["tls-key-file", None, None, "PEM file of its key; means --tls"],
        [
            "token-file",
            None,
            None,
            "the first line of this file is the token for POST [default: no POST]",
        ],
        ["db-num", None, None, "the database of the keys that clients share [default: 15]"],
        ["config", None, None, "a TOML file with these options by the same names"],
    )
    optFlags = (
        ["no-elect", None, "only watch: take no part in failovers"],
        ["tls", None, "encrypt, and verify the certificates"],
        ["verbose", None, "log each step"],
    )

    def __init__(self) -> None:
        super().__init__()
        self["node"] = []
        self["allow-host"] = []
        self.nodes: Any = []
        self.client_options: dict[str, Any] = {}
        self.token: str | None = None
        self._file: dict[str, Any] = {}

    def opt_node(self, value: str) -> None:
        """a node of the group, as host:port; once for each, or one URL redis://host:port?addr=..."""
        self["node"].append(value)

    def opt_allow_host(self, value: str) -> None:
        """a name beside localhost that a browser may call this server by; once for each"""
        self["allow-host"].append(value)

    def postOptions(self) -> None:
        missing = [name for name in ("klein", "prometheus_client") if find_spec(name) is None]
        if missing:
            raise usage.UsageError(
                f'not installed: {", ".join(missing)}; run  pip install "txharedis[monitor]"'
            )
        if self["config"] is not None:
            _named("--config", self._read_config)
        self["http"] = self["http"] or self._file.get("http") or DEFAULT_ENDPOINT
        self.nodes = self._given_nodes()
        self.client_options = self._given_options()
        self._check_client()
        self._check_endpoint()
        if self["token-file"] is not None:
            _named("--token-file", self._read_token)
        for name in self["allow-host"]:
            if not name or set(name) & set("/@ \t:") or not name.isprintable():
                raise usage.UsageError(f"--allow-host={name!r} is not the name of a host")

    def _read_config(self) -> None:
        self._file = read_config(self["config"])
        for name, value in self._file.items():
            # Nodes and credentials: the environment wins over the file.
            if name in ("allow-host", "token-file", *_FLAGS):
                self[name] = self[name] or value

    def _given_nodes(self) -> Any:
        text = os.environ.get("HAREDIS_NODES", "").strip()
        sources = (
            ("--node", self["node"]),
            # A URL may have commas of its own.
            ("HAREDIS_NODES", [text] if "://" in text else text.replace(",", " ").split()),
            (f"--config={self['config']!r}: node", self._file.get("node", [])),
        )
        name, given = next((source for source in sources if source[1]), ("", []))
        if not given:
            raise usage.UsageError("--node is missing: name every node of the group")
        if name == "--node" and any("@" in node for node in given):
            raise usage.UsageError(
                "--node: a password on the command line can be read by everybody on this machine:"
                " use HAREDIS_PASSWORD or --password-file"
            )
        nodes = given[0] if len(given) == 1 and "://" in given[0] else given
        _named(name, lambda: parse_nodes(nodes))
        return nodes

    def _given_options(self) -> dict[str, Any]:
        file = self._file
        options: dict[str, Any] = {
            name.replace("-", "_"): file[name] for name in _OF_THE_CLIENT if name in file
        }
        options["elect"] = not self["no-elect"]
        password_file = self["password-file"]
        password = os.environ.get("HAREDIS_PASSWORD")
        if password_file is None and not password:
            password_file = file.get("password-file")
        if password_file is not None:
            password = _first_line("password-file", password_file)
        if password:
            options["password"] = password
        for name in ("user", "tls-ca-file", "tls-cert-file", "tls-key-file", "db-num"):
            value = file.get(name) if self[name] is None else self[name]
            if value is not None:
                options[_CLIENTS_NAMES.get(name, name.replace("-", "_"))] = value
        number = str(options.get("haredis_db_num", 15))
        if not number.isdecimal() or int(number) > 62:
            raise usage.UsageError(f"--db-num={number!r} is not a number from 0 to 62")
        options["haredis_db_num"] = int(number)
        if int(number) == 0:
            options.setdefault("db", 1)  # another one, which is not used
        if self["tls"]:
            options["tls"] = True
        if self["verbose"]:
            options["debug_mode"] = True
        return options

    def _read_token(self) -> None:
        from txharedis.monitor.actions import read_token

        self.token = read_token(self["token-file"])

    def _check_client(self) -> None:
        def check() -> None:
            parsed = parse_nodes(self.nodes)
            ClientOptions.from_mapping({**parsed.options, **self.client_options}).fitted(
                parsed.addresses
            )

        try:
            _named("--node", check)
        except usage.UsageError as error:
            text = str(error).removeprefix("--node: ")
            if text.startswith(tuple(name.replace("-", "_") for name in _OF_THE_CLIENT)):
                raise usage.UsageError(f"--config={self['config']!r}: {text}") from None
            raise

    def _check_endpoint(self) -> None:
        from twisted.internet import reactor

        try:
            serverFromString(reactor, self["http"])
        except (ValueError, TypeError, LookupError, OSError) as error:
            raise usage.UsageError(
                f"--http={self['http']!r} is not an endpoint such as {DEFAULT_ENDPOINT}: {error}"
            ) from None


def _named(option: str, check: Callable[[], object]) -> None:
    """Run a check of the client's options: its InvalidOption becomes a UsageError."""
    try:
        check()
    except InvalidOption as error:
        text = str(error)
        for own, name in _CLIENTS_NAMES.items():
            if re.match(rf"{name}\b", text):
                option = f"--{own}"
        named = text.startswith(option)
        raise usage.UsageError(text if named else f"{option}: {text}") from None


def _first_line(option: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as lines:
            line = lines.readline(_LONGEST_LINE).rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise usage.UsageError(f"--{option}={path!r}: {error}") from None
    if not line:
        raise usage.UsageError(f"--{option}={path!r} has an empty first line")
    return line


def makeService(options: Options) -> MultiService:
    """The monitor that these options ask for."""
    from twisted.internet import reactor

    from txharedis.monitor.service import monitor_service

    return monitor_service(
        options.nodes,
        reactor,
        http=options["http"],
        token=options.token,
        allow_hosts=options["allow-host"],
        **options.client_options,
    )
