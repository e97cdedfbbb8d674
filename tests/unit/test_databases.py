"""Each command runs in the database in which it was given, whatever link it goes out on."""

from __future__ import annotations

import pytest

from tests.unit.test_pending import Caller, FakeLink, Queue
from txharedis.errors import ResponseError
from txharedis.interfaces import pack
from txharedis.pending import PendingCommands

OUT_OF_RANGE = ResponseError("ERR DB index is out of range")
LOADING = ResponseError("LOADING Redis is loading the dataset in memory")


def select(db: int) -> bytes:
    return pack(("SELECT", db))


def use(queue: Queue, db: int) -> Caller:
    """What a client does when its caller selects a database."""
    queue.pending.db = db
    return queue.add(f"select{db}", read=True)


def test_commands_before_a_select_go_out_first_and_those_behind_it_when_it_is_answered() -> None:
    queue = Queue()
    before = queue.add()
    selected = use(queue, 1)
    behind = queue.add()
    link = queue.open()
    assert link.batches == [[b"w1"], [select(1)]]
    link.answer(b"OK", b"OK")
    assert link.db == 1
    assert link.batches[2:] == [[b"select1", b"w3"]]
    link.answer(b"OK", b"3")
    assert [before.outcome, selected.outcome, behind.outcome] == [b"OK", b"OK", b"3"]
    queue.add()
    queue.turn()
    assert link.batches[3:] == [[b"w4"]]


def test_a_link_that_comes_in_the_new_database_is_left_in_it() -> None:
    queue = Queue()
    use(queue, 1)
    link = queue.open(db=1)
    assert link.batches == [[b"select1"]]


def test_after_a_failover_each_command_runs_in_its_own_database() -> None:
    queue = Queue(writes_again=True)
    queue.add()
    link = queue.open()
    use(queue, 1)
    queue.add()
    link.die()  # with the first one unanswered, before the others went out
    link = queue.open(db=1)
    assert link.batches == [[select(0)]]
    link.answer(b"OK")
    assert link.batches[1:] == [[b"w1"], [select(1)]]
    link.answer(b"OK", b"OK")
    assert link.batches[3:] == [[b"select1", b"w3"]]


@pytest.mark.parametrize("answered", [False, True])
def test_a_link_that_dies_while_selecting_loses_nothing(answered: bool) -> None:
    queue = Queue()
    use(queue, 1)
    written = queue.add()
    link = queue.open()
    if answered:
        link.answer(b"OK")
    link.die()
    link = queue.open()
    link.answer(b"OK")
    link.answer_all(b"done")
    assert written.fired


def test_nothing_runs_in_the_old_database_when_the_new_one_is_refused() -> None:
    queue = Queue()
    link = queue.open()
    selected, written = use(queue, 99), queue.add()
    queue.turn()
    queue.pending.db = 0
    later = queue.add()
    link.answer(OUT_OF_RANGE)
    for caller in (selected, written):
        assert str(caller.outcome) == str(OUT_OF_RANGE)
    assert selected.outcome is not written.outcome
    assert link.batches == [[select(99)], [b"w3"]]
    link.answer(b"OK")
    assert later.outcome == b"OK"
    assert len(queue.pending) == 0


def test_a_server_that_cannot_select_just_now_is_left() -> None:
    queue = Queue()
    link = queue.open()
    written = use(queue, 1)
    queue.turn()
    link.answer(LOADING)
    assert queue.turned_away == [LOADING]
    assert queue.pending.held
    link = queue.open()
    link.answer(b"OK", b"OK")
    assert written.outcome == b"OK"


def test_the_queue_is_idle_when_the_last_command_was_refused_with_its_database() -> None:
    queue = Queue()
    link = queue.open()
    use(queue, 99)
    queue.turn()
    idle = queue.pending.when_idle()
    link.answer(OUT_OF_RANGE)
    assert idle.called


def test_without_a_second_database_nothing_is_selected() -> None:
    queue = Queue()
    pending: PendingCommands = queue.pending
    pending.db = 0
    queue.add()
    link: FakeLink = queue.open()
    assert link.batches == [[b"w1"]]
