"""What `describe` says of commands, and which Python names stand for which."""

import dataclasses
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txharedis import commands
from txharedis._command_table import COMMANDS, SUPPLEMENT
from txharedis.commands import RIDING, CommandInfo, describe, method_names, method_words

TABLE = COMMANDS | SUPPLEMENT


def names(text: str) -> list[str]:
    """Command names from text with commas between them."""
    return [" ".join(name.split()) for name in text.split(",")]


READS = names(
    """
    GET, EXISTS, TTL, SCAN, HGETALL, HTTL, XRANGE, XPENDING, PFCOUNT, TOUCH, DBSIZE,
    RANDOMKEY, LOLWUT, BITFIELD_RO, SORT_RO, GEORADIUS_RO, GEORADIUSBYMEMBER_RO, EVAL_RO,
    EVALSHA_RO, FCALL_RO, VSIM, VINFO, DIGEST, PING, ECHO, TIME, INFO, LASTSAVE, ROLE,
    COMMAND
    """
)

NOT_READS = names(
    """
    SET, DEL, UNLINK, GETEX, GETDEL, GETSET, INCR, LPOP, SPOP, EXPIRE, HGETEX, HEXPIRE,
    XADD, XACK, XREADGROUP, FLUSHALL, MIGRATE, RESTORE, RESTORE-ASKING, VADD, DELEX, XDELEX,
    PUBLISH, SPUBLISH, EVAL, EVALSHA, FCALL, WAIT, WAITAOF, SAVE, BGSAVE, DEBUG, SHUTDOWN,
    FAILOVER, REPLICAOF, SLAVEOF, PFSELFTEST, PFDEBUG, MULTI, EXEC, WATCH, SUBSCRIBE,
    MONITOR, SELECT, AUTH, HELLO, RESET, QUIT, CONFIG, CLIENT, SCRIPT, FUNCTION, ACL
    """
)

READ_SUBCOMMANDS = names(
    """
    CONFIG GET, CLIENT LIST, CLIENT INFO, CLIENT ID, CLIENT GETNAME, CLIENT TRACKINGINFO,
    COMMAND COUNT, COMMAND DOCS, COMMAND GETKEYS, MEMORY USAGE, MEMORY DOCTOR,
    OBJECT ENCODING, XINFO STREAM, XGROUP HELP, PUBSUB NUMSUB, SCRIPT EXISTS, FUNCTION LIST,
    SLOWLOG GET, LATENCY HISTORY, ACL WHOAMI, CLUSTER SLOTS, MODULE LIST
    """
)

NOT_READ_SUBCOMMANDS = names(
    """
    CONFIG SET, CONFIG REWRITE, CONFIG RESETSTAT, CLIENT KILL, CLIENT PAUSE, CLIENT UNBLOCK,
    CLIENT SETNAME, SCRIPT LOAD, SCRIPT FLUSH, SCRIPT KILL, FUNCTION LOAD, FUNCTION DELETE,
    FUNCTION KILL, SLOWLOG RESET, LATENCY RESET, ACL SETUSER, ACL LOG, XGROUP CREATE,
    XGROUP SETID, MEMORY PURGE, CLUSTER FAILOVER, CLUSTER RESET, MODULE LOAD
    """
)

BLOCKING = names(
    """
    BLPOP, BRPOP, BLMOVE, BLMPOP, BRPOPLPUSH, BZPOPMIN, BZPOPMAX, BZMPOP, WAIT, WAITAOF
    """
)

STATEFUL = names(
    """
    MULTI, EXEC, DISCARD, WATCH, UNWATCH, SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE, UNSUBSCRIBE,
    PUNSUBSCRIBE, SUNSUBSCRIBE, MONITOR, SELECT, AUTH, HELLO, RESET, QUIT, READONLY,
    READWRITE, ASKING, SYNC, PSYNC, REPLCONF, CLIENT REPLY, CLIENT TRACKING, CLIENT CACHING,
    CLIENT NO-EVICT, CLIENT NO-TOUCH, CLIENT CAPA, CLIENT SETNAME, CLIENT SETINFO,
    CLIENT IMPORT-SOURCE, SCRIPT DEBUG, CLUSTER SYNCSLOTS
    """
)

STATELESS = names(
    """
    GET, SET, PUBLISH, EVAL, BLPOP, WAIT, SHUTDOWN, DEBUG, FAILOVER, REPLICAOF, SLAVEOF,
    PING, CLIENT, SCRIPT, CLIENT LIST, CLIENT KILL, CLIENT GETNAME, CLIENT TRACKINGINFO,
    SCRIPT LOAD, PUBSUB CHANNELS
    """
)


