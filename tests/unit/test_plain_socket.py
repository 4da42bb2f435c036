"""The plain socket against peers that are slow, rude or gone, step by step: no threads, clocks where time matters."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import zmtp
from support.calls import noting
from support.servers import PATIENCE_S, hold_port, wait_until

from kvzmq.client.core import dial, plain_socket
from kvzmq.client.core.dial import Address, Dial, Lookup, Resolver, interleave, parse_endpoint
from kvzmq.client.core.plain_socket import HANDSHAKE_S, SILENT_S, UNSENT_BYTES_MAX, PlainOpener, PlainSocket
from kvzmq.client.core.socket import Change, frames
from kvzmq.client.core.targets import Target
from kvzmq.client.core.transports import check_transport, transport_of

CLIENTS_HANDSHAKE_BYTES = 64 + 2 + 6 + 12 + 4 + 6 + 9 + 4


class Peer:
    """What listens, and takes one connection at a time."""

    def __init__(self, receive_bytes: int | None = None) -> None:
        self.listener = socket.socket()
        if receive_bytes is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.listener.settimeout(60)
        self.url = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.sock: socket.socket | None = None

    def accept(self) -> socket.socket:
        if self.sock is not None:
            self.sock.close()
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(60)
        return self.sock

    def shake_hands(self, client: PlainSocket) -> socket.socket:
        """Accept the connection that the client makes next, and have it told."""
        while not select.select([self.listener], [], [], 0.01)[0]:
            client.poll_events()
        sock = self.accept()
        sock.sendall(zmtp.greeting() + zmtp.ready(b"ROUTER"))
        await_change(client, Change.MADE)
        self.receive(CLIENTS_HANDSHAKE_BYTES)
        return sock

    def receive(self, count: int) -> bytes:
        assert self.sock is not None
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            assert part, f"the end after {len(data)} of {count} bytes"
            data += part
        return data

    def close(self) -> None:
        self.listener.close()
        if self.sock is not None:
            self.sock.close()


def await_change(client: PlainSocket, change: Change) -> str:
    reasons: list[str] = []

    def told() -> bool:
        client.wait(0.02)
        reasons.extend(event.reason for event in client.poll_events() if event.change is change)
        return bool(reasons)

    wait_until(told, what=change.name)
    return reasons[0]


@pytest.fixture
def peer() -> Iterator[Peer]:
    with contextlib.closing(Peer()) as peer:
        yield peer


@pytest.fixture
def client(peer: Peer) -> Iterator[PlainSocket]:
    with contextlib.closing(PlainOpener()(peer.url)) as client:
        yield client


# ---- parts of frames


def test_frames_leave_whole_and_in_order_through_a_peer_that_takes_little_at_a_time() -> None:
    """Seen red with what the connection did not take dropped."""
    with contextlib.closing(Peer(receive_bytes=2048)) as peer, contextlib.closing(PlainOpener()(peer.url)) as client:
        peer.shake_hands(client)
        sent = [bytes([number]) * size for number, size in enumerate((10, 3_000_000, 1, 255, 256, 500_000, 17_000))]
        for frame in sent:
            assert client.send(frame)
        expected = b"".join(zmtp.frame(frame) for frame in sent)
        received = bytearray()
        while len(received) < len(expected):
            assert peer.sock is not None
            peer.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                received += peer.sock.recv(4096)
            client.poll_events()
        assert bytes(received) == expected
        assert client.send(b"after")
        assert peer.receive(7) == zmtp.frame(b"after")


def test_what_a_peer_does_not_take_of_a_small_frame_follows_later() -> None:
    """Seen red with what the connection did not take dropped."""
    with contextlib.closing(Peer(receive_bytes=2048)) as peer, contextlib.closing(PlainOpener()(peer.url)) as client:
        sock = peer.shake_hands(client)
        sent = 0
        while not client._unsent:
            assert client.send(bytes([sent % 256]) * 1000)
            sent += 1
        assert list(client.descriptors.values()) == [3]
        sock.setblocking(True)
        for number in range(sent):
            while not select.select([sock], [], [], 0.01)[0]:
                client.poll_events()
            client.poll_events()
            assert peer.receive(1009) == zmtp.frame(bytes([number % 256]) * 1000)
        client.poll_events()
        assert list(client.descriptors.values()) == [1]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_frames_come_whole_from_a_peer_that_sends_little_at_a_time(peer: Peer, client: PlainSocket, size: int) -> None:
    sock = peer.shake_hands(client)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent = [bytes([number]) * size for number in range(3)]
    stream = b"".join(zmtp.frame(frame) for frame in sent)
    received: list[bytes] = []
    step = max(1, size // 7)
    for at in range(0, len(stream), step):
        sock.sendall(stream[at : at + step])
        received += frames(client)
    wait_until(lambda: received.extend(frames(client)) or len(received) == 3)  # type: ignore[func-returns-value]
    assert received == sent


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_peer_that_dies_within_a_frame_is_lost_and_the_next_begins_anew(
    peer: Peer, client: PlainSocket, size: int
) -> None:
    sock = peer.shake_hands(client)
    sock.sendall(zmtp.frame(b"whole") + zmtp.frame(bytes(size))[: size // 2])
    wait_until(lambda: client.receive() == b"whole")
    sock.close()
    assert "in the middle of a frame" in await_change(client, Change.LOST)
    assert not client.send(b"nobody")
    peer.shake_hands(client).sendall(zmtp.frame(b"new"))
    wait_until(lambda: client.receive() == b"new")


def test_a_connection_that_is_lost_is_noticed_before_a_send(peer: Peer, client: PlainSocket) -> None:
    """As far as the kernel knows it; what has come before is not lost. Seen red without the look."""
    sock = peer.shake_hands(client)
    sock.sendall(zmtp.frame(b"last"))
    sock.close()
    fd = list(client.descriptors)
    assert select.select(fd, [], [], 60)[0]
    assert not client.has_events
    wait_until(lambda: client.receive() == b"last")
    wait_until(lambda: client.has_events)
    assert not client.send(b"late")
    await_change(client, Change.LOST)


def test_a_loop_is_told_of_each_descriptor_before_it_is_closed(peer: Peer, client: PlainSocket) -> None:
    """Another file may have its number in the next moment. Seen red without."""
    closed: list[int] = []
    client.on_closing = noting(closed.append, lambda fd: os.fstat(fd) and None)
    for _ in range(3):
        peer.shake_hands(client).close()
        (fd,) = client.descriptors
        await_change(client, Change.LOST)
        assert closed[-1] == fd


def test_a_descriptor_says_nothing_while_frames_are_left_unread(peer: Peer, client: PlainSocket) -> None:
    """A watch may leave them for long, and a loop must not spin meanwhile. Seen red without."""
    peer.shake_hands(client).sendall(zmtp.frame(b"1") + zmtp.frame(b"2"))
    before = client.descriptors
    assert before
    wait_until(lambda: client.receive() == b"1")
    assert client.readable and not client.descriptors
    assert client.receive() == b"2"
    assert client.descriptors is before


# ---- bounds


def test_what_a_peer_does_not_take_is_bounded(peer: Peer, client: PlainSocket) -> None:
    """Seen red without the bound. A lone frame of any size is taken."""
    peer.shake_hands(client)
    taken = 0
    while client.send(bytes(100_000)):
        taken += 1
        assert client._unsent_bytes <= UNSENT_BYTES_MAX + 100_000
    assert taken and client.connected
    began_s = time.monotonic()
    assert not client.send(bytes(100_000))
    assert client.receive(0.0) is None
    assert time.monotonic() - began_s < 60


def test_pings_without_end_cost_no_memory_and_keep_nobody_waiting() -> None:
    """The peer reads none of the answers. Seen red with answers that pile up."""
    with contextlib.closing(Peer(receive_bytes=2048)) as peer, contextlib.closing(PlainOpener()(peer.url)) as client:
        sock = peer.shake_hands(client)
        assert client._sock is not None
        client._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        pings = zmtp.frame(b"\x04PING\x00\x0a" + bytes(16), command=True) * 1000
        sock.setblocking(False)
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                sock.send(pings)
            assert client.receive() is None
            assert client._unsent_bytes + len(client._zmtp.waiting) < 4096
        assert client._unsent


# ---- shaking hands


def opened_at(peer: Peer) -> tuple[PlainSocket, list[float]]:
    """Return a socket and its clock, which stands still."""
    now = [1000.0]
    return PlainSocket(peer.url, Resolver(), lambda: now[0], lambda: 1.0), now


def test_a_peer_that_does_not_shake_hands_is_told_and_then_given_up(peer: Peer) -> None:
    client, now = opened_at(peer)
    with contextlib.closing(client):
        sock = peer.accept()
        wait_until(lambda: not client.poll_events() and client._stage.name == "GREETING")
        assert client.due_s == now[0] + SILENT_S
        now[0] += SILENT_S
        assert client.has_events
        assert [event.change for event in client.poll_events()] == [Change.SILENT]
        now[0] += HANDSHAKE_S - SILENT_S - 0.001
        assert client.poll_events() == []
        now[0] += 0.002
        (event,) = client.poll_events()
        assert event.change is Change.REFUSED and "is that the port of the bridge?" in event.reason
        sock.settimeout(60)
        assert sock.recv(100).startswith(b"\xff") and sock.recv(100) == b""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (zmtp.greeting(b"CURVE"), "asks for CURVE: give this client curve_key"),
        (b'{"status": "exception"}\n', "does not speak ZeroMQ, but JSON, as the port of the bridge does"),
        (b"HTTP/1.0 400 what?\r\n\r\n", "does not speak ZeroMQ, but HTTP"),
        (zmtp.greeting() + zmtp.ready(b"PUB"), "is a socket of type"),
        (zmtp.greeting() + zmtp.frame(b"\x05ERROR\x05go on", command=True), "refuses the connection"),
    ],
)
def test_why_a_peer_is_not_spoken_to_is_said(peer: Peer, client: PlainSocket, said: bytes, reason: str) -> None:
    peer.accept().sendall(said)
    assert reason in await_change(client, Change.REFUSED)


def test_the_pause_grows_until_a_connection_lasts(peer: Peer) -> None:
    """One that ends at once does not count; after one that has lasted the next begins at once. Seen red without."""
    client, now = opened_at(peer)
    with contextlib.closing(client):
        pauses = []
        for _ in range(7):
            peer.shake_hands(client).close()
            await_change(client, Change.LOST)
            pauses.append(round(client.due_s - now[0], 3))
            now[0] = client.due_s
            client.poll_events()
        assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
        sock = peer.shake_hands(client)
        now[0] += 1.5
        sock.close()
        await_change(client, Change.LOST)
        assert client._dial is not None  # without a pause


# ---- addresses


def test_endpoints_are_taken_apart() -> None:
    assert parse_endpoint("tcp://[::1]:80") == ("::1", 80)
    assert parse_endpoint("tcp://a.example:5570") == ("a.example", 5570)
    assert parse_endpoint("ipc:///run/s") == Address(socket.AF_UNIX, "/run/s")
    assert parse_endpoint("ipc://@name") == Address(socket.AF_UNIX, "\0name")
    for wrong in ("inproc://a", "tcp://a", "tcp://a:99999", "tcp://:1", "tcp://1.2.3.4;a:1", "ipc://"):
        with pytest.raises(ValueError, match="cannot connect to"):
            parse_endpoint(wrong)


def test_addresses_of_both_families_take_turns() -> None:
    six = [Address(socket.AF_INET6, n) for n in range(3)]
    four = [Address(socket.AF_INET, n) for n in range(20)]
    mixed = interleave(six + four)
    assert mixed[:5] == [six[0], four[0], six[1], four[1], six[2]]
    assert len(mixed) == dial.ADDRESSES_MAX


def looked_up(*addresses: tuple[int, Any]) -> Resolver:
    """Return a resolver that knows one name."""
    return Resolver(lambda host, port: [(family, socket.SOCK_STREAM, 0, "", place) for family, place in addresses])


def dialled(one: Dial, now_s: float = 0.0) -> socket.socket:
    found: list[socket.socket] = []

    def connected() -> bool:
        sock = one.go_on(now_s)
        if sock is not None:
            found.append(sock)
        return bool(found)

    wait_until(connected)
    return found[0]


@pytest.fixture
def six() -> Iterator[socket.socket]:
    """What listens on ::1, and on whose port nobody listens on 127.0.0.1."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no ::1")
    with listener, hold_port(listener.getsockname()[1]):
        yield listener


