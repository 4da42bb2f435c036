"""Watches of the blocking client."""

from __future__ import annotations

import time

from kvzmq.client.core.timeouts import check_wait
from kvzmq.client.core.watch_state import BaseWatch, Event, WatchState
from kvzmq.client.sync.stream import Stream


class Watch(BaseWatch, Stream[Event, WatchState]):
    """An iterator over changes, on a connection of its own; for one thread at a time.

    `next(watch)` waits for the next change; `get` does so for a limited time. Close it, or use it
    in a `with` block.
    """

    _name = "kvzmq.Watch"

    def get(self, timeout: float | None = None) -> Event:
        """Return the next change, waiting `timeout` seconds at most, or without end if None.

        Raises:
            Timeout: none came
            RevisionGone: changes were missed, and the server no longer keeps them; or the table went back in time
            TableChanged: another table answers where the one that was watched did
        """
        return self._get(timeout)

    def progress(self, timeout: float | None = None) -> int:
        """Wait until everything that the table holds now has come, and return its revision.

        The changes wait to be taken, as always. So when this returns, whoever takes them with `get(0)` until
        there are none has seen the table as it was at the call, or later.

        Args:
            timeout: seconds, or None for the client's

        Raises:
            Timeout: the server did not answer
            RevisionGone, TableChanged: see `get`
        """
        self._check_process()
        deadline_s = time.monotonic() + (self._timeout_s if timeout is None else check_wait(timeout))
        self._state.begin_progress()
        self._state.wants_progress = True
        try:
            while (revision := self._state.arrived) is None:
                self._check_open()
                self._raise_error()
                if time.monotonic() >= deadline_s:
                    raise self._channel.no_answer("the watch has not caught up in time")
                self._wait(deadline_s)
        finally:
            self._state.wants_progress = False
        return revision
