"""The journal: batches of writes that a server runs once, however often it is given them.

A batch goes out as one EVALSHA of JOURNAL_SCRIPT: the server runs its commands, counts them, and
keeps their replies under the batch's number in a hash of this client's session, all of it as one
replicated unit. A batch whose reply was lost is given to the next master with the number it had. A
number that is in the journal is answered from it; one that is not has never been run there.
"""

from __future__ import annotations

import enum
import hashlib
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from txharedis.interfaces import LONG, pack

__all__ = [
    "BATCH_BYTES",
    "BATCH_COMMANDS",
    "INEXACT",
    "JOURNAL_LIFE",
    "JOURNAL_SCRIPT",
    "KEPT_BYTES",
    "LOAD_JOURNAL",
    "MOST_WORDS",
    "TOO_LARGE",
    "Entry",
    "Journal",
    "Outcome",
    "Ran",
    "read_replies",
]

#: A batch runs without interruption: it has no more commands than this, and of more than one
#: command no more bytes.
BATCH_COMMANDS = 256
BATCH_BYTES = 256 * 1024
#: Lua takes no more arguments than some 8000 at once.
MOST_WORDS = 4000
#: Seconds for which a journal lives after its last write.
JOURNAL_LIFE = 3600
#: Of the replies of one batch, so many bytes are kept.
KEPT_BYTES = 128 * 1024
_FEW = BATCH_BYTES // LONG  # in a batch of more commands, few can be long
_REFRESH = 60.0  # seconds after which its life is prolonged

