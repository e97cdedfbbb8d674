"""Node: one server, as one client sees it: its links, how we stand with it, its newest view."""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.python.failure import Failure

from txharedis.errors import HARedisError, LinkLost, ResponseError
from txharedis.factory import NodeFactory, OneLink
from txharedis.interfaces import NOBODY, Args, Reactor, Timer, Waiter
from txharedis.journal import LOAD_JOURNAL
from txharedis.options import Options
from txharedis.pace import STEPS, in_step
from txharedis.protocol import NodeProtocol, greeting
from txharedis.reads.lag import Replication
from txharedis.replies import missing_right
from txharedis.rights import (
    ACTING,
    HEARING,
    PROBES,
    PUBLISHING,
    SUBSCRIBING,
    TRANSACTION,
    denied,
    lacking,
)
from txharedis.topology import (
    GOSSIP_CHANNEL,
    META_KEY,
    OPCOUNTER_KEY,
    SENTINEL_CHANNEL,
    Address,
    Identity,
    NodePicture,
    NodeView,
    Status,
    SurveyReplies,
    failover_key,
    parse_hello,
    parse_view,
    vote_key,
)

__all__ = ["Node", "NodeObserver"]

Result = TypeVar("Result")


class _Sign(enum.Enum):
    """What a node's control link tells about it."""

    READY = enum.auto()  # connected and shaken hands
    LOST = enum.auto()  # a working link ended
    REFUSED = enum.auto()  # a dial was refused or reset
    SILENT = enum.auto()  # nothing came for down_after seconds
    DENIED = enum.auto()  # it answered the handshake with an error
    CLOSE = enum.auto()  # we want no more of it


# The machine of a node's status. A pair that is not here changes nothing: a link that ends before
# it worked says no more than REFUSED does, and a denied one ends by itself.
_NEXT: Mapping[tuple[Status, _Sign], Status] = {
    (Status.DIALLING, _Sign.READY): Status.UP,
    (Status.DIALLING, _Sign.REFUSED): Status.REFUSED,
    (Status.DIALLING, _Sign.SILENT): Status.SILENT,
    (Status.DIALLING, _Sign.DENIED): Status.DENIED,
    (Status.UP, _Sign.LOST): Status.DROPPED,
    (Status.UP, _Sign.SILENT): Status.SILENT,
    (Status.DROPPED, _Sign.READY): Status.UP,
    (Status.DROPPED, _Sign.REFUSED): Status.REFUSED,
    (Status.DROPPED, _Sign.SILENT): Status.SILENT,
    (Status.DROPPED, _Sign.DENIED): Status.DENIED,
    (Status.REFUSED, _Sign.READY): Status.UP,
    (Status.REFUSED, _Sign.DENIED): Status.DENIED,
    (Status.SILENT, _Sign.READY): Status.UP,
    (Status.SILENT, _Sign.REFUSED): Status.REFUSED,
    (Status.SILENT, _Sign.DENIED): Status.DENIED,
    (Status.DENIED, _Sign.READY): Status.UP,
    (Status.DENIED, _Sign.REFUSED): Status.REFUSED,
    (Status.DENIED, _Sign.SILENT): Status.SILENT,
    **{(status, _Sign.CLOSE): Status.CLOSED for status in Status},
}


class NodeObserver(Protocol):
    """Whoever owns the nodes and has to know."""

    def node_changed(self, node: Node) -> None:
        """Its status is another one."""

    def node_heard(self, node: Node) -> None:
        """It answered a PING."""

    def commands_ready(self, node: Node) -> None:
        """Its command link can be used."""

    def commands_lost(self, node: Node) -> None:
        """Its command link is gone; what was in flight has been told."""

    def commands_denied(self, node: Node, error: Exception) -> None:
        """It will not have our command link."""

    def rights_changed(self, node: Node, missing: Sequence[str]) -> None:
        """Other rights are missing there than before; these were not."""


