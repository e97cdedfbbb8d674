"""The options and the list of nodes: what is taken, and how what is not is named."""

from __future__ import annotations

import dataclasses
import math
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txharedis.errors import InvalidOption
from txharedis.options import READ_POLICIES, Options, Terms, parse_nodes
from txharedis.topology import Address

HOME = Address("127.0.0.1", 6379)
SECRET = "s3cr3t"


def refusal(**values: Any) -> str:
    """The text of the error that these options make."""
    with pytest.raises(InvalidOption) as caught:
        Options.from_mapping(values)
    return str(caught.value)


# Options

# name, lowest, highest (None: no bound but infinity), what goes with it
NUMBERS: list[tuple[str, float, float | None, dict[str, Any]]] = [
    ("db", 0, None, {}),
    ("command_timeout", 0.001, None, {}),
    ("max_pending", 1, None, {}),
    ("max_pending_bytes", 1, None, {}),
    ("heartbeat", 0.01, 1000, {"down_after": 3600}),
    ("heartbeat", 0.01, None, {"down_after": 3600}),
    ("down_after", 0.05, 3600, {"heartbeat": 0.01}),
    ("survey_interval", 0.05, 3600, {}),
    ("survey_timeout", 0.01, 60, {}),
    ("connect_timeout", 0.01, 3600, {}),
    ("reconnect_delay", 0.001, 3600, {"reconnect_max": 3600}),
    ("reconnect_max", 0.001, 3600, {"reconnect_delay": 0.001}),
    ("lock_time", 0.05, 60, {}),
    ("haredis_db_num", 0, 62, {"db": 77}),
]
INTEGERS = {"db", "max_pending", "max_pending_bytes", "haredis_db_num"}


@pytest.mark.parametrize(("name", "low", "high", "others"), NUMBERS)
def test_bounds_of_numbers(
    name: str, low: float, high: float | None, others: dict[str, Any]
) -> None:
    for value in (low, high if high is not None else low):
        assert getattr(Options.from_mapping({name: value, **others}), name) == value
    below = low - 1 if name in INTEGERS else low / 2
    assert f"{name}={below!r}" in refusal(**{name: below}, **others)
    if high is not None and name != "heartbeat":
        assert f"{name}={high + 1!r}" in refusal(**{name: high + 1}, **others)


@pytest.mark.parametrize("name", sorted({number[0] for number in NUMBERS}))
@pytest.mark.parametrize("value", ["7", "", True, [1], b"1", object(), math.nan, math.inf])
def test_what_is_no_number_is_named(name: str, value: object) -> None:
    assert f"{name}={value!r}" in refusal(**{name: value})


@pytest.mark.parametrize("name", sorted(INTEGERS))
def test_counts_are_integers(name: str) -> None:
    assert f"{name}=1.0 is not an integer" in refusal(**{name: 1.0})


@pytest.mark.parametrize("name", ["convert_numbers", "tune_nodes", "debug_mode", "command_logging"])
def test_flags(name: str) -> None:
    for value in (True, False):
        assert getattr(Options.from_mapping({name: value}), name) is value
    for wrong in (1, 0, "yes", None):
        assert f"{name}={wrong!r} is not True or False" in refusal(**{name: wrong})


@pytest.mark.parametrize("name", ["username", "charset", "errors", "delivery"])
def test_texts(name: str) -> None:
    for wrong in (1, b"x", True):
        assert f"{name}={wrong!r} is not a text" in refusal(**{name: wrong})


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Options) if f.init])
def test_none_is_taken_only_where_it_has_a_meaning(name: str) -> None:
    optional = ("username", "password", "charset", "command_timeout", "max_lag", "on_event")
    if name in optional or (name.startswith("tls_") and name.endswith("_file")):
        assert getattr(Options.from_mapping({name: None}), name) is None
    else:
        assert f"{name}=None" in refusal(**{name: None})