# KEYS: the journal, the opcounter (it may be missing).
# ARGV: 1 the batch's number; 2 the number up to which all is settled; 3 the number of the batch
#       that must have been run before, 0 for none; 4 whether a missing journal means that it was
#       lost (1 or 0); 5 its new life in ms, 0 to leave that; 6 the user's database; 7 ours;
#       8... for each command the number of its words (negative: a read, 0: given up meanwhile), and
#       the words.
# Answers a list: what became of the batch, then a reply for each command. The first is one of
#       1 (run now), 2 (had been run), 3 (so too, and no WAIT can tell of it), 0 (nobody knows: the
#       journal is gone), -1 (settled long ago), -2 (the batch before it was not run); or for the
#       positive ones a list of it and pairs: the place of a reply that Lua cannot hold and what it
#       is ("large", "inexact", or its digits).
# Lua's numbers are doubles. A command whose integer reply may be beyond 2^53 has written it, too,
# and there it is read again as a text.
# A replica takes PUBLISH, and so does a master that takes no writes now, or has no memory for the
# journal; it would be heard again with the batch. A write before it tells, one that needs no
# memory: behind that, what the batch has done can be kept.
# OK, which most replies are, is kept as true, and only names as long as PUBLISH and SPUBLISH are
# looked at: with both a command in a batch costs the server a quarter less.
# WAIT speaks of the writes of its own link: where a batch had been run, a write stands for it. That
# gives the journal the life which it has: a client that was closed may have made it shorter.
# A new journal proves the rights that are needed later, its floor last; the first of the writes is
# one that a full server refuses.
JOURNAL_SCRIPT = (
    b"""
local ARGV, tonumber, type, unpack = ARGV, tonumber, type, unpack
local call, pcall, journal, own = redis.call, redis.pcall, KEYS[1], ARGV[7]
local number, settled, after = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
call('select', own)
local found = call('hmget', journal, 'floor', 'last', ARGV[1])
local floor, kept = tonumber(found[1]), found[3]
local life = ARGV[5]
if not floor then
    if ARGV[4] == '1' then return {0} end
    if after > 0 then return {-2} end
    call('hset', journal, 'last', settled)
    call('pexpire', journal, %(life)d)
    call('hdel', journal, 0)
    call('hset', journal, 'floor', settled)
    floor, life = settled, '0'
elseif number <= floor then
    return {-1}
elseif kept then
    kept = cmsgpack.unpack(kept)
elseif number <= tonumber(found[2]) then
    return {0}
elseif tonumber(found[2]) < after then
    return {-2}
end
call('select', ARGV[6])
local replies, keep, odd, writes, told = {1}, {}, {}, 0, not found[2]
local OK = {ok = 'OK'}
local at, place, count = 8, 0, #ARGV
while at <= count do
    local words, reply = tonumber(ARGV[at]), false
    local stored = false
    place = place + 1
    if words > 0 then
        if kept then
            stored = kept[place]
            reply = stored
            if stored == true then
                reply = OK
            elseif type(stored) == 'table' and stored.odd then
                odd[#odd + 1], odd[#odd + 2] = place, stored.odd
                reply = 0
            end
        else
            local size = #ARGV[at + 1]
            if not told and size > 6 and size < 9
                    and string.find(string.lower(ARGV[at + 1]), 'publish$') then
                call('select', own)
                call('pexpire', journal, %(life)d)
                call('select', ARGV[6])
                told = true
            end
            reply = pcall(unpack(ARGV, at + 1, at + words))
            stored = reply
            writes = writes + 1
            if type(reply) == 'table' then
                if reply.ok == 'OK' then
                    stored = true
                elseif reply.err then
                    if string.sub(reply.err, 1, 8) == 'READONLY' then return {err = reply.err} end
                    reply = {err = reply.err}
                    stored = reply
                end
            elseif type(reply) == 'number' and (reply >= %(most)d or reply <= -%(most)d) then
                local name, exact = string.lower(ARGV[at + 1]), false
                if name == 'hincrby' then
                    exact = pcall('hget', ARGV[at + 2], ARGV[at + 3])
                elseif string.find(name, '^incr') or string.find(name, '^decr') then
                    exact = pcall('get', ARGV[at + 2])
                end
                if type(exact) ~= 'string' then exact = 'inexact' end
                odd[#odd + 1], odd[#odd + 2] = place, exact
                reply, stored = 0, {odd = exact}
            end
        end
    elseif words < 0 then
        words = -words
        reply = pcall(unpack(ARGV, at + 1, at + words))
    end
    replies[place + 1], keep[place] = reply, stored
    at = at + 1 + words
end
call('select', own)
if kept then
    local left = call('pttl', journal)
    if left < 1 then left = %(life)d end
    replies[1] = type(pcall('pexpire', journal, left)) == 'table' and 3 or 2
else
    local data = cmsgpack.pack(keep)
    if #data > %(kept)d then
        local left = %(kept)d
        for i = 1, place do
            local size = #cmsgpack.pack(keep[i])
            if size > left then keep[i] = {odd = 'large'} else left = left - size end
        end
        data = cmsgpack.pack(keep)
    end
    local upto = math.min(settled, floor + 1000)
    local new = {ARGV[1], data, 'floor', math.max(floor, upto), 'last', ARGV[1]}
    if pcall('hset', journal, unpack(new)) == 3 then life = '%(life)d' end -- it was flushed
    if upto > floor then
        local old = {}
        for i = floor + 1, upto do old[#old + 1] = i end
        pcall('hdel', journal, unpack(old))
    end
    if life ~= '0' then pcall('pexpire', journal, life) end
    if KEYS[2] and writes > 0 then pcall('incrby', KEYS[2], writes) end
end
if #odd > 0 then replies[1] = {replies[1], unpack(odd)} end
return replies
"""
    % {b"life": JOURNAL_LIFE * 1000, b"most": 2**53, b"kept": KEPT_BYTES}
).strip()
JOURNAL_SHA1 = hashlib.sha1(JOURNAL_SCRIPT).hexdigest().encode()
LOAD_JOURNAL = pack(("SCRIPT", "LOAD", JOURNAL_SCRIPT))
TOO_LARGE = b"large"
INEXACT = b"inexact"


class Entry(Protocol):
    """One command of a batch; `deferred` is None when nobody waits for it any more."""

    packed: bytes
    read: bool

    @property
    def deferred(self) -> object: ...


class Batch(Protocol):
    """The commands of one number, in their order.

    `sent_at` is the time at which it was first sent, None before; `lost_once` tells that its reply
    was lost; `after` is the number of the batch that stands unanswered before it on its link, 0 for
    none.
    """

    @property
    def commands(self) -> Sequence[Entry]: ...

    number: int
    sent_at: float | None
    lost_once: bool
    after: int


class Ran(enum.IntEnum):
    """What became of a batch: the first number of the script's answer."""

    NOW = 1
    BEFORE = 2
    BEFORE_UNCONFIRMED = 3
    UNKNOWN = 0
    SETTLED = -1
    NOT_YET = -2


