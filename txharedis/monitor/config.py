"""The file of --config: the options of the monitor by their names, and those of its client."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from txharedis.errors import InvalidOption

__all__ = ["KEYS", "read_config"]

#: What a file may say, and of what type.
KEYS: Mapping[str, type | tuple[type, ...]] = {
    "node": list,
    "allow-host": list,
    "http": str,
    "user": str,
    "password-file": str,
    "tls-ca-file": str,
    "tls-cert-file": str,
    "tls-key-file": str,
    "token-file": str,
    "db-num": int,
    "no-elect": bool,
    "tls": bool,
    "verbose": bool,
    "db": int,
    "adopt": list,
    "connect-timeout": (int, float),
    "survey-timeout": (int, float),
    "heartbeat": (int, float),
    "down-after": (int, float),
    "lock-time": (int, float),
    "tune-nodes": bool,
}

#: The names that the files of the `haredis` command have for the same.
_ALIASES = {"nodes": "node", "username": "user", "haredis-db-num": "db-num"}
_WORDS = {str: "a text", int: "an integer", bool: "true or false", list: "a list of texts"}


def read_config(path: str) -> dict[str, Any]:
    """What the file says, by the names in KEYS; one text is a list of one where a list is needed.

    Dashes may be underscores. Files that it names stand beside it when they are not absolute.
    InvalidOption names the file, and the key that is wrong.
    """
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise InvalidOption(f"--config={path!r}: {error}") from None
    given: dict[str, Any] = {}
    for written, value in values.items():
        name = written.replace("_", "-")
        name = _ALIASES.get(name, name)
        where = f"--config={path!r}: {written}"
        if name == "password":
            raise InvalidOption(f"{where} is not written here: use password-file")
        if name not in KEYS:
            known = ", ".join(sorted(KEYS))
            raise InvalidOption(f"--config={path!r}: unknown key {written!r} (known: {known})")
        if name in given:
            raise InvalidOption(f"{where}: {name!r} stands there twice")
        given[name] = _checked(where, value, KEYS[name])
        if name.endswith("-file"):
            given[name] = str(Path(path).parent / value)
    return given


def _checked(where: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    if kind is list:
        value = [value] if isinstance(value, str) else value
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
    else:
        good = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not good:
        word = "a number" if isinstance(kind, tuple) else _WORDS[kind]
        raise InvalidOption(f"{where} is not {word}")
    return value
