"""Every method of txredisapi does through an HAClient what it does there, and answers the same."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_twisted
import txredisapi
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from tests.groups import answer
from tests.servers.conftest import Watch
from tests.support import eventually
from txharedis import HAClient
from txharedis.testing.servers import LocalServer

on_reactor = pytest_twisted.ensureDeferred


def exact(reply: Any) -> Any:
    """A reply with the types of all that is in it, which == does not tell: 1 == 1.0 == True."""
    match reply:
        case list() | tuple():
            return type(reply), [exact(item) for item in reply]
        case dict():
            return dict, [(exact(key), exact(value)) for key, value in reply.items()]
        case set():
            return set, sorted((exact(item) for item in reply), key=repr)
    return type(reply), reply


def shape(reply: Any) -> Any:
    """Only the types: the values are another server's, another time's or chance."""
    match reply:
        case list():
            return [shape(item) for item in reply]
        case dict():
            return sorted(reply), {shape(value) for value in reply.values()}
    return type(reply)


def unordered(reply: Any) -> Any:
    """As exact, but for the order of the innermost items: a table's, which moves them about."""
    if isinstance(reply, list) and not any(isinstance(item, list) for item in reply):
        return list, sorted((exact(item) for item in reply), key=repr)
    return type(reply), [unordered(item) for item in reply] if isinstance(reply, list) else reply


@dataclass(frozen=True)
class Call:
    """One call of a method: its arguments, and what of the replies must be equal."""

    args: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    compare: Callable[[Any], Any] = exact


def call(*args: Any, **named: Any) -> Call:
    return Call(args, named)


ECHO = "return {KEYS[1],ARGV[1],tostring(1.5),2}"
UNKNOWN = "0" * 40

