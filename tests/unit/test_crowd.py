"""What a client does more slowly the more others there are, and how slowly at most."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from txharedis.crowd import Crowd

LOCK_TIME = 1.0
TIMES = 300


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def crowd(clock: Clock) -> Crowd:
    return Crowd(clock, LOCK_TIME)


@pytest.mark.parametrize(
    ("size", "longest"), [(1, 0.0), (2, 0.001), (50, 0.049), (101, 0.1), (10_000, 0.1)]
)
def test_the_stagger_grows_with_the_crowd_to_a_tenth_of_a_second(
    crowd: Crowd, size: int, longest: float
) -> None:
    crowd.size = size
    staggers = [crowd.stagger() for _ in range(TIMES)]
    assert 0.9 * longest <= max(staggers) <= longest
    assert min(staggers) <= 0.1 * longest


@pytest.mark.parametrize(
    ("late", "longest"), [(0.0, 0.0), (0.004, 0.0), (0.05, 0.05), (0.1, 0.1), (20.0, 0.1)]
)
def test_a_late_timer_holds_back_once_more_but_not_for_long(
    crowd: Crowd, late: float, longest: float
) -> None:
    assert 0.9 * longest <= max(crowd.again(late) for _ in range(TIMES)) <= longest


def test_who_has_heard_gossip_does_not_hold_back_for_the_life_of_a_lock(
    crowd: Crowd, clock: Clock
) -> None:
    crowd.size = 200
    crowd.hint()
    assert crowd.hinted
    assert crowd.stagger() == crowd.again(0.05) == 0.0
    clock.advance(LOCK_TIME)
    assert not crowd.hinted
    assert crowd.stagger() > 0.0
    crowd.hint()
    crowd.forget_hint()
    assert not crowd.hinted


@pytest.mark.parametrize(("size", "times"), [(1, 1.0), (20, 1.0), (50, 2.5), (200, 10), (999, 10)])
def test_each_waits_the_longer_the_more_there_are(crowd: Crowd, size: int, times: float) -> None:
    crowd.size = size
    waits = [crowd.between(0.1, 1.0) for _ in range(TIMES)]
    assert min(waits) >= 0.1
    assert 0.9 * times <= max(waits) <= times


@pytest.mark.parametrize("size", [1, 200])
def test_nobody_waits_beyond_the_life_of_a_lock(crowd: Crowd, clock: Clock, size: int) -> None:
    crowd.size = size
    clock.advance(100.0)
    for _ in range(TIMES):
        began, looks = clock.seconds(), 0
        while clock.seconds() < began + LOCK_TIME:
            wait = crowd.while_locked()
            assert wait > 0.0
            clock.advance(wait)
            looks += 1
        assert clock.seconds() <= began + LOCK_TIME + 0.03
        clock.advance(LOCK_TIME)  # and the next lock is another one
        assert looks <= 34
