"""What both shells do between two waits: a session, or a watch, on a link. Never waits itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import zmq

from kvzmq import errors
from kvzmq.client.core.session import Request, Session
from kvzmq.client.core.socket import RECONNECT_MS, Link
from kvzmq.client.core.watch_state import Watching
from kvzmq.protocol.messages import HEARTBEAT_S, SILENCE_S_MAX

CONNECT_S = 1.0
"""How long to wait for a connection before the next server is tried."""

FAILED_S = 0.03
"""The same where a try has failed already: not at once, or a client would do nothing else while all servers are away."""

ATTENTION_S = 1.0
"""After a longer time without a look at a watch nobody can tell from silence that its server is gone."""

SILENT_S = 2.0
"""How long a connected server may leave requests unanswered before the next server, if there is one, is tried."""

KNOWN_S = 0.8 * RECONNECT_MS / 1000
"""How long a look at the connection is good for: libzmq takes longer to connect anew. A look costs a system call."""

LOOK_S = 0.05
"""How often to look at connection and deadlines while a call waits."""

FRAMES_MAX = 1000
"""How many frames to read before others get their turn."""


class Conversation:
    """Moves frames between a session and a link.

    Args:
        urls: the servers, tried in turn
        context: the ZeroMQ context
        lineage: of the table that is expected, see Session
    """

    def __init__(
        self, urls: Sequence[str], context: zmq.Context[zmq.Socket[bytes]], lineage: str | None = None
    ) -> None:
        self.session = Session(lineage)
        self.link = Link(urls, context)
        self.catalog_error: errors.CatalogError | None = None
        """Why no catalog could say where the server is, the last time one was asked."""
        self._opened_s = 0.0
        self._news_s = 0.0
        self._heard_s = 0.0  # or, if later, when there was nothing to hear

    def opened(self, now_s: float) -> None:
        """Note that the link was opened, and give it some time."""
        self._opened_s = now_s
        self.catalog_error = None

    def take_news(self, now_s: float) -> None:
        """Take note of what became of the connection; greet on a new one, and send what is unanswered once more."""
        self._news_s = time.monotonic()
        if self.link.news():
            self._heard_s = now_s
            self.link.send(self.session.greet(now_s))
            self._send(self.session.reconnected(now_s))

    def send_waiting(self, now_s: float) -> None:
        """Send what waits, if there is a connection."""
        if not self.link.connected:
            self.take_news(now_s)
        elif self.session.waiting and time.monotonic() - self._news_s > KNOWN_S:
            # libzmq connects anew by itself, and to another table as readily: nothing may leave before that is known.
            self._news_s = time.monotonic()  # `now_s` may be older than what was read since
            if self.link.has_news:
                self.take_news(now_s)
        if self.link.connected:
            if self.session.changed_to is not None and not self.link.alternatives:
                self.session.refuse_table()
            if not self.session.asking:
                self._heard_s = now_s
            requests = self.session.flush(now_s)
            if requests and not self._send(requests):
                self.take_news(now_s)

    def receive(self, frame: bytes, now_s: float) -> None:
        """Take a reply."""
        self._heard_s = now_s
        session = self.session
        held = session.held
        session.receive(frame)
        if held and not session.held:
            self._send(session.reconnected(now_s))
        elif session.changed_to is not None and not self.link.alternatives:
            session.refuse_table()

    def look_around(self, now_s: float) -> bool:
        """See what has become of connection and deadlines; due every LOOK_S.

        Returns:
            whether to give up this server for the next: close the link then, and open it again
        """
        self.take_news(now_s)
        self.expire(now_s)
        session = self.session
        if not self.link.connected:
            hopeless = now_s - self._opened_s > (FAILED_S if self.link.failed else CONNECT_S)
            silent_s = 0.0
        else:
            if now_s >= session.greets_again_s:
                self.link.send(session.greet(now_s))
            self._send(session.overdue(now_s))
            if not session.asking and not session.held:
                self._heard_s = now_s
            silent_s = now_s - self._heard_s
            hopeless = silent_s > SILENT_S or session.changed_to is not None
        if hopeless and self.link.alternatives:
            self.link.next_server()
            return True
        return silent_s > SILENCE_S_MAX

    def expire(self, now_s: float) -> None:
        """End the calls whose deadline has passed."""
        self.session.expire(now_s, self._not_sent)

    def _not_sent(self) -> errors.KvzmqError:
        if self.catalog_error is not None:
            return type(self.catalog_error)(*self.catalog_error.args)
        if self.session.changed_to is not None:
            return self.session.table_changed()
        return errors.Timeout(f"no answer in time: {self.link.describe()}")

    def _send(self, requests: Sequence[Request]) -> bool:
        for at, request in enumerate(requests):
            if not self.link.send(request.frame):
                self.session.unsent(requests[at:])  # no room or no connection: overdue or reconnected sends them
                return False
        return True


class WatchConversation:
    """Moves frames between a watch and a link.

    Args:
        watching: the watch
        link: not open yet
    """

    def __init__(self, watching: Watching, link: Link) -> None:
        self.watching = watching
        self.link = link
        self.wants_progress = False
        """Whether to ask how far the table is, as soon as the watch has begun, and again on a new connection."""
        self._opened_s = 0.0
        self._sent_s = 0.0
        self._heard_s = 0.0  # or, if later, when this program was busy with something else
        self._attended_s = 0.0

    def opened(self, now_s: float) -> None:
        """Note that the link was opened, and give it some time."""
        self._opened_s = now_s

    def ask(self, now_s: float) -> None:
        """Ask for the watch on a new connection, and again if no answer came; send heartbeats. Due every second."""
        watching, link = self.watching, self.link
        if now_s - self._attended_s > ATTENTION_S:
            self._heard_s = now_s
        self._attended_s = now_s
        if link.news():
            self._heard_s = now_s
            self._send(watching.request(now_s), now_s)
        elif link.connected:
            if watching.overdue(now_s):
                self._send(watching.request(now_s), now_s)
            elif self.wants_progress and watching.asks_progress:
                self._send(watching.ask_progress(), now_s)
            elif watching.started and now_s - self._sent_s >= HEARTBEAT_S:
                self._send(watching.heartbeat(), now_s)

    def _send(self, frame: bytes, now_s: float) -> None:
        self.link.send(frame)
        self._sent_s = now_s

    def hopeless(self, now_s: float) -> bool:
        """Say whether to give up this connection: close the link then, and open it again, to the next server if any."""
        if self.link.connected:
            hopeless = now_s - self._heard_s > SILENCE_S_MAX
        else:
            patience_s = FAILED_S if self.link.failed else CONNECT_S
            hopeless = self.link.alternatives and now_s - self._opened_s > patience_s
        if hopeless:
            self.link.next_server()
        return hopeless

    def receive_all(self, now_s: float) -> None:
        """Take what the server has pushed."""
        for frame in frames(self.link):
            self._heard_s = now_s
            self.watching.receive(frame)


def frames(link: Link) -> Iterator[bytes]:
    """Read what is there, FRAMES_MAX at most."""
    for _ in range(FRAMES_MAX):
        if not link.readable:
            return
        yield link.socket.recv(zmq.NOBLOCK)
