"""docs/operations.md tells of every line that is logged and every reason to wait or refuse."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAYING = ("info", "warn", "error", "step", "once", "failure")
DECIDING = ("Wait", "Refuse", "_elect", "_succeed")


def texts(node: ast.AST) -> Iterator[str]:
    """The literal pieces of a text, in their order; what is filled in is between them."""
    match node:
        case ast.Constant(str(text)):
            yield from re.split(r"\{[^}]*\}", text)
        case ast.JoinedStr(values):
            for value in values:
                if isinstance(value, ast.Constant):
                    yield str(value.value)
        case ast.BinOp(left, ast.Add(), right):
            yield from texts(left)
            yield from texts(right)
        case ast.BoolOp(_, values):
            for value in values:
                yield from texts(value)


def said() -> Iterator[tuple[str, str]]:
    """The longest fixed piece of each text, and where it stands."""
    for path in sorted((ROOT / "txharedis").rglob("*.py")):
        if path.name in ("log.py", "demo.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            match node.func:
                case ast.Attribute(ast.Attribute(_, "_log"), name) if name in SAYING:
                    pass
                case ast.Name(name) | ast.Attribute(_, name) if (
                    name in DECIDING and path.name == "election.py"
                ):
                    pass
                case _:
                    continue
            longest = max(
                (piece.strip(" :;,()") for piece in texts(node.args[0])), key=len, default=""
            )
            if len(longest) > 2:
                yield longest, f"{path.name}:{node.lineno}"


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("`", ""))


@pytest.mark.parametrize(("piece", "place"), sorted(set(said())), ids=lambda text: text[:50])
def test_it_is_told(piece: str, place: str) -> None:
    docs = flat((ROOT / "docs" / "operations.md").read_text(encoding="utf-8"))
    assert flat(piece) in docs, f"{place} says {piece!r}, and docs/operations.md does not"


def test_they_are_found() -> None:
    pieces = {piece for piece, _ in said()}
    assert len(pieces) > 40
    assert {"MASTER is down!", "is in cluster mode", "nodes answer"} <= pieces
