"""HAClient: every command reaches submit, encoded as the caller means it."""

from __future__ import annotations

import enum
import inspect
import warnings
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from txredisapi import BaseRedisProtocol, InvalidData

from tests.unit.fakes import FakeReactor
from txharedis.client import HAClient
from txharedis.commands import method_names
from txharedis.errors import UnsupportedCommand
from txharedis.failover import FailoverService
from txharedis.options import Options
from txharedis.topology import Topology


class FakeGroup:
    """Takes commands and answers none; or answers all with `reply`."""

    def __init__(self, **options: Any) -> None:
        self.options = Options(**options)
        self.master = "n:1"
        self.topology = Topology()
        self.size = 3
        self.commands: list[list[bytes]] = []
        self.begun: list[Any] = []
        self.done: list[str] = []
        self.reply: Any = None

    def submitter(self, terms: Any) -> Any:
        return lambda args, packed: self.submit(args, packed, terms)

    def submit(self, args: Any, packed: bytes, terms: Any) -> Deferred[Any]:
        self.commands.append(unpacked(packed))
        return Deferred() if self.reply is None else succeed(self.reply)

    def begin(self, keys: Any, terms: Any, *, multi: bool) -> Deferred[Any]:
        self.begun.append((keys, multi))
        return Deferred()

    def transact(self, function: Any, keys: Any, terms: Any, attempts: int) -> Deferred[Any]:
        self.begun.append((function, keys, attempts))
        return Deferred()

    def monitor(self, on_line: Any) -> Deferred[Any]:
        self.begun.append(on_line)
        return Deferred()

    def when_ready(self) -> Deferred[None]:
        return succeed(None)

    async def drain(self) -> None:
        self.done.append("drain")

    def end_session(self) -> Deferred[None]:
        self.done.append("end session")
        return succeed(None)

    def when_stopped(self) -> Deferred[None]:
        return Deferred()

    def stopService(self) -> Deferred[object]:
        self.done.append("stop")
        return succeed(None)

    def __repr__(self) -> str:
        return "<a group>"


def unpacked(packed: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(packed)
    command: list[bytes] = reader.gets()
    assert reader.gets() is False
    return command


def sent(*args: Any, **options: Any) -> list[bytes]:
    """One command as it goes over the wire."""
    group = FakeGroup(**options)
    HAClient(group).execute_command(*args)
    return group.commands[0]


# The methods

# Methods of txredisapi's protocol that are no commands.
NOT_COMMANDS = {
    "bulkDataReceived",
    "connectionLost",
    "connectionMade",
    "handleMultiBulkElement",
    "handleTransactionData",
    "handle_reply",
    "lineReceived",
    "multiBulkDataReceived",
    "rawDataReceived",
    "replyReceived",
    "tryConvertData",
    "whenConnected",
    "whenDisconnected",
}
# Those that mean something else here.
OWN = {"execute_command", "quit", "pipeline", "execute_pipeline", "multi", "watch"}
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "bitop": ("AND", "k", "k2"),
    "hmset": ("k", {"f": 1}),
    "mset": ({"k": 1},),
    "msetnx": ({"k": 1},),
}


def commands_of_txredisapi() -> Iterator[str]:
    for name, value in vars(BaseRedisProtocol).items():
        if inspect.isfunction(value) and name[0] != "_" and name not in NOT_COMMANDS | OWN:
            yield name


