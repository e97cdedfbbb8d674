"""A master as the users of dedicated links see it: dials, which the test accepts and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.unit.fakes import Dial, FakeReactor
from txharedis.dedicated.links import DedicatedLinks, DedicatedTerms
from txharedis.interfaces import Args
from txharedis.node import Node
from txharedis.options import Options
from txharedis.replies import converter, not_executed
from txharedis.topology import Address

COUNTER = ("haredis:opcounter", 15)


def info(run_id: str) -> bytes:
    return b"run_id:%b\r\nredis_version:7.0.15\r\nuptime_in_seconds:1\r\n" % run_id.encode()


class FakeMasters:
    """Dedicated links on a fake reactor, to nodes that exist as far as the test plays them."""

    def __init__(self, *, counter: tuple[str, int] | None = COUNTER, **options: Any) -> None:
        self.reactor = FakeReactor()
        self.options = Options(**options)
        self.links = DedicatedLinks(self.reactor, self.options)
        self.turned_away: list[str] = []
        self.terms = DedicatedTerms(
            counter=counter,
            convert=converter(self.options.charset, self.options.convert_numbers),
            may_retry=not_executed,
            turned_away=self._turned_away,
        )
        self.nodes: dict[int, Node] = {}

    def _turned_away(self, error: Exception) -> None:
        self.turned_away.append(str(error))
        self.links.lead_to(None)

    def lead_to(self, number: int, run_id: str = "r") -> None:
        """The master is node `number`, in this incarnation."""
        observer: Any = None
        if number not in self.nodes:
            self.nodes[number] = Node(self.reactor, Address("n", number), self.options, observer)
        self.links.lead_to(self.nodes[number], f"{run_id}{number}")

    @property
    def dialling(self) -> list[Dial]:
        """The attempts that are neither accepted nor over."""
        return [dial for dial in self.reactor.dials if dial.protocol is None and not dial.over]

    def accept(self, run_id: str = "r") -> Dial:
        """The oldest attempt succeeds, and shakes hands; its link's id is 100 and up."""
        dial = self.dialling[0].accept()
        port = dial.getPeer().port
        assert dial.commands()[-1] == [b"INFO", b"server"]
        dial.answer("OK", info(f"{run_id}{port}"))
        if dial.written:
            [first, *rest] = [pack_again(command) for command in dial.commands()]
            assert first == pack_again([b"CLIENT", b"ID"])
            dial.written = b"".join(rest)
            dial.answer(100 + self.reactor.dials.index(dial))
        return dial


def pack_again(command: list[bytes]) -> bytes:
    words = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command)
    return b"*%d\r\n%b" % (len(command), words)


def outcome(deferred: Deferred[Any]) -> list[Any]:
    """A list that gets the result, or the error, of this Deferred."""
    got: list[Any] = []
    deferred.addCallbacks(got.append, lambda failure: got.append(failure.value))
    return got


class FakeQueue:
    """The ordinary queue: takes commands, and answers when told to."""

    def __init__(self) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self.dbs: list[int | None] = []  # those that they are meant for
        self.deferreds: list[Deferred[Any]] = []
        self.refuse: Callable[[], Exception] | None = None

    def add(
        self, args: Args, packed: bytes, read: bool, db: int | None = None, *, fit: int = 0
    ) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred()
        self.commands.append(tuple(args))
        self.dbs.append(db)
        self.deferreds.append(deferred)
        if self.refuse is not None:
            deferred.errback(self.refuse())
        return deferred
