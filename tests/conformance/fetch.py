"""Fetches txredisapi's own tests: they are in its source distribution, and in no wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

__all__ = ["NotFetched", "fetch_tests"]


class NotFetched(RuntimeError):
    """The tests are not in the cache and could not be fetched; the text says why."""


def fetch_tests(cache: Path) -> Path:
    """Return the directory whose package `tests` belongs to the installed txredisapi.

    They are kept in `cache`, one directory for each release, and fetched by pip when they are not
    there. Raises NotFetched.
    """
    release = version("txredisapi")
    place = cache / f"txredisapi-{release}-tests"
    if (place / "tests" / "mixins.py").is_file():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        unpacked = Path(scratch, "unpacked")
        _unpack_tests(_download(release, Path(scratch)), unpacked)
        shutil.rmtree(place, ignore_errors=True)
        unpacked.rename(place)
    return place


def _download(release: str, directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    ended = subprocess.run(
        [*command, "--dest", directory, f"txredisapi=={release}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found = list(directory.glob("txredisapi-*.tar.gz"))
    if ended.returncode or not found:
        raise NotFetched(
            f"the source distribution of txredisapi {release} could not be downloaded, and "
            f"{directory.parent} has no copy of its tests; pip says:\n{ended.stdout}"
        )
    return found[0]


def _unpack_tests(archive: Path, target: Path) -> None:
    """Unpack the package `tests` only: the directory also has a txredisapi.py."""
    with tarfile.open(archive) as files:
        top = f"{archive.name.removesuffix('.tar.gz')}/"
        wanted = [name for name in files.getnames() if name.startswith(f"{top}tests/")]
        if f"{top}tests/mixins.py" not in wanted:
            raise NotFetched(f"{archive.name} has no tests/mixins.py")
        for name in wanted:
            member = files.getmember(name)
            member.name = name.removeprefix(top)
            files.extract(member, target, filter="data")
