"""What `haredis` draws: the group, its history, and what a failover would do."""

from __future__ import annotations

import time
from typing import Any

import pytest

from txharedis.chronicle import FailoverRecord
from txharedis.cli import history, status
from txharedis.cli.failover import Election, outlook
from txharedis.cli.running import complain, say, say_json
from txharedis.cli.table import moment, size, table
from txharedis.election import Elect, Follow, Refuse, Wait
from txharedis.events import FailoverEnded, FailoverStarted, LockNotGranted, MasterChanged
from txharedis.log import printable
from txharedis.topology import Address, NodeView, Role


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KB"),
        (1536, "1.5 KB"),
        (1024**2 - 1, "1.0 MB"),
        (5 * 1024**3, "5.0 GB"),
        (3 * 1024**4, "3.0 TB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text


def test_a_table() -> None:
    lines = table(["Name", "Count"], [["a\x1b[2J\n", "1"], ["b", "100"]], right=["Count"])
    assert lines == [
        "+--------+-------+",
        "| Name   | Count |",
        "+--------+-------+",
        "| a?[2J? |     1 |",
        "| b      |   100 |",
        "+--------+-------+",
    ]
    assert table(["A"], [], title="a title that is long") == [
        "+ a title that is long ",
        "| A |",
        "+---+",
        "+---+",
    ]
    assert printable("grün\r\n\x00") == "grün???"


def node(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "node": name,
        "role": "replica",
        "status": "up",
        "reason": "",
        "link": "up",
        "follows": "h:1",
        "offset": 990,
        "lag_bytes": 10,
        "opcounter": 5,
        "memory_bytes": 1048576,
        "connected_clients": 7,
        "version": "redis 7.0.15",
        "epoch": 12,
        "loading": False,
        **fields,
    }


def state(*nodes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "state": "healthy",
        "why": [],
        "group": "0123456789abcdef",
        "epoch": 12,
        "quorum": 2,
        "nodes": list(nodes),
        **fields,
    }


def test_a_healthy_group() -> None:
    master = node("h:1", role="master", link=None, follows="", offset=1000, lag_bytes=0)
    lines = status.drawn(state(master, node("h:2")))
    assert lines[0].startswith("+ Group: 01234567 (epoch 12, quorum 2 of 2) -")
    assert len({len(line) for line in lines[:-1]}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[1] == [name for name in status.COLUMNS if name != "Reason"]
    assert cells[3] == [
        "h:1",
        "Master",
        "running",
        "12",
        "",
        "1000",
        "5",
        "1.0 MB",
        "7",
        "redis 7.0.15",
    ]
    assert cells[4] == [
        "h:2",
        "Replica",
        "streaming",
        "12",
        "10",
        "990",
        "5",
        "1.0 MB",
        "7",
        "redis 7.0.15",
    ]
    assert lines[-1] == "healthy"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"status": "refused", "role": None}, "refused"),
        ({"status": "dropped, redialling"}, "dropped, redialling"),
        ({"loading": True}, "loading"),
        ({"link": "syncing"}, "syncing"),
        ({"link": "down"}, "link down"),
        ({"link": None}, "running"),
        ({"role": None, "link": None}, "running"),
    ],
)
def test_the_state_of_a_node(fields: dict[str, Any], word: str) -> None:
    assert f" {word} " in status.drawn(state(node("h:1", **fields)))[3]


def test_reasons_and_what_is_wrong_are_told() -> None:
    gone = node("h:2", status="refused", reason="connection\nrefused", role=None, epoch=None)
    lines = status.drawn(state(gone, state="degraded", why=["h:2 is\x1b away", "and more"]))
    assert "| Reason " in lines[1]
    assert "connection?refused" in lines[3]
    assert lines[-2:] == ["degraded: h:2 is? away", "degraded: and more"]


def record(**fields: Any) -> FailoverRecord:
    given: dict[str, Any] = {
        "epoch": 7,
        "at": 1790000000.0,
        "old": "h:1",
        "new": "h:2",
        "reason": "MASTER h:1 is down",
        "why": "highest offset (9) of 2 nodes",
        "outage": 0.0345,
        "offset": 1000,
        "old_offset": 1010,
    }
    return FailoverRecord(**{**given, **fields})


