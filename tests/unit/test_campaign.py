"""A failover or a repair, step by step, on scripted nodes.

Node 1 was the master and is dead; 2 and 3 were its replicas. Decisions are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import ScriptedNode, settle
from txharedis.campaign import Campaign
from txharedis.election import Evidence, Follow, Repair, decide
from txharedis.errors import LinkLost, LockLost, ResponseError
from txharedis.events import Event, FailoverStep, HistoryDiscarded, LockNotGranted
from txharedis.group import Memory, Survey
from txharedis.log import ClientLog
from txharedis.options import Options
from txharedis.topology import META_KEY, Address, NodeView, Status

LOCK_TIME = 1.0
READ_ONLY = b"replica-read-only"
PING_PERIOD = b"repl-ping-replica-period"
META: list[bytes | str] = ["epoch", "5", "group", "g", "master", "n:1", "run_id", "run1"]


class Scene:
    """Some nodes, and a campaign of one client."""

    def __init__(self, replicas: int = 2, *, master: bool = False, **options: Any) -> None:
        self.clock = Clock()
        self.nodes: dict[int, ScriptedNode] = {}
        for number in range(1 if master else 2, replicas + 2):
            node = ScriptedNode(
                self.clock,
                Address("n", number),
                offset=100 - number,
                keys=10,
                opcounter=50,
                link_up=master,
                link_down_for=-1 if master else 0,
            )
            node.follows = Address("n", 1) if number > 1 else None
            encoded = [item.encode() if isinstance(item, str) else item for item in META]
            node.run_hset(META_KEY.encode(), *encoded)
            self.nodes[number] = node
        settle(self.clock)
        self.count = replicas + 1
        self.events: list[Event] = []
        self.served: list[NodeView] = []
        self.before_look: Callable[[], object] = lambda: None
        self.campaign = Campaign(
            self.clock,
            Options(lock_time=LOCK_TIME, **options),
            ClientLog(),
            self.events.append,
            self._look,
            self.served.append,
        )
        for node in self.nodes.values():
            node.log.clear()

    def __getitem__(self, number: int) -> ScriptedNode:
        return self.nodes[number]

    def survey(self) -> Survey:
        answering = [node for node in self.nodes.values() if not node.silent]
        views = {node.address: node.view() for node in answering}
        addresses = tuple(Address("n", number) for number in range(1, self.count + 1))
        status = {a: Status.UP if a in views else Status.REFUSED for a in addresses}
        evidence = Evidence(addresses, status, down_after=3.0, epoch=5, group="g")
        return Survey(
            views=views,
            decision=decide(views, evidence),
            controls={node.address: node.protocol for node in answering},
            nodes=self.count,
            memory=Memory(5, "g"),
            evidence=evidence,
        )

    async def _look(self) -> Survey:
        self.before_look()
        return self.survey()

    def fail_over(self, survey: Survey | None = None, seconds: float = 0.0) -> Any:
        return self._run(self.campaign.fail_over(survey or self.survey()), seconds)

    def repair(self, survey: Survey | None = None, seconds: float = 0.0) -> Any:
        return self._run(self.campaign.repair(survey or self.survey()), seconds)

    def _run(self, coroutine: Any, seconds: float) -> Any:
        outcome: list[Any] = []
        deferred = Deferred.fromCoroutine(coroutine)
        deferred.addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
        settle(self.clock)
        while seconds > 0:
            self.clock.advance(0.05)
            seconds -= 0.05
            settle(self.clock)
        (result,) = outcome
        return result

    @property
    def steps(self) -> list[str]:
        return [
            f"{event.step} {event.node.port}" if event.node is not None else event.step
            for event in self.events
            if isinstance(event, FailoverStep)
        ]

    @property
    def masters(self) -> list[int]:
        return [number for number, node in self.nodes.items() if node.follows is None]

    @property
    def locked(self) -> list[int]:
        return [number for number, node in self.nodes.items() if node.locked]

    @property
    def writable(self) -> list[int]:
        return [n for n, node in self.nodes.items() if node.settings[READ_ONLY] == b"no"]

    def silence(self, number: int) -> None:
        self.nodes[number].silent = True


# Failing over


def test_the_freshest_is_promoted_and_the_others_follow_it() -> None:
    scene = Scene()
    master = scene.fail_over()
    assert master.address == Address("n", 2)
    assert scene.masters == [2]
    assert scene[3].follows == Address("n", 2)
    assert scene.served == [master]
    assert scene.locked == scene.writable == []


def test_the_steps_are_told_in_their_order() -> None:
    scene = Scene()
    scene.fail_over()
    assert scene.steps == [
        *("lock", "look", "promote 2", "serve 2", "redirect 3", "gossip 2", "release")
    ]
    assert {event.epoch for event in scene.events if isinstance(event, FailoverStep)} == {6}


def test_the_promotion_is_one_transaction() -> None:
    scene = Scene()
    scene.fail_over()
    names = scene[2].names()
    step = names[names.index("MULTI") : names.index("EXEC") + 1]
    assert step == [
        *("MULTI", "SLAVEOF NO ONE", "CONFIG SET repl-ping-replica-period", "HSET", "PUBLISH"),
        *(f"CONFIG SET {READ_ONLY.decode()}", "EXEC"),
    ]
    meta = scene[2].meta
    assert meta[b"epoch"] == b"6"
    assert meta[b"group"] == b"g"
    assert meta[b"master"] == b"n:2"
    assert meta[b"run_id"] == b"run2"


def test_what_is_served_is_what_the_next_survey_will_find() -> None:
    scene = Scene()
    master = scene.fail_over()
    found = scene[2].view()
    assert master.claims
    assert (master.role, master.epoch, master.group) == (found.role, found.epoch, found.group)
    assert (master.meta_run_id, master.meta_master) == (found.meta_run_id, found.meta_master)


def test_the_new_master_speaks_each_second_and_its_meta_says_so() -> None:
    scene = Scene()
    scene.fail_over()
    assert scene[2].settings[PING_PERIOD] == b"1"
    assert scene[2].meta[b"ping_period"] == b"1"
    assert scene[3].settings[PING_PERIOD] == b"10"


def test_servers_that_are_not_to_be_tuned_are_not_and_the_meta_says_so() -> None:
    scene = Scene(tune_nodes=False)
    for node in scene.nodes.values():
        node.run_hset(META_KEY.encode(), b"ping_period", b"1")  # of the master before
    scene.fail_over()
    names = scene[2].names()
    step = names[names.index("MULTI") : names.index("EXEC") + 1]
    assert step[1:4] == ["SLAVEOF NO ONE", "HDEL", "HSET"]
    assert scene[2].settings[PING_PERIOD] == b"10"
    assert b"ping_period" not in scene[2].meta
    assert scene[2].meta[b"epoch"] == b"6"


def test_everybody_is_told() -> None:
    scene = Scene()
    scene.fail_over()
    assert scene[2].told == [b"n:2", b"n:2"]
    assert scene[3].told == [b"n:2"]


def test_commands_flow_before_the_others_are_redirected() -> None:
    scene = Scene()
    followed: list[Any] = []
    scene.campaign._serve = lambda master: followed.append(scene[3].follows)
    scene.fail_over()
    assert followed == [Address("n", 1)]


def test_a_group_is_named_at_its_first_election() -> None:
    scene = Scene()
    for node in scene.nodes.values():
        node.keys.clear()
    survey = replace(scene.survey(), memory=Memory())
    evidence = Evidence(
        tuple(Address("n", n) for n in (1, 2, 3)), {Address("n", 1): Status.REFUSED}, 3.0
    )
    survey = replace(survey, decision=decide(survey.views, evidence))

    async def look() -> Survey:
        return survey

    scene.campaign._look = look
    master = scene.fail_over(survey)
    assert len(master.group) >= 16
    assert scene[2].meta[b"group"] == master.group.encode()
    assert scene[2].meta[b"epoch"] == b"1"


def test_a_group_whose_keys_were_flushed_keeps_its_name() -> None:
    scene = Scene()
    for node in scene.nodes.values():
        node.keys.clear()
    survey = scene.survey()
    evidence = Evidence(
        tuple(Address("n", n) for n in (1, 2, 3)), {Address("n", 1): Status.REFUSED}, 3.0
    )
    survey = replace(survey, decision=decide(survey.views, evidence), memory=Memory(5, "before"))

    async def look() -> Survey:
        return survey

    scene.campaign._look = look
    master = scene.fail_over(survey)
    assert (master.group, master.epoch) == ("before", 6)
    assert scene[2].meta[b"group"] == b"before"


def test_the_epoch_is_above_the_one_we_remember() -> None:
    scene = Scene()
    survey = replace(scene.survey(), memory=Memory(20, "g"))
    assert scene.fail_over(survey).epoch == 21


def test_the_epoch_is_above_all_epochs_and_votes_seen() -> None:
    scene = Scene()
    scene[3].set(scene[3].vote_key, b"9")
    assert scene.fail_over().epoch == 10


def test_a_vote_that_came_meanwhile_is_outbid() -> None:
    scene = Scene()
    survey = scene.survey()
    scene[2].set(scene[2].vote_key, b"8")
    assert scene.fail_over(survey).epoch == 9
    assert scene.locked == []


def test_it_outbids_three_times_at_most() -> None:
    scene = Scene()
    node = scene[2]

    def outbid() -> None:
        node.set(node.vote_key, b"%d" % (int(node.get(node.vote_key) or 6) + 10))

    node.before["EVAL"] = outbid
    assert scene.fail_over() is None
    assert node.count("EVAL") == 3
    assert scene.masters == []


def test_taken_by_another_it_gives_way_at_once() -> None:
    scene = Scene()
    scene[2].set(scene[2].lock_key, b"another", LOCK_TIME)
    assert scene.fail_over() is None
    assert scene[3].log == []
    assert scene.masters == []
    assert scene.events == [LockNotGranted(at=0.0, epoch=6, reason="n:2: it is locked")]


def test_without_a_quorum_of_locks_nothing_happens() -> None:
    scene = Scene(4)
    for number in (3, 4, 5):
        scene[number].errors["EVAL"] = ResponseError("OOM")
    assert scene.fail_over() is None
    assert scene.masters == []
    assert scene.locked == scene.writable == []
    assert scene[2].count("EVAL") == 2  # taken and given back: it is no use to ask again


def test_it_looks_again_under_the_lock() -> None:
    scene = Scene()

    def somebody_was_faster() -> None:
        scene[3].follows = None
        scene[3].run_hset(META_KEY.encode(), b"epoch", b"7", b"run_id", b"run3")

    scene.before_look = somebody_was_faster
    assert scene.fail_over() is None
    assert scene.masters == [3]
    assert scene.locked == scene.writable == []
    assert scene.steps == ["lock", "look"]


def test_the_order_at_the_second_look_counts() -> None:
    scene = Scene()
    scene.before_look = lambda: scene[3]._view.update(offset=1000)
    assert scene.fail_over().address == Address("n", 3)


def test_who_could_not_be_locked_is_not_promoted() -> None:
    scene = Scene(4)
    scene[2].errors["EVAL"] = ResponseError("OOM")
    assert scene.fail_over().address == Address("n", 3)
    assert scene.masters == [3]


def test_nothing_is_done_with_a_lock_that_went() -> None:
    scene = Scene()
    scene[2].before["EXEC"] = lambda: scene[2].set(scene[2].lock_key, b"another")
    assert isinstance(scene.fail_over(), LockLost)
    assert scene.masters == []
    assert scene.served == []


def test_nothing_is_done_after_the_locks_life_by_our_own_clock() -> None:
    scene = Scene()

    def sleep() -> None:
        scene.clock.rightNow += LOCK_TIME  # this process was paused

    scene.before_look = sleep
    assert isinstance(scene.fail_over(), LockLost)
    assert "SLAVEOF NO ONE" not in scene[2].names()
    assert scene[2].count("WATCH") == 0


def test_a_winner_that_died_is_an_error() -> None:
    scene = Scene()
    scene[2].before["WATCH"] = scene[2].die
    assert isinstance(scene.fail_over(seconds=1.0), LinkLost)
    assert scene.served == []
    assert scene[3].count("SLAVEOF") == 0
    assert not scene[3].locked
    assert scene[3].settings[READ_ONLY] == b"yes"


@pytest.mark.parametrize("how", ["error", "silent", "died", "lock lost"])
def test_a_failing_redirect_does_not_stop_the_others(how: str) -> None:
    scene = Scene(4)
    node = scene[3]

    def fail() -> None:
        match how:
            case "error":
                node.errors["EXEC"] = ResponseError("ERR no")
            case "silent":
                node.silent = True
            case "died":
                node.die()
            case "lock lost":
                node.set(node.lock_key, b"another")

    node.before["WATCH"] = fail
    assert scene.fail_over(seconds=1.2).address == Address("n", 2)
    assert [scene[n].follows for n in (4, 5)] == [Address("n", 2)] * 2
    assert node.follows == Address("n", 1)
    assert scene.steps[-2:] == ["gossip 2", "release"]


def test_a_node_that_went_between_lock_and_look_does_not_stop_the_others() -> None:
    scene = Scene(4)
    scene.before_look = lambda: scene.silence(4)
    assert scene.fail_over(seconds=1.5).address == Address("n", 2)
    assert [scene[n].follows for n in (3, 5)] == [Address("n", 2)] * 2
    assert scene.steps[-1] == "release"


def test_a_node_whose_link_went_after_its_view_is_passed_over() -> None:
    scene = Scene(4)
    survey = scene.survey()
    controls = {a: c for a, c in survey.controls.items() if a.port != 3}
    assert scene.fail_over(replace(survey, controls=controls)).address == Address("n", 2)


def test_one_full_resync_at_a_time() -> None:
    scene = Scene(4)
    for number in (4, 5):
        scene[number]._view["replid"] = "b" * 40
    scene.fail_over()
    assert scene[3].follows == Address("n", 2)
    assert [scene[n].follows for n in (4, 5)].count(Address("n", 2)) == 1
    assert scene.locked == scene.writable == []


def test_a_demoted_master_loses_its_clients() -> None:
    scene = Scene(master=True)
    scene[1].run_id = "again"
    scene[1]._view["opcounter"] = 1
    scene[1]._view["offset"] = 1
    assert scene.fail_over().address == Address("n", 2)
    kills = [args[1:4] for args in scene[1].log if args[0] == b"CLIENT"]
    assert kills == [[b"KILL", b"TYPE", b"normal"], [b"KILL", b"TYPE", b"pubsub"]]
    assert scene[3].count("CLIENT") == 0


@pytest.mark.parametrize("epoch", [5, 0], ids=["one that followed it", "one that is new"])
def test_each_client_tells_what_a_demoted_master_had_alone(epoch: int) -> None:
    scene = Scene(master=True)
    scene[1].run_id = "again"  # it has restarted, with an older file
    scene[1]._view["opcounter"] = 1
    scene[1]._view["offset"] = 1
    survey = replace(scene.survey(), memory=Memory(epoch, "g" if epoch else ""))
    assert scene.fail_over(survey).address == Address("n", 2)
    told = [event for event in scene.events if isinstance(event, HistoryDiscarded)]
    assert [str(event.node) for event in told] == ["n:1"]


def test_strangers_are_neither_locked_nor_redirected() -> None:
    scene = Scene(4)
    scene[5].run_hset(META_KEY.encode(), b"group", b"h")
    scene[5]._view["replid"] = "b" * 40
    scene.fail_over()
    assert [args[0] for args in scene[5].log] == [b"PUBLISH"]


# Repairs


def test_a_repair_promotes_nobody() -> None:
    scene = Scene(master=True)
    scene[3].follows = Address("n", 2)
    assert scene.repair() is True
    assert scene[3].follows == Address("n", 1)
    assert scene.masters == [1]
    assert scene[1].meta[b"epoch"] == b"5"
    assert scene.served == []
    assert scene.locked == scene.writable == []


def test_a_repair_touches_only_what_deviates() -> None:
    scene = Scene(3, master=True)
    scene[3].follows = Address("n", 2)
    assert scene.repair() is True
    slaveofs = [scene[number].count("SLAVEOF") for number in (1, 2, 3, 4)]
    assert slaveofs == [0, 0, 1, 0]
    assert scene.writable == []


def test_a_repair_puts_right_what_the_second_look_finds() -> None:
    scene = Scene(3, master=True)
    scene[3].follows = Address("n", 2)

    def somebody_else_was_moved() -> None:
        scene[4].follows = Address("n", 2)

    scene.before_look = somebody_else_was_moved
    assert scene.repair() is True
    assert [scene[number].follows for number in (2, 3, 4)] == [Address("n", 1)] * 3


def test_a_repair_is_off_when_the_master_has_gone_meanwhile() -> None:
    scene = Scene(master=True)
    scene[3].follows = Address("n", 2)
    scene.before_look = lambda: scene.silence(1)
    assert scene.repair(seconds=0.5) is False
    assert scene[3].count("SLAVEOF") == 0
    assert scene.writable == []


def test_a_repair_that_is_done_already_does_no_harm() -> None:
    scene = Scene(master=True)
    survey = scene.survey()
    wanted = Follow(Address("n", 1), (Repair("redirect", Address("n", 3)),))
    scene.repair(replace(survey, decision=wanted))
    assert [scene[number].follows for number in (1, 2, 3)] == [None, *[Address("n", 1)] * 2]
    assert scene.locked == scene.writable == []


def test_a_writable_replica_is_made_read_only() -> None:
    scene = Scene(master=True)
    scene[3].settings[READ_ONLY] = b"no"
    scene.repair()  # to lock it was enough
    assert scene.writable == []
    assert scene.locked == []


def test_the_meta_of_a_ready_made_group_is_written() -> None:
    scene = Scene(master=True)
    for node in scene.nodes.values():
        node.keys.clear()

    def survey() -> Survey:
        views = {node.address: node.view() for node in scene.nodes.values()}
        addresses = tuple(views)
        evidence = Evidence(addresses, dict.fromkeys(addresses, Status.UP), 3.0)
        controls = {node.address: node.protocol for node in scene.nodes.values()}
        return Survey(views, decide(views, evidence), controls, 3, Memory(), evidence)

    async def look() -> Survey:
        return survey()

    scene.campaign._look = look
    assert scene.repair(survey()) is True
    assert scene[1].meta[b"epoch"] == b"1"
    assert scene[1].meta[b"run_id"] == b"run1"
    assert scene[1].meta[b"ping_period"] == b"1"
    assert scene[1].settings[PING_PERIOD] == b"1"
    assert scene[1].told == [b"n:1"]
    assert [scene[number].count("SLAVEOF") for number in (1, 2, 3)] == [0, 0, 0]
    assert scene.locked == scene.writable == []


def test_a_repair_gives_way() -> None:
    scene = Scene(master=True)
    scene[3].follows = Address("n", 2)
    scene[1].set(scene[1].lock_key, b"another")
    assert scene.repair() is False
    assert scene[3].follows == Address("n", 2)


def test_one_failing_repair_does_not_stop_the_others() -> None:
    scene = Scene(3, master=True)
    scene[2].follows = scene[3].follows = Address("n", 4)
    scene[2].errors["EXEC"] = ResponseError("ERR no")
    assert scene.repair() is True
    assert scene[3].follows == Address("n", 1)


# The credentials of replicas


def configured(scene: Scene, **settings: str) -> None:
    for node in scene.nodes.values():
        for name, value in {"masteruser": "", "masterauth": "", **settings}.items():
            node.settings[name.encode()] = value.encode()


def credentials(node: ScriptedNode) -> tuple[bytes, bytes]:
    return node.settings[b"masteruser"], node.settings[b"masterauth"]


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        ({}, {"masterauth": "old"}, ("", "old")),
        ({"password": "p"}, {}, ("", "p")),
        ({"password": "p"}, {"masterauth": "old"}, ("", "p")),
        ({"password": "p"}, {"masteruser": "default", "masterauth": "old"}, ("default", "p")),
        ({"password": "p"}, {"masteruser": "repl", "masterauth": "old"}, ("repl", "old")),
        ({"password": "p"}, {"masteruser": "repl"}, ("", "p")),
        ({"username": "u", "password": "p"}, {}, ("u", "p")),
        ({"username": "u", "password": "p"}, {"masterauth": "old"}, ("", "old")),
        (
            {"username": "u", "password": "p"},
            {"masteruser": "u", "masterauth": "old"},
            ("u", "p"),
        ),
        ({"password": "p", "passwords": {"n:2": "q", "n:3": "r"}}, {}, ("", "q")),
    ],
)
def test_a_replica_gets_the_credentials_for_its_master(
    options: dict[str, Any], before: dict[str, str], after: tuple[str, str]
) -> None:
    scene = Scene(**options)
    configured(scene, **before)
    assert scene.fail_over().address == Address("n", 2)
    assert credentials(scene[3]) == tuple(text.encode() for text in after)
    assert scene[3].follows == Address("n", 2)


def test_the_credentials_are_set_behind_the_fence_and_before_slaveof() -> None:
    scene = Scene(username="u", password="p")
    configured(scene)
    scene.fail_over()
    (names,) = [names for names, _ in scene[3].writes if "SLAVEOF n 2" in names]
    start = names.index("MULTI")
    user, auth = "CONFIG SET masteruser", "CONFIG SET masterauth"
    assert names[start : start + 4] == ["MULTI", user, auth, "SLAVEOF n 2"]


def test_the_credentials_of_who_may_not_replicate_are_given_to_nobody() -> None:
    scene = Scene(username="u", password="p")
    configured(scene)
    scene[3].errors["REPLCONF"] = ResponseError("NOPERM no")
    scene.fail_over()
    assert credentials(scene[3]) == (b"", b"")
    assert scene[3].follows == Address("n", 2)


def test_no_rights_to_lock_is_an_error() -> None:
    scene = Scene()
    for node in scene.nodes.values():
        node.errors["EVAL"] = ResponseError("NOPERM no")
    error = scene.fail_over()
    assert isinstance(error, ResponseError)
    assert str(error).startswith("NOPERM")
