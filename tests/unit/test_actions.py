"""What the monitor may be told to do, by whom, and what it answers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from txharedis import InvalidOption, NoMaster, SwitchoverFailed
from txharedis.election import Elect, Follow, Refuse, Wait
from txharedis.monitor.actions import MOST, Actions, Refusal, read_token
from txharedis.monitor.plans import failover_plan
from txharedis.orders import Plan
from txharedis.rehearsal import Rehearsal
from txharedis.topology import Address, NodeView, Role

TOKEN = "a-token-of-good-length"
A, B, C = (Address("n", port) for port in (1, 2, 3))
CANDIDATES = tuple(
    NodeView(node, "r", Role.REPLICA, epoch=3, opcounter=9, offset=70, priority=1)
    for node in (B, C)
)
ELECT = Elect(CANDIDATES, "n:1 is refused", "the highest offset")


class FakeRequest:
    def __init__(self, body: object = None, **headers: str | None) -> None:
        fields: dict[str, str | None] = {
            "authorization": f"Bearer {TOKEN}",
            "host": "localhost:8405",
            "content_type": "application/json",
        }
        fields.update(headers)
        self._headers = {
            name.replace("_", "-").encode(): value.encode()
            for name, value in fields.items()
            if value is not None
        }
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        self.content = io.BytesIO(raw)

    def getHeader(self, name: bytes) -> bytes | None:
        return self._headers.get(name)

    def getClientAddress(self) -> Any:
        return None


class FakeClient:
    def __init__(self) -> None:
        self.master: str | None = "n:1"
        self.asked: list[Any] = []
        self.outcome: Any = "n:2"
        self.rehearsal = Rehearsal(A, ELECT)
        self.ready: Deferred[Any] = Deferred()

    def switchover(self, to: str | None, timeout: float) -> Deferred[str]:
        self.asked.append((to, timeout))
        bad = isinstance(self.outcome, Exception)
        return fail(self.outcome) if bad else succeed(self.outcome)

    def rehearse_switchover(self, to: str | None) -> Deferred[Any]:
        if isinstance(self.outcome, Exception):
            return fail(self.outcome)
        return succeed(Plan(A, B, "the highest offset"))

    def rehearse(self) -> Deferred[Any]:
        return succeed(self.rehearsal)

    def when_ready(self) -> Deferred[Any]:
        return self.ready


class Scene:
    def __init__(self, token: str | None = TOKEN) -> None:
        self.clock = Clock()
        self.client = FakeClient()
        self.actions = Actions(self.clock, self.client, token)  # type: ignore[arg-type]
        self.outcome: Any = None

    def ask(self, what: str, body: object = None, **headers: str | None) -> Any:
        """The answer, or the Refusal, None while there is neither."""
        request = FakeRequest(body, **headers)
        done = Deferred.fromCoroutine(getattr(self.actions, what)(request))
        done.addBoth(self._note)
        return self.outcome

    def _note(self, outcome: Any) -> None:
        self.outcome = getattr(outcome, "value", outcome)


WHATS = ("switchover", "failover")


@pytest.mark.parametrize("what", WHATS)
def test_without_a_token_it_is_off(what: str) -> None:
    scene = Scene(token=None)
    refusal = scene.ask(what, {"dry_run": True})
    assert isinstance(refusal, Refusal)
    assert refusal.code == 403
    assert "--token-file" in refusal.why
    assert scene.client.asked == []


@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"authorization": None}, 401),
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"authorization": "Bearer \xff\xff"}, 401),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:8406"}, 403),
        ({"origin": "http://localhost:8405", "host": None}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
    ],
)
def test_who_may_not_is_told_and_nothing_is_done(
    what: str, headers: dict[str, str | None], code: int
) -> None:
    scene = Scene()
    refusal = scene.ask(what, None, **headers)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert TOKEN not in refusal.why
    assert scene.client.asked == []
    assert ("WWW-Authenticate" in refusal.headers) == (code == 401)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:8405"},
        {"origin": "https://LOCALHOST:8405"},
        {"authorization": f"bearer  {TOKEN} "},
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"content_type": None},
    ],
)
def test_who_may(headers: dict[str, str | None]) -> None:
    scene = Scene()
    answer = scene.ask("switchover", None, **headers)
    assert answer == {"result": "switched over", "old": "n:1", "new": "n:2"}
    assert scene.client.asked == [(None, 10.0)]


@pytest.mark.parametrize(
    ("body", "code", "why"),
    [
        (b"{", 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b"[" * MOST, 400, ""),
        (b"[]", 400, "object"),
        (b" " * (MOST + 1), 413, str(MOST)),
        ({"too": "n:2"}, 400, "too"),
        ({"to": 7}, 400, "to"),
        ({"to": ["n:2"]}, 400, "to"),
        ({"to": "n:2\nand a line of its own"}, 400, "to"),
        ({"to": "n" * 300}, 400, "to"),
        ({"timeout": 0}, 400, "timeout=0"),
        ({"timeout": "soon"}, 400, "timeout='soon'"),
        ({"timeout": True}, 400, "timeout"),
        ({"timeout": 301}, 400, "300"),
        ({"timeout": float("nan")}, 400, "timeout"),
        ({"timeout": 1e400}, 400, "timeout"),
        ({"dry_run": 1}, 400, "dry_run"),
        ({"dry_run": "false"}, 400, "dry_run"),
    ],
)
@pytest.mark.parametrize("what", WHATS)
def test_a_bad_order_is_refused_by_name(what: str, body: object, code: int, why: str) -> None:
    scene = Scene()
    refusal = scene.ask(what, body)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert why in refusal.why
    assert scene.client.asked == []


def test_another_kind_of_body_is_refused() -> None:
    refusal = Scene().ask("switchover", b"to=n:2", content_type="application/x-www-form-urlencoded")
    assert refusal.code == 415


def test_an_order_is_carried_out_as_given() -> None:
    scene = Scene()
    scene.ask("switchover", {"to": "n:2", "timeout": 2.5}, content_type="application/json; q=1")
    assert scene.client.asked == [("n:2", 2.5)]


def test_a_dry_run_says_whom_and_does_nothing() -> None:
    scene = Scene()
    assert scene.ask("switchover", {"dry_run": True}) == {
        "master": "n:1",
        "would": "switch over",
        "winner": "n:2",
        "why": "the highest offset",
    }
    plan = scene.ask("failover", {"dry_run": True})
    assert plan["would"] == "elect"
    assert (plan["master"], plan["winner"]) == ("n:1", "n:2")
    assert plan["why"] == "the highest offset"
    assert [candidate["node"] for candidate in plan["candidates"]] == ["n:2", "n:3"]
    assert scene.client.asked == []


@pytest.mark.parametrize(
    ("error", "code", "executed"),
    [
        (SwitchoverFailed("n:1 is the master already"), 409, False),
        (SwitchoverFailed("it was begun", None), 409, None),
        (InvalidOption("to=x is not one of the nodes"), 400, False),
        (NoMaster("no master within 1 s"), 503, False),
    ],
)
def test_what_went_wrong_is_said(error: Any, code: int, executed: bool | None) -> None:
    scene = Scene()
    scene.client.outcome = error
    refusal = scene.ask("switchover")
    assert (refusal.code, refusal.why, refusal.executed) == (code, str(error), executed)


def test_a_failover_waits_for_a_master() -> None:
    scene = Scene()
    scene.client.master = None
    scene.client.rehearsal = Rehearsal(None, ELECT)
    assert scene.ask("failover") is None
    scene.client.master = "n:2"
    scene.client.ready.callback(None)
    assert scene.outcome == {"result": "elected", "new": "n:2", "reason": "n:1 is refused"}


def test_a_failover_in_which_nobody_was_elected_says_why() -> None:
    scene = Scene()
    scene.client.master = None
    scene.client.rehearsal = Rehearsal(None, Wait("1 of 3 nodes answer: that is no quorum"))
    assert scene.ask("failover", {"timeout": 2}) is None
    scene.clock.advance(2.0)
    assert (scene.outcome.code, scene.outcome.executed) == (503, False)
    assert "that is no quorum" in scene.outcome.why
    assert "2.0 s" in scene.outcome.why


def test_a_failover_refuses_where_a_master_lives_and_takes_no_names() -> None:
    scene = Scene()
    refusal = scene.ask("failover")
    assert refusal.code == 409
    assert "n:1" in refusal.why
    assert "/switchover" in refusal.why
    assert scene.ask("failover", {"to": "n:2"}).code == 400


@pytest.mark.parametrize(
    ("decision", "would"),
    [(Follow(A), "follow"), (Wait("w"), "wait"), (Refuse("r"), "refuse")],
)
def test_a_plan_without_a_winner(decision: Any, would: str) -> None:
    plan = failover_plan(Rehearsal(None, decision))
    assert (plan["master"], plan["would"], plan["winner"]) == (None, would, None)
    assert plan["reason"] == getattr(decision, "reason", "")


def test_a_plan_without_a_name_says_why() -> None:
    plan = failover_plan(Rehearsal(A, Elect((), "our user may not read haredis:meta on n:2")))
    assert (plan["would"], plan["winner"], plan["candidates"]) == ("elect", None, [])
    assert plan["reason"] == "our user may not read haredis:meta on n:2"


def test_the_token_is_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\r\nsomething else\n")
    assert read_token(str(file)) == TOKEN


@pytest.mark.parametrize("text", ["", "\n" + TOKEN, "short", "with a space in it all", "é" * 20])
def test_a_token_that_is_no_secret_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidOption, match="--token-file") as caught:
        read_token(str(file))
    assert not text.strip() or text.strip() not in str(caught.value)


def test_a_token_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="nowhere"):
        read_token(str(tmp_path / "nowhere"))


def test_orders_without_the_token_are_told_of_once_a_minute() -> None:
    scene = Scene()
    lines: list[str] = []
    globalLogPublisher.addObserver(observe := lambda event: lines.append(formatEvent(event)))
    try:
        for _ in range(5):
            scene.ask("switchover", authorization=None)
            scene.clock.advance(20.0)
        scene.client.outcome = SwitchoverFailed("no:\x1b[31m")
        scene.ask("switchover")
    finally:
        globalLogPublisher.removeObserver(observe)
    assert lines == [
        "somebody gave orders without the token",
        "somebody gave orders without the token",
        "somebody asks for a switchover to the best replica",
        "what somebody asks for is not done: no:?[31m",
    ]
