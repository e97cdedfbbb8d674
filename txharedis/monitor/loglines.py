"""The newest lines of the client's log, kept for the page."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

__all__ = ["LogLines"]

KEPT = 200
LONGEST = 500  # characters of one line

_LEVELS = {LogLevel.warn: "warn", LogLevel.error: "error", LogLevel.critical: "error"}


@implementer(ILogObserver)
class LogLines:
    """What is logged by txharedis in this process from `start` to `stop`; `on_line` gets each line.

    A line is {"at": seconds since 1970, "level": "info", "warn" or "error", "text": ...}.
    """

    def __init__(self, on_line: Callable[[dict[str, Any]], object]) -> None:
        self._on_line = on_line
        self._lines: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._telling = False

    def start(self) -> None:
        globalLogPublisher.addObserver(self)  # type: ignore[arg-type]

    def stop(self) -> None:
        globalLogPublisher.removeObserver(self)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """As `GET /log` gives it."""
        return {"lines": list(self._lines)}

    def __call__(self, event: LogEvent) -> None:
        namespace = event.get("log_namespace") or ""
        if namespace != "txharedis" and not namespace.startswith("txharedis."):
            return
        line = {
            "at": round(float(event.get("log_time", 0.0)), 3),
            "level": _LEVELS.get(event.get("log_level"), "info"),
            "text": _text(event),
        }
        self._lines.append(line)
        if self._telling:
            return  # a listener that logs must not hear itself for ever
        self._telling = True
        try:
            self._on_line(line)
        finally:
            self._telling = False


def _text(event: LogEvent) -> str:
    text = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None:
        text = f"{text}: {failure.value!r}"
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
