"""Seating: where the subscriptions are, and that they stay complete there.

They are on a replica when there is one, and are moved when that node goes away, becomes the master,
or does not pass on what is published on the master.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from txharedis.errors import AccessDenied, HARedisError, LinkLost
from txharedis.events import SubscriptionGap
from txharedis.interfaces import Reactor, Timer
from txharedis.log import ClientLog
from txharedis.options import Options
from txharedis.protocol import NodeProtocol
from txharedis.pubsub.channels import MARKERS, ChannelBook, Kind, Name
from txharedis.pubsub.continuity import Continuity
from txharedis.pubsub.handover import Handover
from txharedis.pubsub.places import Places
from txharedis.pubsub.resyncs import Standpoint, reaches_back
from txharedis.pubsub.seat import Seat
from txharedis.replies import missing_right
from txharedis.topology import Address, parse_info

__all__ = ["Seating"]

_HANDOVER_TIME = 1.0
"""Seconds that a marker may take to come over both links."""
_AVOIDED = 1.0
"""Seconds for which a node that failed is not chosen when there is another."""
_AVOIDED_LONG = 10.0
"""The same for one that is there, but of no use."""
_CATCH_UP = 0.25
"""Seconds between markers while a gap is open."""


class Seating:
    """The seat of what the book wants; while they move, two.

    `gap` takes each gap when it has ended, `denied` the error when a node will not have the link.
    The others are those of Subscriptions.
    """

    def __init__(
        self,
        reactor: Reactor,
        options: Options,
        log: ClientLog,
        book: ChannelBook,
        places: Places,
        *,
        gap: Callable[[SubscriptionGap], object],
        denied: Callable[[HARedisError], object],
        in_use: Callable[[], bool],
        link_of: Callable[[Address], NodeProtocol | None],
        is_up: Callable[[Address], bool],
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._log = log
        self._book = book
        self._places = places
        self._gap = gap
        self._denied = denied
        self._in_use = in_use
        self._link_of = link_of
        self._is_up = is_up
        marker = MARKERS + secrets.token_hex(8).encode()
        self._continuity = Continuity(reactor, marker, self._resynced, self._go_without_marks)
        self._markless = False  # the servers do not let us publish or hear markers
        self._incarnation = ""
        self._seat: Seat | None = None
        self._handover: Handover | None = None
        self._missing: dict[Name, float] = {}  # refused though wanted, since when
        self._closed = False
        self._closing: dict[Deferred[Any], None] = {}
        self._timer: Timer | None = None
        self._due = 0.0
        self._awake_since = 0.0

    def __repr__(self) -> str:
        return "nowhere" if self._seat is None else f"on {self._seat.address}"

    def is_on(self, name: Name) -> bool:
        """Whether its messages are delivered."""
        return self._seat is not None and self._seat.delivers and name in self._seat.on

    def is_asked(self, name: Name) -> bool:
        """Whether a server was asked for it."""
        return self._seat is not None and self._seat.asks(name)

    # What the owner tells.

    def follow(self, master: Address, incarnation: str) -> None:
        if self._incarnation not in ("", incarnation):
            # What the old one acknowledged in its last moments may never have reached a replica.
            self._continuity.open_gap()
            if self._handover is not None:
                self._give_up_moving()  # its marker is in the stream of the old master
        self._places.master, self._incarnation = master, incarnation
        self.settle()
        self._mark()

    def forsake(self, node: Address) -> None:
        for seat in self._seats():
            if seat.address == node:
                seat.abort()

    def redial_now(self, node: Address) -> None:
        self._places.forgive(node)
        for seat in self._seats():
            if seat.address == node:
                seat.redial_now()

    def close(self) -> Deferred[Any]:
        """Fires when the links are gone."""
        self._closed = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._leave_seats()
        return gatherResults(list(self._closing))

    # Where the channels are.

    def settle(self) -> None:
        """Be on the node that is best now, and ask it for what is wanted now."""
        if self._closed or self._places.master is None:
            return
        self._missing = {name: at for name, at in self._missing.items() if name in self._book.names}
        if not self._book.names:
            self._wind_up()
            return
        if self._handover is not None:
            return  # both seats have what was wanted when it began; the rest has to wait
        seat = self._seat
        best = self._places.choose(
            None if seat is None else seat.address, seat is not None and seat.link is not None
        )
        if best is None:
            return
        self._keep_beating()
        if seat is None:
            self._take(best)
        elif best == seat.address:
            seat.sync()
        elif seat.link is None:
            self._leave(seat)
            self._take(best)
        else:
            seat.sync()
            self._move(seat, best)
        self._free_leavers()

    def _take(self, node: Address) -> None:
        seat = self._seat = self._make_seat(node)
        if self._continuity.since is None or self._markless:
            seat.deliver()  # nothing was delivered before that could come again
        seat.open()

    def _move(self, old: Seat, node: Address) -> None:
        new = self._make_seat(node)
        handover = self._handover = Handover(self._reactor, old, new)
        self._log.step("moving subscriptions from {old} to {new}", old=old.address, new=node)
        handover.watch(self._options.connect_timeout + _HANDOVER_TIME, self._handover_late)
        new.open()

    def _make_seat(self, node: Address) -> Seat:
        marker = self._continuity.marker
        return Seat(self._reactor, node, self._options, self._book, marker, self, self._is_up)

    def _settle_soon(self) -> None:
        """When those who have called are done."""
        self._reactor.callLater(0, self.settle)

    def _seats(self) -> list[Seat]:
        seats = [] if self._seat is None else [self._seat]
        return seats if self._handover is None else [*seats, self._handover.new]

    def _leave(self, seat: Seat) -> None:
        closed = seat.close()
        self._closing[closed] = None
        closed.addCallback(lambda _: self._closing.pop(closed, None))

    def _leave_seats(self) -> None:
        for seat in self._seats():
            self._leave(seat)
        if self._handover is not None:
            self._handover.stop()
        self._seat = self._handover = None

    def _wind_up(self) -> None:
        """Nobody wants anything any more: leave when the server has confirmed so."""
        if self._handover is not None:
            self._give_up_moving()
        if self._seat is not None:
            self._seat.sync()
            if self._seat.link is None or self._seat.idle:
                self._leave_seats()
                self._continuity.forget()
        self._free_leavers()

    def _free_leavers(self) -> None:
        """Nobody waits for what no server was asked to leave."""
        self._book.leave_all_but(self._seat.leaving if self._seat is not None else set())

    # What the seats tell.

    def seat_confirmed(self, seat: Seat, name: Name) -> None:
        if seat is self._seat and seat.delivers:
            self._continuity.begin()
            self._book.confirm(name)
        if seat is self._seat and name in self._missing:
            self._continuity.open_gap(self._missing.pop(name))

    def seat_left(self, seat: Seat, name: Name) -> None:
        if seat is self._seat:
            self._book.left(name)

    def seat_refused(self, seat: Seat, name: Name, error: Exception) -> None:
        if name == (Kind.CHANNEL, self._continuity.marker) and missing_right(str(error)):
            self._go_without_marks(error)
        elif self._handover is not None and seat is self._handover.new:
            self._log.once(f"{seat.address} refuses {name[1]!r}: {error}", loud=True)
            self._places.avoid(seat.address, _AVOIDED_LONG)
            self._give_up_moving()
        elif not self._book.refuse(name, error):
            # It was there before. It is asked for again each heartbeat.
            self._log.once(f"{seat.address} refuses {name[1]!r}: {error}", loud=True)
            self._missing.setdefault(name, self._continuity.since or self._reactor.seconds())

    def seat_answered(self, seat: Seat) -> None:
        if self._handover is not None and seat is self._handover.new:
            self._hand_over(self._handover)
        elif seat is self._seat:
            if not self._book.names:
                self._settle_soon()
            elif self._markless:
                self._caught_up(seat)
            elif (
                not (seat.delivers and self._continuity.begun)
                or self._continuity.gap_since is not None
            ):
                self._mark()

    def seat_denied(self, seat: Seat, error: Exception) -> None:
        self._log.once(f"{seat.address} denies us: {error}", loud=True)
        if seat is self._seat and missing_right(str(error)):
            self._denied(AccessDenied(f"{seat.address} denies us: {error}"))

    def seat_lost(self, seat: Seat) -> None:
        self._places.avoid(seat.address, _AVOIDED)
        handover = self._handover
        if handover is not None and seat is handover.new:
            self._give_up_moving()
            return
        if seat is not self._seat:
            return
        self._continuity.open_gap()
        if self._continuity.since is not None:
            seat.drop()
        if handover is not None:
            self._inherit(handover)
        else:
            # Not from inside the link's end: its factory has yet to decide what it does.
            self._settle_soon()
        self._free_leavers()

    def seat_marked(self, seat: Seat, number: int) -> None:
        if self._markless and seat is self._seat:
            self._markless = False
            self._log.info("subscriptions work with markers now")
        handover = self._handover
        over = handover is not None and handover.saw(seat, number)
        if seat is self._seat and self._continuity.came(number):
            self._caught_up(seat)
        if over and handover is not None:
            self._finish(handover)

    # The handover.

    def _hand_over(self, handover: Handover) -> None:
        """The new seat has everything: part the messages."""
        if handover.number is not None:
            return
        if self._markless:
            self._finish(handover)
            return
        handover.sent = self._reactor.seconds()
        handover.number = self._mark()
        if handover.number is None:  # there is no master just now
            self._places.avoid(handover.new.address, _AVOIDED)
            self._give_up_moving()
        else:
            handover.watch(_HANDOVER_TIME, self._handover_late)

    def _handover_late(self) -> None:
        handover = self._handover
        assert handover is not None
        if handover.new_done:
            self._finish(handover)
        else:
            self._places.avoid(handover.new.address, 3 * _AVOIDED)
            self._give_up_moving()

    def _give_up_moving(self) -> None:
        """Stay on the old seat, which goes on as if nothing had happened."""
        handover, self._handover = self._handover, None
        assert handover is not None
        handover.stop()
        self._leave(handover.new)
        if handover.old_done:
            handover.old.deliver()
        self._settle_soon()

    def _finish(self, handover: Handover) -> None:
        """Go on from the new seat."""
        if not handover.old_done:
            # Nobody knows what it would have shown before the marker.
            self._continuity.open_gap()
        self._inherit(handover)

    def _inherit(self, handover: Handover) -> None:
        """The old seat is gone, or not needed any more."""
        handover.stop()
        self._handover = None
        self._leave(handover.old)
        new = self._seat = handover.new
        self._log.info("subscriptions are on {node} now", node=new.address)
        if self._markless:
            self._caught_up(new)
        elif handover.new_done:
            # After this marker the old one has delivered nothing.
            self._continuity.carry_on(new.marked, handover.sent)
            self._caught_up(new)
        elif handover.number is not None:
            self._continuity.carry_on(handover.number - 1)
            self._continuity.is_enough(handover.number)
        self._settle_soon()

    # The proof that everything comes.

    def _mark(self) -> int | None:
        """Publish a marker on the master; returns its number, None when nobody could see it."""
        seat, master = self._seat, self._places.master
        link = self._link_of(master) if master is not None and self._in_use() else None
        if link is None or seat is None or not seat.hears_markers:
            return None
        return self._continuity.send(link, self._incarnation, self._options.patience)

    def _resynced(self, before: Standpoint) -> None:
        """Some replica had a full resync: was it ours?"""
        seat = self._seat
        if seat is None or seat.address == self._places.master or seat.ready_at > before.sent:
            return

        def told(replies: list[object]) -> None:
            info = parse_info(replies[0]) if isinstance(replies[0], bytes) else {}
            if seat is self._seat and not reaches_back(info, before):
                self._log.step("{node} had a full resync", node=seat.address)
                self._continuity.open_gap(before.sent)

        def unknown(failure: Failure) -> None:
            failure.trap(LinkLost)
            if seat is self._seat:
                self._continuity.open_gap(before.sent)

        link = self._link_of(seat.address)
        if link is None:
            self._continuity.open_gap(before.sent)
        else:
            link.exchange(["INFO", "replication"]).addCallbacks(told, unknown)

    def _go_without_marks(self, error: Exception) -> None:
        """Do what can be done with the links alone."""
        if self._markless or self._closed:
            return
        self._markless = True
        self._log.error(
            "subscriptions work without markers (channels {marker}*), and may miss messages "
            "unnoticed: {error}",
            marker=MARKERS.decode(),
            error=str(error),
        )
        if self._handover is not None and self._handover.number is not None:
            self._finish(self._handover)
        elif self._seat is not None and self._seat.link is not None:
            self._caught_up(self._seat)

    def _caught_up(self, seat: Seat) -> None:
        """From here on the seat delivers all; a gap ends here."""
        now = self._reactor.seconds()
        if self._markless:
            self._continuity.restart(now)
        since = self._continuity.close_gap()
        if since is not None:
            self._log.info("messages of {seconds:.2f} s may have been missed", seconds=now - since)
            self._gap(SubscriptionGap(at=now, since=since, until=now))
        if self._handover is not None and self._handover.old_done:
            return  # the new seat goes on from here
        if not seat.delivers and not self._closed and seat is self._seat:
            seat.deliver()
            for name in list(seat.on):
                self._book.confirm(name)

    # Heartbeat.

    def _keep_beating(self) -> None:
        if self._timer is None:
            self._awake_since = self._reactor.seconds()
            self._schedule()

    def _schedule(self) -> None:
        delay = self._options.heartbeat * random.uniform(0.9, 1.1)
        if self._continuity.gap_since is not None:
            delay = min(delay, _CATCH_UP)
        self._due = self._reactor.seconds() + delay
        self._timer = self._reactor.callLater(delay, self._beat)

    def _beat(self) -> None:
        now = self._reactor.seconds()
        if now - self._due > self._options.heartbeat:
            self._awake_since = now  # it was this process that slept
        if not self._book.names and self._seat is None:
            self._timer = None
            return
        seat = self._seat
        if seat is not None and seat.link is not None:
            silent = now - max(seat.last_heard, self._awake_since)
            if silent >= self._options.down_after:
                self._log.warn(
                    "{node}: no word on the subscriber link for {silent:.1f} s",
                    node=seat.address,
                    silent=silent,
                )
                seat.abort()
            else:
                seat.ping()
                self._mark()
                if self._markless and seat.delivers:
                    self._continuity.restart(seat.last_heard)
                if seat.refused and self._handover is None:
                    seat.retry()
                self._notice_stale(seat, now)
        self.settle()
        if not self._closed:
            self._schedule()

    def _notice_stale(self, seat: Seat, now: float) -> None:
        """The server answers, but what is published on the master does not come."""
        overdue = min(
            self._continuity.overdue(now),
            now - max(seat.ready_at, seat.last_message, self._awake_since),
        )
        if overdue >= self._options.down_after and not self._places.is_avoided(seat.address):
            self._log.warn(
                "{node} has passed no messages on for {overdue:.1f} s",
                node=seat.address,
                overdue=overdue,
            )
            self._places.avoid(seat.address, _AVOIDED_LONG)