def test_an_unknown_option_is_named_and_the_known_are_listed() -> None:
    text = refusal(down_afer=3)
    assert "'down_afer'" in text
    assert "down_after" in text


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"delivery": "exactly-twice"}, "delivery='exactly-twice'"),
        ({"down_after": 2.0, "heartbeat": 1.0}, "down_after=2.0"),
        ({"reconnect_delay": 2.0, "reconnect_max": 1.0}, "reconnect_max=1.0"),
        ({"db": 15}, "db=15"),
        ({"db": 0, "haredis_db_num": 0}, "db=0"),
        ({"charset": "utf-99"}, "charset='utf-99'"),
        ({"charset": "hex"}, "charset='hex'"),
        ({"charset": "undefined"}, "charset='undefined'"),
        ({"charset": "a\0b"}, "charset='a\\x00b'"),
        ({"errors": "strcit"}, "errors='strcit'"),
        ({"errors": ""}, "errors=''"),
        ({"username": "me"}, "username='me'"),
        ({"on_event": "print"}, "on_event='print'"),
        ({"adopt": "a:1"}, "adopt='a:1'"),
        ({"adopt": 6379}, "adopt=6379"),
        ({"adopt": b"a:1"}, "adopt=b'a:1'"),
        ({"adopt": ["a:x"]}, "'a:x'"),
        ({"read_from": "slave"}, "read_from='slave'"),
        ({"read_from": ""}, "read_from=''"),
        ({"read_from": 1}, "read_from=1"),
        ({"auto_slaveok": True, "read_from": "master"}, "'master'"),
        ({"auto_slaveok": True, "read_from": "any"}, "auto_slaveok=True"),
        ({"auto_slaveok": 1}, "auto_slaveok=1"),
        ({"max_lag": -1}, "max_lag=-1"),
        ({"max_lag": True}, "max_lag=True"),
        ({"max_lag": 1.5}, "max_lag=1.5"),
        ({"max_lag": "2"}, "max_lag='2'"),
        ({"max_lag": "2m"}, "max_lag='2m'"),
        ({"max_lag": "-2s"}, "max_lag='-2s'"),
        ({"max_lag": "49ms"}, "out of range"),
        ({"max_lag": "9" * 99 + "s"}, "out of range"),
        ({"max_lag": timedelta(0)}, "out of range"),
    ],
)
def test_a_bad_value_is_named(values: dict[str, Any], named: str) -> None:
    assert named in refusal(**values)


@pytest.mark.parametrize("policy", READ_POLICIES)
def test_read_policies(policy: str) -> None:
    options = Options(read_from=policy, delivery="at-most-once")
    assert options.terms == Terms(read_from=policy)


def test_auto_slaveok_is_a_policy() -> None:
    assert Options().read_from == "master"
    assert Options(auto_slaveok=True).read_from == "replica_preferred"
    both = Options(auto_slaveok=True, read_from="replica_preferred")
    assert dataclasses.replace(both, db=1).read_from == "replica_preferred"
    assert dataclasses.replace(Options(auto_slaveok=True), db=1).auto_slaveok


@pytest.mark.parametrize("policy", ["slave", "", None, ["any"]])
def test_terms_with_a_bad_policy_name_it(policy: Any) -> None:
    with pytest.raises(InvalidOption, match=re.escape(f"read_from={policy!r}")):
        Terms(read_from=policy)


@pytest.mark.parametrize(
    ("given", "bytes_", "seconds"),
    [
        (None, None, None),
        (0, 0, None),
        (4096, 4096, None),
        ("2s", None, 2.0),
        ("1.5 s", None, 1.5),
        ("500ms", None, 0.5),
        ("50ms", None, 0.05),
        (timedelta(minutes=1), None, 60.0),
    ],
)
def test_max_lag(given: Any, bytes_: int | None, seconds: float | None) -> None:
    options = Options(max_lag=given)
    assert (options.max_lag_bytes, options.max_lag_seconds) == (bytes_, seconds)


def test_adopted_nodes_are_addresses() -> None:
    assert Options(adopt=["a:1", 6380]).adopt == (  # type: ignore[arg-type]
        Address("a", 1),
        Address("127.0.0.1", 6380),
    )
    assert Options().adopt == ()


