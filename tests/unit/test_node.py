"""One server as one client sees it: its status, its heartbeat, its survey."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    NoRouteError,
)

from tests.unit.fakes import Dial, FakeReactor
from txharedis.errors import LinkLost, ResponseError
from txharedis.journal import JOURNAL_SCRIPT
from txharedis.node import _NEXT, Node, _Sign
from txharedis.options import DELIVERIES, Options
from txharedis.topology import Address, NodeView, Role, Status

INFO = b"run_id:r1\r\nredis_version:7.0.15\r\nuptime_in_seconds:100\r\n"
CONTROL, COMMAND = 15, 0


class Watched:
    """A node on a fake reactor, and what it told its owner."""

    def __init__(self, start: float = 0.0, *, started: bool = True, **options: Any) -> None:
        self.reactor = FakeReactor()
        self.reactor.advance(start)
        self.told: list[str] = []
        self.node = Node(self.reactor, Address("n", 1), Options(**options), self)
        if started:
            self.node.start()

    def node_changed(self, node: Node) -> None:
        self.told.append(node.status.name)

    def node_heard(self, node: Node) -> None:
        self.told.append("heard")

    def commands_ready(self, node: Node) -> None:
        self.told.append("commands ready")

    def commands_lost(self, node: Node) -> None:
        self.told.append("commands lost")

    def commands_denied(self, node: Node, error: Exception) -> None:
        self.told.append(f"commands denied: {error}")

    @property
    def status(self) -> Status:
        return self.node.status

    @property
    def waiting(self) -> list[Dial]:
        """The attempts that are neither accepted nor over: the control link's comes first."""
        return [dial for dial in self.reactor.dials if dial.protocol is None and not dial.over]

    def connect(self, info: bytes = INFO) -> Watched:
        """Accept all attempts, and shake hands."""
        self.control, self.command = [dial.accept() for dial in self.waiting]
        self.control.commands(), self.command.commands()
        self.control.answer("OK", info)
        self.command.answer("OK", info)
        return self

    def pings(self) -> int:
        return sum(command == [b"PING"] for command in self.control.commands())

    def pass_time(self, seconds: float, *, answers: bool = False, step: float = 0.05) -> None:
        """Time in small steps, the PINGs answered or not."""
        until = self.reactor.seconds() + seconds
        while self.reactor.seconds() < until - 1e-9:
            self.reactor.advance(min(step, until - self.reactor.seconds()))
            if answers and self.pings():
                self.control.answer("PONG")


def test_it_dials_a_control_and_a_command_link() -> None:
    watched = Watched(db=3, password="pw")
    databases = [dial.accept().commands() for dial in watched.waiting]
    auth, info = [b"AUTH", b"pw"], [b"INFO", b"server"]
    assert databases == [[auth, [b"SELECT", b"15"], info], [auth, [b"SELECT", b"3"], info]]


def test_it_is_up_when_the_control_link_has_shaken_hands() -> None:
    watched = Watched()
    assert watched.status is Status.DIALLING
    watched.connect()
    assert watched.status is Status.UP
    assert watched.told == ["UP", "commands ready"]
    assert watched.node.version == "7.0.15"
    assert watched.node.run_id == "r1"


# The status

SIGNS_OF_DEATH = {Status.REFUSED, Status.SILENT}


@pytest.mark.parametrize("sign", _Sign)
@pytest.mark.parametrize("status", Status)
def test_the_machine(status: Status, sign: _Sign) -> None:
    following = _NEXT.get((status, sign), status)
    if status is Status.CLOSED or sign is _Sign.CLOSE:
        assert following is Status.CLOSED
    elif sign is _Sign.READY:
        assert following is Status.UP
    elif sign is _Sign.DENIED:
        assert following is (Status.UP if status is Status.UP else Status.DENIED)
    elif sign is _Sign.LOST:
        assert following is (Status.DROPPED if status is Status.UP else status)
    elif sign is _Sign.REFUSED:
        assert following is (Status.UP if status is Status.UP else Status.REFUSED)
    else:
        assert following in SIGNS_OF_DEATH


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(), ConnectionLost(), ConnectionDone()], ids=repr
)
def test_a_refused_or_reset_dial_is_a_sign_of_death(error: Exception) -> None:
    watched = Watched()
    watched.waiting[0].refuse(error)
    assert watched.status is Status.REFUSED


