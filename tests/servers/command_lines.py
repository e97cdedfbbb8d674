"""Lines for every command of the table: what both deliveries have to answer in the same way.

Each line is split at white space; @DUMP is the serialized value of the key `text`, @BIG an integer
beyond 2^53. Where a command is JOURNALLED or RIDING there are a line that succeeds and one that
fails.
"""

from __future__ import annotations

__all__ = ["BARE", "HARMFUL", "LINES", "NEEDS_MORE", "SETUP", "UNORDERED", "VARYING"]

_FAR = "9999999999"  # a time, in seconds

SETUP = """
FLUSHALL
FUNCTION FLUSH
CONFIG RESETSTAT
MSET text hello number 41 float 3.5 zeros 007 big 9007199254740993 small -9007199254740993
SET expiring v EX 1000
SET bits abc
RPUSH list a b 3 4.5 b
RPUSH numbers 3 1 2
SADD set one two 3 4.5
SADD set2 two 3 five
SADD single only
ZADD zset 1 a 2.5 b 3 7
ZADD zset2 1 a 5 b
ZADD same 0 a 0 b 0 c
HSET hash f v n 7 x 2.5 big 9007199254740993
GEOADD geo 13.361389 38.115556 palermo 15.087269 37.502669 catania
XADD stream 1-1 f v g 2
XADD stream 2-1 f w
XADD stream 3-1 f x
XGROUP CREATE stream group 0
XREADGROUP GROUP group consumer COUNT 2 STREAMS stream >
PFADD hll a b c
PFADD hll2 c d
""".strip().splitlines()

