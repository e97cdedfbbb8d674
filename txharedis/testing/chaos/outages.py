"""How long writes stood still for each client after each fault."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence

from txharedis.testing.chaos.accounts import Operation, Outcome
from txharedis.testing.chaos.scene import Strike

__all__ = ["outages"]


def outages(
    strikes: Sequence[Strike], clients: Iterable[tuple[str, Sequence[Operation]]]
) -> dict[str, list[float]]:
    """Seconds from each fault to the first acknowledgement of a write submitted after it.

    By the kind of fault, one for each client that was there before; those of clients that the fault
    itself stopped or cut off stand apart. `clients` are names and operations in their order.
    A client that was killed before it had an acknowledgement has no outage.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for name, operations in clients:
        writes = [each for each in operations if each.is_write]
        if not writes:
            continue
        submitted = [each.submitted for each in writes]
        first_answer = _first_answers(writes)
        for strike in strikes:
            if submitted[0] > strike.at:
                continue
            answered = first_answer[bisect_left(submitted, strike.at)]
            if answered is not None:
                kind = f"{strike.kind} (those hit)" if name in strike.cut else strike.kind
                found[kind].append(answered - strike.at)
    return dict(found)


def _first_answers(writes: Sequence[Operation]) -> list[float | None]:
    """For each write: the earliest acknowledgement of it and all after it; None behind the last."""
    earliest: list[float | None] = [None]
    for each in reversed(writes):
        known = earliest[-1]
        if each.outcome is Outcome.ACKNOWLEDGED and each.answered is not None:
            known = each.answered if known is None else min(known, each.answered)
        earliest.append(known)
    return earliest[::-1]
