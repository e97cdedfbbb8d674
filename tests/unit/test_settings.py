"""Where `haredis` takes its nodes and options from, and what wins."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from txharedis.cli.settings import Settings, add_node_options, read_settings
from txharedis.errors import InvalidOption

FileMaker = Any


def read(*words: str, **environment: str) -> Settings:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_node_options(parser, waits_for="something")
    return read_settings(parser.parse_args(words), environment)


def nodes(settings: Settings) -> list[str]:
    return [str(node) for node in settings.nodes]


@pytest.fixture
def file(tmp_path: Path) -> FileMaker:
    def write(text: str, name: str = "haredis.toml") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    "text", ["a:1,b:2,c:3", "a:1 b:2 c:3", " a:1, b:2,\n c:3 ", "redis://a:1?addr=b:2&addr=c:3"]
)
def test_nodes_of_the_environment(text: str) -> None:
    assert nodes(read(HAREDIS_NODES=text)) == ["a:1", "b:2", "c:3"]


@pytest.mark.parametrize("text", ['["a:1", "b:2"]', '"redis://a:1?addr=b:2"'])
def test_nodes_of_the_file(file: FileMaker, text: str) -> None:
    name = file(f"nodes = {text}\n")
    assert nodes(read("--config", name)) == ["a:1", "b:2"]
    assert nodes(read(HAREDIS_CONFIG=name)) == ["a:1", "b:2"]


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    file: FileMaker,
) -> None:
    for word in ("line", "environment", "file"):
        file(f"{word}-secret\nmore\n", word)
    name = file(
        'nodes = ["f:1"]\nusername = "file"\npassword_file = "file"\ndown_after = 9.0\n'
        "haredis_db_num = 9\n"
    )
    found = read(HAREDIS_CONFIG=name)
    assert nodes(found) == ["f:1"]
    assert dict(found.options) == {
        "username": "file",
        "password": "file-secret",
        "down_after": 9.0,
        "haredis_db_num": 9,
    }
    found = read(HAREDIS_CONFIG=name, HAREDIS_NODES="e:1", HAREDIS_PASSWORD="environment-secret")
    assert nodes(found) == ["e:1"]
    assert found.options["username"] == "file"
    assert found.options["password"] == "environment-secret"
    line = str(Path(name).parent / "line")
    found = read(
        *("l:1", "--user", "line", "--password-file", line),
        HAREDIS_CONFIG=name,
        HAREDIS_NODES="e:1",
        HAREDIS_PASSWORD="environment-secret",
    )
    assert nodes(found) == ["l:1"]
    assert (found.options["username"], found.options["password"]) == ("line", "line-secret")
    assert "secret" not in repr(found)
    other = file('nodes = ["o:1"]\n', "other.toml")
    assert nodes(read("--config", other, HAREDIS_CONFIG=name)) == ["o:1"]


def test_a_url_says_what_its_source_says(file: FileMaker) -> None:
    url = "rediss://user:url-secret@e:1"
    found = read(HAREDIS_NODES=url)
    assert found.options == {"tls": True, "username": "user", "password": "url-secret"}
    # In the environment it wins over the file, and gives way to the command line.
    name = file('username = "file"\ntls = false\n')
    found = read("--user", "line", HAREDIS_NODES=url, HAREDIS_CONFIG=name)
    assert (found.options["username"], found.options["tls"]) == ("line", True)
    # One that is not used says nothing.
    assert read("l:1", HAREDIS_NODES=url).options == {}
    assert read("--config", file(f'nodes = "{url}"\n')).options["password"] == "url-secret"


def test_files_are_beside_the_file(file: FileMaker, tmp_path: Path) -> None:
    file("secret\n", "password")
    name = file('nodes = ["a:1"]\npassword_file = "password"\ntls_ca_file = "/absolute/ca.pem"\n')
    with pytest.raises(InvalidOption, match=r"tls_ca_file='/absolute/ca\.pem'"):
        read("--config", name)
    name = file('nodes = ["a:1"]\npassword_file = "password"\n')
    assert read("--config", name).options == {"password": "secret"}


def test_the_file_of_the_monitor_will_do(file: FileMaker) -> None:
    file("secret\n", "password")
    name = file(
        'node = ["a:1", "b:2"]\nuser = "app"\npassword-file = "password"\ndb-num = 9\n'
        'http = "tcp:8405"\nno-elect = true\nverbose = true\ndown-after = 5\n'
    )
    found = read("--config", name)
    assert nodes(found) == ["a:1", "b:2"]
    assert found.options == {
        "username": "app",
        "password": "secret",
        "haredis_db_num": 9,
        "down_after": 5,
    }


def test_what_looks_changes_nothing_and_what_acts_elects() -> None:
    settings = read("a:1", "b:2")
    assert settings.watching["elect"] is settings.watching["tune_nodes"] is False
    assert settings.watching["delivery"] == settings.acting["delivery"] == "at-most-once"
    assert settings.acting.get("elect", True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('nods = ["a:1"]', "unknown key 'nods'"),
        ('password = "p"', "password is not written here"),
        ("nodes = 1", "nodes is not a list of texts"),
        ('nodes = ["a:1", 2]', "nodes is not a list of texts"),
        ('nodes = ["a:x"]', "bad port 'x'"),
        ("nodes = [", "--config="),
        ('nodes = ["a:1"]\npassword_file = 1', "password_file is not a text"),
        ('nodes = ["a:1"]\npassword_file = "none"', "password-file="),
        ('nodes = ["a:1"]\ntls = "yes"', "tls is not true or false"),
        ('nodes = ["a:1"]\ndown_after = "soon"', "down_after is not a number"),
        ('nodes = ["a:1"]\nharedis_db_num = 99', "haredis_db_num=99 is out of range"),
        ('nodes = ["a:1"]\nusername = "app"', "username='app' needs a password"),
        ("nodes = []", "the following arguments are required: NODE"),
        ("", "the following arguments are required: NODE"),
    ],
)
def test_a_bad_file_is_named(file: FileMaker, text: str, named: str) -> None:
    name = file(text)
    with pytest.raises(InvalidOption) as caught:
        read("--config", name)
    assert named in str(caught.value)
    if "bad port" not in named and "arguments" not in named:
        assert name in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    for given in (read_missing_by_option, read_missing_by_environment):
        with pytest.raises(InvalidOption, match=r"/nowhere\.toml"):
            given()


def read_missing_by_option() -> None:
    read("a:1", "--config", "/nowhere.toml")


def read_missing_by_environment() -> None:
    read("a:1", HAREDIS_CONFIG="/nowhere.toml")


@pytest.mark.parametrize(
    ("words", "environment", "named"),
    [
        ((), {}, "HAREDIS_NODES"),
        ((), {"HAREDIS_NODES": " , "}, "required: NODE"),
        ((), {"HAREDIS_NODES": "a:1 a:1"}, "a:1 is listed twice"),
        (("redis://app:very-secret@a:1",), {}, "HAREDIS_PASSWORD or --password-file"),
        ((), {"HAREDIS_NODES": "app:very-secret@a:1"}, "a password is an option"),
        ((), {"HAREDIS_NODES": "http://app:very-secret@a:1"}, "does not begin with redis://"),
        (("a:1", "--timeout", "0"), {}, "timeout=0.0"),
        (("a:1", "--password-file", "/nowhere"), {}, "--password-file='/nowhere'"),
    ],
)
def test_bad_usage_is_named_and_no_password_shown(
    words: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    with pytest.raises(InvalidOption) as caught:
        read(*words, **environment)
    assert named in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_an_empty_password_is_none(tmp_path: Path) -> None:
    assert read("a:1", HAREDIS_PASSWORD="").options == {}
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(InvalidOption, match="empty first line"):
        read("a:1", "--password-file", str(empty))