def test_a_dial_that_is_reset_before_the_handshake_is_a_sign_of_death() -> None:
    watched = Watched()
    watched.waiting[0].accept().lose(ConnectionLost())
    assert watched.status is Status.REFUSED


def test_a_network_that_does_not_reach_it_is_none() -> None:
    watched = Watched()
    watched.waiting[0].refuse(NoRouteError())
    assert watched.status is Status.DIALLING


def test_a_lost_link_is_dropped_until_the_redial_tells() -> None:
    watched = Watched().connect()
    watched.pass_time(1.0, answers=True)
    watched.control.lose()
    assert watched.status is Status.DROPPED
    assert watched.node.view is None
    watched.waiting[0].refuse()
    assert watched.status is Status.REFUSED
    assert [t for t in watched.told if t.isupper()] == ["UP", "DROPPED", "REFUSED"]


def test_a_lost_link_that_comes_back_at_once_is_up() -> None:
    watched = Watched().connect()
    watched.pass_time(1.0, answers=True)
    watched.control.lose()
    watched.waiting[0].accept().answer("OK", INFO)
    assert watched.status is Status.UP
    assert [t for t in watched.told if t.isupper()] == ["UP", "DROPPED", "UP"]


def test_a_node_that_denies_us_lives() -> None:
    watched = Watched()
    error = ResponseError("WRONGPASS invalid username-password pair")
    watched.waiting[0].accept().answer(error, error)
    assert watched.status is Status.DENIED
    assert watched.node.reason == str(error)
    watched.reactor.advance(0)  # the end of the link that we dropped says nothing
    assert watched.status is Status.DENIED


def test_a_node_with_too_many_clients_lives() -> None:
    watched = Watched()
    dial = watched.waiting[0].accept()
    dial.answer(ResponseError("ERR max number of clients reached"))
    dial.lose(ConnectionDone())
    assert watched.status is Status.DENIED
    assert "max number" in watched.node.reason
    # But when it is refused later, it is dead.
    watched.pass_time(0.2)
    watched.waiting[-1].refuse()
    assert watched.status is Status.REFUSED


def test_a_denied_node_that_falls_silent_is_silent() -> None:
    watched = Watched(connect_timeout=1.0)
    error = ResponseError("NOAUTH")
    watched.waiting[0].accept().answer(error, error)
    watched.pass_time(2.9)
    assert watched.status is Status.DENIED
    watched.pass_time(3.0)
    assert watched.status is Status.SILENT


# The heartbeat


def replication(offset: int) -> bytes:
    return f"role:slave\r\nmaster_replid:{'a' * 40}\r\nslave_repl_offset:{offset}\r\n".encode()


def test_a_heartbeat_asks_for_replication_when_somebody_wants_to_know() -> None:
    watched = Watched(heartbeat=1.0).connect()
    watched.pass_time(1.2, answers=True)
    assert watched.node.replication is None
    watched.node.watch_replication(0.25)
    assert watched.control.commands() == [[b"INFO", b"replication"]]
    asked_at = watched.reactor.seconds()
    watched.reactor.advance(0.01)
    watched.control.answer(replication(7))
    state = watched.node.replication
    assert state is not None
    assert (state.asked_at, state.offset) == (asked_at, 7)
    questions = 0
    for offset in range(200):
        watched.reactor.advance(0.01)
        for command in watched.control.commands():
            assert command == [b"INFO", b"replication"]
            questions += 1
            watched.control.answer(replication(offset))
    assert 7 <= questions <= 9
    watched.node.ask_replication()
    assert watched.control.commands() == [[b"INFO", b"replication"]]
    watched.control.answer(ResponseError("BUSY"))
    assert watched.node.replication is None