@pytest.mark.parametrize("name", list(commands_of_txredisapi()))
def test_every_command_method_of_txredisapi_is_submitted(name: str) -> None:
    group = FakeGroup()
    method = getattr(HAClient(group), name)
    required = [
        parameter
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_POSITIONAL
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        result = method(*ARGUMENTS.get(name, ["k"] * len(required)))
    assert isinstance(result, Deferred)
    assert len(group.commands) == 1


@pytest.mark.parametrize("name", sorted(method_names()))
def test_every_command_of_the_servers_has_a_method(name: str) -> None:
    client = HAClient(FakeGroup())
    assert callable(getattr(client, name))
    assert name in dir(client)


@pytest.mark.parametrize(
    ("name", "args", "command"),
    [
        ("xadd", ("s", "*", "f", 1), [b"XADD", b"s", b"*", b"f", b"1"]),
        ("config_get", ("maxmemory",), [b"CONFIG", b"GET", b"maxmemory"]),
        ("config_set", ("maxmemory", 0), [b"CONFIG", b"SET", b"maxmemory", b"0"]),
        ("object_encoding", ("k",), [b"OBJECT", b"ENCODING", b"k"]),
        ("client_no_evict", ("on",), [b"CLIENT", b"NO-EVICT", b"on"]),
        ("set", ("k", "v"), [b"SET", b"k", b"v"]),
        ("shutdown", (), [b"SHUTDOWN"]),
    ],
)
def test_methods(name: str, args: tuple[Any, ...], command: list[bytes]) -> None:
    group = FakeGroup()
    getattr(HAClient(group), name)(*args)
    assert group.commands == [command]


@pytest.mark.parametrize("name", ["novelty", "xad", "config", "_secret", "__len__", "XADD"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    client = HAClient(FakeGroup())
    if name == "config":  # a command by itself
        assert callable(client.config)
        return
    with pytest.raises(AttributeError, match=name):
        getattr(client, name)
    assert not hasattr(client, name)
    assert name not in dir(client)


def test_replies_are_processed_as_in_txredisapi() -> None:
    group = FakeGroup()
    client = HAClient(group)
    group.reply = "redis_version:7.0.15\r\nrole:master\r\n"
    assert client.info("server").result["role"] == "master"
    group.reply = ["f", 1, "g", 2]
    assert client.hgetall("k").result == {"f": 1, "g": 2}
    assert client.execute_command("X", post_proc=len).result == 4


# What the one shared link cannot do


def service_client() -> HAClient:
    return FailoverService(["n:1", "n:2", "n:3"], FakeReactor()).client


STATEFUL: dict[str, tuple[Any, ...]] = {
    "unwatch": (),
    "commit": (),
    "discard": (),
    "execute_pipeline": (),
    "auth": ("pw",),
    "hello": (3,),
    "reset": (),
    "sync": (),
    "client_reply": ("off",),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_what_would_change_the_link_fails_and_raises_nothing(name: str) -> None:
    client = service_client()
    failed = getattr(client, name)(*STATEFUL[name])
    errors: list[Any] = []
    failed.addErrback(errors.append)
    (failure,) = errors
    assert failure.check(UnsupportedCommand), failure
    assert failure.value.executed is False


def test_a_refused_commit_leaves_the_client_as_it_was() -> None:
    client = service_client()
    for name in ("commit", "discard", "unwatch", "execute_pipeline", "commit"):
        getattr(client, name)(*STATEFUL[name]).addErrback(lambda _: None)
    assert not client.set("k", "v").called
    assert not client.pipelining
    assert not client.inTransaction


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("EXEC", "use commit(), the method of what multi() or watch() gives"),
        ("MULTI", "use multi()"),
        ("WATCH", "use watch()"),
        ("MONITOR", "use monitor()"),
        ("SUBSCRIBE", "use subscribe()"),
        ("AUTH", "use the options username and password"),
    ],
)
def test_a_refused_command_names_the_method_to_use(name: str, instead: str) -> None:
    [failure] = caught(service_client().execute_command(name))
    assert str(failure.value).endswith(instead)
    assert str(failure.value).startswith(name)


def caught(failed: Deferred[Any]) -> list[Any]:
    errors: list[Any] = []
    failed.addErrback(errors.append)
    return errors


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("blpop", ("k",)),
        ("brpop", ("k",)),
        ("brpoplpush", ("k", "l")),
        ("wait", (1, 0)),
        ("xread", ("BLOCK", 0, "STREAMS", "s", "$")),
        ("multi", ()),
        ("watch", ("k",)),
        ("transaction", (len, "k")),
        ("monitor", (print,)),
    ],
)
def test_what_takes_a_link_of_its_own_waits_for_a_master(name: str, args: Any) -> None:
    waiting = getattr(service_client(), name)(*args)
    assert not waiting.called
    waiting.addErrback(lambda _: None)
    waiting.cancel()


def test_transactions_and_monitors_are_begun_by_the_group() -> None:
    group = FakeGroup()
    client = HAClient(group)
    client.multi()
    client.multi("k")
    client.watch(["k", "l"])
    client.transaction(len, "k", "l", attempts=3)
    client.monitor(print)
    assert group.begun == [
        (None, True),
        ("k", True),
        (["k", "l"], False),
        (len, ("k", "l"), 3),
        print,
    ]
    assert group.commands == []


# Arguments


