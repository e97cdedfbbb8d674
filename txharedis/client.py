"""HAClient: the Redis commands; it submits them, nothing else.

It stands below the service that owns it: of the service it knows only what `Group` says.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from txredisapi import BaseRedisProtocol, InvalidData

from txharedis.commands import method_names, method_words
from txharedis.errors import UnsupportedCommand
from txharedis.interfaces import Args, pack
from txharedis.options import Options
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

    def submit(self, args: Args, packed: bytes) -> Deferred[object]: ...

    def when_ready(self) -> Deferred[None]: ...

    def drain(self) -> Coroutine[Deferred[Any], Any, None]: ...

    def stopService(self) -> Deferred[object]: ...


class HAClient(BaseRedisProtocol):
    """A client of a highly available group: any Redis client, only that its server does not die.

    It has every method of txredisapi with its signature and its reply conversion, and every other
    command of the servers under its own name: `client.xadd("s", "*", "f", "v")`,
    `client.config_get("maxmemory")`. `execute_command("ANY", ...)` sends what has no name here.
    All return Deferreds; FailoverService.submit lists how they can fail.

    Arguments are str (encoded with `charset`), bytes, int, float (in full, as repr writes it), or
    anything else as its str; None is an InvalidData error.
    """

    def __init__(self, group: Group) -> None:
        options = group.options
        super().__init__(
            charset=options.charset,
            errors=options.errors,
            convertNumbers=options.convert_numbers,
        )
        self._group = group
        self._charset = options.charset or "utf-8"
        self._errors = options.errors
        self._plain_text = options.errors == "strict" and (
            options.charset is None or options.charset.lower().replace("_", "-") == "utf-8"
        )

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

    def execute_command(
        self,
        *args: Any,
        post_proc: Callable[[Any], Any] | None = None,
        apply_timeout: bool = True,
    ) -> Deferred[Any]:
        """Run any command; `post_proc` is applied to its reply.

        `apply_timeout` is txredisapi's and has no meaning here. An argument that cannot be encoded
        raises InvalidData, which names it.
        """
        try:
            packed = pack(args) if self._plain_text and args else self._pack(args)
        except (TypeError, UnicodeEncodeError):
            packed = self._pack(args)
        result: Deferred[Any] = self._group.submit(args, packed)
        return result if post_proc is None else result.addCallback(post_proc)

    def _pack(self, args: tuple[Any, ...]) -> bytes:
        """What hiredis cannot encode by itself, or an error that names what cannot be."""
        if not args:
            raise InvalidData("no command given")
        return pack(tuple(self._encode(args, arg) for arg in args))

    def _encode(self, args: tuple[Any, ...], arg: object) -> bytes | int | float:
        if type(arg) in (int, float):
            return arg  # type: ignore[return-value]  # bool and the like are written as their str
        if isinstance(arg, (bytes, bytearray, memoryview)):
            return bytes(arg)
        if arg is None:
            raise InvalidData(f"{args[0]}: None is not a value Redis can hold (in {args!r:.200})")
        try:
            return str(arg).encode(self._charset, self._errors)
        except UnicodeEncodeError as error:
            raise InvalidData(f"{args[0]}: cannot encode {arg!r}: {error}") from error

    def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]:
        words = method_words(name)
        if words is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def command(*args: Any) -> Deferred[Any]:
            return self.execute_command(*words, *args)

        command.__name__ = name
        command.__doc__ = f"The Redis command {' '.join(words)}, arguments and reply as they are."
        return command

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *method_names()})

    # txredisapi keeps the state of transactions and pipelines in the connection. Here nobody has
    # one for himself, and the service says so.

    def multi(self, keys: object = None) -> Deferred[Any]:
        return self.execute_command("MULTI")

    def watch(self, keys: Any) -> Deferred[Any]:
        return self.execute_command("WATCH", *([keys] if isinstance(keys, str) else keys))

    def commit(self) -> Deferred[Any]:
        return self.execute_command("EXEC")

    def discard(self) -> Deferred[Any]:
        return self.execute_command("DISCARD")

    def pipeline(self) -> Deferred[Any]:
        """Not here, and not needed: the commands of one reactor turn leave in one write."""
        return fail(UnsupportedCommand("no pipeline(): commands of one turn leave in one write"))

    execute_pipeline = pipeline

    def shutdown(self) -> Deferred[Any]:
        """Shut the master down: the others then replace it."""
        return self.execute_command("SHUTDOWN")

    def quit(self) -> Deferred[None]:
        """Wait until all commands are answered, then close; fires when the last link is gone."""

        async def drain_and_stop() -> None:
            await self._group.drain()
            await self._group.stopService()

        return Deferred.fromCoroutine(drain_and_stop())

    def disconnect(self) -> Deferred[object]:
        """Close now: what is pending fails with ServiceStopped; fires when the links are gone."""
        return self._group.stopService()