def test_nobody_who_does_not_want_to_know_asks() -> None:
    watched = Watched().connect()
    watched.node.ask_replication()
    assert watched.control.commands() == []


def test_replication_is_asked_for_with_each_new_control_link_and_forgotten_with_the_old() -> None:
    watched = Watched(started=False)
    watched.node.watch_replication(9.0)
    watched.node.start()
    watched.connect()
    assert watched.control.commands() == [[b"INFO", b"replication"]]
    watched.control.answer(replication(7))
    assert watched.node.replication is not None
    watched.control.lose()
    assert watched.node.replication is None


def test_the_round_trip_is_an_average_and_one_under_way_counts() -> None:
    watched = Watched(heartbeat=1.0, down_after=60.0).connect()
    assert watched.node.round_trip is None
    node = watched.node
    for took, average in ((0.1, 0.1), (0.2, 0.12), (0.02, 0.1)):
        while not watched.pings():
            watched.reactor.advance(0.01)
        watched.reactor.advance(took)
        watched.control.answer("PONG")
        assert node.round_trip == pytest.approx(average)
    while not watched.pings():
        watched.reactor.advance(0.01)
    watched.reactor.advance(0.05)
    assert node.round_trip == pytest.approx(0.1)
    watched.reactor.advance(0.45)
    assert node.round_trip == pytest.approx(0.5)


def test_a_link_for_a_database_that_is_not_wanted_any_more_is_not_used() -> None:
    watched = Watched()
    watched.control, watched.command = [dial.accept() for dial in watched.waiting]
    watched.control.answer("OK", INFO)
    watched.node.use_db(5, now=True)
    watched.command.answer("OK", INFO)
    assert not watched.node.serves("")
    watched.pass_time(0.2, answers=True)
    [again] = watched.waiting
    assert [b"SELECT", b"5"] in again.accept().commands()
    again.answer("OK", INFO)
    assert watched.node.serves("r1")
    assert watched.node.db == 5


def test_a_ping_each_heartbeat() -> None:
    watched = Watched(heartbeat=1.0).connect()
    pings = 0
    for _ in range(1000):
        watched.reactor.advance(0.01)
        if watched.pings():
            pings += 1
            watched.control.answer("PONG")
    assert 9 <= pings <= 11
    assert watched.told.count("heard") == pings


def test_no_second_ping_before_the_first_is_answered() -> None:
    watched = Watched(heartbeat=0.5, down_after=3.0).connect()
    pings = 0
    for _ in range(29):
        watched.reactor.advance(0.1)
        pings += watched.pings()
    assert pings == 1


@pytest.mark.parametrize(
    "answer", ["PONG", ResponseError("MISCONF no disk"), ResponseError("BUSY script"), b"PONG"]
)
def test_any_answer_to_a_ping_is_a_sign_of_life(answer: object) -> None:
    watched = Watched().connect()
    for _ in range(100):
        watched.reactor.advance(0.1)
        if watched.pings():
            watched.control.answer(answer)
    assert watched.status is Status.UP


def test_a_node_that_says_nothing_for_down_after_is_silent_and_its_links_are_dropped() -> None:
    watched = Watched(down_after=3.0).connect()
    watched.pass_time(2.99, step=0.01)
    assert watched.status is Status.UP
    watched.pass_time(0.02, step=0.01)
    assert watched.status is Status.SILENT
    assert watched.control.aborted
    assert watched.command.aborted
    assert watched.node.view is None


def test_it_is_down_after_its_last_word_on_any_link() -> None:
    watched = Watched(down_after=3.0).connect()
    watched.pass_time(2.0)
    watched.command.deliver(b"$5\r\nhal")  # a long reply is on its way
    watched.pass_time(2.9)
    assert watched.status is Status.UP
    watched.pass_time(0.2)
    assert watched.status is Status.SILENT