#: Seconds after which the rights are looked at again, when all are there and when some are missing.
_RIGHTS_AGE = 60.0
_LACKING_AGE = 10.0


class Node:
    """One server.

    The control link, in the database of our own keys, is never delayed by a user's command and
    decides the status. The command link, in the user's database, carries batches. Both are
    redialled for ever.
    """

    def __init__(
        self, reactor: Reactor, address: Address, options: Options, observer: NodeObserver
    ) -> None:
        self.address = address
        self.status = Status.DIALLING
        self.reason = ""
        self._view: NodeView | None = None
        self._seen_at = 0.0  # when the view was new
        self.identity: Identity | None = None
        self._reactor = reactor
        self._options = options
        self._db = options.db
        self._encrypted = options.tls_context(address.host) is not None
        self._observer = observer
        self._ready_at = 0.0
        self._heard = -math.inf
        self._silent_since = reactor.seconds()  # at the latest: we began to listen, or slept
        self._ping_out = False
        self._pinged_at = 0.0
        self._beat_every = options.heartbeat
        self._ask_replication = False
        self.replication: Replication | None = None
        self._round_trip: float | None = None
        self._watch: Timer | None = None
        self._control_factory = self._factory(self._build_control, self._control_gone)
        self._command_factory = self._factory(
            self._build_command, self._command_gone, goes_by=lambda: self.status is Status.UP
        )
        self.control: NodeProtocol | None = None
        self._owed: list[Args] = []  # by control links that are gone
        self._command: NodeProtocol | None = None
        self._command_run_id = ""
        self.commands_denied = ""  # what it said when it last denied the command link
        self.checks_rights = False  # those that it takes to elect
        self.follows_only = False  # nothing is to be changed on it
        self.missing_rights: tuple[str, ...] = ()
        self._rights_due = 0.0
        self._rights_known = False  # those that are missing, as far as nobody has changed them
        self._rights_late = False  # the newest look was not answered
        self._rights_of: NodeProtocol | None = None  # the control link when they were looked at
        self._no_info_until = -math.inf
        self._peer_host = address.host
        self._in_cluster = False
        self._was_denied = False  # by the control link that is there now
        self._one_links: dict[OneLink, Deferred[None]] = {}  # what fires when nothing is left of it

    def __repr__(self) -> str:
        role = self.view.role.value if self.view is not None else "unknown"
        reason = f" ({self.reason})" if self.reason else ""
        return f"<Node {self.address} {role} {self.status.value}{reason}>"

    def start(self) -> None:
        self._silent_since = self._reactor.seconds()
        self._control_factory.dial()
        self._command_factory.dial()
        self._schedule_watch(self._options.heartbeat)

    def close(self) -> Deferred[Any]:
        """Drop the links for good; fires when they are gone."""
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        self._sign(_Sign.CLOSE, "")
        factories = [self._control_factory.close(), self._command_factory.close()]
        gone = list(self._one_links.values())
        for one in tuple(self._one_links):
            one.abort()
        return gatherResults([*factories, *gone])

    @property
    def last_heard(self) -> float:
        """When the node last sent anything, on the reactor's clock in seconds."""
        links: list[Any] = [self._control_factory.link, self._command_factory.link]
        return max([self._heard, *(float(link.last_heard) for link in links if link is not None)])

    @property
    def version(self) -> str:
        return self.identity.version if self.identity is not None else ""

    @property
    def run_id(self) -> str:
        """The newest known incarnation of the server, "" before the first."""
        return self.identity.run_id if self.identity is not None else ""

    @property
    def peer_host(self) -> str:
        """The IP address that the newest control link led to; the configured host before that."""
        return self._peer_host

    @property
    def cluster(self) -> bool:
        """Whether it denies us for being in cluster mode, which has no database for our keys."""
        return self.status is Status.DENIED and self._in_cluster

    @property
    def lacks_right(self) -> bool:
        """Whether it denies us for want of credentials, a right or a database."""
        return self.status is Status.DENIED and missing_right(self.reason)

    @property
    def may_elect(self) -> bool:
        """Whether we have, as far as is known, all the rights that a failover takes here."""
        return set(self.missing_rights) <= HEARING

    @property
    def may_lock(self) -> bool:
        """Whether we have those that the lock takes here."""
        return set(self.missing_rights) <= ACTING

    def redial_now(self) -> None:
        """Do not wait out the delays: there is news that the node may be back."""
        self._control_factory.redial_now()
        self._command_factory.redial_now()

    # The command link.

    @property
    def db(self) -> int:
        """The database that is selected on the command link; settable by who selects another."""
        return self._command.db if self._command is not None else self._db

    @db.setter
    def db(self, db: int) -> None:
        if self._command is not None:
            self._command.db = db

    def use_db(self, db: int, *, now: bool) -> None:
        """New command links are for this database; `now` also drops one that is for another."""
        self._db = db
        if now and self._command is not None and self._command.db != db:
            self._command.abort()

    @property
    def serving(self) -> str:
        """The run_id of the server that the command link leads to, "" while there is none."""
        return self._command_run_id if self._command is not None else ""

    def serves(self, run_id: str) -> bool:
        """Whether the command link works and leads to this incarnation ("" for any)."""
        return self._command is not None and run_id in ("", self._command_run_id)

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool:
        """Write a batch to the command link; False when that is gone and nothing was written."""
        return self._command is not None and self._command.send(packed, waiters)

    def after_read(self, call: Callable[[], object]) -> bool:
        """See Link."""
        return self._command is not None and self._command.after_read(call)

    def abort(self) -> None:
        """Drop the command link at once: late replies reach nobody. It is redialled."""
        if self._command is not None:
            self._command.abort()

    def _build_command(self) -> NodeProtocol:
        # The server's identity comes with the link: after a quick restart this link may be there
        # before the control link, and must not be taken for one to the old incarnation.
        return self._protocol(self._db, self._command_ready, self._command_denied)

    def _command_ready(self, link: NodeProtocol, replies: list[object]) -> None:
        self._command_factory.link_ready()
        if link.db != self._db:
            link.abort()  # another was selected while they shook hands
            return
        self._command = link
        self.commands_denied = ""
        self._command_run_id = _identity(replies).run_id
        if self._options.delivery == "exactly-once":
            # Where it is not loaded, the first batch brings it.
            link.send([LOAD_JOURNAL], [NOBODY])
        self._observer.commands_ready(self)

    def _command_gone(self, reason: Failure, was_ready: bool) -> None:
        if self._command is not None:
            self._command = None
            self._observer.commands_lost(self)
        if was_ready and self.status is not Status.CLOSED:
            # If the server is gone, its control link tells so within this turn.
            self._reactor.callLater(0, self._redial_commands)

    def _redial_commands(self) -> None:
        if self.status is Status.UP:
            self._command_factory.redial_now()

    def _command_denied(self, error: Exception, replies: list[object]) -> None:
        self.commands_denied = str(error) if missing_right(str(error)) else ""
        self._observer.commands_denied(self, error)

    # Links for one caller each.

    def dial(self, db: int, run_id: str, gone: Callable[[], None]) -> Deferred[NodeProtocol]:
        """Dial a link of one's own, in this database; it is not redialled.

        The Deferred fires with it after its handshake, or fails with LinkLost (also when it leads
        to another incarnation than `run_id`; "" is any) or with the server's refusal, a
        ResponseError. `gone()` is called once in any case: when nothing of it is left. Cancelling
        gives the attempt up. When the node falls silent the link is dropped.
        """

        def ready(link: NodeProtocol, replies: list[object]) -> None:
            if run_id not in ("", _identity(replies).run_id):
                dialled.errback(LinkLost(f"{self.address} has restarted"))
                link.abort()
            elif not dialled.called:
                dialled.callback(link)

        def refused(error: Exception, replies: list[object]) -> None:
            if not dialled.called:
                dialled.errback(error)

        def ended(reason: Failure) -> None:
            all_gone = self._one_links.pop(one)
            if not dialled.called:
                dialled.errback(LinkLost(reason.getErrorMessage()))
            gone()
            all_gone.callback(None)

        def give_up(dialled: Deferred[NodeProtocol]) -> None:
            dialled.errback(CancelledError())
            one.abort()

        dialled: Deferred[NodeProtocol] = Deferred(give_up)
        one = OneLink(lambda: self._protocol(db, ready, refused), ended)
        self._one_links[one] = Deferred()
        one.dial(self._reactor, self.address, self._options)
        return dialled

    # The control link and the status.

    def _build_control(self) -> NodeProtocol:
        return self._protocol(self._options.haredis_db_num, self._control_ready, self._denied)

    def _protocol(
        self,
        db: int,
        ready: Callable[[NodeProtocol, list[object]], None],
        denied: Callable[[Exception, list[object]], None],
    ) -> NodeProtocol:
        handshake = [*greeting(self._options, db, self.address), ["INFO", "server"]]
        timeout = self._options.connect_timeout
        link = NodeProtocol(
            self._reactor, handshake, timeout, ready, denied, last_may_be_denied=True
        )
        link.db = db
        return link

    def _factory(
        self,
        build: Callable[[], NodeProtocol],
        gone: Callable[[Failure, bool], None],
        *,
        goes_by: Callable[[], bool] | None = None,
    ) -> NodeFactory:
        return NodeFactory(
            self._reactor,
            self.address,
            build,
            gone,
            self._options,
            first_delay=self._options.reconnect_delay,
            max_delay=self._options.reconnect_max,
            timeout=self._options.connect_timeout,
            goes_by=goes_by,
        )

    def _control_ready(self, link: NodeProtocol, replies: list[object]) -> None:
        self._control_factory.link_ready()
        self.control = link
        self._peer_host = str(getattr(link.transport.getPeer(), "host", self.address.host))
        before, self.identity = self.run_id, _identity(replies)
        owed, self._owed = self._owed, []
        if owed and (self.run_id == before or not (before and self.run_id)):
            link.owed += owed
            link.exchange(*owed).addCallbacks(lambda _: link.paid(owed), lambda _: None)
        self._ready_at = self._reactor.seconds()
        self._ping_out = False
        self._no_info_until = -math.inf
        self._command_factory.redial_now()
        self._sign(_Sign.READY, "")
        self.ask_replication()

    def _control_gone(self, reason: Failure, was_ready: bool) -> None:
        denied, self._was_denied = self._was_denied, False
        if self.control is not None:
            self._owed += self.control.owed
            self._heard = max(self._heard, self.control.last_heard)
            self.control = None
        if was_ready:
            self._sign(_Sign.LOST, reason.getErrorMessage())
        elif (
            reason.check(ConnectionRefusedError, ConnectionLost, ConnectionDone)
            and not reason.check(ConnectionAborted)  # what we aborted says nothing of the node
            and not denied
        ):
            how = "refused" if reason.check(ConnectionRefusedError) else "reset"
            hint = ""
            if how == "reset" and self.identity is None and not self._encrypted:
                hint = ", as by a port that expects TLS (tls=True)"
            self._sign(_Sign.REFUSED, f"connection {how}{hint}")
        elif self.status is Status.DENIED and self._silence() >= self._options.down_after:
            self._sign(_Sign.SILENT, reason.getErrorMessage())

    def _denied(self, error: Exception, replies: list[object]) -> None:
        self._was_denied = True
        self._heard = self._reactor.seconds()
        self._in_cluster = _identity(replies).cluster
        self._sign(_Sign.DENIED, str(error))
        if self.status is Status.DENIED:
            self.reason = str(error)  # it may deny us for another reason than before

    def _sign(self, sign: _Sign, reason: str) -> None:
        status = _NEXT.get((self.status, sign))
        if status is None or status is self.status:
            return
        self.status = status
        self.reason = reason
        if status is not Status.UP:
            self.view = None
            self.replication = None
        if status is not Status.CLOSED:
            self._observer.node_changed(self)

    # Heartbeat.

    def _schedule_watch(self, delay: float) -> None:
        self._due = self._reactor.seconds() + delay
        self._watch = self._reactor.callLater(delay, self._beat)

    def _beat(self) -> None:
        """Send the next PING, or find that the node has been silent for too long."""
        now = self._reactor.seconds()
        options = self._options
        if now - self._due > options.heartbeat:
            # It was this process that slept. What the node has sent meanwhile is unread as yet.
            self._silent_since = now
        silent = self._silence()
        if silent >= options.down_after:
            if self.status in (Status.UP, Status.DROPPED, Status.DIALLING):
                hint = ""
                if self.identity is None and self._encrypted:
                    hint = ", as from a port without TLS"
                self._sign(_Sign.SILENT, f"nothing heard for {silent:.1f} s{hint}")
                self._drop_links()
        elif not self._ping_out:
            self._ping()
        beat = self._beat_every * random.uniform(0.9, 1.1)
        beat = in_step(now, beat, self._beat_every / STEPS)
        left = options.down_after - silent
        # Not sooner than in 1 ms: what is left may be too little to move the clock.
        self._schedule_watch(min(beat, max(left, 0.001)) if left > 0 else beat)

    def _silence(self) -> float:
        return self._reactor.seconds() - max(self.last_heard, self._silent_since)

    def _drop_links(self) -> None:
        for factory in (self._control_factory, self._command_factory):
            if factory.link is not None:
                factory.link.abort()
        for one in tuple(self._one_links):
            one.abort()

    def _ping(self) -> None:
        if self.status is Status.UP and self.control is not None:
            self._ping_out = True
            self._pinged_at = now = self._reactor.seconds()
            question = ["INFO", "replication"] if self._ask_replication else ["PING"]
            args = (now, self._ask_replication)
            self.control.exchange(question).addCallbacks(
                self._pong, lambda _: None, callbackArgs=args
            )

    def _pong(self, replies: list[object], asked_at: float, replication: bool) -> None:
        # Any answer will do: MISCONF and BUSY come from the living.
        self._ping_out = False
        took = self._reactor.seconds() - asked_at
        known = self._round_trip
        self._round_trip = took if known is None else known + 0.2 * (took - known)
        if replication:
            self.replication = Replication.parse(replies[0], asked_at)
        self._observer.node_heard(self)

    def watch_replication(self, every: float) -> None:
        """From now on the heartbeat asks for `replication`, at least every so many seconds."""
        self._ask_replication = True
        self._beat_every = min(every, self._options.heartbeat)
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
            self._schedule_watch(self._beat_every)
            self._ping()

    def ask_replication(self) -> None:
        """Ask for `replication` now, if it is watched at all."""
        if self._ask_replication:
            self._ping()

    @property
    def round_trip(self) -> float | None:
        """The moving average of its PINGs' round trips in seconds; None when unknown.

        One that is still under way counts when it has taken longer already.
        """
        if self._round_trip is None or not self._ping_out:
            return self._round_trip
        return max(self._round_trip, self._reactor.seconds() - self._pinged_at)

    # The survey.

    async def survey(
        self, resolve: Mapping[tuple[str, int], Address], *, rights: bool = True
    ) -> NodeView | None:
        """Ask the node of itself; None when it does not answer in time, or only with errors.

        With `rights` it is asked for those that we have there, when that is due: before, if they
        are not known, else beside. None also when it keeps the group's own keys to itself and
        nothing is to be changed on it: its epoch may be the newest.
        """
        control, identity = self.control, self.identity
        if control is None or identity is None or self.status is not Status.UP:
            return None
        timeout = self._options.survey_timeout
        now = self._reactor.seconds()
        is_new = self._rights_of is not control and not self._rights_late
        due = is_new or now >= self._rights_due
        if rights and self.checks_rights and due:
            looking = Deferred.fromCoroutine(self.look_at_rights())
            if not self._rights_known:
                await self._at_most(timeout, looking)
        if now >= self._no_info_until and not identity.run_id:
            identity = await self._identify(control)  # it may be allowed by now
        if now < self._no_info_until or not identity.run_id:
            return await self._survey_blindly(control)
        run_id = identity.run_id
        meta = ["HGETALL", META_KEY]
        counters = ["MGET", OPCOUNTER_KEY, vote_key(run_id), failover_key(run_id)]
        try:
            replies = await control.exchange(
                ["INFO", "replication"],
                ["INFO", "keyspace"],
                meta,
                counters,
                ["CONFIG", "GET", "replica-priority"],
                ["PUBSUB", "NUMSUB", SENTINEL_CHANNEL, GOSSIP_CHANNEL],
                timeout=timeout,
            )
            if any(_is_error(reply, "MASTERDOWN") for reply in replies):
                # The node keeps stale data to itself (replica-serve-stale-data no); ours we need.
                if self.follows_only:
                    return None  # to change the setting is not ours
                _, replies[2], replies[3], _ = await control.exchange(
                    ["CONFIG", "SET", "replica-serve-stale-data", "yes"],
                    meta,
                    counters,
                    ["CONFIG", "SET", "replica-serve-stale-data", "no"],
                    timeout=timeout,
                )
        except LinkLost:
            return None
        if denied(replies[0]):
            self._no_info_until = now + _RIGHTS_AGE
            return await self._survey_blindly(control)
        if not isinstance(replies[0], bytes):
            self.reason = str(replies[0])
            return None
        self.reason = ""
        self.view = parse_view(
            self.address,
            identity,
            SurveyReplies(*replies),
            uptime=identity.uptime + int(self._reactor.seconds() - self._ready_at),
            db=self._options.haredis_db_num,
            resolve=resolve,
        )
        return self.view

    async def _at_most(self, seconds: float, event: Deferred[Any]) -> None:
        """Wait for it, and no longer than so; it goes on."""
        enough: Deferred[None] = Deferred()
        late = self._reactor.callLater(seconds, enough.callback, None)

        def ended(result: Result) -> Result:
            if late.active():
                late.cancel()
                enough.callback(None)
            return result

        event.addBoth(ended)
        await enough

    async def _survey_blindly(self, control: NodeProtocol) -> NodeView | None:
        """As `survey`, by a user without the right to INFO: HELLO or ROLE tell the role.

        It is asked for what it may not again after a while.
        """
        timeout = self._options.survey_timeout
        try:
            [hello] = await control.exchange(["HELLO"], timeout=timeout)
            self.view = parse_hello(self.address, hello)
            if self.view is None:
                [role] = await control.exchange(["ROLE"], timeout=timeout)
                self.view = parse_hello(self.address, hello, role)
        except LinkLost:
            return None
        self.reason = "" if self.view is not None else f"it tells us nothing of itself: {hello}"
        return self.view

    async def _identify(self, control: NodeProtocol) -> Identity:
        """Ask who it is on a link on which that was denied before."""
        timeout = self._options.survey_timeout
        identity = Identity.parse(b"")
        with suppress(LinkLost):
            [info] = await control.exchange(["INFO", "server"], timeout=timeout)
            if isinstance(info, bytes):
                identity = Identity.parse(info)
        if identity.run_id:
            self.identity = identity
            self._ready_at = self._reactor.seconds()
            self._command_run_id = self._command_run_id or identity.run_id
        else:
            self._no_info_until = self._reactor.seconds() + _RIGHTS_AGE
        return identity

    def deny(self, right: str, is_missing: bool) -> None:
        """Note whether one right is missing, beside those that the survey looks at."""
        others = tuple(name for name in self.missing_rights if name != right)
        self._set_missing((*others, right) if is_missing else others, ())

    def recheck_rights(self) -> None:
        """Look at the rights again before the next survey: something was denied."""
        self._rights_due = 0.0
        self._rights_known = False

    async def look_at_rights(self) -> bool:
        """Find which of the rights to elect are missing, now; `missing_rights` tells.

        Returns False when a node that is up did not answer.

        It is asked on a link of its own: a server that holds writes back (CLIENT PAUSE, its own
        FAILOVER) answers nothing more on the link on which one is queued. Then, and when the link
        is lost, what was known stays, and it is looked at again after a while.
        """
        if self.control is None or self.status is not Status.UP:
            return True
        self._rights_of = self.control
        self._rights_late = True
        began = self._reactor.seconds()
        due = self._rights_due = began + _LACKING_AGE
        try:
            link = await self.dial(self._options.haredis_db_num, "", lambda: None)
            asked = Deferred.fromCoroutine(self._lacking(link))
            asked.addBoth(_drop, link)
            missing = await asked
        except (HARedisError, ResponseError):
            return False
        self._rights_late = False
        if self._rights_due != due:
            return self._rights_known  # somebody has to look again, or has begun to
        self._rights_known = True
        if "INFO" not in missing:
            self._no_info_until = -math.inf
        if not missing:
            self._rights_due = began + _RIGHTS_AGE
        self._set_missing(missing, [name for name in self.missing_rights if name == SUBSCRIBING])
        return True

    async def _lacking(self, link: NodeProtocol) -> tuple[str, ...]:
        """Ask for the rights without using any."""
        timeout = self._options.survey_timeout
        *replies, begun, ended = await link.exchange(*TRANSACTION, timeout=timeout)
        missing = lacking(TRANSACTION, [*replies, begun, ended])
        queued = [["MULTI"], *PROBES, PUBLISHING, ["DISCARD"]]
        probes = PROBES if isinstance(begun, Exception) else queued
        return missing + lacking(probes, await link.exchange(*probes, timeout=timeout))

    def _set_missing(self, missing: Sequence[str], also: Sequence[str]) -> None:
        names = tuple(dict.fromkeys([*missing, *also]))
        before, self.missing_rights = self.missing_rights, names
        if set(names) != set(before):
            self._observer.rights_changed(self, [name for name in names if name not in before])

    @property
    def view(self) -> NodeView | None:
        """The newest view of it, None while it is not up."""
        return self._view

    @view.setter
    def view(self, view: NodeView | None) -> None:
        self._view = view
        self._seen_at = self._reactor.seconds()

    def picture(self, master: NodeView | None) -> NodePicture:
        """This node in the picture of the topology."""
        view = self.view
        if view is None:
            return NodePicture(
                self.address,
                self.status,
                self.reason,
                version=self.version,
                missing_rights=self.missing_rights,
            )
        return NodePicture(
            address=self.address,
            status=self.status,
            reason=self.reason,
            role=view.role,
            epoch=view.epoch,
            offset=view.offset,
            lag=None if master is None else max(0, master.offset - view.offset),
            link_up=None if view.is_master else view.link_up,
            follows=view.follows_text if view.follows is None else str(view.follows),
            version=self.version,
            missing_rights=self.missing_rights,
            syncing=view.syncing,
            loading=view.loading,
            priority=None if view.blind else view.priority,
            listeners=None if view.blind else view.listeners,
            seen_at=self._seen_at,
            group=view.group,
        )


def _drop(result: Result, link: NodeProtocol) -> Result:
    link.abort()
    return result


def _identity(handshake_replies: list[object]) -> Identity:
    info = handshake_replies[-1] if handshake_replies else None
    return Identity.parse(info if isinstance(info, bytes) else b"")


def _is_error(reply: object, code: str) -> bool:
    return isinstance(reply, Exception) and str(reply).startswith(code)
