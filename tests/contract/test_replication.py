"""Roles, histories and offsets; what a replica takes, and what becomes of its locks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.lab import AnyServer, Lab, Link, at_once, code


async def pair(lab: Lab) -> tuple[AnyServer, AnyServer, Link, Link]:
    """A master and its replica, and a link to each."""
    master, replica = await lab.make(2)
    links = [await lab.connect(server) for server in (master, replica)]
    await lab.follow(links[1], master)
    return master, replica, links[0], links[1]


async def has(lab: Lab, link: Link, key: str, value: Any) -> None:
    """Wait until a key has this value."""

    async def there() -> bool:
        return bool(await link("GET", key) == value)

    await lab.until(there)


async def down(lab: Lab, link: Link) -> dict[str, str]:
    """Wait until the link to the master is down."""

    async def cut_off() -> dict[str, str] | None:
        info = await lab.info(link)
        return info if info["master_link_status"] == "down" else None

    info: dict[str, str] = await lab.until(cut_off)
    return info


async def same_offset(lab: Lab, one: Link, other: Link) -> int:
    async def same() -> int:
        infos = await at_once(lab.info(one), lab.info(other))
        offsets = {info["master_repl_offset"] for info in infos}
        return int(offsets.pop()) if len(offsets) == 1 else 0

    offset: int = await lab.until(same)
    return offset


async def test_writes_reach_the_replica(lab: Lab) -> None:
    _, _, master, replica = await pair(lab)
    await master.pipeline(
        ("SET", "a", 1),
        ("INCR", "a"),
        ("HSET", "h", "f", 1),
        ("RPUSH", "l", 1, 2),
        ("SADD", "s", 1),
    )
    await master.pipeline(("SELECT", 3), ("SET", "b", 1, "PX", 100000), ("SET", "last", 1))
    await replica("SELECT", 3)
    await has(lab, replica, "last", b"1")
    assert 0 < await replica("PTTL", "b") <= 100000
    await replica("SELECT", 0)
    assert await replica.pipeline(
        ("GET", "a"), ("HGETALL", "h"), ("LRANGE", "l", 0, -1), ("SMEMBERS", "s")
    ) == [b"2", [b"f", b"1"], [b"1", b"2"], [b"1"]]


async def test_what_a_replica_tells(lab: Lab) -> None:
    server, _, master, replica = await pair(lab)
    info = await lab.info(replica)
    assert info["role"] == "slave"
    assert (info["master_host"], info["master_port"]) == (server.host, str(server.port))
    assert info["master_link_status"] == "up"
    assert info["master_last_io_seconds_ago"] in ("0", "1")
    assert info["master_sync_in_progress"] == "0"
    assert info["slave_read_only"] == "1"
    assert "master_link_down_since_seconds" not in info
    of_master = await lab.info(master)
    assert of_master["master_replid"] == info["master_replid"]
    assert of_master["connected_slaves"] == "1"
    assert "state=online" in of_master["slave0"]
    await same_offset(lab, master, replica)
    info = await lab.info(replica)
    assert info["slave_repl_offset"] == info["master_repl_offset"]
    role = await replica("ROLE")
    assert role[:4] == [b"slave", server.host.encode(), server.port, b"connected"]
    assert (await replica("HELLO"))[10:12] == [b"role", b"replica"]


async def test_a_replica_is_read_only(lab: Lab) -> None:
    _, _, _, replica = await pair(lab)
    assert code(await replica("SET", "a", 1)) == "READONLY"
    assert code(await replica("FLUSHALL")) == "READONLY"
    assert await replica("GET", "a") is None
    *_, outcome = await replica.pipeline(("MULTI",), ("SET", "a", 1), ("EXEC",))
    assert code(outcome) == "EXECABORT"
    assert code(await replica("WAIT", 1, 10)) == "ERR"
    # It was queued while that was allowed.
    await replica("CONFIG", "SET", "replica-read-only", "no")
    await replica.pipeline(("MULTI",), ("SET", "a", 1))
    other = await lab.connect(lab_server(replica))
    await other("CONFIG", "SET", "replica-read-only", "yes")
    assert code(await replica("EXEC")) == "EXECABORT"
    assert code(await replica("EXEC")) == "ERR"


def lab_server(link: Link) -> Any:
    """Where a link leads to."""
    return link.transport.getPeer()


async def test_a_writable_replica_keeps_its_writes_to_itself(lab: Lab) -> None:
    _, _, master, replica = await pair(lab)
    offset = await same_offset(lab, master, replica)
    await replica("CONFIG", "SET", "replica-read-only", "no")
    assert await replica("SET", "lock", "mine", "NX", "PX", 60000) == b"OK"
    assert await replica("SET", "lock", "other", "NX", "PX", 60000) is None
    assert int((await lab.info(replica))["slave_repl_offset"]) < offset + 40  # no more than a PING
    assert await master("GET", "lock") is None
    await master("SET", "lock", "master's")
    await has(lab, replica, "lock", b"master's")
    await master("DEL", "lock")
    await has(lab, replica, "lock", None)


async def test_a_lock_on_a_replica_expires(lab: Lab) -> None:
    _, _, _, replica = await pair(lab)
    await replica.pipeline(
        ("CONFIG", "SET", "replica-read-only", "no"),
        ("SET", "lock", 1, "PX", 50),
        ("WATCH", "lock"),
    )
    await lab.sleep(0.08)
    assert await replica("GET", "lock") is None
    *_, outcome = await replica.pipeline(("MULTI",), ("SET", "a", 1), ("EXEC",))
    assert outcome is None
    assert await replica("SET", "lock", 2, "NX") == b"OK"


async def test_what_expires_on_the_master_expires_on_the_replica(lab: Lab) -> None:
    _, _, master, replica = await pair(lab)
    await master("SET", "a", 1, "PX", 100)
    await has(lab, replica, "a", b"1")
    await has(lab, replica, "a", None)

    async def deleted() -> bool:
        return bool(await replica("DBSIZE") == await master("DBSIZE") == 1)  # the tests' own key

    await lab.until(deleted)


async def test_a_replica_leaves_it_to_its_master_to_delete_what_has_expired(lab: Lab) -> None:
    server, _, master, replica = await pair(lab)
    await master("SET", "a", 1, "PX", 200)
    await has(lab, replica, "a", b"1")
    server.pause()
    await lab.sleep(0.25)
    assert await replica.pipeline(("GET", "a"), ("EXISTS", "a")) == [None, 0]
    assert await replica("DBSIZE") == 2  # with the tests' own key
    server.resume()

    async def deleted() -> bool:
        return bool(await replica("DBSIZE") == 1)

    await lab.until(deleted)


async def test_promotion_keeps_the_history_and_the_locks(lab: Lab) -> None:
    _, _, _master, replica = await pair(lab)
    await replica.pipeline(
        ("CONFIG", "SET", "replica-read-only", "no"), ("SET", "lock", "mine", "PX", 60000)
    )
    await replica("WATCH", "lock")
    before = await lab.info(replica)
    replies = await replica.pipeline(
        ("MULTI",), ("SLAVEOF", "NO", "ONE"), ("HSET", "meta", "epoch", 1), ("EXEC",)
    )
    assert replies[-1] == [b"OK", 1]
    after = await lab.info(replica)
    assert after["role"] == "master"
    assert after["master_replid"] != before["master_replid"]
    assert after["master_replid2"] == before["master_replid"]
    assert int(after["second_repl_offset"]) >= int(before["slave_repl_offset"]) + 1
    assert int(after["master_repl_offset"]) > int(before["slave_repl_offset"])  # it counts
    assert await replica("GET", "lock") == b"mine"
    assert await replica("SLAVEOF", "NO", "ONE") == b"OK"
    assert (await lab.info(replica))["master_replid"] == after["master_replid"]


async def test_a_demoted_master_goes_on_where_it_is(lab: Lab) -> None:
    _, new, master, replica = await pair(lab)
    await master("SET", "a", 1)
    await same_offset(lab, master, replica)
    old = (await lab.info(master))["master_replid"]
    await replica("SLAVEOF", "NO", "ONE")
    await replica("SET", "b", 1)
    await master("SLAVEOF", new.host, new.port)
    await has(lab, master, "b", b"1")
    infos = await at_once(lab.info(master), lab.info(replica))
    assert infos[0]["master_replid"] == infos[1]["master_replid"] != old
    assert infos[0]["master_replid2"] == old


async def test_a_demoted_master_that_has_written_more_is_given_everything(lab: Lab) -> None:
    _, new, master, replica = await pair(lab)
    await master("SET", "a", 1)
    await same_offset(lab, master, replica)
    await replica("SLAVEOF", "NO", "ONE")
    await replica("SET", "b", 1)
    history = (await lab.info(replica))["master_replid"]
    await master("SET", "lock", "mine")  # in no history of the new master's
    await master("DEL", "lock")
    before = await lab.info(replica)
    assert before["role"] == "master"
    await lab.follow(master, new)
    assert await master("GET", "b") == b"1"
    info = await lab.info(master)
    assert info["master_replid"] == history
    assert info["master_replid2"] == "0" * 40


async def test_a_partial_resync_keeps_local_keys(lab: Lab) -> None:
    first, second, third = await lab.make(3)
    links = [await lab.connect(server) for server in (first, second, third)]
    await lab.follow(links[1], first)
    await lab.follow(links[2], first)
    await links[2].pipeline(
        ("CONFIG", "SET", "replica-read-only", "no"), ("SET", "lock", "mine", "PX", 60000)
    )
    await links[0]("SET", "a", 1)
    await same_offset(lab, links[1], links[2])
    old = (await lab.info(links[1]))["master_replid"]
    first.kill()
    await links[1]("SLAVEOF", "NO", "ONE")
    await links[1]("SET", "b", 1)
    assert await links[2]("SLAVEOF", second.host, second.port) == b"OK"
    await has(lab, links[2], "b", b"1")
    assert await links[2]("GET", "lock") == b"mine"
    infos = await at_once(lab.info(links[1]), lab.info(links[2]))
    assert infos[0]["master_replid"] == infos[1]["master_replid"] != old
    assert infos[0]["master_replid2"] == infos[1]["master_replid2"] == old
    again = await links[2]("SLAVEOF", second.host, second.port)
    assert again == b"OK Already connected to specified master"


async def test_a_full_resync_wipes_local_keys_and_spoils_who_watches_them(lab: Lab) -> None:
    master, stranger = await lab.make(2)
    link, watcher = [await lab.connect(stranger) for _ in range(2)]
    await link.pipeline(("SET", "lock", "mine"), ("SET", "a", 1))
    await watcher("WATCH", "lock")
    before = (await lab.info(link))["master_replid"]
    await lab.follow(link, master)
    assert await link.pipeline(("GET", "lock"), ("GET", "a")) == [None, None]
    await link("CONFIG", "SET", "replica-read-only", "no")
    *_, outcome = await watcher.pipeline(("MULTI",), ("SET", "n", 1), ("EXEC",))
    assert outcome is None
    info = await lab.info(link)
    assert info["master_replid"] != before
    assert info["master_replid2"] == "0" * 40


async def test_a_master_that_restarts_empty_wipes_its_replicas(lab: Lab) -> None:
    server, _, master, replica = await pair(lab)
    await master("SET", "a", 1)
    await has(lab, replica, "a", b"1")
    server.kill()
    info = await down(lab, replica)
    assert info["master_last_io_seconds_ago"] == "-1"
    assert int(info["master_link_down_since_seconds"]) in (0, 1)
    assert await replica("GET", "a") == b"1"
    await server.restart()
    await has(lab, replica, "a", None)


async def test_a_replica_that_comes_back_in_time_goes_on(lab: Lab) -> None:
    """Its link is dropped by the master, which keeps what it missed."""
    _, _, master, replica = await pair(lab)
    await replica.pipeline(
        ("CONFIG", "SET", "replica-read-only", "no"), ("SET", "lock", "mine", "PX", 60000)
    )
    assert await master("CLIENT", "KILL", "TYPE", "replica") == 1
    await master("SET", "a", 1)
    await has(lab, replica, "a", b"1")
    assert await replica("GET", "lock") == b"mine"


async def test_a_dead_master_is_never_linked(lab: Lab) -> None:
    server, other = await lab.make(2)
    link = await lab.connect(other)
    server.kill()
    assert await link("SLAVEOF", server.host, server.port) == b"OK"
    await lab.sleep(0.05)
    info = await lab.info(link)
    assert info["role"] == "slave"
    assert info["master_link_status"] == "down"
    assert info["master_link_down_since_seconds"] == "-1"
    assert info["master_last_io_seconds_ago"] == "-1"
    assert await link("SLAVEOF", "NO", "ONE") == b"OK"


async def test_stale_data_are_kept_back(lab: Lab) -> None:
    server, _, master, replica = await pair(lab)
    await master("SET", "a", 1)
    await has(lab, replica, "a", b"1")
    await replica("CONFIG", "SET", "replica-serve-stale-data", "no")
    assert await replica("GET", "a") == b"1"
    server.kill()
    await down(lab, replica)
    for words in (("GET", "a"), ("SET", "a", 1), ("PING",)):
        assert code(await replica(*words)) == ("READONLY" if words[0] == "SET" else "MASTERDOWN")
    assert await replica("PUBLISH", "c", "m") == 0
    assert await replica("CONFIG", "SET", "replica-serve-stale-data", "yes") == b"OK"
    assert await replica("GET", "a") == b"1"


async def test_messages_travel_to_replicas_only(lab: Lab) -> None:
    _, _, master, replica = await pair(lab)
    servers = [lab_server(master), lab_server(replica)]
    on_master, on_replica = [await lab.connect(server) for server in servers]
    for link in (on_master, on_replica):
        await link("SUBSCRIBE", "c")
    assert await replica("PUBLISH", "c", "local") == 1
    assert await on_replica.next() == [b"message", b"c", b"local"]
    assert await master("PUBLISH", "c", "all") == 1
    assert await on_master.next() == [b"message", b"c", b"all"]
    assert await on_replica.next() == [b"message", b"c", b"all"]


async def test_wait(lab: Lab) -> None:
    _, server, master, replica = await pair(lab)
    assert await master.pipeline(("SET", "a", 1), ("WAIT", 1, 5000)) == [b"OK", 1]
    assert await replica("GET", "a") == b"1"
    # The question for acknowledgements is a part of the stream: it may be unconfirmed itself.
    *_, counted = await master.pipeline(("MULTI",), ("WAIT", 9, 0), ("EXEC",))
    assert counted in ([0], [1])
    server.pause()
    master.send(("SET", "a", 2), ("WAIT", 1, 60), ("GET", "a"))
    assert await master.next() == b"OK"
    assert await master.next() == 0
    assert await master.next() == b"2"  # it had to wait
    server.resume()
    assert await master("WAIT", 1, 5000) == 1
    assert await master.pipeline(("SET", "a", 3), ("WAIT", 2, 60)) == [b"OK", 1]
    assert code(await master("WAIT", 1, "x")) == "ERR"
    assert code(await master("WAIT", 1, -1)) == "ERR"


async def test_who_waits_on_a_master_that_is_demoted_is_unblocked(lab: Lab) -> None:
    first, second = await lab.make(2)
    link, other = [await lab.connect(first) for _ in range(2)]
    link.send(("SET", "a", 1), ("WAIT", 1, 0), ("PING",))
    assert await link.next() == b"OK"
    await lab.sleep(0.02)
    await other("SLAVEOF", second.host, second.port)
    assert code(await link.next()) == "UNBLOCKED"

    async def over() -> bool:
        return link.over

    await lab.until(over)


async def test_chained_replicas(lab: Lab) -> None:
    first, second, third = await lab.make(3)
    links = [await lab.connect(server) for server in (first, second, third)]
    await lab.follow(links[1], first)
    await links[2]("SLAVEOF", second.host, second.port)
    await lab.until(lambda: lab.is_up(links[2]))
    await links[0]("SET", "a", 1)
    await has(lab, links[2], "a", b"1")
    infos = await at_once(*(lab.info(link) for link in links))
    assert len({info["master_replid"] for info in infos}) == 1
    # The one in the middle is promoted: its replica goes on with it.
    await links[2].pipeline(
        ("CONFIG", "SET", "replica-read-only", "no"), ("SET", "lock", "mine", "PX", 60000)
    )
    await links[1]("SLAVEOF", "NO", "ONE")
    await links[1]("SET", "b", 1)
    await has(lab, links[2], "b", b"1")
    assert await links[2]("GET", "lock") == b"mine"
    infos = await at_once(*(lab.info(link) for link in links[1:]))
    assert len({info["master_replid"] for info in infos}) == 1


async def test_a_paused_master_is_still_linked_and_falls_silent(lab: Lab) -> None:
    server, _, master, replica = await pair(lab)
    await master("CONFIG", "SET", "repl-ping-replica-period", 1)
    server.pause()

    async def silent() -> bool:
        info = await lab.info(replica)
        assert info["master_link_status"] == "up"
        return int(info["master_last_io_seconds_ago"]) >= 2

    await lab.until(silent)
    server.resume()

    async def heard() -> bool:
        return int((await lab.info(replica))["master_last_io_seconds_ago"]) <= 1

    await lab.until(heard)


async def test_a_master_without_enough_replicas_refuses_writes(lab: Lab) -> None:
    _, _, master, _ = await pair(lab)
    await master("CONFIG", "SET", "min-replicas-to-write", 1)
    assert await master("SET", "a", 1) == b"OK"
    await master("CONFIG", "SET", "min-replicas-to-write", 2)
    assert code(await master("SET", "a", 1)) == "NOREPLICAS"
    *_, outcome = await master.pipeline(("MULTI",), ("SET", "a", 1), ("EXEC",))
    assert code(outcome) == "EXECABORT"


@pytest.mark.parametrize("bad", ["x", "-1", "70000"])
async def test_a_bad_port(lab: Lab, bad: str) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert code(await link("SLAVEOF", "10.0.0.9", bad)) == "ERR"
    assert (await lab.info(link))["role"] == "master"


async def test_a_transaction_that_makes_a_replica(lab: Lab) -> None:
    """As the client redirects a node: the lock is deleted in the same transaction."""
    first, second = await lab.make(2)
    link, listener, other = [await lab.connect(second) for _ in range(3)]
    await listener("SUBSCRIBE", "c")
    await other("PING")
    await link.pipeline(("SET", "lock", "mine"), ("WATCH", "lock"))
    replies = await link.pipeline(
        ("MULTI",),
        ("SLAVEOF", first.host, first.port),
        ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        ("CLIENT", "KILL", "TYPE", "pubsub"),
        ("DEL", "lock"),
        ("CONFIG", "SET", "replica-read-only", "yes"),
        ("EXEC",),
    )
    assert replies[-1] == [b"OK", 1, 1, 1, b"OK"]
    await lab.until(lambda: lab.is_up(link))

    async def gone() -> bool:
        return listener.over and other.over

    await lab.until(gone)
    assert code(await link("SET", "a", 1)) == "READONLY"


async def test_a_key_that_had_expired_when_it_was_watched_spoils_nothing(lab: Lab) -> None:
    """On a replica it is still there: only GET tells that it is not ours."""
    _, _, _, replica = await pair(lab)
    await replica.pipeline(
        ("CONFIG", "SET", "replica-read-only", "no"), ("SET", "lock", "mine", "PX", 30)
    )
    await lab.sleep(0.05)
    await replica("WATCH", "lock")
    assert await replica("GET", "lock") is None
    *_, outcome = await replica.pipeline(("MULTI",), ("SET", "a", 1), ("EXEC",))
    assert outcome == [b"OK"]


@pytest.mark.parametrize("command", [("SET", "lock", "x"), ("DEL", "lock"), ("FLUSHALL",)])
async def test_what_the_master_does_spoils_who_watches_on_a_replica(
    lab: Lab, command: tuple[str, ...]
) -> None:
    _, _, master, replica = await pair(lab)
    await master("SET", "lock", "mine")
    await has(lab, replica, "lock", b"mine")
    watcher = await lab.connect(lab_server(replica))
    await watcher("WATCH", "lock")
    await master(*command)
    await has(lab, replica, "lock", b"x" if command[0] == "SET" else None)
    *_, outcome = await watcher.pipeline(("MULTI",), ("GET", "a"), ("EXEC",))
    assert outcome is None


async def test_a_circle_of_replicas_has_no_master(lab: Lab) -> None:
    first, second = await lab.make(2)
    links = [await lab.connect(server) for server in (first, second)]
    links[0].send(("SLAVEOF", second.host, second.port))
    links[1].send(("SLAVEOF", first.host, first.port))
    assert [await link.next() for link in links] == [b"OK", b"OK"]
    await lab.sleep(0.5)
    for link in links:  # their links may be down, or even up: that is a matter of moments
        assert (await lab.info(link))["role"] == "slave"
        assert code(await link("SET", "a", 1)) == "READONLY"


async def test_a_server_that_follows_itself_is_never_linked(lab: Lab) -> None:
    [server] = await lab.make()
    link = await lab.connect(server)
    assert await link("SLAVEOF", server.host, server.port) == b"OK"
    await lab.sleep(0.5)
    assert not await lab.is_up(link)


async def test_a_transaction_is_replicated_with_its_messages(lab: Lab) -> None:
    _, _, master, replica = await pair(lab)
    listener = await lab.connect(lab_server(replica))
    await listener("SUBSCRIBE", "c")
    await master.pipeline(
        ("MULTI",), ("SET", "a", 1), ("PUBLISH", "c", "m"), ("INCR", "a"), ("EXEC",)
    )
    assert await listener.next() == [b"message", b"c", b"m"]
    await has(lab, replica, "a", b"2")


async def test_what_a_replica_missed_of_a_promoted_one(lab: Lab) -> None:
    """The one that lags is brought up to date from the other's backlog."""
    first, second, third = await lab.make(3)
    links = [await lab.connect(server) for server in (first, second, third)]
    await lab.follow(links[1], first)
    await lab.follow(links[2], first)
    third.pause()
    await links[0].pipeline(("SET", "a", 1), ("WAIT", 1, 5000))
    first.kill()
    await links[1]("SLAVEOF", "NO", "ONE")
    third.resume()
    assert await links[2]("SLAVEOF", second.host, second.port) == b"OK"
    await lab.until(lambda: lab.is_up(links[2]))
    await has(lab, links[2], "a", b"1")
    infos = await at_once(lab.info(links[1]), lab.info(links[2]))
    assert infos[0]["master_replid"] == infos[1]["master_replid"]
    assert infos[1]["master_replid2"] == infos[0]["master_replid2"] != "0" * 40
