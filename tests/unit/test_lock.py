"""The lock on a quorum of nodes, and the fence around every change."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import ScriptedNode, settle
from txharedis.errors import HARedisError, LinkLost, LockLost, ResponseError
from txharedis.lock import QuorumLock
from txharedis.topology import Address

LIFE = 1.0
READ_ONLY = b"replica-read-only"
STALE = b"replica-serve-stale-data"
MIN_REPLICAS = b"min-replicas-to-write"
SET = "CONFIG SET replica-read-only"


def outcome_of(deferred: Deferred[Any]) -> Any:
    """The result of a Deferred that has one by now, or its exception."""
    outcome: list[Any] = []
    deferred.addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
    (result,) = outcome
    return result


class Nodes:
    """Some replicas of a dead master, and one client's lock on them."""

    def __init__(self, count: int = 3, quorum: int = 2, masters: tuple[int, ...] = ()) -> None:
        self.clock = Clock()
        self.quorum = quorum
        self.nodes = [ScriptedNode(self.clock, Address("n", n + 1)) for n in range(count)]
        for number, node in enumerate(self.nodes, 1):
            node.follows = None if number in masters else Address("n", 99)
        settle(self.clock)

    def __getitem__(self, number: int) -> ScriptedNode:
        return self.nodes[number - 1]

    def lock(self) -> QuorumLock:
        pairs = [(node.view(), node.protocol) for node in reversed(self.nodes)]
        return QuorumLock(self.clock, pairs, quorum=self.quorum, life=LIFE)

    def acquire(self, lock: QuorumLock, epoch: int = 6) -> bool:
        return self.run(lock.acquire(epoch))

    def run(self, coroutine: Any, seconds: float = 0.0) -> Any:
        """The outcome of a coroutine after some time."""
        deferred = Deferred.fromCoroutine(coroutine)
        settle(self.clock)
        while seconds > 0:
            self.clock.advance(min(0.05, seconds))
            seconds -= 0.05
            settle(self.clock)
        return outcome_of(deferred)

    def forget(self) -> None:
        for node in self.nodes:
            node.log.clear()
            node.writes.clear()

    @property
    def locked(self) -> list[int]:
        return [number for number, node in enumerate(self.nodes, 1) if node.locked]

    @property
    def writable(self) -> list[int]:
        return [
            number for number, node in enumerate(self.nodes, 1) if node.settings[READ_ONLY] == b"no"
        ]


# Taking it


def test_it_is_held_when_a_quorum_granted_it() -> None:
    nodes = Nodes()
    lock = nodes.lock()
    assert nodes.acquire(lock, 6)
    assert nodes.locked == [1, 2, 3]
    assert [a.port for a in lock.granted] == [1, 2, 3]
    assert nodes[1].get(nodes[1].lock_key) == lock.token.encode()
    assert nodes[1].get(nodes[1].vote_key) == b"6"
    nodes.clock.advance(LIFE)
    assert nodes.locked == []


def test_each_lock_has_its_own_token() -> None:
    nodes = Nodes()
    assert nodes.lock().token != nodes.lock().token


def test_the_first_node_is_asked_alone_and_then_the_others_together() -> None:
    nodes = Nodes()
    lock = nodes.lock()
    deferred = Deferred.fromCoroutine(lock.acquire(6))
    assert [node.count("EVAL") for node in nodes.nodes] == [1, 0, 0]
    nodes.clock.advance(0)
    assert [node.count("EVAL") for node in nodes.nodes] == [1, 1, 1]
    settle(nodes.clock)
    assert outcome_of(deferred) is True


def test_a_replica_is_made_writable_for_it_and_a_master_is_not_touched() -> None:
    nodes = Nodes(masters=(1,))
    nodes.acquire(nodes.lock())
    assert nodes[1].names() == ["PING", "EVAL"]
    assert nodes[2].names() == ["PING", SET, "EVAL", SET]
    assert [args[3] for args in nodes[2].log if args[0] == b"CONFIG"] == [b"no", b"yes"]
    assert nodes.writable == []


def test_taken_by_another_on_the_first_node_stops_at_once() -> None:
    nodes = Nodes()
    winner, loser = nodes.lock(), nodes.lock()
    assert nodes.acquire(winner)
    nodes.forget()
    assert not nodes.acquire(loser, 7)
    assert [node.count("EVAL") for node in nodes.nodes] == [1, 0, 0]
    assert not loser.outrun
    assert "n:1: it is locked" in loser.refusals
    assert nodes.locked == [1, 2, 3]
    assert nodes.run(winner.granted[Address("n", 2)].finish()) is None  # still the winner's


