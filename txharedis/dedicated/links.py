"""DedicatedLinks: links to the master for one caller each, for what would block or change others.

A blocking command, a transaction, a monitor takes one and gives it back when it is clean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txharedis.errors import HARedisError, QueueFull, ResponseError
from txharedis.interfaces import Args, Clock, Timer, Waiter
from txharedis.node import Node
from txharedis.options import Options
from txharedis.protocol import NodeProtocol
from txharedis.replies import not_executed
from txharedis.values import Value

__all__ = ["DedicatedLink", "DedicatedLinks", "DedicatedTerms"]

IDLE_KEPT = 8
"""Links that nobody uses are kept for the next caller, so many at most,"""
IDLE_SECONDS = 30.0
"""and so long."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DedicatedTerms(Value):
    """What the users of dedicated links have in common with the queue of the other commands.

    counter      the key and the database in which writes are counted, None for not at all.
    convert      makes the caller's value of a raw reply, None when raw is right.
    may_retry    whether an error reply says that another node should run the command.
    turned_away  is called with such a reply.
    """

    counter: tuple[str, int] | None
    convert: Callable[[object], object] | None
    may_retry: Callable[[Exception], bool]
    turned_away: Callable[[Exception], None]

    def value(self, reply: object) -> object:
        """What the caller gets of a raw reply."""
        return reply if self.convert is None else self.convert(reply)


class DedicatedLink:
    """A link to one incarnation of a master, in one database, for one caller."""

    def __init__(self, node: Node, run_id: str, db: int) -> None:
        self.node = node
        self.run_id = run_id
        self.db = db
        self.protocol: NodeProtocol | None = None
        self.gone = False
        self._client_id: int | None = None
        self._asked: list[Deferred[int | None]] = []
        self._known = False

    def __repr__(self) -> str:
        return f"<DedicatedLink to {self.node.address}, database {self.db}>"

    def send(self, packed: Sequence[bytes], waiters: Sequence[Waiter]) -> bool:
        """Write encoded commands; see NodeProtocol.send."""
        return self.protocol is not None and self.protocol.send(packed, waiters)

    def exchange(self, *commands: Args) -> Deferred[list[object]]:
        """Write commands together; fires with their raw replies, or fails with LinkLost."""
        assert self.protocol is not None
        return self.protocol.exchange(*commands)

    def abort(self) -> None:
        """Drop it at once: late replies reach nobody."""
        if self.protocol is not None:
            self.protocol.abort()

    def client_id(self) -> Deferred[int | None]:
        """Fires with the id by which the server knows this link; None when it does not say."""
        if self._known:
            return succeed(self._client_id)
        asked: Deferred[int | None] = Deferred()
        self._asked.append(asked)
        return asked

    def established(self, protocol: NodeProtocol) -> None:
        """The handshake is through. Its first user need not wait for the id."""
        self.protocol = protocol
        protocol.exchange(["CLIENT", "ID"]).addCallbacks(
            lambda replies: self._learn(replies[0]), lambda _: self._learn(None)
        )

    def _learn(self, reply: object) -> None:
        self._known = True
        self._client_id = reply if isinstance(reply, int) else None
        asked, self._asked = self._asked, []
        for deferred in asked:
            deferred.callback(self._client_id)


class _Want:
    """A caller who waits for a link."""

    def __init__(self, db: int, forget: Callable[[_Want], None]) -> None:
        self.db = db
        self.deferred: Deferred[DedicatedLink] = Deferred(lambda _: forget(self))


