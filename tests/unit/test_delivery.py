"""In what form commands go out, and what becomes of them with each answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from tests.unit.journals import NO_EVALSHA, NO_WAIT, NOSCRIPT, READONLY, words_of
from tests.unit.test_pending import Caller, FakeLink
from txharedis.commands import JOURNALLED, PLAIN, RIDING
from txharedis.counter import COUNT_SHA1
from txharedis.delivery import Delivery
from txharedis.errors import (
    HARedisError,
    NoMaster,
    NotReplicated,
    OutcomeUnknown,
    ResponseError,
    ServiceStopped,
    WouldDiscardData,
)
from txharedis.interfaces import pack
from txharedis.journal import (
    BATCH_BYTES,
    BATCH_COMMANDS,
    INEXACT,
    JOURNAL_LIFE,
    JOURNAL_SCRIPT,
    JOURNAL_SHA1,
    TOO_LARGE,
)
from txharedis.options import Terms
from txharedis.pending import PendingCommands
from txharedis.replies import not_executed

UNBLOCKED = "UNBLOCKED force unblock from blocking operation, instance state changed"
TURNED_AWAY = [
    READONLY,
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
]


class Batch:
    """What stands in an EVALSHA of the journal."""

    def __init__(self, words: list[bytes]) -> None:
        self.whole = words[0] == b"EVAL"
        assert words[1] == (JOURNAL_SCRIPT if self.whole else JOURNAL_SHA1)
        rest = words[3 + int(words[2]) :]
        numbers = [int(word) for word in rest[:7]]
        self.number, self.settled, self.after, self.again = numbers[:4]
        self.db, self.own_db = numbers[5:]
        self.lines: list[str] = []  # a read in brackets, "" for what was given up
        rest = rest[7:]
        while rest:
            count = int(rest[0])
            line = b" ".join(rest[1 : 1 + abs(count)]).decode()
            self.lines.append(f"({line})" if count < 0 else line)
            rest = rest[1 + abs(count) :]

    def __repr__(self) -> str:
        return f"{self.number}: {', '.join(self.lines)}"


class Queue:
    """A queue whose writes go through a journal, and its owner."""

    def __init__(self, *, counter: str | None = None, acks: int = 0, **options: Any) -> None:
        self.clock = Clock()
        self.turned_away: list[str] = []
        self.denied: list[str] = []
        self.delivery = Delivery(
            self.clock,
            own_db=15,
            counter=counter,
            ack_timeout=1.5,
            denied=lambda error: self.denied.append(str(error)),
        )
        self.acks = acks
        values: dict[str, Any] = {"max_pending": 10_000, "max_pending_bytes": 10**9, **options}
        self.pending = PendingCommands(
            self.clock,
            self.delivery,
            terms=self.terms(),
            convert=None,
            may_retry=not_executed,
            turned_away=lambda error: self.turned_away.append(str(error)),
            **values,
        )
        self.link = FakeLink()
        self.callers: list[Caller] = []

    def terms(self, **values: Any) -> Terms:
        return Terms(**{"delivery": "exactly-once", "acks": self.acks, **values})

    def add(self, line: str, *, db: int | None = None, **terms: Any) -> Caller:
        """Give a command: upper case is what the journal takes, (in brackets) a read.

        A small read may ride, other ones, and other commands, go plainly.
        """
        args = tuple(line.strip("()").split())
        read = line.startswith("(")
        fit = {"GET": RIDING, "HGETALL": PLAIN, "EVAL": PLAIN}.get(args[0], JOURNALLED)
        deferred = self.pending.add(
            args, pack(args), read, db, terms=self.terms(**terms) if terms else None, fit=fit
        )
        self.callers.append(Caller(deferred))
        return self.callers[-1]

    def add_all(self, *lines: str) -> list[Caller]:
        return [self.add(line) for line in lines]

    def connect(self, db: int = 0) -> FakeLink:
        self.link = FakeLink(db)
        self.pending.open(self.link)
        return self.link

    def turn(self) -> None:
        self.clock.advance(0)

    def written(self) -> list[Any]:
        """What was written since the last time: Batches, and lines of what went plainly."""
        packed = self.link.written
        self.link.batches.clear()
        return [shown(words_of(command)) for command in packed]

    def batches(self) -> list[Batch]:
        return [one for one in self.written() if isinstance(one, Batch)]

    def answer(self, *replies: object) -> None:
        self.link.answer(*replies)

    def done(self) -> None:
        """Nothing is left behind, and each Deferred has fired once."""
        assert len(self.pending) == 0
        assert self.pending._bytes == 0
        assert self.pending._in_flight == 0
        assert not self.link.waiting
        assert self.pending.when_idle().called
        journal = self.delivery.journal
        assert journal.settled == journal._newest
        assert all(len(caller.outcomes) == 1 for caller in self.callers)
        self.pending.stop(lambda executed: ServiceStopped("stopped", executed))
        assert self.clock.getDelayedCalls() == []


def shown(words: list[bytes]) -> Any:
    if words[0] in (b"EVAL", b"EVALSHA") and words[1] in (JOURNAL_SCRIPT, JOURNAL_SHA1):
        return Batch(words)
    if words[0] == b"EVALSHA" and words[1] == COUNT_SHA1.encode():
        return f"count {words[-1].decode()}"
    return b" ".join(words).decode()


def lines(written: Sequence[Any]) -> list[Any]:
    """As text, a batch as the list of its lines."""
    return [one.lines if isinstance(one, Batch) else one for one in written]


def outcomes(callers: Sequence[Caller]) -> list[Any]:
    return [caller.outcome for caller in callers]


def error_of(caller: Caller, kind: type[HARedisError], executed: bool | None, *words: str) -> Any:
    error = caller.outcome
    assert type(error) is kind, error
    assert error.executed is executed
    for word in words:
        assert word in str(error)
    return error


# In what form


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("SET k v", [["SET k v"]]),
        ("SET k v; INCR n; DEL k", [["SET k v", "INCR n", "DEL k"]]),
        # A small read goes along, alone it goes as it is.
        ("SET k v; (GET k); INCR n", [["SET k v", "(GET k)", "INCR n"]]),
        ("(GET k); SET k v", [["(GET k)", "SET k v"]]),
        ("(GET k); (GET l)", ["GET k", "GET l"]),
        # What the journal does not take keeps its place between batches.
        ("SET k v; (HGETALL h); INCR n", [["SET k v"], "HGETALL h", ["INCR n"]]),
        ("EVAL s 0; SET k v; INCR n", ["EVAL s 0", "count 1", ["SET k v", "INCR n"]]),
        ("EVAL s 0; (GET k); EVAL t 0", ["EVAL s 0", "GET k", "EVAL t 0", "count 2"]),
        ("(HGETALL h)", ["HGETALL h"]),
    ],
)
def test_the_form(given: str, written: list[Any]) -> None:
    queue = Queue(counter="n")
    queue.add_all(*given.split("; "))
    queue.connect()
    assert lines(queue.written()) == written


def test_terms_may_differ_from_command_to_command() -> None:
    queue = Queue()
    queue.add("SET a 1")
    queue.add("SET b 1", delivery="at-most-once")
    queue.add("SET c 1", delivery="at-least-once")
    queue.add("SET d 1", acks=2)
    queue.add("SET e 1", acks=2)
    queue.add("SET f 1", delivery="at-most-once", acks=1)
    queue.add("SET g 1")
    queue.connect()
    assert lines(queue.written()) == [["SET a 1"]]
    queue.answer([1, b"OK"])
    assert lines(queue.written()) == [
        "SET b 1", "SET c 1", ["SET d 1", "SET e 1"], "WAIT 2 1500"
    ]  # fmt: skip
    queue.answer(b"OK", b"OK", [1, b"OK", b"OK"], 2)
    assert lines(queue.written()) == ["SET f 1", "WAIT 1 1500", ["SET g 1"]]
    queue.answer(b"OK", 1, [1, b"OK"])
    queue.done()


def test_a_plain_write_waits_for_the_batches_before_it() -> None:
    """They may be refused as a whole, and it would have been run before them."""
    queue = Queue()
    queue.connect()
    queue.add_all("INCR a", "(HGETALL h)", "EVAL s 0", "(GET a)", "INCR b")
    queue.turn()
    assert lines(queue.written()) == [["INCR a"], "HGETALL h"]
    queue.add("INCR c")
    queue.turn()
    assert queue.written() == []
    queue.answer(ResponseError(NOSCRIPT), [])
    assert lines(queue.written()) == [["INCR a"], "HGETALL h"]
    queue.answer([1, 1], [])
    assert lines(queue.written()) == ["EVAL s 0", "GET a", ["INCR b", "INCR c"]]
    queue.answer(b"s", b"1", [1, 1, 1])
    queue.done()


@pytest.mark.parametrize("end", ["cancel", "lost", "expire"])
def test_a_plain_write_waits_for_batches_in_flight(end: str) -> None:
    queue = Queue()
    queue.connect()
    queue.add("INCR a", timeout=5.0)
    queue.turn()
    queue.written()
    held, read = queue.add("EVAL s 0"), queue.add("(GET a)")
    queue.turn()
    assert queue.written() == []
    if end == "cancel":
        held.deferred.cancel()
        queue.answer([1, 1])
        assert queue.written() == ["GET a"]
        queue.answer(b"1")
    elif end == "lost":
        queue.link.die()
        queue.connect()
        assert lines(queue.written()) == [["INCR a"]]
        queue.answer([2, 1])
        assert queue.written() == ["EVAL s 0", "GET a"]
        queue.answer(b"s", b"1")
    else:
        queue.clock.advance(5.0)
        assert queue.written() == []
        queue.answer([1, 1])
        assert queue.written() == ["EVAL s 0", "GET a"]
        queue.answer(b"s", b"1")
    assert len(read.outcomes) == 1
    queue.done()


def test_a_refused_batch_does_not_let_later_writes_overtake() -> None:
    """Where there is no memory for a journal, or no right to one."""
    for text in ("OOM command not allowed", NO_EVALSHA, NOSCRIPT):
        queue = Queue()
        queue.connect()
        queue.add_all("SET a 1", "EVAL s 0")
        queue.turn()
        queue.written()
        queue.answer(ResponseError(text))
        [first, *others] = lines(queue.written())
        if text == NOSCRIPT:
            assert (first, others) == (["SET a 1"], [])
        else:
            assert (first, others) == ("SET a 1", ["EVAL s 0"])


def test_a_batch_names_the_database_and_ours() -> None:
    queue = Queue()
    queue.add("SET k v", db=3)
    queue.connect(db=3)
    [batch] = queue.batches()
    assert (batch.db, batch.own_db, batch.whole) == (3, 15, False)


def test_a_batch_has_so_many_commands_at_most() -> None:
    queue = Queue()
    for number in range(2 * BATCH_COMMANDS + 1):
        queue.add(f"SET k {number}" if number % 3 else "(GET k)")
    queue.connect()
    batches = queue.batches()
    assert [len(batch.lines) for batch in batches] == [BATCH_COMMANDS, BATCH_COMMANDS, 1]
    assert [batch.after for batch in batches] == [0, 1, 2]


def test_a_batch_has_so_many_bytes_at_most_unless_one_command_alone_has_more() -> None:
    queue = Queue()
    third = "x" * (BATCH_BYTES // 3)
    for value in (third, third, third, third, "x" * BATCH_BYTES, "y"):
        queue.add(f"SET k {value}")
    queue.connect()
    assert [len(batch.lines) for batch in queue.batches()] == [2, 2, 1, 1]


# Numbers


def test_numbers_and_what_is_settled() -> None:
    queue = Queue()
    queue.connect()
    for _ in range(3):
        queue.add("INCR n")
        queue.turn()
    first, second, third = queue.batches()
    assert [(b.number, b.settled, b.after) for b in (first, second, third)] == [
        (1, 0, 0),
        (2, 0, 1),
        (3, 0, 2),
    ]
    queue.answer([1, 1], [1, 2])
    queue.add("INCR n")
    queue.turn()
    [fourth] = queue.batches()
    assert (fourth.number, fourth.settled, fourth.after) == (4, 2, 3)
    queue.answer([1, 3], [1, 4])
    queue.add("INCR n")
    queue.turn()
    [fifth] = queue.batches()
    assert (fifth.number, fifth.settled, fifth.after) == (5, 4, 0)
    queue.answer([1, 5])
    assert outcomes(queue.callers) == [1, 2, 3, 4, 5]
    queue.done()


def test_batches_go_again_with_their_numbers_and_what_was_given_up_is_left_out() -> None:
    queue = Queue()
    queue.connect()
    callers = queue.add_all("SET a 1", "(GET a)", "SET b 1")
    queue.turn()
    callers += queue.add_all("SET c 1")
    queue.turn()
    callers += queue.add_all("SET d 1")  # never written
    first = [(b.number, b.again) for b in queue.batches()]
    assert first == [(1, 0), (2, 0)]
    queue.link.die()
    assert not any(caller.fired for caller in callers)
    callers[0].deferred.cancel()
    queue.connect()
    again = queue.batches()
    assert repr(again) == "[1: , (GET a), SET b 1, 2: SET c 1, 3: SET d 1]"
    assert [batch.after for batch in again] == [0, 1, 2]
    queue.answer([2, None, b"1", b"OK"], [2, b"OK"], [1, b"OK"])
    assert outcomes(callers[1:]) == [b"1", b"OK", b"OK", b"OK"]
    queue.done()


def test_a_batch_that_met_a_dead_link_keeps_its_number() -> None:
    queue = Queue()
    link = queue.connect()
    link.alive = False
    queue.add_all("INCR n")
    queue.turn()
    assert queue.pending.held
    queue.add("INCR m")
    queue.connect()
    written = queue.written()
    assert lines(written) == [["INCR n"], ["INCR m"]]
    assert [(b.number, b.after, b.again) for b in written] == [(1, 0, 0), (2, 1, 0)]


def test_a_missing_journal_is_a_loss_once_there_was_one() -> None:
    queue = Queue()
    queue.connect()
    queue.add("INCR n")
    queue.turn()
    queue.link.die()
    queue.connect()
    assert [batch.again for batch in queue.batches()] == [0]  # perhaps the first was never run
    queue.answer([1, 1])
    queue.add("INCR n")
    queue.turn()
    queue.link.die()
    queue.connect()
    assert [batch.again for batch in queue.batches()] == [1]


def test_a_missing_journal_is_a_loss_when_it_may_have_expired() -> None:
    queue = Queue()
    queue.connect()
    queue.add("INCR n")
    queue.turn()
    queue.link.die()
    queue.clock.advance(JOURNAL_LIFE)
    queue.connect()
    assert [batch.again for batch in queue.batches()] == [1]
    queue.answer([0])
    error_of(queue.callers[0], OutcomeUnknown, None, "INCR", "journal is gone")
    queue.done()


# Giving up


def lose(queue: Queue) -> None:
    queue.link.die()


@pytest.mark.parametrize("how", ["cancel", "expire"])
@pytest.mark.parametrize("when", ["queued", "in flight", "returned"])
@pytest.mark.parametrize("which", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_giving_up_some_of_a_batch_or_all(which: tuple[int, ...], when: str, how: str) -> None:
    queue = Queue()
    texts = ("INCR a", "(GET a)", "INCR b")
    callers = [
        queue.add(text, timeout=5.0 if how == "expire" and place in which else None)
        for place, text in enumerate(texts)
    ]
    if when != "queued":
        queue.connect()
        queue.written()
    if when == "returned":
        queue.link.die()
    if how == "cancel":
        for place in which:
            callers[place].deferred.cancel()
    else:
        queue.clock.advance(5.0)
    for place in which:
        if how == "cancel":
            assert isinstance(callers[place].outcome, CancelledError)
        elif when == "queued" or (when == "returned" and place == 1):
            error_of(callers[place], NoMaster, False)
        else:
            error_of(callers[place], OutcomeUnknown, None)
    if when != "in flight":
        queue.connect()
    left = [place for place in range(3) if place not in which]
    [*sent] = lines(queue.written())
    if when == "in flight":
        assert sent == []
        queue.answer([1, 7, b"7", 8])
    elif not left:
        assert sent == []
    elif left == [1]:
        assert sent == ["GET a"]
        queue.answer(b"7")
    elif when == "queued":
        assert sent == [[texts[place] for place in left]]
        queue.answer([1, *([7, b"7", 8][place] for place in left)])
    else:
        assert sent == [[texts[place] if place in left else "" for place in range(3)]]
        queue.answer([2, *([7, b"7", 8][place] if place in left else None for place in range(3))])
    assert outcomes([callers[place] for place in left]) == [[7, b"7", 8][place] for place in left]
    queue.done()


def test_what_nobody_waits_for_any_more_is_settled_when_its_link_dies() -> None:
    queue = Queue()
    queue.connect()
    caller = queue.add("INCR a")
    queue.turn()
    caller.deferred.cancel()
    assert queue.delivery.journal.settled == 0  # it may still be answered
    queue.link.die()
    assert queue.delivery.journal.settled == 1
    queue.add("INCR b")
    queue.connect()
    [batch] = queue.batches()
    assert (batch.number, batch.settled, batch.lines) == (2, 1, ["INCR b"])


# Answers


def one_batch(*texts: str, acks: int = 0, lost: bool = False, **options: Any) -> Queue:
    """A queue with one batch in flight, sent again if `lost`, after another was answered."""
    queue = Queue(acks=acks, **options)
    queue.connect()
    queue.add("SET first 1")
    queue.turn()
    queue.answer([1, b"OK"], *([acks] if acks else []))
    queue.add_all(*(texts or ("INCR a", "(GET a)", "INCR b")))
    queue.turn()
    if lost:
        queue.link.die()
        queue.connect()
    [*_, batch] = queue.batches()
    assert (batch.number, batch.again) == (2, int(lost))
    return queue


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("ran", [1, 2])
def test_it_ran(ran: int, lost: bool) -> None:
    queue = one_batch(lost=lost)
    queue.answer([ran, 1, b"1", 2])
    assert outcomes(queue.callers[1:]) == [1, b"1", 2]
    queue.done()


@pytest.mark.parametrize("ran", [0, -1])
def test_nobody_knows(ran: int) -> None:
    queue = one_batch(lost=True)
    queue.answer([ran])
    _, incr, get, other = queue.callers
    for caller in (incr, other):
        error = error_of(caller, OutcomeUnknown, None, "INCR", "its journal is gone")
        assert error.command[0] == "INCR"
    assert not get.fired  # a read can always go again
    assert queue.written() == ["GET a"]
    queue.answer(b"1")
    queue.done()


def test_not_yet() -> None:
    queue = one_batch()
    queue.add("INCR c")
    queue.turn()
    queue.answer([-2], [-2])
    again = queue.batches()
    assert [(b.number, b.after) for b in again][-2:] == [(2, 0), (3, 2)]
    queue.answer([1, 1, b"1", 2], [1, 3])
    assert outcomes(queue.callers[1:]) == [1, b"1", 2, 3]
    queue.done()


def test_a_server_that_does_not_know_the_script_is_given_it_and_the_order_is_kept() -> None:
    queue = one_batch("INCR a")
    queue.add_all("INCR b", "(HGETALL h)")
    queue.turn()
    queue.add("INCR c")
    queue.written()
    noscript = ResponseError(NOSCRIPT)
    queue.answer(noscript, noscript, [b"f", b"too early"])
    written = queue.written()
    assert lines(written) == [["INCR a"], ["INCR b"], "HGETALL h", ["INCR c"]]
    assert [b.whole for b in written if isinstance(b, Batch)] == [True, False, False]
    assert [b.number for b in written if isinstance(b, Batch)] == [2, 3, 4]
    queue.answer([1, 1], [1, 2], [b"f", b"v"], [1, 3])
    assert outcomes(queue.callers[1:]) == [1, 2, [b"f", b"v"], 3]
    assert not queue.denied
    queue.done()


@pytest.mark.parametrize("text", TURNED_AWAY)
@pytest.mark.parametrize("lost", [False, True])
def test_turned_away_as_a_whole(text: str, lost: bool) -> None:
    queue = one_batch(lost=lost)
    queue.add("INCR c")
    queue.turn()
    queue.answer(ResponseError(text), ResponseError(text))
    assert queue.turned_away == [text]
    assert queue.pending.held
    assert not any(caller.fired for caller in queue.callers[1:])
    queue.connect()
    assert [(b.number, b.again) for b in queue.batches()] == [(2, int(lost)), (3, 0)]
    queue.answer([1, 1, b"1", 2], [1, 3])
    assert outcomes(queue.callers[1:]) == [1, b"1", 2, 3]
    queue.done()


@pytest.mark.parametrize(
    "text",
    [
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "NOAUTH Authentication required.",
    ],
)
def test_refused_as_a_whole(text: str) -> None:
    queue = one_batch()
    queue.answer(ResponseError(text))
    errors = outcomes(queue.callers[1:])
    assert [str(error) for error in errors] == [text] * 3
    assert len({id(error) for error in errors}) == 3, "each caller has his own"
    assert not queue.denied
    assert not queue.turned_away
    queue.done()


@pytest.mark.parametrize(
    "text", ["BUSY Redis is busy running a script.", "OOM command not allowed", NO_EVALSHA]
)
def test_refused_where_it_goes_again(text: str) -> None:
    """The first server may have run it: that this one did not is not the whole truth."""
    queue = one_batch(lost=True)
    queue.answer(ResponseError(text))
    _, incr, _, other = queue.callers
    for caller in (incr, other):
        error_of(caller, OutcomeUnknown, None, "another server refused", text)
    assert queue.written() == ["GET a"]
    queue.answer(b"1")
    queue.done()


@pytest.mark.parametrize(
    "text",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist.",
        "NOREPLICAS Not enough good replicas to write. script: a1, on @user_script:12.",
    ],
)
def test_where_no_journal_can_be_made_now_each_command_has_its_own_answer(text: str) -> None:
    queue = one_batch("DEL a", "SET b 1")
    refusal = ResponseError(text)
    queue.answer(refusal)
    assert queue.written() == ["DEL a", "SET b 1"]
    queue.answer(1, refusal)
    assert outcomes(queue.callers[1:]) == [1, refusal]
    assert not queue.denied
    queue.add("SET c 1")  # the next ones are tried again
    queue.turn()
    assert [batch.number for batch in queue.batches()] == [3]
    queue.answer([1, b"OK"])
    queue.done()


@pytest.mark.parametrize(
    "text",
    [
        NO_EVALSHA,
        "NOPERM this user has no permissions to access one of the keys used as arguments",
        "NOPERM ACL failure in script: User app has no permissions to run the 'select' command",
        "ERR The user executing the script can't run this command or subcommand script: a1",
        "ERR unknown command 'EVALSHA', with args beginning with: 'a1'",
        "ERR DB index is out of range script: a1, on @user_script:4.",
    ],
)
def test_where_there_may_be_no_journal_they_go_as_they_are_for_a_minute(text: str) -> None:
    queue = one_batch("INCR a", counter="n")
    queue.add("INCR b")
    queue.turn()
    queue.written()
    queue.answer(ResponseError(text), ResponseError(text))
    assert set(queue.denied) == {text}
    assert queue.written() == ["INCR a", "INCR b", "count 2"]
    queue.answer(1, 2, 9)
    queue.clock.advance(59.0)
    lost = queue.add("INCR c")
    queue.turn()
    assert queue.written() == ["INCR c", "count 1"]
    queue.link.die()
    error_of(lost, OutcomeUnknown, None, "INCR", "at-most-once")
    queue.connect()
    queue.clock.advance(1.0)
    queue.add("INCR d")
    queue.turn()
    assert lines(queue.written()) == [["INCR d"]]
    queue.answer([1, 3])
    queue.done()


def test_an_error_is_that_of_one_command() -> None:
    queue = one_batch()
    wrong = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    queue.answer([1, wrong, b"1", 2])
    assert outcomes(queue.callers[1:]) == [wrong, b"1", 2]
    assert not queue.denied
    queue.done()


@pytest.mark.parametrize(
    "text",
    [
        "ERR This Redis command is not allowed from script script: a1, on @user_script:1.",
        "ERR The user executing the script can't access at least one of the keys mentioned",
        "NOPERM ACL failure in script: User app has no permissions to run the 'set' command",
    ],
)
def test_what_only_a_script_is_refused_is_asked_for_plainly(text: str) -> None:
    queue = one_batch("INCR a", "SET b 1", "INCR c")
    queue.answer([1, 1, ResponseError(text), 2])
    assert queue.written() == ["SET b 1"]
    real = ResponseError("NOPERM No permissions to access a key")
    queue.answer(real)
    assert outcomes(queue.callers[1:]) == [1, real, 2]
    queue.done()


def test_integers_that_lua_cannot_hold() -> None:
    queue = one_batch("INCR a", "HINCRBY h f 1", "INCR c")
    queue.answer([[1, 1, b"9007199254740993", 2, b"-9223372036854775808"], 0, 0, 5])
    assert outcomes(queue.callers[1:]) == [2**53 + 1, -(2**63), 5]
    queue.done()


@pytest.mark.parametrize(
    ("what", "word"), [(INEXACT, "beyond 2^53"), (TOO_LARGE, "too large to be kept")]
)
def test_replies_that_cannot_be_had(what: bytes, word: str) -> None:
    queue = one_batch("INCR a", "INCR b")
    queue.answer([[2, 2, what], 1, 0])
    assert queue.callers[1].outcome == 1
    error = error_of(queue.callers[2], OutcomeUnknown, True, "INCR was executed", word)
    assert error.command == ("INCR", "b")
    queue.done()


def test_an_answer_that_makes_no_sense() -> None:
    queue = one_batch("INCR a")
    queue.answer(b"OK")
    error_of(queue.callers[1], OutcomeUnknown, None, "INCR")
    queue.done()


# Acks


def test_one_wait_follows_each_batch_and_each_run() -> None:
    queue = Queue(acks=2, counter="n")
    queue.add_all("INCR a", "(GET a)", "INCR b", "EVAL s 0", "EVAL t 0", "(HGETALL h)", "INCR c")
    queue.connect()
    assert lines(queue.written()) == [
        ["INCR a", "(GET a)", "INCR b"], "WAIT 2 1500",
    ]  # fmt: skip
    queue.answer([1, 1, b"1", 2])
    assert not any(caller.fired for caller in queue.callers)
    queue.answer(2)
    assert outcomes(queue.callers[:3]) == [1, b"1", 2]
    assert lines(queue.written()) == [
        "EVAL s 0", "EVAL t 0", "HGETALL h", "count 2", "WAIT 2 1500",
        ["INCR c"], "WAIT 2 1500",
    ]  # fmt: skip
    queue.answer(b"s", b"t", [b"f", b"v"], 9)
    assert [caller.fired for caller in queue.callers[3:]] == [False, False, True, False]
    queue.answer(3)
    assert outcomes(queue.callers[3:5]) == [b"s", b"t"]
    queue.answer([1, 3], 2)
    queue.done()


@pytest.mark.parametrize("given", ["(GET k)", "(HGETALL h)", "(GET k); (HGETALL h); (GET k)"])
def test_reads_wait_for_nobody(given: str) -> None:
    queue = Queue(acks=1)
    queue.add_all(*given.split("; "))
    queue.connect()
    assert not any("WAIT" in line for line in queue.written())


def test_a_read_before_plain_writes_does_not_hide_that_they_need_acks() -> None:
    queue = Queue(acks=1)
    read, write = queue.add_all("(GET k)", "EVAL s 0")
    queue.connect()
    assert queue.written() == ["GET k", "EVAL s 0", "WAIT 1 1500"]
    queue.answer(b"v", b"s")
    assert read.outcome == b"v"
    assert not write.fired
    queue.answer(0)
    error_of(write, NotReplicated, True)
    queue.done()


@pytest.mark.parametrize("plain", [False, True])
def test_too_few_replicas(plain: bool) -> None:
    queue = Queue(acks=2)
    name = "EVAL" if plain else "INCR"
    caller = queue.add(f"{name} a 0")
    queue.connect()
    queue.answer(7 if plain else [1, 7], 1)
    error = error_of(caller, NotReplicated, True, name, "1 of 2 replicas")
    assert (error.command, error.reply, error.replicas) == ((name, "a", "0"), 7, 1)
    queue.done()


@pytest.mark.parametrize("plain", [False, True])
def test_errors_need_no_confirmation(plain: bool) -> None:
    queue = Queue(acks=1)
    caller = queue.add("EVAL s 0" if plain else "INCR a")
    queue.connect()
    wrong = ResponseError("WRONGTYPE")
    queue.answer(wrong if plain else [1, wrong], 0)
    assert caller.outcome is wrong
    queue.done()


@pytest.mark.parametrize("plain", [False, True])
def test_a_wait_that_is_denied_confirms_nothing(plain: bool) -> None:
    queue = Queue(acks=1)
    caller = queue.add("EVAL s 0" if plain else "INCR a")
    queue.connect()
    noperm = "NOPERM this user has no permissions to run the 'wait' command"
    queue.answer(b"s" if plain else [1, 7], ResponseError(noperm))
    error = error_of(caller, NotReplicated, True, noperm)
    assert error.replicas == 0
    queue.done()


@pytest.mark.parametrize("text", [UNBLOCKED, NO_WAIT])
def test_a_master_that_was_demoted_before_the_confirmation(text: str) -> None:
    queue = one_batch(acks=1)
    queue.answer([1, 1, b"1", 2], ResponseError(text))
    assert queue.turned_away == [text]
    assert not any(caller.fired for caller in queue.callers[1:])
    queue.connect()
    [batch] = queue.batches()
    assert (batch.number, batch.again) == (2, 1)
    queue.answer([1, 1, b"1", 2], 1)
    assert outcomes(queue.callers[1:]) == [1, b"1", 2]
    queue.done()


@pytest.mark.parametrize("end", ["expire", "refuse", "stop"])
def test_what_a_demoted_master_ran_was_sent(end: str) -> None:
    """Nobody may be told that it was not executed."""
    queue = Queue(acks=1)
    write, read = queue.add("INCR a", timeout=5.0), queue.add("(GET a)", timeout=5.0)
    queue.connect()
    queue.answer([1, 1, b"1"], ResponseError(UNBLOCKED))
    if end == "expire":
        queue.clock.advance(5.0)
    elif end == "refuse":
        queue.pending.refuse(lambda: WouldDiscardData("decide"))
    else:
        queue.pending.stop(lambda executed: ServiceStopped("stopped", executed))
    kinds = {"expire": NoMaster, "refuse": WouldDiscardData, "stop": ServiceStopped}
    error_of(write, ServiceStopped if end == "stop" else OutcomeUnknown, None)
    error_of(read, kinds[end], False)
    queue.done()


@pytest.mark.parametrize("text", [UNBLOCKED, NO_WAIT])
def test_a_plain_write_on_a_master_that_was_demoted(text: str) -> None:
    queue = Queue(acks=1)
    write, read, wrong = queue.add_all("EVAL s 0", "(HGETALL h)", "EVAL t 0")
    queue.connect()
    queue.answer(b"s", [], ResponseError("WRONGTYPE"), ResponseError(text))
    error_of(write, NotReplicated, True, text)
    assert read.outcome == []
    assert str(wrong.outcome) == "WRONGTYPE"
    queue.done()


@pytest.mark.parametrize("delivery", ["at-most-once", "at-least-once", "exactly-once"])
def test_a_link_lost_between_a_plain_reply_and_its_confirmation(delivery: str) -> None:
    queue = Queue()
    caller = queue.add("EVAL s 0", acks=1, delivery=delivery)
    queue.connect()
    queue.answer(b"s")
    queue.link.die()
    if delivery == "at-least-once":
        assert not caller.fired
        queue.connect()
        queue.answer(b"s", 1)
        assert caller.outcome == b"s"
    else:
        error = error_of(caller, NotReplicated, True, "EVAL", "0 of 1 replicas", "link was lost")
        assert (error.reply, error.replicas) == (b"s", 0)
    queue.done()


def test_a_kept_reply_of_which_no_wait_can_tell() -> None:
    queue = one_batch(acks=1, lost=True)
    queue.answer([3, 1, b"1", 2], 1)
    _, first, read, second = queue.callers
    assert (error_of(first, NotReplicated, True).reply, read.outcome) == (1, b"1")
    assert error_of(second, NotReplicated, True).replicas == 0
    queue.done()


def test_the_text_of_a_batch_that_expires_while_it_waits() -> None:
    queue = Queue()
    caller = queue.add("INCR a", timeout=5.0)
    queue.connect()
    queue.link.die()
    queue.clock.advance(5.0)
    error = error_of(caller, OutcomeUnknown, None, "INCR was sent and its link was lost")
    assert "cannot go through the journal" not in str(error)
    queue.done()


def test_a_link_lost_before_the_confirmation() -> None:
    queue = Queue(acks=1)
    kept, plain = queue.add_all("INCR a", "EVAL s 0")
    queue.connect()
    queue.answer([1, 1], 1, b"s")
    assert kept.outcome == 1
    queue.add("INCR b")
    queue.turn()
    queue.link.die()
    error = error_of(plain, NotReplicated, True, "EVAL", "its link was lost")
    assert (error.reply, error.replicas) == (b"s", 0)
    queue.connect()
    assert [(b.number, b.lines) for b in queue.batches()] == [(2, ["INCR b"])]
    queue.answer([2, 5])
    assert not queue.callers[2].fired
    queue.link.die()
    queue.connect()
    queue.answer([2, 5], 1)
    assert queue.callers[2].outcome == 5
    queue.done()


def test_what_goes_again_of_a_run_is_not_answered_by_its_first_try() -> None:
    """WAIT's reply, which ends a run, may come when some of it goes again already."""
    queue = Queue(acks=1)
    first, read, script = queue.add_all("EVAL s 0", "(HGETALL h)", "EVAL t 0")
    queue.connect()
    wrong = ResponseError("WRONGTYPE")
    queue.answer(ResponseError(READONLY), [b"early"], wrong)
    queue.pending.open(queue.link)
    queue.answer(1)
    assert script.outcome is wrong
    assert not first.fired
    assert not read.fired
    assert queue.pending._in_flight == len(queue.pending) == 2
    queue.answer(b"s", [b"f", b"v"], 1)
    assert outcomes(queue.callers) == [b"s", [b"f", b"v"], wrong]
    queue.done()


