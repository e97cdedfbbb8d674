"""Transactions on a scripted link: what they send, and what becomes of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from txredisapi import RedisProtocol, WatchError

from tests.unit.fakes import Dial
from tests.unit.masters import FakeMasters, outcome
from txharedis.dedicated.transactions import Transactions
from txharedis.errors import (
    NoMaster,
    NotInTransaction,
    NotReplicated,
    ResponseError,
    ServiceStopped,
    TransactionLost,
    UnsupportedCommand,
)
from txharedis.interfaces import pack
from txharedis.options import Terms
from txharedis.reads.lag import OwnWrites
from txharedis.scripts import ScriptCache


class Played(FakeMasters):
    """Transactions on fake masters, the first of which is there."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scripts = ScriptCache()
        self.transactions = Transactions(
            self.reactor, self.links, self.options, self.terms, self.scripts
        )
        self.lead_to(1)

    def _terms(self, own_writes: OwnWrites | None = None) -> Terms:
        return replace(self.options.terms, own_writes=own_writes)

    def begin(
        self, keys: Any = None, own_writes: OwnWrites | None = None, *, multi: bool = True
    ) -> Deferred[Any]:
        begun = self.transactions.begin(keys, 0, self._terms(own_writes), multi=multi)
        return Deferred.fromCoroutine(begun)

    def begun(
        self, keys: Any = None, own_writes: OwnWrites | None = None, *, multi: bool = True
    ) -> tuple[Any, Dial]:
        """A transaction that has begun, and its link."""
        got = outcome(self.begin(keys, own_writes, multi=multi))
        dial = self.accept()
        dial.commands()
        dial.answer(*["OK"] * ((keys is not None) + multi))
        dial.commands()
        [transaction] = got
        return transaction, dial

    def run(self, function: Any, *keys: Any, attempts: int = 3) -> list[Any]:
        run = self.transactions.run(function, keys, 0, self._terms(), attempts)
        return outcome(Deferred.fromCoroutine(run))


def names(dial: Dial) -> list[str]:
    return [command[0].decode() for command in dial.commands()]


def test_keys_are_watched_before_it_begins() -> None:
    played = Played()
    got = outcome(played.begin(["a", "b"]))
    dial = played.accept()
    assert dial.commands() == [[b"WATCH", b"a", b"b"]]
    dial.answer("OK")
    assert dial.commands() == [[b"MULTI"]]
    assert got == []
    dial.answer("OK")
    [tx] = got
    assert isinstance(tx, RedisProtocol)
    assert (tx.inTransaction, tx.inMulti, tx.pendingTransaction) == (True, True, True)


def test_all_at_once_without_waiting() -> None:
    played = Played()
    tx, dial = played.begun(multi=False)
    got = [outcome(reply) for reply in (tx.get("k"), tx.multi(), tx.incr("k"), tx.hgetall("h"))]
    committed = outcome(tx.commit())
    assert names(dial) == ["GET", "MULTI", "INCRBY", "HGETALL", "EXEC", "EVAL"]
    dial.answer(b"QUEUED", "OK", "QUEUED", "QUEUED", [1, [b"f", b"2"]], 9)
    assert got == [["QUEUED"], [tx], ["QUEUED"], ["QUEUED"]]
    assert committed == [[1, {"f": 2}]]
    assert tx.transactions == 0


def test_conversions_that_are_callbacks_wait_for_the_reply_too() -> None:
    played = Played()
    tx, dial = played.begun()
    replies = [
        outcome(reply)
        for reply in (
            tx.sismember("s", "m"),
            tx.smembers("s"),
            tx.zscore("z", "m"),
            tx.hexists("h", "f"),
            tx.scan(0),
            tx.info("server"),
            tx.sismember("s", "m"),
        )
    ]
    committed = outcome(tx.commit())
    dial.answer(*["QUEUED"] * 7)
    error = ResponseError("WRONGTYPE")
    dial.answer([1, [b"a"], b"1.5", 0, [b"0", [b"k"]], b"a:b\r\n", error])
    assert replies == [["QUEUED"]] * 7
    [[member, members, score, exists, scanned, info, failed]] = committed
    assert (member, members, score, exists) == (True, {"a"}, 1.5, False)
    assert scanned == [0, ["k"]]
    assert info == {"a": "b"}
    assert isinstance(failed, ResponseError)


