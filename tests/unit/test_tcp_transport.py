"""The bridge, a step at a time: the dialect to the letter, and peers that behave badly."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import resource
import select
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from support.descriptors import none_free_below
from support.stepped import Stepped, TcpPeer

from kvzmq import errors
from kvzmq.curve import TOKEN_BYTES_MAX
from kvzmq.protocol.messages import Reply
from kvzmq.protocol.operations import OPERATIONS
from kvzmq.server.transport import tcp, tcp_connection

DONE = {"status": "OK", "result": None}


@pytest.fixture
def table() -> Iterator[Stepped]:
    with Stepped() as table:
        yield table


def line(**request: Any) -> bytes:
    return json.dumps(request).encode() + b"\n"


def insert(key: str, value: Any) -> bytes:
    return line(method="insert", key=key, value=value)


def ok(result: Any) -> dict[str, Any]:
    return {"status": "OK", "result": result}


def refused(reply: Any, kind: str) -> bool:
    return set(reply) == {"status", "type", "message"} and reply["status"] == "exception" and reply["type"] == kind


# ---- the dialect

SESSION = "00112233445566778899aabbccddeeff"

EXCHANGES: list[tuple[bytes, Any]] = [
    (b'{"method": "insert", "key": "zebra", "value": {"weight": 100, "name": "fred"}}', DONE),
    (b'{"method": "lookup", "key": "zebra"}', ok({"weight": 100, "name": "fred"})),
    (b'{"method": "lookup", "key": "ghost"}', "KeyError"),
    (b'{"method": "size"}', ok(1)),
    (b'{"method": "query", "subkey": "name", "subvalue": "fred"}', ok([["zebra", {"weight": 100, "name": "fred"}]])),
    (b'{"method": "query", "subkey": "name", "subvalue": "mary"}', ok([])),
    (b'{"method": "remove", "key": "zebra"}', DONE),
    (b'{"method": "remove", "key": "zebra"}', "KeyError"),
    (b'{"method": "query", "subkey": "name", "subvalue": "fred"}', ok([])),
    (b'{"method": "size"}', ok(0)),
    (b'{"method": "insert", "key": "", "value": null}', DONE),
    (b'{"method": "lookup", "key": ""}', ok(None)),
    (b'{"method": "insert", "key": "nul\\u0000 newline\\n", "value": "\\u00e9 e\\u0301 \\ud83d\\ude00"}', DONE),
    (b'{"method": "lookup", "key": "nul\\u0000 newline\\n"}', ok("é e\u0301 \U0001f600")),
    (b'{"key": "a", "value": 1, "method": "insert", "note": "more than needed"}', DONE),
    (b'  {"method":"lookup","key":"a"}\r', ok(1)),
    (b'{"method": "insert_many", "rows": {"a": 1, "b": [2], "c": {"n": 3}}}', DONE),
    (b'{"method": "lookup_many", "keys": ["a", "b", "ghost"]}', ok({"a": 1, "b": [2]})),
    (b'{"method": "keys", "prefix": "", "after": "a"}', ok(["b", "c", "nul\u0000 newline\n"])),
    (b'{"method": "items", "after": "a", "limit": 2}', ok([["b", [2]], ["c", {"n": 3}]])),
    (b'{"method": "remove_many", "keys": ["b", "ghost"]}', ok(1)),
    (b'{"method": "compare_and_set", "key": "a", "expected": 1, "value": 2}', ok(True)),
    (b'{"method": "compare_and_set", "key": "a", "expected": 1, "value": 3}', ok(False)),
    (b'{"method": "compare_and_set", "key": "new", "value": null}', ok(True)),
    (b'{"method": "compare_and_set", "key": "new", "expected": null}', ok(True)),
    (b'{"method": "lookup", "key": "new"}', "KeyError"),
    (b'{"method": "setdefault", "key": "a", "value": 9}', ok(2)),
    (b'{"method": "increment", "key": "a"}', ok(3)),
    (b'{"method": "increment", "key": "a", "by": 0.5}', ok(3.5)),
    (b'{"method": "increment", "key": "c"}', "WrongType"),
    (b'{"method": "insert", "key": "brief", "value": 1, "ttl_s": 2}', DONE),
    (b'{"method": "ttl", "key": "brief"}', ok(2.0)),
    (b'{"method": "expire", "key": "brief"}', DONE),
    (b'{"method": "ttl", "key": "brief"}', ok(None)),
    (b'{"method": "transaction", "checks": [{"key": "a", "expected": 3.5}, {"key": "ghost"}],'
     b' "operations": [{"method": "insert", "key": "t", "value": 1}, {"method": "lookup", "key": "a"}]}',
     ok([None, 3.5])),
    (b'{"method": "transaction", "checks": [{"key": "t"}], "operations": []}', "CheckFailed"),
    (b'{"method": "ping"}', ok("pong")),
    (b'{"method": "open", "session": "%s", "seq": 1}' % SESSION.encode(), DONE),
    (b'{"method": "increment", "key": "once", "session": "%s", "seq": 2}' % SESSION.encode(), ok(1)),
    (b'{"method": "increment", "key": "once", "session": "%s", "seq": 2}' % SESSION.encode(), ok(1)),
    (b'{"method": "increment", "key": "twice", "session": "%s", "seq": 2}' % SESSION.encode(), "SequenceReused"),
    (b'{"method": "increment", "key": "once", "session": "%s", "seq": 3}' % (b"0" * 32), "SessionExpired"),
    (b'{"method": "increment", "key": "once", "session": "0011", "seq": 3}', "InvalidRequest"),
    (b'{"method": "increment", "key": "once", "session": "%s"}' % SESSION.encode(), "InvalidRequest"),
    (b'{"method": "frobnicate"}', "InvalidMethod"),
    (b'{"method": 7}', "InvalidMethod"),
    (b'{"method": "watch"}', "InvalidMethod"),
    (b'{"method": "lookup"}', "InvalidRequest"),
    (b'{"method": "insert", "key": "a"}', "InvalidRequest"),
    (b'{"method": "insert", "key": 1, "value": 1}', "InvalidRequest"),
    (b'{"key": "a"}', "InvalidRequest"),
    (b"[1, 2]", "InvalidRequest"),
    (b"null", "InvalidRequest"),
    (b"", "InvalidRequest"),
    (b'{"method": "size"', "InvalidRequest"),
    (b'{"method": "size"} {"method": "size"}', "InvalidRequest"),
    (b'{"method": "insert", "key": "a", "value": NaN}', "InvalidRequest"),
    (b'{"method": "insert", "key": "a", "value": 1e999}', "InvalidRequest"),
    (b'{"method": "insert", "key": "a", "value": "\\ud800"}', "InvalidRequest"),
    (b'{"method": "insert", "key": "a", "value": 99999999999999999999}', "InvalidRequest"),
    (b'{"method": "insert", "key": "a", "value": ' + b"[" * 65 + b"]" * 65 + b"}", "InvalidRequest"),
    (b'{"method": "insert", "key": "a", "value": ' + b"[" * 3000 + b"]" * 3000 + b"}", "InvalidRequest"),
    (b"\x00\xff\xfe\x80 garbage", "InvalidRequest"),
    (b"GET / HTTP/1.1\r", "InvalidRequest"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 as TLS begins", "InvalidRequest"),
    (b'{"method": "lookup", "key": "a"}', ok(3.5)),
]  # fmt: skip
"""Requests in order, each with its reply as a JSON value, or the type of its exception."""

STREAM = b"".join(request + b"\n" for request, _ in EXCHANGES)


def check(replies: list[Any]) -> None:
    assert len(replies) == len(EXCHANGES)
    for (request, expected), reply in zip(EXCHANGES, replies):
        if isinstance(expected, str):
            assert refused(reply, expected), (request[:100], reply)
        else:
            assert reply == expected and type(reply["result"]) is type(expected["result"]), (request[:100], reply)


def test_every_exchange_of_the_dialect_one_at_a_time(table: Stepped) -> None:
    peer = table.tcp()
    replies = []
    for request, _ in EXCHANGES:
        peer.send(request + b"\n")
        replies += table.lines(peer, 1)
    check(replies)


def test_pipelined_requests_are_answered_in_order(table: Stepped) -> None:
    peer = table.tcp()
    peer.send(STREAM)
    check(table.lines(peer, len(EXCHANGES)))


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_requests_may_be_split_at_every_byte(table: Stepped, chunk: int) -> None:
    peer = table.tcp()
    replies = []
    for start in range(0, len(STREAM), chunk):
        peer.send(STREAM[start : start + chunk])
        table.server.step(0)
        replies += peer.lines()
    check(replies + table.lines(peer, len(EXCHANGES) - len(replies)))


def test_a_half_closed_peer_still_gets_all_its_replies(table: Stepped) -> None:
    """Red when a connection was closed once its requests were taken, without a look at what was still queued."""
    writer = table.tcp()
    writer.send(insert("big", "x" * 900_000))
    table.lines(writer, 1)
    for count in (1, 3):
        peer = table.tcp(receive_bytes=4096)
        connection = list(table.bridge._connections.values())[-1]
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that replies wait here
        peer.send(line(method="lookup", key="big") * count + line(method="size") * 100)
        peer.send(b'{"method": "insert", "key": "half", "val')
        peer.finish()
        table.settle()
        replies = table.lines(peer, count + 100)
        assert [len(reply["result"]) for reply in replies[:count]] == [900_000] * count
        assert replies[count:] == [ok(1)] * 100
        table.until(partial(getattr, peer, "ended"), first=peer.read)
    assert table.bridge.connections == 1


def test_a_peer_that_ends_without_a_request_is_let_go(table: Stepped) -> None:
    peer = table.tcp()
    peer.finish()
    table.until(lambda: peer.ended, first=peer.read)
    assert table.bridge.connections == 0


def test_a_line_of_the_limit_is_taken_and_a_longer_one_refused_and_skipped(table: Stepped) -> None:
    peer = table.tcp()
    room = table.bridge.line_bytes_max - len(insert("k", "")) + 1
    for length, refusal in ((room, False), (room + 1, True)):
        request = insert("k", "x").replace(b'"x"', b" " * (length - 1) + b'"x"')
        begin = 0
        while begin < len(request):
            begin += peer.send_some(request[begin:])
            table.server.step(0)
        peer.send(line(method="size"))
        reply, size = table.lines(peer, 2)
        assert refused(reply, "InvalidRequest") if refusal else reply == DONE
        assert size == ok(1)


def test_an_endless_line_is_refused_once_and_costs_no_memory(table: Stepped) -> None:
    """Red when the rest of a skipped line was kept in the buffer."""
    peer = table.tcp()
    chunk = b"x" * (1 << 20)
    sent = 0
    while sent < 4 * table.bridge.line_bytes_max:
        sent += peer.send_some(chunk)
        table.server.step(0)
        (connection,) = table.bridge._connections.values()
        assert len(connection.received) <= table.bridge.line_bytes_max + tcp._RECEIVE_BYTES
    table.settle()
    assert len(connection.received) == 0
    peer.send(b"tail\n" + line(method="size"))
    replies = table.lines(peer, 2)
    assert refused(replies[0], "InvalidRequest") and replies[1:] == [ok(0)]


# ---- peers that behave badly


def test_a_peer_reset_in_the_middle_of_a_request_or_a_reply_harms_nobody(table: Stepped) -> None:
    steady = table.tcp()
    steady.send(insert("big", "x" * 2_000_000))
    table.lines(steady, 1)
    for turn in range(200):
        peer = table.tcp()
        peer.send((line(method="lookup", key="big") * 3 + insert(f"k{turn}", 1))[: 1 + turn * 7])
        for _ in range(turn % 4):
            table.server.step(0)
        if turn % 2:
            peer.reset()
        else:
            peer.close()
        if turn % 10 == 0:
            steady.send(line(method="ping"))
            assert table.lines(steady, 1) == [ok("pong")]
    table.until(lambda: table.bridge.connections == 1)
    assert not table.bridge._ready and not table.bridge._unflushed


def test_the_replies_of_a_peer_that_is_gone_never_reach_the_next_one(table: Stepped) -> None:
    """Red when peers were told apart by descriptor and the reply came after the descriptor's reuse."""
    first = table.tcp()
    first.send(line(method="size"))
    table.server._poller.poll(60_000)
    (arrival,) = table.bridge.drain()
    (connection,) = table.bridge._connections.values()
    fd = connection.socket.fileno()
    with none_free_below(fd), socket.create_connection(("127.0.0.1", table.bridge.port)) as second:
        table.bridge._close(connection)
        table.until(lambda: table.bridge.connections == 1)
        (connection,) = table.bridge._connections.values()
        assert connection.socket.fileno() == fd
        table.server.dispatcher.dispatch([arrival])
        table.bridge.flush()
        second.sendall(line(method="ping"))
        table.until(lambda: select.select([second], [], [], 0)[0])
        assert json.loads(second.recv(1000)) == ok("pong")
    first.reset()


