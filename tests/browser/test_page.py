"""The status page, as a browser shows it: three real servers, a real monitor, a real Chromium."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.browser.accessibility import CONTRAST, NAMES
from tests.browser.conftest import MakeMonitor
from tests.browser.programs import DESKTOP, PHONE, Browser, MonitorProcess
from tests.groups import WatchedClient
from tests.support import eventually
from txharedis.testing._loopback import ReservedPort
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred

NOTICED = 2.0
"""Seconds after a kill within which the page shows the new master."""

FIRST_SAMPLE = """
const slider = document.querySelector("#chart-writes [role=slider]");
slider.focus({preventScroll: true});
slider.dispatchEvent(new KeyboardEvent("keydown", {key: "Home", bubbles: true}));
const first = slider.getAttribute("aria-valuetext");
slider.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
slider.blur();
return [first.slice(0, 8), Number(slider.getAttribute("aria-valuemax")) + 1];
"""


async def opened(browser: Browser, monitor: MonitorProcess, state: str = "Healthy") -> None:
    """Start the monitor, and show its page in this state."""
    await monitor.start()
    await browser.look(DESKTOP)
    await browser.open(monitor.url)
    await browser.shows("#state", state)


async def first_sample(browser: Browser) -> tuple[str, int]:
    """The time of the charts' first sample, and how many there are."""
    first, count = await browser.run(FIRST_SAMPLE)
    return first, count


async def samples(browser: Browser, count: int) -> None:
    """Wait until the charts have so many samples."""

    async def there() -> bool:
        return (await first_sample(browser))[1] >= count

    await eventually(there, every=0.1)


async def writing(client: Any) -> None:
    """Write, one write after the other, until the client is stopped."""
    from txharedis.errors import ServiceStopped

    try:
        while True:
            await client.incr("written")
    except ServiceStopped:
        pass


def only_lost_links(complaints: list[str]) -> bool:
    return all("net::ERR_" in line and "/events" in line for line in complaints)


@on_reactor
async def test_new_master_is_shown_within_two_seconds_and_the_charts_stay(
    browser: Browser,
    make_monitor: MakeMonitor,
    group: list[LocalServer],
    watch: Callable[..., WatchedClient],
) -> None:
    monitor = make_monitor([server.address for server in group])
    await opened(browser, monitor)
    written = Deferred.fromCoroutine(writing(watch(group).client))
    old = group[0].address
    assert await browser.text("#master strong") == old
    assert await browser.run("return document.title;") == "healthy - haredis"
    await samples(browser, 4)
    first, count = await first_sample(browser)

    killed = time.monotonic()
    group[0].kill()

    async def another() -> str:
        shown = await browser.text("#master strong")
        return shown if shown != old else ""

    new = await eventually(another)
    took = time.monotonic() - killed
    assert new in {server.address for server in group[1:]}
    assert took < NOTICED

    await browser.shows("#state", "Degraded")
    await browser.shows("#why", f"{old} is refused")
    await browser.shows("#history tbody tr", new)
    await browser.shows("#history tbody tr", old)
    await browser.shows(f"#nodes tr[data-key='{old}']", "connection refused")
    await browser.shows("#log", f"using {new} as master")
    await browser.shows(".changes", f"from {old} to {new}")
    assert await browser.run("return document.querySelectorAll('#charts .change').length;") == 3
    await samples(browser, count + 2)
    assert (await first_sample(browser))[0] == first
    lines = await browser.run("return document.querySelector('#chart-writes .line').outerHTML;")
    assert "M" in lines
    assert await browser.complaints() == []
    assert not written.called


