"""A catalog's sockets: one thread, no call blocks, every connection has a deadline.

    UDP PORT      updates
    TCP PORT      HTTP, one request a connection
    TCP PORT + 1  updates, one a connection

When a limit is reached the oldest connection is dropped: an ordinary request takes milliseconds, so the oldest
connection is a slow one, and a slow client cannot keep the others out.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from kvzmq.catalog.addresses import DEFAULT_HOST, DEFAULT_PORT, resolve
from kvzmq.catalog.pages import Pages
from kvzmq.catalog.table import LIFETIME_S, UPDATE_BYTES_MAX, Catalog
from kvzmq.errors import CatalogError

CONNECTIONS_MAX = 128
CONNECTION_S_MAX = 15.0
"""How long a connection may take from accept to close. The original's limit."""

OUTPUT_BYTES_MAX = 64 * 1024 * 1024
"""How many unsent bytes all connections may have together."""

# Bounds a step to 0.1 s even when the catalog is full and every update costs a search for the address with most:
# 1.2 ms.
_DATAGRAMS_A_STEP_MAX = 64
_ACCEPTS_A_STEP_MAX = 32
_RECEIVE_BYTES = 64 * 1024
_SEND_BYTES = 256 * 1024
_BACKLOG = 128
_BIND_ATTEMPTS_MAX = 64
_EXPIRE_EVERY_S = 1.0
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger(__name__)


class _Connection:
    __slots__ = ("address", "deadline_s", "received", "sock", "unsent")

    def __init__(self, sock: socket.socket, address: str, deadline_s: float) -> None:
        self.sock = sock
        self.address = address
        self.deadline_s = deadline_s
        self.received = bytearray()
        self.unsent = memoryview(b"")


