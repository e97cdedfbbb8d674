"""The words for commands and failovers are few, and the right ones."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from tests.unit.watched import NODES, SeenClient, picture
from txharedis.errors import (
    AccessDenied,
    NoMaster,
    NotReplicated,
    OutcomeUnknown,
    QueueFull,
    ResponseError,
    ServiceStopped,
    UnsupportedCommand,
)
from txharedis.events import FailoverEnded, FailoverStarted, FailoverStep, LockNotGranted
from txharedis.outcomes import (
    COMMAND_RESULTS,
    FAILOVER_REASONS,
    FAILOVER_RESULTS,
    Attempt,
    Attempts,
    command_name,
    result_of,
)
from txharedis.topology import Status


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("GET", "k"), "GET"),
        ((b"get", "k"), "GET"),
        (("gEt", "k"), "GET"),
        (("CONFIG", "get", "x"), "CONFIG GET"),
        (("CONFIG", "NONSENSE"), "other"),
        (("NO_SUCH",), "other"),
        (('NO_SUCH\n"x',), "other"),
        ((b"\xff\xfe",), "other"),
        (("",), "other"),
        ((7,), "other"),
    ],
)
def test_a_command_has_its_name_in_the_table(args: tuple[Any, ...], name: str) -> None:
    assert command_name(args) == name


class Strange(NoMaster):
    pass


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ResponseError("WRONGTYPE"), "error_reply"),
        (NoMaster("n"), "no_master"),
        (Strange("n"), "no_master"),
        (QueueFull("q"), "queue_full"),
        (OutcomeUnknown("o", ("SET",)), "outcome_unknown"),
        (NotReplicated("n", ("SET",), b"OK", 0), "not_replicated"),
        (UnsupportedCommand("u"), "refused"),
        (AccessDenied("a"), "refused"),
        (ServiceStopped("s"), "stopped"),
        (CancelledError(), "cancelled"),
        (RuntimeError("x"), "other"),
    ],
)
def test_an_error_has_a_word(error: Exception, word: str) -> None:
    assert result_of(Failure(error)) == word
    assert word in COMMAND_RESULTS


def test_a_reply_is_a_success() -> None:
    assert result_of(b"OK") == result_of(None) == result_of([ValueError()]) == "success"


def started(reason: str, at: float = 1.0) -> FailoverStarted:
    return FailoverStarted(at=at, reason=reason, failover_id="f")


@pytest.mark.parametrize(
    ("reason", "status", "word"),
    [
        ("MASTER n:1 is down", Status.REFUSED, "crashed"),
        ("MASTER n:1 is down", Status.SILENT, "hanging"),
        ("MASTER n:1 is down", Status.UP, "crashed"),
        ("MASTER n:1 is down", Status.DENIED, "other"),
        ("MASTER m:9 is down", Status.REFUSED, "other"),
        ("n:1 has restarted since it was promoted", Status.UP, "crashed"),
        ("n:1 is no longer master though it was promoted", Status.UP, "other"),
        ("switchover from n:1 to n:2", Status.UP, "switchover"),
        ("invalid master count: 0", Status.UP, "other"),
        ("2 masters claim epoch 7", Status.UP, "other"),
    ],
)
def test_why_there_was_a_failover(reason: str, status: Status, word: str) -> None:
    client = SeenClient()
    client.set(picture(1, None, status=status))
    attempts = Attempts(lambda: client.topology)
    assert attempts.heard(started(reason)) is None
    client.set(picture(1, None, status=Status.CLOSED))  # the start counts
    ended = FailoverEnded(at=3.0, master=NODES[1], epoch=2, reason=reason)
    assert attempts.heard(ended) == Attempt(word, "success", 2.0)
    assert word in FAILOVER_REASONS


STEP = FailoverStep(at=1.5, step="lock", epoch=2)
NOT_GRANTED = LockNotGranted(at=1.5, epoch=2, reason="n:1: somebody")


@pytest.mark.parametrize(
    ("before", "between", "master", "result"),
    [
        ([], [STEP], NODES[1], "success"),
        ([], [NOT_GRANTED], None, "yielded"),
        ([], [STEP], None, "failure"),
        ([NOT_GRANTED], [STEP], None, "failure"),  # that was of a repair
    ],
)
def test_what_came_of_it(before: Any, between: Any, master: Any, result: str) -> None:
    attempts = Attempts(lambda: SeenClient().topology)
    for event in (*before, started("invalid master count: 0"), *between):
        assert attempts.heard(event) is None
    attempt = attempts.heard(FailoverEnded(at=1.25, master=master, epoch=2))
    assert attempt == Attempt("other", result, 0.25)
    assert result in FAILOVER_RESULTS


def test_one_whose_start_was_not_seen() -> None:
    attempts = Attempts(lambda: SeenClient().topology)
    ended = FailoverEnded(at=3.0, master=NODES[1], epoch=2, reason="switchover")
    assert attempts.heard(ended) == Attempt("switchover", "success", None)