@pytest.mark.parametrize("order", [1, -1])
def test_the_address_that_listens_is_found_whatever_its_family(six: socket.socket, order: int) -> None:
    port = six.getsockname()[1]
    both = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))][::order]
    with dialled(Dial(("a.example", port), looked_up(*both), 0.0)) as sock:
        assert sock.family == socket.AF_INET6
        assert sock.getblocking()


@pytest.fixture
def full() -> Iterator[Any]:
    """The address of a listener whose queue is full: who connects hears nothing."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_an_address_that_answers_nothing_costs_a_moment(peer: Peer, full: Any) -> None:
    """RFC 8305: the next address a moment later, whoever answers first is taken. Seen red with one after the other."""
    good = peer.listener.getsockname()
    closed: list[int] = []
    one = Dial(
        ("a.example", 1), looked_up((socket.AF_INET, full), (socket.AF_INET, good)), 100.0, lambda fd: closed.append(fd)
    )
    wait_until(lambda: one.go_on(100.0) is None and one._pending)
    (pending,) = one.descriptors
    assert one.go_on(100.0) is None
    assert one.due_s == pytest.approx(100.0 + dial.STAGGER_S)
    with dialled(one, 100.0 + dial.STAGGER_S) as sock:
        assert sock.getpeername() == good
    assert pending in closed
    assert not one.descriptors


def test_an_address_that_refuses_costs_no_moment(peer: Peer) -> None:
    good = peer.listener.getsockname()
    with hold_port() as held:
        one = Dial(("a.example", 1), looked_up((socket.AF_INET, held.getsockname()), (socket.AF_INET, good)), 0.0)
        with dialled(one) as sock:
            assert sock.getpeername() == good


def test_when_none_answers_the_time_is_bounded(full: Any) -> None:
    one = Dial(("a.example", 1), looked_up((socket.AF_INET, full)), 0.0)
    wait_until(lambda: one.go_on(0.0) is None and one._pending)
    with pytest.raises(TimeoutError):
        one.go_on(dial.CONNECT_S_MAX)
    assert not one.descriptors


def test_a_name_server_that_is_silent_holds_nobody_up_and_binds_few_threads() -> None:
    """Seen red with the lookup in the caller's thread, and without the bound."""
    answer = threading.Event()

    def never(host: str, port: int) -> Any:
        answer.wait(120)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    resolver = Resolver(never)
    try:
        began_s = time.monotonic()
        for _ in range(dial.LOOKUPS_MAX):
            one = Dial(("slow.example", 1), resolver, 0.0)
            assert one.go_on(0.0) is None
            assert list(one.descriptors.values()) == [1]
            with pytest.raises(TimeoutError):
                one.go_on(dial.CONNECT_S_MAX)
        with pytest.raises(OSError, match="lookups of names are under way"):
            Dial(("slow.example", 1), resolver, 0.0).go_on(0.0)
        assert time.monotonic() - began_s < 60
        found = resolver.look_up("127.0.0.1", 5)
        assert not isinstance(found, Lookup) and found[0].place == ("127.0.0.1", 5)
    finally:
        answer.set()


