"""Traffic: whom the commands go to, and when they may flow."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from txharedis.dedicated.links import DedicatedLinks
from txharedis.delivery import Delivery
from txharedis.downtime import Downtime
from txharedis.errors import HARedisError, ServiceStopped
from txharedis.group import Memory, NodeGroup
from txharedis.interfaces import Args, Clock, Timer, pack
from txharedis.options import Options
from txharedis.pending import PendingCommands
from txharedis.replies import converter, not_executed
from txharedis.topology import OPCOUNTER_KEY, Address, NodeView, Status

__all__ = ["Traffic"]

_AFTERLIFE = 60  # seconds for which a journal stays when its client was closed


class Traffic:
    """The commands of one client and the master that they go to.

    They flow while the master's command link works and leads to the very incarnation that is
    followed, and while the lease runs: no quorum, no writes. `news()` is called when the flow
    stopped for a reason that a new survey may explain.
    """

    def __init__(
        self,
        clock: Clock,
        group: NodeGroup,
        options: Options,
        news: Callable[[], None],
        journal_denied: Callable[[Exception], None],
    ) -> None:
        self._clock = clock
        self._group = group
        self._options = options
        self._news = news
        self._single = len(group) == 1
        self.counter = counter = None if self._single else (OPCOUNTER_KEY, options.haredis_db_num)
        self.links = DedicatedLinks(clock, options)
        self.delivery = Delivery(
            clock,
            own_db=options.haredis_db_num,
            counter=None if counter is None else OPCOUNTER_KEY,
            ack_timeout=options.ack_timeout,
            denied=journal_denied,
        )
        self.pending = PendingCommands(
            clock,
            self.delivery,
            max_pending=options.max_pending,
            max_pending_bytes=options.max_pending_bytes,
            terms=options.terms,
            convert=converter(options.charset, options.convert_numbers),
            may_retry=self.may_retry,
            turned_away=self.turned_away,
            db=options.db,
        )
        self.master: NodeView | None = None
        self.memory = Memory()
        self.lost_at: float | None = None
        self.downtime = Downtime(clock)
        self._held_until = 0.0
        self._on_hold = False
        self._turned_away_at = -1.0
        self._lease_call: Timer | None = None
        self._verdict: HARedisError | None = None
        self._ready: list[Deferred[None]] = []
        self._granted_db = options.db  # the newest that a server did not refuse

    @property
    def address(self) -> Address | None:
        """The node that commands go to; None while there is none, or it is out of reach."""
        if self.master is not None and self._group[self.master.address].status is Status.UP:
            return self.master.address
        return None

    @property
    def backoff(self) -> float:
        """Seconds for which a master that turned commands away is to be left alone."""
        return max(0.0, self._held_until - self._clock.seconds())

    def use(self, master: NodeView) -> bool:
        """Send the traffic to this master from here on; returns whether it is another one."""
        other = self.master is None or not _same(self.master, master)
        if other:
            if not self._single:  # one node has no other: what its link carries is for this one
                self.lose()
            self._held_until = 0.0
        self._on_hold = False
        self.master = self._group[master.address].view = master
        if master.group or not self.memory.group:
            self.memory = Memory(master.epoch, master.group, master.replid)
        else:  # its keys were flushed, ours with them: it is the same group all the same
            self.memory = replace(self.memory, history=master.replid)
        self.open()
        return other

    def lose(self) -> None:
        """Stop sending. Replies of the old master that are on their way reach nobody."""
        if self.master is not None:
            self.pause()
            self._group[self.master.address].abort()
            self.master = None
            self.links.drop()

    def pause(self) -> None:
        """Hold commands back for now."""
        self.pending.close()
        self.links.lead_to(None)
        self.note_loss()

    async def hold(self, seconds: float) -> None:
        """Send no more until `let_go` or `use`; return when what was sent is answered.

        Or its link is lost, or so many seconds have passed. A master that has become a replica
        answers READONLY to what it did not run: whoever dropped the link before would not know what
        became of it.
        """
        if self.master is None:
            return
        self._on_hold = True
        self.pause()
        echo = _Echo()
        if self._group[self.master.address].send([pack(("PING",))], [echo]):
            late = self._clock.callLater(seconds, echo.lost)
            try:
                await echo.deferred
            finally:
                if late.active():
                    late.cancel()

    def let_go(self) -> None:
        """Let commands flow again, if they may."""
        self._on_hold = False
        self.open()

    def note_loss(self) -> None:
        """The outage begins, unless it has already."""
        if self.lost_at is None:
            self.lost_at = self._clock.seconds()
        if not self._stopped:
            self.downtime.began()

    def open(self) -> None:
        """Let commands flow, if they may."""
        if self.master is None or self._stopped or not self._may_flow(self.master):
            return
        self.lost_at = None
        node = self._group[self.master.address]
        self.pending.open(node)
        if not self.pending.held:  # the link may have been gone after all
            self.downtime.ended()
            self.links.lead_to(node, "" if self._single else self.master.run_id)
        self._watch_lease()
        self._tell_ready()

    def select(self, db: int, args: Args, packed: bytes) -> Deferred[object]:
        """Use this database for all commands from here on, on all links.

        `args` and `packed` are the SELECT that the caller gave; he gets its reply. When the server
        refuses it, so is every command given after it, until the refusal arrives: none is run in
        the old database by mistake.
        """
        self.pending.db = db

        def selected(reply: object) -> object:
            self._granted_db = db
            for node in self._group:
                # The master's link is switched in its place among the commands.
                node.use_db(db, now=self.master is None or node.address != self.master.address)
            return reply

        def refused(failure: Failure) -> Failure:
            if self.pending.db == db:
                self.pending.db = self._granted_db
            return failure

        return self.pending.add(args, packed, True).addCallbacks(selected, refused)

    def end_session(self) -> Deferred[None]:
        """Take the journal away, if there is one and a master; it takes its hour otherwise.

        When a link was lost with a batch, only in a while: what that may still carry would find no
        journal, and be run again.
        """
        journal = self.delivery.journal
        if not journal.used or self.pending.held:
            return succeed(None)
        args: Args = ("DEL", journal.key)
        if journal.reply_lost:
            args = ("PEXPIRE", journal.key, 1000 * _AFTERLIFE)
        terms = replace(self._options.terms, delivery="at-most-once", acks=0, timeout=1.0)
        gone = self.pending.add(
            args, pack(tuple(args)), True, self._options.haredis_db_num, terms=terms
        )
        return gone.addBoth(lambda _: None)

    def _may_flow(self, master: NodeView) -> bool:
        node = self._group[master.address]
        if self._single:
            return node.serves("") and not self.backoff
        if self._on_hold:
            return False
        return node.serves(master.run_id) and self._group.lease_left() > 0 and not self.backoff

    # The lease.

    def _watch_lease(self) -> None:
        if self._lease_call is None and not self._single:
            delay = max(0.01, self._group.lease_left())
            self._lease_call = self._clock.callLater(delay, self._lease_over)
            # Behind a sleep of this process other calls may be due before that one.
            self.pending.good_until = self._clock.seconds() + delay

    def _lease_over(self) -> None:
        self._lease_call = None
        if self._group.lease_left() > 0:
            self._watch_lease()
            self.open()
        else:
            # Who knows who is master by now: only a survey can tell, not the next sign of life.
            self.lose()
            self._news()

    # What the servers turn away.

    def may_retry(self, error: Exception) -> bool:
        """Whether this error reply says that the command was not run, and another node may."""
        if self._single and str(error).startswith("READONLY"):
            return False  # there is no other node to turn to
        return not_executed(error)

    def turned_away(self, error: Exception) -> None:
        """The master did so: find out why, and send nothing meanwhile."""
        self.pause()
        now = self._clock.seconds()
        if now - self._turned_away_at < 1.0:
            # It does so again: that must not become a busy loop.
            self._held_until = now + random.uniform(0.02, 0.1)
        self._turned_away_at = now
        self._news()

    # Those who wait for a master.

    def refuse(self, verdict: HARedisError | None) -> None:
        """Fail what waits, and what comes, with this; None takes it back."""
        if self._stopped:
            return
        self._verdict = verdict
        why = None if verdict is None else lambda: _copy(verdict)
        self.pending.refuse(why)
        self.links.refuse(why)
        self._tell_ready()

    def stop(self) -> None:
        """Fail everything with ServiceStopped; the links are to be dropped after this."""
        self._verdict = ServiceStopped("the service was stopped")
        self.master = None
        self.downtime.ended()
        self.pending.stop(lambda executed: ServiceStopped("the service was stopped", executed))
        self.links.refuse(lambda: ServiceStopped("the service was stopped"))
        if self._lease_call is not None and self._lease_call.active():
            self._lease_call.cancel()
        self._tell_ready()

    @property
    def _stopped(self) -> bool:
        return isinstance(self._verdict, ServiceStopped)

    def when_ready(self) -> Deferred[None]:
        """Fires when commands flow; fails with what `refuse` was given, or ServiceStopped."""
        ready: Deferred[None] = Deferred(self._ready.remove)
        self._ready.append(ready)
        self._tell_ready()
        return ready

    def _tell_ready(self) -> None:
        if self._verdict is None and self.pending.held:
            return
        ready, self._ready = self._ready, []
        for deferred in ready:
            if self._verdict is None:
                deferred.callback(None)
            else:
                deferred.errback(_copy(self._verdict))


class _Echo:
    """Waits for the reply that comes behind all others on a link."""

    def __init__(self) -> None:
        self.deferred: Deferred[None] = Deferred()

    def settle(self, reply: object) -> None:
        self.lost()

    def lost(self) -> None:
        if not self.deferred.called:
            self.deferred.callback(None)


def _same(one: NodeView, other: NodeView) -> bool:
    return one.address == other.address and one.run_id == other.run_id


def _copy(error: HARedisError) -> HARedisError:
    """A fresh one for each caller: an exception collects its raiser's traceback."""
    return type(error)(*error.args)