def test_the_history() -> None:
    lines = history.drawn(
        [
            record(discarded=10),
            record(epoch=6, reason="switchover", why="as planned", old_offset=None),
            record(epoch=1, old="", outage=0.0, offset=None, old_offset=None),
        ]
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[1] == list(history.COLUMNS)
    assert cells[3][0] == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1790000000))
    assert cells[3][0] == moment(1790000000.0)
    assert cells[3][1:] == [
        "7",
        "h:1",
        "h:2",
        "failover",
        "34.5 ms",
        "1010 -> 1000",
        "10 B",
        "MASTER h:1 is down; highest offset (9) of 2 nodes",
    ]
    assert cells[4][4:] == ["switchover", "34.5 ms", "? -> 1000", "", "switchover; as planned"]
    assert cells[5][2] == "(none)"
    assert cells[5][5:7] == ["", "? -> ?"]


def test_the_right_history_is_the_masters_or_the_newest() -> None:
    def entries(*epochs: int) -> list[bytes]:
        text = '{"epoch": %d, "at": 1, "old": "", "new": "h:1", "reason": "r"}'
        return [item for e in epochs for item in (str(e).encode(), (text % e).encode())]

    told: dict[Address, object] = {
        Address("h", 1): entries(1, 2),
        Address("h", 2): entries(1, 2, 3),
        Address("h", 3): Exception("NOPERM"),
    }

    def epochs(master: Address | None) -> list[int]:
        return [found.epoch for found in history.newest(told, master)]

    assert epochs(None) == [3, 2, 1]
    assert epochs(Address("h", 1)) == [2, 1]
    assert epochs(Address("h", 3)) == epochs(Address("h", 9)) == [3, 2, 1]


def view(port: int) -> NodeView:
    return NodeView(address=Address("h", port), run_id=str(port), role=Role.REPLICA)


def test_what_a_failover_would_do() -> None:
    elect = Elect((view(2), view(3), view(4)), "MASTER h:1 is down", "highest offset (9)")
    assert outlook(Address("h", 1), elect) == [
        "h:1 is the master and lives: now nothing would be done",
        "if it died now h:2 would be elected: highest offset (9) (MASTER h:1 is down)",
        "after it comes h:3",
        "then h:4",
    ]
    assert outlook(None, elect)[0].startswith("now h:2 would be elected")
    for decision in (Wait("no quorum"), Refuse("no quorum")):
        assert outlook(None, decision) == ["now no node would be elected: no quorum"]
    assert outlook(None, Elect((), "by roles")) == [
        "now it cannot be told who would be elected: by roles"
    ]
    assert outlook(None, Follow(Address("h", 2))) == ["now h:2 would be followed"]


def test_an_election_is_over_when_nothing_is_left_to_do() -> None:
    election = Election()
    election.note(FailoverStarted(at=1.0, reason="r", failover_id="i"))
    election.note(LockNotGranted(at=1.0, epoch=2, reason="h:2 is locked"))
    election.note(FailoverEnded(at=1.0, master=None, epoch=1))
    assert not election.over
    assert election.excuse == "h:2 is locked"
    election.note(FailoverStarted(at=2.0, reason="r", failover_id="i"))
    election.note(MasterChanged(at=2.0, old=None, new=Address("h", 2), epoch=2))
    assert not election.over
    ended = FailoverEnded(at=2.0, master=Address("h", 2), epoch=2)
    election.note(ended)
    assert election.over
    assert election.won is ended


def test_a_terminal_obeys_nothing_that_a_server_says(capsys: pytest.CaptureFixture[str]) -> None:
    say("denied: \x1b]0;title\x07", "second\nline")
    complain("failover", "no master: \x1b[2J")
    say_json({"why": "\x1b[2J"}, indent=None)
    out, err = capsys.readouterr()
    assert out == 'denied: ?]0;title?\nsecond?line\n{"why": "\\u001b[2J"}\n'
    assert err == "haredis failover: no master: ?[2J\n"
