"""What every implementation of the client's socket does, against a bare ROUTER; see kvzmq.client.core.socket."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket as plain
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from support import zmtp
from support.servers import wait_until

from kvzmq.client.core.plain_socket import PlainOpener
from kvzmq.client.core.pyzmq_socket import PyzmqOpener
from kvzmq.client.core.socket import WAIT_S_MAX, Change, ConnectionEvent, Socket, frames

OpenSocket = Callable[[str], Socket]

OPENERS: dict[str, Callable[[], OpenSocket]] = {"plain": PlainOpener, "pyzmq": PyzmqOpener}
SLACK_S = 60.0


@pytest.fixture(params=sorted(OPENERS))
def open_socket(request: pytest.FixtureRequest) -> Iterator[OpenSocket]:
    with contextlib.ExitStack() as stack:
        opener = OPENERS[request.param]()
        yield lambda endpoint: stack.enter_context(contextlib.closing(opener(endpoint)))


class Router:
    """A ROUTER that can go away and come back under the same URL."""

    def __init__(self, url: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.url = url
        self.open()

    def open(self) -> None:
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(SLACK_S * 1000))
        self.socket.bind(self.url)
        self.url = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def receive(self) -> tuple[bytes, bytes]:
        peer, frame = self.socket.recv_multipart()
        return peer, frame

    def echo(self) -> bytes:
        peer, frame = self.receive()
        self.socket.send_multipart([peer, frame])
        return frame

    def shut(self) -> None:
        self.socket.close(linger=0)

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture(params=["tcp", "ipc"])
def router(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Router]:
    url = "tcp://127.0.0.1:*" if request.param == "tcp" else f"ipc://{tmp_path}/s"
    with contextlib.closing(Router(url)) as router:
        yield router


def waited(socket: Socket) -> bool:
    """Give the socket a moment, between two looks."""
    socket.wait(0.05)
    return False


def changes(socket: Socket) -> list[Change]:
    return [event.change for event in socket.poll_events()]


def await_change(socket: Socket, change: Change) -> None:
    wait_until(lambda: waited(socket) or change in changes(socket), what=change.name)


def await_frame(socket: Socket) -> bytes:
    deadline_s = time.monotonic() + SLACK_S
    while time.monotonic() < deadline_s:
        if (frame := socket.receive(1.0)) is not None:
            return frame
    raise AssertionError("no frame came")


def test_it_is_connected_once_poll_events_has_said_so_and_sends_only_then(
    open_socket: OpenSocket, router: Router
) -> None:
    socket = open_socket(router.url)
    wait_until(lambda: waited(socket) or socket.has_events)
    assert not socket.connected
    await_change(socket, Change.MADE)
    assert socket.connected
    assert socket.send(b"a frame")
    assert router.receive()[1] == b"a frame"


def test_nothing_is_taken_for_a_connection_that_is_not_there(open_socket: OpenSocket, router: Router) -> None:
    router.shut()
    socket = open_socket(router.url)
    await_change(socket, Change.FAILED)
    assert not socket.send(b"early")
    router.open()
    await_change(socket, Change.MADE)
    assert socket.send(b"late")
    assert router.receive()[1] == b"late"


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 1 << 20])
def test_frames_of_any_size_go_both_ways_in_order(open_socket: OpenSocket, router: Router, size: int) -> None:
    socket = open_socket(router.url)
    await_change(socket, Change.MADE)
    sent = [bytes([number]) * size for number in range(5)]
    for frame in sent:
        assert socket.send(frame)
    received: list[bytes] = []

    def echo() -> None:
        for _ in sent:
            router.echo()

    thread = threading.Thread(target=echo)
    thread.start()
    while len(received) < len(sent):
        received.append(await_frame(socket))
    thread.join(SLACK_S)
    assert received == sent


def test_receive_waits_no_longer_than_it_may(open_socket: OpenSocket, router: Router) -> None:
    socket = open_socket(router.url)
    await_change(socket, Change.MADE)
    for timeout_s in (0.0, 0.01, 1000.0):
        began_s = time.monotonic()
        assert socket.receive(timeout_s) is None
        took_s = time.monotonic() - began_s
        assert min(timeout_s, WAIT_S_MAX) * 0.9 <= took_s < WAIT_S_MAX + SLACK_S


def test_what_is_there_is_read_without_waiting(open_socket: OpenSocket, router: Router) -> None:
    socket = open_socket(router.url)
    await_change(socket, Change.MADE)
    for number in range(100):
        socket.send(b"%d" % number)
        router.echo()
    received: list[bytes] = []
    wait_until(lambda: received.extend(frames(socket)) or len(received) == 100)  # type: ignore[func-returns-value]
    assert received == [b"%d" % number for number in range(100)]
    assert not socket.readable


def test_a_lost_connection_is_told_and_made_anew_and_nothing_is_sent_twice(
    open_socket: OpenSocket, router: Router
) -> None:
    socket = open_socket(router.url)
    await_change(socket, Change.MADE)
    socket.send(b"once")
    assert router.receive()[1] == b"once"
    router.shut()
    wait_until(lambda: Change.LOST in changes(socket), what="the loss")
    assert not socket.connected
    router.open()
    await_change(socket, Change.MADE)
    assert socket.send(b"again")
    assert router.receive()[1] == b"again"


def test_who_does_not_speak_zeromq_is_told_from_who_is_not_there(open_socket: OpenSocket) -> None:
    """An HTTP server here; seen red with the failed handshake told as a failed try."""
    with plain.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SLACK_S)
        socket = open_socket(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        peer, _ = listener.accept()
        peer.sendall(b"HTTP/1.0 400 what?\r\n\r\n")
        peer.close()
        events: list[ConnectionEvent] = []
        wait_until(lambda: waited(socket) or events.extend(socket.poll_events()) or events)  # type: ignore[func-returns-value]
        assert events[0].change is Change.REFUSED
        assert "does not speak ZeroMQ" in events[0].reason
        assert not socket.connected


def test_who_never_reads_is_not_waited_for(open_socket: OpenSocket) -> None:
    """What a connection does not take is refused, after a bounded amount."""
    with plain.create_server(("127.0.0.1", 0)) as listener:
        socket = open_socket(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        peer, _ = listener.accept()
        with peer:
            peer.sendall(zmtp.greeting() + zmtp.ready(b"ROUTER"))
            await_change(socket, Change.MADE)
            taken = 0
            while socket.send(bytes(10_000)):
                taken += 1
                assert taken < 100_000
            assert taken > 0
            assert socket.connected


def test_its_descriptors_tell_of_frames_and_events(open_socket: OpenSocket, router: Router) -> None:
    """As an event loop uses them: whatever is ready is looked at until there is nothing left."""
    socket = open_socket(router.url)
    seen: list[Change] = []
    received: list[bytes] = []

    def until(reached: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + SLACK_S
        while True:
            while socket.readable or socket.has_events:
                seen.extend(changes(socket))
                received.extend(frames(socket))
            if reached():
                return
            assert time.monotonic() < deadline_s
            reads = [fd for fd, events in socket.descriptors.items() if events & selectors.EVENT_READ]
            writes = [fd for fd, events in socket.descriptors.items() if events & selectors.EVENT_WRITE]
            ready = select.select(reads, writes, [], SLACK_S)
            assert any(ready), "the descriptors said nothing"
            seen.extend(changes(socket))
            received.extend(frames(socket))

    until(lambda: Change.MADE in seen)
    for number in range(20):
        socket.send(b"%d" % number)
        router.echo()
        until(lambda number=number: len(received) == number + 1)  # type: ignore[misc]
    router.shut()
    until(lambda: Change.LOST in seen)


def test_without_a_connection_a_wait_ends_with_an_event(open_socket: OpenSocket, router: Router) -> None:
    router.shut()
    socket = open_socket(router.url)
    await_change(socket, Change.FAILED)
    router.open()
    began_s = time.monotonic()
    while Change.MADE not in changes(socket):
        socket.wait(4 * SLACK_S)
    assert time.monotonic() - began_s < 2 * SLACK_S


def test_an_endpoint_that_is_none_is_refused(open_socket: OpenSocket) -> None:
    with pytest.raises(ValueError, match=r"cannot connect to 'ipc://a{300}"):
        open_socket("ipc://" + "a" * 300)


def test_closing_twice_is_closing_once(open_socket: OpenSocket, router: Router) -> None:
    socket = open_socket(router.url)
    await_change(socket, Change.MADE)
    socket.close()
    socket.close()
    assert not socket.connected
