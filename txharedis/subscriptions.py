"""Subscriptions: the user's channels, on the one node that is best for them.

They live on a replica when there is one, on a link of their own, and are moved when that node goes
away, becomes the master or falls behind.

Whether messages arrive is not taken on trust: each heartbeat a marker is published on the master,
on a channel that only this client listens to. When it has come back over the link, everything
that was published before it has come too, since PUBLISH reaches the replicas in the order of the
replication stream. A gap therefore begins with the newest marker that came back, and ends with
the first one after it.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from txharedis.channels import MARKERS, ChannelBook, Kind, Name, OnGap, OnMessage
from txharedis.errors import AccessDenied, HARedisError, LinkLost, ServiceStopped
from txharedis.events import Event, SubscriptionGap
from txharedis.handover import Handover
from txharedis.interfaces import Reactor, Timer
from txharedis.log import ClientLog
from txharedis.options import Options
from txharedis.protocol import NodeProtocol
from txharedis.replies import missing_right
from txharedis.resyncs import Standpoint, reaches_back, resynced
from txharedis.seat import Seat
from txharedis.streams import MessageStream
from txharedis.topology import Address, parse_info

__all__ = ["Subscriptions"]

_HANDOVER_TIME = 1.0
"""Seconds that a marker may take to come over both links."""
_GRACE = 2.0
"""Seconds for which a replica may be without its master, or follow another, before it is left."""
_AVOIDED = 1.0
"""Seconds for which a node that failed is not chosen when there is another."""
_CATCH_UP = 0.25
"""Seconds between markers while a gap is open."""


class Subscriptions:
    """The channels of one client.

    `in_use()` tells whether commands go to the master at the moment, `link_of` gives the control
    link of a node, None while there is none, and `is_up` tells whether a node is there. The owner
    tells what it finds: `follow`, `place`, `forsake`, `redial_now`, `refuse`. `emit` takes the
    events.
    """

    def __init__(
        self,
        reactor: Reactor,
        options: Options,
        log: ClientLog,
        emit: Callable[[Event], object],
        in_use: Callable[[], bool],
        link_of: Callable[[Address], NodeProtocol | None],
        is_up: Callable[[Address], bool],
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._log = log
        self._emit = emit
        self._in_use = in_use
        self._link_of = link_of
        self._is_up = is_up
        self._book = ChannelBook(options, log, self._changed)
        self._marker = MARKERS + secrets.token_hex(8).encode()
        self._master: Address | None = None
        self._incarnation = ""
        self._replicas: tuple[Address, ...] = ()
        self._seat: Seat | None = None
        self._handover: Handover | None = None
        self._closing: set[Deferred[Any]] = set()
        self._avoided: dict[Address, float] = {}  # until when
        self._astray_since: float | None = None
        self._number = 0  # of the newest marker
        self._marks: dict[int, float] = {}  # those that have not come back, when they were sent
        self._markless = False  # the servers do not let us publish or hear markers
        self._standpoint: Standpoint | None = None
        self._proved: float | None = None  # all of before has come; None before the first link
        self._gap_since: float | None = None
        self._gap_mark = 0  # the first marker that ends it
        self._timer: Timer | None = None
        self._due = 0.0
        self._awake_since = 0.0
        self._changed_call: Timer | None = None
        self._verdict: HARedisError | None = None
        self._streams: set[MessageStream] = set()

    def __repr__(self) -> str:
        place = "nowhere" if self._seat is None else f"on {self._seat.address}"
        return f"<Subscriptions {len(self._book.names)} {place}>"

    # What the client asks for.

    def subscribe(
        self, channels: Any, on_message: OnMessage, on_gap: OnGap | None = None
    ) -> Deferred[list[Any]]:
        return self._add(Kind.CHANNEL, channels, on_message, on_gap)

    def psubscribe(
        self, patterns: Any, on_message: OnMessage, on_gap: OnGap | None = None
    ) -> Deferred[list[Any]]:
        return self._add(Kind.PATTERN, patterns, on_message, on_gap)

    def ssubscribe(
        self, channels: Any, on_message: OnMessage, on_gap: OnGap | None = None
    ) -> Deferred[list[Any]]:
        return self._add(Kind.SHARD, channels, on_message, on_gap)

    def unsubscribe(
        self, channels: Any = None, on_message: OnMessage | None = None
    ) -> Deferred[list[Any]]:
        return self._book.remove(Kind.CHANNEL, channels, on_message, self._is_asked)

    def punsubscribe(
        self, patterns: Any = None, on_message: OnMessage | None = None
    ) -> Deferred[list[Any]]:
        return self._book.remove(Kind.PATTERN, patterns, on_message, self._is_asked)

    def sunsubscribe(
        self, channels: Any = None, on_message: OnMessage | None = None
    ) -> Deferred[list[Any]]:
        return self._book.remove(Kind.SHARD, channels, on_message, self._is_asked)

    def messages(
        self, names: tuple[str | bytes, ...], buffer: int, on_gap: OnGap | None
    ) -> MessageStream:
        return MessageStream(self, names, buffer, on_gap)

    def join(self, stream: MessageStream) -> None:
        """A stream is told when the client stops."""
        self._streams.add(stream)

    def part(self, stream: MessageStream) -> None:
        self._streams.discard(stream)

    def _add(
        self, kind: Kind, channels: Any, on_message: OnMessage, on_gap: OnGap | None
    ) -> Deferred[list[Any]]:
        request = self._book.add(kind, channels, on_message, on_gap, self._is_on)
        if self._verdict is not None:
            self._fail_waiting(self._verdict)
        return request

    def _is_on(self, name: Name) -> bool:
        return self._seat is not None and self._seat.delivers and name in self._seat.on

    def _is_asked(self, name: Name) -> bool:
        return self._seat is not None and self._seat.asks(name)

    def _changed(self) -> None:
        """Once a reactor turn, so that what is asked for together leaves together."""
        if self._changed_call is None and not self._stopped and self._master is not None:
            self._changed_call = self._reactor.callLater(0, self._changed_now)

    def _changed_now(self) -> None:
        self._changed_call = None
        self._settle()

    # What the owner tells.

    def follow(self, master: Address, incarnation: str) -> None:
        """Commands go to this master from here on; `incarnation` is its run_id."""
        if self._stopped:
            return
        if self._incarnation not in ("", incarnation):
            # What the old one acknowledged in its last moments may never have reached a replica.
            self._open_gap()
            # Who follows the new one already is told by the next survey.
            self._replicas = ()
        self._master, self._incarnation = master, incarnation
        self._settle()
        self._mark()

    def place(self, replicas: Iterable[Address]) -> None:
        """These replicas are up, linked to the master and not syncing."""
        self._replicas = tuple(replicas)
        if self._master is not None:
            self._settle()

    def forsake(self, node: Address) -> None:
        """This node is down: do not wait for the link to say so."""
        for seat in self._seats():
            if seat.address == node:
                seat.abort()

    def redial_now(self, node: Address) -> None:
        """This node is back."""
        self._avoided.pop(node, None)
        for seat in self._seats():
            if seat.address == node:
                seat.redial_now()

    def refuse(self, verdict: HARedisError | None) -> None:
        """Fail those who wait for a first confirmation, now and later; None takes it back."""
        if not self._stopped:
            self._verdict = verdict
            if verdict is not None:
                self._fail_waiting(verdict)

    def close(self) -> Deferred[Any]:
        """Fail all who wait with ServiceStopped; fires when the links are gone."""
        self._verdict = ServiceStopped("the service was stopped")
        self._book.stop(lambda: ServiceStopped("the service was stopped"))
        for stream in list(self._streams):
            stream.fail(ServiceStopped("the service was stopped"))
        for timer in (self._timer, self._changed_call):
            if timer is not None and timer.active():
                timer.cancel()
        self._leave_seats()
        return gatherResults(list(self._closing))

    @property
    def _stopped(self) -> bool:
        return isinstance(self._verdict, ServiceStopped)

    def _fail_waiting(self, verdict: HARedisError) -> None:
        for request in self._book.waiting:
            self._book.fail(request, type(verdict)(*verdict.args))

    # Where the channels are.

    def _settle(self) -> None:
        """Be on the node that is best now, and ask it for what is wanted now."""
        if self._stopped:
            return
        if not self._book.names:
            self._wind_up()
            return
        if self._handover is not None:
            return  # both seats have what was wanted when it began; the rest has to wait
        best = self._choose()
        if best is None:
            return
        self._keep_beating()
        seat = self._seat
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
        if self._proved is None or self._markless:
            seat.deliver()  # nothing was delivered before that could come again
        seat.open()

    def _move(self, old: Seat, node: Address) -> None:
        new = self._make_seat(node)
        handover = self._handover = Handover(self._reactor, old, new)
        self._log.step("moving subscriptions from {old} to {new}", old=old.address, new=node)
        handover.watch(self._options.connect_timeout + _HANDOVER_TIME, self._handover_late)
        new.open()

    def _make_seat(self, node: Address) -> Seat:
        return Seat(self._reactor, node, self._options, self._book, self._marker, self, self._is_up)

    def _choose(self) -> Address | None:
        """The node to be on; None for none now."""
        now = self._reactor.seconds()
        self._avoided = {node: until for node, until in self._avoided.items() if until > now}
        usable = [
            node
            for node in self._replicas
            if node != self._master and node not in self._avoided and self._is_up(node)
        ]
        seat = self._seat
        here = None if seat is None else seat.address
        if here in usable:
            self._astray_since = None
            return here
        if seat is not None and here != self._master and here not in self._avoided and seat.link:
            if self._astray_since is None:
                self._astray_since = now
            if now - self._astray_since < _GRACE:
                return here
        if usable:
            return random.choice(usable)
        master = self._master
        if master is not None and self._is_up(master) and (master not in self._avoided or not seat):
            return master
        return here

    def _seats(self) -> list[Seat]:
        seats = [] if self._seat is None else [self._seat]
        return seats if self._handover is None else [*seats, self._handover.new]

    def _leave(self, seat: Seat) -> None:
        closed = seat.close()
        self._closing.add(closed)
        closed.addCallback(lambda _: self._closing.discard(closed))

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
                self._proved = self._gap_since = None
        self._free_leavers()

    def _free_leavers(self) -> None:
        """Nobody waits for what no server was asked to leave."""
        self._book.leave_all_but(self._seat.leaving if self._seat is not None else set())

    # What the seats tell.

    def seat_confirmed(self, seat: Seat, name: Name) -> None:
        if seat is self._seat and seat.delivers:
            if self._proved is None:
                self._proved = self._reactor.seconds()
            self._book.confirm(name)

    def seat_left(self, seat: Seat, name: Name) -> None:
        if seat is self._seat:
            self._book.left(name)

    def seat_refused(self, seat: Seat, name: Name, error: Exception) -> None:
        if name == (Kind.CHANNEL, self._marker):
            self._go_without_marks(error)
        elif self._handover is not None and seat is self._handover.new:
            self._log.once(f"{seat.address} refuses {name[1]!r}: {error}", loud=True)
            self._avoided[seat.address] = self._reactor.seconds() + 10 * _AVOIDED
            self._give_up_moving()
        elif not self._book.refuse(name, error):
            self._log.once(f"{seat.address} refuses {name[1]!r}: {error}", loud=True)

    def seat_answered(self, seat: Seat) -> None:
        if self._handover is not None and seat is self._handover.new:
            self._hand_over(self._handover)
        elif seat is self._seat:
            if not self._book.names:
                self._changed()
            elif self._markless:
                self._caught_up(seat)
            elif not seat.delivers or self._standpoint is None:
                self._mark()

    def seat_denied(self, seat: Seat, error: Exception) -> None:
        self._log.once(f"{seat.address} denies us: {error}", loud=True)
        if seat is self._seat and missing_right(str(error)):
            self._fail_waiting(AccessDenied(f"{seat.address} denies us: {error}"))

    def seat_lost(self, seat: Seat) -> None:
        self._avoided[seat.address] = self._reactor.seconds() + _AVOIDED
        handover = self._handover
        if handover is not None and seat is handover.new:
            self._give_up_moving()
            return
        if seat is not self._seat:
            return
        self._open_gap()
        if self._proved is not None:
            seat.drop()
        if handover is not None:
            self._inherit(handover)
        else:
            # Not from inside the link's end: its factory has yet to decide what it does.
            self._changed()
        self._free_leavers()

    def seat_marked(self, seat: Seat, text: bytes) -> None:
        number = int(text) if text.isdigit() else -1
        handover = self._handover
        over = handover is not None and handover.saw(seat, number)
        if seat is self._seat and number in self._marks:
            self._prove(seat, number)
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
            self._avoided[handover.new.address] = handover.sent + _AVOIDED
            self._give_up_moving()
        else:
            handover.watch(_HANDOVER_TIME, self._handover_late)

    def _handover_late(self) -> None:
        handover = self._handover
        assert handover is not None
        if handover.new_done:
            self._finish(handover)
        else:
            self._avoided[handover.new.address] = self._reactor.seconds() + 3 * _AVOIDED
            self._give_up_moving()

    def _give_up_moving(self) -> None:
        """Stay on the old seat, which goes on as if nothing had happened."""
        handover, self._handover = self._handover, None
        assert handover is not None
        handover.stop()
        self._leave(handover.new)
        if handover.old_done:
            handover.old.deliver()
        self._changed()

    def _finish(self, handover: Handover) -> None:
        """Go on from the new seat."""
        if not handover.old_done:
            # Nobody knows what it would have shown before the marker.
            self._open_gap()
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
            if self._gap_since is not None:
                # After this marker the old one has delivered nothing.
                self._proved = handover.sent
            self._caught_up(new)
        elif handover.number is not None:
            self._gap_mark = handover.number
        # The new seat has shown its marker, or will; those before it were the old one's.
        first = (handover.number or self._number) + handover.new_done
        self._marks = {mark: at for mark, at in self._marks.items() if mark >= first}
        self._changed()

    # The proof that messages come.

    def _mark(self) -> int | None:
        """Publish a marker on the master; returns its number, None when nobody could see it."""
        seat, master = self._seat, self._master
        link = self._link_of(master) if master is not None and self._in_use() else None
        if link is None or seat is None or not seat.hears_markers or self._markless:
            return None
        self._number += 1
        number, sent = self._number, self._reactor.seconds()
        self._marks[number] = sent
        told = link.exchange(
            ["PUBLISH", self._marker, str(number)], ["INFO", "stats"], ["INFO", "replication"]
        )
        told.addCallback(self._published, number, sent, self._incarnation)
        told.addErrback(self._not_published, number)
        return number

    def _published(self, replies: list[object], number: int, sent: float, incarnation: str) -> None:
        reply, *infos = replies
        if isinstance(reply, Exception):
            self._marks.pop(number, None)
            if missing_right(str(reply)) and not self._stopped:
                self._go_without_marks(reply)
            return
        stats, replication = (parse_info(i if isinstance(i, bytes) else b"") for i in infos)
        after = Standpoint.read(incarnation, sent, stats, replication)
        before, self._standpoint = self._standpoint, after
        seat = self._seat
        if (
            before is not None
            and after is not None
            and resynced(before, after)
            and seat is not None
            and seat.address != self._master
            and seat.ready_at <= before.sent
        ):
            self._ask_for_break(seat, before)

    def _not_published(self, failure: Failure, number: int) -> None:
        _only_lost(failure)
        self._marks.pop(number, None)  # who knows whether it was

    def _ask_for_break(self, seat: Seat, before: Standpoint) -> None:
        """Some replica had a full resync: was it ours?"""

        def told(replies: list[object]) -> None:
            info = parse_info(replies[0]) if isinstance(replies[0], bytes) else {}
            if seat is self._seat and not reaches_back(info, before):
                self._log.step("{node} had a full resync", node=seat.address)
                self._open_gap(before.sent)

        link = self._link_of(seat.address)
        if link is not None:
            asked = link.exchange(["INFO", "replication"])
            asked.addCallbacks(told, _only_lost)

    def _go_without_marks(self, error: Exception) -> None:
        """Do what can be done with the links alone."""
        if self._markless:
            return
        self._markless = True
        self._log.error(
            "subscriptions work without markers (channels {marker}*), and may miss messages "
            "unnoticed when they are moved: {error}",
            marker=MARKERS.decode(),
            error=str(error),
        )
        if self._handover is not None and self._handover.number is not None:
            self._finish(self._handover)
        elif self._seat is not None and self._seat.link is not None:
            self._caught_up(self._seat)

    def _prove(self, seat: Seat, number: int) -> None:
        """All that was published before this marker has come."""
        if min(self._marks) < number and self._proved is not None:
            self._open_gap()  # one was lost, and messages with it
            self._gap_mark = number
        self._proved = max(self._proved or 0.0, self._marks[number])
        self._marks = {mark: at for mark, at in self._marks.items() if mark > number}
        if self._gap_since is None or number >= self._gap_mark:
            self._caught_up(seat)

    def _caught_up(self, seat: Seat) -> None:
        """From here on the seat delivers all; a gap ends here."""
        if self._proved is None or self._markless:
            self._proved = self._reactor.seconds()
        gap = None
        if self._gap_since is not None:
            now = self._reactor.seconds()
            gap = SubscriptionGap(at=now, since=self._gap_since, until=now)
            self._gap_since = None
            self._log.info(
                "messages of {seconds:.2f} s may have been missed", seconds=now - gap.since
            )
            self._emit(gap)
            self._book.tell_gap(gap)
        if self._handover is not None and self._handover.old_done:
            return  # the new seat goes on from here
        if not seat.delivers and not self._stopped and seat is self._seat:
            seat.deliver()
            for name in list(seat.on):
                self._book.confirm(name)

    def _open_gap(self, since: float = math.inf) -> None:
        """What was published after the newest proof, or after `since`, may be missed."""
        if self._proved is None:
            return  # nobody was promised anything as yet
        now = self._gap_since if self._gap_since is not None else self._proved
        self._gap_since = min(now, since)
        self._gap_mark = self._number + 1

    # Heartbeat.

    def _keep_beating(self) -> None:
        if self._timer is None:
            self._awake_since = self._reactor.seconds()
            self._schedule()

    def _schedule(self) -> None:
        delay = self._options.heartbeat * random.uniform(0.9, 1.1)
        if self._gap_since is not None:
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
                if seat.refused and self._handover is None:
                    seat.retry()
                self._notice_stale(seat, now)
        self._settle()
        if not self._stopped:
            self._schedule()

    def _notice_stale(self, seat: Seat, now: float) -> None:
        """The server answers, but what is published on the master does not come."""
        since = min(self._marks.values(), default=now)
        overdue = now - max(since, seat.ready_at, seat.last_message, self._awake_since)
        if overdue >= self._options.down_after and seat.address not in self._avoided:
            self._log.warn(
                "{node} passes no messages on since {overdue:.1f} s",
                node=seat.address,
                overdue=overdue,
            )
            self._avoided[seat.address] = now + 10 * _AVOIDED


def _only_lost(failure: Failure) -> None:
    """The link is gone, and nobody needs the answer any more."""
    failure.trap(LinkLost)  # type: ignore[no-untyped-call]