def test_a_node_that_never_answers_the_dial_is_silent() -> None:
    watched = Watched(down_after=3.0, connect_timeout=2.0)
    watched.pass_time(2.9)
    assert watched.status is Status.DIALLING
    watched.pass_time(0.2)
    assert watched.status is Status.SILENT


def test_a_node_that_accepts_and_says_nothing_is_silent() -> None:
    watched = Watched(down_after=3.0, connect_timeout=2.0)
    for _ in range(62):
        for dial in watched.waiting:
            dial.accept()
        watched.reactor.advance(0.05)
    assert watched.status is Status.SILENT


def test_a_dropped_node_that_accepts_and_says_nothing_is_silent() -> None:
    watched = Watched(down_after=3.0, connect_timeout=2.0).connect()
    watched.pass_time(1.0, answers=True)
    watched.control.lose()
    for _ in range(62):
        for dial in watched.waiting:
            dial.accept()
        watched.reactor.advance(0.05)
    assert watched.status is Status.SILENT


def test_a_silent_node_that_answers_a_redial_is_up() -> None:
    watched = Watched(down_after=3.0).connect()
    watched.pass_time(3.1)
    assert watched.status is Status.SILENT
    for dial in watched.waiting:
        dial.accept().answer("OK", INFO)
    assert watched.status is Status.UP
    watched.pass_time(1.0)
    assert watched.status is Status.UP


def test_a_process_that_slept_does_not_call_the_nodes_silent() -> None:
    watched = Watched(heartbeat=1.0, down_after=3.0).connect()
    watched.pass_time(1.5, answers=True)
    watched.reactor.advance(60.0)
    assert watched.status is Status.UP
    # But it is not fooled for longer than down_after.
    watched.pass_time(3.5)
    assert watched.status is Status.SILENT


def test_a_sleep_of_ours_is_no_word_of_the_node() -> None:
    watched = Watched(heartbeat=1.0, down_after=3.0).connect()
    watched.pass_time(1.5, answers=True)
    heard = watched.node.last_heard
    watched.reactor.advance(60.0)
    assert watched.status is Status.UP
    assert watched.node.last_heard == heard


def test_a_node_that_never_spoke_was_never_heard() -> None:
    watched = Watched(start=100.0)
    watched.pass_time(5.0)
    assert watched.node.last_heard == -math.inf
    assert watched.status is Status.SILENT


def test_the_silence_counts_from_the_start() -> None:
    watched = Watched(started=False, down_after=3.0)
    watched.reactor.advance(100.0)
    watched.node.start()
    watched.pass_time(2.9)
    assert watched.status is Status.DIALLING
    watched.pass_time(0.2)
    assert watched.status is Status.SILENT


@given(st.floats(0, 1000), st.floats(0, 3), st.floats(0.05, 5), st.integers(0, 1000))
def test_the_watch_never_spins(start: float, heard: float, down_after: float, seed: int) -> None:
    random.seed(seed)
    watched = Watched(start, heartbeat=down_after / 2.5, down_after=down_after).connect()
    watched.reactor.advance(min(heard, down_after / 2))
    watched.command.deliver(b"$5\r\n")
    looks = 0
    beat = watched.node._beat

    def counted() -> None:
        nonlocal looks
        looks += 1
        assert looks < 50, "it looks again and again"
        beat()

    watched.node._beat = counted  # type: ignore[method-assign]
    watched.pass_time(2 * down_after, step=down_after / 7)
    assert watched.status is Status.SILENT


# The command link


