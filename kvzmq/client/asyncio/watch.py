"""Watches of the asyncio client."""

from __future__ import annotations

import time

from kvzmq.client.asyncio.stream import AsyncStream
from kvzmq.client.core.timeouts import check_wait
from kvzmq.client.core.watch_state import BaseWatch, Event, WatchState


class AsyncWatch(BaseWatch, AsyncStream[Event, WatchState]):
    """An asynchronous iterator over changes, on a connection of its own; for one task at a time.

    It begins when it is first asked for a change, or at once with `async with`.
    """

    _name = "kvzmq.AsyncWatch"

    async def get(self, timeout: float | None = None) -> Event:
        """Return the next change, waiting `timeout` seconds at most, or without end if None.

        Raises:
            Timeout: none came, or the server did not answer when the watch was to begin
            RevisionGone: changes were missed, and the server no longer keeps them; or the table went back in time
            TableChanged: another table answers where the one that was watched did
        """
        return await self._get(timeout)

    async def progress(self, timeout: float | None = None) -> int:
        """Wait until everything that the table holds now has come, and return its revision; see Watch.progress.

        Raises:
            Timeout: the server did not answer
            RevisionGone, TableChanged: see `get`
        """
        self._check_process()
        deadline_s = time.monotonic() + (self._timeout_s if timeout is None else check_wait(timeout))
        if not self._begun:
            await self.start(timeout)
        self._state.begin_progress()
        self._state.wants_progress = True
        try:
            while (revision := self._state.arrived) is None:
                self._raise_error()
                if time.monotonic() >= deadline_s:
                    raise self._channel.no_answer("the watch has not caught up in time")
                await self._wait(deadline_s, lambda: self._state.arrived is not None)
        finally:
            self._state.wants_progress = False
        return revision

    @property
    def _reads(self) -> bool:
        return super()._reads or self._state.wants_progress
