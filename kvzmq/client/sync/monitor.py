"""Monitors of the blocking client."""

from __future__ import annotations

from kvzmq.client.core.monitor_state import BaseMonitor, MonitoredRequest, MonitorState
from kvzmq.client.sync.stream import Stream


class Monitor(BaseMonitor, Stream[MonitoredRequest, MonitorState]):
    """An iterator over the requests that a server answers, on a connection of its own; for one thread at a time.

    `next(monitor)` waits for the next one; `get` does so for a limited time. Close it, or use it in a `with` block. It
    goes on through reconnects and restarts of the server; what was answered meanwhile is not told, and `connections`
    has grown.
    """

    _name = "kvzmq.Monitor"

    def get(self, timeout: float | None = None) -> MonitoredRequest:
        """Return the next request, waiting `timeout` seconds at most, or without end if None.

        Raises:
            Timeout: none came
            NotAllowed: the rights of this client have changed
            ResultTooLarge: after a reconnect, there were monitors enough
            TableChanged: another table answers
        """
        return self._get(timeout)
