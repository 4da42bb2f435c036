"""The ROUTER, a step at a time: order, delimiters, refusals, and peers that behave badly."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from support import zmtp
from support.servers import wait_until
from support.stepped import DEADLINE_S, Stepped, ZmqPeer

from kvzmq import errors
from kvzmq.protocol.limits import REQUEST_BYTES_LIMIT
from kvzmq.protocol.messages import Request
from kvzmq.server.transport import STEP_BYTES_MAX, STEP_WEIGHT_MAX, Arrival, router, router_replies
from kvzmq.server.transport.router import RouterTransport


@pytest.fixture
def table() -> Iterator[Stepped]:
    with Stepped() as table:
        yield table


def pack(message: object) -> bytes:
    return msgspec.msgpack.encode(message)


# ---- requests and replies


def test_a_dealer_is_answered_in_the_order_it_asked(table: Stepped) -> None:
    peer = table.zmq()
    for number in range(500):
        peer.send(["insert", "k", number], ["lookup", "k"])
    replies = table.replies(peer, 500)
    assert replies == [[number + 1, number + 1, [[0, None], [0, number]]] for number in range(500)]


def test_a_req_socket_gets_its_delimiter_back_and_a_dealer_gets_none(table: Stepped) -> None:
    """Red when the delimiter was left out: a REQ drops such a reply and waits for ever."""
    req, dealer = table.zmq(zmq.REQ), table.zmq()
    for number in range(3):
        req.socket.send(pack([None, number + 1, [["size"]]]))
        table.until(lambda: req.socket.poll(0))
        assert msgspec.msgpack.decode(req.socket.recv()) == [number + 1, 0, [[0, 0]]]
    dealer.send(["size"])
    table.until(lambda: dealer.socket.poll(0))
    assert len(dealer.socket.recv_multipart()) == 1


def test_a_dealer_may_put_a_delimiter_itself(table: Stepped) -> None:
    peer = table.zmq()
    peer.send_frames(b"", pack([None, 7, [["size"]]]))
    table.until(lambda: peer.socket.poll(0))
    assert peer.socket.recv_multipart() == [b"", pack([7, 0, [[0, 0]]])]


ENVELOPES = [(b"",), (b"id", b""), (b"\0\0\0\1", b""), (b"\0abcd", b"\0efgh", b""), (b"i" * 255,) * 15 + (b"",)]


@pytest.mark.parametrize(
    "envelope", ENVELOPES, ids=lambda envelope: f"{len(envelope)} frames of {len(envelope[0])} bytes"
)
def test_an_envelope_is_echoed_up_to_the_empty_frame_as_rep_does(table: Stepped, envelope: tuple[bytes, ...]) -> None:
    """Red when only a single empty frame was known: REQ_CORRELATE and every proxy were refused."""
    peer = table.zmq()
    for frame in (pack([None, 7, [["size"]]]), b"\xc1", b""):
        peer.send_frames(*envelope, frame)
        table.until(lambda: peer.socket.poll(0))
        *echoed, reply = peer.socket.recv_multipart()
        assert tuple(echoed) == envelope
        assert (msgspec.msgpack.decode(reply)[0] == 7) is (len(frame) > 1)


def test_a_req_socket_that_correlates_is_served(table: Stepped) -> None:
    req = table.zmq(zmq.REQ, req_correlate=1, req_relaxed=1)
    for number in range(3):
        req.socket.send(pack([None, number + 1, [["size"]]]))
        table.until(lambda: req.socket.poll(0))
        assert msgspec.msgpack.decode(req.socket.recv()) == [number + 1, 0, [[0, 0]]]


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_clients_are_served_through_a_chain_of_proxies(table: Stepped, kind: int) -> None:
    hops: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]] = []
    url = table.url
    for _ in range(3):
        front, back = table.context.socket(zmq.ROUTER), table.context.socket(zmq.DEALER)
        back.connect(url)
        url = f"tcp://127.0.0.1:{front.bind_to_random_port('tcp://127.0.0.1')}"
        hops.append((front, back))

    def forward() -> None:
        for front, back in hops:
            for source, target in ((front, back), (back, front)):
                while source.poll(0):
                    target.send_multipart(source.recv_multipart())

    clients = [ZmqPeer(table.context, url, kind, probe_router=1) for _ in range(2)]
    for number in range(5):
        for client in clients:
            delimiter = [b""] if kind == zmq.DEALER else []
            client.send_frames(*delimiter, pack([None, number + 1, [["increment", "n"]]]))
        for client in clients:
            table.until(partial(client.socket.poll, 0), first=forward)
            assert msgspec.msgpack.decode(client.socket.recv_multipart()[-1])[0] == number + 1
    assert table.call(table.zmq(), "lookup", "n") == (0, 10)
    for client in clients:
        client.close()
    for hop in hops:
        for end in hop:
            end.close(linger=0)


@pytest.mark.parametrize("frames", [(b"",), (b"id", b""), (b"\0abcd", b"\0efgh", b"")])
def test_a_probe_is_not_answered(table: Stepped, frames: tuple[bytes, ...]) -> None:
    """Red when it was refused: the client took that for the reply to its first request."""
    peer = table.zmq(probe_router=1)
    for number in range(3):
        peer.send_frames(*frames)
        assert table.call(peer, "size") == (0, 0), number
    assert table.server.dispatcher.refused == 0


@pytest.mark.parametrize(
    ("frames", "envelope"),
    [((b"a", b"b"), ()), ((b"", b"a", b"b"), (b"",)), ((b"",) * 3, (b"",)), ((b"a",) * 1000, ()),
     ((b"a", b"", b"b", b"c"), (b"a", b"")), ((b"a",) * 16 + (b"", b"b"), ()), ((b"a" * 4097, b"", b"b"), ())],
)  # fmt: skip
def test_a_message_of_several_frames_is_refused_whole_and_the_next_is_served(
    table: Stepped, frames: tuple[bytes, ...], envelope: tuple[bytes, ...]
) -> None:
    """Red when the rest of a message was taken for the next one's identity."""
    peer = table.zmq()
    peer.send_frames(*frames)
    peer.send_frames(pack([None, 1, [["size"]]]))
    table.until(lambda: peer.socket.poll(0))
    *echoed, reply = peer.socket.recv_multipart()
    assert tuple(echoed) == envelope
    ((code, message),) = msgspec.msgpack.decode(reply)[2]
    assert code == errors.InvalidRequest.code and message.startswith("a request is one frame")
    assert table.replies(peer) == [[1, 0, [[0, 0]]]]