def test_writes_are_counted_behind_themselves_and_behind_exec() -> None:
    played = Played()
    tx, dial = played.begun("k", multi=False)
    outcome(tx.set("a", 1)), outcome(tx.get("a"))
    assert names(dial) == ["SET", "EVAL", "GET"]
    outcome(tx.multi())
    for reply in (tx.set("a", 1), tx.get("a"), tx.incr("a")):
        outcome(reply)
    outcome(tx.commit())
    *_, execute, count = dial.commands()
    assert execute == [b"EXEC"]
    assert count[-1] == b"2"


@pytest.mark.parametrize("multi", [True, False])
@pytest.mark.parametrize("lost", [True, False])
def test_writes_are_those_of_its_view_until_they_are_answered_or_lost(
    multi: bool, lost: bool
) -> None:
    played = Played()
    writes = OwnWrites()
    tx, dial = played.begun(own_writes=writes, multi=multi)
    outcome(tx.get("a")), dial.answer("QUEUED")
    assert writes.settled
    reply = tx.set("a", 1)
    if multi:
        outcome(reply)
        dial.answer("QUEUED")
        assert writes.settled
        reply = tx.commit()
    outcome(reply)
    reply.cancel()  # it may be executed all the same
    assert writes.answered is None
    dial.lose() if lost else dial.answer(["x", "OK"] if multi else "OK", 1)
    assert writes.answered == 1
    assert not writes.settled


def test_nothing_is_counted_without_a_counter() -> None:
    played = Played(counter=None)
    tx, dial = played.begun()
    outcome(tx.set("a", 1)), outcome(tx.commit())
    assert names(dial) == ["SET", "EXEC"]


def test_a_script_goes_with_an_evalsha_that_names_it() -> None:
    played = Played()
    played.scripts.note("SCRIPT LOAD", pack(("SCRIPT", "LOAD", "return 7")))
    tx, dial = played.begun()
    queued = outcome(tx.evalsha(sha1("return 7"), ["k"]))
    outcome(tx.eval("return 8"))
    outcome(tx.evalsha(sha1("return 9")))
    committed = outcome(tx.commit())
    assert [command[:2] for command in dial.commands()][:3] == [
        [b"EVAL", b"return 7"],
        [b"EVAL", b"return 8"],
        [b"EVALSHA", sha1("return 9").encode()],
    ]
    dial.answer("QUEUED", "QUEUED", "QUEUED", [7, 8, ResponseError("NOSCRIPT")])
    assert queued == ["QUEUED"]
    assert committed[0][:2] == [7, 8]
    assert isinstance(committed[0][2], ResponseError)
    assert played.scripts.whole("EVALSHA", pack(("EVALSHA", sha1("return 8"), 0))) is not None