def test_two_at_once_one_gets_it() -> None:
    nodes = Nodes()
    locks = [nodes.lock(), nodes.lock()]
    attempts = [Deferred.fromCoroutine(lock.acquire(6)) for lock in locks]
    settle(nodes.clock)
    assert sorted(map(outcome_of, attempts)) == [False, True]


def test_less_than_a_quorum_is_given_back_and_the_settings_put_back() -> None:
    nodes = Nodes(5, quorum=3)
    for number in (3, 4, 5):
        nodes[number].errors["EVAL"] = ResponseError("NOPERM no scripts for you")
    lock = nodes.lock()
    assert not nodes.acquire(lock)
    assert nodes.locked == []
    assert nodes.writable == []
    assert lock.granted == {}
    assert "n:3: NOPERM" in lock.refusals


def test_failing_for_want_of_nodes_is_not_being_outrun() -> None:
    nodes = Nodes()
    for number in (2, 3):
        nodes[number].errors["EVAL"] = ResponseError("OOM")
    lock = nodes.lock()
    assert not nodes.acquire(lock)
    assert not lock.outrun


def test_one_node_may_fail() -> None:
    nodes = Nodes()
    nodes[1].errors["EVAL"] = ResponseError("OOM")
    lock = nodes.lock()
    assert nodes.acquire(lock)
    assert nodes.locked == [2, 3]
    assert nodes.writable == []


# Votes and epochs


@pytest.mark.parametrize("vote", [6, 7])
def test_a_node_that_granted_that_epoch_or_a_higher_one_does_not_grant_it(vote: int) -> None:
    nodes = Nodes()
    nodes[1].set(nodes[1].vote_key, b"%d" % vote)
    lock = nodes.lock()
    assert not nodes.acquire(lock, 6)
    assert lock.outrun
    assert lock.highest == vote
    assert f"granted epoch {vote}" in lock.refusals
    assert nodes.locked == []
    assert nodes.writable == []
    assert nodes.acquire(lock, lock.highest + 1)
    assert nodes[2].get(nodes[2].vote_key) == b"%d" % (vote + 1)


def test_a_node_that_has_seen_a_higher_epoch_does_not_grant_a_lower_one() -> None:
    nodes = Nodes()
    nodes[1].run_hset(b"haredis:meta", b"epoch", b"6")
    lock = nodes.lock()
    assert not nodes.acquire(lock, 6)
    assert lock.outrun
    assert not nodes[1].locked


def test_an_epoch_is_granted_once_for_ever() -> None:
    nodes = Nodes()
    assert nodes.acquire(nodes.lock(), 6)
    nodes.clock.advance(10 * LIFE)
    lock = nodes.lock()
    assert not nodes.acquire(lock, 6)
    assert lock.outrun
    assert nodes.acquire(lock, 7)


# Silence


def test_one_silent_node_does_not_use_up_the_life_of_the_lock() -> None:
    nodes = Nodes()
    nodes[1].silent = True
    lock = nodes.lock()
    assert nodes.run(lock.acquire(6), seconds=0.3)
    assert nodes.clock.seconds() < LIFE / 2
    assert nodes.locked == [2, 3]
    lock.check()


def test_a_dead_link_is_passed_over_at_once() -> None:
    nodes = Nodes()
    nodes[1].die()
    assert nodes.acquire(nodes.lock())
    assert nodes.locked == [2, 3]


def test_too_many_silent_nodes_and_it_is_not_held() -> None:
    nodes = Nodes()
    nodes[2].silent = nodes[3].silent = True
    assert not nodes.run(nodes.lock().acquire(6), seconds=0.6)
    assert nodes.locked == []
    assert nodes.writable == []


def test_what_came_too_late_is_not_held_and_given_back() -> None:
    nodes = Nodes(9, quorum=5)
    for number in (1, 2, 3, 4):
        nodes[number].silent = True
    lock = nodes.lock()
    assert not nodes.run(lock.acquire(6), seconds=1.1)
    assert nodes[5].count("EVAL") == 2  # taken and given back
    assert lock.granted == {}
    assert nodes.locked == []
    assert nodes.writable == []


# Settings in the way


@pytest.mark.parametrize(
    ("masters", "setting", "value", "meanwhile"),
    [((), STALE, b"no", b"yes"), ((2,), MIN_REPLICAS, b"2", b"0")],
    ids=["MASTERDOWN", "NOREPLICAS"],
)
def test_a_setting_in_the_way_is_changed_for_each_write_and_put_back(
    masters: tuple[int, ...], setting: bytes, value: bytes, meanwhile: bytes
) -> None:
    nodes = Nodes(masters=masters)
    node = nodes[2]
    node.settings[setting] = value
    before = dict(node.settings)
    nodes.forget()
    seen: list[bytes] = []
    for name in ("EVAL", "EXEC"):
        node.before[name] = lambda: seen.append(node.settings[setting])
    lock = nodes.lock()
    assert nodes.acquire(lock)
    assert nodes.locked == [1, 2, 3]
    assert nodes.run(lock.granted[node.address].fenced(["PUBLISH", "c", "x"])) is None
    nodes.run(lock.release())
    assert nodes.locked == []
    assert seen == [value, meanwhile, meanwhile, meanwhile]
    assert [left for _, left in node.writes] == [before] * len(node.writes)
    assert node.names().count(f"CONFIG GET {setting.decode()}") == 1


