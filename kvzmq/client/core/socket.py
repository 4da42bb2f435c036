"""The protocol of a client's socket: frames to and from one server, and events of the connection.

    open_socket(endpoint) ──> connecting ──MADE──> connected ──LOST──> connecting ...
                                  └──FAILED, REFUSED, NOT_ALLOWED──> tries again by itself

A socket connects to one endpoint, and connects anew by itself, after growing pauses, until it is closed; some do so
only while somebody waits with them or calls `poll_events`. It keeps no frame for a connection that is yet to come, and
sends none twice: what is sent again is the session's business.

Nothing here blocks but `wait` and `receive` with a timeout, and nothing is raised for what the peer or the network
does: that is an event. Events are queued by the socket until `poll_events` hands them out, and `connected` changes only
then: the sender has to know that a connection is new, as another table may answer there.

One thread at a time uses a socket. An event loop watches its `descriptors`, and calls `poll_events` and `receive` when
one is ready, and `poll_events` when it is due.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

FRAMES_MAX = 1000
"""How many frames `frames` reads before others get their turn."""

WAIT_S_MAX = 0.05
"""How long `receive` waits at most, whatever its caller would allow: deadlines and connection are looked after then."""


ASKS_FOR_CURVE = "asks for CURVE: give this client curve_key, a file of `kvzmq keygen`, and server_key"
"""What a peer does that wants keys of a client that has none."""


class Change(enum.Enum):
    """What became of a connection."""

    SILENT = enum.auto()  # somebody accepts the connection, and has not shaken hands so far; not every socket tells
    MADE = enum.auto()  # the handshake is done: frames can be sent
    LOST = enum.auto()
    FAILED = enum.auto()  # a try to connect has failed, for want of a listener most often
    REFUSED = enum.auto()  # somebody listens there, but the handshake has failed
    NOT_ALLOWED = enum.auto()  # a server refuses this client's key


class ConnectionEvent(NamedTuple):
    """One change of a connection, and why; "" if that is unknown.

    REFUSED, NOT_ALLOWED and SILENT say what the peer does, as in "does not speak ZeroMQ"; FAILED and LOST why, as in
    "connection refused".
    """

    change: Change
    reason: str = ""


class Socket(Protocol):
    """A socket that connects to one server, and anew whenever the connection is lost."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as of the last `poll_events`."""
        ...

    @property
    def descriptors(self) -> Mapping[int, int]:
        """What to watch: descriptors, and selectors.EVENT_READ, EVENT_WRITE or both for each.

        Another object whenever it has changed, so that comparing with `is` will do. It may change with any call. Read
        on until `readable` and `has_events` say no before waiting for a descriptor: it need not tell of what is
        left unread. A watch may leave frames unread for long, and looks at `poll_events` and `readable` all the same:
        a descriptor that these do not quieten must not be among them meanwhile, or a loop would never sleep.
        """
        ...

    on_closing: Callable[[int], None] | None
    """Called with a descriptor of `descriptors` before it is closed, except by `close`: an event loop forgets it."""

    @property
    def due_s(self) -> float:
        """When `poll_events` is due, on the monotonic clock, whatever the descriptors tell; math.inf for never."""
        ...

    @property
    def reconnects_itself(self) -> bool:
        """Whether the connection may become another one between two calls of `poll_events`.

        If so, ask `has_events` before each `send`; if not, before a send that may not be lost with its connection: it
        takes a frame like any other when the peer has gone unnoticed.
        """
        ...

    @property
    def reconnect_s_min(self) -> float:
        """For how long after `poll_events` and `has_events` they need not be asked."""
        ...

    @property
    def has_events(self) -> bool:
        """Whether `poll_events` has something to do; afterwards the descriptors tell of more."""
        ...

    def poll_events(self) -> list[ConnectionEvent]:
        """Go on with connecting and with what is half sent, as far as that needs no waiting; return what happened."""
        ...

    @property
    def readable(self) -> bool:
        """Whether there is a frame to receive; afterwards the descriptors tell of the next one."""
        ...

    def send(self, frame: bytes) -> bool:
        """Send a frame, and keep what the connection does not take of it at once.

        Returns:
            False if nothing of it was taken: there is no connection, or no room
        """
        ...

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """Return the next frame; wait `timeout_s`, and WAIT_S_MAX, at most.

        None if there was none in time. Without a connection it returns None as soon as there are events.
        """
        ...

    def wait(self, timeout_s: float) -> None:
        """Wait for a frame, or without a connection for events, `timeout_s` at most."""
        ...

    def close(self) -> None:
        """Drop the connection, and what was not sent of it."""
        ...

    def forget(self) -> None:
        """Let go of it in a forked child, without disturbing the connection of the parent."""
        ...


def frames(socket: Socket) -> Iterator[bytes]:
    """Read what is there, FRAMES_MAX at most."""
    for _ in range(FRAMES_MAX):
        frame = socket.receive()
        if frame is None:
            return
        yield frame