def sha1(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()


def test_a_conflict_is_a_watch_error() -> None:
    played = Played()
    tx, dial = played.begun("k")
    outcome(tx.set("k", 1))
    got = outcome(tx.commit())
    dial.answer("QUEUED", None, 1)
    assert isinstance(got[0], WatchError)
    assert tx.transactions == 0
    assert not tx.inTransaction
    assert len(played.links) == 0
    assert not dial.aborted


@pytest.mark.parametrize("method", ["set", "get", "commit", "discard", "unwatch", "multi", "watch"])
@pytest.mark.parametrize("end", ["commit", "discard", "unwatch"])
def test_after_the_end_everything_is_an_error(end: str, method: str) -> None:
    played = Played()
    tx, dial = played.begun("k", multi=end != "unwatch")
    outcome(getattr(tx, end)())
    dial.answer([] if end == "commit" else "OK")
    dial.commands()
    args = {"set": ("k", "v"), "get": ("k",), "watch": ("k",)}.get(method, ())
    got = outcome(getattr(tx, method)(*args))
    assert isinstance(got[0], NotInTransaction)
    assert dial.commands() == []
    assert len(played.links) == 0
    assert not dial.aborted


def test_its_repr_tells_its_state() -> None:
    played = Played()
    tx, dial = played.begun("k", multi=False)
    assert repr(tx) == "<Transaction before MULTI, <DedicatedLink to n:1, database 0>>"
    outcome(tx.multi())
    assert "in MULTI" in repr(tx)
    outcome(tx.discard())
    dial.answer("OK", "OK")
    assert repr(tx) == "<Transaction over, no link>"


def test_a_strange_end_is_the_end_of_the_link() -> None:
    played = Played()
    tx, dial = played.begun()
    got = outcome(tx.discard())
    dial.answer(ResponseError("ERR something"))
    assert isinstance(got[0], ResponseError)
    assert dial.aborted
    assert len(played.links) == 0


def test_execabort_leaves_a_clean_link() -> None:
    played = Played()
    tx, dial = played.begun()
    refused = outcome(tx.execute_command("GET"))
    got = outcome(tx.commit())
    dial.answer(ResponseError("ERR wrong number of arguments"))
    dial.answer(ResponseError("EXECABORT Transaction discarded because of previous errors."))
    assert "wrong number" in str(refused[0])
    assert "EXECABORT" in str(got[0])
    assert not dial.aborted
    assert not tx.inMulti


@pytest.mark.parametrize(("exec_sent", "executed"), [(False, False), (True, None)])
def test_a_lost_link_says_whether_exec_was_sent(exec_sent: bool, executed: bool | None) -> None:
    played = Played()
    tx, dial = played.begun()
    replies = [outcome(tx.set("k", 1)), outcome(tx.get("k"))]
    if exec_sent:
        replies.append(outcome(tx.commit()))
    dial.lose()
    replies += [outcome(tx.get("k")), outcome(tx.commit())]
    for [error] in replies:
        assert isinstance(error, TransactionLost)
        assert (error.exec_sent, error.executed) == (exec_sent, executed)
    assert len({id(error) for [error] in replies}) == len(replies)
    assert len(played.links) == len(played.transactions) == 0
    assert (tx.inTransaction, tx.inMulti, tx.pendingTransaction) == (False, False, False)


def test_a_link_that_was_lost_unseen() -> None:
    played = Played()
    tx, dial = played.begun()
    dial.lose()
    got = outcome(tx.commit())
    assert (got[0].exec_sent, got[0].executed) == (False, False)


@pytest.mark.parametrize(
    ("answers", "exec_sent"),
    [
        ([ResponseError("READONLY You can't write against a read only replica.")], False),
        (
            [
                "QUEUED",
                ResponseError(
                    "EXECABORT Transaction discarded because of: READONLY You can't write "
                    "against a read only replica."
                ),
            ],
            True,
        ),
    ],
)
def test_a_master_that_is_none_any_more(answers: list[Any], exec_sent: bool) -> None:
    played = Played()
    tx, dial = played.begun()
    queued = outcome(tx.set("k", 1))
    committed = outcome(tx.commit()) if exec_sent else []
    dial.answer(*answers)
    [lost] = committed if exec_sent else queued
    assert isinstance(lost, TransactionLost)
    assert (lost.exec_sent, lost.executed) == (exec_sent, False)
    assert len(played.turned_away) == 1
    assert dial.aborted
    again = outcome(tx.get("k"))
    assert (again[0].exec_sent, again[0].executed) == (exec_sent, False)


def test_the_end_of_the_client() -> None:
    played = Played()
    tx, _ = played.begun()
    asked, committed = outcome(tx.set("k", 1)), outcome(tx.commit())
    played.transactions.stop()
    played.links.refuse(lambda: ServiceStopped("over"))
    played.links.close()
    for [error] in (asked, committed, outcome(tx.get("k"))):
        assert isinstance(error, ServiceStopped)
        assert error.executed is None


def test_beginning_waits_for_a_link_that_lives() -> None:
    played = Played()
    got = outcome(played.begin(key for key in "k"))
    dial = played.accept()
    dial.commands()
    dial.lose()
    assert got == []
    played.reactor.advance(0.02)
    dial = played.accept()
    assert dial.commands() == [[b"WATCH", b"k"]]
    dial.answer("OK", "OK")
    assert got[0].inMulti


def test_what_the_server_refuses_at_the_beginning_leaves_a_clean_link() -> None:
    played = Played()
    got = outcome(played.begin([]))
    dial = played.accept()
    assert names(dial) == ["WATCH"]
    dial.answer(ResponseError("ERR wrong number of arguments for 'watch' command"))
    assert isinstance(got[0], ResponseError)
    assert names(dial) == ["UNWATCH"]
    dial.answer("OK")
    assert len(played.links) == 0
    assert not dial.aborted


def test_a_cancelled_beginning_leaves_a_clean_link() -> None:
    played = Played()
    begun = played.begin("k")
    got = outcome(begun)
    dial = played.accept()
    begun.cancel()
    assert isinstance(got[0], CancelledError)
    assert names(dial) == ["WATCH", "UNWATCH"]
    dial.answer("OK", "OK")
    assert len(played.links) == 0
    assert not dial.aborted


def test_a_cancelled_command_keeps_its_place() -> None:
    played = Played()
    tx, dial = played.begun()
    reply = tx.get("k")
    cancelled, committed = outcome(reply), outcome(tx.commit())
    reply.cancel()
    dial.answer("QUEUED", [b"v"])
    assert isinstance(cancelled[0], CancelledError)
    assert committed == [["v"]]


def test_command_timeout() -> None:
    played = Played(command_timeout=2.0)
    played.links.lead_to(None)
    got = outcome(played.begin())
    played.reactor.advance(2)
    assert isinstance(got[0], NoMaster)
    played.lead_to(1)
    tx, dial = played.begun()
    first = outcome(tx.get("k"))
    played.reactor.advance(1)
    second = outcome(tx.get("k"))
    dial.answer("QUEUED")
    assert first == ["QUEUED"]
    played.reactor.advance(1.5)
    assert second == []
    third = outcome(tx.commit())
    played.reactor.advance(0.6)
    for [error] in (second, third):
        assert isinstance(error, TransactionLost)
        assert (error.exec_sent, error.executed) == (True, None)
        assert "no reply within 2.0 s" in str(error)
    assert dial.aborted
    played.reactor.advance(0)
    assert played.reactor.getDelayedCalls() == []


def test_idle_when_all_is_answered() -> None:
    played = Played()
    tx, dial = played.begun()
    assert played.transactions.when_idle().called
    outcome(tx.get("k")), outcome(tx.commit())
    idle = played.transactions.when_idle()
    dial.answer("QUEUED")
    assert not idle.called
    dial.answer([None])
    assert idle.called


def test_what_has_no_place_here() -> None:
    played = Played()
    tx, dial = played.begun("k", multi=False)
    for reply in (
        tx.select(1),
        tx.auth("pw"),
        tx.subscribe("c"),
        tx.blpop("q"),
        tx.execute_command("WATCH", "k"),
        tx.execute_command("discard"),
        tx.monitor(),
        tx.pipeline(),
        tx.execute_pipeline(),
        tx.quit(),
        tx.shutdown(),
    ):
        assert isinstance(outcome(reply)[0], UnsupportedCommand)
    assert isinstance(outcome(tx.commit())[0], NotInTransaction)
    assert isinstance(outcome(tx.discard())[0], NotInTransaction)
    assert dial.commands() == []


# A function in a transaction


def counting(tx: Any) -> Any:
    """Read n, and write one more."""

    async def add() -> None:
        number = await tx.get("n") or 0
        await tx.multi()
        tx.set("n", number + 1)

    return add()


def play(played: Played, dial: Dial, *answers: Any) -> None:
    """Answer each command that comes; then leave the link to itself."""
    for answer in answers:
        dial.answer(answer)


def test_a_function_is_run_and_executed() -> None:
    played = Played()
    got = played.run(counting, "n")
    dial = played.accept()
    play(played, dial, "OK", b"4", "OK", "QUEUED", ["OK"])
    assert got == [["OK"]]
    assert names(dial) == ["WATCH", "GET", "MULTI", "SET", "EXEC", "EVAL"]


def test_a_conflict_is_tried_again_on_the_same_link_a_moment_later() -> None:
    played = Played()
    got = played.run(counting, "n", attempts=3)
    dial = played.accept()
    for _ in range(2):
        play(played, dial, "OK", b"4", "OK", "QUEUED", None, 1)
        assert names(dial) == ["WATCH", "GET", "MULTI", "SET", "EXEC", "EVAL"]
        assert got == []
        played.reactor.advance(0.11)
    play(played, dial, "OK", b"6", "OK", "QUEUED", None, 1)
    assert isinstance(got[0], WatchError)
    played.reactor.advance(1)
    assert names(dial) == ["WATCH", "GET", "MULTI", "SET", "EXEC", "EVAL"]
    assert len(played.links) == 0


def test_a_failover_is_tried_again_unless_exec_was_sent() -> None:
    played = Played()
    got = played.run(counting, "n")
    dial = played.accept()
    play(played, dial, "OK", b"4", "OK")  # SET is queued, and EXEC sent only then
    dial.commands()
    played.links.drop()
    # EXEC had been sent with the SET: nobody knows.
    assert isinstance(got[0], TransactionLost)
    assert got[0].executed is None

    played.lead_to(2)
    got = played.run(counting, "n")
    dial = played.accept()
    play(played, dial, "OK")
    played.links.drop()
    played.lead_to(3)
    played.reactor.advance(0.11)
    dial = played.accept()
    play(played, dial, "OK", b"4", "OK", "QUEUED", ["OK"])
    assert got == [["OK"]]


def test_a_refused_exec_is_tried_again() -> None:
    played = Played()
    got = played.run(counting, "n")
    dial = played.accept()
    readonly = "EXECABORT Transaction discarded because of: READONLY You can't write"
    play(played, dial, "OK", b"4", "OK", "QUEUED", ResponseError(readonly))
    played.lead_to(2)
    played.reactor.advance(0.11)
    play(played, played.accept(), "OK", b"4", "OK", "QUEUED", ["OK"])
    assert got == [["OK"]]


def test_without_keys_nothing_is_watched_and_without_multi_nothing_executed() -> None:
    played = Played()
    got = played.run(lambda tx: tx.get("k"))
    dial = played.accept()
    assert names(dial) == ["GET"]
    dial.answer(b"v")
    assert names(dial) == ["UNWATCH"]
    assert got == [[]]


def test_a_function_that_raises_is_given_up() -> None:
    played = Played()

    def failing(tx: Any) -> None:
        tx.multi()
        tx.set("k", "v")
        raise ZeroDivisionError

    got = played.run(failing, "k")
    dial = played.accept()
    dial.answer("OK")
    assert isinstance(got[0], ZeroDivisionError)
    assert names(dial) == ["WATCH", "MULTI", "SET", "DISCARD"]
    dial.answer("OK", "QUEUED", "OK")
    assert len(played.links) == 0
    assert not dial.aborted


def test_bad_attempts() -> None:
    played = Played()
    assert isinstance(played.run(counting, attempts=0)[0], ValueError)
    assert not played.dialling


def test_a_stop_ends_the_waiting_for_the_next_attempt() -> None:
    played = Played()
    got = played.run(counting, "n")
    dial = played.accept()
    play(played, dial, "OK", b"4", "OK", "QUEUED", None, 1)
    played.links.refuse(lambda: ServiceStopped("over"))
    played.transactions.stop()
    assert isinstance(got[0], ServiceStopped)
    played.links.close()
    played.reactor.advance(0)
    assert played.reactor.getDelayedCalls() == []


class Confirmed(Played):
    """Transactions of a view with acks=1."""

    def _terms(self, own_writes: OwnWrites | None = None) -> Terms:
        return replace(super()._terms(own_writes), acks=1)


def test_with_acks_exec_waits_for_the_replicas() -> None:
    played = Confirmed()
    tx, dial = played.begun()
    tx.incr("n")
    got = outcome(tx.commit())
    assert [command[0] for command in dial.commands()][-2:] == [b"EVAL", b"WAIT"]
    dial.answer("QUEUED", [1], 1)
    assert not got
    dial.answer(1)
    assert got == [[1]]


def test_too_few_replicas_for_a_transaction() -> None:
    played = Confirmed()
    tx, dial = played.begun()
    tx.incr("n")
    got = outcome(tx.commit())
    dial.answer("QUEUED", [1], 1, 0)
    [error] = got
    assert isinstance(error, NotReplicated)
    assert (error.executed, error.reply, error.replicas) == (True, [1], 0)
    assert "EXEC was executed" in str(error)


def test_a_link_that_dies_between_exec_and_its_confirmation() -> None:
    played = Confirmed()
    tx, dial = played.begun()
    tx.incr("n")
    got = outcome(tx.commit())
    dial.answer("QUEUED", [1], 1)
    dial.lose()
    [error] = got
    assert isinstance(error, NotReplicated)
    assert error.executed is True


def test_a_transaction_of_reads_needs_no_confirmation() -> None:
    played = Confirmed()
    tx, dial = played.begun()
    tx.get("n")
    got = outcome(tx.commit())
    assert [command[0] for command in dial.commands()] == [b"GET", b"EXEC"]
    dial.answer("QUEUED", [b"1"])
    assert got == [[1]]