@pytest.mark.parametrize("name", READS + READ_SUBCOMMANDS)
def test_reads(name: str) -> None:
    info = describe(name.split())
    assert info.name == name
    assert info.read


@pytest.mark.parametrize("name", NOT_READS + NOT_READ_SUBCOMMANDS)
def test_not_reads(name: str) -> None:
    info = describe(name.split())
    assert info.name == name
    assert not info.read


def test_no_read_is_flagged_write_or_changes_its_link() -> None:
    reads = [info for info in map(describe, map(str.split, TABLE)) if info.read]
    assert [info.name for info in reads if "write" in TABLE[info.name]] == []
    assert [info.name for info in reads if info.stateful] == []


@pytest.mark.parametrize("name", BLOCKING)
def test_blocking(name: str) -> None:
    info = describe([name, "k", "0"])
    assert info.blocking
    assert not info.read


@pytest.mark.parametrize("name", STATEFUL)
def test_stateful(name: str) -> None:
    assert describe(name.split()).stateful


@pytest.mark.parametrize("name", STATELESS)
def test_stateless(name: str) -> None:
    assert not describe(name.split()).stateful


@pytest.mark.parametrize(
    ("name", "noscript"),
    [
        ("SET", False),
        ("XADD", False),
        ("PUBLISH", False),
        ("XREADGROUP", False),
        ("EVAL", True),
        ("EVALSHA_RO", True),
        ("MULTI", True),
        ("CONFIG GET", True),
        ("SCRIPT LOAD", True),
        # noscript on Redis 7.0, not on Valkey 9.1
        ("BLPOP", True),
        ("WAIT", True),
    ],
)
def test_noscript(name: str, noscript: bool) -> None:
    assert describe(name.split()).noscript is noscript


@pytest.mark.parametrize(
    "command",
    [
        "XREAD BLOCK 0 STREAMS s $",
        "XREAD COUNT 1 BLOCK 100 STREAMS s $",
        "XREAD BLOCK 100 COUNT 1 STREAMS s $",
        "xread block 0 streams s $",
        "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
        "XREADGROUP BLOCK 0 GROUP g c STREAMS s >",
        "XREADGROUP GROUP g c NOACK BLOCK 0 STREAMS s >",
        "XREADGROUP GROUP streams streams BLOCK 0 STREAMS s >",
        # not understood: careful
        "XREAD NOVELTY STREAMS s $",
        "XREAD COUNT 1",
        "XREAD",
        "XREADGROUP GROUP g",
    ],
)
def test_stream_reads_that_may_block(command: str) -> None:
    assert describe(command.split()).blocking


@pytest.mark.parametrize(
    "command",
    [
        "XREAD STREAMS s 0",
        "XREAD STREAMS block 0",
        "XREAD COUNT 10 STREAMS block BLOCK 0 0",
        "XREAD COUNT BLOCK STREAMS s 0",
        "xread streams block 0",
        "XREADGROUP GROUP g c STREAMS block >",
        "XREADGROUP GROUP block block STREAMS s >",
        "XREADGROUP GROUP BLOCK c COUNT 1 NOACK STREAMS block >",
        "XREADGROUP GROUP g c CLAIM 1000 STREAMS block >",
    ],
)
def test_stream_reads_that_do_not_block(command: str) -> None:
    assert not describe(command.split()).blocking


@given(st.lists(st.sampled_from(["BLOCK", "block", "STREAMS", "0", "$"]), min_size=2))
def test_nothing_after_streams_makes_xread_block(rest: list[str]) -> None:
    assert not describe(["XREAD", "COUNT", "2", "STREAMS", *rest]).blocking
    assert describe(["XREAD", "BLOCK", "2", "STREAMS", *rest]).blocking


@pytest.mark.parametrize("block", ["", "BLOCK 0 "])
def test_xread_is_a_read_and_xreadgroup_never(block: str) -> None:
    assert describe(f"XREAD {block}STREAMS s 0".split()).read
    assert not describe(f"XREADGROUP GROUP g c {block}STREAMS s 0".split()).read


@pytest.mark.parametrize(
    "command",
    [
        "SORT k",
        "SORT k DESC ALPHA",
        "sort k limit 0 10 get # get w_* asc",
        "SORT k BY store",
        "SORT k BY store GET STORE",
        "SORT k LIMIT store store",
        "SORT store",
        "GEORADIUS k 15 37 200 km",
        "GEORADIUS k 15 37 200 km WITHDIST WITHCOORD WITHHASH COUNT 5 ANY ASC",
        "GEORADIUS store 15 37 200 km COUNT 5 DESC",
        "georadius k 15 37 200 km withdist",
        "GEORADIUSBYMEMBER k m 200 km",
        "GEORADIUSBYMEMBER k store 200 km COUNT 5",
        "BITFIELD k",
        "BITFIELD k GET u8 0",
        "BITFIELD set GET u8 0 GET u8 #1",
        "bitfield k get u8 0 overflow sat get u4 0",
    ],
)
def test_reads_by_their_arguments(command: str) -> None:
    info = describe(command.split())
    assert info.read
    assert info.name == command.split(maxsplit=1)[0].upper()


