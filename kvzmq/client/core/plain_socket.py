"""The client's socket as a plain one that speaks ZMTP: no libzmq, no context, no thread.

    PAUSING ──> CONNECTING ──> GREETING ──MADE──> OPEN ──LOST──> PAUSING ...
                    └──FAILED──> PAUSING └──REFUSED──> PAUSING

All of it happens in calls of this module: who does not call does not connect anew, and finds the connection lost when
it is used again. A new connection begins in `poll_events` only, which tells of it.

The descriptor blocks, for SO_RCVTIMEO at most: to wait for a reply is one system call, `recv`, and to send one is
another. Whatever must not wait says MSG_DONTWAIT. Descriptors of one that does not block would need a poll before.

A thread may be interrupted between any two bytecodes, also between a system call and the note of what it did. So each
step begins by clearing `_intact` and ends by setting it; where it is clear it is unknown what has been sent or
received, and the connection is dropped. The session sends again what is unanswered.
"""

from __future__ import annotations

import contextlib
import enum
import math
import select
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping

from kvzmq.client.core import zmtp
from kvzmq.client.core.dial import Dial, Resolver, parse_endpoint
from kvzmq.client.core.socket import ASKS_FOR_CURVE, WAIT_S_MAX, Change, ConnectionEvent
from kvzmq.client.core.timeouts import jitter
from kvzmq.protocol.limits import REPLY_BYTES_MAX

RECONNECT_S = 0.05
RECONNECT_S_MAX = 1.0
"""The first pause before the next try, then twice as long each time up to the second, with jitter."""

HANDSHAKE_S = 5.0
"""How long a peer may take from the connection to its READY."""

SILENT_S = 0.2
"""After how much of that the event SILENT says that the peer has not shaken hands."""

UNSENT_BYTES_MAX = 8 << 20
"""How much may wait for a connection that takes no more; a single larger frame still waits whole."""

LOOK_S = 0.001
"""After which time a look is due whether the peer has gone, before something is sent: a connection that is lost takes a
frame like any other, and then it is unknown whether it was executed."""

_RECEIVE_BYTES = 64 << 10
_COPIED_BYTES_MAX = 16 << 10
"""Up to this size a frame is copied behind its header: cheaper than handing over two buffers."""

_BUFFERS_MAX = 64
"""How many frames that wait are handed over at once."""

_TIMEVAL = struct.Struct("@ll")
_RECEIVE_TIMEOUT = _TIMEVAL.pack(0, int(WAIT_S_MAX * 1e6))
_DONTWAIT = int(socket.MSG_DONTWAIT)
_LOOK_FLAGS = _DONTWAIT | int(socket.MSG_PEEK)  # plain integers: the "or" of enumerations costs 1 us and more
_SEND_FLAGS = _DONTWAIT | int(getattr(socket, "MSG_NOSIGNAL", 0))
_NONE: Mapping[int, int] = {}
_POLLED = {
    selectors.EVENT_READ: select.POLLIN,
    selectors.EVENT_WRITE: select.POLLOUT,
    selectors.EVENT_READ | selectors.EVENT_WRITE: select.POLLIN | select.POLLOUT,
}

_SILENT = "accepts the connection and does not greet as ZeroMQ does (is that the port of the bridge? is it stopped?)"


class _Stage(enum.Enum):
    PAUSING = enum.auto()
    CONNECTING = enum.auto()
    GREETING = enum.auto()
    OPEN = enum.auto()


_OPEN = _Stage.OPEN  # each look at a member through its class costs 0.1 us