# The end


def in_every_state(acks: int) -> Queue:
    """Batches and plain commands that returned, that are in flight, and that never went out."""
    queue = Queue(acks=acks)
    queue.connect()
    queue.add_all("INCR a", "(GET a)")
    queue.turn()
    queue.link.die()  # the first batch may have been run
    queue.add_all("INCR b", "(HGETALL h)", "INCR c")
    return queue


@pytest.mark.parametrize("acks", [0, 1])
@pytest.mark.parametrize("how", ["refuse", "stop"])
@pytest.mark.parametrize("flying", [False, True])
def test_the_end_of_all(flying: bool, how: str, acks: int) -> None:
    queue = in_every_state(acks)
    if flying:
        queue.connect()
    if how == "refuse":
        queue.pending.refuse(lambda: WouldDiscardData("decide"))
    else:
        queue.pending.stop(lambda executed: ServiceStopped("stopped", executed))
    if flying:
        assert not any(caller.fired for caller in queue.callers)
        if acks:
            queue.answer([1, 1, b"1"])  # the confirmation does not come any more
        queue.link.die()
    lost, read, second, second_read, third = outcomes(queue.callers)
    assert lost.executed is None
    assert type(lost) is (ServiceStopped if how == "stop" else OutcomeUnknown)
    if how == "refuse":
        assert type(read) is type(second_read) is WouldDiscardData
    for error in (second, third):
        assert error.executed is (None if flying else False)
    queue.done()


