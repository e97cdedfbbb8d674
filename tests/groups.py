"""What the servers of a group say, asked one by one from outside; and clients under watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList

from tests.support import PATIENCE, eventually
from txharedis import HAClient
from txharedis.events import Event, MasterChanged
from txharedis.testing.servers import LocalServer
from txharedis.topology import META_KEY, OPCOUNTER_KEY

__all__ = [
    "DURABLE",
    "OWN_DB",
    "SomeEvent",
    "WatchedClient",
    "answer",
    "append_to_file",
    "at_once",
    "follow",
    "keys_of",
    "meta_of",
    "opcounter_of",
    "promotions",
    "replicates",
    "settled",
    "until_settled",
]

OWN_DB = 15

DURABLE = ("--appendonly", "yes", "--appendfsync", "no")
"""Options of a server that keeps what it acknowledged over a kill: it writes its file before it
replies. ("everysec" may put that off while the disk is busy, and "always" is slow.)"""

SomeEvent = TypeVar("SomeEvent", bound=Event)


class WatchedClient:
    """A client and all that it told: `events`, in their order.

    Each function in `listeners` is called with each event, at the moment in which it is told.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.listeners: list[Callable[[Event], object]] = []
        self.client: HAClient  # set by whoever makes it

    def tell(self, event: Event) -> None:
        """What the client calls."""
        self.events.append(event)
        for listener in self.listeners:
            listener(event)

    def seen(self, kind: type[SomeEvent]) -> list[SomeEvent]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def masters(self) -> list[str]:
        """The addresses of all masters it has followed, in order."""
        return [str(event.new) for event in self.seen(MasterChanged)]

    async def until(self, kind: type[SomeEvent], text: str = "", timeout: float = PATIENCE) -> Any:
        """The first event of a kind whose repr contains `text`, now or later."""

        def first() -> SomeEvent | None:
            return next((event for event in self.seen(kind) if text in repr(event)), None)

        return await eventually(first, timeout)


def answer(reply: Deferred[Any], timeout: float = PATIENCE) -> Deferred[Any]:
    """The reply of a client, which must be there within `timeout` seconds."""
    return reply.addTimeout(timeout, running())


def running() -> Any:
    from twisted.internet import reactor

    return reactor


async def at_once(coroutines: Iterable[Any]) -> list[Any]:
    """Await all of them, side by side; raise the first error, when all have ended."""

    async def awaited(one: Any) -> Any:
        return await one

    outcomes = await DeferredList(
        [Deferred.fromCoroutine(awaited(one)) for one in coroutines], consumeErrors=True
    )
    for succeeded, result in outcomes:
        if not succeeded:
            result.raiseException()
    return [result for _, result in outcomes]


async def follow(replica: LocalServer, master: LocalServer) -> None:
    """Make a server the replica of another, and return when its link is up."""
    await replica.call("SLAVEOF", "127.0.0.1", master.port)
    await eventually(lambda: replicates(replica, master, read_only=None))


async def replicates(
    replica: LocalServer, master: LocalServer, *, read_only: bool | None = True
) -> bool:
    """Whether it is a replica of that master, read-only, with its link up."""
    info = await replica.info("replication")
    return (
        info["role"] == "slave"
        and info["master_port"] == str(master.port)
        and info["master_link_status"] == "up"
        and read_only in (None, info["slave_read_only"] == "1")
    )


async def settled(servers: Sequence[LocalServer]) -> LocalServer | None:
    """The master, when one of these servers is it and all the others replicate it."""
    infos = await at_once(server.info("replication") for server in servers)
    masters = [
        server for server, info in zip(servers, infos, strict=True) if info["role"] == "master"
    ]
    if len(masters) != 1:
        return None
    [master] = masters
    others = [server for server in servers if server is not master]
    replicating = await at_once(replicates(server, master) for server in others)
    return master if all(replicating) else None


async def until_settled(servers: Sequence[LocalServer], timeout: float = PATIENCE) -> LocalServer:
    """Wait until these are one group; returns its master."""
    master = await eventually(lambda: settled(servers), timeout)
    assert isinstance(master, LocalServer)
    return master


async def meta_of(server: LocalServer) -> dict[str, str]:
    """The meta of the group, as this server has it; empty for none."""
    flat = [item.decode() for item in await server.call("HGETALL", META_KEY, db=OWN_DB)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


async def opcounter_of(server: LocalServer) -> int:
    return int(await server.call("GET", OPCOUNTER_KEY, db=OWN_DB) or 0)


async def keys_of(server: LocalServer) -> set[str]:
    """The names of all keys in database 0."""
    return {key.decode() for key in await server.call("KEYS", "*")}


def promotions(servers: Iterable[LocalServer]) -> int:
    """How many times any of these replicas was made a master."""
    # Redis writes MASTER, Valkey PRIMARY.
    return sum(server.count_in_log(" MODE enabled (") for server in servers)


def append_to_file(server: LocalServer, *commands: Sequence[str | int]) -> None:
    """Add commands to the append-only file of a server that is down."""
    files = (server.directory / "appendonlydir").glob("*.incr.aof")
    newest = max(files, key=lambda path: int(path.name.split(".")[-3]))
    with newest.open("ab") as file:
        for words in commands:
            file.write(b"*%d\r\n" % len(words))
            for text in (str(word).encode() for word in words):
                file.write(b"$%d\r\n%s\r\n" % (len(text), text))