class DedicatedLinks:
    """The links of one client that each serve one caller.

    `lead_to(node, run_id)` says where they lead, `lead_to(None)` that new ones have to wait;
    `drop()` aborts them all, so that late replies reach nobody. At most `max_dedicated` callers
    have one or wait for one.
    """

    def __init__(self, clock: Clock, options: Options) -> None:
        self._clock = clock
        self._most = options.max_dedicated
        self._first_delay = self._delay = options.reconnect_delay
        self._max_delay = options.reconnect_max
        self._node: Node | None = None
        self._run_id = ""
        self._wants: list[_Want] = []
        self._dials: dict[DedicatedLink, Deferred[NodeProtocol]] = {}
        self._used: dict[DedicatedLink, None] = {}
        self._idle: dict[DedicatedLink, Timer] = {}
        self._left = 0  # attempts and links that are not gone yet
        self._retry: Timer | None = None
        self._refusal: Callable[[], HARedisError] | None = None
        self._closed: list[Deferred[None]] = []

    def __len__(self) -> int:
        """How many callers have a link or wait for one."""
        return len(self._used) + len(self._wants)

    def __repr__(self) -> str:
        return f"<DedicatedLinks {len(self._used)} used, {len(self._idle)} idle>"

    # Where they lead.

    def lead_to(self, node: Node | None, run_id: str = "") -> None:
        """From here on to this incarnation of this node ("" for any); None: to nobody for now."""
        self._node = node
        self._stop_retry()
        if node is None:
            return
        self._run_id = run_id
        self._delay = self._first_delay
        for link in [*self._dials, *self._idle]:
            if not self._leads_here(link):
                self._discard(link)
        self._serve()

    def drop(self) -> None:
        """The master is lost: abort all links. Those who wait for one go on waiting."""
        self.lead_to(None)
        for link in [*self._dials, *self._idle, *self._used]:
            self._discard(link)

    def refuse(self, why: Callable[[], HARedisError] | None) -> None:
        """Fail those who wait, and those who come, with `why()`; None takes it back."""
        self._refusal = why
        if why is not None:
            for want in self._wants[:]:
                self._fail(want, why())

    def close(self) -> Deferred[None]:
        """Drop all; fires when the last link is gone. `refuse` has to be called before."""
        self.drop()
        if not self._left:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closed.append(closed)
        return closed

    # Taking and giving back.

    def take(self, db: int) -> Deferred[DedicatedLink]:
        """Fires with a link to the master in this database, when there is a master.

        It fails with QueueFull when `max_dedicated` callers have one or wait, with what `refuse`
        was given, or with the server's refusal, a ResponseError. Cancelling it ends the waiting.
        """
        if self._refusal is not None:
            return fail(self._refusal())
        if len(self) >= self._most:
            return fail(
                QueueFull(
                    f"{len(self)} blocking commands, transactions and monitors are under way "
                    f"(max_dedicated={self._most})"
                )
            )
        want = _Want(db, self._wants.remove)
        self._wants.append(want)
        self._serve()
        return want.deferred

    def give_back(self, link: DedicatedLink) -> None:
        """The caller is done with it, and all that was sent on it has been, or will be, answered.

        It watches nothing, is in no MULTI and in the database in which it was taken.
        """
        if link not in self._used:
            return
        self._used.pop(link, None)
        if self._refusal is None and not link.gone and self._leads_here(link):
            self._rest(link)
            self._serve()
        else:
            self._discard(link)

    def discard(self, link: DedicatedLink) -> None:
        """The caller is done with it, and nobody else can use it."""
        self._discard(link)

    # Inside.

    def _leads_here(self, link: DedicatedLink) -> bool:
        node = self._node
        return node is None or (link.node is node and self._run_id in ("", link.run_id))

    def _serve(self) -> None:
        """Give those who wait what is idle, and dial for the others."""
        for want in self._wants[:]:
            # Whoever gets one may do anything: pause all this, or take the next one.
            link = next((one for one in self._idle if one.db == want.db), None)
            if link is not None and want in self._wants and self._node is not None:
                self._idle.pop(link).cancel()
                self._hand_out(want, link)
        dialled = [link.db for link in self._dials]
        for want in self._wants[:]:
            if want.db in dialled:
                dialled.remove(want.db)
            elif self._node is not None and self._retry is None:
                self._dial(self._node, want.db)

    def _hand_out(self, want: _Want, link: DedicatedLink) -> None:
        self._wants.remove(want)
        self._used[link] = None
        want.deferred.callback(link)

    def _dial(self, node: Node, db: int) -> None:
        link = DedicatedLink(node, self._run_id, db)
        self._left += 1
        dialled = node.dial(db, self._run_id, lambda: self._gone(link))
        self._dials[link] = dialled
        dialled.addCallbacks(self._dialled, self._failed, (link,), {}, (link,), {})

    def _dialled(self, protocol: NodeProtocol, link: DedicatedLink) -> None:
        del self._dials[link]
        self._delay = self._first_delay
        link.established(protocol)
        self._rest(link)
        self._serve()

    def _failed(self, failure: Failure, link: DedicatedLink) -> None:
        if self._dials.pop(link, None) is None:
            return  # given up
        error = failure.value
        if isinstance(error, ResponseError) and not not_executed(error):
            for want in [want for want in self._wants if want.db == link.db]:
                self._fail(want, ResponseError(*error.args))
        elif self._node is not None and self._retry is None:
            self._retry = self._clock.callLater(self._delay, self._try_again)
            self._delay = min(self._delay * 2, self._max_delay)

    def _try_again(self) -> None:
        self._retry = None
        self._serve()

    def _stop_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _fail(self, want: _Want, error: Exception) -> None:
        if want in self._wants:
            self._wants.remove(want)
            want.deferred.errback(error)

    def _rest(self, link: DedicatedLink) -> None:
        if len(self._idle) >= IDLE_KEPT + len(self._wants):
            self._discard(link)
        else:
            self._idle[link] = self._clock.callLater(IDLE_SECONDS, self._discard, link)

    def _discard(self, link: DedicatedLink) -> None:
        dialled = self._dials.pop(link, None)
        if dialled is not None:
            dialled.cancel()
        self._forget(link)
        link.abort()

    def _forget(self, link: DedicatedLink) -> None:
        self._used.pop(link, None)
        timer = self._idle.pop(link, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _gone(self, link: DedicatedLink) -> None:
        link.gone = True
        if link in self._idle:
            self._forget(link)
        self._left -= 1
        if not self._left:
            closed, self._closed = self._closed, []
            for deferred in closed:
                deferred.callback(None)
