"""The three kinds of reads at servers that share a log: linearizable, of what the client has seen, and of any state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.shared_log import SharedGroups, SharedLog
from support.stepped import Stepped, ZmqPeer

from kvzmq import errors
from kvzmq.server import seen, unknown
from kvzmq.store.barrier import AGAIN_S

UNAVAILABLE = errors.Unavailable.code
REJECTED = errors.WriteRejected.code


@pytest.fixture
def shared() -> SharedGroups:
    return SharedGroups()


@pytest.fixture
def log(shared: SharedGroups) -> SharedLog:
    return SharedLog(shared)


@pytest.fixture
def table(log: SharedLog) -> Iterator[Stepped]:
    with Stepped(log=log) as table:
        yield table


@pytest.fixture
def other(shared: SharedGroups) -> Iterator[Stepped]:
    """Another server of the same table."""
    with Stepped(log=SharedLog(shared)) as table:
        yield table


def ask(table: Stepped, peer: ZmqPeer, *op: Any, seen: int | None = None) -> list[Any]:
    """Return the revision and the only result of the reply."""
    seq = peer.send(list(op), seen=seen)
    (reply,) = table.replies(peer)
    assert reply[0] == seq
    return [reply[1], *reply[2][0]]


def hold_back(log: SharedLog, table: Stepped) -> None:
    """Have the server hear nothing more of what others append."""
    table.settle()
    log.is_cut_off = True


def test_a_step_asks_the_log_once_for_all_its_linearizable_reads(log: SharedLog, table: Stepped) -> None:
    peers = [table.zmq() for _ in range(3)]
    for peer in peers:
        table.call(peer, "ping")
    before = log.barriers
    for peer in peers:
        peer.send(["lookup", "a"])
    table.gather(3)
    assert log.barriers == before + 1 == table.store.barrier.asked


@pytest.mark.parametrize("op", [["ping"], ["stats"], ["hello"], ["clients"]], ids=lambda op: str(op[0]))
def test_what_only_this_server_knows_asks_no_log(log: SharedLog, table: Stepped, op: list[Any]) -> None:
    """Guarantee 16: a server that is cut off is still told from one that is gone."""
    peer = table.zmq()
    log.is_cut_off = True
    assert table.call(peer, *op)[0] == 0
    assert log.barriers == 0


def test_neither_a_session_read_nor_a_local_one_asks_the_log(log: SharedLog, table: Stepped) -> None:
    peer = table.zmq()
    table.call(peer, "insert", "a", 1)
    assert ask(table, peer, "lookup", "a", seen=1) == ask(table, peer, "lookup", "a", seen=0) == [1, 0, 1]
    assert log.barriers == 0


def test_a_session_read_waits_until_the_server_has_applied_what_its_client_has_seen(
    shared: SharedGroups, log: SharedLog, table: Stepped, other: Stepped
) -> None:
    """Guarantee 16. Red when it was executed at once; and its client's own order is kept."""
    peer, stranger, writer = table.zmq(), table.zmq(), other.zmq()
    table.call(stranger, "ping")
    hold_back(log, table)
    other.call(writer, "insert", "a", 1)
    peer.send(["lookup", "a"], seen=1)
    peer.send(["ping"])
    table.settle()
    assert peer.replies() == []
    assert ask(table, stranger, "lookup", "a", seen=0)[1] == errors.NoSuchKey.code, "others are not held up"
    assert table.server.describe()["requests_waiting"] == 2
    log.is_cut_off = False
    log.wake()
    assert [reply[2] for reply in table.replies(peer, 2)] == [[[0, 1]], [[0, "pong"]]]


def test_a_session_read_that_waits_too_long_is_refused_and_what_came_after_it_answered(
    log: SharedLog, table: Stepped, other: Stepped
) -> None:
    peer, writer = table.zmq(), other.zmq()
    hold_back(log, table)
    other.call(writer, "insert", "a", 1)
    peer.send(["lookup", "a"], seen=1)
    peer.send(["size"], seen=0)
    table.settle()
    assert 0 < table.server._wait_ms(10.0) <= 1000 * seen.SEEN_S
    table.now_s += seen.SEEN_S
    refused, answered = table.replies(peer, 2)
    assert refused[2][0][0] == UNAVAILABLE and "revision 0" in refused[2][0][1]
    assert answered[2] == [[0, 0]]