def test_who_never_reads_is_not_read_from_and_holds_a_bounded_amount(table: Stepped) -> None:
    """Red when a connection with unread replies and waiting lines was registered for reading."""
    steady = table.tcp()
    steady.send(insert("page", "x" * 100_000))
    table.lines(steady, 1)
    deaf = table.tcp(receive_bytes=4096)
    requests = line(method="lookup", key="page") * 20_000
    sent = 0
    for _ in range(300):
        sent += deaf.send_some(requests[sent : sent + 100_000])
        table.server.step(0)
        held = [c for c in table.bridge._connections.values() if c.queued_bytes]
        assert sum(c.queued_bytes for c in held) <= tcp_connection.UNREAD_BYTES_MAX + 16 * 100_100
        assert sum(len(c.received) for c in held) <= 2 * tcp._RECEIVE_BYTES
    assert not table.bridge.pending(), "the loop would spin"
    steady.send(line(method="ping"))
    assert table.lines(steady, 1) == [ok("pong")]


def test_a_slow_reader_gets_everything_and_never_holds_more_than_its_share(table: Stepped) -> None:
    """Red when every turn of a slow reader took in another 256 KB of requests."""
    slow = table.tcp(receive_bytes=65_536)
    slow.send(insert("page", "x" * 50_000))
    table.lines(slow, 1)
    requests = line(method="lookup", key="page") * 300_000
    sent, received, connection = 0, 0, next(iter(table.bridge._connections.values()))
    largest = 0
    while received < 30_000_000:
        sent += slow.send_some(requests[sent : sent + 200_000])
        table.server.step(0)
        with contextlib.suppress(BlockingIOError):
            received += len(slow.socket.recv(200_000))
        largest = max(largest, len(connection.received))
    assert largest <= 2 * tcp._RECEIVE_BYTES


