"""The bridge: newline-delimited JSON over plain TCP, one reply line for each request line.

All connections hang on one epoll object, whose own descriptor the Poller watches: a Poller with a
thousand descriptors would look at each of them in every step.

No peer can hold up the others or make the server grow. A connection takes its turn with at most
LINES_MAX lines a step; a line may be as long as a message; who does not read its replies is not
read from until it does, and is dropped when nothing has moved for STALLED_S.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import time
from collections.abc import Callable, Hashable
from typing import cast

import zmq

from kvzmq import codec, errors
from kvzmq.messages import MESSAGE_BYTES_MAX, Refusal, Reply
from kvzmq.transport import STEP_BYTES_MAX, Arrival

CONNECTIONS_MAX = 4096
"""How many clients may be connected; the next ones wait in the backlog."""

LINES_MAX = 64
"""How many requests of one connection a step takes in."""

LINE_BYTES_MAX = MESSAGE_BYTES_MAX
"""The longest line; a longer one is refused and skipped up to its end."""

UNREAD_BYTES_MAX = 1 << 20
"""Unread replies of one connection beyond which none of its requests is taken in."""

QUEUED_BYTES_MAX = 32 << 20
"""Unread replies of one connection, to requests already taken in, beyond which it is dropped."""

STALLED_S = 60.0
"""How long a connection may leave replies unread before it is dropped."""

_RECEIVE_BYTES = 256 << 10
_ACCEPTS_MAX = 64
_PAUSE_S = 0.2
"""How long no connection is accepted when descriptors have run out."""

_log = logging.getLogger(__name__)


class _Connection:
    __slots__ = ("address", "closed", "ended", "events", "moved_s", "queued", "queued_bytes", "received", "searched", "skipping", "socket")

    def __init__(self, sock: socket.socket, address: str, now_s: float) -> None:
        self.socket = sock
        self.address = address
        self.received = bytearray()
        self.searched = 0  # no newline before this offset of `received`
        self.skipping = False  # inside a line that was too long
        self.ended = False  # the peer sends no more
        self.queued: list[bytes] = []
        self.queued_bytes = 0
        self.moved_s = now_s
        self.events = 0
        self.closed = False


class TcpTransport:
    """The bridge's listening socket and its connections.

    Args:
        host, port: where to listen; port 0 takes a free one
        clock: seconds that only grow

    Raises:
        CannotListen: the port is in use or the host is not of this machine
    """

    def __init__(self, host: str, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listener = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        self.endpoints = [f"port {self.port}"]
        self._selector = selectors.EpollSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._accepting = True
        self._accept_again_s = 0.0
        self._connections: dict[int, _Connection] = {}
        self._ready: dict[int, _Connection] = {}  # whole lines are waiting in `received`
        self._dirty: dict[int, _Connection] = {}  # replies were queued in this step
        self._swept_s = clock()
        self._counts = {"accepted": 0, "dropped_stalled": 0, "dropped_stuffed": 0, "accept_failures": 0}

    def register(self, poller: zmq.Poller) -> None:
        poller.register(self._selector.fileno(), zmq.POLLIN)

    # ---- in

    def drain(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        taken_bytes = 0
        turn, self._ready = self._ready, {}
        for key, events in self._selector.select(0):
            connection = cast("_Connection | None", key.data)
            if connection is None:
                self._accept()
                continue
            if events & selectors.EVENT_WRITE:
                self._write(connection)
            if events & selectors.EVENT_READ and not connection.closed and taken_bytes < STEP_BYTES_MAX:
                taken_bytes += self._receive(connection)
                turn[key.fd] = connection
        for fd, connection in turn.items():
            if not connection.closed:
                self._take_lines(fd, connection, arrivals)
        self._sweep()
        return arrivals

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_MAX):
            if len(self._connections) >= CONNECTIONS_MAX:
                return self._pause_accepting()
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._counts["accept_failures"] += 1
                    _log.warning("cannot accept: %s; raise the limit of open files (ulimit -n)", error.strerror)
                    return self._pause_accepting()
                continue  # the peer has gone before it was accepted
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(sock, f"{address[0]}:{address[1]}", self._clock())
            self._connections[sock.fileno()] = connection
            self._counts["accepted"] += 1
            self._watch(connection)
        return None

    def _pause_accepting(self) -> None:
        self._accepting = False
        self._accept_again_s = self._clock() + _PAUSE_S
        self._selector.unregister(self._listener)

    def _receive(self, connection: _Connection) -> int:
        try:
            data = connection.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            self._close(connection)
            return 0
        if data:
            connection.received += data
        else:
            connection.ended = True
        return len(data)

    def _take_lines(self, fd: int, connection: _Connection, arrivals: list[Arrival]) -> None:
        received = connection.received
        begin = 0
        for _ in range(LINES_MAX):
            end = received.find(b"\n", max(begin, connection.searched))
            if end < 0:
                connection.searched = len(received)
                break
            if not connection.skipping:
                line = bytes(memoryview(received)[begin:end])
                arrivals.append(Arrival(self, fd, codec.decode_line(line)))
            connection.skipping = False
            begin = end + 1
            connection.searched = begin
        else:
            self._ready[fd] = connection
        if begin:
            del received[:begin]
            connection.searched -= begin
        if fd not in self._ready:
            self._check_rest(fd, connection, arrivals)
        self._watch(connection)

    def _check_rest(self, fd: int, connection: _Connection, arrivals: list[Arrival]) -> None:
        """Look at what is left of a line that has not ended."""
        if len(connection.received) > LINE_BYTES_MAX or (connection.skipping and connection.received):
            if not connection.skipping:
                connection.skipping = True
                refusal = Refusal(None, errors.InvalidRequest.code, f"a line is at most {LINE_BYTES_MAX} bytes long")
                arrivals.append(Arrival(self, fd, refusal))
            connection.received.clear()
            connection.searched = 0
        if connection.ended:
            connection.received.clear()  # half a request is no request
            connection.searched = 0
            self._dirty[fd] = connection  # closed by flush, after its last replies

    def pending(self) -> bool:
        return bool(self._ready)

    # ---- out

    def send(self, peer: Hashable, reply: Reply) -> None:
        connection = self._connections.get(cast(int, peer))
        if connection is None or connection.closed:
            return
        line = codec.encode_line(reply)
        connection.queued.append(line)
        connection.queued_bytes += len(line)
        self._dirty[cast(int, peer)] = connection
        if connection.queued_bytes > UNREAD_BYTES_MAX:
            self._write(connection)
            if connection.queued_bytes > QUEUED_BYTES_MAX:
                self._counts["dropped_stuffed"] += 1
                self._close(connection)

    def push(self, peer: Hashable, event: bytes) -> bool:
        raise errors.PeerGone("a line of the bridge cannot push")

    def flush(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for connection in dirty.values():
            if not connection.closed:
                self._write(connection)

    def _write(self, connection: _Connection) -> None:
        while connection.queued:
            data = connection.queued[0] if len(connection.queued) == 1 else b"".join(connection.queued)
            try:
                sent = connection.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return self._close(connection)
            if sent:
                connection.moved_s = self._clock()
            connection.queued_bytes -= sent
            connection.queued = [data[sent:]] if sent < len(data) else []
            if sent < len(data):
                break
        if connection.ended and not connection.queued and not self._has_line(connection):
            return self._close(connection)
        return self._watch(connection)

    def _has_line(self, connection: _Connection) -> bool:
        return connection.received.find(b"\n", connection.searched) >= 0

    # ---- housekeeping

    def _watch(self, connection: _Connection) -> None:
        """Have epoll report what the connection waits for: nothing else, or the loop would spin."""
        events = 0
        fd = connection.socket.fileno()
        if connection.queued:
            events |= selectors.EVENT_WRITE
        stuffed = connection.queued_bytes > UNREAD_BYTES_MAX
        if not connection.ended and not stuffed and fd not in self._ready:
            events |= selectors.EVENT_READ
        if stuffed:
            self._ready.pop(fd, None)
        elif fd not in self._ready and self._has_line(connection):
            self._ready[fd] = connection
        if events == connection.events:
            return
        if not events:
            self._selector.unregister(connection.socket)
        elif connection.events:
            self._selector.modify(connection.socket, events, connection)
        else:
            self._selector.register(connection.socket, events, connection)
        connection.events = events

    def _sweep(self) -> None:
        now_s = self._clock()
        if not self._accepting and now_s >= self._accept_again_s and len(self._connections) < CONNECTIONS_MAX:
            self._accepting = True
            self._selector.register(self._listener, selectors.EVENT_READ)
        if now_s - self._swept_s < 1.0:
            return
        self._swept_s = now_s
        for connection in list(self._connections.values()):
            if connection.queued and now_s - connection.moved_s > STALLED_S:
                self._counts["dropped_stalled"] += 1
                self._close(connection)

    def _close(self, connection: _Connection) -> None:
        if connection.closed:
            return
        fd = connection.socket.fileno()
        if connection.events:
            self._selector.unregister(connection.socket)
        for registry in (self._connections, self._ready, self._dirty):
            registry.pop(fd, None)
        connection.closed = True
        connection.socket.close()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def name(self, peer: Hashable) -> str:
        connection = self._connections.get(cast(int, peer))
        return f"tcp:{connection.address}" if connection is not None else f"tcp:gone-{peer}"

    def stats(self) -> dict[str, int]:
        counts = {f"tcp_{name}": count for name, count in self._counts.items()}
        return counts | {"tcp_connections": len(self._connections)}

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection)
        self._selector.close()
        self._listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1024)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        advice = (
            "it is in use; stop the other server or choose another --tcp (port 0 takes a free one)"
            if error.errno == errno.EADDRINUSE
            else error.strerror
        )
        raise errors.CannotListen(f"cannot listen on {host}:{port}: {advice}") from error
    return listener
