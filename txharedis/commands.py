"""What each Redis command is: does it only read, may it block, does it change its link.

The flags come from the servers' own COMMAND replies (`txharedis/_command_table.py`). What the flags
do not tell is judged here, in three tables: `_HARMLESS`, `_STATEFUL`, `_DEPENDENT`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from txharedis._command_table import COMMANDS, SUPPLEMENT
from txharedis.values import Value

__all__ = [
    "JOURNALLED",
    "PLAIN",
    "RIDING",
    "CommandInfo",
    "describe",
    "method_names",
    "method_words",
    "refusal",
]


PLAIN, JOURNALLED, RIDING = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CommandInfo(Value):
    """What one command is.

    name      in capitals, with its subcommand: "XADD", "CONFIG GET".
    read      it changes nothing, so it may be sent again when its reply was lost. This does not say
              that a replica accepts it: `replica` does.
    blocking  the server may keep the reply back until some event, and with it all that follows on
              the link.
    noscript  a script cannot run it.
    stateful  it changes the state of the link it is sent on, or turns that link into a stream.
    fit       for the journal of exactly-once: JOURNALLED is a write that a script can run, with a
              reply that it can hold; RIDING a read that may go with those, its reply being small;
              all else is PLAIN.
    replica   the name under which a replica answers it, "" when only the master can: its own for
              what only reads keys' data, "SORT_RO" and the like for SORT, GEORADIUS,
              GEORADIUSBYMEMBER and BITFIELD where these only read.
    simple    it is none of blocking, noscript and stateful, nor SELECT: nothing has to be done for
              it but to send it.
    """

    name: str
    read: bool = False
    blocking: bool = False
    noscript: bool = False
    stateful: bool = False
    fit: int = PLAIN
    replica: str = ""
    simple: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        special = self.blocking or self.noscript or self.stateful or self.name == "SELECT"
        object.__setattr__(self, "simple", not special)


def describe(args: Sequence[object]) -> CommandInfo:
    """What the command with these arguments is; `args[0]` is its name, in any case.

    Words may be bytes, str (what is not ASCII matches nothing, as on the server) or anything else
    that the encoder of commands accepts. XREAD and XREADGROUP block only with BLOCK; SORT without
    STORE, GEORADIUS and GEORADIUSBYMEMBER without STORE and STOREDIST, BITFIELD without SET and
    INCRBY are reads. Where their arguments cannot be understood, the careful answer is given.

    A command that the table does not know is no read, does not block and has no state; it counts
    as `noscript`, for nobody can tell whether a script may run it.

    Raises IndexError when `args` is empty.
    """
    word = args[0]
    info = None
    if type(word) is bytes:
        info = _BY_BYTES.get(word)
    elif type(word) is str:
        info = _BY_TEXT.get(word)
    return _describe_slowly(args) if info is None else info


def refusal(name: str) -> str:
    """Why a stateful command is not sent on the link that all commands share, and what to use."""
    why = f"{name} changes the state of the link that all commands share"
    instead = _INSTEAD.get(name)
    return f"{why}: use {instead}" if instead else why


def method_words(name: str) -> tuple[str, ...] | None:
    """The words of the command that a Python attribute stands for, None when there is none.

    "xadd" -> ("XADD",), "config_get" -> ("CONFIG", "GET"), "client_no_evict" -> ("CLIENT",
    "NO-EVICT"), "eval_ro" -> ("EVAL_RO",). Only lower-case names stand for commands.
    """
    return _METHODS.get(name)


def method_names() -> frozenset[str]:
    """Every name that `method_words` knows."""
    return _METHOD_NAMES


# Neither flagged "readonly" nor "write" by the servers, and safe to run twice. What clears
# something, acts on other links, or costs a server much (PFSELFTEST, DEBUG, SAVE) is not here; nor
# is ACL LOG, which takes RESET; nor WAIT and WAITAOF, which speak of the writes of their own link.
_HARMLESS = frozenset(
    {
        "ACL CAT",
        "ACL DRYRUN",
        "ACL GENPASS",
        "ACL GETUSER",
        "ACL HELP",
        "ACL LIST",
        "ACL USERS",
        "ACL WHOAMI",
        "CLIENT GETNAME",
        "CLIENT GETREDIR",
        "CLIENT HELP",
        "CLIENT ID",
        "CLIENT INFO",
        "CLIENT LIST",
        "CLIENT TRACKINGINFO",
        "CLUSTER COUNT-FAILURE-REPORTS",
        "CLUSTER COUNTKEYSINSLOT",
        "CLUSTER GETKEYSINSLOT",
        "CLUSTER GETSLOTMIGRATIONS",
        "CLUSTER HELP",
        "CLUSTER INFO",
        "CLUSTER KEYSLOT",
        "CLUSTER LINKS",
        "CLUSTER MYID",
        "CLUSTER MYSHARDID",
        "CLUSTER NODES",
        "CLUSTER REPLICAS",
        "CLUSTER SHARDS",
        "CLUSTER SLAVES",
        "CLUSTER SLOT-STATS",
        "CLUSTER SLOTS",
        "COMMAND",
        "COMMAND COUNT",
        "COMMAND DOCS",
        "COMMAND GETKEYS",
        "COMMAND GETKEYSANDFLAGS",
        "COMMAND HELP",
        "COMMAND INFO",
        "COMMAND LIST",
        "COMMANDLOG GET",
        "COMMANDLOG HELP",
        "COMMANDLOG LEN",
        "CONFIG GET",
        "CONFIG HELP",
        "ECHO",
        "FUNCTION DUMP",
        "FUNCTION HELP",
        "FUNCTION LIST",
        "FUNCTION STATS",
        "INFO",
        "LASTSAVE",
        "LATENCY DOCTOR",
        "LATENCY GRAPH",
        "LATENCY HELP",
        "LATENCY HISTOGRAM",
        "LATENCY HISTORY",
        "LATENCY LATEST",
        "MEMORY DOCTOR",
        "MEMORY HELP",
        "MEMORY MALLOC-STATS",
        "MEMORY STATS",
        "MODULE HELP",
        "MODULE LIST",
        "OBJECT HELP",
        "PING",
        "PUBSUB CHANNELS",
        "PUBSUB HELP",
        "PUBSUB NUMPAT",
        "PUBSUB NUMSUB",
        "PUBSUB SHARDCHANNELS",
        "PUBSUB SHARDNUMSUB",
        "ROLE",
        "SCRIPT EXISTS",
        "SCRIPT HELP",
        "SCRIPT SHOW",
        "SLOWLOG GET",
        "SLOWLOG HELP",
        "SLOWLOG LEN",
        "TIME",
        "XGROUP HELP",
        "XINFO HELP",
    }
)

# They change what later commands or replies on the same link mean, or make it a stream.
_STATEFUL = frozenset(
    {
        "ASKING",
        "AUTH",
        "CLIENT CACHING",
        "CLIENT CAPA",
        "CLIENT IMPORT-SOURCE",
        "CLIENT NO-EVICT",
        "CLIENT NO-TOUCH",
        "CLIENT REPLY",
        "CLIENT SETINFO",
        "CLIENT SETNAME",
        "CLIENT TRACKING",
        "CLUSTER SYNCSLOTS",
        "DISCARD",
        "EXEC",
        "HELLO",
        "MONITOR",
        "MULTI",
        "PSUBSCRIBE",
        "PSYNC",
        "PUNSUBSCRIBE",
        "QUIT",
        "READONLY",
        "READWRITE",
        "REPLCONF",
        "RESET",
        "SCRIPT DEBUG",
        "SELECT",
        "SSUBSCRIBE",
        "SUBSCRIBE",
        "SUNSUBSCRIBE",
        "SYNC",
        "UNSUBSCRIBE",
        "UNWATCH",
        "WATCH",
    }
)


_ENDS = "the method of what multi() or watch() gives"
_INSTEAD = {
    "AUTH": "the options username and password",
    "DISCARD": _ENDS,
    "EXEC": f"commit(), {_ENDS}",
    "MONITOR": "monitor()",
    "MULTI": "multi()",
    "PSUBSCRIBE": "psubscribe()",
    "PUNSUBSCRIBE": "punsubscribe()",
    "QUIT": "quit()",
    "SSUBSCRIBE": "ssubscribe()",
    "SUBSCRIBE": "subscribe()",
    "SUNSUBSCRIBE": "sunsubscribe()",
    "UNSUBSCRIBE": "unsubscribe()",
    "UNWATCH": _ENDS,
    "WATCH": "watch()",
}
# Flagged "readonly", but their answers belong to one server, and not to the data that all have:
# cursors mean nothing elsewhere; the others tell of, or touch, a server's own bookkeeping.
_OF_ONE_NODE = frozenset(
    {
        "CLUSTERSCAN",
        "HSCAN",
        "LOLWUT",
        "MEMORY USAGE",
        "OBJECT ENCODING",
        "OBJECT FREQ",
        "OBJECT IDLETIME",
        "OBJECT REFCOUNT",
        "SCAN",
        "SSCAN",
        "TOUCH",
        "ZSCAN",
    }
)


# Writes that a script could run, and that go plainly all the same: integers of any size in lists of
# replies, or what waits for another server.
_NOT_JOURNALLED = frozenset({"BITFIELD", "MIGRATE", "RESTORE-ASKING", "SWAPDB"})
# Neither flagged "write" nor "readonly", and run once all the same.
_JOURNALLED = frozenset({"PUBLISH", "SPUBLISH"})

# Reads with small replies, and no integers beyond 2^53 among them: a batch may carry them.
_RIDING = frozenset(
    {
        "EXISTS",
        "GET",
        "GETBIT",
        "GETRANGE",
        "HEXISTS",
        "HGET",
        "HLEN",
        "HMGET",
        "HSTRLEN",
        "LINDEX",
        "LLEN",
        "MGET",
        "PTTL",
        "SCARD",
        "SISMEMBER",
        "SMISMEMBER",
        "STRLEN",
        "TTL",
        "TYPE",
        "XLEN",
        "ZCARD",
        "ZRANK",
        "ZREVRANK",
        "ZSCORE",
    }
)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Dependent(Value):
    """A command that is milder than its flags while it has only these options."""

    first: int  # index of the first option
    options: Mapping[str, int]  # option -> how many values follow it
    end: str | None = None  # the word that ends the options; None: the end of the arguments
    read: bool = False  # with only these options it is a read
    nonblocking: bool = False  # with only these options it does not block

    def holds(self, args: Sequence[object]) -> bool:
        """Whether `args` has these options only, each with its values, and the end."""
        index, count = self.first, len(args)
        while index < count:
            word = _fold(args[index])
            if word == self.end:
                return True
            values = self.options.get(word)
            if values is None:
                return False
            index += 1 + values
        return self.end is None and index == count

    def mild(self, info: CommandInfo) -> CommandInfo:
        """What the command is when `holds`."""
        read_only = info.name if info.read else f"{info.name}_RO"
        known = read_only in COMMANDS | SUPPLEMENT
        return replace(
            info,
            read=info.read or self.read,
            blocking=info.blocking and not self.nonblocking,
            fit=PLAIN if info.read or self.read or info.noscript else JOURNALLED,
            replica=read_only if known else "",
        )


_GEORADIUS_READ = {
    "WITHCOORD": 0,
    "WITHDIST": 0,
    "WITHHASH": 0,
    "COUNT": 1,
    "ANY": 0,
    "ASC": 0,
    "DESC": 0,
}

# The options as the servers' own parsers read them (sort.c, geo.c, bitops.c, t_stream.c).
_DEPENDENT = {
    "BITFIELD": _Dependent(2, {"GET": 2, "OVERFLOW": 1}, read=True),
    "GEORADIUS": _Dependent(6, _GEORADIUS_READ, read=True),
    "GEORADIUSBYMEMBER": _Dependent(5, _GEORADIUS_READ, read=True),
    "SORT": _Dependent(
        2, {"BY": 1, "GET": 1, "LIMIT": 2, "ASC": 0, "DESC": 0, "ALPHA": 0}, read=True
    ),
    "XREAD": _Dependent(1, {"COUNT": 1}, end="STREAMS", nonblocking=True),
    "XREADGROUP": _Dependent(
        1, {"GROUP": 2, "COUNT": 1, "NOACK": 0, "CLAIM": 1}, end="STREAMS", nonblocking=True
    ),
}


def _fold(word: object) -> str:
    """The word in capitals, as text; what is not ASCII stays as it is."""
    if isinstance(word, str):
        text = word
    elif isinstance(word, (bytes, bytearray, memoryview)):
        text = bytes(word).decode("latin-1")
    else:
        text = str(word)
    return text.upper() if text.isascii() else text


def _describe_slowly(args: Sequence[object]) -> CommandInfo:
    """`describe` for mixed case, subcommands, and commands that depend on their arguments."""
    name = _fold(args[0])
    subcommands = _SUBCOMMANDS.get(name)
    if subcommands is not None and len(args) > 1:
        word = _fold(args[1])
        return subcommands.get(word) or _unknown(f"{name} {word}")
    dependent = _DEPENDENT.get(name)
    if dependent is not None and dependent.holds(args):
        return _MILD[name]
    return _TOP.get(name) or _unknown(name)


def _unknown(name: str) -> CommandInfo:
    return CommandInfo(name, noscript=True)


def _info(name: str, flags: str) -> CommandInfo:
    everywhere = "readonly" in flags and "blocking" not in flags and name not in _OF_ONE_NODE
    return CommandInfo(
        name,
        replica=name if everywhere else "",
        read="readonly" in flags or name in _HARMLESS,
        blocking="blocking" in flags,
        noscript="noscript" in flags,
        stateful=name in _STATEFUL,
        fit=_fit(name, flags),
    )


def _fit(name: str, flags: str) -> int:
    if name in _RIDING:
        return RIDING
    unfit = "noscript" in flags or "blocking" in flags or name in _NOT_JOURNALLED
    changes = "write" in flags or name in _JOURNALLED
    return JOURNALLED if changes and not unfit else PLAIN


_TOP: dict[str, CommandInfo] = {}
_SUBCOMMANDS: dict[str, dict[str, CommandInfo]] = {}
_METHODS: dict[str, tuple[str, ...]] = {}

for _name, _flags in (COMMANDS | SUPPLEMENT).items():
    _words = tuple(_name.split(" "))
    if len(_words) == 1:
        _TOP[_name] = _info(_name, _flags)
    else:
        _SUBCOMMANDS.setdefault(_words[0], {})[_words[1]] = _info(_name, _flags)
    _METHODS["_".join(_words).replace("-", "_").lower()] = _words

_METHOD_NAMES = frozenset(_METHODS)
_MILD = {name: dependent.mild(_TOP[name]) for name, dependent in _DEPENDENT.items()}

# The hot path of `describe`: the names as people write them, of the commands for which the name
# says all. Two tables, because b"GET" and "GET" have the same hash and would collide in one.
_BY_TEXT: dict[str, CommandInfo] = {
    spelling: info
    for name, info in _TOP.items()
    if name not in _SUBCOMMANDS and name not in _DEPENDENT
    for spelling in (name, name.lower())
}
_BY_BYTES: dict[bytes, CommandInfo] = {
    spelling.encode("ascii"): info for spelling, info in _BY_TEXT.items()
}
