"""Which group, and how to get in: from the command line, the environment and a file.

What the command line says wins over the environment, and that over the file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from txharedis.errors import InvalidOption
from txharedis.monitor.config import read_config
from txharedis.options import Options, check_seconds, parse_nodes
from txharedis.topology import Address

__all__ = ["Settings", "add_node_options", "read_settings"]

#: The options of create_client that have another name in a file.
_OPTIONS = {"user": "username", "db-num": "haredis_db_num"}
#: What a file says to haredis-monitor alone.
_OF_THE_MONITOR = frozenset({"http", "allow-host", "token-file", "no-elect", "verbose"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The nodes, the options of the client, and how long to wait, in seconds."""

    nodes: tuple[Address, ...]
    options: Mapping[str, Any] = field(repr=False)  # with the password
    timeout: float = 10.0

    @property
    def watching(self) -> Mapping[str, Any]:
        """The options of a client that changes nothing on the servers and sees what is new."""
        return {
            "survey_interval": 1.0,
            **self.options,
            "elect": False,
            "tune_nodes": False,
            # The journal's script would be loaded.
            "delivery": "at-most-once",
        }

    @property
    def acting(self) -> Mapping[str, Any]:
        """The options of a client that takes part in failovers."""
        return {**self.options, "delivery": "at-most-once"}


def add_node_options(parser: argparse.ArgumentParser, *, waits_for: str) -> None:
    """The arguments that all commands about a group have."""
    parser.add_argument(
        "nodes",
        nargs="*",
        metavar="NODE",
        help="all nodes of the group as host:port, or one URL redis://host:port?addr=host:port"
        " (rediss:// for TLS); by default those of the environment variable HAREDIS_NODES, else"
        " those of the configuration file",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a TOML file with nodes and options, as haredis-monitor has it (default: that of"
        " HAREDIS_CONFIG, if set)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help=f"how long to wait for {waits_for} (default: 10)",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="the ACL user; its password is read from HAREDIS_PASSWORD, or from --password-file",
    )
    parser.add_argument(
        "--password-file", metavar="FILE", help="the password is the first line of this file"
    )
    parser.add_argument("--tls", action="store_true", help="encrypt, and verify the certificates")
    for name, what in (
        ("ca", "the authorities to trust"),
        ("cert", "the client's certificate"),
        ("key", "its key"),
    ):
        parser.add_argument(f"--tls-{name}-file", metavar="FILE", help=f"PEM file of {what}")


def read_settings(
    given: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> Settings:
    """What holds of all that was said; InvalidOption names what is wrong, and where."""
    file = given.config or environment.get("HAREDIS_CONFIG") or None
    layers = [
        _of_file(file) if file is not None else _Layer(),
        _of_environment(environment),
        _of_command_line(given),
    ]
    named = [layer for layer in layers if layer.nodes is not None]
    if not named:
        raise InvalidOption(
            "the following arguments are required: NODE (or set HAREDIS_NODES, or name nodes in"
            " the file of --config)"
        )
    parsed = parse_nodes(named[-1].nodes)
    options: dict[str, Any] = {}
    for layer in layers:
        options |= parsed.options if layer is named[-1] else {}
        options |= layer.options
    try:
        Options.from_mapping(options).fitted(parsed.addresses)
    except InvalidOption as error:
        raise InvalidOption(
            str(error) + (f" (see also {file})" if layers[0].options else "")
        ) from None
    check_seconds("timeout", given.timeout)
    return Settings(parsed.addresses, options, given.timeout)


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one source says; `nodes` is None where it names none."""

    nodes: object = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def _of_command_line(given: argparse.Namespace) -> _Layer:
    nodes: Sequence[str] = given.nodes
    if any("@" in node for node in nodes):
        raise InvalidOption(
            "a password on the command line can be read by everybody on this machine: use"
            " HAREDIS_PASSWORD or --password-file"
        )
    options: dict[str, Any] = {"username": given.user, "debug_mode": vars(given).get("verbose")}
    for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
        options[name] = getattr(given, name)
    options["tls"] = given.tls or None
    if given.password_file is not None:
        options["password"] = _password("--password-file", given.password_file)
    said = {name: value for name, value in options.items() if value is not None}
    return _Layer(_one_or_many(nodes), said)


def _of_environment(environment: Mapping[str, str]) -> _Layer:
    text = environment.get("HAREDIS_NODES", "").strip()
    # A URL may have commas of its own.
    nodes = [text] if "://" in text else text.replace(",", " ").split()
    password = environment.get("HAREDIS_PASSWORD")
    return _Layer(_one_or_many(nodes), {"password": password} if password else {})


def _one_or_many(nodes: Sequence[str]) -> object:
    return (nodes[0] if len(nodes) == 1 else list(nodes)) if nodes else None


def _of_file(file: str) -> _Layer:
    values = read_config(file)
    nodes = _one_or_many(values.pop("node", []))
    if "password-file" in values:
        password = _password(f"--config={file!r}: password-file", values.pop("password-file"))
        values["password"] = password
    return _Layer(
        nodes,
        {
            _OPTIONS.get(name, name.replace("-", "_")): value
            for name, value in values.items()
            if name not in _OF_THE_MONITOR
        },
    )


def _password(source: str, file: str) -> str:
    try:
        with open(file, encoding="utf-8") as lines:
            password = lines.readline().rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise InvalidOption(f"{source}={file!r}: {error}") from None
    if not password:
        raise InvalidOption(f"{source}={file!r} has an empty first line")
    return password
