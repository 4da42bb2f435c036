"""The bridge: newline-delimited JSON over plain TCP, one reply line for each request line.

All connections hang on one epoll object, whose own descriptor the Poller watches: a Poller with a
thousand descriptors would look at each of them in every step.

No peer can hold up the others or make the server grow. A step's REQUESTS_MAX lines are shared out
among the connections that have some; a line may be as long as the longest request can get in JSON;
a peer that does not read its replies is not read from until it does, and is dropped when nothing has moved
for STALLED_S or when the bridge as a whole holds too much; large replies are encoded when their turn has
come, so many bytes a step. At CONNECTIONS_MAX, the connection that has asked for nothing for the longest
time is dropped for a new one.

A browser can be made to send any text to any port, as the body of an HTTP request. So a connection
whose first line begins as HTTP does ends there, and nothing that follows is executed. No JSON value
begins with the name of an HTTP method.

What a connection waits for is its state (`tcp_connection.py`); epoll reports only what ends that.
"""

from __future__ import annotations

import fcntl
import resource
import selectors
import socket
import termios
import time
from collections.abc import Callable, Hashable
from typing import Any, cast

import zmq

from kvzmq import errors
from kvzmq.protocol.limits import REQUEST_BYTES_MAX, request_line_bytes_max
from kvzmq.protocol.messages import Reply
from kvzmq.server.transport import STEP_BYTES_MAX, STEP_REPLY_BYTES_MAX, Arrival
from kvzmq.server.transport.tcp_connection import CLOSED, CLOSING, DRAINING, READING, READY, Connection, StepInput
from kvzmq.server.transport.tcp_listener import Listener

CONNECTIONS_MAX = 4096
"""How many clients may be connected; the next one replaces the one that has asked for nothing the longest.

Fewer where three quarters of the process's descriptors are fewer: whoever is idle here leaves room for clients of
the ROUTER.
"""

REQUESTS_MAX = 1024
"""How many requests one step takes in, shared out among the connections; each has one at least."""

QUEUED_BYTES_MAX = 32 << 20
"""Unread replies of one connection beyond which a further one, to a request already taken in, drops it."""

HELD_BYTES_MAX = 256 << 20
"""What all connections together may have sent or left unread; beyond it the largest is dropped."""

STALLED_S = 10.0
"""How long a connection may leave replies unread before it is dropped."""

DRAINED_BYTES_MAX = 4 << 20
DRAIN_S = 2.0
"""How much of what a refused peer still sends is thrown away, and for how long, before its connection is closed."""

_RECEIVE_BYTES = 256 << 10
_UNCOUNTED_BYTES_MAX = 32 << 20
"""How much comes in and is queued before what is held is counted again."""


