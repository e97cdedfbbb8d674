"""What error replies mean for their commands, and how values reach the caller."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from txredisapi import HiredisProtocol

from txharedis.errors import ResponseError
from txharedis.replies import converter, missing_right, not_executed

SENT_AGAIN = [
    "READONLY You can't write against a read only replica.",
    "READONLY",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "LOADING Redis is loading the dataset in memory",
    "LOADING Valkey is loading the dataset in memory",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "ERR max number of clients reached",
    # as Redis before 7 wraps what a script met
    "ERR Error running script (call to f_a1): @user_script:1: @user_script: 1: -READONLY You can't "
    "write against a read only replica.",
    "ERR Error running script (call to f_a1): @user_script:1: -MASTERDOWN Link with MASTER is down",
    # as Redis 7 and Valkey say it
    "READONLY You can't write against a read only replica. script: a1, on @user_script:1.",
]

THE_CALLERS = [
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "EXECABORT Transaction discarded because of previous errors.",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM this user has no permissions to run the 'get' command",
    "NOSCRIPT No matching script.",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR unknown command 'FOO'",
    "ERR value is not an integer or out of range",
    # the words, but not as the code
    "READONLYX",
    "ERR READONLY is not a command",
    "WRONGTYPE -READONLY",
    "ERR the max number of clients",
    "ERR no such key: Error running script -READONLY",
    "ERR Error running script (call to f_a1): @user_script:1: READONLY is only a word here",
    "ERR Error running script (call to f_a1): @user_script:1: -NOREPLICAS Not enough replicas",
    "",
]


@pytest.mark.parametrize("text", SENT_AGAIN)
def test_another_node_should_run_it(text: str) -> None:
    assert not_executed(ResponseError(text))


@pytest.mark.parametrize("text", THE_CALLERS)
def test_the_caller_has_to_know(text: str) -> None:
    assert not not_executed(ResponseError(text))


@pytest.mark.parametrize(
    "text",
    [
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOPERM this user has no permissions to run the 'get' command",
        "ERR invalid password",
        "ERR Client sent AUTH, but no password is set",
        "ERR AUTH <password> called without any password configured for the default user. Are you "
        "sure your configuration is correct?",
    ],
)
def test_a_missing_right_is_the_callers_to_know(text: str) -> None:
    assert not not_executed(ResponseError(text))
    assert missing_right(text)


@pytest.mark.parametrize("text", ["ERR DB index is out of range", "ERR invalid DB index"])
def test_a_missing_database_is_a_missing_right(text: str) -> None:
    assert missing_right(text)


@pytest.mark.parametrize(
    "text",
    [
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down",
        "ERR max number of clients reached",
        "DENIED Redis is running in protected mode",
        "ERR unknown command 'AUTH'",
        "NOAUTHORITY",
        "ERR NOPERM",
        "connection refused",
        "",
    ],
)
def test_what_waiting_may_help_is_no_missing_right(text: str) -> None:
    assert not missing_right(text)


# The converter against txredisapi's own

CHARSETS = [None, "utf-8", "latin-1", "ascii", "utf-16"]

texts = st.one_of(
    st.binary(),
    st.text().map(str.encode),
    st.text("0123456789+-._eE infa\n ٣", max_size=8).map(str.encode),
    st.integers().map(lambda number: b"%d" % number),
    st.floats().map(lambda number: repr(number).encode()),
)
raw = st.recursive(
    texts | st.none() | st.integers(), lambda inner: st.lists(inner, max_size=4), max_leaves=12
)


def by_txredisapi(value: object, charset: str | None, convert_numbers: bool) -> Any:
    """As its HiredisProtocol.dataReceived treats a reply."""
    protocol = HiredisProtocol(charset=charset, convertNumbers=convert_numbers)
    return protocol.tryConvertData(value) if isinstance(value, (bytes, list)) else value


def check_conversion(charset: str | None, convert_numbers: bool, value: object) -> None:
    convert = converter(charset, convert_numbers)
    converted = value if convert is None else convert(value)
    # repr tells 1 from 1.0 and from True, and nan is equal to nan
    assert repr(converted) == repr(by_txredisapi(value, charset, convert_numbers))


# (pytest-twisted does not bear @given and parametrize on one test.)
@given(charset=st.sampled_from(CHARSETS), convert_numbers=st.booleans(), value=raw)
def test_values_are_those_of_txredisapi(
    charset: str | None, convert_numbers: bool, value: object
) -> None:
    check_conversion(charset, convert_numbers, value)


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("convert_numbers", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"0", b"007", b"1_000", b"3.10", b"-", b"+5", b"-inf", b"inf", b".5", b"-.inf"),
        *(b"1.e400", b"9" * 5000, b"\xff", b"5\xff", b"QUEUED", "٣.5".encode(), b" 7", b"7 "),
        [b"1", [b"x", [None, 3, b"\xff"]], []],
        None,
        7,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_values_at_the_edge_are_those_of_txredisapi(
    charset: str | None, convert_numbers: bool, value: object
) -> None:
    check_conversion(charset, convert_numbers, value)


def test_raw_values_need_no_converter() -> None:
    assert converter(None, False) is None


def test_an_error_inside_a_reply_stays_what_it_is() -> None:
    error = ResponseError("WRONGTYPE")
    convert = converter("utf-8", True)
    assert convert is not None
    assert convert([b"1", error]) == [1, error]


CODECS = ["idna", "punycode", "utf-7", "utf-32"]


@given(charset=st.sampled_from(CODECS), value=st.binary() | st.sampled_from([b"\xff", b"\\x"]))
def test_what_a_charset_cannot_decode_stays_bytes(charset: str, value: bytes) -> None:
    convert = converter(charset, False)
    assert convert is not None
    assert isinstance(convert(value), (str, bytes))