def test_what_is_in_flight_at_a_refusal_may_still_be_answered() -> None:
    queue = in_every_state(0)
    queue.connect()
    queue.pending.refuse(lambda: WouldDiscardData("decide"))
    queue.answer([2, 1, b"1"], [1, 2], [], [1, 3])
    assert outcomes(queue.callers) == [1, b"1", 2, [], 3]
    queue.done()


@pytest.mark.parametrize("places", list(itertools.permutations(range(3), 2)))
def test_a_caller_that_cancels_others_when_it_fails(places: tuple[int, int]) -> None:
    queue = Queue()
    callers = queue.add_all("INCR a", "INCR b", "INCR c")
    first, other = places
    callers[first].deferred.addBoth(lambda _: callers[other].deferred.cancel())
    queue.connect()
    queue.link.die()
    queue.pending.refuse(lambda: WouldDiscardData("decide"))
    queue.done()


def test_what_was_lost_and_comes_too_late_does_not_blame_the_journal() -> None:
    queue = Queue()
    caller = queue.add("INCR n", timeout=2.0)
    queue.connect()
    queue.link.die()
    queue.clock.advance(2.0)
    assert isinstance(caller.outcome, OutcomeUnknown)
    assert caller.outcome.executed is None
    assert "cannot go through the journal" not in str(caller.outcome)
