"""CommandMethods: a method for every Redis command; whoever has them says where commands go."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from txredisapi import HiredisProtocol, InvalidData

from txharedis.commands import method_names, method_words
from txharedis.interfaces import LONG, Args, pack, pack_long
from txharedis.options import Options

__all__ = ["CommandMethods"]


class CommandMethods(HiredisProtocol):
    """Every method of txredisapi with its signature and its reply conversion.

    And every other command of the servers under its own name: `xadd("s", "*", "f", "v")`,
    `config_get("maxmemory")`.

    It is txredisapi's protocol, never connected: all its methods end in `execute_command`, and that
    one ends in `_send`, which a subclass defines: it runs one command, `packed` being that command
    as it goes over the wire.
    """

    _send: Callable[[Args, bytes], Deferred[Any]]

    def __init__(self, options: Options) -> None:
        super().__init__(
            charset=options.charset,
            errors=options.errors,
            convertNumbers=options.convert_numbers,
        )
        self._charset = options.charset or "utf-8"
        self._errors = options.errors
        self._plain_text = options.errors == "strict" and (
            options.charset is None or options.charset.lower().replace("_", "-") == "utf-8"
        )

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
        # As `_packed`, without a call more for every command; and a long value is copied once.
        try:
            if self._plain_text and args:
                value = args[-1]
                if type(value) is int and len(args) > 3:
                    value = args[2]  # SET key value EX 10
                kind = type(value)
                is_long = (kind is bytes or kind is str) and len(value) >= LONG
                packed = pack_long(args) if is_long else pack(args)
            else:
                packed = self._pack(args)
        except (TypeError, UnicodeEncodeError):
            packed = self._pack(args)
        result = self._send(args, packed)
        return result if post_proc is None else result.addCallback(post_proc)

    def _packed(self, args: tuple[Any, ...]) -> bytes:
        try:
            return pack(args) if self._plain_text and args else self._pack(args)
        except (TypeError, UnicodeEncodeError):
            return self._pack(args)

    def _pack(self, args: tuple[Any, ...]) -> bytes:
        """What hiredis cannot encode by itself, or an error that names what cannot be."""
        if not args:
            raise InvalidData("no command given")
        words = tuple(self._encode(args, place) for place in range(len(args)))
        is_long = any(isinstance(word, bytes) and len(word) >= LONG for word in words)
        return pack_long(words) if is_long else pack(words)

    def _encode(self, args: tuple[Any, ...], place: int) -> bytes | int | float:
        arg: object = args[place]
        if type(arg) in (int, float):
            return arg  # type: ignore[return-value]  # bool and the like are written as their str
        if isinstance(arg, (bytes, bytearray, memoryview)):
            return bytes(arg)
        if arg is None:
            # The other arguments are not repeated: one of them may be a password.
            raise InvalidData(f"{args[0]}: None is not a value Redis can hold (argument {place})")
        try:
            return str(arg).encode(self._charset, self._errors)
        except UnicodeEncodeError as error:
            raise InvalidData(f"{args[0]}: cannot encode {arg!r}: {error}") from error

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]: ...


def _method(name: str, words: tuple[str, ...]) -> Callable[..., Deferred[Any]]:
    def command(self: CommandMethods, *args: Any) -> Deferred[Any]:
        return self.execute_command(*words, *args)

    command.__name__ = name
    command.__qualname__ = f"{CommandMethods.__name__}.{name}"
    command.__doc__ = f"The Redis command {' '.join(words)}, arguments and reply as they are."
    return command


# By __getattr__ each attribute of a client would be found more slowly, several for each command.
for _name in method_names():
    _words = method_words(_name)
    if _words is not None and not hasattr(CommandMethods, _name):
        setattr(CommandMethods, _name, _method(_name, _words))