def test_a_name_that_is_not_known_is_said() -> None:
    def unknown(host: str, port: int) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with contextlib.closing(PlainSocket("tcp://nowhere.example:1", Resolver(unknown))) as client:
        assert await_change(client, Change.FAILED) == "nowhere.example: Name or service not known"


def test_a_socket_that_tcp_has_connected_with_itself_is_not_taken() -> None:
    """A port for outgoing connections that nobody listens on. Seen red: the client held its server's port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        place = sock.getsockname()
        sock.connect(place)
        one = Dial(Address(socket.AF_INET, place), Resolver(), 0.0)
        one._pending[sock.fileno()] = (sock, Address(socket.AF_INET, place))
        assert one._ended(sock.fileno(), 0) is None
        assert sock.fileno() == -1


# ---- interrupts and forks


class Interrupt(BaseException):
    """What a signal raises."""


def interrupted_at(line: int, work: Callable[[], Any]) -> bool:
    """Do some work and interrupt it before the given line of the socket's module, counted as executed; say whether."""
    left = line

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (plain_socket.__file__, dial.__file__):
            return None
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Interrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    except Interrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def test_an_interrupt_anywhere_leaves_whole_frames_or_another_connection(count: Callable[[str, int], None]) -> None:
    """Before each line of the module, while half a frame leaves and half a frame comes. Seen red without `_intact`."""
    frame, reply = bytes(range(256)) * 200, b"reply" * 100
    answer = zmtp.frame(reply)
    line = kept = 0
    with contextlib.closing(Peer(receive_bytes=2048)) as peer, contextlib.closing(PlainOpener()(peer.url)) as client:

        def work() -> None:
            client.send(frame)
            client.receive(1.0)
            client.poll_events()

        peer.shake_hands(client)
        while True:
            assert client._sock is not None and peer.sock is not None
            client._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            peer.sock.sendall(answer[:200])
            interrupted = interrupted_at(line, work)
            events = client.poll_events()
            if client.connected:
                kept += 1
                peer.sock.sendall(answer[200:] + zmtp.frame(b"marker"))
                assert received_until_marker(client) == [reply, b"marker"]
                sent = sent_until_probe(client, peer.sock)
                assert sent in (zmtp.frame(b"probe"), zmtp.frame(frame) + zmtp.frame(b"probe"))
            else:
                assert "interrupt" in events[0].reason
                peer.shake_hands(client)
            if not interrupted:
                break
            line += 1
    assert line > 50 and kept > 5
    count("lines before which a send or a receive was interrupted", line)


