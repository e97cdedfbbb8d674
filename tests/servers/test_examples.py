"""Each example does what it says."""

import os
import sys
from pathlib import Path

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from txharedis.testing.servers import LocalServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


async def run(example: str, *args: str) -> tuple[str, str, int]:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    out, err, status = await getProcessOutputAndValue(
        sys.executable, [str(EXAMPLES / example), *args], env=environment, reactor=reactor
    )
    return out.decode(), err.decode(), status


@pytest_twisted.ensureDeferred
async def test_basic_writes_and_reads_its_rounds(trio: list[LocalServer]) -> None:
    out, err, status = await run("basic.py", *(server.address for server in trio))
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("round 0 from 127.0.0.1:")
    assert lines[-1].startswith("round 19 from 127.0.0.1:")
    assert "congrats!" in err