class Text(str):
    """Not exactly a str."""


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize("charset", ["utf-8", "UTF_8", None, "latin-1", "ascii"])
@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("abc", b"abc"),
        ("", b""),
        (b"\xff\x00\r\n", b"\xff\x00\r\n"),
        (b"", b""),
        (bytearray(b"\xff"), b"\xff"),
        (memoryview(b"\xff"), b"\xff"),
        (7, b"7"),
        (-1, b"-1"),
        (2**63 - 1, b"9223372036854775807"),
        (-(2**63), b"-9223372036854775808"),
        (2**64, b"18446744073709551616"),
        (10**30, b"1" + b"0" * 30),
        (0.1, b"0.1"),
        (1e22, b"1e+22"),
        (1 / 3, b"0.3333333333333333"),
        (float("inf"), b"inf"),
        (float("-inf"), b"-inf"),
        (float("nan"), b"nan"),
        (True, b"True"),
        (False, b"False"),
        (Decimal("1.10"), b"1.10"),
        (Text("abc"), b"abc"),
        (Colour.RED, b"1"),
        ([1], b"[1]"),
    ],
)
def test_arguments(charset: str | None, value: object, encoded: bytes) -> None:
    assert sent("SET", "k", value, charset=charset) == [b"SET", b"k", encoded]


@pytest.mark.parametrize(
    ("charset", "errors", "encoded"),
    [
        ("utf-8", "strict", "é".encode()),
        (None, "strict", "é".encode()),
        ("latin-1", "strict", b"\xe9"),
        ("utf-16-le", "strict", b"\xe9\x00"),
        ("ascii", "ignore", b""),
        ("ascii", "replace", b"?"),
    ],
)
def test_text_is_encoded_with_the_charset(charset: str, errors: str, encoded: bytes) -> None:
    assert sent("SET", b"k", "é", charset=charset, errors=errors)[2] == encoded


def test_surrogates_go_where_the_error_handler_lets_them() -> None:
    assert sent("SET", "k", "\udcff", errors="surrogateescape")[2] == b"\xff"
    with pytest.raises(InvalidData, match="SET"):
        sent("SET", "k", "\udcff")


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", None])
def test_none_is_refused_by_name(charset: str | None) -> None:
    group = FakeGroup(charset=charset)
    with pytest.raises(InvalidData, match="HSET: None"):
        HAClient(group).execute_command("HSET", "k", "f", None)
    assert group.commands == []


@pytest.mark.parametrize("charset", ["ascii", "latin-1"])
def test_what_the_charset_lacks_is_refused_by_name(charset: str) -> None:
    with pytest.raises(InvalidData, match="SET"):
        sent("SET", "k", "€", charset=charset)


def test_no_command_is_refused() -> None:
    with pytest.raises(InvalidData):
        HAClient(FakeGroup()).execute_command()


scalars = st.text(st.characters(codec="utf-8")) | st.binary() | st.integers() | st.floats()


@given(st.lists(scalars, max_size=5), st.sampled_from(["utf-8", None]))
def test_any_arguments_arrive(values: list[Any], charset: str | None) -> None:
    expected = [
        value if isinstance(value, bytes) else str(value).encode() for value in ["X", *values]
    ]
    assert sent("X", *values, charset=charset) == expected


@given(st.lists(st.text() | st.binary(), max_size=5))
def test_texts_are_encoded_as_txredisapi_does(values: list[Any]) -> None:
    theirs = BaseRedisProtocol(charset="utf-8")
    try:
        expected = unpacked(theirs._build_command("X", *values))
    except InvalidData:
        with pytest.raises(InvalidData):
            sent("X", *values)
    else:
        assert sent("X", *values) == expected


# The rest


def test_repr_and_the_view_of_the_group() -> None:
    group = FakeGroup()
    client = HAClient(group)
    assert repr(client) == "<HAClient of <a group>>"
    assert client.master == "n:1"
    assert client.topology is group.topology
    assert client.when_ready().result is client


def test_quit_waits_for_the_answers_and_disconnect_does_not() -> None:
    group = FakeGroup()
    assert HAClient(group).quit().called
    assert group.done == ["drain", "end session", "stop"]
    group = FakeGroup()
    assert HAClient(group).disconnect().called
    assert group.done == ["stop"]


def test_the_service_behind_is_not_started_by_making_it() -> None:
    client = service_client()
    assert client.master is None
    assert "not started" in repr(client)


def test_nothing_is_drained_before_the_start() -> None:
    service = FailoverService(["n:1", "n:2", "n:3"], FakeReactor())
    waiting = service.client.set("a", "b")
    drained = Deferred.fromCoroutine(service.drain())
    assert drained.called
    assert drained.result is None
    assert not waiting.called