def test_the_command_link_serves_one_incarnation() -> None:
    watched = Watched().connect()
    assert watched.node.serves("r1")
    assert watched.node.serves("")
    assert not watched.node.serves("r2")


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_the_journals_script_is_loaded_on_the_command_link_when_it_is_used(delivery: str) -> None:
    watched = Watched(delivery=delivery).connect()
    load = [[b"SCRIPT", b"LOAD", JOURNAL_SCRIPT]] if delivery == "exactly-once" else []
    assert watched.command.commands() == load
    assert watched.control.commands() == []
    # Whatever becomes of it: a journal is sent whole where it is not known.
    if load:
        watched.command.answer(ResponseError("NOPERM no permissions to run 'script|load'"))
    assert watched.node.serves("r1")
    assert watched.node.send([b"a"], [_Nobody()])


def test_a_batch_goes_to_the_command_link() -> None:
    watched = Watched(delivery="at-most-once").connect()
    assert watched.node.send([b"a", b"b"], [_Nobody(), _Nobody()])
    assert watched.command.written == b"ab"


def test_a_batch_without_a_command_link_is_not_written() -> None:
    watched = Watched()
    assert not watched.node.send([b"a"], [_Nobody()])
    watched.connect().command.lose()
    assert not watched.node.send([b"a"], [_Nobody()])
    assert "commands lost" in watched.told
    assert not watched.node.serves("")


def test_abort_drops_the_command_link_only() -> None:
    watched = Watched().connect()
    watched.pass_time(1.0, answers=True)
    watched.node.abort()
    assert watched.command.aborted
    assert not watched.control.aborted
    watched.reactor.advance(0)
    assert len(watched.waiting) == 1  # it is redialled
    assert watched.status is Status.UP


def test_a_command_link_that_is_denied_is_told() -> None:
    watched = Watched()
    control, command = [dial.accept() for dial in watched.waiting]
    control.answer("OK", INFO)
    command.answer(ResponseError("ERR DB index is out of range"), INFO)
    assert watched.status is Status.UP
    assert "commands denied: ERR DB index is out of range" in watched.told
    assert watched.node.commands_denied == "ERR DB index is out of range"
    assert not watched.node.lacks_right
    watched.pass_time(0.3)
    for dial in watched.waiting:
        dial.accept().answer("OK", INFO)
    assert watched.node.commands_denied == ""


def test_commands_that_are_denied_for_now_only_are_not_denied() -> None:
    watched = Watched()
    control, command = [dial.accept() for dial in watched.waiting]
    control.answer("OK", INFO)
    command.answer(ResponseError("ERR max number of clients reached"))
    command.lose(ConnectionDone())
    assert any(told.startswith("commands denied") for told in watched.told)
    assert watched.node.commands_denied == ""


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        ("WRONGPASS invalid username-password pair", True),
        ("NOAUTH Authentication required.", True),
        ("ERR DB index is out of range", True),
        ("LOADING Redis is loading the dataset in memory", False),
    ],
)
def test_a_denial_tells_whether_a_right_is_missing(error: str, lacks: bool) -> None:
    watched = Watched()
    watched.waiting[0].accept().answer(ResponseError(error), ResponseError(error))
    assert watched.node.lacks_right is lacks


def test_a_right_that_is_given_is_no_longer_missing() -> None:
    watched = Watched()
    error = ResponseError("NOAUTH Authentication required.")
    watched.waiting[0].accept().answer(error, error)
    assert watched.node.lacks_right
    watched.pass_time(0.2)
    for dial in watched.waiting:
        dial.accept().answer("OK", INFO)
    assert watched.status is Status.UP
    assert not watched.node.lacks_right


def test_the_newest_denial_counts() -> None:
    watched = Watched()
    error = ResponseError("ERR max number of clients reached")
    watched.waiting[0].accept().answer(error, error)
    assert not watched.node.lacks_right
    watched.pass_time(0.2)
    error = ResponseError("NOAUTH Authentication required.")
    for dial in watched.waiting:
        dial.accept().answer(error, error)
    assert watched.status is Status.DENIED
    assert watched.node.lacks_right
    assert watched.node.reason == str(error)