@on_reactor
async def test_lost_monitor_is_told_and_the_page_recovers_with_all_that_it_has_seen(
    browser: Browser, make_monitor: MakeMonitor, group: list[LocalServer]
) -> None:
    monitor = make_monitor([server.address for server in group])
    await opened(browser, monitor)
    await samples(browser, 4)
    first, count = await first_sample(browser)
    assert not await browser.run("return document.body.classList.contains('stale');")

    monitor.kill()
    await browser.shows("#lost", "No connection to the monitor since ")
    assert "what you see is old" in await browser.text("#lost")
    assert await browser.run("return document.title;") == "no connection (healthy) - haredis"
    opacity = await browser.run("return getComputedStyle(document.querySelector('main')).opacity;")
    assert float(opacity) < 1
    assert await browser.text("#master strong") == group[0].address
    for dark in (False, True):
        await browser.look(dark=dark)
        assert await browser.run(CONTRAST) == []

    await monitor.start()

    async def live() -> bool:
        return await browser.text("#lost") == "" and await browser.text("#live") == "live"

    await eventually(live)
    await browser.shows("#state", "Healthy")
    await samples(browser, count + 1)
    assert (await first_sample(browser))[0] == first
    assert await browser.run("return document.title;") == "healthy - haredis"
    assert only_lost_links(await browser.complaints())


@on_reactor
async def test_silent_monitor_is_a_lost_one(
    browser: Browser, make_monitor: MakeMonitor, group: list[LocalServer]
) -> None:
    monitor = make_monitor([server.address for server in group])
    await opened(browser, monitor)
    await browser.shows("#live", "live")
    monitor.signal(signal.SIGSTOP)  # the link stays, and nothing comes
    await browser.shows("#lost", "No connection to the monitor since ")
    monitor.signal(signal.SIGCONT)
    await browser.shows("#live", "live")
    assert await browser.text("#lost") == ""


@on_reactor
async def test_nothing_is_asked_of_anybody_else(
    browser: Browser, make_monitor: MakeMonitor, group: list[LocalServer]
) -> None:
    monitor = make_monitor([server.address for server in group])
    await opened(browser, monitor)
    await samples(browser, 2)
    asked = await browser.requested()
    assert f"{monitor.url}static/page.js" in asked
    assert f"{monitor.url}events" in asked
    assert {url for url in asked if not url.startswith((monitor.url, "data:"))} == set()
    assert await browser.complaints() == []


@on_reactor
async def test_everything_has_a_name_and_can_be_read(
    browser: Browser, make_monitor: MakeMonitor, group: list[LocalServer]
) -> None:
    monitor = make_monitor([server.address for server in group])
    await opened(browser, monitor)
    await samples(browser, 2)
    for size in (DESKTOP, PHONE, (360, 640)):
        for dark in (False, True):
            await browser.look(size, dark=dark)
            assert await browser.run(NAMES) == []
            assert await browser.run(CONTRAST) == []
        width = await browser.run("return document.documentElement.scrollWidth;")
        assert width <= size[0]
    await browser.look(prefers_reduced_motion="reduce")
    moving = "return document.getAnimations().filter((a) => a.playState === 'running').length;"
    assert await browser.run(moving) == 0
    group[0].kill()
    await browser.shows("#announce", "The group is: degraded.")
    assert await browser.run(NAMES) == []
    assert await browser.run(CONTRAST) == []


class Liar(Protocol):
    """A server whose every answer is an error with markup in it."""

    TEXT = '<script>document.title="taken"</script>"><img src=x onerror="document.title=1">'

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(f"-NOPERM {self.TEXT}\r\n".encode())


@on_reactor
async def test_text_of_a_server_is_shown_as_text(
    reactor: Any, browser: Browser, make_monitor: MakeMonitor, group: list[LocalServer]
) -> None:
    port = reactor.listenTCP(0, Factory.forProtocol(Liar), interface="127.0.0.1")
    try:
        liar = f"127.0.0.1:{port.getHost().port}"
        marked = '"><b>bold:6379'
        monitor = make_monitor([*(server.address for server in group), liar, marked])
        await opened(browser, monitor, "Degraded")
        await browser.shows("#why", Liar.TEXT)
        await browser.shows("#nodes", Liar.TEXT)
        await browser.shows("#nodes", marked)
        names = await browser.run(
            "return [...document.querySelectorAll('#topology .name')].map((n) => n.textContent);"
        )
        assert marked in names
        made = "return document.querySelectorAll('main img, main script, main b').length;"
        assert await browser.run(made) == 0
        assert await browser.run("return document.title;") == "degraded - haredis"
        assert await browser.complaints() == []
        monitor.kill()
    finally:
        await port.stopListening()


