"""Node and its packages, where they are."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NodePackages", "install"]

PACKAGES = ("ioredis", "haredis")
PROGRAM = Path(__file__).with_name("node_peer.js")


@dataclass(frozen=True)
class NodePackages:
    """A directory with `node_modules`, the program that runs them, and the versions of all."""

    program: str
    directory: Path
    versions: dict[str, str]

    def command(self, name: str, ports: list[int]) -> list[str]:
        """Runs that package as a contestant."""
        modules = str(self.directory / "node_modules")
        return [self.program, "--no-deprecation", str(PROGRAM), modules, name, *map(str, ports)]


def install(directory: Path) -> NodePackages | str:
    """Install the packages into this directory; returns why not, when that cannot be."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return f"there is no {'node' if node is None else 'npm'} on the PATH"
    (directory / "package.json").write_text('{"private": true}\n')
    words = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return f"npm install failed: {last}"
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    versions = {"node": said.stdout.strip().removeprefix("v")}
    for name in PACKAGES:
        described = json.loads((directory / "node_modules" / name / "package.json").read_text())
        versions["Node haredis" if name == "haredis" else name] = described["version"]
    return NodePackages(node, directory, versions)
