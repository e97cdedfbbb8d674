"""The installed package as a stranger meets it; `tox -e dist` runs this outside the checkout.

Usage: python -P dist_check.py CHECKOUT (-P: nothing but the environment is on the import path).
"""

import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from urllib.request import urlopen


def check_installed(checkout: Path) -> None:
    """txharedis comes from site-packages, whole: version, type marker, command."""
    import txharedis

    home = Path(txharedis.__file__).resolve().parent
    assert home.parent.name == "site-packages", home
    assert home != checkout / "txharedis", home
    assert (home / "py.typed").is_file()

    package = checkout / "txharedis"
    page = package.glob("monitor/page/*.*")
    sources = {path.relative_to(checkout) for path in (*package.rglob("*.py"), *page)}
    missing = sorted(str(path) for path in sources if not (home.parent / path).is_file())
    assert not missing, f"not in the wheel: {missing}"

    version = metadata.version("txharedis")
    assert version == txharedis.__version__, (version, txharedis.__version__)
    (command,) = metadata.entry_points(group="console_scripts", name="haredis")
    assert callable(command.load())
    print(f"txharedis {version} from {home}, Python {sys.version.split()[0]}")


def check_plugin(checkout: Path) -> None:
    """twistd finds the monitor beside the installed packages, and it serves its page."""
    import twisted
    import txharedis

    packages = Path(txharedis.__file__).resolve().parent.parent
    assert Path(twisted.__file__).resolve().parent.parent == packages, twisted.__file__
    plugins = packages / "twisted" / "plugins"
    assert (plugins / "haredis_monitor.py").is_file()
    page = {path.name for path in (checkout / "txharedis" / "monitor" / "page").iterdir()}
    shipped = {path.name for path in (packages / "txharedis" / "monitor" / "page").iterdir()}
    assert page == shipped, page ^ shipped
    program = str(Path(sys.executable).with_name("twistd"))
    words = ["-n", "--pidfile=", "haredis-monitor", "--node=127.0.0.1:1"]
    # In a directory of its own: nothing of the checkout is in reach.
    running = subprocess.Popen(
        [program, *words, "--http=tcp:0:interface=127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert running.stdout is not None
        deadline = time.monotonic() + 60
        found = None
        said = ""
        while found is None and time.monotonic() < deadline:
            line = running.stdout.readline()
            assert line, said
            said += line
            found = re.search(r"serves on (127\.0\.0\.1:\d+)", line)
        assert found, said
        for path in ("/", *(f"/static/{name}" for name in page if name != "index.html")):
            with urlopen(f"http://{found[1]}{path}", timeout=10) as answer:
                assert answer.status == 200
                assert answer.read()
    finally:
        running.terminate()
        running.wait(30)
    print(f"{program} found haredis-monitor in {plugins}")


if __name__ == "__main__":
    check_installed(Path(sys.argv[1]).resolve())
    check_plugin(Path(sys.argv[1]).resolve())