CALLS: dict[str, list[Call]] = {
    "append": [call("text", "!"), call("new", 1)],
    "bgrewriteaof": [Call(compare=shape)],
    "bgsave": [Call(compare=shape)],
    "bitcount": [call("text"), call("text", 0, 1), call("text", 1)],
    "bitop": [
        call("and", "d", "text", "number"),
        call(operator.or_, "d", "text", "number"),
        call(operator.xor, "d", "text", "number"),
        call(operator.not_, "d", "text"),
        call("NOT", "d", "text", "number"),
        call("NAND", "d", "text"),
        call("AND", "d"),
    ],
    "dbsize": [call()],
    "blpop": [call("list"), call(["nothing", "list"], 1), call("nothing", 0.01), call("text")],
    "brpop": [call("list"), call(["nothing", "list"], timeout=1), call("nothing", 0.01)],
    "brpoplpush": [call("list", "other"), call("list", "other", 1), call("list", "text")],
    "decr": [call("number"), call("number", 5), call("text")],
    "decrby": [call("number", 2)],
    "delete": [call("text"), call(["text", "number"]), call("text", "nothing"), call(b"text")],
    "eval": [
        call(ECHO, ["k"], ["v"]),
        call(ECHO, keys=["k"], args=["7"]),
        call("return 10"),
        call("return {1,2,3.3333,'foo',nil,'bar'}"),
        call("return {err='MINE no'}"),
        call("return redis.call('INCR', KEYS[1])", ["text"]),
    ],
    "evalsha": [call(UNKNOWN), call(UNKNOWN, ["k"], ["v"])],
    "execute_command": [call("GET", "number"), call("GETRANGE", "text", 0, 1), call("NOSUCH")],
    "exists": [call("text"), call("nothing")],
    "expire": [call("text", 100), call("nothing", 100)],
    "flush": [call(), call(True)],
    "flushall": [call()],
    "flushdb": [call()],
    "get": [
        *(call(key) for key in ("text", "number", "float", "binary", "snowman", "empty")),
        *(call(key) for key in ("zeros", "underscore", "plus", "inf", "nothing", "list")),
        call(b"text"),
        call(bytearray(b"text")),
    ],
    "getbit": [call("text", 1)],
    "getset": [call("number", "new"), call("nothing", 1)],
    "hdecr": [call("hash", "n")],
    "hdel": [call("hash", "f"), call("hash", ["f", "n", "none"])],
    "hexists": [call("hash", "f"), call("hash", "none")],
    "hget": [call("hash", "f"), call("hash", "n"), call("hash", "none"), call("text", "f")],
    "hgetall": [call("hash"), call("nothing"), call("text")],
    "hincr": [call("hash", "n"), call("hash", "f")],
    "hincrby": [call("hash", "n", 5)],
    "hkeys": [call("hash")],
    "hlen": [call("hash")],
    "hmget": [call("hash", ["f", "none", "n"])],
    "hmset": [call("hash", {"f": 1, "g": "2"}), call("text", {"f": 1})],
    "hscan": [call("hash"), call("hash", 0, "f*", 10)],
    "hset": [call("hash", "new", "v"), call("hash", "f", b"\xff")],
    "hsetnx": [call("hash", "f", "w"), call("hash", "new", "w")],
    "hvals": [call("hash")],
    "incr": [call("number"), call("number", 5), call("text"), call("big")],
    "incrby": [call("number", 2)],
    "info": [Call(compare=shape), Call(("server",), {}, shape), Call(("nonsense",), {}, shape)],
    "keys": [call("text*"), Call(("n*",), {}, unordered), call("none*")],
    "lastsave": [Call(compare=shape)],
    "lindex": [call("list", 0), call("list", -1), call("list", 99)],
    "llen": [call("list"), call("text")],
    "lpop": [call("list"), call("nothing")],
    "lpush": [call("list", "x"), call("list", [1, "y"]), call("list", ("2.5", b"z"))],
    "lrange": [call("list", 0, -1), call("nothing", 0, -1)],
    "lrem": [call("list", 0, "b")],
    "lset": [call("list", 0, "new"), call("list", 99, "new")],
    "ltrim": [call("list", 1, 2)],
    "mget": [call(["text", "nothing", "number"]), call("text", "float"), call("text")],
    "move": [call("text", 1), call("nothing", 1)],
    "mset": [call({"text": 1, "new": "v"})],
    "msetnx": [call({"a": 1, "b": "v"}), call({"text": 1, "new": "v"})],
    "persist": [call("expiring"), call("text")],
    "pfadd": [call("hll", ["d", "e"]), call("hll", "a", "b"), call("text", "a")],
    "pfcount": [call("hll"), call(["hll", "hll2"])],
    "pfmerge": [call("merged", ["hll", "hll2"]), call("merged", "hll", "hll2")],
    "ping": [call()],
    "pop": [call("list"), call("list", True)],
    "publish": [call("channel", "message")],
    "push": [call("list", "x"), call("list", "x", True)],
    "randomkey": [Call(compare=lambda key: key is not None)],
    "rename": [call("text", "new"), call("nothing", "new")],
    "renamenx": [call("text", "new"), call("text", "number")],
    "role": [call()],
    "rpop": [call("list"), call("nothing")],
    "rpoplpush": [call("list", "other"), call("nothing", "other")],
    "rpush": [call("list", "x"), call("list", ["x", 1]), call("text", "x")],
    "sadd": [call("set", "new"), call("set", ["a", 1]), call("set", "a", "b"), call("text", "a")],
    "save": [call()],
    "scan": [Call((), {"count": 1000}, unordered), call(0, "text*", 1000)],
    "scard": [call("set")],
    "script_exists": [call(UNKNOWN), call(UNKNOWN, UNKNOWN)],
    "script_flush": [call()],
    "script_kill": [call()],
    "script_load": [call(ECHO), call("not lua")],
    "sdiff": [call(["set", "set2"]), call("set", "set2")],
    "sdiffstore": [call("d", ["set", "set2"])],
    # A server that is no Sentinel says so.
    "sentinel_get_master_addr_by_name": [call("name")],
    "sentinel_masters": [call()],
    "sentinel_slaves": [call("name")],
    "set": [
        call("new", "v"),
        call("new", "v", expire=100),
        call("new", "v", pexpire=100000),
        call("text", "v", only_if_not_exists=True),
        call("text", "v", only_if_exists=True),
        call("text", "v", only_if_exists=True, only_if_not_exists=True),
        *(call("new", value) for value in (7, -1, True, b"\xff\x00", bytearray(b"x"), "\u2603")),
        call(7, "v"),
    ],
    "setbit": [call("text", 1, True), call("text", 2, 0)],
    "setex": [call("new", 100, "v")],
    "setnx": [call("new", "v"), call("text", "v")],
    "sinter": [call(["set", "set2"]), call("set", "set2"), call("nothing")],
    "sinterstore": [call("d", ["set", "set2"])],
    "sismember": [call("set", "one"), call("set", "none")],
    "smembers": [call("set"), call("nothing"), call("text")],
    "smove": [call("set", "set2", "one"), call("set", "set2", "none")],
    "sort": [
        call("numbers"),
        call("numbers", start=0, end=2, desc=True),
        call("list", alpha=True, get="weight_*"),
        call("numbers", by="weight_*"),
        call("numbers", store="d"),
        call("numbers", end=2),
        call("list"),
    ],
    "spop": [call("single"), call("nothing")],
    "srandmember": [call("single"), call("nothing")],
    "srem": [call("set", "one"), call("set", ["one", "none"])],
    "sscan": [Call(("set",), {}, unordered), call("set", 0, "o*", 10)],
    "substr": [call("text", 1, 2), call("text", 1), call("number", 0)],
    "sunion": [call(["set", "set2"]), call("set", "nothing")],
    "sunionstore": [call("d", ["set", "set2"])],
    "time": [Call(compare=shape)],
    "ttl": [call("expiring"), call("text"), call("nothing")],
    "type": [*(call(key) for key in ("text", "list", "set", "zset", "hash", "nothing"))],
    "zadd": [call("zset", 1, "new"), call("zset", 1.5, "a", 2, "x"), call("zset", 1, "x", 2)],
    "zcard": [call("zset")],
    "zcount": [call("zset"), call("zset", 1, 2), call("zset", "(1", 3)],
    "zdecr": [call("zset", "a")],
    "zincr": [call("zset", "a")],
    "zincrby": [call("zset", 0.25, "a"), call("zset", 2, "new")],
    "zinterstore": [call("d", ["zset", "zset2"]), call("d", {"zset": 2, "zset2": 3}, "max")],
    "zrange": [call("zset"), call("zset", 0, 1, withscores=True)],
    "zrangebyscore": [
        call("zset"),
        call("zset", 1, 2.5, withscores=True),
        call("zset", offset=1, count=1),
        call("zset", offset=1),
    ],
    "zrank": [call("zset", "b"), call("zset", "none")],
    "zrem": [call("zset", "a", "none")],
    "zremrangebyrank": [call("zset", 0, 1)],
    "zremrangebyscore": [call("zset", 1, 2)],
    "zrevrange": [call("zset"), call("zset", 0, 1, withscores=True)],
    "zrevrangebyscore": [call("zset"), call("zset", 2.5, 1, withscores=True)],
    "zrevrank": [call("zset", "b")],
    "zscan": [call("zset"), call("zset", 0, "a*", 10)],
    "zscore": [call("zset", "a"), call("zset", "b"), call("zset", "none")],
    "zunionstore": [call("d", ["zset", "zset2"], sum), call("d", ["zset"], "average")],
}

