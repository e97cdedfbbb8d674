"""Replication: the stream of writes, its history, and who follows whom.

Offsets count the bytes that the commands would have on the wire. What is replicated together (a
transaction, a script) is one piece of the stream: a replica has all of it or nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .keyspace import Snapshot
from .network import Dial, End

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Effects", "Following", "Replica", "Replication"]

#: What is replicated together: the database and the words of each command.
Effects = list[tuple[int, list[bytes]]]

#: A piece of the stream: the offsets where it begins and ends, its database, what is to be done.
Piece = tuple[int, int, Effects]

NO_ID = "0" * 40
#: How many seconds a replica waits for a silent master before it drops the link.
TIMEOUT = 60.0
_GETACK: Effects = [(0, [b"REPLCONF", b"GETACK", b"*"])]
_PING: Effects = [(0, [b"PING"])]


class Replication:
    """One server's part: as a master, as a replica, or both.

    replid, replid2, second_offset   as INFO tells them
    offset     how far its history reaches
    replicas   the links of those who follow it
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.replid = server.new_id()
        self.replid2 = NO_ID
        self.second_offset = -1
        self.offset = 0
        self.replicas: dict[Replica, None] = {}
        self.following: Following | None = None
        self._backlog: deque[Piece] | None = None
        self._backlog_bytes = 0
        self._backlog_from = 0  # the offset before its first piece
        self._db = -1  # selected in the stream

    @property
    def backlog_size(self) -> int:
        return self._backlog_bytes

    # Whom it follows.

    def follow(self, host: str, port: int) -> bool:
        """SLAVEOF; False when it follows that one already."""
        following = self.following
        if following is not None and (following.host, following.port) == (host, port):
            return False
        can_go_on = True
        if following is not None:
            can_go_on = following.can_go_on
            following.stop()
        elif self._backlog is None:
            self._begin_backlog()
        self._server.unblock_all()
        self._server.world.note(f"{self._server.name} follows {host}:{port}")
        self.following = Following(self._server, host, port, can_go_on)
        self.following.connect()
        return True

    def lead(self) -> None:
        """SLAVEOF NO ONE."""
        if self.following is None:
            return
        self._server.world.note(f"{self._server.name} is promoted at offset {self.offset}")
        self.following.stop()
        self.following = None
        self.replid2, self.second_offset = self.replid, self.offset + 1
        self.replid = self._server.new_id()
        self._db = -1
        self.disconnect_replicas()

    def resume(self, replid: str) -> None:
        """A master goes on with the stream from here, under this id."""
        if replid != self.replid:
            self.replid2, self.second_offset = self.replid, self.offset + 1
            self.replid = replid
            self.disconnect_replicas()
        if self._backlog is None:
            self._begin_backlog()

    def replace(self, replid: str, offset: int) -> None:
        """A master has sent its whole data instead."""
        self.replid, self.replid2, self.second_offset = replid, NO_ID, -1
        self.offset = offset
        self._begin_backlog()
        self.disconnect_replicas()

    def _begin_backlog(self) -> None:
        self._backlog = deque()
        self._backlog_bytes = 0
        self._backlog_from = self.offset

    def disconnect_replicas(self) -> None:
        replicas, self.replicas = self.replicas, {}
        for replica in replicas:
            replica.end.close()

    # The stream.

    def feed(self, effects: Effects) -> None:
        """What this master has done is to be replicated."""
        if self._backlog is None:
            return
        size = 0 if len(effects) == 1 else 29  # MULTI and EXEC
        for db, words in effects:
            if db != self._db:
                self._db = db
                size += 22 + (db > 9)
            for word in words:
                size += len(word) + 6 if len(word) > 9 else len(word) + 5
            size += 4
        self._emit((self.offset, self.offset + size, effects))

    def _emit(self, piece: Piece) -> None:
        self.offset = piece[1]
        backlog = self._backlog
        assert backlog is not None
        backlog.append(piece)
        self._backlog_bytes += piece[1] - piece[0]
        while self._backlog_bytes > self._server.backlog_size:
            begin, self._backlog_from, _ = backlog.popleft()
            self._backlog_bytes -= self._backlog_from - begin
        for replica in self.replicas:
            replica.send(piece)

    def take(self, piece: Piece) -> None:
        """A piece from the master: apply it, and pass it on to those who follow us."""
        begin, _, effects = piece
        assert begin == self.offset, f"{self._server.name}: {piece} at offset {self.offset}"
        if effects is not _PING and effects is not _GETACK:
            self._server.obey(effects)
        elif effects is _GETACK and self.following is not None:
            self.following.acknowledge()  # what came before
        self._emit(piece)

    def ask_for_acks(self) -> None:
        if self.following is None and self.replicas:
            self._emit((self.offset, self.offset + 37, _GETACK))

    def acknowledged(self, offset: int) -> int:
        """How many replicas have confirmed this much."""
        return sum(replica.online and replica.acked >= offset for replica in self.replicas)

    def good_replicas(self, max_lag: int) -> int:
        """How many are online and were heard of within so many seconds."""
        now = self._server.seconds()
        return sum(r.online and now - r.acked_at <= max_lag for r in self.replicas)

    # Its replicas.

    def greet(self, end: End, items: list[Any]) -> None:
        """A server has dialled this one."""
        replica = Replica(self._server, end)
        end.handler = replica
        replica.received(items)

    def admit(self, replica: Replica, replid: str | None, offset: int) -> None:
        """PSYNC: go on at that offset of that history, or send everything."""
        server = self._server
        if server.loading or (self.following is not None and not self.following.up):
            replica.end.send(("LATER",))
            return
        self.replicas[replica] = None
        if self._holds(replid, offset):
            server.world.note(f"{server.name}: partial resync of {replica.name} at {offset}")
            replica.online = True
            replica.end.send(("CONTINUE", self.replid))
            assert self._backlog is not None
            missing = []
            for piece in reversed(self._backlog):
                if piece[1] <= offset:
                    break
                missing.append(piece)
            for piece in reversed(missing):
                replica.end.send(piece)
            return
        if self._backlog is None:
            # What was before was not kept: nobody can go on from there.
            self.replid, self.replid2, self.second_offset = server.new_id(), NO_ID, -1
            self._begin_backlog()
        server.world.note(f"{server.name}: full resync of {replica.name}, which was at {offset}")
        server.later(server.chance(*server.fork_time), self._fork, replica)

    def _holds(self, replid: str | None, offset: int) -> bool:
        ours = replid == self.replid or (
            replid == self.replid2 and offset + 1 <= self.second_offset
        )
        return ours and self._backlog is not None and self._backlog_from <= offset <= self.offset

    def _fork(self, replica: Replica) -> None:
        if replica.end.closed:
            return
        if self.following is not None and not self.following.up:
            replica.end.close()
            return
        server = self._server
        replica.end.send(("FULL", self.replid, self.offset))
        replica.backlog = []
        snapshot = server.keys.snapshot()
        self._db = -1
        server.later(server.chance(*server.transfer_time), self._transfer, replica, snapshot)

    @staticmethod
    def _transfer(replica: Replica, snapshot: Snapshot) -> None:
        replica.end.send(("DATA", snapshot))

    # Every second.

    def beat(self, count: int) -> None:
        following = self.following
        if following is not None:
            following.beat()
        elif self.replicas and count % self._server.ping_period == 0:
            self._emit((self.offset, self.offset + 14, _PING))