def test_an_interrupt_anywhere_while_it_connects_leaves_a_socket_that_connects(
    peer: Peer, count: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each line until the connection is told. Seen red with events that are forgotten before they are told."""
    ends: list[socket.socket] = []

    def shake_hands() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = peer.listener.accept()
                sock.sendall(zmtp.greeting() + zmtp.ready(b"ROUTER"))
                ends.append(sock)

    opened: list[str] = []
    here = threading.get_ident()

    class NotedSocket(socket.socket):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if threading.get_ident() == here:
                opened.append(os.readlink(f"/proc/self/fd/{self.fileno()}"))

    monkeypatch.setattr(socket, "socket", NotedSocket)
    shaking = threading.Thread(target=shake_hands, daemon=True)
    shaking.start()
    line = 0
    going_on = True
    while going_on:
        with contextlib.closing(PlainOpener()(peer.url)) as client:

            def connect(client: PlainSocket = client) -> None:
                while not client.connected:
                    client.poll_events()
                    client.wait(0.05)

            going_on = interrupted_at(line, connect)
            deadline_s = time.monotonic() + 60
            while not client.send(b"x"):
                assert time.monotonic() < deadline_s, f"interrupted before line {line} it never connects"
                client.wait(0.05)
                client.poll_events()
        line += 1
    peer.listener.shutdown(socket.SHUT_RDWR)
    shaking.join(PATIENCE_S)
    for end in ends:
        end.close()
    gc.collect()
    assert line > 100 and len(opened) >= line
    assert open_now().isdisjoint(opened)
    count("lines before which connecting was interrupted", line)


def open_now() -> set[str]:
    """Return what this process has open: each socket by a number of its own."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own, or another thread's
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def received_until_marker(client: PlainSocket) -> list[bytes]:
    received: list[bytes] = []
    wait_until(lambda: received.extend(frames(client)) or received[-1:] == [b"marker"] or not client._sock)  # type: ignore[func-returns-value]
    return received


def sent_until_probe(client: PlainSocket, sock: socket.socket) -> bytes:
    assert client.send(b"probe")
    sent = bytearray()
    deadline_s = time.monotonic() + 60
    while not sent.endswith(zmtp.frame(b"probe")):
        assert time.monotonic() < deadline_s
        client.poll_events()
        if select.select([sock], [], [], 0.001)[0]:
            sent += sock.recv(65536)
    return bytes(sent)


def test_a_forked_child_lets_go_and_the_parent_goes_on(peer: Peer, client: PlainSocket) -> None:
    """The connection also ends when the parent ends it, whatever the child still holds."""
    sock = peer.shake_hands(client)
    read, write = os.pipe()

    def fork(work: Callable[[], None]) -> int:
        child = os.fork()
        if child == 0:
            os.close(write)
            work()
            os.read(read, 1)  # until the parent has finished, or failed
            os._exit(0)
        return child

    children = [fork(client.forget), fork(lambda: None)]
    try:
        assert client.send(b"on")
        assert peer.receive(4) == zmtp.frame(b"on")
        client.close()
        assert sock.recv(10) == b""
    finally:
        os.close(write)
        for child in children:
            os.waitpid(child, 0)
        os.close(read)


# ---- which transport


def test_the_url_chooses_unless_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KVZMQ_TRANSPORT", raising=False)
    assert [transport_of(url) for url in ("tcp://a:1", "ipc:///a", "inproc://a", "tcp://1.2.3.4:0;a:1")] == [
        "plain", "plain", "pyzmq", "pyzmq",
    ]  # fmt: skip
    assert check_transport(None, None, [Target("tcp://a:1")]) is None
    assert check_transport(None, object(), [Target("tcp://a:1")]) == "pyzmq"
    assert check_transport("pyzmq", None, [Target("tcp://a:1")]) == "pyzmq"
    for transport, context, url in (("plain", None, "inproc://a"), ("plain", object(), "tcp://a:1"), ("udp", None, "")):
        with pytest.raises(ValueError, match="transport"):
            check_transport(transport, context, [Target(url)])
    monkeypatch.setenv("KVZMQ_TRANSPORT", "pyzmq")
    assert check_transport(None, None, [Target("tcp://a:1")]) == "pyzmq"
    assert check_transport("plain", None, [Target("tcp://a:1")]) == "plain"
    monkeypatch.setenv("KVZMQ_TRANSPORT", "udp")
    with pytest.raises(ValueError, match="from KVZMQ_TRANSPORT"):
        check_transport(None, None, [Target("tcp://a:1")])


def test_a_client_over_a_plain_socket_loads_no_zmq() -> None:
    program = (
        "import kvzmq, sys, asyncio, errno\n"
        "for connect in (kvzmq.connect, kvzmq.connect_async):\n"
        "    table = connect('tcp://127.0.0.1:1', timeout=0.05)\n"
        "    try:\n"
        "        found = table.lookup('k')\n"
        "        asyncio.run(found)\n"
        "    except kvzmq.Timeout as error:\n"
        "        print(error)\n"
        "print('zmq' in sys.modules)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True
    ).stdout
    assert said.splitlines()[-1] == "False"
    assert os.strerror(errno.ECONNREFUSED).lower() in said
