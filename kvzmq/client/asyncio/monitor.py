"""Monitors of the asyncio client."""

from __future__ import annotations

from kvzmq.client.asyncio.stream import AsyncStream
from kvzmq.client.core.monitor_state import MonitoredRequest, MonitorState


class AsyncMonitor(AsyncStream[MonitoredRequest, MonitorState]):
    """An asynchronous iterator over the requests that a server answers; for one task at a time.

    It has a connection of its own, and begins when it is first asked for something, or at once with `async with`. It
    goes on through reconnects and restarts of the server; what was answered meanwhile is not told, and `connections`
    has grown.
    """

    _kind = "monitor"
    _item = "request"
    _forked = "this monitor belongs to the process that made it: make one here"

    async def get(self, timeout: float | None = None) -> MonitoredRequest:
        """Return the next request, waiting `timeout` seconds at most, or without end if None.

        Raises:
            Timeout: none came, or the server did not answer when the monitor was to begin
            NotAllowed: the rights of this client have changed
            ResultTooLarge: after a reconnect, there were monitors enough
            TableChanged: another table answers
        """
        return await self._get(timeout)

    @property
    def dropped(self) -> int:
        """How many requests the server has not looked at, or not kept for this monitor, as far as it has told."""
        return self._state.dropped

    @property
    def connections(self) -> int:
        """How often a server has begun it: 1, and one more after each reconnect."""
        return self._state.begun

    def __repr__(self) -> str:
        return f"<kvzmq.AsyncMonitor, {self.dropped} dropped{' closed' if self._closed else ''}>"
