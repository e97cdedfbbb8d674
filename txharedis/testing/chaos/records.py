"""What a client process writes down, line by line, and what can be read of it when it is dead.

Each line is a JSON list that is in the file when the call returns: what a process has submitted is
known also when it is killed in the next moment. Times are `time.monotonic()`, which all processes
of a machine share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Recorder", "Tail"]


class Recorder:
    """The pen of one process. `executed` of a failure is as in txharedis.errors."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def submitted(self, number: int, command: str, key: str, value: object) -> None:
        """The command `number` is about to be given to the client."""
        self._write("submitted", number, command, key, value)

    def acknowledged(self, number: int, reply: object) -> None:
        self._write("acknowledged", number, reply)

    def failed(self, number: int, error: str, executed: bool | None) -> None:
        self._write("failed", number, error, executed)

    def said(self, kind: str, **fields: object) -> None:
        """Anything else that happened."""
        self._write("said", kind, fields)

    def _write(self, *words: object) -> None:
        line = json.dumps([time.monotonic(), *words], default=str, separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")


class Tail:
    """Reads a file of records while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def news(self) -> Iterator[list[Any]]:
        """The records since the last call. A line that is not whole yet has to wait."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)
