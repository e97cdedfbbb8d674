"""What each error reply means for its command, told by what the caller sees and what is sent.

The client's whole stack, against servers whose replies are scripted.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.scripted import ScriptedGroup, outcome
from txharedis.client import HAClient
from txharedis.errors import ResponseError, TransactionLost

AGAIN = "not executed: it is sent again"
CALLER = "not executed: the caller is told, and the node is not down"

#: code -> (the server's words, what becomes of the command)
TABLE = {
    "READONLY": ("READONLY You can't write against a read only replica.", AGAIN),
    "MASTERDOWN": (
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        AGAIN,
    ),
    "LOADING": ("LOADING Redis is loading the dataset in memory", AGAIN),
    "TRYAGAIN": ("TRYAGAIN Multiple keys request during rehashing of slot", AGAIN),
    "max clients": ("ERR max number of clients reached", AGAIN),
    "UNBLOCKED": (
        "UNBLOCKED force unblock from blocking operation, instance state changed "
        "(master -> replica?)",
        AGAIN,
    ),
    "NOREPLICAS": ("NOREPLICAS Not enough good replicas to write.", CALLER),
    "MISCONF": (
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist "
        "to disk.",
        CALLER,
    ),
    "OOM": ("OOM command not allowed when used memory > 'maxmemory'.", CALLER),
    "BUSY": (
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        CALLER,
    ),
    "NOAUTH": ("NOAUTH Authentication required.", CALLER),
    "WRONGPASS": ("WRONGPASS invalid username-password pair or user is disabled.", CALLER),
    "NOPERM": ("NOPERM User app has no permissions to run the 'set' command", CALLER),
    "EXECABORT": ("EXECABORT Transaction discarded because of previous errors.", CALLER),
}
#: What a script that met the error answers: before Redis 7, and since then.
WRAPPED = {
    "{}": "{}",
    "ERR Error running script": (
        "ERR Error running script (call to f_a1): @user_script:1: @user_script: 1: -{}"
    ),
    "script:": "{} script: a1, on @user_script:1.",
}
#: Codes that a script of Redis 6 can meet at its first write; a later error is no reason to run
#: all of the script again.
MET_BY_SCRIPTS = ("READONLY", "MASTERDOWN")


def rows() -> list[Any]:
    """(words, what becomes of it) for each code, as it is and inside a script's error."""
    return [
        pytest.param(
            wrapping.format(text),
            CALLER if form.startswith("ERR") and code not in MET_BY_SCRIPTS else meaning,
            id=f"{code} {form}".replace(" {}", ""),
        )
        for code, (text, meaning) in TABLE.items()
        for form, wrapping in WRAPPED.items()
    ]


Ask = Callable[[HAClient], Deferred[Any]]


def ask(give: Ask, name: str, text: str, meaning: str, **options: Any) -> tuple[Any, list[str]]:
    """What the caller sees, and what was sent, when commands of this name are answered so.

    What another answer may be hoped for is answered so once; what is the caller's, for ever.
    """
    group = ScriptedGroup(**options)
    if meaning == AGAIN:
        group.answers[name] = deque([ResponseError(text)])
    else:
        group.always[name] = ResponseError(text)
    got = outcome(give(group.client))
    group.run(3.0)
    picture = [node.status.name for node in group.client.topology.nodes]
    assert picture == ["UP"] * 3, "an error reply is no sign of death"
    assert str(group.client.master) == "n:1"
    echoed = outcome(group.client.echo("x"))
    group.run()
    assert echoed == ["OK"], "the commands flow on"
    assert group.sent.pop() == "ECHO"
    group.stop()
    [seen] = got
    return seen, group.sent


def check(seen: Any, meaning: str, text: str, value: Any) -> None:
    if meaning == AGAIN:
        assert seen == value
    else:
        assert isinstance(seen, ResponseError)
        assert str(seen) == text, "in the server's own words, which name what is missing"


@pytest.mark.parametrize("delivery", ["at-most-once", "at-least-once"])
@pytest.mark.parametrize(("text", "meaning"), rows())
def test_set_as_it_is(text: str, meaning: str, delivery: str) -> None:
    seen, sent = ask(lambda c: c.set("k", "v"), "SET", text, meaning, delivery=delivery)
    check(seen, meaning, text, "OK")
    assert sent == (["SET", "SET"] if meaning == AGAIN else ["SET"])


@pytest.mark.parametrize(("text", "meaning"), rows())
def test_set_through_the_journal_that_is_refused_as_a_whole(text: str, meaning: str) -> None:
    seen, sent = ask(lambda c: c.set("k", "v"), "SET", text, meaning)
    check(seen, meaning, text, "OK")
    if meaning == AGAIN:
        assert sent == ["[SET]", "[SET]"]
    elif text.startswith(("NOPERM", "OOM", "MISCONF", "NOREPLICAS")):
        assert sent == ["[SET]", "SET"], "without the journal it has an answer of its own"
    else:
        assert sent == ["[SET]"]