def test_many_large_replies_at_once_reach_a_client_that_reads(table: Stepped) -> None:
    """Red when a connection had as many lines a step whatever its replies: 32 of 1.5 MB were dropped as too much."""
    peer = table.tcp()
    peer.send(insert("big", "x" * 1_500_000))
    table.lines(peer, 1)
    peer.send(line(method="lookup", key="big") * 70)
    received = 0

    def all_there() -> bool:
        nonlocal received
        peer.read()
        received += len(peer.received)
        peer.received.clear()
        return received > 70 * 1_500_000

    table.until(all_there)
    peer.send(line(method="size"))
    table.settle()
    peer.read()
    assert bytes(peer.received).endswith(b'{"status":"OK","result":1}\n')
    assert table.bridge.stats()["tcp_connections_dropped_backpressure"] == 0


def test_one_reply_larger_than_the_bound_still_arrives(table: Stepped) -> None:
    """MessagePack's one byte for a control character is six in JSON."""
    writer = table.zmq()
    assert table.call(writer, "insert", "grows", "\x01" * 7_000_000) == (0, None)
    peer = table.tcp()
    peer.send(line(method="lookup", key="grows"))
    table.until(lambda: len(peer.received) > 42_000_000, first=peer.read)
    assert peer.lines() == [ok("\x01" * 7_000_000)]