def test_the_host_of_the_newest_link_is_remembered() -> None:
    watched = Watched()
    watched.reactor.dials[0].getPeer = lambda: IPv4Address("TCP", "10.0.0.7", 1)  # type: ignore[method-assign]
    assert watched.node.peer_host == "n"
    watched.connect()
    assert watched.node.peer_host == "10.0.0.7"
    watched.control.lose()
    assert watched.node.peer_host == "10.0.0.7"


def test_close_drops_everything_for_good() -> None:
    watched = Watched().connect()
    told = list(watched.told)
    closed = watched.node.close()
    watched.reactor.advance(0)
    assert closed.called
    assert watched.status is Status.CLOSED
    assert watched.reactor.getDelayedCalls() == []
    assert [t for t in watched.told[len(told) :] if t != "commands lost"] == []
    watched.reactor.advance(100)
    assert watched.waiting == []


def redial_control(watched: Watched, info: bytes = INFO) -> list[list[bytes]]:
    """Lose the control link; returns what is said on the next one."""
    watched.control.lose()
    watched.reactor.advance(1.0)
    [watched.control] = watched.waiting
    watched.control.accept().answer("OK", info)
    return watched.control.commands()[2:]


def test_a_new_control_link_says_what_the_lost_one_still_had_to_say() -> None:
    watched = Watched().connect()
    assert watched.node.control is not None
    watched.node.control.owed += [["CONFIG", "SET", "replica-read-only", "yes"]]
    for _ in range(2):  # as long as it is not answered
        assert redial_control(watched) == [[b"CONFIG", b"SET", b"replica-read-only", b"yes"]]
    watched.control.answer("OK")
    assert watched.node.control.owed == []


def test_a_new_incarnation_is_owed_nothing() -> None:
    watched = Watched().connect()
    assert watched.node.control is not None
    watched.node.control.owed += [["CONFIG", "SET", "replica-read-only", "yes"]]
    assert redial_control(watched, INFO.replace(b"r1", b"r2")) == []


# The survey

REPLIES: list[object] = [
    b"role:master\r\nmaster_replid:" + b"a" * 40 + b"\r\nmaster_repl_offset:7\r\n",
    b"db0:keys=3,expires=0\r\n",
    [b"epoch", b"2", b"group", b"g"],
    [b"5", b"2", None],
    [b"replica-priority", b"100"],
    [b"__sentinel__:hello", 0],
]


def survey(watched: Watched) -> Deferred[NodeView | None]:
    watched.control.commands()
    return Deferred.fromCoroutine(watched.node.survey({}))


def test_a_survey_is_one_exchange() -> None:
    watched = Watched().connect()
    watched.pass_time(2.5, answers=True)
    asked = survey(watched)
    assert [command[0] for command in watched.control.commands()] == [
        *(b"INFO", b"INFO", b"HGETALL", b"MGET", b"CONFIG", b"PUBSUB")
    ]
    watched.control.answer(*REPLIES)
    view: Any = asked.result
    assert (view.role, view.run_id, view.epoch, view.keys) == (Role.MASTER, "r1", 2, 3)
    assert view.uptime == 102
    assert watched.node.view is view


def test_a_survey_gives_up_after_its_time_and_its_replies_are_still_counted() -> None:
    watched = Watched(survey_timeout=0.5).connect()
    late = survey(watched)
    watched.reactor.advance(0.5)
    assert late.result is None
    asked = survey(watched)
    watched.control.answer(*REPLIES)
    assert not asked.called
    watched.control.answer(*REPLIES[:2], [b"epoch", b"3"], *REPLIES[3:])
    view: Any = asked.result
    assert view.epoch == 3


def test_a_survey_of_a_lost_link_has_no_view() -> None:
    watched = Watched().connect()
    asked = survey(watched)
    watched.control.lose()
    assert asked.result is None
    assert survey(watched).result is None


