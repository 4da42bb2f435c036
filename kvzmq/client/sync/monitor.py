"""Monitors of the blocking client."""

from __future__ import annotations

from kvzmq.client.core.monitor_state import MonitoredRequest, MonitorState
from kvzmq.client.sync.stream import Stream


class Monitor(Stream[MonitoredRequest, MonitorState]):
    """An iterator over the requests that a server answers, on a connection of its own; for one thread at a time.

    `next(monitor)` waits for the next one; `get` does so for a limited time. Close it, or use it in a `with` block. It
    goes on through reconnects and restarts of the server; what was answered meanwhile is not told, and `connections`
    has grown.
    """

    _kind = "monitor"
    _item = "request"
    _forked = "this monitor belongs to the process that made it: make one here"

    def get(self, timeout: float | None = None) -> MonitoredRequest:
        """Return the next request, waiting `timeout` seconds at most, or without end if None.

        Raises:
            Timeout: none came
            NotAllowed: the rights of this client have changed
            ResultTooLarge: after a reconnect, there were monitors enough
            TableChanged: another table answers
        """
        return self._get(timeout)

    @property
    def dropped(self) -> int:
        """How many requests the server has not looked at, or not kept for this monitor, as far as it has told."""
        return self._state.dropped

    @property
    def connections(self) -> int:
        """How often a server has begun it: 1, and one more after each reconnect."""
        return self._state.begun

    def __repr__(self) -> str:
        return f"<kvzmq.Monitor, {self.dropped} dropped{' closed' if self._closed else ''}>"