def test_what_waits_for_revisions_is_bounded(
    log: SharedLog, table: Stepped, other: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guarantee 9."""
    monkeypatch.setattr(seen, "WAITING_OF_ONE_MAX", 4)
    monkeypatch.setattr(seen, "WAITING_MAX", 6)
    first, second = table.zmq(), table.zmq()
    hold_back(log, table)
    other.call(other.zmq(), "insert", "a", 1)
    for _ in range(5):
        first.send(["size"], seen=1)
    assert [reply[2][0][0] for reply in table.replies(first, 5)] == [UNAVAILABLE] * 5
    for _ in range(4):
        second.send(["size"], seen=1)
        table.settle()
    for _ in range(3):
        first.send(["size"], seen=1)
        table.settle()
    assert [reply[2][0][0] for reply in table.replies(second, 4)] == [UNAVAILABLE] * 4, "it has waited longest"
    assert table.server.dispatcher.waiting == 3


def test_on_a_log_of_its_own_a_revision_that_never_comes_is_refused_at_once() -> None:
    with Stepped() as table:
        peer = table.zmq()
        table.call(peer, "insert", "a", 1)
        assert ask(table, peer, "lookup", "a", seen=1) == [1, 0, 1]
        code, message = ask(table, peer, "lookup", "a", seen=2)[1:]
        assert code == UNAVAILABLE and "older copy" in message


def test_a_server_that_is_cut_off_answers_what_it_can_and_refuses_the_rest(
    log: SharedLog, table: Stepped, other: Stepped
) -> None:
    """Guarantee 16. Red when a linearizable read was answered from a table that others were ahead of."""
    peer, writer = table.zmq(), other.zmq()
    table.call(peer, "insert", "a", 1)
    hold_back(log, table)
    assert other.call(writer, "insert", "a", 2) == (0, None)
    for op in (["lookup", "a"], ["size"], ["watch", ""], ["keys"]):
        assert table.call(peer, *op)[0] == UNAVAILABLE
    assert table.call(peer, "insert", "b", 1)[0] == REJECTED
    assert table.call(peer, "ping") == (0, "pong")
    assert "cut off" in table.call(peer, "stats")[1]["barrier_trouble"]
    assert ask(table, peer, "lookup", "a", seen=1) == ask(table, peer, "lookup", "a", seen=0) == [1, 0, 1]
    log.is_cut_off = False
    table.now_s += AGAIN_S
    assert table.call(peer, "lookup", "a") == (0, 2)
    assert table.call(peer, "stats")[1]["barrier_trouble"] is None


def test_a_log_that_cannot_be_asked_is_left_alone_for_a_moment(log: SharedLog, table: Stepped) -> None:
    """Each try may hold everybody up for as long as the log blocks."""
    peer = table.zmq()
    log.is_cut_off = True
    for _ in range(5):
        assert table.call(peer, "size")[0] == UNAVAILABLE
    assert log.barriers == 1
    table.now_s += AGAIN_S
    table.call(peer, "size")
    assert log.barriers == 2


def test_a_linearizable_read_beside_a_rejected_write_sees_what_others_have_written(
    shared: SharedGroups, table: Stepped, other: Stepped
) -> None:
    """Guarantee 4. Red when the append that failed was taken for a barrier."""
    first, second = table.zmq(), table.zmq()
    table.call(first, "ping")
    table.call(second, "ping")
    other.call(other.zmq(), "insert", "a", 1)
    shared.fails = errors.WriteRejected
    first.send(["insert", "b", 1])
    second.send(["lookup", "a"])
    table.gather(2)
    assert table.replies(first)[0][2][0][0] == REJECTED
    assert table.replies(second)[0][2] == [[0, 1]]


@pytest.mark.parametrize("keeps", [True, False])
def test_while_a_group_is_unknown_the_table_before_it_is_read_and_nothing_is_taken_back(
    shared: SharedGroups, table: Stepped, keeps: bool
) -> None:
    """Guarantee 16. Red when such a read showed the group, or had to wait for it."""
    writer, reader = table.zmq(), table.zmq()
    table.call(writer, "insert", "n", 1)
    table.call(reader, "keys")
    shared.fails, shared.keeps, shared.answers = errors.AppendUnknown, keeps, False
    writer.send(["insert", "n", 2])
    table.until(lambda: shared.fails is None)
    assert ask(table, reader, "lookup", "n", seen=1) == ask(table, reader, "lookup", "n", seen=0) == [1, 0, 1]
    assert ask(table, reader, "keys", seen=0) == [1, 0, ["n"]]
    shared.answers = True
    assert table.call(reader, "lookup", "n") == (0, 2 if keeps else 1)


def test_a_linearizable_read_waits_for_an_unknown_group_so_long_and_then_is_refused(
    shared: SharedGroups, table: Stepped
) -> None:
    """Guarantee 9: clients that ask again and again do not fill the queue until the server is deaf."""
    writer, reader, waiting = table.zmq(), table.zmq(), table.zmq()
    for peer in (writer, reader, waiting):
        table.call(peer, "insert", "n", 1)
    shared.fails, shared.keeps, shared.answers = errors.AppendUnknown, True, False
    writer.send(["increment", "n"])
    waiting.send(["lookup", "n"])
    table.gather(2)
    reader.send(["lookup", "n"])
    reader.send(["insert", "m", 1])
    writer.send(["lookup", "n"])
    table.settle()
    assert reader.replies() == waiting.replies() == []
    table.now_s += unknown.LATE_S
    table.settle()
    table.now_s += unknown.LATE_S
    assert [reply[2][0][0] for reply in table.replies(reader, 2)] == [UNAVAILABLE, REJECTED]
    assert table.replies(waiting)[0][2][0][0] == UNAVAILABLE
    assert table.call(reader, "ping") == (0, "pong")
    assert writer.replies() == [], "its own write is open, and replies keep the order of the requests"
    shared.answers = True
    assert [reply[2] for reply in table.replies(writer, 2)] == [[[0, 2]], [[0, 2]]]


def test_copies_of_a_request_of_unknown_fate_wait_once(shared: SharedGroups, table: Stepped) -> None:
    """Guarantee 9: a client sends its request again every second, and its server must not run full of it."""
    peer = table.zmq()
    peer.session = bytes(range(16))
    table.call(peer, "open")
    shared.fails, shared.keeps, shared.answers = errors.AppendUnknown, True, False
    for _ in range(10):
        peer.send(["increment", "n"], seq=2)
        table.settle()
    assert table.server.dispatcher.waiting == 1
    shared.answers = True
    assert [reply[2] for reply in table.replies(peer)] == [[[0, 1]]]


def test_progress_of_a_watch_counts_what_others_have_acknowledged(
    log: SharedLog, table: Stepped, other: Stepped
) -> None:
    """Red when the server answered with the revision that it had come to by itself."""
    peer, writer = table.zmq(), other.zmq()
    table.call(peer, "watch", "")
    table.settle()
    other.call(writer, "insert", "a", 1)
    peer.send(["progress", 1])
    table.gather(1)  # without hearing the log first
    assert peer.socket.poll(60_000)
    assert [message[1] for message in peer.replies() if message[0]] == [1]


def test_a_watch_is_told_of_an_epoch_before_a_change_that_was_made_in_it(table: Stepped, other: Stepped) -> None:
    """Another server has begun it: whoever resumes from a later change has to name it. An old client gets no event."""
    peer, old, writer = table.zmq(), table.zmq(), other.zmq()
    table.store.begin_epoch(1)
    table.call(peer, "watch", "", None, None)
    table.call(old, "watch", "")
    other.store.begin_epoch(1)
    other.call(writer, "insert", "a", 1)
    epoch = other.store.identity()["epoch"]
    assert table.events(peer, 2) == [[0, 0, [1, 0, None, False, epoch]], [0, 1, [1, 0, ["a", [1]]]]]
    assert table.events(old, 1) == [[0, 1, [2, 0, ["a", [1]]]]]


def test_of_two_servers_that_begin_a_table_the_first_one_s_lineage_counts(table: Stepped, other: Stepped) -> None:
    """Guarantee 12. Red when the second one's took its place: clients of the first had another table."""
    table.store.begin_epoch(1)
    lineage = table.store.identity()["lineage"]
    other.store.table.epochs.lineage = None  # as it was when the other one looked
    other.store.begin_epoch(1)
    table.settle()
    assert table.store.identity() == other.store.identity()
    assert table.store.identity()["lineage"] == lineage