@pytest.mark.parametrize(
    "bad", [b"\xc1", b"\x93", pack([None, 0, [["size"]]]), pack([None, 1, []]), pack([b"short", 1, [["size"]]])]
)
def test_what_is_no_request_is_refused_in_its_place(table: Stepped, bad: bytes) -> None:
    peer = table.zmq()
    peer.send(["insert", "a", 1])
    peer.send_frames(bad)
    peer.send(["size"])
    first, second, third = table.replies(peer, 3)
    assert first == [1, 1, [[0, None]]] and third == [2, 1, [[0, 1]]]
    ((code, message),) = second[2]
    assert second[1] == 1 and code == errors.InvalidRequest.code and isinstance(message, str)


def test_a_frame_beyond_the_limit_costs_the_sender_its_connection_alone(table: Stepped) -> None:
    steady, oversized = table.zmq(), table.zmq()
    assert table.call(oversized, "insert", "a", bytes(REQUEST_BYTES_LIMIT - 100)) == (0, None)
    oversized.send_frames(bytes(REQUEST_BYTES_LIMIT + 1))
    deadline_s = time.monotonic() + 0.3
    while time.monotonic() < deadline_s:
        assert table.call(steady, "size") == (0, 1)
    assert oversized.replies() == []


def test_a_large_value_comes_back_whole(table: Stepped) -> None:
    peer = table.zmq()
    value = bytes(range(256)) * 32_000
    assert table.call(peer, "insert", "large", value) == (0, None)
    assert table.call(peer, "lookup", "large") == (0, value)


# ---- who does not read, who is gone


def ask_in_vain(table: Stepped, value_bytes: int, requests: int) -> None:
    """Ask for large replies and never read them."""
    steady = table.zmq()
    assert table.call(steady, "insert", "page", "x" * value_bytes) == (0, None)
    deaf = table.zmq(rcvhwm=1, sndhwm=0, rcvbuf=4096)
    for _ in range(requests):
        deaf.send(["lookup", "page"])
    worst_s = 0.0
    table.until(lambda: table.server.dispatcher.requests > 1)
    while table.server.dispatcher.requests < requests:
        began_s = time.perf_counter()
        assert table.call(steady, "ping") == (0, "pong")
        worst_s = max(worst_s, time.perf_counter() - began_s)
        waiting = [
            size for sent in table.router._in_flight.messages.values() for tracker, size in sent if not tracker.done
        ]
        assert sum(waiting) <= router_replies.UNSENT_BYTES_MAX
    assert worst_s < DEADLINE_S / 2  # also while other tests share the machine
    assert table.router.stats()["router_replies_dropped_backpressure"] > 0
    assert list(table.router.replies_dropped.values()) == [table.router.stats()["router_replies_dropped_backpressure"]]