@on_reactor
async def test_screenshots(
    browser: Browser,
    make_monitor: MakeMonitor,
    group: list[LocalServer],
    watch: Callable[..., WatchedClient],
    screenshots: Path,
) -> None:
    monitor = make_monitor([server.address for server in group])
    await opened(browser, monitor)
    writer = watch(group)
    Deferred.fromCoroutine(writing(writer.client))
    await samples(browser, 5)

    async def taken(state: str) -> None:
        for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
            for scheme in ("light", "dark"):
                await browser.look(size, dark=scheme == "dark")
                for part, whole in (("", False), ("-whole", True)):
                    file = f"{group[0].program.name}-{state}-{name}-{scheme}{part}.png"
                    await browser.screenshot(screenshots / file, whole=whole)
                    assert (screenshots / file).stat().st_size > 10_000

    await taken("healthy")
    group[0].kill()
    group[1].kill()  # one of three is no quorum
    await browser.shows("#state", "No master")
    await browser.shows("#master", "Nobody is the master")
    assert await browser.run("return document.title;") == "no master - haredis"
    await taken("no-master")


FORMATS = {
    "bytes(0)": "0 B",
    "bytes(1023)": "1\u202f023 B",
    "bytes(12897484)": "12.3 MiB",
    "bytes(null)": "\u2013",
    "duration(0.0034)": "3.4 ms",
    "duration(0.0004)": "0.40 ms",
    "duration(0)": "0 s",
    "duration(1.26)": "1.3 s",
    "duration(125)": "2 min 5 s",
    "duration(90000)": "1 d 1 h",
    "age(8.2)": "8 s",
    "whole(1234567)": "1\u202f234\u202f567",
    "rate(9.46)": "9.5/s",
    "discarded(0)": "none",
    "discarded(1)": "1 byte",
    "discarded(1234)": "1\u202f234 bytes",
    "discarded(null)": "not known yet",
}

MERGED = """
const { mergeSamples, pieces } = await import("/static/series.js");
const sample = (at, writes) => ({ at, writes });
const seen = [sample(90, 1), sample(395, 1), sample(396, null), sample(397, 2)];
return [
    mergeSamples(seen, []).map(({ at }) => at),  // a monitor that has just begun
    mergeSamples(seen, [sample(397, 2), sample(401, 3)]).map(({ at }) => at),
    pieces([...seen.slice(1), sample(402, 3)], (one) => one.writes, 1),
    mergeSamples([...seen, sample(4000, 1)], [sample(398, 4)]).map(({ at }) => at),
];
"""


@on_reactor
async def test_numbers_are_for_people_and_samples_are_kept(
    browser: Browser, make_monitor: MakeMonitor
) -> None:
    nobody = ReservedPort()
    monitor = make_monitor([f"127.0.0.1:{nobody.number}"])
    await opened(browser, monitor, "No master")
    script = "const format = await import('/static/format.js'); return ["
    shown = await browser.run(script + ", ".join(f"format.{call}" for call in FORMATS) + "];")
    assert dict(zip(FORMATS, shown, strict=True)) == FORMATS
    empty, more, broken, set_back = await browser.run(MERGED)
    assert empty == [395, 396, 397]
    assert more == [395, 396, 397, 401]
    assert broken == [[[395, 1]], [[397, 2]], [[402, 3]]]
    assert set_back == [395, 396, 397, 398]  # the clock of the monitor
    nobody.release()
