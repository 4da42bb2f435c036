"""The ROUTER, a step at a time: order, delimiters, refusals, and peers that behave badly."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
import zmtp
from stepped import Stepped

from kvzmq import errors
from kvzmq.messages import MESSAGE_BYTES_MAX
from kvzmq.transport import router
from kvzmq.transport.router import RouterTransport


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


@pytest.mark.parametrize("frames", [(b"a", b"b"), (b"", b"a", b"b"), (b"",) * 3, (b"a",) * 1000, (b"a", b"")])
def test_a_message_of_several_frames_is_refused_whole_and_the_next_is_served(table: Stepped, frames: tuple[bytes, ...]) -> None:
    """Red when the rest of a message was taken for the next one's identity."""
    peer = table.zmq()
    peer.send_frames(*frames)
    peer.send_frames(pack([None, 1, [["size"]]]))
    table.until(lambda: peer.socket.poll(0))
    *delimiter, reply = peer.socket.recv_multipart()
    assert delimiter == ([b""] if frames[0] == b"" else [])
    assert msgspec.msgpack.decode(reply)[2] == [[errors.InvalidRequest.code, "a request is one frame"]]
    assert table.replies(peer) == [[1, 0, [[0, 0]]]]


@pytest.mark.parametrize("bad", [b"", b"\xc1", b"\x93", pack([None, 0, [["size"]]]), pack([None, 1, []]), pack([b"short", 1, [["size"]]])])
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
    steady, greedy = table.zmq(), table.zmq()
    assert table.call(greedy, "insert", "a", bytes(MESSAGE_BYTES_MAX - 100)) == (0, None)
    greedy.send_frames(bytes(MESSAGE_BYTES_MAX + 1))
    deadline_s = time.monotonic() + 0.3
    while time.monotonic() < deadline_s:
        assert table.call(steady, "size") == (0, 1)
    assert greedy.replies() == []


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
        waiting = [size for sent in table.router._unsent.values() for tracker, size in sent if not tracker.done]
        assert sum(waiting) <= router.UNSENT_BYTES_MAX
    assert worst_s < 2.0
    assert table.router.stats()["router_replies_to_the_stuck"] > 0
    assert list(table.router.undelivered.values()) == [table.router.stats()["router_replies_to_the_stuck"]]


@pytest.mark.parametrize("value_bytes", [20_000, 60_000, 1_000_000])
def test_who_never_reads_large_replies_holds_a_bounded_amount_and_they_are_counted(table: Stepped, value_bytes: int) -> None:
    """Red when large replies were sent without regard to what was on its way already.

    And when pyzmq copied those below its threshold of 64 KiB and so took them for sent.
    """
    ask_in_vain(table, value_bytes, requests=50_000_000 // value_bytes)
    waiting = [size for sent in table.router._unsent.values() for tracker, size in sent if not tracker.done]
    assert sum(waiting) > 10_000_000, "they are followed until they are on the wire"


def test_who_never_reads_small_replies_holds_a_bounded_number_and_they_are_counted(table: Stepped) -> None:
    """Red when the high-water mark was lifted; with a blocking send the server stood still."""
    ask_in_vain(table, value_bytes=12_000, requests=2500)


def test_who_reads_at_last_is_served_again(table: Stepped) -> None:
    ask_in_vain(table, value_bytes=1_000_000, requests=50)
    deaf = table._peers[-1]
    deaf.seq = 1_000_000
    deadline_s = time.monotonic() + 20
    while not any(reply[0] == deaf.seq and reply[2] == [[0, 1]] for reply in deaf.replies()):
        assert time.monotonic() < deadline_s
        deaf.send(["size"])  # as a client would: it asks again until it is answered
        table.step()


def test_replies_to_a_peer_that_has_gone_are_counted(table: Stepped) -> None:
    peer, steady = table.zmq(), table.zmq()
    table.call(peer, "size")
    peer.send(["size"])
    table.server._poller.poll(1000)
    arrivals = table.router.drain()
    assert len(arrivals) == 1
    peer.close()
    table.until(lambda: (table.server.dispatcher.dispatch(arrivals), table.router.stats()["router_replies_to_the_gone"])[1])
    assert list(table.router.undelivered.values()) == [1]
    assert table.call(steady, "size") == (0, 0)


def test_two_clients_of_one_identity_do_not_get_each_others_replies(table: Stepped) -> None:
    first, second = table.zmq(routing_id=b"same"), table.zmq()
    assert table.call(first, "insert", "a", 1) == (0, None)
    second.close()
    second = table.zmq(routing_id=b"same")
    second.send(["insert", "b", 2])
    for _ in range(20):
        assert table.call(first, "lookup", "a") == (0, 1)
    assert second.replies() == []


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
    assert len(table.router._unsent) <= 2 * router._FOLLOWED_MIN + 1


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
