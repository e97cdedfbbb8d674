"""Faults on real servers and clients under load: nothing lost, nothing twice, nothing left.

What happens is drawn by lot, from a seed that a failure names; `python -m benchmarks chaos` plays
the same for longer.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from txharedis.options import DELIVERIES
from txharedis.testing.chaos.history import History, NotHealed, Settings, play
from txharedis.testing.servers import ServerProgram, find_programs

on_reactor = pytest_twisted.ensureDeferred

SECONDS = 60.0
"""Of faults, in all that demand that nothing is lost."""

EXACTLY_ONCE = "exactly-once"
QUICK = Settings().options

KNOWN = {"OutcomeUnknown", "NotReplicated"}
"""How commands may fail: without `command_timeout` all others wait for the next master."""


def assert_orderly(history: History) -> None:
    """Whatever was lost: all fired, as they should, one promotion an epoch, and nothing is left."""
    figures = history.verdict.figures()
    shown = "\n".join([f"seed {history.settings.seed}", *history.verdict.findings])
    assert history.complaints == []
    assert history.left == []
    assert history.contested == []
    assert history.promoted <= history.epoch
    assert history.errors.keys() <= KNOWN
    assert history.strikes
    assert figures["acknowledged"] > 100
    assert (figures["duplicated"], figures["wrong"]) == (0, 0), shown
    assert figures["disordered"] == 0, shown


# A write survives when 1 + acks + quorum are more than all nodes.
@pytest.mark.skipif(EXACTLY_ONCE not in DELIVERIES, reason="there is no such delivery")
@pytest.mark.parametrize(("nodes", "acks"), [(3, 1), (5, 2)])
@on_reactor
async def test_nothing_is_lost_and_nothing_comes_twice(
    reactor: Any, server_program: ServerProgram, nodes: int, acks: int
) -> None:
    settings = Settings(
        seconds=SECONDS / 2 / len(find_programs()),
        nodes=nodes,
        seed=nodes,
        options={**QUICK, "delivery": EXACTLY_ONCE, "acks": acks},
    )
    history = await play(reactor, server_program, settings)
    assert_orderly(history)
    verdict = history.verdict
    assert (verdict.lost, verdict.stale, verdict.late) == (0, 0, 0), "\n".join(verdict.findings)


@on_reactor
async def test_without_confirmation_nothing_comes_twice_and_all_is_answered(
    reactor: Any, server_program: ServerProgram
) -> None:
    options = {**QUICK, "delivery": DELIVERIES[0]}
    settings = Settings(seconds=5.0, seed=1, options=options)
    assert_orderly(await play(reactor, server_program, settings))


@on_reactor
async def test_what_comes_twice_is_noticed(reactor: Any, server_program: ServerProgram) -> None:
    options = {**QUICK, "delivery": "at-least-once"}
    settings = Settings(seconds=2.0, faults=("replies-dropped",), options=options)
    history = await play(reactor, server_program, settings)
    assert {strike.kind for strike in history.strikes} == {"replies dropped"}
    found = {finding.split()[0] for finding in history.verdict.findings}
    assert found == {"duplicated"}
    assert history.verdict.duplicated > 0


@on_reactor
async def test_history_that_does_not_heal_says_how_everybody_stood(
    reactor: Any, server_program: ServerProgram
) -> None:
    # Nobody may elect: there is no first master.
    settings = Settings(seconds=1.0, patience=2.0, options={**QUICK, "elect": False})
    with pytest.raises(NotHealed) as raised:
        await play(reactor, server_program, settings)
    text = str(raised.value)
    assert "not within 2.0 s: one master, and all others replicate it" in text
    assert text.count("role master") == 3
    assert "p1" in text
    assert "commands unanswered; its log ends:" in text
