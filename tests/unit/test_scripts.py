"""The scripts that a master which does not know them is given again."""

from __future__ import annotations

import hashlib

import pytest

from txharedis.errors import ResponseError
from txharedis.interfaces import pack
from txharedis.scripts import ScriptCache

NOSCRIPT = ResponseError("NOSCRIPT No matching script. Please use EVAL.")


def sha1(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()


def again(cache: ScriptCache, script: str, name: str = "EVALSHA") -> list[bytes] | None:
    return cache.again(name, pack((name, sha1(script).upper(), 1, "k", "a")), NOSCRIPT)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("EVAL", ("eval", "return 1", 0)),
        ("EVAL_RO", ("EVAL_RO", "return 1", 0)),
        ("SCRIPT LOAD", ("SCRIPT", "LOAD", "return 1")),
    ],
)
def test_a_script_that_was_sent_is_sent_again(name: str, command: tuple[object, ...]) -> None:
    cache = ScriptCache()
    assert again(cache, "return 1") is None
    cache.note(name, pack(command))
    assert again(cache, "return 1") == [b"EVAL", b"return 1", b"1", b"k", b"a"]
    assert again(cache, "return 1", "EVALSHA_RO") == [b"EVAL_RO", b"return 1", b"1", b"k", b"a"]
    assert again(cache, "return 2") is None


def test_only_for_an_unknown_script() -> None:
    cache = ScriptCache()
    cache.note("EVAL", pack(("EVAL", "return 1", 0)))
    packed = pack(("EVALSHA", sha1("return 1"), 0))
    assert cache.again("EVALSHA", packed, ResponseError("ERR user_script:1")) is None
    assert cache.again("EVALSHA", packed, ValueError("NOSCRIPT")) is None
    assert cache.again("FCALL", packed, NOSCRIPT) is None


def test_flushed_scripts_are_forgotten() -> None:
    cache = ScriptCache()
    cache.note("EVAL", pack(("EVAL", "return 1", 0)))
    cache.note("SCRIPT FLUSH", pack(("SCRIPT", "FLUSH")))
    assert again(cache, "return 1") is None


def test_the_scripts_sent_longest_ago_are_forgotten_when_there_are_too_many() -> None:
    cache = ScriptCache(max_bytes=20)
    for number in (1, 2, 1, 3):  # eight bytes each
        cache.note("EVAL", pack(("EVAL", f"return {number}", 0)))
    assert again(cache, "return 2") is None
    assert again(cache, "return 1") is not None
    assert again(cache, "return 3") is not None


@pytest.mark.parametrize("words", [("EVAL",), ("SCRIPT", "LOAD")])
def test_a_command_without_its_script_is_left_to_the_server(words: tuple[str, ...]) -> None:
    cache = ScriptCache()
    cache.note(" ".join(words), pack(words))
    assert again(cache, "") is None
