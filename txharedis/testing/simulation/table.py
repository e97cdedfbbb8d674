"""Which command is run by what, and when a server takes it."""

from __future__ import annotations

from collections.abc import Callable

from . import channels, control, data, info, scripts

__all__ = ["IN_EXEC", "LOADING", "NEVER_QUEUED", "STALE", "SUBSCRIBED", "TABLE", "WRITE", "Command"]

WRITE = 1  # refused by a read-only replica
STALE = 2  # taken without a link to the master, whatever replica-serve-stale-data says
LOADING = 4  # taken while loading
SUBSCRIBED = 8  # taken on a link that hears channels
NEVER_QUEUED = 16  # runs within MULTI too
NO_SCRIPT = 32
IN_EXEC = 64  # EXEC itself

_ALWAYS = STALE | LOADING


class Command:
    """`arity` is the number of words, or minus the least number of them."""

    __slots__ = ("arity", "flags", "name", "run")

    def __init__(self, name: str, arity: int, flags: int, run: Callable[..., bytes | None]) -> None:
        self.name = name
        self.arity = arity
        self.flags = flags
        self.run = run

    def takes(self, count: int) -> bool:
        return count == self.arity if self.arity > 0 else count >= -self.arity


_COMMANDS = [
    Command("get", 2, 0, data.get),
    Command("set", -3, WRITE, data.set_),
    Command("incr", 2, WRITE, data.incr),
    Command("incrby", 3, WRITE, data.incrby),
    Command("append", 3, WRITE, data.append),
    Command("strlen", 2, 0, data.strlen),
    Command("mget", -2, 0, data.mget),
    Command("del", -2, WRITE, data.delete),
    Command("unlink", -2, WRITE, data.delete),
    Command("exists", -2, 0, data.exists),
    Command("type", 2, 0, data.type_),
    Command("expire", -3, WRITE, data.pexpire),
    Command("pexpire", -3, WRITE, data.pexpire),
    Command("pexpireat", -3, WRITE, data.pexpireat),
    Command("persist", 2, WRITE, data.persist),
    Command("ttl", 2, 0, data.pttl),
    Command("pttl", 2, 0, data.pttl),
    Command("keys", 2, 0, data.keys_),
    Command("dbsize", 1, 0, data.dbsize),
    Command("flushall", -1, WRITE, data.flushall),
    Command("flushdb", -1, WRITE, data.flushdb),
    Command("hset", -4, WRITE, data.hset),
    Command("hdel", -3, WRITE, data.hdel),
    Command("hincrby", 4, WRITE, data.hincrby),
    Command("hget", 3, 0, data.hget),
    Command("hmget", -3, 0, data.hmget),
    Command("hgetall", 2, 0, data.hgetall),
    Command("hlen", 2, 0, data.hlen),
    Command("rpush", -3, WRITE, data.rpush),
    Command("lrange", 4, 0, data.lrange),
    Command("llen", 2, 0, data.llen),
    Command("sadd", -3, WRITE, data.sadd),
    Command("srem", -3, WRITE, data.srem),
    Command("smembers", 2, 0, data.smembers),
    Command("scard", 2, 0, data.scard),
    Command("sismember", 3, 0, data.sismember),
    Command("ping", -1, SUBSCRIBED, control.ping),
    Command("select", 2, _ALWAYS, control.select),
    Command("quit", -1, _ALWAYS | SUBSCRIBED | NEVER_QUEUED | NO_SCRIPT, control.quit_),
    Command("hello", -1, _ALWAYS | NO_SCRIPT, control.hello),
    Command("config", -2, _ALWAYS | NO_SCRIPT, control.config),
    Command("slaveof", 3, STALE | NO_SCRIPT, control.slaveof),
    Command("replicaof", 3, STALE | NO_SCRIPT, control.slaveof),
    Command("role", 1, _ALWAYS | NO_SCRIPT, control.role),
    Command("replconf", -1, _ALWAYS | NO_SCRIPT, control.replconf),
    Command("wait", 3, NO_SCRIPT, control.wait),
    Command("info", -1, _ALWAYS, info.info),
    Command("client", -2, _ALWAYS | NO_SCRIPT, control.client),
    Command("time", 1, _ALWAYS, control.time_),
    Command("multi", 1, _ALWAYS | NEVER_QUEUED | NO_SCRIPT, control.multi),
    Command("discard", 1, _ALWAYS | NEVER_QUEUED | NO_SCRIPT, control.discard),
    Command("exec", 1, _ALWAYS | NEVER_QUEUED | NO_SCRIPT | IN_EXEC, control.exec_),
    Command("watch", -2, _ALWAYS | NEVER_QUEUED | NO_SCRIPT, control.watch),
    Command("unwatch", 1, _ALWAYS | NO_SCRIPT, control.unwatch),
    Command("publish", 3, _ALWAYS, channels.publish),
    Command("subscribe", -2, _ALWAYS | SUBSCRIBED | NO_SCRIPT, channels.subscribe),
    Command("psubscribe", -2, _ALWAYS | SUBSCRIBED | NO_SCRIPT, channels.psubscribe),
    Command("unsubscribe", -1, _ALWAYS | SUBSCRIBED | NO_SCRIPT, channels.unsubscribe),
    Command("punsubscribe", -1, _ALWAYS | SUBSCRIBED | NO_SCRIPT, channels.punsubscribe),
    Command("pubsub", -2, _ALWAYS, channels.pubsub),
    Command("eval", -3, STALE | NO_SCRIPT, scripts.evaluate),
    Command("evalsha", -3, STALE | NO_SCRIPT, scripts.evaluate_sha),
    Command("script", -2, NO_SCRIPT, scripts.script),
]

#: By name, in lower and in upper case.
TABLE = {
    name: command
    for command in _COMMANDS
    for name in (command.name.encode(), command.name.upper().encode())
}