@pytest.mark.parametrize("value_bytes", [20_000, 60_000, 1_000_000])
def test_who_never_reads_large_replies_holds_a_bounded_amount_and_they_are_counted(
    table: Stepped, value_bytes: int
) -> None:
    """Red when large replies were sent without regard to what was on its way already.

    And when pyzmq copied those below its threshold of 64 KiB and so took them for sent.
    """
    ask_in_vain(table, value_bytes, requests=50_000_000 // value_bytes)
    table.settle()
    waiting = [size for sent in table.router._in_flight.messages.values() for tracker, size in sent if not tracker.done]
    assert 10_000_000 < sum(waiting) <= router_replies.UNSENT_BYTES_MAX, "they are followed until they are on the wire"


def test_who_never_reads_small_replies_holds_a_bounded_number_and_they_are_counted(table: Stepped) -> None:
    """Red when the high-water mark was lifted; with a blocking send the server stood still."""
    ask_in_vain(table, value_bytes=12_000, requests=2500)


def test_who_reads_at_last_is_served_again(table: Stepped) -> None:
    ask_in_vain(table, value_bytes=1_000_000, requests=50)
    deaf = table._peers[-1]
    assert isinstance(deaf, ZmqPeer)
    deaf.seq = 1_000_000
    deadline_s = time.monotonic() + DEADLINE_S
    while not any(reply[0] == deaf.seq and reply[2] == [[0, 1]] for reply in deaf.replies()):
        assert time.monotonic() < deadline_s
        deaf.send(["size"])  # as a client would: it asks again until it is answered
        table.step()


def test_replies_to_a_peer_that_has_gone_are_counted(table: Stepped) -> None:
    peer, steady = table.zmq(), table.zmq()
    table.call(peer, "size")
    peer.send(["size"])
    arrivals: list[Arrival] = []
    wait_until(lambda: arrivals.extend(table.router.drain()) or arrivals)  # type: ignore[func-returns-value]
    assert len(arrivals) == 1
    peer.close()
    table.until(
        lambda: table.router.stats()["router_replies_dropped_disconnected"],
        first=lambda: table.server.dispatcher.dispatch(arrivals),
    )
    assert list(table.router.replies_dropped.values()) == [1]
    assert table.call(steady, "size") == (0, 0)


def test_a_client_that_comes_back_under_its_identity_is_served(table: Stepped) -> None:
    """Red with ROUTER_HANDOVER 0: libzmq took the first request for a name when the old connection was not yet gone."""
    for turn in range(30):
        peer = table.zmq(routing_id=b"same")
        assert table.call(peer, "increment", "n") == (0, turn + 1)
        peer.close()


def test_a_client_that_left_without_a_word_is_served_again_at_once(table: Stepped) -> None:
    """As after a cable was pulled: the old connection is still there, and nobody reads from it."""
    silent = zmtp.shake_hands(table.url, identity=b"same")
    silent.sendall(zmtp.frame(pack([None, 1, [["size"]]])))
    table.until(lambda: table.server.dispatcher.requests)
    peer = table.zmq(routing_id=b"same")
    assert table.call(peer, "size") == (0, 0)
    silent.close()


def test_of_two_clients_of_one_identity_the_later_is_served(table: Stepped) -> None:
    """As docs/protocol.md says: the earlier one hears nothing more, until it connects again and so is the later one."""
    first = table.zmq(routing_id=b"same")
    assert table.call(first, "insert", "a", 1) == (0, None)
    second = table.zmq(routing_id=b"same")
    assert table.call(second, "insert", "b", 2) == (0, None)
    first.send(["insert", "c", 3])
    for _ in range(20):
        assert table.call(second, "lookup", "b") == (0, 2)
    assert first.replies() == [] and "c" not in table.store.table.rows
    first.close()
    assert table.call(second, "lookup", "b") == (0, 2)
    again = table.zmq(routing_id=b"same")
    assert table.call(again, "lookup", "a") == (0, 1)


@pytest.mark.parametrize("length", [255, 256, 100_000])
def test_an_identity_has_a_length(table: Stepped, length: int) -> None:
    """Red when any was served: watches of 1,000 peers with names of a megabyte kept a gigabyte."""
    peer = zmtp.shake_hands(table.url, identity=b"i" * length)
    peer.sendall(zmtp.frame(pack([None, 1, [["watch"]]])))
    table.until(lambda: table.server.dispatcher.requests or table.server.dispatcher.refused)
    assert len(table.server.dispatcher.watches) == (length <= router.IDENTITY_BYTES_MAX)
    peer.close()


def test_names_do_not_give_identities_away(table: Stepped) -> None:
    """Red when a name was the end of the identity, which for an anonymous peer is all of it."""
    peer = table.zmq(routing_id=b"my-name")
    peer.send(["size"])
    arrivals: list[Arrival] = []
    wait_until(lambda: arrivals.extend(table.router.drain()) or arrivals)  # type: ignore[func-returns-value]
    (arrival,) = arrivals
    name = table.router.name(arrival.peer)
    assert (
        b"my-name".hex()[-8:] not in name and name == table.router.name(arrival.peer) and len(name) == len("zmq:") + 8
    )
    other = RouterTransport(table.context, ["tcp://127.0.0.1:0"])
    assert other.name(arrival.peer) != name, "not to be looked up in a table of all four-byte numbers either"
    other.close()


def test_short_connections_leave_nothing_behind(table: Stepped) -> None:
    """Red when what followed the replies of 1,024 peers was kept, 3 KB a reply, though all of them had left."""
    steady = table.zmq()
    table.call(steady, "insert", "page", "x" * 20_000)
    for turn in range(300):
        peer = table.zmq()
        for _ in range(5):
            peer.send(["lookup", "page"])
        if turn % 3:
            table.replies(peer, 5)
        table._peers.remove(peer)
        peer.close()
    assert table.call(steady, "size") == (0, 1)
    table.settle()
    assert len(table.router._in_flight.messages) <= 2 * router_replies._FOLLOWED_MIN + 1


def test_large_replies_take_turns_and_small_ones_do_not_wait_for_them(table: Stepped) -> None:
    """Red when every reply was encoded at once: 190 peers that asked for 7 MB each held everybody for 3 seconds."""
    steady = table.zmq()
    assert table.call(steady, "insert", "big", "x" * 4_000_000) == (0, None)
    peers = [table.zmq() for _ in range(12)]
    for peer in peers:
        peer.send(["lookup", "big"], seq=1)
        peer.send(["size"], seq=2)
    steady.send(["ping"])
    table.gather(25)
    assert len(table.router._queues) >= 9, "a step encodes three"
    steady.socket.poll(int(DEADLINE_S * 1000))
    assert steady.replies()[0][2] == [[0, "pong"]]
    for peer in peers:
        assert [reply[2] for reply in table.replies(peer, 2)] == [[[0, "x" * 4_000_000]], [[0, 1]]], "in order"
    assert not table.router.pending()


def test_a_step_takes_in_a_bounded_amount_of_work(table: Stepped) -> None:
    """Red when only requests and bytes counted: a thousand pages of 10,000 rows made a step of seconds."""
    peer = table.zmq(sndhwm=0)
    for op in (
        ["items", "", None, 10_000],
        ["keys", "", None, 10_000],
        ["lookup_many", ["x"] * 5000],
        ["remove_many", ["x"] * 5000],
    ):
        for _ in range(20):
            peer.send(op)
        taken: list[Arrival] = []
        while len(taken) < 20:
            arrivals = table.router.drain()
            weight = sum(arrival.request.weight for arrival in arrivals if isinstance(arrival.request, Request))
            assert weight < STEP_WEIGHT_MAX + 10_000
            taken += arrivals


def test_a_step_takes_in_a_bounded_number_of_bytes(table: Stepped) -> None:
    """Red when 32 MiB of requests were one step."""
    peer = table.zmq(sndhwm=0)
    for _ in range(40):
        peer.send(["insert", "k", bytes(200_000)])
    taken: list[Arrival] = []
    while len(taken) < 40:
        arrivals = table.router.drain()
        assert len(arrivals) <= STEP_BYTES_MAX // 200_000 + 1
        taken += arrivals


def test_a_stop_gives_libzmq_the_time_to_send_what_it_was_given(table: Stepped) -> None:
    """Seen red with 200 ms: beside thirty programs on two processors its thread had not run by then, and the replies of
    the last step were lost.
    """
    linger_ms = table.router._socket.getsockopt(zmq.LINGER)
    assert isinstance(linger_ms, int) and linger_ms >= 2000


# ---- libzmq under attack


def abort_of(program: str) -> int:
    """Run a program of the tests' directory in a process of its own; return the signal that ended it, or 0."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], timeout=300, capture_output=True
    )
    assert done.returncode <= 0, done.stderr.decode()
    return -done.returncode


RESET_WHILE_INPUT_IS_STOPPED = """
import socket, struct, time, zmq
from support import zmtp
from kvzmq.server.transport.router import RouterTransport
transport = RouterTransport(zmq.Context(), ["tcp://127.0.0.1:0"])
peers = [zmtp.shake_hands(transport.endpoints[0]) for _ in range(4)]
for peer in peers:
    peer.sendall(zmtp.frame(b"x") * 2000)
time.sleep(0.3)  # the loop is busy, and libzmq stops its input
for peer in peers:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
time.sleep(3.0)  # a heartbeat would be due
assert transport.drain()
"""


def test_a_connection_that_breaks_while_its_queue_is_full_does_not_abort_the_server() -> None:
    """Red with HEARTBEAT_IVL: libzmq's heartbeat wrote to the engine that had failed, Assertion failed: !_io_error."""
    assert abort_of(RESET_WHILE_INPUT_IS_STOPPED) == 0


def test_no_socket_anywhere_sets_libzmqs_heartbeats() -> None:
    root = Path(__file__).parents[2]
    sources = [
        path
        for place in ("kvzmq", "clients", "benchmarks", "docs")
        for path in (root / place).rglob("*")
        if path.is_file()
    ]
    sources = [path for path in sources if path.suffix in (".py", ".md")]
    assert len(sources) > 80
    setting = re.compile(r"zmq\.HEARTBEAT_|\.heartbeat_(?:ivl|timeout|ttl)\s*=|heartbeat_(?:ivl|timeout|ttl)=")
    for path in sources:
        assert not setting.search(path.read_text()), path


def first_of(table: Stepped, transport: RouterTransport) -> Any:
    arrivals: list[Arrival] = []
    table.until(lambda: arrivals, first=lambda: arrivals.extend(transport.drain()))
    return arrivals[0]


def test_the_first_anonymous_identity_cannot_be_guessed(table: Stepped) -> None:
    """Red when C's rand was left unseeded: it begins at 0x6b8b4567; who claims the next number aborts the server."""
    seen = set()
    for _ in range(3):
        transport = RouterTransport(table.context, ["tcp://127.0.0.1:0"])
        peer = table.zmq()
        peer.socket.connect(transport.endpoints[0])
        anonymous = zmtp.shake_hands(transport.endpoints[0])
        anonymous.sendall(zmtp.frame(pack([None, 1, [["size"]]])))
        identity = first_of(table, transport).peer[0]
        assert len(identity) == 5 and identity[0] == 0
        seen.add(int.from_bytes(identity[1:], "big"))
        anonymous.close()
        transport.close()
    assert len(seen) == 3 and not any(0x6B8B4567 <= number < 0x6B8B4567 + 1000 for number in seen)


CLAIM_THE_NEXT_IDENTITIES = """
import zmq
from support import zmtp
from kvzmq.server.transport.router import RouterTransport
context = zmq.Context()
transport = RouterTransport(context, ["tcp://127.0.0.1:0"])
url = transport.endpoints[0]
claims = [zmtp.shake_hands(url, identity=b"\\0" + (0x6B8B4567 + n).to_bytes(4, "big")) for n in range(200)]
for claim in claims:
    claim.sendall(zmtp.frame(b"x"))
claimed = 0
while claimed < 200:
    claimed += len(transport.drain())
honest = context.socket(zmq.DEALER)
honest.connect(url)
honest.send(b"x")
while not transport.drain():
    pass
"""


def test_claiming_the_identities_that_libzmq_would_give_does_not_abort_the_server() -> None:
    """Red when C's rand was left unseeded: Assertion failed: ok (socket_base.cpp:2113)."""
    assert abort_of(CLAIM_THE_NEXT_IDENTITIES) == 0


def test_a_vanished_machine_is_noticed_by_tcp_within_ten_seconds(table: Stepped) -> None:
    """Red without TCP_MAXRT, which libzmq passes on as TCP_USER_TIMEOUT."""
    peer = table.zmq()
    table.call(peer, "size")
    assert table.router.connections == 1
    (descriptor,) = table.router._monitor.descriptors
    with socket.socket(fileno=os.dup(descriptor)) as accepted:
        options = [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in (
            socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT,
        )]  # fmt: skip
        assert options == [4, 2, 3, 10_000] and accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


# ---- peers that are no clients


def misbehave(table: Stepped, connect: Callable[[], socket.socket], data: bytes) -> None:
    steady = table.zmq()
    assert table.call(steady, "insert", "a", 1) == (0, None)
    for ending in ("stay", "close", "trickle"):
        peer = connect()
        with contextlib.suppress(ConnectionError):  # it was shown the door
            for piece in [bytes([byte]) for byte in data[:200]] if ending == "trickle" else [data]:
                peer.sendall(piece)
        if ending == "close":
            peer.close()
        for _ in range(5):
            assert table.call(steady, "lookup", "a") == (0, 1)
        peer.close()


@pytest.mark.parametrize("name", zmtp.INSTEAD_OF_A_HANDSHAKE)
def test_whatever_a_peer_sends_instead_of_a_handshake_the_others_are_served(table: Stepped, name: str) -> None:
    misbehave(table, lambda: zmtp.connect(table.url), zmtp.INSTEAD_OF_A_HANDSHAKE[name])


@pytest.mark.parametrize("name", zmtp.AFTER_A_HANDSHAKE)
def test_whatever_a_peer_sends_after_the_handshake_the_others_are_served(table: Stepped, name: str) -> None:
    misbehave(table, lambda: zmtp.shake_hands(table.url), zmtp.AFTER_A_HANDSHAKE[name])


@pytest.mark.parametrize("identity", [b"", b"i", b"i" * 255, b"i" * 300, b"\0abcd", b"same", b"same"])
def test_a_peer_may_call_itself_what_it_likes(table: Stepped, identity: bytes) -> None:
    misbehave(table, lambda: zmtp.shake_hands(table.url, identity=identity), zmtp.frame(pack([None, 1, [["size"]]])))


def test_a_client_by_hand_is_served_like_any_other(table: Stepped) -> None:
    """The peers above fail for the reason they are meant to, not for another one."""
    peer = zmtp.shake_hands(table.url)
    peer.sendall(zmtp.frame(pack([None, 1, [["size"]]])))
    peer.setblocking(False)
    received = bytearray()

    def answered() -> bool:
        with contextlib.suppress(BlockingIOError):
            received.extend(peer.recv(4096))
        return zmtp.frame(pack([1, 0, [[0, 0]]])) in received

    table.until(answered)
    peer.close()


# ---- listening


def test_port_0_takes_a_free_one_and_a_port_in_use_is_refused_with_advice(table: Stepped) -> None:
    assert int(table.url.rpartition(":")[2]) > 0
    with pytest.raises(errors.CannotListen, match=r"in use.*--bind"):
        RouterTransport(table.context, [table.url])
    for endpoint in ("nonsense", "tcp://127.0.0.1", "tcp://no-such-host.invalid:1", "udp://127.0.0.1:1"):
        with pytest.raises(errors.CannotListen):
            RouterTransport(table.context, ["tcp://127.0.0.1:0", endpoint])


def test_an_ipc_endpoint_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Red when the umask was left as it is: libzmq makes the socket for everyone."""
    path = tmp_path / "kvzmq.sock"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    transport = RouterTransport(context, [f"ipc://{path}"])
    assert path.stat().st_mode & 0o077 == 0
    transport.close()
    context.term()


def test_an_ipc_endpoint_in_use_is_not_taken_over_and_its_file_goes_with_the_server(tmp_path: Path) -> None:
    """Red without the look: libzmq takes the path of a running server over, and says nothing to anybody."""
    context: zmq.Context[Any] = zmq.Context()
    path = tmp_path / "socket"
    first = RouterTransport(context, [f"ipc://{path}"])
    with pytest.raises(errors.CannotListen, match="in use"):
        RouterTransport(context, [f"ipc://{path}"])
    first.close()
    assert not path.exists()
    path.touch()  # what a killed server leaves
    second = RouterTransport(context, [f"ipc://{path}"])
    second.close()
    context.term()
