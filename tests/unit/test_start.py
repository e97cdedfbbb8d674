"""What the start costs, in counts: what an import brings, and round trips to the first reply.

When a bound is broken, measure with `python -m benchmarks start` before and after. If what is new
has to be there at the start, say in the commit what it costs, and raise the bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from txharedis import create_client
from txharedis.testing.simulation import World
from txharedis.testing.simulation.faults import write

# txredisapi brings Twisted and hiredis. `secrets` brings the others, where they are not there yet.
ALSO = {"secrets", "base64", "hmac", "random"}
PROGRAMS = {"cli", "demo", "metrics", "monitor", "testing", "tracing"}
MODULES = 76
GENERATED = 165
"""Functions that dataclasses make of texts: each is compiled at each import."""

PROBE = """
import json, sys
import txredisapi

before = set(sys.modules)
generated = 0

def observe(frame, event, argument):
    global generated
    if event == "c_call" and argument is exec:
        generated += frame.f_code.co_filename.endswith("dataclasses.py")

sys.setprofile(observe)
import txharedis
sys.setprofile(None)
print(json.dumps({"modules": sorted(set(sys.modules) - before), "generated": generated}))
"""


@pytest.fixture(scope="module")
def brought() -> dict[str, Any]:
    """What `import txharedis` brings where txredisapi is imported already."""
    done = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_import_brings_no_modules_but_our_own(brought: dict[str, Any]) -> None:
    others = {name for name in brought["modules"] if name.partition(".")[0] != "txharedis"}
    assert others <= ALSO


def test_import_brings_no_program(brought: dict[str, Any]) -> None:
    ours = [name for name in brought["modules"] if name.startswith("txharedis.")]
    assert not PROGRAMS & {name.split(".")[1] for name in ours}
    assert 50 < len(ours) <= MODULES


def test_import_generates_few_functions(brought: dict[str, Any]) -> None:
    assert 0 < brought["generated"] <= GENERATED


@pytest.mark.parametrize("nodes", [1, 3, 5])
@pytest.mark.parametrize("one_way", [0.0005, 0.02])
def test_round_trips_to_the_first_reply(nodes: int, one_way: float) -> None:
    """To connect, to shake hands, to survey, and the command itself."""
    with World(1) as world:
        world.trio(nodes)
        first = create_client(list(world.servers), reactor=world.process())
        world.wait(first.when_ready())
        world.run(2.0)  # repairs are done by then
        world.network.latency = (one_way, one_way)
        began = world.now
        client = create_client(list(world.servers), reactor=world.process())
        world.wait(client.get("key"))
        assert (world.now - began) / (2 * one_way) == pytest.approx(4.0, abs=0.1)


def test_first_reply_does_not_wait_for_a_node_that_hangs() -> None:
    with World(1) as world:
        hangs, *others = world.trio()
        first = create_client(list(world.servers), reactor=world.process())
        world.wait(first.when_ready())
        world.run(2.0)
        if first.master == str(hangs.name):
            hangs = others[0]
        hangs.pause()
        world.network.latency = (0.001, 0.001)
        began = world.now
        client = create_client(list(world.servers), reactor=world.process())
        world.wait(client.get("key"))
        assert (world.now - began) / 0.002 == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("hangs", [False, True])
def test_first_reply_does_not_wait_for_repairs(hangs: bool) -> None:
    with World(1) as world:
        world.trio()
        first = create_client(list(world.servers), reactor=world.process())
        world.wait(first.when_ready())
        world.run(2.0)
        one, other = (server for name, server in world.servers.items() if name != first.master)
        world.wait(first.disconnect())
        write(one, b"CONFIG", b"SET", b"replica-read-only", b"no")
        if hangs:
            other.pause()
        began = world.now
        client = create_client(list(world.servers), reactor=world.process())
        world.wait(client.get("key"))
        assert world.now - began < 0.05