class PlainSocket:
    """A socket of tcp:// or ipc:// that speaks ZMTP; see Socket.

    Args:
        endpoint: of the server
        resolver: looks names up
        clock: returns the time, monotonic seconds
        jitter: returns a factor around 1 for the pauses

    Raises:
        ValueError: it is no endpoint
    """

    reconnects_itself = False
    reconnect_s_min = LOOK_S

    def __init__(
        self,
        endpoint: str,
        resolver: Resolver,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = jitter,
    ) -> None:
        self._where = parse_endpoint(endpoint)
        self._resolver = resolver
        self._clock = clock
        self._jitter = jitter
        self.connected = False
        self.due_s = 0.0
        self._watched = self._watched_unread = _NONE
        self.on_closing: Callable[[int], None] | None = None
        self._stage = _Stage.PAUSING
        self._intact = True
        self._events: list[ConnectionEvent] = []
        self._dial: Dial | None = None
        self._sock: socket.socket | None = None
        self._zmtp = zmtp.Connection(REPLY_BYTES_MAX)
        self._made_s = self._handshake_ends_s = 0.0
        self._pause_s = RECONNECT_S
        self._frames: deque[bytes] = deque()  # received
        self._at_end = False  # the last read has found the end of what there was
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0

        self._go_on()
        self._intact = True

    # ---- the connection

    @property
    def descriptors(self) -> Mapping[int, int]:
        """What to watch; not what comes while frames are left unread."""
        return self._watched_unread if self._frames else self._watched

    @property
    def has_events(self) -> bool:
        """Whether there are events, or work that the descriptors do not tell of. Notices a lost connection."""
        if self._stage is _OPEN and self._intact:
            self._intact = False
            self._look()
            self._intact = True
        return bool(self._events) or not self._intact or (self.due_s < math.inf and self._clock() >= self.due_s)

    def poll_events(self) -> list[ConnectionEvent]:
        """Go on with connecting, greeting and what is half sent; return what happened."""
        self._go_on()
        events = self._events
        for event in events:
            self.connected = event.change is Change.MADE
        self._events = []
        self._intact = True
        return events

    def _go_on(self) -> None:
        """Do what can be done without waiting, until the stage stays the same."""
        if not self._intact:
            self._drop("an interrupt came between")
        self._intact = False
        stage = None
        while stage is not self._stage:
            stage = self._stage
            _STEPS[stage](self)
        self._look_at_descriptors()

    def _look_after_pause(self) -> None:
        now_s = self._clock()
        if now_s >= self.due_s:
            self._dial = Dial(self._where, self._resolver, now_s, self._before_closing)
            self._stage = _Stage.CONNECTING

    def _connect(self) -> None:
        assert self._dial is not None
        try:
            sock = self._dial.go_on(self._clock())
        except OSError as error:
            self._lose(error)
            return
        self.due_s = self._dial.due_s
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
            self._sock, self._dial = sock, None
            self._zmtp = zmtp.Connection(REPLY_BYTES_MAX)
            self._stage = _Stage.GREETING
            now_s = self._clock()
            self._handshake_ends_s = now_s + HANDSHAKE_S
            self.due_s = now_s + SILENT_S

    def _greet(self) -> None:
        connection = self._zmtp
        now_s = self._clock()
        if now_s >= self._handshake_ends_s:
            self._lose(None, ConnectionEvent(Change.REFUSED, _SILENT))
        elif now_s >= self.due_s:
            self._events.append(ConnectionEvent(Change.SILENT, _SILENT))
            self.due_s = self._handshake_ends_s
        self._answer()
        while self._stage is _Stage.GREETING and connection.state is not zmtp.State.OPEN and self._read(_DONTWAIT):
            self._answer()
        if self._stage is _Stage.GREETING and connection.state is zmtp.State.OPEN:
            self._stage = _Stage.OPEN
            self.due_s = math.inf
            self._made_s = self._clock()
            self._events.append(ConnectionEvent(Change.MADE))

    def _look_after_connection(self) -> None:
        self._write()
        self._look()

    def _look(self) -> None:
        """Look whether the peer has gone; what it has sent stays where it is."""
        if self._sock is not None and not self._frames:
            try:
                gone = not self._sock.recv(1, _LOOK_FLAGS)
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(error)
            else:
                if gone:
                    self._read(_DONTWAIT)

    def _lose(self, error: OSError | None = None, event: ConnectionEvent | None = None) -> None:
        """Drop the connection, or the try to make one, and note why, and when to try again."""
        if event is None:
            event = self._loss(error)
        self._events.append(event)
        now_s = self._clock()
        if self._stage is _Stage.OPEN and now_s - self._made_s >= RECONNECT_S_MAX:
            self._pause_s = RECONNECT_S
            self.due_s = now_s  # at once: it was a good connection, and may have been lost long ago
        else:
            self.due_s = now_s + self._pause_s * self._jitter()
            self._pause_s = min(2 * self._pause_s, RECONNECT_S_MAX)
        self._stage = _Stage.PAUSING
        self._release()

    def _loss(self, error: OSError | None) -> ConnectionEvent:
        """Return what to tell of the end of a connection, or of a try."""
        fault = self._zmtp.error
        if self._stage is _Stage.OPEN:
            return ConnectionEvent(Change.LOST, "" if fault is None else str(fault))
        if self._stage is _Stage.GREETING and fault is not None:
            if self._zmtp.mechanism == "CURVE":
                return ConnectionEvent(Change.REFUSED, ASKS_FOR_CURVE)
            return ConnectionEvent(Change.REFUSED, str(fault))
        text = "" if error is None else str(error.strerror)
        return ConnectionEvent(Change.FAILED, text[:1].lower() + text[1:])

    def _drop(self, reason: str) -> None:
        """Drop a connection whose state is unknown, and make another at once."""
        opened = self._stage is _Stage.OPEN or self.connected
        self._lose(None, ConnectionEvent(Change.LOST if opened else Change.FAILED, reason))
        self._pause_s = RECONNECT_S
        self.due_s = self._clock()

    def _release(self) -> None:
        """Close what there is."""
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.close()
        sock, self._sock = self._sock, None
        if sock is not None:
            self._before_closing(sock.fileno())
            sock.close()
        self._unsent.clear()
        self._unsent_bytes = 0
        self._watched = self._watched_unread = _NONE

    def _before_closing(self, fd: int) -> None:
        if self.on_closing is not None:
            self.on_closing(fd)

    def _look_at_descriptors(self) -> None:
        """Have `descriptors` say what to watch now."""
        if self._dial is not None:
            self._watched = self._watched_unread = self._dial.descriptors
        elif self._sock is not None:
            fd = self._sock.fileno()
            now = {fd: selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)}
            if now != self._watched:
                self._watched = now
                self._watched_unread = {fd: selectors.EVENT_WRITE} if self._unsent else _NONE

    # ---- frames in

    @property
    def readable(self) -> bool:
        """Whether there is a frame to receive, as of the last read; the descriptor tells of what has come since."""
        if self._frames:
            return True
        if self._at_end or self._stage is not _Stage.OPEN or not self._intact:
            return False
        self._read_on()
        return bool(self._frames)

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """Return the next frame, or None; also the last ones of a connection that is lost."""
        frames = self._frames
        if frames:
            return frames.popleft()
        if self._stage is not _OPEN or not self._intact:
            if timeout_s > 0 and self._intact:
                self.wait(min(timeout_s, WAIT_S_MAX))
        elif timeout_s >= WAIT_S_MAX and not self._unsent:
            self._intact = False
            self._read(0)
            self._intact = True
        elif timeout_s > 0:
            self.wait(min(timeout_s, WAIT_S_MAX))
            self._read_on()
        elif self._at_end:
            self._at_end = False  # the next time there may be more
            return None
        else:
            self._read_on()
        return frames.popleft() if frames else None

    def _read_on(self) -> None:
        """Read what is there, and write what waits."""
        self._intact = False
        self._read(_DONTWAIT)
        if self._unsent:
            self._write()
        self._intact = True

    def _read(self, flags: int) -> bool:
        """Read once; False if there was nothing, or the connection is lost."""
        sock, connection = self._sock, self._zmtp
        assert sock is not None
        room = connection.room
        try:
            if room is None:
                data = sock.recv(_RECEIVE_BYTES, flags)
                self._at_end = len(data) < _RECEIVE_BYTES
                messages = connection.receive_data(data)
            else:
                count = sock.recv_into(room, 0, flags)
                self._at_end = count < len(room)
                messages = connection.fill(count)
        except BlockingIOError:
            self._at_end = True
            return False
        except OSError as error:
            self._lose(error)
            return False
        if messages:
            self._frames.extend(messages)
        if connection.error is not None:
            self._lose()
            return False
        if connection.waiting and self._stage is _OPEN and not self._unsent:
            self._answer()
        return True

    # ---- frames out

    def send(self, frame: bytes) -> bool:
        """Send a frame, or keep what the connection does not take of it at once; False if there is none, or no room."""
        if not self.connected or self._stage is not _OPEN or not self._intact:
            return False
        length = len(frame)
        sock = self._sock
        if sock is None or self._unsent or length > _COPIED_BYTES_MAX:
            return self._send_behind(frame)
        self._intact = False
        data = (zmtp.HEADERS[length] if length <= zmtp.SHORT_BYTES_MAX else zmtp.encode_header(length)) + frame
        try:
            sent = sock.send(data, _SEND_FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(error)
            sent = len(data)
        if sent < len(data):
            self._keep(memoryview(data)[sent:])
            self._look_at_descriptors()
        self._intact = True
        return self._sock is not None

    def _send_behind(self, frame: bytes) -> bool:
        """Send a frame without copying it, behind what waits; False if there is no room."""
        if self._unsent and self._unsent_bytes + len(frame) > UNSENT_BYTES_MAX:
            return False
        self._intact = False
        self._keep(memoryview(zmtp.encode_header(len(frame))), memoryview(frame))
        self._write()
        self._intact = True
        return self._sock is not None

    def _answer(self) -> None:
        """Send what the protocol itself has to send."""
        data = self._zmtp.data_to_send()
        if data and self._sock is not None:
            self._keep(memoryview(data))
            self._write()

    def _keep(self, *parts: memoryview) -> None:
        self._unsent.extend(parts)
        self._unsent_bytes += sum(map(len, parts))

    def _write(self) -> None:
        """Send what waits, as far as the connection takes it."""
        unsent = self._unsent
        while unsent and self._sock is not None:
            try:
                sent = self._sock.sendmsg([unsent[at] for at in range(min(len(unsent), _BUFFERS_MAX))], [], _SEND_FLAGS)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(error)
                return
            self._unsent_bytes -= sent
            while sent:
                part = unsent.popleft()
                if sent < len(part):
                    unsent.appendleft(part[sent:])
                sent = max(0, sent - len(part))
        self._look_at_descriptors()

    # ---- waiting

    def wait(self, timeout_s: float) -> None:
        """Wait for a frame, for room to write what waits, or without a connection for what goes on with it."""
        if self._frames or self._events or not self._intact:
            return
        if self.due_s < math.inf:
            timeout_s = min(timeout_s, self.due_s - self._clock())
        poll = select.poll()
        for fd, events in self.descriptors.items():
            poll.register(fd, _POLLED[events])
        poll.poll(max(0, math.ceil(timeout_s * 1000)))

    def close(self) -> None:
        """Drop the connection, also for a child of a fork that holds the same descriptor."""
        self.connected = False
        self._stage = _Stage.PAUSING
        self.due_s = math.inf
        if self._sock is not None:
            with contextlib.suppress(OSError):  # the peer was faster
                self._sock.shutdown(socket.SHUT_RDWR)
        self._release()

    def forget(self) -> None:
        """Let go of it in a forked child, whose parent goes on with the connection."""
        self.on_closing = None
        self.connected = False
        self._stage = _Stage.PAUSING
        self.due_s = math.inf
        self._release()

    def __del__(self) -> None:
        if getattr(self, "_sock", None) is not None or getattr(self, "_dial", None) is not None:
            self.forget()  # without a shutdown: it may be a forked child that has no use for it


_STEPS: dict[_Stage, Callable[[PlainSocket], None]] = {
    _Stage.PAUSING: PlainSocket._look_after_pause,
    _Stage.CONNECTING: PlainSocket._connect,
    _Stage.GREETING: PlainSocket._greet,
    _Stage.OPEN: PlainSocket._look_after_connection,
}
"""What `poll_events` does at each stage, until the stage stays the same."""


class PlainOpener:
    """Opens plain sockets, which share a resolver."""

    def __init__(self) -> None:
        self._resolver = Resolver()

    def __call__(self, endpoint: str) -> PlainSocket:
        """Return a socket that connects to an endpoint; raises as PlainSocket does."""
        return PlainSocket(endpoint, self._resolver)