def test_who_dies_after_any_write_leaves_no_setting_behind() -> None:
    nodes = Nodes()
    before = dict(nodes[1].settings)
    lock = nodes.lock()
    assert nodes.acquire(lock)
    step = lock.granted[Address("n", 1)]
    assert nodes.run(step.fenced(["SLAVEOF", "n", "2"])) is None
    nodes[2].set(nodes[2].lock_key, b"another")
    assert isinstance(nodes.run(lock.granted[Address("n", 2)].fenced(STEP)), LockLost)
    nodes.run(lock.release())
    for node in nodes.nodes:
        assert len(node.writes) > 1
        assert [left for _, left in node.writes] == [before] * len(node.writes)


def test_a_setting_that_cannot_be_read_is_left_alone() -> None:
    nodes = Nodes(masters=(2,))
    nodes[2].settings[MIN_REPLICAS] = b"1"
    nodes[2].errors["CONFIG"] = ResponseError("NOPERM no config for you")
    lock = nodes.lock()
    assert nodes.acquire(lock)
    assert nodes.locked == [1, 3]
    assert "n:2: NOREPLICAS" in lock.refusals
    assert nodes[2].settings[MIN_REPLICAS] == b"1"
    assert nodes[2].names() == ["PING", "EVAL", f"CONFIG GET {MIN_REPLICAS.decode()}"]


def test_a_setting_that_cannot_be_changed_is_why_it_is_not_held() -> None:
    nodes = Nodes()
    nodes[2].errors["CONFIG"] = ResponseError("NOPERM no config for you")
    lock = nodes.lock()
    assert nodes.acquire(lock)
    assert nodes.locked == [1, 3]
    assert "n:2: NOPERM no config" in lock.refusals


def test_a_setting_that_does_not_help_is_not_tried_again() -> None:
    nodes = Nodes()
    nodes[2].errors["EVAL"] = ResponseError("MASTERDOWN Link with MASTER is down")
    lock = nodes.lock()
    assert nodes.acquire(lock)
    assert nodes[2].count("EVAL") == 2
    assert "n:2: MASTERDOWN" in lock.refusals
    assert nodes[2].settings[STALE] == b"yes"


# Its life


def test_it_ends_by_our_own_clock() -> None:
    nodes = Nodes()
    lock = nodes.lock()
    assert nodes.acquire(lock)
    nodes.clock.advance(LIFE - 0.01)
    lock.check()
    nodes.clock.advance(0.01)
    with pytest.raises(LockLost):
        lock.check()


def test_release_gives_back_what_is_ours() -> None:
    nodes = Nodes(masters=(1,))
    lock = nodes.lock()
    assert nodes.acquire(lock)
    nodes.run(lock.release())
    assert nodes.locked == []
    assert nodes.writable == []
    assert lock.granted == {}
    assert nodes[2].get(nodes[2].vote_key) == b"6"  # the vote stays


def test_release_leaves_what_is_anothers() -> None:
    nodes = Nodes(masters=(1,))
    lock = nodes.lock()
    assert nodes.acquire(lock)
    for node in nodes.nodes:
        node.set(node.lock_key, b"another")
    nodes.run(lock.release())
    assert nodes.locked == [1, 2, 3]
    assert nodes.writable == []


def test_release_never_fails() -> None:
    nodes = Nodes()
    lock = nodes.lock()
    assert nodes.acquire(lock)
    nodes[1].die()
    nodes[2].errors["EVAL"] = ResponseError("NOSCRIPT")
    nodes[3].silent = True
    assert nodes.run(lock.release(), seconds=0.5) is None


# The fence

STEP = ["SLAVEOF", "NO", "ONE"]


def held(nodes: Nodes) -> Any:
    lock = nodes.lock()
    assert nodes.acquire(lock)
    nodes.forget()
    return lock.granted[Address("n", 1)]


def take_away(node: Any, how: str) -> None:
    """The lock on this node is not ours any more."""
    if how == "expired":
        node.expiry[node.lock_key] = 0.0
    elif how == "taken":
        node.set(node.lock_key, b"another")
    else:
        node.keys.clear()