class Replica:
    """A link of somebody who follows this server."""

    def __init__(self, server: Server, end: End) -> None:
        self._server = server
        self.end = end
        self.name = end.peer.owner.name
        self.online = False
        self.backlog: list[Piece] | None = None  # what is to follow the data, until it is online
        self.acked = 0
        self.acked_at = server.seconds()

    def send(self, piece: Piece) -> None:
        if self.online:
            self.end.send(piece)
        elif self.backlog is not None:
            self.backlog.append(piece)

    def received(self, items: list[Any]) -> None:
        for item in items:
            if item[0] == "PSYNC":
                self._server.replication.admit(self, item[1], item[2])
            else:
                self._acknowledged(item[1])

    def _acknowledged(self, offset: int) -> None:
        self.acked = offset
        self.acked_at = self._server.seconds()
        if self.backlog is not None:
            # Only now it gets what has been written since.
            backlog, self.backlog = self.backlog, None
            self.online = True
            for piece in backlog:
                self.end.send(piece)
        self._server.count_acks()

    def ended(self, clean: bool) -> None:
        self._server.replication.replicas.pop(self, None)


class Following:
    """A replica's link to its master.

    state       "connect" (to be dialled), "connecting", "handshake", "transfer" or "connected"
    can_go_on   whether it may ask to go on where it is: not while its data are being replaced
    heard_at    when the master last sent anything, in seconds; None when not connected
    down_since  when the link went down; 0 when it is up or never was
    """

    def __init__(self, server: Server, host: str, port: int, can_go_on: bool) -> None:
        self._server = server
        self.host = host
        self.port = port
        self.state = "connect"
        self.can_go_on = can_go_on
        self.heard_at = server.seconds()
        self.down_since = 0.0
        self._began = server.seconds()
        self._end: End | None = None
        self._dial: Dial | None = None
        self._promised = (NO_ID, 0)

    @property
    def up(self) -> bool:
        return self.state == "connected"

    def connect(self) -> None:
        self.state = "connecting"
        self._began = self._server.seconds()
        network = self._server.world.network
        self._dial = network.dial(self._server, self.host, self.port, self)

    def stop(self) -> None:
        """Give it up."""
        self.state = "stopped"
        if self._dial is not None:
            self._dial.cancelled = True
        if self._end is not None:
            self._end.close()
            self._end = None

    def beat(self) -> None:
        """Once a second: dial again, or tell the master how far we are."""
        if self.state == "connect":
            self.connect()
        elif self._server.seconds() - (self.heard_at if self.up else self._began) > TIMEOUT:
            if self._dial is not None:
                self._dial.cancelled = True
            if self._end is not None:
                self._end.close()
            self.ended(False)
        elif self.up:
            self.acknowledge()

    def acknowledge(self) -> None:
        if self._end is not None:
            self._end.send(("ACK", self._server.replication.offset))

    # What the network and the master tell.

    def connected(self, end: End) -> None:
        self._end = end
        self.state = "handshake"
        replication = self._server.replication
        replid = replication.replid if self.can_go_on else None
        end.send(("PSYNC", replid, replication.offset))

    def refused(self) -> None:
        self.state = "connect"

    def received(self, items: list[Any]) -> None:
        server = self._server
        replication = server.replication
        self.heard_at = server.seconds()
        for item in items:
            kind = item[0]
            if kind.__class__ is int:
                replication.take(item)
                if self._end is None:
                    return
            elif kind == "CONTINUE":
                replication.resume(item[1])
                self._is_up()
            elif kind == "FULL":
                self.state = "transfer"
                self.can_go_on = False
                self._promised = item[1], item[2]
            elif kind == "DATA":
                server.world.note(f"{server.name} takes the data of {self.host}:{self.port}")
                server.load(item[1])
                replication.replace(*self._promised)
                self._is_up()
                if server.world.random.random() < 0.5:  # some do, some wait for a second
                    self.acknowledge()
            else:  # it cannot yet
                assert self._end is not None
                self._end.close()
                self._end = None
                self.state = "connect"
                return

    def _is_up(self) -> None:
        self.state = "connected"
        self.can_go_on = True
        self.down_since = 0.0

    def ended(self, clean: bool) -> None:
        was_up = self.up
        self._end = None
        self.state = "connect"
        if was_up:
            self.down_since = self._server.seconds()
            self.connect()  # once, at once; then every second
