"""What the packaging says in more than one place is the same in all of them."""

import configparser
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from txharedis import _version

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that setup.py gives to setuptools.setup()."""
    given: dict[str, Any] = {}
    stand_in = SimpleNamespace(setup=given.update, find_packages=lambda **options: options)
    monkeypatch.setitem(sys.modules, "setuptools", stand_in)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def test_version_is_the_one_of_the_package(metadata: dict[str, Any]) -> None:
    assert metadata["version"] == _version.__version__


def test_changelog_starts_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == _version.__version__


def test_tox_runs_every_python_that_is_promised(metadata: dict[str, Any]) -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    tested = set(re.findall(r"\bpy3(\d+)", tox["tox"]["env_list"]))
    promised = set(re.findall(r"Python :: 3\.(\d+)", "\n".join(metadata["classifiers"])))
    assert promised == tested
    assert metadata["python_requires"] == f">=3.{min(map(int, promised))}"


def test_developers_and_tox_have_every_extra(metadata: dict[str, Any]) -> None:
    extras: dict[str, list[str]] = dict(metadata["extras_require"])
    developers = set(extras.pop("dev"))
    assert {needed for extra in extras.values() for needed in extra} <= developers
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    assert set(tox["testenv"]["extras"].split()) == set(extras)
    assert set(tox["testenv"]["deps"].split()) - {""} <= developers
