"""Which server programs the tests run on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

# How long one example takes says nothing on a machine that runs servers beside.
settings.register_profile("txharedis", deadline=None)
settings.load_profile("txharedis")

# The conftest files import txharedis inside functions: txredisapi fetches the global reactor when
# it is imported, and pytest-twisted has to choose that one first (--reactor).
if TYPE_CHECKING:
    from txharedis.testing.servers import ServerProgram


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--server",
        metavar="NAME",
        help="run only on this server: redis, valkey, or with its version, as redis-7.0.15; or"
        " default, on the one that the demo takes",
    )


def chosen_programs(config: pytest.Config) -> list[ServerProgram]:
    """The programs of this machine that ``--server`` names; all by default; not none."""
    from txharedis.testing.servers import default_program, find_programs

    name = config.getoption("--server")
    if name == "default":
        return [default_program()] if find_programs() else []
    chosen = [program for program in find_programs() if name in (None, program.name, str(program))]
    if name and not chosen:
        found = ", ".join(map(str, find_programs())) or "none"
        raise pytest.UsageError(f"no server program {name!r} here; found: {found}")
    return chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_program" in metafunc.fixturenames:
        metafunc.parametrize("server_program", chosen_programs(metafunc.config), ids=str)


def pytest_configure(config: pytest.Config) -> None:
    # Where the fresh histories begin: the same in all processes of pytest-xdist.
    os.environ.setdefault("HAREDIS_SEEDS", str(int.from_bytes(os.urandom(4), "big")))


def pytest_report_header(config: pytest.Config) -> list[str]:
    from twisted.internet import reactor

    found = [f"{program} ({program.path})" for program in chosen_programs(config)]
    return [
        f"servers: {', '.join(found) or 'NONE FOUND, the tests on servers are skipped'}",
        f"reactor: {type(reactor).__name__}",
        f"fresh histories: HAREDIS_SEEDS={os.environ['HAREDIS_SEEDS']}",
    ]


@pytest.fixture(scope="session")
def reactor() -> Any:
    """The reactor that pytest-twisted runs."""
    from twisted.internet import reactor

    return reactor
