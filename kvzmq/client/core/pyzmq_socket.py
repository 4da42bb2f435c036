"""The client's socket as a DEALER of libzmq. The only module of the client that knows zmq.

libzmq reconnects by itself, but neither says so nor sends again what the old connection had swallowed. The DEALER's
monitor, a second socket, tells what became of the connection.

A ZeroMQ socket's descriptor is readable while its mailbox has something that the socket has not looked at, and any
call on the socket may look. So `readable` and `has_events` have to be asked until they say no.
"""

from __future__ import annotations

import math
import os
import selectors
import struct
from collections.abc import Mapping
from typing import TypeAlias

import zmq

from kvzmq.client.core.socket import WAIT_S_MAX, Change, ConnectionEvent
from kvzmq.protocol.messages import REPLY_BYTES_MAX

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

RECONNECT_MS = 50
RECONNECT_MS_MAX = 1000
"""libzmq tries again after the first, then twice as long each time up to the second, with jitter."""

_REPORT = struct.Struct("<Hi")
_POLLIN = int(zmq.POLLIN)  # the "and" of enumerations costs 0.7 us
_OPTIONS: tuple[tuple[int, int], ...] = (
    (zmq.LINGER, 0),
    (zmq.IMMEDIATE, 1),  # nothing is queued for a server that is not there: the session decides what is sent again
    (zmq.SNDHWM, 1000),
    (zmq.RCVHWM, 10_000),
    (zmq.RCVTIMEO, int(WAIT_S_MAX * 1000)),  # spares `receive` a poll
    (zmq.RECONNECT_IVL, RECONNECT_MS),
    (zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX),
    (zmq.HANDSHAKE_IVL, 5000),
    (zmq.MAXMSGSIZE, REPLY_BYTES_MAX),
    # libzmq's own heartbeats write to a connection that has failed, and abort the process (libzmq issues 3937, 4364).
    # The kernel notices a machine that has vanished: idle after 4 s and three probes, with data on the way after 10 s.
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 4),
    (zmq.TCP_KEEPALIVE_INTVL, 2),
    (zmq.TCP_KEEPALIVE_CNT, 3),
    (zmq.TCP_MAXRT, 10_000),
)

_REFUSED = ConnectionEvent(Change.REFUSED, "does not speak ZeroMQ (is that the port of the bridge?)")
_EVENTS: dict[int, ConnectionEvent] = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: ConnectionEvent(Change.MADE),
    zmq.EVENT_DISCONNECTED: ConnectionEvent(Change.LOST),
    zmq.EVENT_CONNECT_RETRIED: ConnectionEvent(Change.FAILED),
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: _REFUSED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: _REFUSED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: _REFUSED,
}
_MONITORED = sum(_EVENTS)


class PyzmqSocket:
    """A DEALER and its monitor; see Socket.

    Args:
        endpoint: of tcp://, ipc:// or inproc://
        context: the ZeroMQ context

    Raises:
        ValueError: ZeroMQ does not take the endpoint
        OSError: there can be no further socket
    """

    reconnect_s_min = 0.8 * RECONNECT_MS / 1000  # with libzmq's jitter

    def __init__(self, endpoint: str, context: Context) -> None:
        self.connected = False
        try:
            self._dealer = context.socket(zmq.DEALER)
            self._monitor = context.socket(zmq.PAIR)
        except zmq.ZMQError as error:
            raise OSError(error.errno, error.strerror) from None
        try:
            self._connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"cannot connect to {endpoint!r}: {error.strerror}") from None
        self.descriptors: Mapping[int, int] = {
            int(socket.getsockopt(zmq.FD)): selectors.EVENT_READ for socket in (self._dealer, self._monitor)
        }

    def _connect(self, endpoint: str) -> None:
        """Connect, and have the connection reported.

        The monitor has no high-water mark: libzmq's I/O thread waits for room for its reports, and an unread
        monitor would stop every socket of the process.
        """
        for option, value in _OPTIONS:
            self._dealer.setsockopt(option, value)
        place = f"inproc://kvzmq-connection-{os.urandom(8).hex()}"
        self._dealer.monitor(place, _MONITORED)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.connect(place)
        self._dealer.connect(endpoint)

    # ---- the connection

    @property
    def has_events(self) -> bool:
        """Whether libzmq has reported something."""
        return int(self._monitor.getsockopt(zmq.EVENTS)) & _POLLIN != 0

    def poll_events(self) -> list[ConnectionEvent]:
        """Read the reports of the monitor."""
        events: list[ConnectionEvent] = []
        while True:
            try:
                report = self._monitor.recv(zmq.NOBLOCK)
            except zmq.Again:
                return events
            if len(report) != _REPORT.size:
                continue  # the endpoint, which follows each report and is longer: a thread may be interrupted between
            event = _EVENTS[_REPORT.unpack(report)[0]]
            self.connected = event.change is Change.MADE or (self.connected and event.change is Change.FAILED)
            events.append(event)

    # ---- frames

    @property
    def readable(self) -> bool:
        """Whether there is a frame to receive."""
        return int(self._dealer.getsockopt(zmq.EVENTS)) & _POLLIN != 0

    def send(self, frame: bytes) -> bool:
        """Give a frame to libzmq; False if there is no connection, or no room on it."""
        try:
            self._dealer.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """Return the next frame, or None; also the last ones of a server that has gone."""
        try:
            if timeout_s >= WAIT_S_MAX and self.connected:
                return self._dealer.recv()
            if timeout_s > 0 and not self.readable:
                self.wait(min(timeout_s, WAIT_S_MAX))
            return self._dealer.recv(zmq.NOBLOCK) if self.readable else None
        except zmq.Again:
            return None

    def wait(self, timeout_s: float) -> None:
        """Wait for a frame, or without a connection for a report."""
        socket = self._dealer if self.connected else self._monitor
        socket.poll(math.ceil(timeout_s * 1000))

    def close(self) -> None:
        """Drop the connection."""
        self.connected = False
        if not self._dealer.closed:
            self._dealer.monitor(None, 0)
            self._dealer.close(linger=0)
            self._monitor.close(linger=0)


class PyzmqOpener:
    """Opens sockets of one ZeroMQ context: the one given, or else the process's own.

    A context that was given to the parent is of no use to a forked child, which takes its own.
    """

    def __init__(self, context: Context | None = None) -> None:
        self._context = context
        self._pid = os.getpid()

    def __call__(self, endpoint: str) -> PyzmqSocket:
        """Return a socket that connects to an endpoint; raises as PyzmqSocket does."""
        own = self._context is not None and self._pid == os.getpid()
        return PyzmqSocket(endpoint, self._context if own and self._context is not None else zmq.Context.instance())
