"""The client's socket as a DEALER of libzmq. The only module of the client that knows zmq.

libzmq reconnects by itself, but neither says so nor sends again what the old connection had swallowed. The DEALER's
monitor, a second socket, tells what became of the connection.

After a handshake that was refused, for its key or its mechanism, libzmq does not try again: this does, by connecting
the DEALER anew, after pauses as libzmq's own.

A ZeroMQ socket's descriptor is readable while its mailbox has something that the socket has not looked at, and any
call on the socket may look. So `readable` and `has_events` have to be asked until they say no.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import selectors
import struct
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import zmq

from kvzmq.client.core.socket import ASKS_FOR_CURVE, WAIT_S_MAX, Change, ConnectionEvent
from kvzmq.curve import ClientKeys
from kvzmq.protocol.limits import REPLY_BYTES_MAX

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

_FOREIGN = "does not speak ZeroMQ (is that the port of the bridge?)"
_EVENTS: dict[int, Change] = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: Change.MADE,
    zmq.EVENT_DISCONNECTED: Change.LOST,
    zmq.EVENT_CONNECT_RETRIED: Change.FAILED,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: Change.REFUSED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: Change.REFUSED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: Change.NOT_ALLOWED,
}
_MONITORED = sum(_EVENTS)
_FINAL = (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_AUTH)
_MECHANISM_MISMATCH = 0x11000002
"""What the report of a failed handshake says if the two sides want different mechanisms (zmq.h)."""


class PyzmqSocket:
    """A DEALER and its monitor; see Socket.

    Args:
        endpoint: of tcp://, ipc:// or inproc://
        context: the ZeroMQ context
        keys: for CURVE, or None for a connection in plain

    Raises:
        ValueError: ZeroMQ does not take the endpoint
        OSError: there can be no further socket
    """

    on_closing: Callable[[int], None] | None = None
    reconnects_itself = True
    reconnect_s_min = 0.8 * RECONNECT_MS / 1000  # with libzmq's jitter

    def __init__(self, endpoint: str, context: Context, keys: ClientKeys | None = None) -> None:
        self.connected = False
        self._endpoint = endpoint
        self._keys = keys
        self._mismatch = False
        self._pause_s = RECONNECT_MS / 1000
        self.due_s = math.inf  # when to connect anew, after a handshake that libzmq does not try again
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
        use_keys(self._dealer, self._keys)
        self._dealer.connect(endpoint)

    def _connect_again(self) -> None:
        self.due_s = math.inf
        self._pause_s = min(2 * self._pause_s, RECONNECT_MS_MAX / 1000)
        with contextlib.suppress(zmq.ZMQError):  # nothing is left to disconnect, as far as libzmq is concerned
            self._dealer.disconnect(self._endpoint)
        self._dealer.connect(self._endpoint)

    # ---- the connection

    @property
    def has_events(self) -> bool:
        """Whether libzmq has reported something, or it is time to connect anew."""
        return int(self._monitor.getsockopt(zmq.EVENTS)) & _POLLIN != 0 or time.monotonic() >= self.due_s

    def poll_events(self) -> list[ConnectionEvent]:
        """Read the reports of the monitor."""
        if time.monotonic() >= self.due_s:
            self._connect_again()
        events: list[ConnectionEvent] = []
        while True:
            try:
                report = self._monitor.recv(zmq.NOBLOCK)
            except zmq.Again:
                return events
            if len(report) != _REPORT.size:
                continue  # the endpoint, which follows each report and is longer: a thread may be interrupted between
            number, detail = _REPORT.unpack(report)
            change = _EVENTS[number]
            self.connected = change is Change.MADE or (self.connected and change is Change.FAILED)
            if change is Change.MADE:
                self._pause_s = RECONNECT_MS / 1000
            elif number in _FINAL:
                self.due_s = time.monotonic() + self._pause_s * random.uniform(0.8, 1.2)
            events.append(ConnectionEvent(change, self._reason(change, detail)))

    def _reason(self, change: Change, detail: int) -> str:
        """Say what a peer does that shakes no hands."""
        if change is Change.NOT_ALLOWED:
            whose = self._keys.own.public if self._keys is not None else "none"
            return f"does not know the key of this client: {whose} has to be in the server's clients file"
        if change is not Change.REFUSED:
            return ""
        self._mismatch = self._mismatch or detail == _MECHANISM_MISMATCH
        if self._mismatch:  # also later: either side may be the first to hang up, and the other does not hear why
            if self._keys is None:
                return ASKS_FOR_CURVE
            return "speaks ZeroMQ without CURVE: leave curve_key and server_key away, or secure the server"
        if self._keys is not None:
            return "breaks the handshake off: it has another key than server_key, or does not speak ZeroMQ"
        return _FOREIGN

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
        """Wait for a frame, or without a connection for a report or until it is time to connect anew."""
        timeout_s = min(timeout_s, max(0.0, self.due_s - time.monotonic()))
        socket = self._dealer if self.connected else self._monitor
        socket.poll(math.ceil(timeout_s * 1000))

    def close(self) -> None:
        """Drop the connection."""
        self.connected = False
        if not self._dealer.closed:
            self._dealer.monitor(None, 0)
            self._dealer.close(linger=0)
            self._monitor.close(linger=0)

    def forget(self) -> None:
        """Leave it alone: the parent's libzmq cannot be used in a forked child, not even to close."""


def use_keys(socket: zmq.Socket[bytes], keys: ClientKeys | None) -> None:
    """Have a socket shake hands with CURVE when it connects, or in plain if there are no keys."""
    if keys is not None:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret.encode())
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server.encode())


class PyzmqOpener:
    """Opens sockets of one ZeroMQ context: the one given, or else the process's own.

    A context that was given to the parent is of no use to a forked child, which takes its own.
    """

    def __init__(self, context: Context | None = None) -> None:
        self._context = context
        self._pid = os.getpid()

    def __call__(self, endpoint: str, keys: ClientKeys | None = None) -> PyzmqSocket:
        """Return a socket that connects to an endpoint, with keys for CURVE or in plain; raises as PyzmqSocket does."""
        own = self._context is not None and self._pid == os.getpid()
        context = self._context if own and self._context is not None else zmq.Context.instance()
        return PyzmqSocket(endpoint, context, keys)
