"""What `twistd haredis-monitor` takes, and the service that it makes of it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from txharedis.errors import InvalidOption
from txharedis.monitor import DEFAULT_ENDPOINT
from txharedis.options import Options as ClientOptions
from txharedis.options import parse_nodes

__all__ = ["Options", "makeService"]

_LONGEST_FILE = 64 * 1024


class Options(usage.Options):
    """The options; a bad one is a UsageError that names it.

    After parsing, `nodes` and `client_options` are what FailoverService takes, and `token` is what
    POST asks for.
    """

    longdesc = (
        "Watches a group of Redis or Valkey servers, takes part in their failovers, and serves a"
        " status page, probes and metrics. The nodes are also read from the environment variable"
        " HAREDIS_NODES (separated by spaces or commas, or one URL), the password from"
        " HAREDIS_PASSWORD; an option on the command line wins over the file of --config, and that"
        " over the environment."
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
            self._read_config(self["config"])
        self["http"] = self["http"] or DEFAULT_ENDPOINT
        self.nodes = self._given_nodes()
        self.client_options = self._given_options()
        _named("--node", self._check_client)
        self._check_endpoint()
        if self["token-file"] is not None:
            _named("--token-file", self._read_token)
        for name in self["allow-host"]:
            if not name or set(name) & set("/@ \t:") or not name.isprintable():
                raise usage.UsageError(f"--allow-host={name!r} is not the name of a host")

    def _read_config(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                given = tomllib.loads(file.read(_LONGEST_FILE + 1)[:_LONGEST_FILE].decode())
        except (OSError, ValueError) as error:
            raise usage.UsageError(f"--config={path!r}: {error}") from None
        lists = ("node", "allow-host")
        flags = tuple(str(flag[0]) for flag in self.optFlags)
        texts = tuple(str(known[0]) for known in self.optParameters if known[0] != "config")
        for name, value in given.items():
            where = f"--config={path!r}: {name}"
            if name in lists:
                items = [value] if isinstance(value, str) else value
                if not isinstance(items, list) or not all(isinstance(i, str) for i in items):
                    raise usage.UsageError(f"{where} is not a list of texts")
                self[name] = self[name] or items
            elif name in flags:
                if not isinstance(value, bool):
                    raise usage.UsageError(f"{where} is neither true nor false")
                self[name] = self[name] or int(value)
            elif name in texts:
                if not isinstance(value, int if name == "db-num" else str) or value is True:
                    raise usage.UsageError(
                        f"{where} is not {'an integer' if name == 'db-num' else 'a text'}"
                    )
                if self[name] is None:
                    self[name] = str(value)
            else:
                known = ", ".join(sorted((*lists, *flags, *texts)))
                raise usage.UsageError(f"--config={path!r}: unknown key {name!r} (known: {known})")

    def _given_nodes(self) -> Any:
        name, given = "--node", self["node"]
        if not given:
            name, given = "HAREDIS_NODES", os.environ.get("HAREDIS_NODES", "").strip()
            given = [given] if "://" in given else given.replace(",", " ").split()
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
        options: dict[str, Any] = {"elect": not self["no-elect"]}
        if self["user"] is not None:
            options["username"] = self["user"]
        if self["password-file"] is not None:
            options["password"] = _first_line("password-file", self["password-file"])
        elif os.environ.get("HAREDIS_PASSWORD"):
            options["password"] = os.environ["HAREDIS_PASSWORD"]
        for name in ("tls-ca-file", "tls-cert-file", "tls-key-file"):
            if self[name] is not None:
                options[name.replace("-", "_")] = self[name]
        if self["tls"]:
            options["tls"] = True
        if self["db-num"] is not None:
            if not self["db-num"].isdecimal() or int(self["db-num"]) > 62:
                raise usage.UsageError(f"--db-num={self['db-num']!r} is not a number from 0 to 62")
            options["haredis_db_num"] = int(self["db-num"])
        if self["verbose"]:
            options["debug_mode"] = True
        return options

    def _read_token(self) -> None:
        from txharedis.monitor.actions import read_token

        self.token = read_token(self["token-file"])

    def _check_client(self) -> None:
        parsed = parse_nodes(self.nodes)
        ClientOptions.from_mapping({**parsed.options, **self.client_options}).fitted(
            parsed.addresses
        )

    def _check_endpoint(self) -> None:
        from twisted.internet import reactor

        try:
            serverFromString(reactor, self["http"])
        except (ValueError, TypeError, LookupError, OSError) as error:
            raise usage.UsageError(
                f"--http={self['http']!r} is not an endpoint such as {DEFAULT_ENDPOINT}: {error}"
            ) from None


_OWN_NAMES = {
    "username": "--user",
    "password": "--password-file",
    "haredis_db_num": "--db-num",
    "tls_ca_file": "--tls-ca-file",
    "tls_cert_file": "--tls-cert-file",
    "tls_key_file": "--tls-key-file",
    "tls": "--tls",
}


def _named(option: str, check: Callable[[], object]) -> None:
    """Run a check of the client's options: its InvalidOption becomes a UsageError."""
    try:
        check()
    except InvalidOption as error:
        text = str(error)
        for name, own in _OWN_NAMES.items():
            if text.startswith((f"{name}=", f"{name}:")):
                option = own
                break
        named = text.startswith(option)
        raise usage.UsageError(text if named else f"{option}: {text}") from None


def _first_line(option: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as lines:
            line = lines.readline(_LONGEST_FILE).rstrip("\r\n")
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
