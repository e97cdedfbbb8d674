"""Addresses, histories, and what is read from the replies of a survey."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txharedis.errors import InvalidOption, ResponseError
from txharedis.topology import (
    Address,
    Identity,
    NodeView,
    Role,
    SurveyReplies,
    failover_key,
    parse_info,
    parse_view,
    vote_key,
)

# Address.parse


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("10.0.0.1:6380", "10.0.0.1", 6380),
        ("redis-1.example.org:6380", "redis-1.example.org", 6380),
        ("redis", "redis", 6379),
        (" redis:6380 ", "redis", 6380),
        (":6380", "127.0.0.1", 6380),
        ("6380", "127.0.0.1", 6380),
        (6380, "127.0.0.1", 6380),
        (1, "127.0.0.1", 1),
        (65535, "127.0.0.1", 65535),
        (("redis", 6380), "redis", 6380),
        (["redis", 6380], "redis", 6380),
        (("redis", "6380"), "redis", 6380),
        (("", 6380), "127.0.0.1", 6380),
        (("::1", 6380), "::1", 6380),
        (("[::1]", 6380), "::1", 6380),
        ("[::1]:6380", "::1", 6380),
        ("[::1]", "::1", 6379),
        ("[fe80::1%eth0]:6380", "fe80::1%eth0", 6380),
        (Address("redis", 6380), "redis", 6380),
    ],
)
def test_address_forms(value: object, host: str, port: int) -> None:
    assert Address.parse(value) == Address(host, port)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "  ",
        "redis:",
        "redis:x",
        "redis:0",
        "redis:65536",
        "redis:-1",
        "redis:+1",
        "redis:6_379",
        "redis: 6379",
        "redis:6379.0",
        "redis:²",
        "redis:٦٣٧٩",
        "²",
        "redis:" + "9" * 5000,
        "0",
        "65536",
        "::1",
        "::1:6379",
        "a:b:c",
        "[::1",
        "[::1]6379",
        "[::1]:",
        "[]:6379",
        "[::g]:6379",
        ("redis:6379", 6380),
        "a b:6379",
        "a,b:6379",
        "redis/0",
        "redis://redis:6379",
        0,
        -1,
        65536,
        True,
        6379.0,
        None,
        b"redis:6379",
        (),
        ("redis",),
        ("redis", 6379, 0),
        (6379, "redis"),
        (None, 6379),
        ("redis", None),
        ("redis", True),
        ("redis", 6379.0),
        ("redis", 0),
        ("a b", 6379),
        {"host": "redis"},
        object(),
    ],
)
def test_what_is_no_address_is_named(value: object) -> None:
    with pytest.raises(InvalidOption) as caught:
        Address.parse(value)
    assert repr(value) in str(caught.value)


@given(
    st.text(string.ascii_letters + string.digits + ".-", min_size=1)
    .filter(lambda host: not host.isdigit())
    .map(lambda host: Address(host, 6379))
    | st.builds(Address, st.just("fe80::1"), st.integers(1, 65535))
)
def test_an_address_reads_back_as_it_is_written(address: Address) -> None:
    assert Address.parse(str(address)) == address


# same_history

A, B, C = "a" * 40, "b" * 40, "c" * 40
ZERO = "0" * 40


def history(replid: str, replid2: str = ZERO) -> NodeView:
    return NodeView(Address("h", 1), "run", Role.MASTER, replid=replid, replid2=replid2)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (history(A), history(A), True),
        (history(A), history(B), False),
        (history(B, A), history(A), True),  # promoted, and a replica of before
        (history(B, A), history(C, A), False),  # two branches of A: offsets do not compare
        (history(B, A), history(B, C), True),
        (history(ZERO), history(ZERO), False),  # never had a history
        (history(""), history(""), False),
        (history(A, ZERO), history(ZERO, B), False),
    ],
)
def test_same_history(one: NodeView, other: NodeView, same: bool) -> None:
    assert one.same_history(other) is same
    assert other.same_history(one) is same


@given(*[st.sampled_from([A, B, C, ZERO, ""])] * 4)
def test_same_history_is_symmetric(one: str, one2: str, other: str, other2: str) -> None:
    left, right = history(one, one2), history(other, other2)
    assert left.same_history(right) == right.same_history(left)


# claims


def test_a_master_claims_only_as_the_incarnation_that_meta_names() -> None:
    master = NodeView(Address("h", 1), "run", Role.MASTER, epoch=3, meta_run_id="run")
    assert master.claims
    assert not replace(master, meta_run_id="before").claims
    assert not replace(master, role=Role.REPLICA).claims
    assert not replace(master, epoch=0).claims


# INFO, as redis-server 7.0.15 and Valkey 9.1.2 answered it

REDIS_MASTER = """\
# Replication
role:master
connected_slaves:1
slave0:ip=127.0.0.1,port=17101,state=online,offset=193,lag=0
master_failover_state:no-failover
master_replid:b2a07c525761718ca841d8390ffaefe35639f65d
master_replid2:0000000000000000000000000000000000000000
master_repl_offset:193
second_repl_offset:-1
repl_backlog_active:1
repl_backlog_size:1048576
repl_backlog_first_byte_offset:1
repl_backlog_histlen:193
"""

REDIS_REPLICA = """\
# Replication
role:slave
master_host:127.0.0.1
master_port:17100
master_link_status:up
master_last_io_seconds_ago:1
master_sync_in_progress:0
slave_read_repl_offset:193
slave_repl_offset:192
slave_priority:100
slave_read_only:1
replica_announced:1
connected_slaves:0
master_failover_state:no-failover
master_replid:b2a07c525761718ca841d8390ffaefe35639f65d
master_replid2:0000000000000000000000000000000000000000
master_repl_offset:193
second_repl_offset:-1
repl_backlog_active:1
repl_backlog_size:1048576
repl_backlog_first_byte_offset:1
repl_backlog_histlen:193
"""

REDIS_ORPHAN = """\
# Replication
role:slave
master_host:127.0.0.1
master_port:17100
master_link_status:down
master_last_io_seconds_ago:-1
master_sync_in_progress:0
slave_read_repl_offset:100031
slave_repl_offset:100031
master_link_down_since_seconds:1
slave_priority:100
slave_read_only:1
replica_announced:1
connected_slaves:0
master_failover_state:no-failover
master_replid:b2a07c525761718ca841d8390ffaefe35639f65d
master_replid2:0000000000000000000000000000000000000000
master_repl_offset:100031
second_repl_offset:-1
"""

VALKEY_MASTER = """\
# Replication
role:master
connected_slaves:1
slave0:ip=127.0.0.1,port=17111,state=online,offset=0,lag=1,type=replica
replicas_waiting_psync:0
master_failover_state:no-failover
master_replid:0b9bc0ec34ebb9254cd81c883ed75dfa1847d274
master_replid2:0000000000000000000000000000000000000000
master_repl_offset:207
second_repl_offset:-1
repl_backlog_active:1
repl_backlog_size:10485760
repl_backlog_first_byte_offset:1
repl_backlog_histlen:207
"""

VALKEY_REPLICA = """\
# Replication
role:slave
master_host:127.0.0.1
master_port:17110
master_link_status:up
master_last_io_seconds_ago:1
master_sync_in_progress:0
slave_read_repl_offset:207
slave_repl_offset:207
replicas_repl_buffer_size:0
replicas_repl_buffer_peak:0
slave_priority:100
slave_read_only:0
replica_announced:1
connected_slaves:0
replicas_waiting_psync:0
master_failover_state:no-failover
master_replid:0b9bc0ec34ebb9254cd81c883ed75dfa1847d274
master_replid2:0000000000000000000000000000000000000000
master_repl_offset:207
second_repl_offset:-1
"""

LOADING_MASTER = """\
# Replication
role:master
connected_slaves:0
master_failover_state:no-failover
master_replid:a4ac33db58194b8e7527313d1b9cbea117181bf7
master_replid2:0000000000000000000000000000000000000000
master_repl_offset:0
second_repl_offset:-1
"""

# A replica in the middle of its first full resync.
SYNCING = """\
# Replication
role:slave
master_host:127.0.0.1
master_port:17100
master_link_status:down
master_last_io_seconds_ago:-1
master_sync_in_progress:1
slave_read_repl_offset:0
slave_repl_offset:0
master_sync_total_bytes:-1
master_sync_read_bytes:0
master_sync_left_bytes:-1
master_sync_perc:-0.00
master_sync_last_io_seconds_ago:0
master_link_down_since_seconds:-1
slave_priority:100
slave_read_only:1
master_replid:a4ac33db58194b8e7527313d1b9cbea117181bf7
master_replid2:0000000000000000000000000000000000000000
master_repl_offset:0
"""

KEYSPACE = """\
# Keyspace
db0:keys=2,expires=0,avg_ttl=0
db3:keys=40,expires=1,avg_ttl=5
db15:keys=500,expires=0,avg_ttl=0
"""

VALKEY_KEYSPACE = """\
# Keyspace
db0:keys=302,expires=0,avg_ttl=0,keys_with_volatile_items=0
db1:keys=1,expires=0,avg_ttl=0,keys_with_volatile_items=0
"""

META = [b"epoch", b"10", b"group", b"g1", b"master", b"127.0.0.1:17100", b"run_id", b"r0"]

HERE = Address("127.0.0.1", 17101)
RESOLVE = {("127.0.0.1", port): Address("127.0.0.1", port) for port in (17100, 17110)}
LOADING = ResponseError("LOADING Redis is loading the dataset in memory")


def wire(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def view_of(
    replication: str | object,
    *,
    keyspace: object = wire(KEYSPACE),
    meta: object = META,
    counters: object = (b"1441", b"11", None),
    priority: object = (b"replica-priority", b"100"),
    sentinels: object = (b"__sentinel__:hello", 0),
    cluster: bool = False,
) -> NodeView:
    def listed(reply: object) -> object:
        return list(reply) if isinstance(reply, tuple) else reply

    return parse_view(
        HERE,
        Identity("r1", 5, "7.0.15", cluster),
        SurveyReplies(
            wire(replication) if isinstance(replication, str) else replication,
            keyspace,
            listed(meta),
            listed(counters),
            listed(priority),
            listed(sentinels),
        ),
        uptime=12,
        db=15,
        resolve=RESOLVE,
    )


def test_view_of_a_redis_master() -> None:
    assert view_of(REDIS_MASTER) == NodeView(
        HERE,
        "r1",
        Role.MASTER,
        offset=193,
        replid="b2a07c525761718ca841d8390ffaefe35639f65d",
        replid2=ZERO,
        epoch=10,
        group="g1",
        meta_master="127.0.0.1:17100",
        meta_run_id="r0",
        opcounter=1441,
        vote=11,
        keys=42,
        uptime=12,
    )


def test_view_of_a_redis_replica() -> None:
    view = view_of(REDIS_REPLICA)
    assert view == replace(
        view_of(REDIS_MASTER),
        role=Role.REPLICA,
        follows=Address("127.0.0.1", 17100),
        follows_text="127.0.0.1:17100",
        link_up=True,
        last_io=1,
        offset=192,
    )


def test_view_of_a_replica_whose_master_died() -> None:
    view = view_of(REDIS_ORPHAN)
    assert (view.link_up, view.last_io, view.syncing, view.linked_before, view.offset) == (
        False,
        -1,
        False,
        True,
        100031,
    )


def test_view_of_a_replica_in_its_first_resync() -> None:
    view = view_of(SYNCING)
    assert (view.link_up, view.syncing, view.linked_before) == (False, True, False)


@pytest.mark.parametrize(
    ("link_up", "down_for", "before"),
    [(True, -1, True), (False, 0, True), (False, 7, True), (False, -1, False)],
)
def test_a_link_that_is_up_or_went_down_was_up_before(
    link_up: bool, down_for: int, before: bool
) -> None:
    view = NodeView(Address("n", 1), "r", Role.REPLICA, link_up=link_up, link_down_for=down_for)
    assert view.linked_before is before


def test_view_of_valkey() -> None:
    master, replica = (
        view_of(VALKEY_MASTER, keyspace=wire(VALKEY_KEYSPACE)),
        view_of(VALKEY_REPLICA),
    )
    assert (master.role, master.offset, master.keys) == (Role.MASTER, 207, 303)
    assert (replica.role, replica.offset, replica.link_up) == (Role.REPLICA, 207, True)
    assert replica.follows == Address("127.0.0.1", 17110)
    assert replica.same_history(master)


@pytest.mark.parametrize(("replica", "writable"), [(VALKEY_REPLICA, True), (REDIS_REPLICA, False)])
def test_view_of_a_writable_replica(replica: str, writable: bool) -> None:
    assert view_of(replica).writable is writable
    assert not view_of(REDIS_MASTER).writable


@pytest.mark.parametrize("word", ["Redis", "Valkey"])
def test_view_of_a_loading_node(word: str) -> None:
    error = ResponseError(f"LOADING {word} is loading the dataset in memory")
    view = view_of(LOADING_MASTER, meta=error, counters=error)
    assert view.loading
    assert (view.epoch, view.group, view.opcounter, view.vote) == (0, "", 0, 0)
    assert view_of(LOADING_MASTER, counters=error).loading
    assert not view_of(LOADING_MASTER).loading


def test_view_of_a_replica_of_a_foreign_master() -> None:
    view = view_of(REDIS_REPLICA.replace("master_port:17100", "master_port:9999"))
    assert view.follows is None
    assert view.follows_text == "127.0.0.1:9999"
    ipv6 = view_of(REDIS_REPLICA.replace("master_host:127.0.0.1", "master_host:::1"))
    assert ipv6.follows_text == "[::1]:17100"


def test_view_of_a_locked_node() -> None:
    assert view_of(REDIS_MASTER, counters=(b"1", b"2", b"token")).locked
    assert not view_of(REDIS_MASTER, counters=(b"1", b"2", None)).locked


def test_view_of_a_node_in_cluster_mode_or_watched_by_sentinel() -> None:
    assert view_of(REDIS_MASTER, cluster=True).cluster
    assert view_of(REDIS_MASTER, sentinels=(b"__sentinel__:hello", 3)).sentinels == 3


def test_view_of_a_witness() -> None:
    assert view_of(REDIS_MASTER, priority=(b"replica-priority", b"0")).priority == 0
    # CONFIG may be denied or renamed.
    assert view_of(REDIS_MASTER, priority=ResponseError("NOPERM")).priority == 100


@pytest.mark.parametrize(
    "reply",
    [ResponseError("NOPERM no"), None, [], [b"odd"], [None, None], b"\xff", 7, [b"\xff", 1]],
)
def test_replies_that_cannot_be_read_are_nothing_known(reply: object) -> None:
    view = view_of(
        reply, keyspace=reply, meta=reply, counters=reply, priority=reply, sentinels=reply
    )
    assert (view.epoch, view.group, view.keys, view.opcounter, view.offset) == (0, "", 0, 0, 0)
    assert not view.loading


def test_numbers_that_are_none_read_as_zero() -> None:
    view = view_of(REDIS_MASTER, meta=[b"epoch", b"ten"], counters=[b"many", b"", None])
    assert (view.epoch, view.opcounter, view.vote) == (0, 0, 0)


replies = st.recursive(
    st.none()
    | st.integers()
    | st.binary(max_size=20)
    | st.sampled_from([LOADING, ResponseError("ERR"), wire(REDIS_REPLICA), wire(KEYSPACE), b":x"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(st.fixed_dictionaries(dict.fromkeys(SurveyReplies.__dataclass_fields__, replies)))
def test_any_replies_can_be_read(six: dict[str, object]) -> None:
    view = parse_view(HERE, Identity("r1", 5, "", False), SurveyReplies(**six), 1, 15, RESOLVE)
    assert view.run_id == "r1"


# Identity and small things

SERVER = """\
# Server
redis_version:7.0.15
redis_mode:standalone
run_id:cd46cbfa61004e22a0eca26a0306e4ffd350c264
uptime_in_seconds:3
config_file:
"""


def test_identity() -> None:
    run_id = "cd46cbfa61004e22a0eca26a0306e4ffd350c264"
    assert Identity.parse(wire(SERVER)) == Identity(run_id, 3, "7.0.15", cluster=False)
    valkey = SERVER.replace(
        "redis_version:7.0.15\nredis_mode:standalone",
        "redis_version:7.2.4\nserver_name:valkey\nvalkey_version:9.1.2\nserver_mode:standalone",
    )
    assert Identity.parse(wire(valkey)) == Identity(run_id, 3, "9.1.2", cluster=False)
    assert Identity.parse(wire(SERVER.replace("standalone", "cluster"))).cluster
    assert Identity.parse(wire(valkey.replace("standalone", "cluster"))).cluster
    assert Identity.parse(b"") == Identity("", 0, "", cluster=False)


def test_info_values_may_hold_colons_and_be_empty() -> None:
    assert parse_info(b"# Server\r\na:b:c\r\nempty:\r\n\r\nno line\r\n:x\r\n") == {
        "a": "b:c",
        "empty": "",
    }


def test_each_node_has_its_own_lock_and_vote() -> None:
    names = {failover_key("r1"), failover_key("r2"), vote_key("r1"), vote_key("r2")}
    assert len(names) == 4
    assert failover_key("r1") == "haredis:failover:r1"
    assert vote_key("r1") == "haredis:vote:r1"


@pytest.mark.parametrize("value", ["me:secret@host:1", "redis://me:secret@host:1", "secret@host"])
def test_a_password_in_the_wrong_place_is_not_shown(value: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Address.parse(value)
    assert "secret" not in str(caught.value)
    assert "host" in str(caught.value)


def test_a_promoted_master_says_where_it_parted_from_the_old_history() -> None:
    text = REDIS_MASTER.replace("second_repl_offset:-1", "second_repl_offset:101")
    assert view_of(text).parted_at == 101
    assert view_of(REDIS_MASTER).parted_at == -1


@pytest.mark.parametrize(
    ("state", "failing_over"),
    [("no-failover", False), ("waiting-for-sync", True), ("failover-in-progress", True)],
)
def test_a_server_that_hands_over_by_itself_says_so(state: str, failing_over: bool) -> None:
    text = REDIS_MASTER.replace("no-failover", state)
    assert view_of(text).failing_over is failing_over
    assert not view_of(REDIS_REPLICA).failing_over