def test_a_fenced_step_is_one_transaction_with_the_settings_around_it() -> None:
    nodes = Nodes()
    assert nodes.run(held(nodes).fenced(STEP)) is None
    assert [names for names, _ in nodes[1].writes] == [
        [SET, "WATCH", "GET", SET],
        [SET, "MULTI", "SLAVEOF NO ONE", SET, "EXEC", SET],
    ]
    assert nodes[1].follows is None
    assert nodes[1].settings[READ_ONLY] == b"yes"
    assert nodes[1].locked


def test_what_was_prepared_takes_one_exchange_more() -> None:
    nodes = Nodes()
    lock = held(nodes)
    lock.prepare()
    settle(nodes.clock)
    assert [names for names, _ in nodes[1].writes] == [[SET, "WATCH", "GET", SET]]
    assert nodes.run(lock.finish(STEP)) is None
    assert [names for names, _ in nodes[1].writes[1:]] == [
        [SET, "MULTI", "SLAVEOF NO ONE", "DEL", SET, "EXEC", SET]
    ]


@pytest.mark.parametrize("how", ["expired", "taken", "wiped"])
def test_a_lock_that_goes_after_it_was_prepared_undoes_it_all(how: str) -> None:
    nodes = Nodes()
    lock = held(nodes)
    node = nodes[1]
    lock.prepare()
    settle(nodes.clock)
    take_away(node, how)
    assert isinstance(nodes.run(lock.fenced(STEP)), LockLost)
    assert node.follows is not None


def test_what_was_prepared_in_vain_spoils_no_later_transaction() -> None:
    nodes = Nodes()
    lock = nodes.lock()
    assert nodes.acquire(lock)
    lock.granted[Address("n", 1)].prepare()
    nodes.run(lock.release())
    assert nodes[1].steps()[-2:] == ["UNWATCH", "EVAL"]
    again = nodes.lock()
    assert nodes.acquire(again, 7)
    assert nodes.run(again.granted[Address("n", 1)].fenced(STEP)) is None
    assert nodes[1].follows is None


def test_a_node_that_falls_silent_while_it_is_prepared_is_given_up() -> None:
    nodes = Nodes()
    lock = held(nodes)
    nodes[1].silent = True
    lock.prepare()
    assert nodes.run(lock.release(), LIFE) is None


def test_finish_gives_the_lock_back_in_the_same_transaction() -> None:
    nodes = Nodes()
    assert nodes.run(held(nodes).finish(STEP)) is None
    assert nodes[1].steps()[-4:] == ["SLAVEOF NO ONE", "DEL", SET, "EXEC"]
    assert not nodes[1].locked


@pytest.mark.parametrize("holder", [b"another", None])
def test_without_the_lock_nothing_is_sent(holder: bytes | None) -> None:
    nodes = Nodes()
    lock = held(nodes)
    if holder is None:
        nodes.clock.advance(LIFE)
    else:
        nodes[1].set(nodes[1].lock_key, holder)
    assert isinstance(nodes.run(lock.fenced(STEP)), LockLost)
    assert nodes[1].steps() == ["WATCH", "GET", "UNWATCH"]
    assert nodes[1].follows is not None


@pytest.mark.parametrize("how", ["expired", "taken", "wiped"])
def test_a_lock_that_goes_during_the_transaction_undoes_it_all(how: str) -> None:
    nodes = Nodes()
    lock = held(nodes)
    node = nodes[1]
    node.before["EXEC"] = lambda: take_away(node, how)
    assert isinstance(nodes.run(lock.fenced(STEP)), LockLost)
    assert node.follows is not None
    assert node.settings[READ_ONLY] == b"yes"


def test_a_refused_command_is_the_error() -> None:
    nodes = Nodes()
    lock = held(nodes)
    nodes[1].errors["SLAVEOF"] = ResponseError("ERR REPLICAOF not allowed in cluster mode.")
    nodes[1].errors["EXEC"] = ResponseError("EXECABORT Transaction discarded")
    error = nodes.run(lock.fenced(STEP))
    assert isinstance(error, ResponseError)
    assert "REPLICAOF" in str(error)


def test_a_command_that_fails_inside_is_the_error() -> None:
    nodes = Nodes()
    lock = held(nodes)
    nodes[1].run_slaveof = lambda *_: ResponseError("ERR inside")  # type: ignore[method-assign]
    error = nodes.run(lock.fenced(STEP))
    assert isinstance(error, ResponseError)
    assert "inside" in str(error)


def test_a_lost_link_is_the_error() -> None:
    nodes = Nodes()
    lock = held(nodes)
    nodes[1].die()
    assert isinstance(nodes.run(lock.fenced(STEP)), LinkLost)


def test_a_silent_node_is_given_up() -> None:
    nodes = Nodes()
    lock = held(nodes)
    nodes[1].silent = True
    error = nodes.run(lock.fenced(STEP), seconds=0.4)
    assert isinstance(error, LinkLost)
    assert isinstance(error, HARedisError)
