"""What the client says while it works: twisted.logger events, one line a step.

With `debug_mode` each line is also printed to standard error in this form, unless the process's
standard error already leads into Twisted's log (as under twistd):

    [19:28:00](#1) info: 127.0.0.1:6381 had highest opcounter (1441) of 2 nodes. congrats!
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from typing import Any

from twisted.logger import Logger, LoggingFile, LogLevel, formatEvent
from twisted.python.failure import Failure

__all__ = ["ClientLog", "printable"]

_numbers = itertools.count(1)


class ClientLog:
    """The voice of one client.

    The events carry `client` (its number in this process) and every field that the line is made
    of. Steps are said with `debug_mode` only; what an operator must know is always said, at the
    levels info, warn and error. `number` is the client's number.
    """

    def __init__(self, *, debug_mode: bool = False) -> None:
        self._logger = Logger(namespace="txharedis")
        self.number = next(_numbers)
        self._said: set[str] = set()
        self._debug = debug_mode

    def step(self, line: str, **fields: Any) -> None:
        """A step of the work, for those who want to watch it: said with `debug_mode` only."""
        if self._debug:
            self._say(LogLevel.info, line, fields)

    def info(self, line: str, **fields: Any) -> None:
        self._say(LogLevel.info, line, fields)

    def warn(self, line: str, **fields: Any) -> None:
        self._say(LogLevel.warn, line, fields)

    def error(self, line: str, **fields: Any) -> None:
        self._say(LogLevel.error, line, fields)

    def once(self, text: str, *, loud: bool = False) -> bool:
        """Say this, as an error when `loud`, unless it was said since `forget`.

        Returns whether it was said now.
        """
        if text in self._said:
            return False
        self._said.add(text)
        (self.error if loud else self.info)("{what}", what=text)
        return True

    def forget(self) -> None:
        """What was said once may be said again: the situation is a new one."""
        self._said.clear()

    def failure(self, text: str, failure: Failure | None = None) -> None:
        """An exception with its traceback (the one being handled when None): a defect."""
        self._logger.failure(text, failure)

    def _say(self, level: Any, line: str, fields: dict[str, Any]) -> None:
        self._logger.emit(level, line, client=self.number, **fields)
        if self._debug and not isinstance(sys.stderr, LoggingFile):
            text = printable(formatEvent({"log_format": line, **fields}))
            clock = time.strftime("%H:%M:%S")
            # Nobody may read it any more (`2>&1 | head`): no reason to stop working.
            with contextlib.suppress(OSError, ValueError):
                print(
                    f"[{clock}](#{self.number}) {level.name}: {text}", file=sys.stderr, flush=True
                )


def printable(text: str) -> str:
    """In one line, and without control characters: what servers say ends on terminals."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