@pytest.mark.parametrize(
    "command",
    [
        "SORT k STORE d",
        "SORT k store d",
        "SORT k BY w_* LIMIT 0 5 GET # ALPHA STORE d",
        "SORT k GET store STORE d",
        "GEORADIUS k 15 37 200 km STORE d",
        "GEORADIUS k 15 37 200 km COUNT 5 STOREDIST d",
        "GEORADIUSBYMEMBER k m 200 km ASC store d",
        "BITFIELD k SET u8 0 1",
        "BITFIELD k GET u8 0 INCRBY u8 0 1",
        "BITFIELD k GET set 0 set u8 0 1",
        # not understood: careful
        "SORT",
        "SORT k BY",
        "SORT k NOVELTY",
        "GEORADIUS k 15 37",
        "GEORADIUSBYMEMBER k m 200 km COUNT",
        "BITFIELD k GET u8",
    ],
)
def test_no_reads_by_their_arguments(command: str) -> None:
    info = describe(command.split())
    assert not info.read
    assert info.name == command.split(maxsplit=1)[0].upper()


@pytest.mark.parametrize(
    "command",
    [
        "GET k",
        "CONFIG GET maxmemory",
        "CLIENT NO-EVICT on",
        "XREAD COUNT 1 STREAMS block 0",
        "XREAD BLOCK 1 STREAMS s 0",
        "SORT k BY store",
        "EVAL_RO script 0",
        "RESTORE-ASKING k 0 v",
        "NOVELTY k",
    ],
)
def test_case_and_type_of_words_do_not_matter(command: str) -> None:
    expected = describe(command.split())
    for spelling in (command.lower(), command.swapcase(), command.title()):
        words = spelling.split()
        encoded = [word.encode() for word in words]
        assert describe(words) == expected
        assert describe(tuple(encoded)) == expected
        assert describe([bytearray(word) for word in encoded]) == expected
        assert describe([memoryview(word) for word in encoded]) == expected


class Text(str):
    """Not exactly a str."""


def test_arguments_may_be_anything_the_encoder_accepts() -> None:
    get = CommandInfo("GET", read=True, replica="GET", fit=RIDING)
    assert describe([Text("get"), "k"]) == get
    assert describe(["BITFIELD", "k", "GET", "u8", 0]).read
    assert describe(["SORT", "k", "LIMIT", 0, 10.5]).read
    assert not describe(["SORT", "k", 0]).read
    assert describe([7]) == CommandInfo("7", noscript=True)


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (["JSON.SET", "k", "$", "1"], "JSON.SET"),
        (["novelty"], "NOVELTY"),
        ([""], ""),
        (["CONFIG", "NOVELTY"], "CONFIG NOVELTY"),
        # One word with a blank is no subcommand, on the server neither.
        (["CONFIG GET", "maxmemory"], "CONFIG GET"),
        ([b"config get", b"maxmemory"], "CONFIG GET"),
        # The servers fold ASCII only; these letters have the capitals I and S in Unicode.
        (["p\N{LATIN SMALL LETTER DOTLESS I}ng"], "p\N{LATIN SMALL LETTER DOTLESS I}ng"),
        (["\N{LATIN SMALL LETTER LONG S}ort", "k"], "\N{LATIN SMALL LETTER LONG S}ort"),
        ([b"\xff\xfe"], "\xff\xfe"),
    ],
)
def test_unknown_commands_get_the_careful_answer(args: list[str | bytes], name: str) -> None:
    assert describe(args) == CommandInfo(
        name, read=False, blocking=False, noscript=True, stateful=False
    )


def test_empty_command_is_the_callers_mistake() -> None:
    with pytest.raises(IndexError):
        describe([])


def test_common_commands_do_not_leave_the_hot_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(args: object) -> CommandInfo:
        raise AssertionError(args)

    monkeypatch.setattr(commands, "_describe_slowly", refuse)
    for name in ("GET", "SET", "HSET", "LPUSH", "INCR", "XADD", "PUBLISH", "EVALSHA", "PING"):
        for spelling in (name, name.lower()):
            assert describe((spelling, "k")).name == name
            assert describe((spelling.encode(), b"k")).name == name


def test_infos_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        describe(["GET"]).read = False  # type: ignore[misc]