class TcpTransport:
    """The bridge's listening socket and its connections.

    Args:
        host, port: where to listen; port 0 takes a free one
        clock: seconds that only grow
        request_bytes_max: the longest request, in MessagePack; a longer one is refused
        token: what the first line of a connection has to be, or None if it may begin with a request

    Raises:
        CannotListen: the port is in use or the host is not of this machine
    """

    kind = "bridge"

    def __init__(
        self,
        host: str,
        port: int,
        clock: Callable[[], float] = time.monotonic,
        request_bytes_max: int = REQUEST_BYTES_MAX,
        token: bytes | None = None,
    ) -> None:
        self._clock = clock
        self._token = token
        self._request_bytes_max = request_bytes_max
        self.line_bytes_max = request_line_bytes_max(request_bytes_max)
        """The longest line; a longer one is refused and skipped up to its end."""
        self._selector = selectors.EpollSelector()
        self._listener = Listener(host, port, self._selector, clock())
        self.port = self._listener.port
        self.endpoints = [f"port {self.port}"]
        self.drained_s = 0.0
        self._share = _descriptors_share()
        self._last_number = 0
        self._connections: dict[int, Connection] = {}
        self._ready: dict[int, Connection] = {}  # those whose turn it is in the next step
        self._unflushed: dict[int, Connection] = {}  # those with something for flush to do
        self._unencoded: dict[int, Connection] = {}  # those whose next reply waits for its turn to be encoded
        self._by_request: dict[int, Connection] = {}  # all, the one that has asked for nothing the longest first
        self._encode_bytes = STEP_REPLY_BYTES_MAX  # of large replies that this step may still encode
        self._has_unread = False  # whether the last step left some connections unread
        self._reads = 0
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))  # malloc may give a new one back to the system each time
        self._uncounted_bytes = 0
        self._now_s = self._swept_s = clock()  # as of the latest drain or sweep: one look at the clock for each
        self._counts = {
            "connections_accepted": 0,
            "connections_dropped_stalled": 0,
            "connections_dropped_backpressure": 0,
            "connections_dropped_memory": 0,
            "connections_dropped_idle": 0,
            "connections_dropped_http": 0,
            "connections_kicked": 0,
        }

    def register(self, poller: zmq.Poller) -> object:
        poller.register(self._selector.fileno(), zmq.POLLIN)
        return self._selector.fileno()

    # ---- in

    def drain(self) -> list[Arrival]:
        self._now_s = self._clock()
        self._read_and_write()
        arrivals = self._take_turns()
        self._bound_memory()
        if arrivals:
            self.drained_s = time.perf_counter()
        return arrivals

    def _read_and_write(self) -> None:
        events = self._selector.select(0)
        if self._has_unread:  # the connection that was read longest ago comes first
            events.sort(key=lambda event: 0 if event[0].data is None else event[0].data.read_at)
        self._has_unread = False
        received_bytes = 0
        for key, mask in events:
            connection = cast("Connection | None", key.data)
            if connection is None:
                self._accept()
                continue
            if mask & selectors.EVENT_WRITE:
                self._write(connection)
                self._conclude(connection)
            if mask & selectors.EVENT_READ and connection.state is not CLOSED:
                if received_bytes >= STEP_BYTES_MAX:
                    self._has_unread = True
                else:
                    received_bytes += self._receive(connection)

    def _accept(self) -> None:
        for sock, address in self._listener.accept(self._now_s):
            if len(self._connections) >= min(CONNECTIONS_MAX, self._share):
                self._drop(next(iter(self._by_request.values())), "connections_dropped_idle")
            self._last_number += 1
            connection = Connection(self._last_number, sock, address, self._now_s, self._request_bytes_max, self._token)
            self._connections[connection.number] = self._by_request[connection.number] = connection
            self._counts["connections_accepted"] += 1
            self._watch(connection)

    def _receive(self, connection: Connection) -> int:
        try:
            received_bytes = connection.socket.recv_into(self._buffer)
        except BlockingIOError:
            return 0
        except OSError:
            self._close(connection)
            return 0
        self._reads += 1
        connection.read_at = self._reads
        if connection.state is DRAINING:
            connection.received_bytes += received_bytes
            if not received_bytes or connection.received_bytes > DRAINED_BYTES_MAX:
                self._close(connection)
            return received_bytes
        self._uncounted_bytes += received_bytes
        connection.receive(self._buffer[:received_bytes])
        protocol = None if connection.requests else connection.foreign_protocol(received_bytes)
        if protocol is not None:
            self._counts["connections_dropped_http"] += protocol == "http"
            self._close(connection)
            return received_bytes
        connection.update()
        if connection.state is READY:  # epoll is told after the turn: most lines are taken in at once
            self._ready[connection.number] = connection
        return received_bytes

    def _take_turns(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        turn, self._ready = self._ready, {}
        if not turn:
            return arrivals
        left: dict[int, Connection] = {}
        lines_max = max(1, REQUESTS_MAX // len(turn))
        step = StepInput()
        for number, connection in turn.items():
            if len(arrivals) >= REQUESTS_MAX or step.is_full:
                left[number] = connection
                self._watch(connection)
            else:
                arrivals += self._take_in(connection, lines_max, step)
        self._ready = left | self._ready  # those without a turn come first in the next step
        return arrivals

    def _take_in(self, connection: Connection, lines_max: int, step: StepInput) -> list[Arrival]:
        number, before = connection.number, connection.requests
        taken = connection.take_in(lines_max, step)
        if connection.requests > before:
            self._by_request[number] = self._by_request.pop(number)
        if connection.state is CLOSING:
            self._unflushed[number] = connection  # flush closes it, after its last replies
        self._watch(connection)
        return [Arrival(self, number, request) for request in taken]

    def pending(self) -> bool:
        return bool(self._ready or self._unencoded)

    # ---- out

    def send(self, peer: Hashable, reply: Reply) -> None:
        connection = self._connections.get(cast(int, peer))
        if connection is None:
            return
        connection.owed -= 1
        if connection.queued_bytes > QUEUED_BYTES_MAX:
            self._drop(connection, "connections_dropped_backpressure")
            return
        if not connection.queued:
            connection.moved_s = self._now_s
        self._uncounted_bytes += connection.queue(reply)
        self._unflushed[connection.number] = connection
        if connection.is_over_limit:
            connection.lines_max = 1
            self._write(connection)
            self._bound_memory()

    def can_push(self, peer: Hashable) -> bool:
        return False

    def push(self, peer: Hashable, event: bytes) -> bool:
        raise errors.PeerGone("a line of the bridge cannot push")

    def flush(self) -> None:
        self._encode_bytes = STEP_REPLY_BYTES_MAX
        if not (self._unencoded or self._unflushed):
            return
        unencoded, self._unencoded = self._unencoded, {}
        unflushed, self._unflushed = self._unflushed, {}
        # Those that had to wait in the last step come first.
        for connection in (unencoded | unflushed if unencoded else unflushed).values():
            self._write(connection)
            self._conclude(connection)

    def _write(self, connection: Connection) -> None:
        """Hand over to the kernel what it takes; it copies nothing but that."""
        queued = connection.queued
        while queued:
            if isinstance(queued[0], Reply) and not self._encode(connection, queued[0]):
                return
            try:
                lines = connection.lines()
                sent_bytes = connection.socket.send(lines[0]) if len(lines) == 1 else connection.socket.sendmsg(lines)
            except BlockingIOError:
                return
            except OSError:
                return self._close(connection)
            connection.moved_s = self._now_s
            connection.sent(lines, sent_bytes)

    def _encode(self, connection: Connection, reply: Reply) -> bool:
        """Encode a large reply whose turn it is to be sent; False if the step has encoded enough already."""
        if self._encode_bytes <= 0:
            self._unencoded[connection.number] = connection
            return False
        line_bytes = connection.encode(reply)
        self._encode_bytes -= line_bytes
        self._uncounted_bytes += line_bytes
        return True

    def _conclude(self, connection: Connection) -> None:
        """Close a connection that has had its last reply; else register for what it waits for now."""
        if connection.state is READING and connection.polled == selectors.EVENT_READ and not connection.queued:
            return  # nearly always: it is registered for what it waits for since its lines were taken in
        if connection.is_served:
            self._end(connection)
        elif connection.state is not CLOSED:
            self._watch(connection)

    def _end(self, connection: Connection) -> None:
        """Close a connection that has had its last reply, after its peer has stopped sending."""
        if not connection.refused:
            self._close(connection)
            return
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the peer has gone
            self._close(connection)
            return
        connection.moved_s = self._now_s
        connection.shut()
        self._watch(connection)

    # ---- housekeeping

    def _watch(self, connection: Connection) -> None:
        """Register with epoll for what the connection waits for, and for nothing else, or the loop would spin."""
        connection.update()
        if connection.state is READY:
            self._ready[connection.number] = connection
        else:
            self._ready.pop(connection.number, None)
        events = selectors.EVENT_READ if connection.state is READING or connection.state is DRAINING else 0
        if connection.queued and connection.number not in self._unencoded:
            events |= selectors.EVENT_WRITE
        if events == connection.polled:
            return
        if not events:
            self._selector.unregister(connection.socket)
        elif connection.polled:
            self._selector.modify(connection.socket, events, connection)
        else:
            self._selector.register(connection.socket, events, connection)
        connection.polled = events

    def sweep(self) -> None:
        now_s = self._now_s = self._clock()
        self._listener.resume(now_s)
        if now_s - self._swept_s < 1.0:
            return
        self._swept_s = now_s
        for connection in list(self._connections.values()):
            if connection.queued and now_s - connection.moved_s > STALLED_S:
                self._drop(connection, "connections_dropped_stalled")
            elif connection.state is DRAINING and now_s - connection.moved_s > DRAIN_S:
                self._close(connection)

    def _bound_memory(self) -> None:
        """Drop the largest connections when all hold too much together; counted now and then, not at every byte."""
        if self._uncounted_bytes < _UNCOUNTED_BYTES_MAX:
            return
        self._uncounted_bytes = 0
        held = {
            connection.number: len(connection.received) + connection.queued_bytes
            for connection in self._connections.values()
        }
        total = sum(held.values())
        while total > HELD_BYTES_MAX:
            largest = max(held, key=held.__getitem__)
            total -= held.pop(largest)
            self._drop(self._connections[largest], "connections_dropped_memory")

    def _drop(self, connection: Connection, counter: str) -> None:
        self._counts[counter] += 1
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        if connection.polled:
            self._selector.unregister(connection.socket)
        for registry in (self._connections, self._ready, self._unflushed, self._unencoded, self._by_request):
            registry.pop(connection.number, None)
        connection.close()
        connection.socket.close()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def user(self, peer: Hashable) -> str:
        return ""

    def name(self, peer: Hashable) -> str:
        connection = self._connections.get(cast(int, peer))
        return f"tcp:{connection.address}" if connection is not None else f"tcp:disconnected-{peer}"

    def clients(self) -> dict[str, Hashable]:
        return {f"tcp:{connection.address}": connection.number for connection in self._connections.values()}

    def describe(self, client: Hashable) -> dict[str, Any]:
        connection = self._connections[cast(int, client)]
        unsent_bytes = _unsent_bytes(connection.socket)
        return {
            "name": f"tcp:{connection.address}",
            "transport": "bridge",
            "address": connection.address,
            "connected_s": round(self._clock() - connection.began_s, 3),
            "requests": connection.requests,
            "received_bytes": connection.received_bytes,
            "taken_bytes": connection.sent_bytes - unsent_bytes,
            "unread_bytes": connection.queued_bytes + unsent_bytes,
            "replies_dropped": 0,  # the connection is dropped instead
        }

    def kick(self, client: Hashable) -> bool:
        self._drop(self._connections[cast(int, client)], "connections_kicked")
        return True

    def stats(self) -> dict[str, int]:
        counts = {f"tcp_{name}": count for name, count in self._counts.items()}
        return counts | {"tcp_accepts_failed": self._listener.failed, "tcp_connections": len(self._connections)}

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection)
        self._selector.close()
        self._listener.close()


def _unsent_bytes(sock: socket.socket) -> int:
    """Return how many bytes the kernel holds that the peer has not taken."""
    unsent = bytearray(4)
    fcntl.ioctl(sock, termios.TIOCOUTQ, unsent)
    return int.from_bytes(unsent, "little")


def _descriptors_share() -> int:
    """Return how many of the descriptors that this process may have are for connections of the bridge."""
    descriptors_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if descriptors_max == resource.RLIM_INFINITY else max(1, descriptors_max * 3 // 4)