@pytest.mark.parametrize(("text", "meaning"), rows())
def test_set_inside_a_batch(text: str, meaning: str) -> None:
    """A READONLY in a batch is one of the whole batch: see the script."""

    def give(client: HAClient) -> Deferred[Any]:
        before, seen, behind = client.incr("n"), client.set("k", "v"), client.incr("n")
        others.extend([outcome(before), outcome(behind)])
        return seen

    others: list[list[Any]] = []
    seen, sent = ask(give, "SET", text, meaning, whole=False)
    assert others == [["OK"], ["OK"]], "the others are not touched"
    check(seen, meaning, text, "OK")
    assert sent[0] == "[INCRBY SET INCRBY]"
    assert sent[1:] == (["[SET]"] if meaning == AGAIN else [])


@pytest.mark.parametrize(("text", "meaning"), rows())
def test_eval(text: str, meaning: str) -> None:
    seen, sent = ask(lambda c: c.eval("return redis.call('set', 'k', 1)"), "EVAL", text, meaning)
    check(seen, meaning, text, "OK")
    assert sent == (["EVAL", "EVAL"] if meaning == AGAIN else ["EVAL"])


@pytest.mark.parametrize(("text", "meaning"), rows())
def test_blpop(text: str, meaning: str) -> None:
    seen, sent = ask(lambda c: c.blpop("q"), "BLPOP", text, meaning)
    check(seen, meaning, text, "OK")
    assert sent == (["BLPOP", "BLPOP"] if meaning == AGAIN else ["BLPOP"])


def test_blpop_that_a_person_has_unblocked() -> None:
    text = "UNBLOCKED client unblocked via CLIENT UNBLOCK"
    seen, sent = ask(lambda c: c.blpop("q"), "BLPOP", text, CALLER)
    check(seen, CALLER, text, None)
    assert sent == ["BLPOP"]


ABORTED = {"{}": "{}", "EXECABORT": "EXECABORT Transaction discarded because of: {}"}


def exec_rows() -> list[Any]:
    return [
        pytest.param(wrapping.format(text), meaning, id=f"{code} {form}".replace(" {}", ""))
        for code, (text, meaning) in TABLE.items()
        for form, wrapping in ABORTED.items()
    ]


@pytest.mark.parametrize(("text", "meaning"), exec_rows())
def test_exec_of_a_transaction_function(text: str, meaning: str) -> None:
    def both(tx: Any) -> None:
        tx.multi()
        tx.set("k", "v")

    seen, sent = ask(lambda c: c.transaction(both), "EXEC", text, meaning)
    check(seen, meaning, text, ["OK"])
    once = ["MULTI", "SET", "EXEC"]
    assert sent == (once * 2 if meaning == AGAIN else once)


@pytest.mark.parametrize(("text", "meaning"), exec_rows())
def test_exec_of_commit(text: str, meaning: str) -> None:
    async def both(client: HAClient) -> Any:
        tx = await client.multi()
        tx.set("k", "v")
        return await tx.commit()

    seen, sent = ask(lambda c: Deferred.fromCoroutine(both(c)), "EXEC", text, meaning)
    if meaning == AGAIN:  # what was queued is the caller's: nobody else can send it again
        assert isinstance(seen, TransactionLost)
        assert (seen.exec_sent, seen.executed) == (True, False)
        assert text in str(seen)
    else:
        check(seen, meaning, text, None)
    assert sent == ["MULTI", "SET", "EXEC"]


@pytest.mark.parametrize(("text", "meaning"), exec_rows()[::2])
def test_a_command_that_is_refused_when_it_is_queued(text: str, meaning: str) -> None:
    def both(tx: Any) -> None:
        tx.multi()
        tx.set("k", "v")

    seen, sent = ask(lambda c: c.transaction(both), "SET", text, meaning)
    check(seen, meaning, TABLE["EXECABORT"][0], ["OK"])
    once = ["MULTI", "SET", "EXEC"]
    assert sent == (once * 2 if meaning == AGAIN else once)


def test_a_script_that_goes_again_whole_keeps_the_terms_of_its_call() -> None:
    group = ScriptedGroup()
    group.always["WAIT"] = 1
    group.answers["EVALSHA"] = deque([ResponseError("NOSCRIPT No matching script.")])
    view = group.client.with_options(acks=1)
    script = "return redis.call('set', 'k', 1)"
    first = outcome(view.eval(script))
    group.run()
    second = outcome(view.evalsha(hashlib.sha1(script.encode()).hexdigest()))
    group.run()
    assert (first, second) == (["OK"], ["OK"])
    assert group.sent == ["EVAL", "WAIT", "EVALSHA", "WAIT", "EVAL", "WAIT"]
    group.stop()
