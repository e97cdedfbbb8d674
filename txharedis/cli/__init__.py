"""The `haredis` command."""

from __future__ import annotations

from txharedis.cli.parser import main

__all__ = ["main"]
