"""The installed package as a stranger meets it; `tox -e dist` runs this outside the checkout.

Usage: python -P dist_check.py CHECKOUT (-P: nothing but the environment is on the import path).
"""

import sys
from importlib import metadata
from pathlib import Path


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


if __name__ == "__main__":
    check_installed(Path(sys.argv[1]).resolve())
