"""HAClient: the Redis commands; it submits them, nothing else.

It stands below the service that owns it: of the service it knows only what `Group` says.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed

from txharedis.errors import UnsupportedCommand
from txharedis.interfaces import Args
from txharedis.methods import CommandMethods
from txharedis.options import Options, Terms
from txharedis.pipeline import Pipeline
from txharedis.topology import Topology

__all__ = ["Group", "HAClient"]


class Group(Protocol):
    """What a client needs of the service behind it."""

    @property
    def options(self) -> Options: ...

    @property
    def master(self) -> str | None: ...

    @property
    def topology(self) -> Topology: ...

    def submit(self, args: Args, packed: bytes, terms: Terms) -> Deferred[object]: ...

    def begin(self, keys: Any, *, multi: bool) -> Deferred[Any]: ...

    def transact(
        self, function: Callable[[Any], Any], keys: tuple[Any, ...], attempts: int
    ) -> Deferred[list[Any]]: ...

    def monitor(self, on_line: Callable[[str], object]) -> Deferred[Any]: ...

    def when_ready(self) -> Deferred[None]: ...

    def drain(self) -> Coroutine[Deferred[Any], Any, None]: ...

    def stopService(self) -> Deferred[object]: ...


class HAClient(CommandMethods):
    """A client of a highly available group: any Redis client, only that its server does not die.

    It has every method of txredisapi with its signature and its reply conversion, and every other
    command of the servers under its own name: `client.xadd("s", "*", "f", "v")`,
    `client.config_get("maxmemory")`. `execute_command("ANY", ...)` sends what has no name here.
    All return Deferreds; FailoverService.submit lists how they can fail.

    Arguments are str (encoded with `charset`), bytes, int, float (in full, as repr writes it), or
    anything else as its str; None is an InvalidData error.
    """

    def __init__(self, group: Group, terms: Terms | None = None) -> None:
        super().__init__(group.options)
        self._group = group
        self._terms = group.options.terms if terms is None else terms

    def __repr__(self) -> str:
        return f"<HAClient of {self._group!r}>"

    @property
    def master(self) -> str | None:
        """The node that commands go to, as "host:port"; None while there is none."""
        return self._group.master

    @property
    def topology(self) -> Topology:
        """The picture of the group, as of the newest survey: frozen values."""
        return self._group.topology

    def when_ready(self) -> Deferred[HAClient]:
        """Fires with this client when commands flow to a master.

        Fails with WouldDiscardData, AccessDenied or UnfitNodes when a person has to act first, and
        with ServiceStopped.
        """
        return self._group.when_ready().addCallback(lambda _: self)

    whenConnected = when_ready  # txredisapi's name for it

    def _send(self, args: Args, packed: bytes) -> Deferred[Any]:
        return self._group.submit(args, packed, self._terms)

    # Transactions and pipelines.

    def multi(self, keys: Any = None) -> Deferred[Any]:
        """Begin a transaction on a link of its own.

        Fires with a txharedis.transaction.Transaction. Its commands answer "QUEUED", its
        `commit()` gives the list of their replies. `keys` (one or several) are watched before. It
        waits for a master, for `command_timeout` at most (NoMaster), and fails with QueueFull when
        `max_dedicated` links are in use or waited for, and with what else ends a command.
        """
        return self._group.begin(keys, multi=True)

    def watch(self, keys: Any) -> Deferred[Any]:
        """Begin a transaction by watching keys; its commands run at once until its `multi()`.

        As `multi` otherwise.
        """
        return self._group.begin(keys, multi=False)

    def transaction(
        self, function: Callable[[Any], Any], *keys: Any, attempts: int = 50
    ) -> Deferred[list[Any]]:
        """Run a whole transaction, and again when it met another one.

        Watches `keys` and calls `function(tx)`, which may return a Deferred or be a coroutine
        function. What it reads with `tx` is read at once; after `tx.multi()` its commands are
        queued, and EXEC follows when it has returned. Fires with the list of EXEC's replies (a
        command that failed stands there as its ResponseError), or with an empty list when
        `function` has queued nothing: without multi() there is nothing to execute.

        `function` is called again, after a moment, when a watched key was changed, and after a
        failover when EXEC had not been sent or was refused; so it should do nothing but use `tx`.
        What it writes before `tx.multi()` is not taken back. Fails with
          WatchError       in none of `attempts` was nobody else faster;
          TransactionLost  the reply to EXEC was lost with its link (executed=None), or there was a
                           failover in the last attempt;
          ResponseError    a command was refused when it was queued (EXECABORT): nothing was done;
          what `function` raises: then the transaction is given up;
          what `multi` fails with.
        """
        return self._group.transact(function, keys, attempts)

    def commit(self) -> Deferred[Any]:
        """Not here: a transaction has it, and `multi()` gives one."""
        return self.execute_command("EXEC")

    def discard(self) -> Deferred[Any]:
        """Not here: a transaction has it, and `multi()` gives one."""
        return self.execute_command("DISCARD")

    def pipeline(self) -> Deferred[Any]:
        """Fires with a txharedis.pipeline.Pipeline, which keeps commands until they are executed.

        There is little need of it: commands of one reactor turn leave in one write anyway.
        """
        return succeed(Pipeline(self._group.options, self._send))

    def execute_pipeline(self) -> Deferred[Any]:
        """Not here: what `pipeline()` gives has it."""
        return fail(UnsupportedCommand("execute_pipeline() is a method of what pipeline() gives"))

    def monitor(self, on_line: Callable[[str], object]) -> Deferred[Any]:
        """MONITOR on the master: `on_line(line)` is called with each command that it executes.

        The Deferred fires with a txharedis.monitoring.Monitoring when the server has confirmed; its
        `stop()` ends it, and so does the end of the client. After a failover it goes on, on the new
        master; what the old one did meanwhile is missed. An `on_line` that raises is logged. Fails
        with ResponseError where the server refuses.
        """
        return self._group.monitor(on_line)

    def shutdown(self) -> Deferred[Any]:
        """Shut the master down: the others then replace it."""
        return self.execute_command("SHUTDOWN")

    def quit(self) -> Deferred[None]:
        """Wait until all commands are answered, then close; fires when the last link is gone.

        Blocking commands are waited for too: cancel those that would wait for ever.
        """

        async def drain_and_stop() -> None:
            await self._group.drain()
            await self._group.stopService()

        return Deferred.fromCoroutine(drain_and_stop())

    def disconnect(self) -> Deferred[object]:
        """Close now: what is pending fails with ServiceStopped; fires when the links are gone.

        Blocking commands are taken back first, for half a second at most.
        """
        return self._group.stopService()
