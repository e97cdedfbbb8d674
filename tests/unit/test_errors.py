"""One tree of errors under txredisapi's, and what each says of its command."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import txredisapi

import txharedis
from txharedis import errors
from txharedis.errors import (
    AccessDenied,
    HARedisError,
    InvalidOption,
    LinkLost,
    LockLost,
    NoMaster,
    NotInTransaction,
    NotReplicated,
    OutcomeUnknown,
    QueueFull,
    ResponseError,
    ServiceStopped,
    StepFailed,
    SwitchoverFailed,
    TransactionLost,
    UnfitNodes,
    UnsupportedCommand,
    WouldDiscardData,
)


@pytest.mark.parametrize(
    "error",
    [
        NoMaster("n"),
        OutcomeUnknown("o", ["SET", "k", "v"]),
        ServiceStopped("s"),
        TransactionLost("t", True, None),
    ],
    ids=repr,
)
def test_what_txredisapi_has_a_connection_error_for_is_one_here_too(error: Exception) -> None:
    assert isinstance(error, txredisapi.ConnectionError)
    assert isinstance(error, HARedisError)


#: Every error of ours, as it is made, and what it says of the command that it ends.
EXECUTED: list[tuple[HARedisError, bool | None]] = [
    (HARedisError("h"), False),
    (InvalidOption("i"), False),
    (UnsupportedCommand("u"), False),
    (NoMaster("n"), False),
    (QueueFull("q"), False),
    (ServiceStopped("s"), False),
    (ServiceStopped("s", None), None),
    (OutcomeUnknown("o", ["SET", "k", "v"]), None),
    (OutcomeUnknown("o", ["SET", "k", "v"], executed=True), True),
    (NotReplicated("n", ["SET", "k", "v"], b"OK", 0), True),
    (TransactionLost("t"), False),
    (TransactionLost("t", exec_sent=True), False),
    (TransactionLost("t", exec_sent=True, executed=None), None),
    (NotInTransaction("n"), False),
    (WouldDiscardData("w"), False),
    (AccessDenied("a"), False),
    (UnfitNodes("u"), False),
    (SwitchoverFailed("s"), False),
    (SwitchoverFailed("s", None), None),
    (LinkLost("l"), None),
    (LockLost("l"), False),
]


@pytest.mark.parametrize(("error", "executed"), EXECUTED, ids=repr)
def test_each_says_what_happened_to_the_command(error: HARedisError, executed: bool | None) -> None:
    assert error.executed is executed
    assert isinstance(error, txredisapi.RedisError)
    assert str(error), "and says why"
    with pytest.raises(type(error)) as caught:
        raise error
    assert caught.value.executed is executed


def tree(error: type[BaseException]) -> set[type[BaseException]]:
    """This class and all below it."""
    return {error}.union(*(tree(below) for below in error.__subclasses__()))


def test_none_is_forgotten() -> None:
    """Whoever adds an error has to say what it says of its command."""
    for module in pkgutil.walk_packages(txharedis.__path__, "txharedis."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = {error for error in tree(HARedisError) if error.__module__.startswith("txharedis")}
    assert ours == {type(error) for error, _ in EXECUTED}
    for error in ours:
        assert error.__doc__, error
        assert error.__module__ == "txharedis.errors", "one tree in one module"
        assert error.__name__ in errors.__all__


def test_what_a_server_replies_is_no_error_of_ours() -> None:
    """Nor has it `executed`: the server's own words say what happened."""
    below = {error for error in tree(ResponseError) if error.__module__.startswith("txharedis")}
    assert below == {StepFailed}
    assert not issubclass(ResponseError, HARedisError)


def test_the_command_is_with_the_error_that_leaves_it_in_doubt() -> None:
    unknown = OutcomeUnknown("o", ["SET", "k", b"v"])
    assert unknown.command == ("SET", "k", b"v")
    short = NotReplicated.of(("INCR", "n"), 7, 2, 1)
    assert short is not None
    assert (short.command, short.reply, short.replicas) == (("INCR", "n"), 7, 1)


@pytest.mark.parametrize(
    ("waited", "replicas"), [(2, None), (3, None), (1, 1), (0, 0), (ResponseError("NOPERM"), 0)]
)
def test_what_wait_has_to_answer(waited: object, replicas: int | None) -> None:
    error = NotReplicated.of(["SET"], b"OK", 2, waited)
    assert (None if error is None else error.replicas) == replicas
    assert error is None or f"{replicas} of 2 replicas" in str(error)