def test_other_charsets_and_error_handlers() -> None:
    assert Options(charset="latin-1", errors="surrogateescape").errors == "surrogateescape"
    assert Options(charset=None, errors="ignore").charset is None


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().db = 1  # type: ignore[misc]


def test_the_lease_ends_before_the_other_side_of_a_partition_acts() -> None:
    options = Options(heartbeat=1.0, down_after=3.0)
    assert 0 < options.lease <= options.down_after - options.heartbeat * 1.1


@given(st.floats(0.01, 100), st.floats(1.0001, 10))
def test_the_lease_is_never_nothing(heartbeat: float, factor: float) -> None:
    down_after = max(0.05, 2 * heartbeat * factor)
    assert Options(heartbeat=heartbeat, down_after=down_after).lease > 0


# Passwords


def test_the_password_is_in_no_repr() -> None:
    assert SECRET not in repr(Options(password=SECRET, username="me"))


@pytest.mark.parametrize("password", [12345, b"s3cr3t", ["s3cr3t"], True])
def test_the_password_is_in_no_error(password: object) -> None:
    text = refusal(password=password)
    assert "password=(hidden)" in text
    assert str(password) not in text


@pytest.mark.parametrize(
    "url",
    [
        "http://me:s3cr3t@redis",
        "redis://me:s3cr3t@redis/x",
        "redis://me:s3cr3t@redis/²",
        "redis://me:s3cr3t@redis:x",
        "redis://me:s3cr3t@re dis",
        "redis://me:s3cr3t@redis#x",
        "redis://me:s3cr3t@redis?add=x",
        "redis://me:s3cr3t@redis?addr=x:y",
        "redis://me:s3cr3t@[::1",
        "redis://me:s3cr3t@[::g]",
        "redis://s3cr3t@redis",
        # not percent-encoded: the URL ends elsewhere than meant
        "redis://me:a/s3cr3t@redis:6379",
        "redis://me:s3cr3t/a@redis:6379",
        "redis://me:a#s3cr3t@redis:6379",
        "redis://me:s3cr3t#a@redis:6379",
        "redis://me:a?s3cr3t@redis:6379",
        "redis://me:s3cr3t?a@redis:6379",
        "redis://:s3cr3t/a@redis:6379",
        "redis://redis?addr=me:s3cr3t@redis:6379",
        "redis://redis,me:s3cr3t@redis:x",
    ],
)
def test_the_password_of_a_bad_url_is_in_no_error(url: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_nodes(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url", ["redis://me:s3cr3t@redis", "redis://:s3cr3t@a:1/0", "redis://me:a@s3cr3t\n@redis"]
)
def test_a_url_among_the_nodes_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidOption, match="is a URL") as caught:
        parse_nodes(["redis:6379", url])
    assert SECRET not in str(caught.value)
    assert "redis://***@" in str(caught.value)


def test_the_password_is_in_no_repr_of_the_nodes() -> None:
    assert SECRET not in repr(parse_nodes(f"redis://me:{SECRET}@redis"))


# parse_nodes


