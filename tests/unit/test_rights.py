"""Rights: what is asked, what is missing, and what a client without them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.fakes import Dial, FakeReactor
from tests.unit.test_election import decision_on, evidence, in_short, master, node, replica, view
from txharedis.election import Wait
from txharedis.errors import ResponseError
from txharedis.node import Node
from txharedis.options import Options
from txharedis.replies import missing_right, redacted
from txharedis.rights import PROBES, PUBLISHING, TRANSACTION, denied, lacking
from txharedis.topology import Address, NodeView, Role, Status, parse_hello

NOPERM = ResponseError("NOPERM this user has no permissions to run the 'x' command")
INFO = b"run_id:r1\r\nredis_version:7.0.15\r\n"
HELLO = [b"server", b"redis", b"proto", 2, b"mode", b"standalone", b"role", b"replica"]
REPLIES: list[object] = [b"role:master\r\n", b"", [], [None] * 3, [], []]


@pytest.mark.parametrize(
    ("reply", "is_denied"),
    [
        (NOPERM, True),
        (ResponseError("EXECABORT Transaction discarded because of: NOPERM User x"), True),
        (ResponseError("EXECABORT Transaction discarded because of previous errors."), False),
        (ResponseError("ERR Invalid master port"), False),
        (b"NOPERM", False),
        (None, False),
    ],
)
def test_denied(reply: object, is_denied: bool) -> None:
    assert denied(reply) is is_denied


def test_what_is_missing_is_named_once_with_its_key() -> None:
    everything = [*TRANSACTION, *PROBES, PUBLISHING]
    names = lacking(everything, [NOPERM] * len(everything))
    assert len(names) == len(set(names))
    assert {
        *("WATCH haredis:failover:*", "MULTI", "SLAVEOF", "CONFIG SET", "CLIENT KILL", "EVAL"),
        *("SET haredis:vote:*", "HSET haredis:meta", "INCRBY haredis:opcounter"),
        *("PUBLISH haredis:gossip:master", "PUBSUB NUMSUB"),
    } <= set(names)
    assert lacking(everything, [b"QUEUED"] * len(everything)) == ()


class Watched:
    """A node whose rights are looked at, up already."""

    def __init__(self) -> None:
        self.reactor = FakeReactor()
        self.told: list[list[str]] = []
        self.node = Node(
            self.reactor, Address("n", 1), Options(heartbeat=100, down_after=900), self
        )
        self.node.checks_rights = True
        self.node.start()
        self.control = self.connect()

    def connect(self, info: object = INFO) -> Dial:
        """Accept all dials; returns the first of them."""
        waiting = [dial for dial in self.reactor.dials if dial.protocol is None and not dial.over]
        for dial in waiting:
            dial.accept().answer("OK", info)
            dial.commands()
        return waiting[0]

    def look(self) -> Dial:
        """Survey it; returns the link on which it is asked for rights."""
        self.survey()
        link = self.reactor.dial
        link.accept()
        link.commands()
        link.answer("OK", INFO)
        return link

    def rights_changed(self, node: Node, missing: Sequence[str]) -> None:
        self.told.append(list(missing))

    def ignore(self, *args: object) -> None:
        pass

    node_changed = node_heard = commands_ready = commands_lost = commands_denied = ignore

    def survey(self) -> Deferred[NodeView | None]:
        self._survey = Deferred.fromCoroutine(self.node.survey({}))
        return self._survey

    def seen(self) -> object:
        """What the newest survey gave; a Deferred or a Failure when it gave nothing."""
        return getattr(self._survey, "result", self._survey)

    def asked(self) -> list[list[bytes]]:
        return self.control.commands()

    def answer(self, *replies: object) -> None:
        self.control.answer(*replies)


def test_the_rights_are_queued_and_thrown_away() -> None:
    watched = Watched()
    link = watched.look()
    assert [words[0] for words in link.commands()] == [b"WATCH", b"UNWATCH", b"MULTI", b"EXEC"]
    link.answer("OK", "OK", "OK", [])
    first, *queued, last = link.commands()
    assert (first, last) == ([b"MULTI"], [b"DISCARD"])
    assert len(queued) == len(PROBES) + 1
    assert watched.asked() == []  # whoever has the control link to himself keeps it so
    link.answer("OK", *["QUEUED"] * len(queued), "OK")
    assert link.aborted
    watched.asked()
    watched.answer(*REPLIES)
    assert isinstance(watched.seen(), NodeView)
    assert watched.node.may_elect
    assert watched.told == []
    watched.survey()
    assert watched.asked()[0][0] == b"INFO"  # not again
    assert watched.reactor.dial is link


def test_nothing_is_queued_where_transactions_are_denied() -> None:
    watched = Watched()
    link = watched.look()
    link.commands()
    link.answer("OK", "OK", NOPERM, ResponseError("ERR EXEC without MULTI"))
    asked = link.commands()
    assert len(asked) == len(PROBES)
    assert [b"PUBLISH"] not in [words[:1] for words in asked]
    assert [b"SLAVEOF", b"nobody", b"no port"] in asked
    link.answer(*[NOPERM] * len(asked))
    assert not watched.node.may_lock
    assert "MULTI" in watched.told[0]
    assert watched.node.picture(None).missing_rights == tuple(watched.told[0])


def test_a_transaction_that_cannot_be_ended_ends_with_its_link() -> None:
    watched = Watched()
    link = watched.look()
    link.answer("OK", "OK", "OK", NOPERM)
    link.answer(ResponseError("ERR MULTI calls can not be nested"))
    link.answer(*["QUEUED"] * len([*PROBES, PUBLISHING]), NOPERM)
    assert link.aborted
    watched.answer(*REPLIES)
    assert isinstance(watched.seen(), NodeView)
    assert watched.node.missing_rights == ("EXEC", "DISCARD")


def test_only_what_is_newly_missing_is_told() -> None:
    watched = Watched()
    watched.node.deny("SUBSCRIBE haredis:gossip:master", True)
    watched.node.deny("SUBSCRIBE haredis:gossip:master", True)
    link = watched.look()
    link.answer("OK", "OK", "OK", [])
    replies: list[object] = [NOPERM if probe[0] == "SLAVEOF" else "QUEUED" for probe in PROBES]
    link.answer("OK", *replies, "QUEUED", "OK")
    assert watched.told == [["SUBSCRIBE haredis:gossip:master"], ["SLAVEOF"]]
    assert watched.node.may_lock
    assert not watched.node.may_elect
    watched.node.deny("SUBSCRIBE haredis:gossip:master", False)
    assert watched.told[2:] == [[]]
    assert watched.node.missing_rights == ("SLAVEOF",)


def test_a_server_that_answers_no_look_at_rights_is_up_all_the_same() -> None:
    watched = Watched()
    watched.node.deny("SLAVEOF", True)
    link = watched.look()
    link.answer("OK", "OK", "OK", [])
    watched.reactor.advance(0.5)
    assert link.aborted
    watched.answer(*REPLIES)
    assert isinstance(watched.seen(), NodeView)
    assert watched.node.missing_rights == ("SLAVEOF",)  # as before
    watched.control.lose()
    watched.reactor.advance(1.0)
    watched.control = newest = watched.connect()
    watched.survey()
    assert watched.reactor.dial is newest  # not at once again, whatever link there is
    watched.reactor.advance(10.0)
    assert watched.look() is not newest


def test_a_survey_does_not_wait_for_a_look_for_longer_than_for_itself() -> None:
    watched = Watched()
    watched.survey()  # and nobody accepts the link
    watched.reactor.advance(0.4)
    assert watched.asked() == []
    watched.reactor.advance(0.1)
    assert watched.asked()[0] == [b"INFO", b"replication"]
    watched.answer(*REPLIES)
    assert isinstance(watched.seen(), NodeView)


def test_who_knows_the_rights_does_not_wait_for_another_look() -> None:
    watched = Watched()
    link = watched.look()
    link.answer("OK", "OK", "OK", [])
    link.answer("OK", *["QUEUED"] * len([*PROBES, PUBLISHING]), "OK")
    watched.answer(*REPLIES)
    watched.control.lose()
    watched.reactor.advance(1.0)
    watched.control = watched.connect()
    watched.survey()
    assert watched.reactor.dial not in (link, watched.control)  # others may know us now
    watched.asked()
    watched.answer(*REPLIES)
    assert isinstance(watched.seen(), NodeView)
    watched.node.recheck_rights()
    watched.look().answer("OK", "OK", "OK", [])
    assert watched.asked() == []  # one was denied: it waits


def test_a_denial_during_a_look_asks_for_another_one() -> None:
    watched = Watched()
    link = watched.look()
    link.answer("OK", "OK", "OK", [])
    watched.node.recheck_rights()
    link.answer("OK", *["QUEUED"] * len([*PROBES, PUBLISHING]), "OK")
    watched.asked()
    assert watched.look() is not link
    assert watched.asked() == []  # it is waited for


def test_the_right_to_info_can_be_taken_away() -> None:
    watched = Watched()
    watched.survey()
    link = watched.reactor.dial
    link.accept().answer("OK", NOPERM)
    link.answer("OK", "OK", "OK", [])
    replies = [NOPERM if probe[0] == "INFO" else "QUEUED" for probe in PROBES]
    link.answer("OK", *replies, "QUEUED", "OK")
    assert watched.node.missing_rights == ("INFO",)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_look_at_rights_does_not_outlive_the_node(accepted: bool) -> None:
    watched = Watched()
    watched.survey()
    link = watched.reactor.dial
    if accepted:
        link.accept().answer("OK", INFO)
    closed = watched.node.close()
    watched.reactor.advance(0.0)
    assert link.over
    assert closed.called
    assert watched.reactor.getDelayedCalls() == []


def test_without_info_hello_tells_the_role() -> None:
    watched = Watched()
    watched.node.checks_rights = False
    asked = watched.survey()
    watched.asked()
    watched.answer(*[NOPERM] * 6)
    assert watched.asked() == [[b"HELLO"]]
    watched.answer(HELLO)
    view: Any = asked.result
    assert (view.role, view.run_id, view.blind) == (Role.REPLICA, "", True)
    asked = watched.survey()
    assert watched.asked() == [[b"HELLO"]]  # what is denied is not asked for each time
    watched.answer(NOPERM)
    assert watched.asked() == [[b"ROLE"]]
    watched.answer([b"slave", b"n", 2, b"connected", 1])
    view = asked.result
    assert view.role is Role.REPLICA
    asked = watched.survey()
    watched.answer(NOPERM)
    watched.answer(NOPERM)
    assert asked.result is None
    assert "NOPERM" in watched.node.reason


def test_a_link_is_up_without_the_right_to_info() -> None:
    watched = Watched()
    watched.control.lose()
    watched.reactor.advance(1.0)
    watched.control = watched.connect(NOPERM)
    assert watched.node.status is Status.UP
    assert watched.node.run_id == ""
    assert watched.node.serves("")
    # Allowed later, on the same link, it is identified before anything else is believed.
    watched.node.checks_rights = False
    asked = watched.survey()
    assert watched.asked() == [[b"INFO", b"server"]]
    watched.answer(NOPERM)
    watched.answer(HELLO)
    blind: Any = asked.result
    assert blind.run_id == ""
    watched.reactor.advance(60.0)
    watched.asked()
    asked = watched.survey()
    assert watched.asked() == [[b"INFO", b"server"]]
    watched.answer(INFO)
    watched.answer(*REPLIES)
    seen: Any = asked.result
    assert (seen.run_id, seen.blind) == ("r1", False)
    assert watched.node.serves("r1")


@pytest.mark.parametrize(
    ("hello", "role"),
    [
        ([b"role", b"master"], Role.MASTER),
        ([b"role", b"slave"], Role.REPLICA),
        ([b"role"], None),
        (NOPERM, None),
        (None, None),
    ],
)
def test_hello(hello: object, role: Role | None) -> None:
    view = parse_hello(Address("n", 1), hello)
    assert (view and view.role) == role


# What is decided without them


def blind(number: int, role: Role, **fields: Any) -> NodeView:
    return NodeView(node(number), run_id="", role=role, blind=True, **fields)


M, R = Role.MASTER, Role.REPLICA


@pytest.mark.parametrize(
    ("views", "decision"),
    [
        ([blind(1, M), blind(2, R), blind(3, R)], "follow 1"),
        ([blind(1, M), blind(2, R)], "follow 1"),
        ([blind(1, M)], "wait"),
        ([blind(1, M), blind(2, M), blind(3, R)], "wait"),
        ([blind(1, R), blind(2, R), blind(3, R)], "wait"),
        # With INFO, and without our keys.
        ([blind(1, M), blind(2, R, follows=node(1), link_up=True)], "follow 1"),
        ([blind(1, M), blind(2, R, follows=node(3), link_up=True)], "wait"),
        ([blind(1, M), blind(2, R, follows=node(3))], "follow 1"),
        # With all it sees, it decides as the others do, and changes nothing.
        ([master(1), replica(2), replica(3)], "follow 1"),
        ([master(1), replica(2), replica(3, 2)], "follow 1"),
        ([replica(2, link_up=False), replica(3, link_up=False)], "wait"),
        ([master(1, run_id="new"), replica(2)], "wait"),
        ([master(1, epoch=0, group=""), replica(2, epoch=0, group="")], "follow 1"),
        ([view(n, M, epoch=0, group="", replid=str(n) * 40) for n in (1, 2, 3)], "wait"),
        ([master(1, sentinels=1), replica(2)], "refuse 1"),
    ],
)
def test_who_may_only_follow(views: list[NodeView], decision: str) -> None:
    decided = decision_on(views, evidence(follows_only=True))
    assert in_short(decided) == decision
    if isinstance(decided, Wait) and len(views) > 1:
        assert decided.reason.startswith("only clients with the right to elect may act: ")
        assert decided.newer  # whoever was followed is not, meanwhile


@pytest.mark.parametrize(
    ("views", "decision"),
    [
        ([master(1), replica(2), blind(3, R)], "follow 1"),
        ([replica(2, link_up=False), replica(3, link_up=False), blind(1, R)], "wait"),
        ([blind(1, M), replica(2), replica(3)], "follow 1"),
        ([blind(1, M), replica(2, 3), replica(3)], "wait"),
        ([blind(1, M), blind(2, R), replica(3)], "follow 1"),
        ([blind(1, M), blind(2, M), replica(3)], "wait"),
    ],
)
def test_a_node_that_cannot_be_seen_does_not_vote(views: list[NodeView], decision: str) -> None:
    status = {view.address.port: Status.UP for view in views}
    assert in_short(decision_on(views, evidence(status=status))) == decision


def test_one_node_is_used_as_far_as_the_rights_go() -> None:
    assert in_short(decision_on([blind(1, R)], evidence(1, follows_only=True))) == "follow 1"


# What is not repeated


def test_arguments_of_an_unknown_command_are_not_repeated() -> None:
    error = ResponseError("ERR unknown command 'AUTH', with args beginning with: 's3cr3t' ")
    assert str(redacted(error)) == "ERR unknown command 'AUTH'"
    assert isinstance(redacted(error), ResponseError)
    assert redacted(NOPERM) is NOPERM


def test_no_agreement_on_tls_is_a_denial() -> None:
    assert missing_right("TLS: certificate verify failed")
