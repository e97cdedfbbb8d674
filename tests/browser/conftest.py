"""A browser, a monitor, and the servers that it watches."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_twisted

from tests.servers.conftest import (  # noqa: F401  (fixtures)
    form,
    group,
    make_servers,
    nothing_left_behind,
    trio,
    watch,
)

if TYPE_CHECKING:
    from tests.browser.programs import Browser, MonitorProcess

MakeMonitor = Callable[[Sequence[str]], "MonitorProcess"]


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the screenshots are kept: HAREDIS_SCREENSHOTS, or a directory of this run."""
    named = os.environ.get("HAREDIS_SCREENSHOTS")
    place = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    place.mkdir(parents=True, exist_ok=True)
    return place


@pytest.fixture
def browser_programs() -> tuple[str, str]:
    """The paths of chromium and of its driver; the test is skipped where one is missing."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not both installed")
    pytest.importorskip("selenium", reason="selenium is not installed")
    return browser, driver


@pytest_twisted.async_yield_fixture
async def browser(
    browser_programs: tuple[str, str],
    tmp_path: Path,
    nothing_left_behind: object,  # noqa: F811
) -> AsyncIterator[Browser]:
    """A browser that shows nothing yet, closed after the test."""
    from tests.browser.programs import Browser

    made = Browser(*browser_programs, tmp_path / "profile")
    try:
        await made.start()
        yield made
    finally:
        await made.close()


@pytest.fixture
def make_monitor(tmp_path: Path, nothing_left_behind: object) -> Iterator[MakeMonitor]:  # noqa: F811
    """`make_monitor(nodes)`: a monitor that is not started yet, killed after the test."""
    from tests.browser.programs import MonitorProcess

    made: list[MonitorProcess] = []

    def make(nodes: Sequence[str]) -> MonitorProcess:
        made.append(MonitorProcess(nodes, tmp_path / f"monitor{len(made)}"))
        return made[-1]

    yield make
    for monitor in made:
        monitor.kill()
