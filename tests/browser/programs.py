"""The two programs of these tests: a browser, and the monitor whose page it shows."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from twisted.internet.threads import deferToThread

from tests.support import PATIENCE, eventually
from txharedis.testing._loopback import LOOPBACK, ReservedPort

ROOT = Path(__file__).resolve().parents[2]
TWISTD = (
    "from twisted.scripts.twistd import run; run()",
    "--nodaemon",
    "--pidfile=",
    "haredis-monitor",
)
DESKTOP = (1280, 800)
PHONE = (390, 844)

_SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Nothing but this machine is there: what the page asks of others fails, and is in the log.
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {LOOPBACK}",
)
_WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
    (event) => violations.push(event.violatedDirective + " " + event.blockedURI));
"""


class Browser:
    """A headless Chromium. Its driver blocks, so each method works in a thread.

    `program` and `driver` are paths; what it keeps is in the directory `profile`.
    """

    def __init__(self, program: str, driver: str, profile: Path) -> None:
        self._program = program
        self._driver_program = driver
        self._profile = profile
        self._service: Any = None
        self._driver: Any = None

    async def start(self) -> None:
        await deferToThread(self._start)

    def _start(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = self._program
        for switch in (*_SWITCHES, f"--user-data-dir={self._profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # A port of our own: selenium's choice could be that of a server that is down.
        self._port = ReservedPort()
        self._service = Service(self._driver_program, port=self._port.number)
        self._driver = webdriver.Chrome(options=options, service=self._service)
        self._driver.get("about:blank")  # the browser's own first page has asked for much
        self._driver.get_log("performance")
        self._driver.set_page_load_timeout(PATIENCE)
        self._driver.set_script_timeout(PATIENCE)
        self._driver.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH_POLICY}
        )

    async def close(self) -> None:
        await deferToThread(self._close)

    def _close(self) -> None:
        if self._driver is not None:
            self._driver.quit()
        elif self._service is not None and self._service.process is not None:
            self._service.stop()

    async def open(self, url: str) -> None:
        await deferToThread(self._driver.get, url)

    async def run(self, script: str, *arguments: object) -> Any:
        """What the body of a function of JavaScript returns, or the promise that it returns."""
        body = f"return (async function () {{ {script} }}).apply(null, arguments);"
        return await deferToThread(self._driver.execute_script, body, *arguments)

    async def text(self, selector: str) -> str:
        """The text of the first element that fits, as it is shown; "" when it is hidden."""
        found = await self.run("return document.querySelector(arguments[0]).innerText;", selector)
        return str(found)

    async def shows(self, selector: str, words: str, timeout: float = PATIENCE) -> None:
        """Wait until `words` stand in the text of an element."""

        async def there() -> bool:
            return words in await self.text(selector)

        await eventually(there, timeout)

    async def look(
        self, size: tuple[int, int] = DESKTOP, *, dark: bool = False, **media: str
    ) -> None:
        """From now on a screen of this size, with these preferences of its user."""
        features = {"prefers-color-scheme": "dark" if dark else "light"}
        features |= {name.replace("_", "-"): value for name, value in media.items()}
        width, height = size
        await self._devtools(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        await self._devtools(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": name, "value": value} for name, value in features.items()]},
        )

    async def _devtools(self, command: str, arguments: dict[str, Any]) -> Any:
        return await deferToThread(self._driver.execute_cdp_cmd, command, arguments)

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is to be seen at the top of the page, or the whole page, as a PNG."""
        # Two frames: the charts are drawn again for another width.
        await self.run(
            "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame("
            "() => setTimeout(done, 50))));"
        )
        how: dict[str, Any] = {"format": "png"}
        if whole:
            width, height = await self.run(
                "const { scrollWidth, scrollHeight } = document.documentElement;"
                "return [scrollWidth, scrollHeight];"
            )
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            how |= {"captureBeyondViewport": True, "clip": clip}
        image = await self._devtools("Page.captureScreenshot", how)
        path.write_bytes(base64.b64decode(image["data"]))

    async def complaints(self) -> list[str]:
        """What the console has said since the last time, and what the page's policy forbade."""
        entries = await deferToThread(self._driver.get_log, "browser")
        said = [f"{entry['level']} {entry['message']}" for entry in entries]
        return said + list(await self.run("return window.violations.splice(0);"))

    async def requested(self) -> set[str]:
        """The addresses that the page has asked for since the last time."""
        entries = await deferToThread(self._driver.get_log, "performance")
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }


class MonitorProcess:
    """`twistd haredis-monitor` on a port of its own, which it keeps over restarts."""

    def __init__(self, nodes: Sequence[str], directory: Path) -> None:
        self._port = ReservedPort()
        self._nodes = nodes
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://{LOOPBACK}:{self._port.number}/"

    async def start(self) -> None:
        """Start it, and return when it answers."""
        self._directory.mkdir(exist_ok=True)
        words = [word for node in self._nodes for word in ("--node", node)]
        endpoint = f"tcp:{self._port.number}:interface={LOOPBACK}"
        with (self._directory / "monitor.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", *TWISTD, "--http", endpoint, *words],
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        await eventually(self._answers)

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        with suppress(URLError, OSError):
            await self.get("liveness")
            return True
        return False

    async def get(self, name: str) -> Any:
        """The JSON of one of its routes."""

        def fetch() -> Any:
            with urlopen(self.url + name, timeout=PATIENCE) as answer:
                return json.load(answer)

        return await deferToThread(fetch)

    @property
    def log(self) -> str:
        """All that it has written, over its restarts."""
        return (self._directory / "monitor.log").read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal that does not end it."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it, and reap it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None