LINES: dict[str, str] = {
    # Writes that go through the journal.
    "APPEND": "text ! | new 1 | list x",
    "BITOP": "AND d text number | NOT d text | NOT d text number | AND d list",
    "CLUSTER FLUSHSLOT": "0 | ",
    "COPY": "text new | text number | text number REPLACE | text new DB 1 | list list | text",
    "DECR": "number | small | text | new",
    "DECRBY": "number 2 | small 5 | number x | text 1 | number 9223372036854775807",
    "DEL": "text | text list nothing | nothing | ",
    "DELIFEQ": "text hello | text other | nothing x | list x | text",
    "EXPIRE": "text 100 | nothing 100 | expiring 5000 GT | text -1 | text x",
    "EXPIREAT": f"text {_FAR} | text 1 | text x",
    "FLUSHALL": " | ASYNC | BOGUS",
    "FLUSHDB": " | SYNC | BOGUS",
    "GEOADD": "geo 13.5 38.2 near | geo XX CH 13.6 38 palermo | geo 1 2 | text 1 2 a",
    "GEORADIUS": "geo 15 37 200 km STORE d | geo 15 37 200 km STOREDIST d | geo 15 37 200 km"
    " | geo 15 37 200 km WITHDIST STORE d | geo 15 37 200 km WITHDIST WITHCOORD WITHHASH"
    " | text 1 1 1 m STORE d",
    "GEORADIUSBYMEMBER": "geo palermo 300 km STORE d | geo none 300 km STORE d"
    " | geo palermo 300 km WITHDIST | geo palermo 300 parsecs STORE d",
    "GEOSEARCHSTORE": "d geo FROMLONLAT 15 37 BYRADIUS 200 km"
    " | d geo FROMMEMBER palermo BYBOX 400 400 km STOREDIST | d geo FROMMEMBER palermo",
    "GETDEL": "text | number | nothing | list",
    "GETEX": "text | text EX 100 | expiring PERSIST | nothing EX 5 | text EX 0 | list",
    "GETSET": "number new | nothing 1 | list x",
    "HDEL": "hash f | hash f n none | nothing f | text f",
    "HEXPIRE": "hash 100 FIELDS 1 f | hash 100 FIELDS 1 none | hash 100 FIELDS 2 f | text 1",
    "HEXPIREAT": f"hash {_FAR} FIELDS 1 f | hash x FIELDS 1 f | text {_FAR} FIELDS 1 f",
    "HGETDEL": "hash FIELDS 2 f none | nothing FIELDS 1 f | text FIELDS 1 f | hash",
    "HGETEX": "hash EX 100 FIELDS 2 f none | hash FIELDS 1 n | text FIELDS 1 f | hash",
    "HINCRBY": "hash n 5 | hash big 1 | hash big -3 | hash new @BIG | hash f 1 | text f 1",
    "HINCRBYFLOAT": "hash n 0.5 | hash x 1e3 | hash f 1 | text f 1",
    "HMSET": "hash f 1 g 2 | hash f | text f 1",
    "HPERSIST": "hash FIELDS 1 f | nothing FIELDS 1 f | hash FIELDS 2 f | text FIELDS 1 f",
    "HPEXPIRE": "hash 100000 FIELDS 1 f | hash x FIELDS 1 f | text 1 FIELDS 1 f",
    "HPEXPIREAT": f"hash {_FAR}000 FIELDS 1 f | hash x FIELDS 1 f | text 1 FIELDS 1 f",
    "HSET": "hash new v | hash f 1 g 2 | hash f | text f v",
    "HSETEX": "hash EX 100 FIELDS 1 f v | hash FNX FIELDS 1 f v | hash | text FIELDS 1 f v",
    "HSETNX": "hash f w | hash new w | hash | text f v",
    "INCR": "number | big | zeros | text | list | number extra | ",
    "INCRBY": "number 2 | big 1 | new @BIG | number x | text 1 | big 9223372036854775807",
    "INCRBYFLOAT": "number 0.25 | float 1e3 | new 3 | text 1 | float inf",
    "LINSERT": "list BEFORE b new | list AFTER none x | nothing BEFORE a b | list MID b x | text",
    "LMOVE": "list other LEFT RIGHT | nothing other LEFT LEFT | list text LEFT LEFT | list other",
    "LMPOP": "1 list LEFT | 2 nothing list RIGHT COUNT 2 | 1 nothing LEFT | 1 text LEFT | 0 LEFT",
    "LPOP": "list | list 2 | list 0 | nothing | nothing 2 | text | list -1",
    "LPUSH": "list x | list 1 y 2.5 | text x",
    "LPUSHX": "list x | nothing x | text x",
    "LREM": "list 0 b | list -1 none | list x b | text 0 b",
    "LSET": "list 0 new | list 99 new | nothing 0 new | list",
    "LTRIM": "list 1 2 | nothing 0 1 | list 1 x | text 0 1",
    "MOVE": "text 1 | nothing 1 | text 0 | text 99 | text x",
    "MSET": "text 1 new v | text | ",
    "MSETEX": "2 text 1 new v EX 100 | 1 text v NX | 2 text v | 0",
    "MSETNX": "a 1 b v | text 1 new v | a",
    "PERSIST": "expiring | text | ",
    "PEXPIRE": "text 100000 | nothing 1 | text x",
    "PEXPIREAT": f"text {_FAR}000 | text 1 | text x",
    "PFADD": "hll d e | hll a b | new | text a",
    "PFDEBUG": "ENCODING hll | GETREG nothing | BOGUS hll",
    "PFMERGE": "merged hll hll2 | new | merged text",
    "PSETEX": "new 100000 v | new 0 v | new",
    "PUBLISH": "channel message | channel",
    "RENAME": "text new | nothing new | list text | text",
    "RENAMENX": "text new | text number | nothing new",
    "RESTORE": "new 0 @DUMP | new 100000 @DUMP | text 0 @DUMP | text 0 @DUMP REPLACE | new 0 junk",
    "RPOP": "list | list 2 | list 0 | nothing | nothing 2 | text",
    "RPOPLPUSH": "list other | nothing other | list text",
    "RPUSH": "list x | list x 1 | text x",
    "RPUSHX": "list x | nothing x | text x",
    "SADD": "set new | set a 1 | set one | text a",
    "SDIFFSTORE": "d set set2 | d nothing | d text",
    "SET": "new v | text v NX | new v NX | text v XX GET | new v GET | nothing v XX | new v EX 100"
    " | expiring v KEEPTTL | new v PX 0 | list v GET | new v BOGUS | new v NX XX | new",
    "SETBIT": "text 1 1 | text 2 0 | text 1 2 | list 1 1",
    "SETEX": "new 100 v | new 0 v | new x v",
    "SETNX": "new v | text v | new",
    "SETRANGE": "text 1 EY | new 5 x | text -1 x | list 0 x",
    "SINTERSTORE": "d set set2 | d set nothing | d text",
    "SMOVE": "set set2 one | set set2 none | set text one",
    "SORT": "numbers STORE d | list ALPHA DESC STORE d | nothing STORE d | list STORE d"
    " | numbers | numbers DESC LIMIT 0 2 | list | list BY text GET # GET text_* | text",
    "SPOP": "single | single 5 | set 10 | nothing | nothing 2 | single -1 | text",
    "SPUBLISH": "channel message | channel",
    "SREM": "set one | set one none | text a",
    "SUNIONSTORE": "d set set2 | d nothing | d text",
    "UNLINK": "text | text list nothing | ",
    "XACK": "stream group 1-1 9-9 | nothing group 1-1 | stream group x | text group 1-1",
    "XADD": "stream 9-1 f v | new 1-1 f v g h | stream NOMKSTREAM MAXLEN 2 9-1 f v"
    " | nothing NOMKSTREAM 9-1 f v | stream 1-1 f v | stream 9-1 f | text 9-1 f v",
    "XAUTOCLAIM": "stream group other 0 0 | stream group other 0 0 JUSTID | stream none other 0 0"
    " | stream group other x 0",
    "XCLAIM": "stream group other 0 1-1 | stream group other 0 1-1 2-1 JUSTID"
    " | stream group other 0 9-9 | stream none other 0 1-1 | stream group other x 1-1",
    "XDEL": "stream 1-1 9-9 | nothing 1-1 | stream x | text 1-1",
    "XGROUP CREATE": "stream new $ | new g 0 MKSTREAM | stream group 0 | nothing g 0",
    "XGROUP CREATECONSUMER": "stream group new | stream group consumer | stream none new",
    "XGROUP DELCONSUMER": "stream group consumer | stream group none | stream none consumer",
    "XGROUP DESTROY": "stream group | stream none | nothing group",
    "XGROUP SETID": "stream group 2-1 | stream none 0 | stream group",
    "XSETID": "stream 9-9 | stream 1-1 | nothing 1-1",
    "XTRIM": "stream MAXLEN 1 | stream MINID 2-1 | stream MAXLEN -1 | text MAXLEN 1",
    "ZADD": "zset 1 new | zset 1.5 a 2 x | zset XX CH 9 a | zset INCR 0.1 a | zset NX INCR 1 a"
    " | zset 1 x 2 | zset NX XX 1 a | zset x a | text 1 a",
    "ZDIFFSTORE": "d 2 zset zset2 | d 1 nothing | d 1 text | d 0",
    "ZINCRBY": "zset 0.25 a | zset 2 new | zset x a | text 1 a",
    "ZINTERSTORE": "d 2 zset zset2 | d 2 zset zset2 WEIGHTS 2 3 AGGREGATE MAX | d 1 text | d 0",
    "ZMPOP": "1 zset MIN | 2 nothing zset MAX COUNT 2 | 1 nothing MIN | 1 text MIN | 0 MIN",
    "ZPOPMAX": "zset | zset 2 | nothing | zset -1 | text",
    "ZPOPMIN": "zset | zset 2 | nothing | zset -1 | text",
    "ZRANGESTORE": "d zset 0 1 | d zset 1 3 BYSCORE | d nothing 0 1 | d text 0 1 | d zset 0 x",
    "ZREM": "zset a none | nothing a | text a",
    "ZREMRANGEBYLEX": "same [a [b | nothing - + | same a b | text - +",
    "ZREMRANGEBYRANK": "zset 0 1 | nothing 0 1 | zset 0 x | text 0 1",
    "ZREMRANGEBYSCORE": "zset 1 2 | zset -inf +inf | zset x 2 | text 1 2",
    "ZUNIONSTORE": "d 2 zset zset2 | d 1 zset AGGREGATE MIN | d 1 text | d 0",
    # Of servers of other releases.
    "DELEX": "text IFEQ hello | text",
    "INCREX": "number | text",
    "VADD": "v VALUES 2 1 2 e | text VALUES 2 1 2 e",
    "VREM": "v e | text e",
    "VSETATTR": "v e {} | text e {}",
    "XACKDEL": "stream group KEEPREF IDS 1 1-1 | stream",
    "XCFGSET": "stream | text",
    "XDELEX": "stream KEEPREF IDS 1 1-1 | stream",
    "XNACK": "stream group | stream",
    # Reads that may ride among those.
    "EXISTS": "text | text text nothing | ",
    "GET": "text | number | big | nothing | zeros | list | ",
    "GETBIT": "text 1 | nothing 5 | text x | list 1",
    "GETRANGE": "text 1 2 | nothing 0 1 | text 0 x | list 0 1",
    "HEXISTS": "hash f | hash none | text f",
    "HGET": "hash f | hash n | hash none | nothing f | text f",
    "HLEN": "hash | nothing | text",
    "HMGET": "hash f none n | nothing f | text f",
    "HSTRLEN": "hash f | hash none | text f",
    "LINDEX": "list 0 | list -1 | list 99 | list x | text 0",
    "LLEN": "list | nothing | text",
    "MGET": "text nothing number | list | ",
    "PTTL": "text | nothing | ",
    "SCARD": "set | nothing | text",
    "SISMEMBER": "set one | set none | text one",
    "SMISMEMBER": "set one none | nothing a | text one",
    "STRLEN": "text | nothing | list",
    "TTL": "text | nothing | ",
    "TYPE": "text | list | zset | stream | nothing | ",
    "XLEN": "stream | nothing | text",
    "ZCARD": "zset | nothing | text",
    "ZRANK": "zset b | zset none | text a",
    "ZREVRANK": "zset b | zset none | text a",
    "ZSCORE": "zset a | zset b | zset none | text a",
    # What goes as it is.
    "ACL CAT": "scripting | nonsense",
    "ACL DELUSER": "nobody | default",
    "ACL DRYRUN": "default GET k | nobody GET k",
    "ACL GENPASS": "64 | x",
    "ACL GETUSER": "nobody | default",
    "ACL LOG": "RESET | x",
    "ACL SETUSER": "somebody on +get | somebody +nonsense",
    "BITCOUNT": "text | text 0 1 | list",
    "BITFIELD": "bits GET u8 0 SET u8 0 7 INCRBY i64 0 1 | bits INCRBY i64 64 @BIG"
    " | bits OVERFLOW FAIL INCRBY u2 0 9 | bits GET u8 0 | bits | list GET u8 0",
    "BITFIELD_RO": "bits GET u8 0 | bits SET u8 0 1",
    "BITPOS": "bits 1 | bits 0 1 | list 1",
    "BLMOVE": "list other LEFT RIGHT 1 | list text LEFT RIGHT 1",
    "BLMPOP": "1 1 list LEFT | 0.01 1 nothing LEFT | 1 1 text LEFT",
    "BLPOP": "list 1 | nothing 0.01 | text 1",
    "BRPOP": "list 1 | nothing 0.01 | text 1",
    "BRPOPLPUSH": "list other 1 | nothing other 0.01 | list text 1",
    "BZMPOP": "1 1 zset MIN | 1 1 text MIN",
    "BZPOPMAX": "zset 1 | text 1",
    "BZPOPMIN": "zset 1 | nothing 0.01 | text 1",
    "CLIENT KILL": "ID 99999999 | 127.0.0.1:1",
    "CLIENT PAUSE": "0 | x",
    "CLIENT UNBLOCK": "99999999 | x",
    "CLUSTER KEYSLOT": "text",
    "COMMAND DOCS": "GET NOSUCH",
    "COMMAND GETKEYS": "GET k | PING",
    "COMMAND GETKEYSANDFLAGS": "SET k v | PING",
    "COMMAND INFO": "GET NOSUCH",
    "COMMAND LIST": "FILTERBY PATTERN xa* | FILTERBY",
    "CONFIG GET": "maxmemory | nonsense",
    "CONFIG SET": "maxmemory 0 | nonsense 1",
    "DUMP": "text | nothing",
    "ECHO": "text | ",
    "EVAL": "return{1,2,3.3,'foo',nil,'bar'} 0 | return{err='MINE'} 0 | return{ok='FINE'} 0"
    " | return(redis.call('INCR',KEYS[1])) 1 big | return(redis.call('INCR',KEYS[1])) 1 text"
    " | return(redis.call('SET','a',1)) 0 | nonsense 0 | return 0",
    "EVALSHA": "0000000000000000000000000000000000000000 0 | x 0",
    "EVALSHA_RO": "0000000000000000000000000000000000000000 0",
    "EVAL_RO": "return(redis.call('GET',KEYS[1])) 1 text | return(redis.call('INCR','a')) 0",
    "EXPIRETIME": "text | nothing | ",
    "FCALL": "nosuch 0",
    "FCALL_RO": "nosuch 0",
    "FUNCTION DELETE": "nosuch",
    "FUNCTION LOAD": "nonsense",
    "FUNCTION RESTORE": "nonsense",
    "GEODIST": "geo palermo catania km | geo palermo none | text a b",
    "GEOHASH": "geo palermo none | text a",
    "GEOPOS": "geo palermo none | text a",
    "GEORADIUSBYMEMBER_RO": "geo palermo 300 km WITHDIST | text a 1 m",
    "GEORADIUS_RO": "geo 15 37 200 km WITHCOORD | text 1 1 1 m",
    "GEOSEARCH": "geo FROMLONLAT 15 37 BYRADIUS 200 km ASC | text FROMMEMBER a BYRADIUS 1 m",
    "HEXPIRETIME": "hash FIELDS 1 f | text FIELDS 1 f",
    "HGETALL": "hash | nothing | text",
    "HKEYS": "hash | text",
    "HPEXPIRETIME": "hash FIELDS 1 f | text FIELDS 1 f",
    "HPTTL": "hash FIELDS 1 f | text FIELDS 1 f",
    "HRANDFIELD": "hash | hash 2 WITHVALUES | nothing | text",
    "HSCAN": "hash 0 | text 0",
    "HTTL": "hash FIELDS 1 f | text FIELDS 1 f",
    "HVALS": "hash | text",
    "INFO": "server | nonsense",
    "KEYS": "text* | none*",
    "LATENCY HISTORY": "event",
    "LATENCY RESET": "event",
    "LCS": "text number LEN | text list",
    "LPOS": "list b RANK -1 | list none | text b",
    "LRANGE": "list 0 -1 | nothing 0 -1 | text 0 -1",
    "MEMORY USAGE": "text | nothing",
    "MIGRATE": "127.0.0.1 1 nothing 0 100 | 127.0.0.1",
    "MODULE LOAD": "/nonexistent",
    "MODULE LOADEX": "/nonexistent",
    "MODULE UNLOAD": "nosuch",
    "OBJECT ENCODING": "text | nothing | ",
    "OBJECT FREQ": "text | nothing",
    "OBJECT IDLETIME": "text | nothing",
    "OBJECT REFCOUNT": "text | nothing",
    "PEXPIRETIME": "text | nothing | ",
    "PFCOUNT": "hll hll2 | text",
    "PING": " | text | too many",
    "PUBSUB CHANNELS": "nothing*",
    "PUBSUB NUMSUB": "nothing",
    "PUBSUB SHARDCHANNELS": "nothing*",
    "PUBSUB SHARDNUMSUB": "nothing",
    "RESTORE-ASKING": "new 0 @DUMP | new 0 junk",
    "SCAN": "0 COUNT 1000 | x",
    "SCRIPT EXISTS": "0000000000000000000000000000000000000000",
    "SCRIPT LOAD": "return(1) | nonsense",
    "SCRIPT SHOW": "0000000000000000000000000000000000000000",
    "SDIFF": "set set2 | text",
    "SINTER": "set set2 | text",
    "SINTERCARD": "2 set set2 | 1 text",
    "SMEMBERS": "set | nothing | text",
    "SORT_RO": "numbers | list",
    "SRANDMEMBER": "single | set 2 | nothing | text",
    "SSCAN": "set 0 | text 0",
    "SUBSTR": "text 1 2 | list 0 1",
    "SUNION": "set set2 | text",
    "SWAPDB": "0 1 | 0 99 | x y",
    "TOUCH": "text nothing | ",
    "WAIT": "0 1 | x 1",
    "WAITAOF": "0 0 1 | x 0 1",
    "XINFO CONSUMERS": "stream group | nothing group",
    "XINFO GROUPS": "stream | nothing",
    "XINFO STREAM": "stream | nothing",
    "XPENDING": "stream group | stream none",
    "XRANGE": "stream - + COUNT 2 | text - +",
    "XREAD": "COUNT 1 STREAMS stream 0 | STREAMS nothing 0 | BLOCK 10 STREAMS stream $"
    " | STREAMS text 0",
    "XREADGROUP": "GROUP group consumer STREAMS stream > | GROUP group consumer STREAMS stream 0"
    " | GROUP group consumer BLOCK 10 STREAMS stream > | GROUP none consumer STREAMS stream >",
    "XREVRANGE": "stream + - COUNT 2 | text + -",
    "ZCOUNT": "zset (1 3 | zset x 3",
    "ZDIFF": "2 zset zset2 WITHSCORES | 1 text",
    "ZINTER": "2 zset zset2 WITHSCORES | 1 text",
    "ZINTERCARD": "2 zset zset2 | 1 text",
    "ZLEXCOUNT": "same - + | text - +",
    "ZMSCORE": "zset a none | text a",
    "ZRANDMEMBER": "same | zset 2 WITHSCORES | nothing | text",
    "ZRANGE": "zset 0 -1 WITHSCORES | zset 1 3 BYSCORE | text 0 -1",
    "ZRANGEBYLEX": "same - + | text - +",
    "ZRANGEBYSCORE": "zset 1 3 WITHSCORES | text 1 3",
    "ZREVRANGE": "zset 0 -1 WITHSCORES | text 0 -1",
    "ZREVRANGEBYLEX": "same + - | text + -",
    "ZREVRANGEBYSCORE": "zset 3 1 | text 3 1",
    "ZSCAN": "zset 0 | text 0",
    "ZUNION": "2 zset zset2 WITHSCORES | 1 text",
}

