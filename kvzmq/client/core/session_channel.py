"""What both shells do between two waits with their calls: a session's frames over a channel. Never waits itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kvzmq import errors
from kvzmq.client.core.call import Call
from kvzmq.client.core.channel import Channel, OpenSocket
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.outgoing import REFUSED_S, REFUSED_S_MAX, OutgoingRequest
from kvzmq.client.core.reads import LINEARIZABLE, Reads
from kvzmq.client.core.session import ClientSession
from kvzmq.client.core.socket import Socket
from kvzmq.protocol.limits import SILENCE_S_MAX

SILENT_S = 2.0
"""How long a connected server may leave requests unanswered before the next server, if there is one, is tried."""

TICK_S = 0.05
"""How often `tick` is due while a call waits."""


class SessionChannel(Channel):
    """Moves frames between a session and a server.

    Args:
        endpoints: of the servers
        open_socket: makes a socket to one of them
        lineage, reads, revision: see ClientSession
    """

    def __init__(
        self,
        endpoints: Endpoints,
        open_socket: OpenSocket,
        lineage: str | None = None,
        reads: Reads = LINEARIZABLE,
        revision: int = 0,
    ) -> None:
        super().__init__(endpoints, open_socket)
        self.session = ClientSession(lineage, reads=reads, revision=revision)
        self.catalog_error: errors.CatalogError | None = None
        """Why no catalog could say where the server is, the last time one was asked."""
        self._look_s = 0.0  # from when on the connection may be another one
        self._heard_s = 0.0  # or, if later, when there was nothing to hear

    def open(self, now_s: float) -> None:
        """Connect to the endpoint in use, in place of the former socket; see Channel."""
        super().open(now_s)
        self.catalog_error = None

    def poll_events(self, now_s: float) -> None:
        """Take note of what became of the connection; say hello on a new one, and send what is unanswered once more."""
        socket = self.socket
        if socket is None:
            return
        self._look_s = time.monotonic() + socket.reconnect_s_min  # `now_s` may be older than what was read since
        if self._poll_events(socket):
            self._heard_s = now_s
            socket.send(self.session.say_hello(now_s))
            self._send(socket, self.session.reconnected(now_s))

    def send_alone(self, call: Call, now_s: float) -> bool:
        """Send a call without `submit` and `send_waiting`, as is most often possible.

        That is: there is a connection, with no event to look at, and nothing else waits or is unanswered. Else return
        False, and leave the call to them. What the connection does not take waits in the session as theirs does.
        """
        socket = self.socket
        if socket is None or not socket.connected:
            return False
        if (call.writes or socket.reconnects_itself) and self._has_events(socket):
            self.poll_events(now_s)
            return False
        request = self.session.flush_alone(call, now_s)
        if request is None:
            return False
        self._heard_s = now_s
        if not socket.send(request.frame):
            self.session.unsent((request,))
            self.poll_events(now_s)
        return True

    def send_waiting(self, now_s: float) -> None:
        """Send what waits, if there is a connection."""
        socket, session = self.socket, self.session
        if socket is None:
            return
        if not socket.connected or (session.waiting and self._has_events(socket)):
            self.poll_events(now_s)
        if socket.connected:
            if session.hello.changed_to is not None and not self.endpoints.has_alternatives:
                session.fail_table_changed()
            if not session.asking:
                self._heard_s = now_s
            requests = session.flush(now_s)
            if requests and not self._send(socket, requests):
                self.poll_events(now_s)

    def _has_events(self, socket: Socket) -> bool:
        """Look, if it is time to, whether the connection may have become another one.

        A socket connects anew by itself, and to another table as readily: nothing may leave before that is known.
        """
        now_s = time.monotonic()  # the caller's may be older than what was read since
        if now_s <= self._look_s:
            return False
        self._look_s = now_s + socket.reconnect_s_min
        return socket.has_events

    def receive(self, frame: bytes, now_s: float) -> None:
        """Take a reply; what was held until the server has said which table it serves is sent, or ended."""
        self._heard_s = now_s
        session = self.session
        if session.receive(frame, now_s):
            if session.hello.changed_to is None:
                if self.socket is not None:
                    self._send(self.socket, session.reconnected(now_s))
            elif not self.endpoints.has_alternatives:
                session.fail_table_changed()

    def tick(self, now_s: float) -> bool:
        """Look after connection and deadlines; due every TICK_S while the channel is open.

        Returns:
            whether to give up this server for the next: close the channel then, and open it again
        """
        self.poll_events(now_s)
        self.expire(now_s)
        session, socket = self.session, self.socket
        if socket is None or not socket.connected:
            silent_s = 0.0
            gone = self._connects_too_long(now_s)
        else:
            if now_s >= session.hello.again_s:
                socket.send(session.say_hello(now_s))
            self._send(socket, session.overdue(now_s))
            if not session.asking and not session.hello.held:
                self._heard_s = now_s
            silent_s = now_s - self._heard_s
            refuses = session.refused_here and now_s - self._opened_s > self._patience_s()
            gone = silent_s > SILENT_S or session.hello.changed_to is not None or refuses
        if gone and self.endpoints.has_alternatives:
            self.endpoints.next()
            return True
        return silent_s > SILENCE_S_MAX

    def _patience_s(self) -> float:
        """Return how long a connection to a server that refuses for now is kept: longer if others have refused, too."""
        refusing = self.session.refusing
        return 0.0 if refusing < 2 else min(REFUSED_S * 2 ** (refusing - 1), REFUSED_S_MAX)

    def expire(self, now_s: float) -> None:
        """End the calls whose deadline has passed."""
        self.session.expire(now_s, self._not_sent, self.connected and not self.session.hello.held)

    def _not_sent(self) -> errors.KvzmqError:
        if self.catalog_error is not None:
            return type(self.catalog_error)(*self.catalog_error.args)
        if self.session.hello.changed_to is not None:
            return self.session.hello.table_changed()
        return self.no_answer("no answer in time")

    def _send(self, socket: Socket, requests: Sequence[OutgoingRequest]) -> bool:
        for at, request in enumerate(requests):
            if not socket.send(request.frame):
                self.session.unsent(requests[at:])  # no room or no connection: overdue or reconnected sends them
                return False
        return True