@pytest.mark.parametrize(
    ("nodes", "addresses"),
    [
        (None, [HOME]),
        ("redis:6380", [Address("redis", 6380)]),
        (6380, [Address("127.0.0.1", 6380)]),
        ("6380", [Address("127.0.0.1", 6380)]),
        (Address("redis", 6380), [Address("redis", 6380)]),
        (("redis", 6380), [Address("redis", 6380)]),
        (["a:1"], [Address("a", 1)]),
        (["a:1", "b"], [Address("a", 1), Address("b", 6379)]),
        (("a:1", "b:2"), [Address("a", 1), Address("b", 2)]),
        (("a", "b:2"), [Address("a", 6379), Address("b", 2)]),
        (("a:1", 6380), [Address("a", 1), Address("127.0.0.1", 6380)]),
        (["a", 6380], [Address("a", 6379), Address("127.0.0.1", 6380)]),
        ([("a", 1), "b:2", 3], [Address("a", 1), Address("b", 2), Address("127.0.0.1", 3)]),
        (iter(["a:1", "b:2"]), [Address("a", 1), Address("b", 2)]),
    ],
)
def test_nodes(nodes: object, addresses: list[Address]) -> None:
    parsed = parse_nodes(nodes)
    assert list(parsed.addresses) == addresses
    assert parsed.options == {}


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        ([], "nodes=[]"),
        ((), "nodes=()"),
        ("", "''"),
        (0, "0"),
        (True, "True"),
        (3.5, "nodes=3.5"),
        (b"a:1", "b'a:1'"),
        (["a:1", None], "None"),
        (["a:1", ""], "''"),
        (["a:1", "a:1"], "a:1 is listed twice"),
        (["a", ("a", 6379)], "a:6379 is listed twice"),
        (["a:1", "redis://b"], "'redis://b'"),
        ("a:1,b:2", "'a:1,b:2'"),
    ],
)
def test_bad_nodes_are_named(nodes: object, named: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_nodes(nodes)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("url", "addresses", "options"),
    [
        ("redis://", [HOME], {}),
        ("redis://redis", [Address("redis", 6379)], {}),
        ("redis://redis:6380/", [Address("redis", 6380)], {}),
        ("redis://:6380/2", [Address("127.0.0.1", 6380)], {"db": 2}),
        ("redis://:pw@redis", [Address("redis", 6379)], {"password": "pw"}),
        ("redis://me:pw@redis", [Address("redis", 6379)], {"username": "me", "password": "pw"}),
        (
            "redis://m%40e:p%2Fw%3A%40%25@redis:6380/3",
            [Address("redis", 6380)],
            {"username": "m@e", "password": "p/w:@%", "db": 3},
        ),
        (
            "redis://me:p@w:x@redis",
            [Address("redis", 6379)],
            {"username": "me", "password": "p@w:x"},
        ),
        ("redis://[::1]:6380/1", [Address("::1", 6380)], {"db": 1}),
        ("redis://[::1]", [Address("::1", 6379)], {}),
        (
            "redis://a:1/4?addr=b:2&addr=%5B::1%5D:3&addr=c",
            [Address("a", 1), Address("b", 2), Address("::1", 3), Address("c", 6379)],
            {"db": 4},
        ),
        ("redis://a:1,b:2/0", [Address("a", 1), Address("b", 2)], {"db": 0}),
    ],
)
def test_urls(url: str, addresses: list[Address], options: dict[str, object]) -> None:
    parsed = parse_nodes(url)
    assert list(parsed.addresses) == addresses
    assert parsed.options == options


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://a", "redis://"),
        ("redi://a", "redis://"),
        ("redis://a#x", "fragment"),
        ("redis://a/x", "'x'"),
        ("redis://a/1/2", "'1/2'"),
        ("redis://a/-1", "'-1'"),
        ("redis://a/²", "'²'"),
        ("redis://a/" + "9" * 5000, "database"),
        ("redis://a?port=1", "'port'"),
        ("redis://a?addr=", "''"),
        ("redis://a:x", "'x'"),
        ("redis://a:1?addr=a:1", "twice"),
        ("redis://me@a", "password"),
        ("redis://me:@a", "password"),
        ("redis://[::1", "'[::1'"),
        ("redis://a%2Cb", "'a,b'"),
        ("redis://a,,b", "''"),
    ],
)
def test_bad_urls_are_named(url: str, named: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_nodes(url)
    assert named in str(caught.value)


@given(
    st.one_of(
        st.text("redis:/@[]?#&=%,.0123456789²\n ", max_size=20),
        st.text("redis:/@[]?#&=%,.0123456789²\n ", max_size=20).map("redis://".__add__),
        st.text(max_size=8),
        st.lists(st.text("a:[]1", max_size=4) | st.integers() | st.none(), max_size=3),
    )
)
def test_any_nodes_are_taken_or_refused_by_name(nodes: object) -> None:
    try:
        parsed = parse_nodes(nodes)
    except InvalidOption:
        return
    assert len(set(parsed.addresses)) == len(parsed.addresses) > 0
    Options.from_mapping({**parsed.options, "haredis_db_num": 62, "db": 0})