#: Succeed nowhere without more than one server can give them.
NEEDS_MORE = {"CLUSTER FLUSHSLOT": "cluster mode"}

#: Not run.
HARMFUL = {
    "PFSELFTEST": "seconds of work for the server",
    "SHUTDOWN": "the end of the server",
    "CLIENT UNPAUSE": "none is paused",
    "DEBUG": "may end the server",
}

#: Run without arguments: containers of subcommands, what takes none, and what is refused.
BARE = frozenset(
    """
    ACL|ACL HELP|ACL LIST|ACL LOAD|ACL SAVE|ACL USERS|ACL WHOAMI|ASKING|AUTH|BGREWRITEAOF|BGSAVE
    CLIENT|CLIENT CACHING|CLIENT CAPA|CLIENT GETNAME|CLIENT GETREDIR|CLIENT HELP|CLIENT ID
    CLIENT IMPORT-SOURCE|CLIENT INFO|CLIENT LIST|CLIENT NO-EVICT|CLIENT NO-TOUCH|CLIENT REPLY
    CLIENT SETINFO|CLIENT SETNAME|CLIENT TRACKING|CLIENT TRACKINGINFO|CLUSTER|CLUSTER ADDSLOTS
    CLUSTER ADDSLOTSRANGE|CLUSTER BUMPEPOCH|CLUSTER CANCELSLOTMIGRATIONS
    CLUSTER COUNT-FAILURE-REPORTS|CLUSTER COUNTKEYSINSLOT|CLUSTER DELSLOTS|CLUSTER DELSLOTSRANGE
    CLUSTER FAILOVER|CLUSTER FLUSHSLOTS|CLUSTER FORGET|CLUSTER GETKEYSINSLOT
    CLUSTER GETSLOTMIGRATIONS|CLUSTER HELP|CLUSTER INFO|CLUSTER LINKS|CLUSTER MEET
    CLUSTER MIGRATESLOTS|CLUSTER MYID|CLUSTER MYSHARDID|CLUSTER NODES|CLUSTER REPLICAS
    CLUSTER REPLICATE|CLUSTER RESET|CLUSTER SAVECONFIG|CLUSTER SET-CONFIG-EPOCH|CLUSTER SETSLOT
    CLUSTER SHARDS|CLUSTER SLAVES|CLUSTER SLOT-STATS|CLUSTER SLOTS|CLUSTER SYNCSLOTS|CLUSTERSCAN
    COMMAND|COMMAND COUNT|COMMAND HELP|COMMANDLOG|COMMANDLOG GET|COMMANDLOG HELP|COMMANDLOG LEN
    COMMANDLOG RESET|CONFIG|CONFIG HELP|CONFIG RESETSTAT|CONFIG REWRITE|DBSIZE|DISCARD|EXEC
    FAILOVER|FUNCTION|FUNCTION DUMP|FUNCTION FLUSH|FUNCTION HELP|FUNCTION KILL|FUNCTION LIST
    FUNCTION STATS|HELLO|LASTSAVE|LATENCY|LATENCY DOCTOR|LATENCY GRAPH|LATENCY HELP
    LATENCY HISTOGRAM|LATENCY LATEST|LOLWUT|MEMORY|MEMORY DOCTOR|MEMORY HELP|MEMORY MALLOC-STATS
    MEMORY PURGE|MEMORY STATS|MODULE|MODULE HELP|MODULE LIST|MONITOR|MULTI|OBJECT|OBJECT HELP
    PSUBSCRIBE|PSYNC|PUBSUB|PUBSUB HELP|PUBSUB NUMPAT|PUNSUBSCRIBE|QUIT|RANDOMKEY|READONLY
    READWRITE|REPLCONF|REPLICAOF|RESET|ROLE|SAVE|SCRIPT|SCRIPT DEBUG|SCRIPT FLUSH|SCRIPT HELP
    SCRIPT KILL|SELECT|SLAVEOF|SLOWLOG|SLOWLOG GET|SLOWLOG HELP|SLOWLOG LEN|SLOWLOG RESET
    SSUBSCRIBE|SUBSCRIBE|SUNSUBSCRIBE|SYNC|TIME|UNSUBSCRIBE|UNWATCH|WATCH|XGROUP|XGROUP HELP
    XINFO|XINFO HELP|DIGEST|VCARD|VDIM|VEMB|VGETATTR|VINFO|VISMEMBER|VLINKS|VRANDMEMBER|VRANGE
    VSIM
    """.strip()
    .replace("\n", "|")
    .split("|")
)
BARE = frozenset(name.strip() for name in BARE)

#: Their replies are chance, times, or tell of the server's own life: only the types are compared.
VARYING = frozenset(
    """ACL GENPASS,ACL LOG,CLIENT ID,CLIENT INFO,CLIENT LIST,COMMANDLOG GET,COMMANDLOG LEN,
    FUNCTION STATS,HRANDFIELD,INFO,LASTSAVE,LATENCY DOCTOR,LATENCY HISTOGRAM,LATENCY LATEST,LOLWUT,
    MEMORY DOCTOR,MEMORY MALLOC-STATS,MEMORY PURGE,MEMORY STATS,OBJECT IDLETIME,RANDOMKEY,
    BGSAVE,BGREWRITEAOF,SLOWLOG GET,SLOWLOG LEN,SRANDMEMBER,TIME,XINFO CONSUMERS,XINFO STREAM,
    ZRANDMEMBER""".replace("\n", "")
    .replace("    ", "")
    .split(",")
)

#: The order of what they list is a table's.
UNORDERED = frozenset({"ACL CAT", "COMMAND", "COMMAND LIST", "KEYS", "SCAN", "SPOP"})
