"""Monitors of the asyncio client."""

from __future__ import annotations

from kvzmq.client.asyncio.stream import AsyncStream
from kvzmq.client.core.monitor_state import BaseMonitor, MonitoredRequest, MonitorState


class AsyncMonitor(BaseMonitor, AsyncStream[MonitoredRequest, MonitorState]):
    """An asynchronous iterator over the requests that a server answers; for one task at a time.

    It has a connection of its own, and begins when it is first asked for something, or at once with `async with`. It
    goes on through reconnects and restarts of the server; what was answered meanwhile is not told, and `connections`
    has grown.
    """

    _name = "kvzmq.AsyncMonitor"

    async def get(self, timeout: float | None = None) -> MonitoredRequest:
        """Return the next request, waiting `timeout` seconds at most, or without end if None.

        Raises:
            Timeout: none came, or the server did not answer when the monitor was to begin
            NotAllowed: the rights of this client have changed
            ResultTooLarge: after a reconnect, there were monitors enough
            TableChanged: another table answers
        """
        return await self._get(timeout)