class CatalogServer:
    """A catalog served on one port number, UDP and TCP."""

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        *,
        lifetime_s: float = LIFETIME_S,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen on an address of this machine. Port 0 takes a free port; `clock` gives epoch seconds.

        Raises:
            CatalogError: the address cannot be listened on.
        """
        self._monotonic = monotonic
        self._expire_at_s = monotonic()
        # Oldest first. All have the same time, so the first one's deadline is the next one.
        self._connections: dict[_Connection, None] = {}
        try:
            udp, queries, updates = _listen(host, port)
        except (OSError, OverflowError) as error:
            raise CatalogError(f"cannot listen on {host}, UDP and TCP port {port}: {error}") from error
        self._selector = selectors.DefaultSelector()
        self._listeners = [sock for sock in (udp, queries, updates) if sock is not None]
        self.port: int = udp.getsockname()[1]
        self.catalog = Catalog(lifetime_s, clock, monotonic)
        self._pages = Pages(self.catalog, self.address)
        self._watch(udp, partial(self._receive_datagrams, udp))
        self._watch(queries, partial(self._accept, queries, self._read_request))
        if updates is None:
            _log.warning("TCP port %d is taken: updates come in by UDP only", self.port + 1)
        else:
            self._watch(updates, partial(self._accept, updates, self._read_update))

    @property
    def address(self) -> str:
        """Return HOST:PORT as others can use it."""
        host = self._listeners[0].getsockname()[0]
        name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        return f"{name}:{self.port}"

    def close(self) -> None:
        """Close all sockets."""
        for connection in list(self._connections):
            self._drop(connection)
        for sock in self._listeners:
            sock.close()
        self._selector.close()

    def run(self) -> None:
        """Serve until an exception, such as KeyboardInterrupt, ends it."""
        while True:
            self.step(1.0)

    def step(self, timeout_s: float) -> None:
        """Wait for events, `timeout_s` seconds at most, and handle them."""
        for key, _ in self._selector.select(self._wait_s(timeout_s)):
            key.data()
        now_s = self._monotonic()
        if now_s >= self._expire_at_s:
            self.catalog.expire()
            self._expire_at_s = now_s + _EXPIRE_EVERY_S
        while self._connections and self._oldest().deadline_s <= now_s:
            self._drop(self._oldest())

    def _wait_s(self, timeout_s: float) -> float:
        if not self._connections:
            return timeout_s
        return max(0.0, min(timeout_s, self._oldest().deadline_s - self._monotonic()))

    def _oldest(self) -> _Connection:
        return next(iter(self._connections))

    # Updates by UDP

    def _receive_datagrams(self, udp: socket.socket) -> None:
        for _ in range(_DATAGRAMS_A_STEP_MAX):
            try:
                data, peer = udp.recvfrom(_RECEIVE_BYTES)
            except OSError:  # nothing more, or an error that belongs to no datagram
                return
            self.catalog.update(_address_of(peer), data)

    # Connections

    def _accept(self, listener: socket.socket, read: Callable[[_Connection], None]) -> None:
        for _ in range(_ACCEPTS_A_STEP_MAX):
            try:
                sock, peer = listener.accept()
            except OSError as error:
                if error.errno in _NO_ROOM and self._connections:
                    self._drop(self._oldest())
                return
            if len(self._connections) >= CONNECTIONS_MAX:
                self._drop(self._oldest())
            sock.setblocking(False)
            connection = _Connection(sock, _address_of(peer), self._monotonic() + CONNECTION_S_MAX)
            self._connections[connection] = None
            self._watch_connection(connection, read)

    def _read_update(self, connection: _Connection) -> None:
        chunk = self._receive(connection)
        if chunk is None:
            return
        connection.received += chunk
        if len(connection.received) > UPDATE_BYTES_MAX:
            self._drop(connection)
        elif not chunk:
            self.catalog.update(connection.address, bytes(connection.received))
            self._drop(connection)

    def _read_request(self, connection: _Connection) -> None:
        chunk = self._receive(connection)
        if chunk is None:
            return
        connection.received += chunk
        answer = self._pages.answer(bytes(connection.received))
        if answer is not None:
            self._make_room(connection, len(answer))
            connection.unsent = memoryview(answer)
            self._watch_connection(connection, self._write, selectors.EVENT_WRITE)
        elif not chunk:
            self._drop(connection)

    def _write(self, connection: _Connection) -> None:
        try:
            sent = connection.sock.send(connection.unsent[:_SEND_BYTES])
            connection.unsent = connection.unsent[sent:]
            if not connection.unsent:
                # Closing a socket with unread input resets the connection, and the peer may lose the answer: end
                # the output, and wait until the peer closes.
                connection.sock.shutdown(socket.SHUT_WR)
                self._watch_connection(connection, self._linger)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(connection)

    def _linger(self, connection: _Connection) -> None:
        if self._receive(connection) == b"":
            self._drop(connection)

    def _receive(self, connection: _Connection) -> bytes | None:
        """Return the bytes received, b"" at the end of the stream, None if there are none now."""
        try:
            return connection.sock.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            self._drop(connection)
            return None

    def _make_room(self, asking: _Connection, answer_bytes: int) -> None:
        waiting = [each for each in self._connections if each.unsent and each is not asking]
        unsent_bytes = answer_bytes + sum(len(each.unsent) for each in waiting)
        for connection in waiting:
            if unsent_bytes <= OUTPUT_BYTES_MAX:
                return
            unsent_bytes -= len(connection.unsent)
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection]
        self._selector.unregister(connection.sock)
        connection.sock.close()

    def _watch_connection(
        self,
        connection: _Connection,
        handle: Callable[[_Connection], None],
        events: int = selectors.EVENT_READ,
    ) -> None:
        def handle_if_open() -> None:
            # It may have been dropped since the selector reported it, to make room for another.
            if connection in self._connections:
                handle(connection)

        self._watch(connection.sock, handle_if_open, events)

    def _watch(self, sock: socket.socket, act: Callable[[], None], events: int = selectors.EVENT_READ) -> None:
        known = sock in self._selector.get_map()
        (self._selector.modify if known else self._selector.register)(sock, events, act)


def _listen(host: str, port: int) -> tuple[socket.socket, socket.socket, socket.socket | None]:
    """Return listening sockets: UDP, TCP, and TCP on the next port, if that is free."""
    family, address = resolve(host, port, socket.SOCK_STREAM)[0]
    if port != 0:
        return _bind(family, address)
    for _ in range(_BIND_ATTEMPTS_MAX):
        try:
            udp, queries, updates = _bind(family, address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        if updates is not None:
            return udp, queries, updates
        udp.close()
        queries.close()
    raise OSError(errno.EADDRINUSE, "no port is free for UDP and TCP, with the next one for TCP")


def _bind(family: int, address: Any) -> tuple[socket.socket, socket.socket, socket.socket | None]:
    queries = socket.create_server(address, family=family, backlog=_BACKLOG)
    queries.setblocking(False)
    port = queries.getsockname()[1]
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:  # as create_server does
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        udp.bind((address[0], port, *address[2:]))
    except OSError:
        udp.close()
        queries.close()
        raise
    udp.setblocking(False)
    try:
        updates = socket.create_server((address[0], port + 1, *address[2:]), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError):
        return udp, queries, None
    updates.setblocking(False)
    return udp, queries, updates


def _address_of(peer: Any) -> str:
    """Return the address of a peer without the scope that IPv6 may add."""
    address: str = peer[0]
    return address.partition("%")[0]