@pytest.mark.parametrize("table", ["_HARMLESS", "_STATEFUL", "_DEPENDENT"])
def test_every_judgement_is_about_a_known_command(table: str) -> None:
    assert set(getattr(commands, table)) <= TABLE.keys()


def test_harmless_lists_only_what_the_flags_do_not_tell() -> None:
    assert {name for name in commands._HARMLESS if "readonly" in TABLE[name]} == set()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("xadd", ("XADD",)),
        ("getex", ("GETEX",)),
        ("get", ("GET",)),
        ("config", ("CONFIG",)),
        ("config_get", ("CONFIG", "GET")),
        ("client_no_evict", ("CLIENT", "NO-EVICT")),
        ("object_encoding", ("OBJECT", "ENCODING")),
        ("cluster_count_failure_reports", ("CLUSTER", "COUNT-FAILURE-REPORTS")),
        ("eval_ro", ("EVAL_RO",)),
        ("georadiusbymember_ro", ("GEORADIUSBYMEMBER_RO",)),
        ("restore_asking", ("RESTORE-ASKING",)),
        ("hgetex", ("HGETEX",)),
        ("vadd", ("VADD",)),
        ("waitaof", ("WAITAOF",)),
    ],
)
def test_method_words(name: str, words: tuple[str, ...]) -> None:
    assert method_words(name) == words


@pytest.mark.parametrize(
    "name",
    [
        "",
        "XADD",
        "Xadd",
        "config get",
        "config-get",
        "restore-asking",
        "no_evict",
        "_get",
        "get_",
        "novelty",
        "config_novelty",
        "__len__",
    ],
)
def test_other_names_stand_for_no_command(name: str) -> None:
    assert method_words(name) is None
    assert name not in method_names()


def test_every_command_has_one_method_name() -> None:
    words = [method_words(name) for name in method_names()]
    assert sorted(" ".join(found) for found in words if found is not None) == sorted(TABLE)


def test_method_names_can_be_written_in_python() -> None:
    alphabet = set(string.ascii_lowercase + string.digits + "_")
    assert all(name.isidentifier() and set(name) <= alphabet for name in method_names())


def test_the_words_of_a_method_are_described_as_that_command() -> None:
    for words in map(method_words, method_names()):
        assert words is not None
        assert describe(words).name == " ".join(words)


# What a replica answers


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("get k", "GET"),
        ("MGET a b", "MGET"),
        ("eval_ro script 0", "EVAL_RO"),
        ("EVALSHA_RO sha 0", "EVALSHA_RO"),
        ("FCALL_RO f 0", "FCALL_RO"),
        ("DBSIZE", "DBSIZE"),
        ("KEYS *", "KEYS"),
        ("RANDOMKEY", "RANDOMKEY"),
        ("XREAD STREAMS s 0", "XREAD"),
        ("XREAD COUNT 1 STREAMS s 0", "XREAD"),
        ("XINFO STREAM s", "XINFO STREAM"),
        ("SORT k", "SORT_RO"),
        ("sort k by w_* get # limit 0 1 alpha", "SORT_RO"),
        ("GEORADIUS g 0 0 1 km", "GEORADIUS_RO"),
        ("GEORADIUSBYMEMBER g m 1 km ASC", "GEORADIUSBYMEMBER_RO"),
        ("BITFIELD k GET u8 0", "BITFIELD_RO"),
        ("BITFIELD k OVERFLOW SAT GET u8 0", "BITFIELD_RO"),
        ("SORT_RO k", "SORT_RO"),
        ("XREAD BLOCK 0 STREAMS s $", ""),
        ("XREADGROUP GROUP g c STREAMS s >", ""),
        ("SORT k STORE d", ""),
        ("GEORADIUS g 0 0 1 km STORE d", ""),
        ("BITFIELD k SET u8 0 1", ""),
        ("SET k v", ""),
        ("GETEX k", ""),
        ("EVAL script 0", ""),
        ("FCALL f 0", ""),
        ("SCAN 0", ""),
        ("HSCAN h 0", ""),
        ("TOUCH k", ""),
        ("OBJECT ENCODING k", ""),
        ("MEMORY USAGE k", ""),
        ("INFO", ""),
        ("CONFIG GET maxmemory", ""),
        ("PING", ""),
        ("NOVELTY k", ""),
    ],
)
def test_the_name_under_which_a_replica_answers(line: str, name: str) -> None:
    assert describe(line.split()).replica == name


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_replica_answers_only_what_is_flagged_readonly(name: str) -> None:
    info = describe(name.split())
    if info.replica:
        assert info.read
        assert not info.blocking
        assert "readonly" in TABLE[info.replica]