def test_a_stalled_peer_is_dropped_and_an_idle_one_is_not(table: Stepped) -> None:
    idle = table.tcp()
    deaf = table.tcp(receive_bytes=4096)
    deaf.send(insert("page", "x" * 1_000_000) + line(method="lookup", key="page") * 20)
    table.settle()
    table.now_s += tcp.STALLED_S - 1
    table.settle()
    assert table.bridge.connections == 2

    def dropped() -> bool:  # the kernel still takes a little now and then
        table.now_s += tcp.STALLED_S + 1
        table.settle()
        return table.bridge.connections == 1

    table.until(dropped)
    assert table.bridge.stats()["tcp_connections_dropped_stalled"] == 1
    idle.send(line(method="size"))
    assert table.lines(idle, 1) == [ok(1)]


class FullSocket:
    """A socket whose window is full: it takes nothing."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno = sock.fileno
        self.recv_into = sock.recv_into

    def send(self, data: bytes) -> int:
        raise BlockingIOError


def test_a_peer_counts_as_stalled_from_when_its_replies_began_to_wait(table: Stepped) -> None:
    """Red when the time counted from the last byte sent: an idle peer with a full window was dropped at once."""
    peer = table.tcp()
    peer.send(line(method="size"))
    table.lines(peer, 1)
    (connection,) = table.bridge._connections.values()
    window, connection.socket = connection.socket, FullSocket(connection.socket)  # type: ignore[assignment]
    table.now_s += 10 * tcp.STALLED_S
    peer.send(line(method="size"))
    table.until(lambda: connection.queued)
    table.now_s += tcp.STALLED_S - 1
    table.step()
    connection.socket = window
    assert table.lines(peer, 1) == [ok(0)]


def test_all_connections_together_hold_a_bounded_amount(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when only each connection by itself was bounded: the largest had to go and did not."""
    monkeypatch.setattr(tcp, "HELD_BYTES_MAX", 10 << 20)
    monkeypatch.setattr(tcp, "_UNCOUNTED_BYTES_MAX", 1 << 20)
    modest = table.tcp()
    modest.send(b'{"method": ')
    peers = [table.tcp() for _ in range(6)]
    for peer in peers:
        for _ in range(40):
            peer.send_some(b"x" * 100_000)
            table.server.step(0)
    table.settle()
    held = sum(len(connection.received) for connection in table.bridge._connections.values())
    assert held <= (10 << 20) + (1 << 20) + tcp._RECEIVE_BYTES
    assert table.bridge.stats()["tcp_connections_dropped_memory"] >= 3
    modest.send(b'"size"}\n')
    assert table.lines(modest, 1) == [ok(0)]


