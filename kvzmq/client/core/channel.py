"""A socket to whichever of several servers answers: opened, looked after, and turned to the next one. Never waits.

SessionChannel moves the frames of calls over it, WatchChannel those of a watch; both shells use both.
"""

from __future__ import annotations

from collections.abc import Callable

from kvzmq import errors
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.socket import Change, ConnectionEvent, Socket
from kvzmq.client.core.targets import Target

OpenSocket = Callable[[Target], Socket]
"""Makes a socket that connects to a server. Raises ValueError if that is none, OSError if there can be no socket."""

CONNECT_S = 1.0
"""How long to wait for a connection before the next server is tried."""

FAILED_S = 0.03
"""The same where a try has failed already: not 0, or a client would do nothing else while all servers are away."""

_ANSWERED = (Change.SILENT, Change.REFUSED, Change.NOT_ALLOWED)
_REPLACES: dict[Change, tuple[Change | None, ...]] = {
    Change.FAILED: (None, Change.FAILED, Change.SILENT),
    Change.SILENT: (None, Change.FAILED),
    **dict.fromkeys(
        (Change.REFUSED, Change.NOT_ALLOWED),
        (None, Change.FAILED, Change.SILENT, Change.REFUSED, Change.NOT_ALLOWED),
    ),
}
"""Why there is no connection: which reasons known before (None: none) a new one replaces. That somebody answers, and
what, says most."""


class Channel:
    """A socket to one of several servers.

    Args:
        endpoints: of the servers
        open_socket: makes a socket to one of them
    """

    def __init__(self, endpoints: Endpoints, open_socket: OpenSocket) -> None:
        self.endpoints = endpoints
        self.socket: Socket | None = None
        self._open_socket = open_socket
        self._opened_s = 0.0
        self._failure: ConnectionEvent | None = None  # why there is no connection, since the last one

    def open(self, now_s: float) -> None:
        """Connect to the endpoint in use, in place of the former socket.

        Raises:
            ValueError: it is no endpoint
            OSError: there can be no further socket
        """
        self.close()
        self._failure = None
        self._opened_s = now_s
        self.socket = self._open_socket(self.endpoints.target)

    def close(self) -> None:
        """Drop the connection."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def forget(self) -> None:
        """Let go of the socket in a forked child, without disturbing the parent's connection."""
        if self.socket is not None:
            self.socket.forget()
            self.socket = None

    @property
    def is_open(self) -> bool:
        """Whether there is a socket."""
        return self.socket is not None

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self.socket is not None and self.socket.connected

    @property
    def unread(self) -> bool:
        """Whether a frame or an event waits to be read; afterwards the descriptors tell of the next ones."""
        return self.socket is not None and (self.socket.readable or self.socket.has_events)

    def describe(self) -> str:
        """Say where the channel leads and what is known of the server there, for an error's message."""
        endpoints = self.endpoints
        where = endpoints.describe()
        if self.connected:
            return f"connected to {where}, which is too busy to take the request"
        failure = self._failure
        if failure is not None and failure.change in _ANSWERED:
            return f"what answers at {where} {failure.reason}"
        among = f" (one of {endpoints.count} endpoints)" if endpoints.count > 1 else ""
        why = f", {failure.reason}" if failure is not None and failure.reason else ""
        known = f"; {endpoints.catalog_error}" if endpoints.catalog_error else ""
        return f"no connection to {where}{among}{why}: is a server running there?{known}"

    def no_answer(self, what: str) -> errors.KvzmqError:
        """Return the error of somebody whose time is up: NotAllowed if that is why nothing was sent, else Timeout.

        Args:
            what: what has not happened in time, for the message
        """
        refused = self._failure is not None and self._failure.change is Change.NOT_ALLOWED and not self.connected
        kind = errors.NotAllowed if refused else errors.Timeout
        return kind(f"{what}: {self.describe()}")

    def _poll_events(self, socket: Socket) -> bool:
        """Take note of what became of the connection; True if there is a new one."""
        made = False
        for event in socket.poll_events():
            if event.change is Change.MADE:
                made = True
                self._failure = None
                self.endpoints.reached()
            elif (None if self._failure is None else self._failure.change) in _REPLACES.get(event.change, ()):
                self._failure = event
        return made and socket.connected

    def _connects_too_long(self, now_s: float) -> bool:
        """Say whether there should be a connection by now."""
        return now_s - self._opened_s > (FAILED_S if self._has_failed else CONNECT_S)

    @property
    def _has_failed(self) -> bool:
        """Whether a try to connect has ended, rather than not yet come to anything."""
        return self._failure is not None and self._failure.change is not Change.SILENT
