"""The serial dispatcher: what a step commits, what it answers, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.calls import noting
from support.stepped import Stepped

from kvzmq import errors
from kvzmq.protocol import operations
from kvzmq.protocol.limits import REPLY_BYTES_MAX, REQUEST_BYTES_LIMIT
from kvzmq.protocol.msgpack import decode_group
from kvzmq.server import dispatcher
from kvzmq.server.transport import tcp_connection


@pytest.fixture
def table() -> Iterator[Stepped]:
    with Stepped() as table:
        yield table


# ---- one step


def test_a_step_commits_all_that_several_clients_change_as_one_group(table: Stepped) -> None:
    """Red when each request was committed alone."""
    by_frame, by_line = [table.zmq() for _ in range(5)], [table.tcp() for _ in range(5)]
    for number, dealer in enumerate(by_frame):
        dealer.send(["insert", f"k{number}", number])
    for number, line in enumerate(by_line, start=5):
        line.send(b'{"method": "insert", "key": "k%d", "value": %d}\n' % (number, number))
    table.gather(10)
    assert len(table.log.groups) == 1
    _, requests = decode_group(table.log.groups[0])
    assert sorted(request.ops[0].key for request in requests) == [f"k{number}" for number in range(10)]
    assert table.server.describe()["commits"] == 1 and table.server.describe()["requests_committed"] == 10


def test_without_group_commit_each_request_is_committed_alone() -> None:
    with Stepped(group_commit=False) as table:
        peers = [table.zmq() for _ in range(3)]
        for peer in peers:
            peer.send(["insert", "k", 1])
        table.gather(3)
        assert [table.replies(peer)[0][2] for peer in peers] == [[[0, None]]] * 3
        assert len(table.log.groups) == 3


def test_reads_and_refusals_are_not_committed(table: Stepped) -> None:
    peer = table.zmq()
    for op in (["size"], ["lookup", "a"], ["ping"], ["stats"], ["nonsense"], ["insert", 1, 2]):
        table.call(peer, *op)
    assert table.log.groups == []


def test_no_reply_leaves_before_the_steps_changes_are_durable(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when replies left while the disk still worked, the first or those for which too much was held."""
    seen: list[str] = []
    append = table.log.append
    execute = table.store.table.execute

    send = table.router.send
    monkeypatch.setattr(table.log, "append", noting(lambda *_: seen.append("written"), append))
    monkeypatch.setattr(table.log, "sync", lambda: seen.append("durable"))
    monkeypatch.setattr(table.store.table, "execute", noting(lambda *_: seen.append("execute"), execute))
    monkeypatch.setattr(table.router, "send", noting(lambda *_: seen.append("send"), send))
    peer = table.zmq()
    peer.send(["lookup", "a"])
    peer.send(["insert", "a", "x" * dispatcher.WAITING_BYTES_MAX])
    peer.send(["insert", "b", 1])
    table.gather(3)
    assert seen == ["written", *["execute"] * 3, "durable", *["send"] * 3]
    seen.clear()
    peer.send(["insert", "c", 1])
    peer.send(["lookup", "a"])
    peer.send(["lookup", "b"])
    table.gather(3)
    assert seen == ["written", *["execute"] * 2, "durable", *["send"] * 2, "execute", "send"]