NOT_COMPARED = {
    **dict.fromkeys(
        (
            "bulkDataReceived",
            "handleMultiBulkElement",
            "handleTransactionData",
            "handle_reply",
            "multiBulkDataReceived",
            "replyReceived",
            "tryConvertData",
        ),
        "a step of the protocol, and not for users",
    ),
    **dict.fromkeys(
        ("commit", "discard", "execute_pipeline", "multi", "pipeline", "unwatch", "watch"),
        "the state of one connection: tests/conformance has txredisapi's own tests of them",
    ),
    **dict.fromkeys(("auth", "select"), "changes its connection; here it would change all"),
    **dict.fromkeys(("quit", "shutdown", "whenConnected", "whenDisconnected"), "an end or a start"),
}

SETUP: list[tuple[Any, ...]] = [
    ("FLUSHALL",),
    ("SCRIPT", "FLUSH"),
    ("MSET", "text", "hello", "number", 41, "float", "3.5", "binary", b"\xff\xfe", "empty", ""),
    ("MSET", "snowman", "\u2603", "zeros", "007", "underscore", "1_0", "plus", "+5", "inf", "+inf"),
    ("MSET", "big", "9007199254740993", "weight_1", 3, "weight_2", 2, "weight_3", 1),
    ("SET", "expiring", "v", "EX", 1000),
    ("RPUSH", "list", "a", "b", 3, "4.5", "b"),
    ("RPUSH", "numbers", 3, 1, 2),
    ("SADD", "set", "one", "two", "3", "4.5"),
    ("SADD", "set2", "two", "3", "five"),
    ("SADD", "single", "only"),
    ("ZADD", "zset", 1, "a", 2.5, "b", 3, "7"),
    ("ZADD", "zset2", 1, "a", 5, "b"),
    ("HSET", "hash", "f", "v", "n", 7, "x", "2.5", "bin", b"\xff"),
    ("PFADD", "hll", "a", "b", "c"),
    ("PFADD", "hll2", "c", "d"),
]