Step = Callable[[], None]


def steps_until_taken(table: Stepped, peer: TcpPeer, connection: tcp_connection.Connection, step: Step) -> int:
    """Send a request, and return in which step from its arrival on it is taken in.

    A busy kernel delivers late even on the loopback, and steps do not wait for it: those are not counted.
    """
    before, steps = connection.requests, 0
    peer.send(line(method="ping"))
    await_arrivals(connection)
    while connection.requests == before:
        step()
        steps += 1
    assert table.lines(peer, 1) == [ok("pong")]
    return steps


def await_arrivals(*connections: tcp_connection.Connection) -> None:
    """Wait until each has something to read."""
    for connection in connections:
        assert select.select([connection.socket], [], [], 60)[0]


def test_a_client_that_pipelines_100_000_requests_delays_another_by_few_steps(table: Stepped) -> None:
    """Red when a connection's turn was as long as what it had sent."""
    pipelining, single = table.tcp(), table.tcp()
    connection = list(table.bridge._connections.values())[-1]
    requests = line(method="size") * 100_000
    sent, answered, worst = 0, 0, 0

    def step() -> None:
        nonlocal sent
        sent += pipelining.send_some(requests[sent : sent + 200_000])
        assert table.server.step(0) <= 2 * tcp_connection.LINES_MAX

    for _ in range(400):
        step()
        answered += len(pipelining.lines())
        worst = max(worst, steps_until_taken(table, single, connection, step))
    assert worst <= 3
    assert answered > 10_000


def test_several_hundred_pipelining_clients_share_a_step(table: Stepped) -> None:
    """Red when only each connection was bounded, to 64 lines a step: 300 clients made steps of 19,200 requests."""
    peers = [table.tcp() for _ in range(300)]
    for peer in peers:
        peer.send(line(method="size") * 200)
    connections = list(table.bridge._connections.values())
    await_arrivals(*connections)
    taken = [0]
    while min(taken) < 200:
        assert table.server.step(0.05) <= 2048
        for peer in peers:
            peer.read()
        taken = [connection.requests for connection in connections]
        assert max(taken) - min(taken) <= 2 * tcp_connection.LINES_MAX
    for peer in peers:
        assert len(table.lines(peer, 200)) == 200


