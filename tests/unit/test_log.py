"""What debug_mode prints."""

import io
import re

import pytest

from txharedis.log import ClientLog


class NobodyReads(io.StringIO):
    """The write end of a pipe whose reader has gone away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_debug_mode_prints_the_time_the_client_and_the_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ClientLog(debug_mode=True).step("{node} had {why}. congrats!", node="127.0.0.1:6381", why="it")
    shown = capsys.readouterr().err
    line = r"\[\d\d:\d\d:\d\d\]\(#\d+\) info: 127\.0\.0\.1:6381 had it\. congrats!\n"
    assert re.fullmatch(line, shown), shown


def test_line_that_nobody_reads_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", NobodyReads())
    ClientLog(debug_mode=True).info("a line")


def test_debug_mode_shows_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    ClientLog(debug_mode=True).info("{node} says: {why}", node="n:1", why="NOAUTH \x1b[2J")
    assert "n:1 says: NOAUTH ?[2J" in capsys.readouterr().err
