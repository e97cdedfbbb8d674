"""Each contract test runs on simulated servers and on each real one that is found."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import chosen_programs
from tests.servers.conftest import nothing_left_behind  # noqa: F401  (a fixture)

if TYPE_CHECKING:
    from tests.contract.lab import Lab

SIMULATED = "simulated"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lab" in metafunc.fixturenames:
        kinds = [SIMULATED, *chosen_programs(metafunc.config)]
        metafunc.parametrize("lab", kinds, ids=str, indirect=True)


@pytest.fixture
def lab(request: Any, reactor: Any, tmp_path: Path, nothing_left_behind: Any) -> Iterator[Lab]:  # noqa: F811
    from tests.contract.lab import RealLab, SimulatedLab

    if request.param == SIMULATED:
        yield SimulatedLab(seed=1)
    else:
        yield RealLab(reactor, request.param, tmp_path, nothing_left_behind)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    """A test that is a coroutine is run by its laboratory."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    arguments["lab"].run(pyfuncitem.obj(**arguments))
    return True