@pytest.mark.parametrize("late", [False, True])
def test_when_the_disk_fails_nothing_is_sent(table: Stepped, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """Red when replies to reads left before the commit that failed."""

    def fail(*_: bytes) -> None:
        raise errors.StorageFatal("fsync: Input/output error")

    monkeypatch.setattr(table.log, "sync" if late else "append", fail)
    peer = table.zmq()
    peer.send(["size"])
    peer.send(["insert", "a", 1])
    with pytest.raises(errors.StorageFatal):
        table.gather(2)
    table.router.flush()  # what was handed to the transport would leave here
    assert peer.replies() == [] and not peer.socket.poll(50)


def test_watches_and_stats_keep_their_place_among_the_requests_of_a_step(table: Stepped) -> None:
    """Red when what the table executes was executed before what the server does."""
    peer = table.zmq()
    peer.send(["insert", "a", 1])
    peer.send(["stats"])
    peer.send(["watch", "", None])
    peer.send(["insert", "b", 2])
    table.gather(4)
    first, second, third, fourth, event = table.replies(peer, 5)
    assert [reply[1] for reply in (first, second, third, fourth)] == [1, 1, 1, 2]
    assert second[2][0][1]["keys"] == 1
    assert event == [0, 2, [1, 0, ["b", [2]]]]


def test_a_full_disk_refuses_the_writes_of_a_step_and_serves_its_reads(table: Stepped) -> None:
    peer = table.zmq()
    assert table.call(peer, "insert", "a", 1) == (0, None)
    table.log.full = True
    peer.send(["insert", "b", 2])
    peer.send(["lookup", "a"])
    peer.send(["size"], ["remove", "a"])
    table.gather(3)
    first, second, third = table.replies(peer, 3)
    assert first[2][0][0] == third[2][0][0] == errors.WriteRejected.code
    assert len(third[2]) == 1 and second[2] == [[0, 1]]
    assert table.call(peer, "stats")[1]["storage_trouble"] == "not applied: no room"
    table.log.full = False
    assert table.call(peer, "insert", "b", 2) == (0, None)
    assert table.call(peer, "stats")[1]["storage_trouble"] is None


def test_requests_execute_in_the_order_of_arrival_whoever_sent_them(table: Stepped) -> None:
    first, second, third = table.zmq(), table.tcp(), table.zmq()
    for peer in (first, third):
        table.call(peer, "size")
    first.send(["increment", "n"])
    table.until(lambda: first.socket.poll(0))
    third.send(["increment", "n", 10])
    first.send(["increment", "n"])
    second.send(b'{"method": "increment", "key": "n", "by": 100}\n' * 2)
    table.gather(4)
    totals = [reply[2][0][1] for reply in (*table.replies(first, 2), *table.replies(third))]
    totals += [line["result"] for line in table.lines(second, 2)]
    assert totals[0] < totals[1] and totals[3] < totals[4], "a client's requests keep their order"
    steps = [after - before for before, after in pairwise([0, *sorted(totals)])]
    assert sorted(steps) == [1, 1, 10, 100, 100], "each saw what all before it had done, and nothing else"
    assert table.store.table.revision == 5


def test_a_reply_sees_the_writes_before_it_in_its_step_and_none_after(table: Stepped) -> None:
    peer = table.zmq()
    peer.send(["lookup", "a"])
    peer.send(["insert", "a", 1], ["lookup", "a"])
    peer.send(["lookup", "a"])
    peer.send(["insert", "a", 2])
    peer.send(["stats"], ["lookup", "a"])
    table.gather(5)
    replies = table.replies(peer, 5)
    assert [reply[1] for reply in replies] == [0, 1, 1, 2, 2]
    assert replies[0][2][0][0] == errors.NoSuchKey.code
    assert replies[1][2] == [[0, None], [0, 1]] and replies[2][2] == [[0, 1]]
    assert replies[4][2][1] == [0, 2] and replies[4][2][0][1]["revision"] == 2


def test_a_refusal_keeps_its_place_in_the_line(table: Stepped) -> None:
    peer = table.zmq()
    peer.send(["insert", "a", 1])
    peer.send(["frobnicate"])
    peer.send(["size"], ["insert", "b", 2], ["insert", "c"])
    peer.send(["size"])
    table.gather(4)
    replies = table.replies(peer, 4)
    assert [(reply[0], reply[1]) for reply in replies] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert [reply[2][0][0] for reply in replies] == [0, errors.InvalidMethod.code, errors.InvalidRequest.code, 0]
    assert len(replies[2][2]) == 1, "nothing of a refused request is executed"


def test_a_request_sent_twice_in_one_step_executes_once(table: Stepped) -> None:
    """Red when a retry was looked up only before the step: both were executed."""
    peer = table.zmq()
    peer.session = bytes(range(16))
    table.call(peer, "open")
    for _ in range(3):
        peer.seq = 1
        peer.send(["increment", "n"])
    table.gather(3)
    assert table.replies(peer, 3) == [[2, 1, [[0, 1]]]] * 3
    peer.seq = 1
    assert table.call(peer, "increment", "n") == (0, 1)
    assert len(table.log.groups) == 2, "what was executed before is not logged again"


def test_one_batch_may_open_a_session_and_use_it(table: Stepped) -> None:
    peer = table.zmq()
    peer.session = bytes(16)
    peer.send(["open"])
    peer.send(["insert", "a", 1])
    table.gather(2)
    assert [reply[2] for reply in table.replies(peer, 2)] == [[[0, None]]] * 2


# ---- time


def test_the_log_has_the_time_of_the_step_and_rows_expire_by_it(table: Stepped) -> None:
    peer = table.zmq()
    table.call(peer, "insert", "brief", 1, 10.0)
    assert decode_group(table.log.groups[0])[0] == table.now_us
    table.now_us += 9_999_999
    assert table.call(peer, "size") == (0, 1)
    table.now_us += 1
    assert table.call(peer, "size") == (0, 0)
    assert len(table.log.groups) == 2, "expiry is logged: replay must expire the same rows at the same point"


def test_rows_expire_without_a_request(table: Stepped) -> None:
    peer = table.zmq()
    table.call(peer, "insert", "brief", 1, 10.0)
    table.now_us += 10_000_000
    table.until(lambda: not table.store.table.rows)
    assert table.store.table.revision == 2


def test_a_clock_that_jumps_back_does_not_take_time_back(table: Stepped) -> None:
    peer = table.zmq()
    table.now_us += 5_000_000
    table.call(peer, "insert", "brief", 1, 10.0)
    table.now_us -= 3_600_000_000
    assert table.call(peer, "ttl", "brief") == (0, 10.0)
    table.call(peer, "insert", "other", 1, 10.0)
    assert table.call(peer, "ttl", "other") == (0, 10.0)


# ---- operations of the server


def test_stats_describe_server_table_and_transports(table: Stepped) -> None:
    peer, other = table.zmq(), table.tcp()
    other.send(b'{"method": "insert", "key": "a", "value": 1}\nrubbish\n')
    table.lines(other, 2)
    table.call(peer, "size")
    code, found = table.call(peer, "stats")
    assert code == 0
    expected = {
        "keys": 1, "revision": 1, "sessions": 0, "watches": 0, "requests": 3, "requests_refused": 1, "operations": 3,
        "commits": 1, "requests_committed": 1, "clients": 2, "tcp_connections": 1, "tcp_connections_accepted": 1,
        "router_replies_dropped_backpressure": 0, "router_replies_dropped_disconnected": 0, "storage_trouble": None,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    other.send(b'{"method": "stats"}\n')
    (line,) = table.lines(other, 1)
    assert line["result"].keys() == found.keys()


def test_every_counter_of_the_transports_is_explained_to_operators(table: Stepped) -> None:
    document = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    names = [*table.router.stats(), *table.bridge.stats()]
    assert len(names) == 14
    assert [name for name in names if f"`{name}`" not in document] == []


def test_stats_and_watches_go_with_reads_and_not_with_writes(table: Stepped) -> None:
    peer = table.zmq()
    assert table.call(peer, "insert", "a", 1) == (0, None)
    peer.send(["stats"], ["insert", "a", 2])
    ((_, _, ((code, _),)),) = table.replies(peer)
    assert code == errors.InvalidRequest.code
    peer.send(["lookup", "a"], ["stats"], ["lookup", "ghost"], ["watch"], ["unwatch", 1])
    ((_, _, results),) = table.replies(peer)
    assert [code for code, _ in results] == [0, 0, errors.NoSuchKey.code, 0, 0]


def test_the_results_of_one_request_fit_one_reply_whatever_is_among_them(table: Stepped) -> None:
    """Red when a stats among the operations gave each of them the room of a whole reply: 800 GB in one request."""
    peer = table.zmq()
    assert table.call(peer, "insert", "big", bytes(REQUEST_BYTES_LIMIT // 3)) == (0, None)
    for ops in ([["stats"]] + [["lookup", "big"]] * 12, [["lookup", "big"]] * 50_000, [["stats"]] * 20_000):
        peer.send(*ops)
        table.until(lambda: peer.socket.poll(0))
        assert len(peer.socket.recv()) < REPLY_BYTES_MAX


def test_a_reply_without_room_is_not_searched_for(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when keys and queries looked for rows first and for room afterwards: 100,000 of them took minutes."""
    peer = table.zmq()
    table.call(peer, "insert_many", {f"{number}": {"a": 1} for number in range(10_000)})
    looked: list[Any] = []
    keys = table.store.table.indexes.keys
    monkeypatch.setattr(table.store.table.indexes, "keys", noting(lambda *args: looked.append(args), keys))
    peer.send(*[["keys", "", None, 10_000]] * 20_000)
    table.until(lambda: table.server.dispatcher.requests == 2)
    ((_, _, results),) = table.replies(peer)
    assert len(looked) < 100
    assert results[0][0] == 0 and results[-1][0] == errors.ResultTooLarge.code


def test_a_setdefault_without_room_for_its_result_changes_nothing(table: Stepped) -> None:
    """Red when the row was inserted before its result was found too large."""
    peer = table.zmq()
    table.call(peer, "insert", "big", bytes(5 << 20))
    peer.send(["lookup", "big"], ["setdefault", "new", bytes(4 << 20)], ["lookup", "new"])
    ((_, _, results),) = table.replies(peer)
    assert [code for code, _ in results] == [0, errors.ResultTooLarge.code, errors.NoSuchKey.code]


def test_values_with_long_keys_are_checked_in_linear_time(table: Stepped) -> None:
    """Red when the place of every item was spelled out: a 4 MB key above a million items took hours."""
    peer = table.zmq()
    value = {"k" * (2 << 20): [0] * 2_000_000 + [b"forces the slow check"]}
    assert table.call(peer, "insert", "a", value) == (0, None)


def test_messages_of_refusals_are_short_and_name_the_place(table: Stepped) -> None:
    peer = table.zmq()
    code, message = table.call(peer, "insert", "a", {"key" * 100_000: [0, {"b": [float("nan")]}]})
    assert code == errors.InvalidRequest.code and len(message) < 1000
    assert message.endswith("[1]['b'][0] is not finite: JSON has no NaN and no infinities")
    code, message = table.call(peer, "x" * 100_000)
    assert code == errors.InvalidMethod.code and len(message) < 1000


def test_every_step_turns_even_when_nothing_arrives(table: Stepped) -> None:
    assert table.step() == 0
    assert table.server.dispatcher.steps == 0 and table.log.groups == []


def test_a_step_is_bounded_in_requests_of_each_transport(table: Stepped) -> None:
    peer, other = table.zmq(sndhwm=0), table.tcp()
    for _ in range(3000):
        peer.send(["size"])
    other.send(b'{"method": "size"}\n' * 3000)
    table.server._poller.poll(60_000)

    def take_replies() -> None:
        other.read()
        peer.replies()

    table.until(lambda: table.server.dispatcher.requests == 6000, first=take_replies)
    steps = table.server.dispatcher.steps
    assert steps >= 6000 // (1024 + tcp_connection.LINES_MAX)


def test_stats_counts_the_connections_there_are(table: Stepped) -> None:
    """Red when those that asked within the last minute were counted: 59 after one-shot commands, 0 with one idle."""

    def clients() -> int:
        table.step()
        return int(table.server.describe()["clients"])

    for _ in range(3):
        peer = table.zmq()
        table.call(peer, "size")
        peer.close()
    table.until(lambda: clients() == 0)
    idle, bridged = table.zmq(), table.tcp()
    table.until(lambda: clients() == 2)
    idle.close()
    bridged.close()
    table.until(lambda: clients() == 0)


def test_a_watch_through_an_envelope_is_refused_with_all_of_its_request(table: Stepped) -> None:
    """Red when it was served: a REQ socket took every event for the reply to its next request."""
    peer = table.zmq()
    for op in (["watch"], ["watch_query", "a", 1]):
        peer.send_frames(b"id", b"", msgspec.msgpack.encode([None, 7, [["size"], op]]))
        table.until(lambda: peer.socket.poll(0))
        *envelope, reply = peer.socket.recv_multipart()
        seq, _, ((code, _),) = msgspec.msgpack.decode(reply)
        assert envelope == [b"id", b""] and (seq, code) == (7, errors.InvalidRequest.code)
    assert len(table.server.dispatcher.watches) == 0
    assert table.call(peer, "watch") == (0, 1)


def test_operations_are_served_or_executed_and_none_is_forgotten(table: Stepped) -> None:
    served = set(table.server.dispatcher.served.methods)
    executed = set(table.store.table._run)
    servers = {operations.BeginEpoch, operations.Senders}
    assert served == operations.SERVED and served | executed == {*operations.OPERATIONS.values(), *servers}
    assert not served & executed
