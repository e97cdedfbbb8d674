"""Replies: what an error reply means for its command, and how values reach the caller."""

from __future__ import annotations

import re
import string
from collections.abc import Callable

__all__ = [
    "converter",
    "is_demotion",
    "journal_denied",
    "missing_right",
    "not_executed",
    "of_script_only",
    "redacted",
]

# Errors with which a server refuses a command for its own sake: it was not executed, and it can be
# sent again, to this node later or to another master. The code may stand inside a script's error
# ("ERR Error running script ... -READONLY You can't write ...").
_AGAIN = re.compile(
    r"(?:READONLY|MASTERDOWN|LOADING|TRYAGAIN|UNBLOCKED)\b"
    r"|ERR max number of clients"
    r"|ERR Error running script .*-(?:READONLY|MASTERDOWN)\b",
    re.DOTALL,
)


def not_executed(error: Exception) -> bool:
    """Whether this error reply says that the node did not run the command and another should.

    NOREPLICAS, MISCONF, OOM, BUSY, EXECABORT and the like are not executed either, but they are
    the caller's to know of: the node is alive and a failover would change nothing.
    """
    return _AGAIN.match(str(error)) is not None


_RIGHTS = re.compile(
    r"(?:NOAUTH|WRONGPASS|NOPERM|TLS)\b"  # TLS: our own word, see txharedis.tls
    r"|ERR (?:invalid password|Client sent AUTH|AUTH <password> called without|.*DB index)"
)


def missing_right(text: str) -> bool:
    """Whether a handshake failed for want of a right or a database: waiting will not help."""
    return _RIGHTS.match(text) is not None


# What a server says of a command that only a script is refused; outside it has another answer.
_OF_SCRIPT = re.compile(
    r"(?:ERR|NOPERM)\b.*(?:from script|in script|executing the script|inside a script)"
)


def of_script_only(error: Exception) -> bool:
    """Whether a command was refused because a script ran it: it was not executed."""
    return _OF_SCRIPT.search(str(error)) is not None


_NO_JOURNAL = re.compile(
    r"NOPERM\b|.*unknown command|.*(?:can't|cannot) run this command|.*ACL failure"
    r"|.*unknown subcommand|.*Unknown (?:Redis )?command called|.*is out of range"
    r"|.*wrong number of arguments",
    re.IGNORECASE,
)


def journal_denied(error: Exception) -> bool:
    """Whether a server will not have our journal: a right, a command or a database is missing."""
    return _NO_JOURNAL.match(str(error)) is not None


def is_demotion(reply: object) -> bool:
    """Whether WAIT was refused because its server is no master any more."""
    return isinstance(reply, Exception) and (
        str(reply).startswith("UNBLOCKED") or "replica instances" in str(reply)
    )


_ARGUMENTS = re.compile(r",? with args beginning with.*", re.DOTALL)


def redacted(error: Exception) -> Exception:
    """This error without the arguments that a server repeats of a command that it does not know.

    AUTH and CONFIG can be renamed or taken away, and their arguments are passwords.
    """
    text = str(error)
    shorter = _ARGUMENTS.sub("", text)
    return error if shorter == text else type(error)(shorter)


_NUMBER_STARTS = frozenset((string.digits + "+-.").encode())


def converter(charset: str | None, convert_numbers: bool) -> Callable[[object], object] | None:
    """The function that makes a caller's value of a raw reply, None when raw is right.

    Follows txredisapi 1.6: with `convert_numbers` what reads as an integer or a float becomes one;
    else, with a charset, text is decoded, and stays bytes where it cannot be.
    """
    if charset is None and not convert_numbers:
        return None

    def convert(value: object) -> object:
        if type(value) is bytes:
            if convert_numbers and value and value[0] in _NUMBER_STARTS:
                try:
                    return float(value.decode()) if b"." in value else int(value.decode())
                except ValueError:
                    pass
            if charset is not None:
                try:
                    return value.decode(charset)
                except UnicodeError:
                    pass
            return value
        if isinstance(value, list):
            return [convert(item) for item in value]
        return value

    return convert
