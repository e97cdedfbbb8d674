"""ReplicaReads: the reads that replicas may answer, and which replica answers them."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txharedis.commands import CommandInfo, describe
from txharedis.deadlines import Deadlines
from txharedis.errors import HARedisError, NoMaster, OutcomeUnknown, ServiceStopped
from txharedis.group import NodeGroup
from txharedis.interfaces import Args, Clock, Timer, Waiter
from txharedis.log import ClientLog
from txharedis.node import Node
from txharedis.options import Options, Terms
from txharedis.pending import PendingCommands
from txharedis.reads.choice import WORDS, nearest, targets
from txharedis.reads.lag import OwnWrites
from txharedis.reads.own_writes import INFO, Place, Proof
from txharedis.reads.read import Read
from txharedis.reads.replicas import Replicas
from txharedis.replies import converter, not_executed
from txharedis.topology import Address, NodeView

__all__ = ["ReplicaReads"]


class _Other(enum.Enum):
    """Where a read goes that goes to no replica."""

    MASTER = enum.auto()
    NOWHERE = enum.auto()  # it waits for one that may answer it


class ReplicaReads:
    """Sends reads to the nodes that may answer them.

    Those for the master go to its queue, `pending`. Those for replicas go over the nodes' command
    links, one write per node and reactor turn; when a link dies, or a node turns a read away, it
    goes elsewhere. The first reads wait until it is known who is fit.

    `master()` is the master that is followed, None while it is out of reach.
    """

    def __init__(
        self,
        clock: Clock,
        group: NodeGroup,
        options: Options,
        pending: PendingCommands,
        log: ClientLog,
        master: Callable[[], NodeView | None],
    ) -> None:
        self._clock = clock
        self._group = group
        self._options = options
        self._pending = pending
        self._log = log
        self._master = master
        self._convert = converter(options.charset, options.convert_numbers)
        self._replicas = Replicas(clock, group, options, master, self._retry)
        self._fit: Mapping[Address, Node] | None = None  # in this turn
        self._turn_call: Timer | None = None
        self._retry_due = False
        self._turns = 0
        self._nearest: Address | None = None
        self._outgoing: dict[Node, list[Read]] = {}
        self._waiting: deque[Read] = deque()
        self._at_master: dict[Read, None] = {}  # those that a replica may answer just as well
        self._deadlines = Deadlines(clock, self._expire)
        self._stopped: Callable[[bool | None], HARedisError] | None = None

    @property
    def db(self) -> int:
        """The database of the reads that are added."""
        return self._pending.db

    def start(self) -> None:
        """The service has started."""
        if self._options.read_from != "master":
            self._replicas.watch()

    def add(self, args: Args, packed: bytes, info: CommandInfo, terms: Terms) -> Deferred[object]:
        """Take a read that a replica can answer; the Deferred fires with its converted reply.

        It fails as those of PendingCommands do; NoMaster then says which policy found nobody.
        """
        if not self._replicas.watched and self._stopped is None:
            self._replicas.watch()
        if self._goes_to_master(terms):
            return self._submit(args, packed, terms, self.db)
        error = self._pending.reserve(len(packed))
        if error is not None:
            return fail(error)
        read = Read(self, args, packed, info, terms)
        if terms.timeout is not None:
            self._deadlines.add(read, terms.timeout)
        deferred = read.deferred
        assert deferred is not None
        self._put(read, self._choose(terms, read.db))
        return deferred

    # Where a read goes.

    def _put(self, read: Read, where: Node | _Other) -> None:
        if where is _Other.MASTER:
            self._at_master[read] = None
            self._to_master(read)
        elif where is _Other.NOWHERE:
            self._waiting.append(read)
        else:
            self._outgoing.setdefault(where, []).append(read)

    def _goes_to_master(self, terms: Terms) -> bool:
        """Whether only the master may answer this read."""
        writes = terms.own_writes
        return terms.read_from == "master" or (writes is not None and not writes.settled)

    def _choose(self, terms: Terms, db: int) -> Node | _Other:
        """The replica for a read of this database, or else."""
        # What waited while another database was selected finds no replica's link for its own.
        if self._goes_to_master(terms) or db != self.db:
            return _Other.MASTER
        policy = terms.read_from
        replicas = self._fit_for(terms.own_writes)
        if not replicas and self._replicas.unknown and policy != "master_preferred":
            return _Other.NOWHERE
        master = None if self._pending.held else self._master_address
        nodes = targets(policy, master, list(replicas))
        if not nodes:
            return _Other.NOWHERE
        self._turns += 1
        address = nodes[self._turns % len(nodes)]
        if policy == "nearest":
            address = self._nearest_of(nodes) or address
        return replicas.get(address, _Other.MASTER)

    def _nearest_of(self, nodes: Sequence[Address]) -> Address | None:
        trips = {node: self._group[node].round_trip for node in nodes}
        known = {node: trip for node, trip in trips.items() if trip is not None}
        self._nearest = nearest(self._nearest, known)
        return self._nearest

    def _fit_for(self, writes: OwnWrites | None) -> Mapping[Address, Node]:
        """Those that may be read from in this turn, and may have these writes."""
        if self._fit is None:
            self._fit = self._replicas.fit(self.db)
            self._next_turn()
        if writes is None:
            return self._fit
        return {address: node for address, node in self._fit.items() if _may_have(node, writes)}

    # To the master.

    @property
    def _master_address(self) -> Address | None:
        master = self._master()
        return None if master is None else master.address

    def _submit(
        self, args: Args, packed: bytes, terms: Terms, db: int, *, reserved: bool = False
    ) -> Deferred[object]:
        self._tell(args, self._master_address, terms)
        reply = self._pending.add(args, packed, True, db, reserved=reserved)
        if terms.own_writes is not None:
            self._ask_place(terms.own_writes)
        return reply

    def _ask_place(self, writes: OwnWrites) -> None:
        """Ask the master for the place that a replica must have come to."""
        mark, master = writes.answered, self._master_address
        if master is None or self._pending.held:
            return  # the next read asks
        if mark is not None and not writes.settled:
            self._group[master].send([INFO], [Place(writes, mark)])

    def _to_master(self, read: Read) -> None:
        read.node = None
        read.at_master = self._submit(read.args, read.packed, read.terms, read.db, reserved=True)
        read.at_master.addCallbacks(
            self._answered, self._failed, callbackArgs=(read,), errbackArgs=(read,)
        )

    def _answered(self, reply: object, read: Read) -> None:
        self._at_master.pop(read, None)
        deferred, read.deferred = read.deferred, None
        if deferred is not None:
            deferred.callback(reply)

    def _failed(self, failure: Failure, read: Read) -> None:
        if read.at_master is None:
            return  # it was taken back
        self._at_master.pop(read, None)
        deferred, read.deferred = read.deferred, None
        if deferred is not None:
            deferred.errback(failure)

    def _take_back(self) -> None:
        """Let replicas answer what the master was to answer, now that there is none."""
        for read in list(self._at_master):
            where = self._choose(read.terms, read.db)
            if isinstance(where, _Other) or read.at_master is None:
                continue
            self._pending.keep(len(read.packed))  # before, or the queue may be idle for a moment
            self._at_master.pop(read, None)
            queued, read.at_master = read.at_master, None
            queued.cancel()
            self._put(read, where)

    # To replicas, once a turn.

    def _next_turn(self) -> None:
        if self._turn_call is None and self._stopped is None:
            self._turn_call = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._turn_call = None
        self._fit = None
        outgoing, self._outgoing = self._outgoing, {}
        for node, reads in outgoing.items():
            # Another database may have been selected since they were given to it.
            self._write(node, [one for one in reads if one.deferred and one.db == node.db])
            self._return(*(one for one in reads if one.deferred and one.node is None))
        if self._retry_due:
            self._retry()

    def _write(self, node: Node, reads: list[Read]) -> None:
        if not reads:
            return
        packed: list[bytes] = []
        waiters: list[Waiter] = []
        proofs: dict[OwnWrites, Proof] = {}
        for read in reads:
            writes = read.terms.own_writes
            read.proof = None
            if writes is not None and writes.token is not None:
                if writes not in proofs:
                    proofs[writes] = Proof(node.address, writes, writes.token)
                    packed.append(INFO)
                    waiters.append(proofs[writes])
                read.proof = proofs[writes]
            packed.append(read.as_sent)
            waiters.append(read)
        if not node.send(packed, waiters):
            self._replicas.shun(node)
            return
        for read in reads:
            read.node = node
            self._tell(read.args, node.address, read.terms)

    def _tell(self, args: Args, node: Address | None, terms: Terms) -> None:
        if self._options.command_logging:
            self._log.info(
                "{command} on {node} ({terms})",
                command=describe(args).name.lower(),
                node=node or "nobody yet",
                terms=WORDS[terms.read_from],
            )

    def _retry(self) -> None:
        """Look again where those who wait can go."""
        self._retry_due = False
        self._fit = None
        waiting, self._waiting = self._waiting, deque()
        for read in waiting:
            if read.deferred is None:
                continue
            refusal = self._pending.refusal
            if refusal is None:
                self._put(read, self._choose(read.terms, read.db))
            else:
                self._finish(read, refusal)
        if self._pending.held and self._pending.refusal is None:
            self._take_back()

    # What becomes of a read.

    def settled(self, read: Read, reply: object) -> None:
        node, read.node = read.node, None
        if read.deferred is None:
            self._pending.release(len(read.packed))
        elif isinstance(reply, Exception) and not_executed(reply):
            if node is not None:
                self._replicas.shun(node)
            self._return(read)
        elif (read.proof is not None and not read.proof.holds) or self._only_here(read, reply):
            self._to_master(read)
        elif isinstance(reply, Exception):
            self._finish(read, reply)
        else:
            deferred, read.deferred = read.deferred, None
            self._pending.release(len(read.packed))
            deferred.callback(reply if self._convert is None else self._convert(reply))

    def _only_here(self, read: Read, reply: object) -> bool:
        """Whether a replica lacks a script, or the name that only replicas are told."""
        if not isinstance(reply, Exception):
            return False
        text = str(reply)
        other_name = read.info.replica != read.info.name
        return text.startswith("NOSCRIPT") or (
            other_name and text.startswith(("ERR unknown command", "NOPERM"))
        )

    def lost(self, read: Read) -> None:
        read.node = None
        if self._stopped is not None:
            self._finish(read, self._stopped(None))
        elif read.deferred is None:
            self._pending.release(len(read.packed))
        else:
            self._return(read)

    def _return(self, *reads: Read) -> None:
        """Let them go elsewhere, in another turn: this link is about to be known as lost."""
        if self._stopped is not None:
            for read in reads:
                self._finish(read, self._stopped(False))
        elif reads:
            self._waiting.extend(reads)
            self.news()

    def cancelled(self, read: Read) -> None:
        read.deferred = None
        if read.at_master is not None:
            read.at_master.cancel()
        elif read.node is None:
            self._pending.release(len(read.packed))

    def _finish(self, read: Read, error: Exception) -> None:
        self._pending.release(len(read.packed))
        deferred, read.deferred = read.deferred, None
        if deferred is not None:
            deferred.errback(error)

    # What the service tells.

    def heard(self, node: Node) -> None:
        """A node answered a PING, or said how its replication stands."""
        if self._replicas.watched:
            self._replicas.heard(node)
            self.news()

    def ready(self, node: Node) -> None:
        """A node's command link can be used."""
        self._replicas.linked(node)
        self.news()

    def master_changed(self) -> None:
        """Commands go to another master."""
        self._replicas.ask()
        self.news()

    def news(self) -> None:
        """What waits may be able to go."""
        self._fit = None
        if self._waiting or (self._at_master and self._pending.held):
            self._retry_due = True
            self._next_turn()

    def stop(self) -> None:
        """Fail what waits with ServiceStopped, and what was sent when its link is aborted."""

        def why(executed: bool | None) -> HARedisError:
            return ServiceStopped("the service was stopped", executed)

        self._stopped = why
        self._replicas.stop()
        self._deadlines.stop()
        if self._turn_call is not None and self._turn_call.active():
            self._turn_call.cancel()
        self._turn_call = None
        unsent = [read for reads in self._outgoing.values() for read in reads] + [*self._waiting]
        self._outgoing.clear()
        self._waiting.clear()
        self._at_master.clear()
        for read in unsent:
            if read.deferred is not None:
                self._finish(read, why(False))

    # Timeouts.

    def _expire(self, read: Read) -> None:
        deferred = read.deferred
        assert deferred is not None
        where = f"read_from={read.terms.read_from!r}"
        took = f"within {self._options.command_timeout} s ({where})"
        at_master = read.at_master is not None and not self._pending.held
        sent = read.node is not None or at_master
        self.cancelled(read)
        if sent:
            text = f"{read.info.name} was sent, and no reply {took}"
            deferred.errback(OutcomeUnknown(text, read.args))
        else:
            deferred.errback(NoMaster(f"no node took the read {took}"))


def _may_have(node: Node, writes: OwnWrites) -> bool:
    return node.replication is not None and writes.may_ask(node.address, node.replication)