def test_a_survey_that_is_answered_with_errors_only_has_no_view() -> None:
    watched = Watched().connect()
    asked = survey(watched)
    watched.control.answer(*[ResponseError("BUSY Redis is busy running a script.")] * 6)
    assert asked.result is None
    assert "BUSY" in watched.node.reason


def test_a_survey_of_a_node_that_keeps_stale_data_to_itself() -> None:
    watched = Watched().connect()
    asked = survey(watched)
    watched.control.commands()
    stale = ResponseError("MASTERDOWN Link with MASTER is down")
    watched.control.answer(*REPLIES[:2], stale, stale, *REPLIES[4:])
    again = watched.control.commands()
    name = b"replica-serve-stale-data"
    assert again[0] == [b"CONFIG", b"SET", name, b"yes"]
    assert again[-1] == [b"CONFIG", b"SET", name, b"no"]
    watched.control.answer("OK", *REPLIES[2:4], "OK")
    view: Any = asked.result
    assert (view.epoch, view.opcounter) == (2, 5)


class _Nobody:
    def settle(self, reply: object) -> None: ...

    def lost(self) -> None: ...


# Links for one caller each


def dialled(run_id: str = "r1") -> tuple[Watched, list[Any], list[str]]:
    """A node whose links are up, a link that was asked of it, and whether that is gone."""
    watched = Watched().connect()
    got: list[Any] = []
    gone: list[str] = []
    link = watched.node.dial(7, run_id, lambda: gone.append("gone"))
    link.addCallbacks(got.append, lambda failure: got.append(failure.value))
    return watched, got, gone


@pytest.mark.parametrize("run_id", ["r1", ""])
def test_a_link_of_ones_own_is_shaken_like_the_others_and_not_redialled(run_id: str) -> None:
    watched, got, gone = dialled(run_id)
    [dial] = watched.waiting
    assert dial.accept().commands() == [[b"SELECT", b"7"], [b"INFO", b"server"]]
    assert got == []
    dial.answer("OK", INFO)
    assert got == [dial.protocol]
    assert gone == []
    dial.lose()
    assert gone == ["gone"]
    watched.reactor.advance(2)
    assert watched.waiting == []
    assert watched.status is Status.UP


@pytest.mark.parametrize("how", ["refused", "lost", "other", "denied", "hangs"])
def test_a_link_of_ones_own_that_cannot_be_had(how: str) -> None:
    watched, got, gone = dialled()
    [dial] = watched.waiting
    if how == "refused":
        dial.refuse()
    elif how == "lost":
        dial.accept().lose()
    elif how == "other":
        dial.accept().answer("OK", b"run_id:other\r\n")
    elif how == "denied":
        dial.accept().answer(ResponseError("NOAUTH Authentication required."), INFO)
    else:
        dial.accept()
        watched.pass_time(2.1, answers=True)
    watched.reactor.advance(0)
    [error] = got
    assert isinstance(error, ResponseError if how == "denied" else LinkLost)
    assert gone == ["gone"]
    assert watched.status is Status.UP


@pytest.mark.parametrize("accepted", [True, False])
def test_a_link_of_ones_own_that_nobody_wants_any_more(accepted: bool) -> None:
    watched = Watched().connect()
    gone: list[str] = []
    link = watched.node.dial(7, "r1", lambda: gone.append("gone"))
    why: list[Any] = []
    link.addErrback(lambda failure: why.append(failure.value))
    [dial] = watched.waiting
    if accepted:
        dial.accept()
    link.cancel()
    watched.reactor.advance(0)
    assert isinstance(why[0], CancelledError)
    assert dial.over
    assert gone == ["gone"]


def test_a_silent_node_loses_the_links_of_single_callers_too() -> None:
    watched, _, gone = dialled()
    [dial] = watched.waiting
    dial.accept().answer("OK", INFO)
    watched.pass_time(3.5)
    assert watched.status is Status.SILENT
    assert gone == ["gone"]