WORDINGS = [
    {},
    {"convertNumbers": False},
    {"charset": None},
    {"charset": None, "convertNumbers": False},
    {"charset": "latin-1"},
]


def of_txredisapi() -> set[str]:
    """The names of the public methods that its connections have, beside those of any protocol."""
    own = set(dir(txredisapi.RedisProtocol)) - set(dir(txredisapi.LineReceiver))
    return {
        name
        for name in own
        if not name.startswith("_") and callable(getattr(txredisapi.RedisProtocol, name))
    }


def test_every_method_is_compared_or_named_with_a_reason() -> None:
    assert not CALLS.keys() & NOT_COMPARED.keys()
    assert CALLS.keys() | NOT_COMPARED.keys() == of_txredisapi()


async def outcome(client: Any, name: str, call: Call) -> Any:
    """The reply, as far as it is compared, or the error."""
    try:
        reply = await answer(getattr(client, name)(*call.args, **call.named), 5.0)
    except txredisapi.ResponseError as error:
        return type(error), str(error)
    except (txredisapi.RedisError, ValueError) as error:
        return type(error)  # its own words
    return call.compare(reply)


@pytest_twisted.async_yield_fixture
async def theirs(server: LocalServer) -> AsyncIterator[Callable[..., Deferred[Any]]]:
    """`await theirs(**options)`: a connection of txredisapi's own, closed after the test."""
    made: list[Any] = []

    async def make(**options: Any) -> Any:
        made.append(await txredisapi.Connection("127.0.0.1", server.port, **options))
        return made[-1]

    yield lambda **options: ensureDeferred(make(**options))
    for connection in made:
        await connection.disconnect()


@on_reactor
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # some methods warn, here and there
@pytest.mark.parametrize("words", WORDINGS, ids=str)
async def test_every_method_answers_and_does_what_it_does_in_txredisapi(
    server: LocalServer, watch: Watch, theirs: Any, words: dict[str, Any]
) -> None:
    options = {"convert_numbers": words.get("convertNumbers", True)}
    if "charset" in words:
        options["charset"] = words["charset"]
    ours: HAClient = watch([server], **options).client
    original = await theirs(**words)
    setup = await theirs(charset="utf-8", convertNumbers=False)

    async def saved() -> bool:
        info = await setup.info()
        return all(f"{what}_in_progress:0" in info for what in ("rdb_bgsave", "aof_rewrite"))

    async def digest() -> str:
        return str(await setup.execute_command("DEBUG", "DIGEST"))

    async def set_up() -> None:
        await gatherResults([setup.execute_command(*command) for command in SETUP])

    await set_up()
    before = await digest()
    differences = []
    for name, calls in CALLS.items():
        for each in calls:
            outcomes = []
            for client in (original, ours):
                told = await outcome(client, name, each)
                outcomes.append((told, await digest()))
                if outcomes[-1][1] != before:
                    await set_up()
                if name in ("bgrewriteaof", "bgsave"):
                    await eventually(saved)
            if outcomes[0] != outcomes[1]:
                differences.append(f"{name}{each.args}{dict(each.named)}: {outcomes}")
    assert not differences, "\n".join(differences)


@on_reactor
async def test_float_is_written_in_full_and_not_with_six_digits_as_in_txredisapi(
    server: LocalServer, watch: Watch, theirs: Any
) -> None:
    ours = watch([server]).client
    original = await theirs()
    for client, written in ((original, b"0.000000"), (ours, b"1e-07")):
        await answer(client.set("k", 1e-7))
        assert await server.call("GET", "k") == written
