"""A session on a link: what both shells do between two waits. Never waits itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import zmq

from kvzmq.client.link import Link
from kvzmq.client.session import Session

CONNECT_S = 1.0
"""How long to wait for a server before the next one is tried."""


class Conversation:
    """Moves frames between a session and a link.

    Args:
        urls: the servers, tried in turn
        context: the ZeroMQ context
    """

    def __init__(self, urls: Sequence[str], context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.session = Session()
        self.link = Link(urls, context)
        self._well_s = 0.0  # when the connection was last known to be well, or opened

    def opened(self, now_s: float) -> None:
        """Note that the link was opened, and give it some time."""
        self._well_s = now_s

    def take_news(self, now_s: float) -> None:
        """Take note of what became of the connection; on a new one, send what is unanswered once more."""
        if self.link.news():
            self._send(self.session.reconnected(now_s))

    def send_waiting(self, now_s: float) -> None:
        """Send what waits, if there is a connection."""
        if not self.link.connected:
            self.take_news(now_s)
        if self.link.connected:
            self._send(self.session.flush(now_s))

    def look_around(self, now_s: float) -> bool:
        """See what has become of connection and deadlines, when nothing has come for a while.

        Returns:
            whether to give up this server for the next: close the link then, and open it again
        """
        self.take_news(now_s)
        self.session.expire(now_s)
        if self.link.connected:
            self._well_s = now_s
            self._send(self.session.overdue(now_s))
        elif self.link.alternatives and now_s - self._well_s > CONNECT_S:
            self.link.next_url()
            return True
        return False

    def _send(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            if not self.link.send(frame):
                return  # no room or no connection: overdue or reconnected sends it again
