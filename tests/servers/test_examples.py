"""Each example does what it says."""

import os
import sys
from pathlib import Path

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from tests.support import eventually
from txharedis.testing.servers import LocalServer

TWISTD = "from twisted.scripts.twistd import run; run()"
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


class Twistd(ProcessProtocol):
    """A .tac file under `twistd -n`, with what it has logged so far."""

    def __init__(self, example: str, directory: Path, **environment: str) -> None:
        self.log = ""
        self.ended: Deferred[None] = Deferred()
        reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-c", TWISTD, "-noy", str(EXAMPLES / example), "--pidfile="],
            env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **environment},
            path=str(directory),
        )

    def outReceived(self, data: bytes) -> None:
        self.log += data.decode()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)

    async def stop(self) -> None:
        if not self.ended.called:
            self.transport.signalProcess("INT")
        await self.ended.addTimeout(10, reactor)


@pytest_twisted.ensureDeferred
async def test_pubsub_goes_on_when_the_master_is_killed(
    group: list[LocalServer], tmp_path: Path
) -> None:
    nodes = " ".join(server.address for server in group)
    service = Twistd("pubsub.tac", tmp_path, NODES=nodes)
    try:
        await eventually(lambda: " from 127.0.0.1:" in service.log)
        group[0].kill()
        await eventually(lambda: "s may be missing" in service.log)
        heard = service.log.count(" from 127.0.0.1:")
        await eventually(lambda: service.log.count(" from 127.0.0.1:") >= heard + 2)
    finally:
        await service.stop()
    assert "Traceback" not in service.log
    assert "Server Shut Down" in service.log
