"""The methods of the asyncio client that concern the server: what it tells of itself, and what it pushes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from kvzmq.client.asyncio.shell import AsyncShell
from kvzmq.client.core.call import Call
from kvzmq.client.core.calls import SLOW_REQUESTS
from kvzmq.client.core.procedures import BACKUP_POLL_S, BackupReading, all_clients

if TYPE_CHECKING:
    from kvzmq.client.asyncio.monitor import AsyncMonitor
    from kvzmq.client.asyncio.watch import AsyncWatch
    from kvzmq.client.core.monitor_state import MonitoredRequest


class AsyncServerMethods(AsyncShell):
    """Asks about the server, and has it push."""

    async def ping(self, *, timeout: float | None = None) -> float:
        """Return how long the server took to answer, seconds."""
        began_s = time.perf_counter()
        await self._run(self._calls.ping(), timeout)
        return time.perf_counter() - began_s

    async def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the server says of itself, by name."""
        described: dict[str, Any] = await self._run(self._calls.stats(), timeout)
        return described

    async def clients(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """Return what the server knows of each client that is connected, by name."""
        return await self._perform(all_clients(self._calls), timeout)

    async def kick(self, name: str, *, timeout: float | None = None) -> bool:
        """End the connection of the client that `clients` calls so; False if there is none. Ours connect again."""
        ended: bool = await self._run(self._calls.kick(name), timeout)
        return ended

    async def slow_requests(
        self, limit: int = SLOW_REQUESTS, *, timeout: float | None = None
    ) -> list[MonitoredRequest]:
        """Return at most `limit` of the requests that took longest, the slowest first, as the server keeps them."""
        found: list[MonitoredRequest] = await self._run(self._calls.slow_requests(limit), timeout)
        return found

    async def backup(self, *, timeout: float | None = None) -> AsyncIterator[bytes]:
        """Yield a backup of the whole table in pieces; see Client.backup."""
        reading = BackupReading(self._calls)
        while not await self._perform(reading.begin(), timeout):
            await asyncio.sleep(BACKUP_POLL_S)
        while piece := await self._perform(reading.next_piece(), timeout):
            yield piece

    # ---- what it pushes

    def watch(
        self,
        prefix: str = "",
        from_revision: int | None = None,
        *,
        epoch: str | None = None,
        timeout: float | None = None,
    ) -> AsyncWatch:
        """Return an asynchronous iterator over the changes of keys that begin with `prefix`; see Client.watch.

        It begins when it is first asked for a change, or at once with `async with table.watch(...) as events`;
        the server has `timeout` seconds for that.
        """
        return self._watch(lambda *place: self._calls.watch(prefix, *place), from_revision, epoch, timeout)

    def watch_query(
        self,
        subkey: str,
        subvalue: object,
        from_revision: int | None = None,
        *,
        epoch: str | None = None,
        timeout: float | None = None,
    ) -> AsyncWatch:
        """Return an asynchronous iterator over the changes of the rows that `query` finds; see Client.watch_query."""
        return self._watch(
            lambda *place: self._calls.watch_query(subkey, subvalue, *place), from_revision, epoch, timeout
        )

    def _watch(
        self,
        make_call: Callable[[int | None, str | None], Call],
        from_revision: int | None,
        epoch: str | None,
        timeout: float | None,
    ) -> AsyncWatch:
        channel = self._watch_channel(make_call, from_revision, epoch)
        from kvzmq.client.asyncio.watch import AsyncWatch

        return AsyncWatch(channel, self._timeout_s(timeout))

    def monitor(
        self,
        client: str = "",
        op: str = "",
        prefix: str = "",
        slower_than_s: float = 0.0,
        sample: int = 1,
        *,
        timeout: float | None = None,
    ) -> AsyncMonitor:
        """Return an asynchronous iterator over the requests that the server answers; see Client.monitor.

        It begins when it is first asked for one, or at once with `async with table.monitor(...) as requests`.
        """
        channel = self._monitor_channel(client, op, prefix, slower_than_s, sample)
        from kvzmq.client.asyncio.monitor import AsyncMonitor

        return AsyncMonitor(channel, self._timeout_s(timeout))
