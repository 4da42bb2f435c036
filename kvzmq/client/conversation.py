"""What both shells do between two waits: a session, or a watch, on a link. Never waits itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zmq

from kvzmq import errors
from kvzmq.client.link import Link
from kvzmq.client.session import Request, Session
from kvzmq.client.watching import Watching

CONNECT_S = 1.0
"""How long to wait for a connection before the next server is tried."""

SILENT_S = 2.0
"""How long a connected server may leave requests unanswered before the next server, if there is one, is tried."""

LOOK_S = 0.05
"""How often to look at connection and deadlines while a call waits."""

FRAMES_MAX = 1000
"""How many frames to read before others get their turn."""


class Conversation:
    """Moves frames between a session and a link.

    Args:
        urls: the servers, tried in turn
        context: the ZeroMQ context
    """

    def __init__(self, urls: Sequence[str], context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.session = Session()
        self.link = Link(urls, context)
        self.catalog_error: errors.CatalogError | None = None
        """Why no catalog could say where the server is, the last time one was asked."""
        self._opened_s = 0.0
        self._heard_s = 0.0  # or, if later, when there was nothing to hear

    def opened(self, now_s: float) -> None:
        """Note that the link was opened, and give it some time."""
        self._opened_s = now_s
        self.catalog_error = None

    def take_news(self, now_s: float) -> None:
        """Take note of what became of the connection; on a new one, send what is unanswered once more."""
        if self.link.news():
            self._heard_s = now_s
            self._send(self.session.reconnected(now_s))

    def send_waiting(self, now_s: float) -> None:
        """Send what waits, if there is a connection."""
        if not self.link.connected:
            self.take_news(now_s)
        if self.link.connected:
            if not self.session.asking:
                self._heard_s = now_s
            requests = self.session.flush(now_s)
            if requests and not self._send(requests):
                self.take_news(now_s)

    def receive(self, frame: bytes, now_s: float) -> None:
        """Take a reply."""
        self._heard_s = now_s
        self.session.receive(frame)

    def look_around(self, now_s: float) -> bool:
        """See what has become of connection and deadlines; due every LOOK_S.

        Returns:
            whether to give up this server for the next: close the link then, and open it again
        """
        self.take_news(now_s)
        self.expire(now_s)
        if self.link.connected:
            self._send(self.session.overdue(now_s))
            if not self.session.asking:
                self._heard_s = now_s
            hopeless = now_s - self._heard_s > SILENT_S
        else:
            hopeless = now_s - self._opened_s > CONNECT_S
        if hopeless and self.link.alternatives:
            self.link.next_server()
            return True
        return False

    def expire(self, now_s: float) -> None:
        """End the calls whose deadline has passed."""
        self.session.expire(now_s, self._not_sent)

    def _not_sent(self) -> errors.KvzmqError:
        if self.catalog_error is not None:
            return type(self.catalog_error)(*self.catalog_error.args)
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
        self._opened_s = 0.0

    def opened(self, now_s: float) -> None:
        """Note that the link was opened, and give it some time."""
        self._opened_s = now_s

    def ask(self, now_s: float) -> None:
        """Ask for the watch on a new connection, and again if no answer came."""
        if self.link.news() or (self.link.connected and self.watching.overdue(now_s)):
            self.link.send(self.watching.request(now_s))

    def hopeless(self, now_s: float) -> bool:
        """Say whether to give up this server for the next: close the link then, and open it again."""
        if self.link.connected or not self.link.alternatives or now_s - self._opened_s <= CONNECT_S:
            return False
        self.link.next_server()
        return True

    def receive_all(self) -> None:
        """Take what the server has pushed."""
        for frame in frames(self.link):
            self.watching.receive(frame)


def frames(link: Link) -> Iterator[bytes]:
    """Read what is there, FRAMES_MAX at most."""
    for _ in range(FRAMES_MAX):
        if not link.readable:
            return
        yield link.socket.recv(zmq.NOBLOCK)