class Outcome:
    """The script's answer, read: what became of the batch, the replies, and those among them that
    could not be kept or held, by place."""

    __slots__ = ("odd", "ran", "replies")

    def __init__(self, ran: int, replies: Sequence[object], odd: dict[int, bytes]) -> None:
        self.ran = ran
        self.replies = replies
        self.odd = odd


def read_replies(answer: list[object]) -> Outcome:
    """Read the script's answer; integers that Lua could not hold are put in their places."""
    head = answer[0]
    if type(head) is int:
        return Outcome(head, answer[1:], {})
    assert isinstance(head, list)
    replies = answer[1:]
    odd: dict[int, bytes] = {}
    for place, what in zip(head[1::2], head[2::2], strict=True):
        if what in (TOO_LARGE, INEXACT):
            odd[place - 1] = what
        else:
            replies[place - 1] = int(what)
    return Outcome(head[0], replies, odd)


class Journal:
    """The numbers of one session's batches.

    `own_db` is the database of our keys, `counter` the key of the opcounter in it, None for not
    counting.
    """

    def __init__(self, own_db: int, counter: str | None) -> None:
        self.key = f"haredis:journal:{secrets.token_hex(8)}"
        self._own_db = own_db
        self._newest = 0
        self._open: dict[int, object] = {}  # the numbers that are not settled, in their order
        self._answered = False  # whether any batch was: then there is a journal
        self.reply_lost = False  # whether any reply was: then bytes of a batch may come late
        self._refresh_due = 0.0
        keys = [self.key] if counter is None else [self.key, counter]
        self._named = _bulk(len(keys)) + b"".join(map(_bulk, keys))
        self._words = 1 + 1 + 1 + len(keys) + 7

    @property
    def used(self) -> bool:
        """Whether there may be a journal on the servers."""
        return self._newest > 0

    def number(self) -> int:
        """The number of a new batch."""
        self._newest += 1
        self._open[self._newest] = None
        return self._newest

    def settle(self, number: int) -> None:
        """All of this batch is answered or given up: it will not be sent again."""
        self._open.pop(number, None)

    def answered(self) -> None:
        """A server has run a batch: from here on a missing journal is one that was lost."""
        self._answered = True

    @property
    def settled(self) -> int:
        """The number up to which all are settled."""
        return next(iter(self._open), self._newest + 1) - 1

    def encode(self, batch: Batch, db: int, now: float, *, whole: bool) -> bytes:
        """The batch as it goes over the wire, with the script's whole text if `whole`."""
        again = batch.lost_once and (
            self._answered or (batch.sent_at is not None and now - batch.sent_at > JOURNAL_LIFE / 2)
        )
        life = 0
        if now >= self._refresh_due:
            self._refresh_due = now + _REFRESH
            life = JOURNAL_LIFE * 1000
        words = self._words
        parts: list[bytes | memoryview] = [b""]
        many = len(batch.commands) > _FEW
        for command in batch.commands:
            if command.deferred is None:
                parts.append(_GIVEN_UP)
                words += 1
                continue
            packed = command.packed
            if many or len(packed) < LONG:
                head, _, rest = packed.partition(b"\r\n")
                count, size = _count(head, command.read)
                parts += (count, rest)
            else:
                ends = packed.index(b"\r\n")
                count, size = _count(packed[:ends], command.read)
                parts += (count, memoryview(packed)[ends + 2 :])
            words += size
        script = b"$4\r\nEVAL\r\n" + _bulk(JOURNAL_SCRIPT) if whole else _BY_SHA1
        numbers = (batch.number, self.settled, batch.after, int(again), life, db, self._own_db)
        parts[0] = b"*%d\r\n%b%b%b" % (words, script, self._named, b"".join(map(_bulk, numbers)))
        return b"".join(parts)


@lru_cache(maxsize=1024)
def _bulk(word: bytes | str | int) -> bytes:
    data = word if isinstance(word, bytes) else str(word).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


_BY_SHA1 = b"$7\r\nEVALSHA\r\n" + _bulk(JOURNAL_SHA1)
_GIVEN_UP = _bulk(0)


@lru_cache(maxsize=1024)
def _count(head: bytes, read: bool) -> tuple[bytes, int]:
    """How the script is told the number of words ("*3"), and how many that makes with it."""
    words = int(head[1:])
    return _bulk(-words if read else words), words + 1