def test_a_step_takes_in_a_bounded_number_of_bytes(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when only what was received counted: lines completed in one step made a group of any size."""
    monkeypatch.setattr(tcp, "STEP_BYTES_MAX", 2 << 20)
    monkeypatch.setattr(tcp_connection, "STEP_BYTES_MAX", 2 << 20)
    peers = [table.tcp() for _ in range(8)]
    request = insert("k", "x" * 1_000_000)
    for peer in peers:
        begin = 0
        while begin < len(request) - 1:
            begin += peer.send_some(request[begin:-1])
            table.server.step(0)
    table.settle()
    for peer in peers:
        peer.send(b"\n")
    replies = 0
    while replies < len(peers):
        assert table.step() <= 3
        replies += sum(len(peer.lines()) for peer in peers)


def test_nobody_starves_behind_those_who_send_the_most(table: Stepped) -> None:
    flooders = [table.tcp() for _ in range(20)]
    single = table.tcp()
    connection = list(table.bridge._connections.values())[-1]

    def step() -> None:
        for peer in flooders:
            peer.send_some(b"y" * 200_000)
        table.server.step(0)

    for _ in range(20):
        assert steps_until_taken(table, single, connection, step) <= 20


# ---- limits of the machine


def test_who_had_no_turn_is_not_read_from(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when only those who had a turn were looked after: the others' lines piled up, a read a step."""
    monkeypatch.setattr(tcp, "REQUESTS_MAX", 1)
    peers = [table.tcp() for _ in range(8)]
    requests = line(method="ping") * 10_000
    for _ in range(200):
        for peer in peers:
            peer.send_some(requests)
            peer.read()
        table.server.step(0)
        assert (
            max(len(connection.received) for connection in table.bridge._connections.values()) < 2 * tcp._RECEIVE_BYTES
        )
    assert table.server.dispatcher.requests > 100


def test_when_full_whoever_has_asked_for_nothing_the_longest_makes_room(
    table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when newcomers waited for one to leave: 5,000 idle connections kept everybody out as long as they liked."""
    monkeypatch.setattr(tcp, "CONNECTIONS_MAX", 3)
    first, second, third = (table.tcp() for _ in range(3))
    first.send(line(method="size"))
    assert table.lines(first, 1) == [ok(0)]
    fourth = table.tcp()
    fourth.send(line(method="size"))
    assert table.lines(fourth, 1) == [ok(0)]
    table.until(lambda: second.ended, first=second.read)
    assert table.bridge.connections == 3 and table.bridge.stats()["tcp_connections_dropped_idle"] == 1
    for peer in (first, third):
        peer.send(line(method="ping"))
        assert table.lines(peer, 1) == [ok("pong")]


def test_idle_connections_leave_a_quarter_of_the_descriptors_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when they took all: with a limit of 512 descriptors, clients of the ROUTER hung as long as these liked."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (9, 9))
    with Stepped() as table:
        crowd = [table.tcp() for _ in range(10)]
        table.until(lambda: table.bridge.connections == 6)
        assert table.bridge.stats()["tcp_connections_dropped_idle"] == 4
        crowd[-1].send(line(method="ping"))
        assert table.lines(crowd[-1], 1) == [ok("pong")]


def test_thousands_of_idle_connections_keep_nobody_out(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "CONNECTIONS_MAX", 200)
    steady = table.tcp()
    crowd = []
    for turn in range(1000):
        crowd.append(TcpPeer(table.bridge.port))
        if turn % 50 == 0:
            steady.send(line(method="ping"))
            assert table.lines(steady, 1) == [ok("pong")]
            newcomer = table.tcp()
            newcomer.send(line(method="ping"))
            assert table.lines(newcomer, 1) == [ok("pong")]
            assert table.bridge.connections <= 200
    for peer in crowd:
        peer.close()


POST = (
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1:5571\r\nOrigin: http://elsewhere.example\r\nContent-Type: text/plain\r\n\r\n"
)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize(
    "head",
    [POST, POST.lower(), POST.replace(b"\r", b""), b"\t" + POST, POST.replace(b"POST", b"PUT"),
     POST.replace(b"POST", b"FROB"), b"POST \n"],
    ids=["post", "lower case", "bare newlines", "indented", "put", "unknown method", "no target"],
)  # fmt: skip
def test_a_line_in_the_body_of_a_browsers_request_is_not_executed(table: Stepped, head: bytes, chunk: int) -> None:
    """Red when a head was answered as so many bad lines, and the body executed: any page could write to the table."""
    peer = table.tcp()
    request = head + insert("planted", 1)
    for start in range(0, len(request), chunk):
        with contextlib.suppress(ConnectionError):
            peer.send(request[start : start + chunk])
        table.server.step(0)
    table.until(lambda: peer.ended, first=peer.read)
    assert bytes(peer.received) == b""
    assert "planted" not in table.store.table.rows
    assert table.bridge.stats()["tcp_connections_dropped_http"] == 1


@pytest.mark.parametrize(
    "first", [b"", b"POSTER", b'"GET /"', b"[]", b"\x16\x03\x01 TLS", b"get", b'{"method": "frobnicate"}']
)
def test_any_other_first_line_is_answered_and_the_connection_stays(table: Stepped, first: bytes) -> None:
    peer = table.tcp()
    peer.send(first + b"\n" + line(method="size"))
    refusal, size = table.lines(peer, 2)
    assert refusal["status"] == "exception" and size == ok(0)


def test_a_vanished_machine_is_noticed_by_tcp_within_ten_seconds(table: Stepped) -> None:
    table.tcp()
    (connection,) = table.bridge._connections.values()
    options = [connection.socket.getsockopt(socket.IPPROTO_TCP, option) for option in (
        socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT,
    )]  # fmt: skip
    assert options == [4, 2, 3, 10_000] and connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_large_replies_take_turns_and_small_ones_do_not_wait_for_them(table: Stepped) -> None:
    """Red when every reply was encoded at once: 190 peers that asked for 7 MB each held everybody for seconds."""
    writer, single = table.zmq(), table.tcp()
    assert table.call(writer, "insert", "big", "x" * 4_000_000) == (0, None)
    peers = [table.tcp() for _ in range(12)]
    for peer in peers:
        peer.send(line(method="lookup", key="big"))
    single.send(line(method="ping"))
    table.gather(13)
    table.step()
    assert single.lines() == [ok("pong")]
    encoded = sum(connection.queued_bytes > 4_000_000 for connection in table.bridge._connections.values())
    assert table.bridge.pending() and encoded <= 12
    unencoded = [c for c in table.bridge._connections.values() if c.queued and isinstance(c.queued[0], Reply)]
    assert len(unencoded) >= 3, "a step encodes three"
    for peer in peers:
        assert table.lines(peer, 1) == [ok("x" * 4_000_000)]
    assert not table.bridge.pending()


def test_when_descriptors_run_out_clients_go_on_and_the_loop_rests(
    table: Stepped, caplog: pytest.LogCaptureFixture
) -> None:
    """Red when the listener stayed registered: the loop spun at every accept that failed."""
    steady = table.tcp()
    peers = [socket.socket() for _ in range(10)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = socket.socket()
    taken = contextlib.ExitStack()
    try:
        taken.enter_context(none_free_below(spare.fileno()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare.fileno() + 1, before[1]))
        with pytest.raises(OSError) as raised:
            socket.socket()
        assert raised.value.errno == errno.EMFILE
        for peer in peers:
            peer.connect(("127.0.0.1", table.bridge.port))
        for _ in range(5):
            table.settle()
            assert not table.server._poller.poll(20), "the loop would spin"
            table.now_s += 1
        assert table.bridge.connections == 1
        assert table.bridge.stats()["tcp_accepts_failed"] >= 2
        assert sum("open files" in record.message for record in caplog.records) == 1, "said once, not at every attempt"
        steady.send(line(method="ping"))
        assert table.lines(steady, 1) == [ok("pong")]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        taken.close()
    table.now_s += 1
    table.until(lambda: table.bridge.connections == 11)
    for sock in (*peers, spare):
        sock.close()


def test_a_port_in_use_is_refused_with_advice(table: Stepped) -> None:
    with pytest.raises(errors.CannotListen, match=r"in use.*--tcp"):
        tcp.TcpTransport("127.0.0.1", table.bridge.port)
    with pytest.raises(errors.CannotListen):
        tcp.TcpTransport("no-such-host.invalid", 0)


def test_closing_leaves_no_descriptor_behind(table: Stepped) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        bridge = tcp.TcpTransport("127.0.0.1", 0)
        peer = TcpPeer(bridge.port)
        while not bridge.connections:
            bridge.drain()
        peer.close()
        bridge.close()
    left = len(os.listdir("/proc/self/fd")) - before
    assert left < 25, "one a bridge would be 50; other tests' sockets may close or connect again meanwhile"


def test_bytes_of_messagepack_clients_are_shown_as_base64(table: Stepped) -> None:
    assert table.call(table.zmq(), "insert", "raw", b"\x00\xff") == (0, None)
    peer = table.tcp()
    peer.send(line(method="lookup", key="raw"))
    assert table.lines(peer, 1) == [ok("AP8=")]


def test_every_operation_of_the_wire_is_there_by_name_except_what_pushes(table: Stepped) -> None:
    peer = table.tcp()
    for method in OPERATIONS:
        peer.send(line(method=method))
        (reply,) = table.lines(peer, 1)
        assert (reply.get("type") == "InvalidMethod") == (
            method in ("watch", "watch_query", "monitor", "progress", "unwatch")
        ), reply


def test_a_first_line_without_end_is_looked_at_only_at_its_head(
    table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned red by matching all that had come at each read: 7 MB of one line delayed everybody by 60 ms a read."""
    seen: list[int] = []

    class Pattern:
        def match(self, head: bytes) -> None:
            seen.append(len(head))

    monkeypatch.setattr(tcp_connection, "_FOREIGN", Pattern())
    peer = table.tcp()
    for _ in range(5):
        peer.send(b"[" + b" " * 20_000)
        table.settle()
    assert seen and max(seen) <= tcp_connection._HEAD_BYTES and len(seen) <= 2


# ---- the token


TOKEN = b"0123456789abcdef"


@pytest.fixture
def guarded() -> Iterator[Stepped]:
    with Stepped(token=TOKEN) as table:
        yield table


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_who_shows_the_token_is_served_as_without_one(guarded: Stepped, ending: bytes) -> None:
    peer = guarded.tcp()
    peer.send(TOKEN + ending + b'{"method": "insert", "key": "a", "value": 1}\n{"method": "size"}\n')
    assert guarded.lines(peer, 2) == [{"status": "OK", "result": None}, {"status": "OK", "result": 1}]
    peer.send(b'{"method": "size"}\n')
    assert guarded.lines(peer, 1) == [{"status": "OK", "result": 1}]


@pytest.mark.parametrize(
    "first", [b"", TOKEN[:-1], TOKEN + b"0", TOKEN.upper(), b'{"method": "ping"}', b"\0" * 16], ids=repr
)
def test_who_does_not_show_the_token_is_told_once_and_disconnected(guarded: Stepped, first: bytes) -> None:
    """Red when only the first line was looked at, and the connection went on."""
    peer = guarded.tcp()
    peer.send(first + b'\n{"method": "insert", "key": "a", "value": 1}\n' + TOKEN + b'\n{"method": "size"}\n')
    replies: list[Any] = []

    def ended() -> bool:
        replies.extend(peer.lines())
        return peer.ended

    guarded.until(ended)
    (reply,) = replies
    assert (reply["status"], reply["type"]) == ("exception", "NotAllowed")
    other = guarded.tcp()
    other.send(TOKEN + b'\n{"method": "size"}\n')
    assert guarded.lines(other, 1) == [{"status": "OK", "result": 0}]


@pytest.mark.parametrize("ending", [b"", b"\n" + TOKEN + b'\n{"method": "size"}\n'])
def test_a_first_line_longer_than_any_token_is_not_waited_for(guarded: Stepped, ending: bytes) -> None:
    """Red when it was refused like any long line: a stranger had 7 MiB kept, was told, and could go on for ever."""
    peer = guarded.tcp()
    peer.send(b"x" * (TOKEN_BYTES_MAX + 2) + ending)
    replies: list[Any] = []

    def ended() -> bool:
        replies.extend(peer.lines())
        return peer.ended

    guarded.until(ended)
    assert [reply["type"] for reply in replies] == ["NotAllowed"]


def test_who_sends_on_behind_a_wrong_token_is_told_before_the_end(guarded: Stepped) -> None:
    """And reads the end of the stream, not a reset. Seen red with a connection that was closed with unread bytes."""
    peer = guarded.tcp()
    peer.send(b"wrong\n")
    data = b"x" * (1 << 20)
    sent = 0
    heard = b""

    def told() -> bool:
        nonlocal sent, heard
        sent += peer.send_some(data[sent:])
        with contextlib.suppress(BlockingIOError):
            heard += peer.socket.recv(1000)  # raises ConnectionResetError
        return sent == len(data) and heard.endswith(b"\n")

    guarded.until(told)
    assert b"NotAllowed" in heard

    def ended() -> bool:
        with contextlib.suppress(BlockingIOError):
            return peer.socket.recv(1000) == b""
        return False

    guarded.until(ended)
    peer.finish()
    guarded.until(lambda: guarded.bridge.connections == 0)


def test_who_never_stops_sending_behind_a_wrong_token_is_closed_at_last(guarded: Stepped) -> None:
    quiet, endless = guarded.tcp(), guarded.tcp()
    for peer in (quiet, endless):
        peer.send(b"wrong\n")
    sent = 0

    def more() -> bool:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            sent += endless.send_some(b"x" * 100_000)
        return guarded.bridge.connections < 2

    guarded.until(more)
    assert sent > tcp.DRAINED_BYTES_MAX / 2
    guarded.now_s += tcp.DRAIN_S + 1
    guarded.until(lambda: guarded.bridge.connections == 0)


def test_a_token_in_pieces_is_one(guarded: Stepped) -> None:
    peer = guarded.tcp()
    for byte in TOKEN + b"\n":
        peer.send(bytes([byte]))
        guarded.step()
    peer.send(b'{"method": "size"}\n')
    assert guarded.lines(peer, 1) == [{"status": "OK", "result": 0}]
