"""Watches of the blocking client."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from types import TracebackType
from typing import NoReturn

from kvzmq import errors
from kvzmq.client.core.descriptor import Descriptor
from kvzmq.client.core.timeouts import check_wait
from kvzmq.client.core.watch_channel import WatchChannel
from kvzmq.client.core.watch_state import FORKED, Event
from kvzmq.client.sync.connection import CATALOG_PAUSE_S, resolve_endpoint

_TICK_S = 0.1
"""How often a watch that waits looks after its connection."""


class Watch(Iterator[Event]):
    """An iterator over changes, on a connection of its own; for one thread at a time.

    `next(watch)` waits for the next change; `get` does so for a limited time. Close it, or use it
    in a `with` block.
    """

    def __init__(self, channel: WatchChannel, timeout_s: float) -> None:
        self._channel = channel
        self._state = channel.state
        self._timeout_s = timeout_s
        self._closed = False
        self._pid = os.getpid()
        self._descriptor: Descriptor | None = None

    def start(self, timeout: float | None = None) -> None:
        """Wait until the server has begun the watch; a client's `watch` has done so already.

        Raises:
            Timeout: it did not answer
            RevisionGone: it no longer keeps the changes from there on
        """
        self._check_process()
        deadline_s = time.monotonic() + (self._timeout_s if timeout is None else check_wait(timeout))
        while not self._state.started:
            self._raise_error()
            if time.monotonic() >= deadline_s:
                raise self._channel.no_answer("the watch has not begun in time")
            self._wait(deadline_s)

    def get(self, timeout: float | None = None) -> Event:
        """Return the next change, waiting `timeout` seconds at most, or without end if None.

        Raises:
            Timeout: none came
            RevisionGone: changes were missed, and the server no longer keeps them; or the table went back in time
            TableChanged: another table answers where the one that was watched did
        """
        self._check_process()
        events = self._state.events
        if events:
            return events.popleft()
        deadline_s = float("inf") if timeout is None else time.monotonic() + check_wait(timeout)
        while True:
            if self._closed:
                raise ValueError("the watch is closed")
            self._wait(deadline_s)
            if events:
                return events.popleft()
            self._raise_error()
            if time.monotonic() >= deadline_s and not self._channel.unread:
                raise errors.Timeout(f"no change within {timeout} seconds")

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
        self._channel.wants_progress = True
        try:
            while (revision := self._state.arrived) is None:
                if self._closed:
                    raise ValueError("the watch is closed")
                self._raise_error()
                if time.monotonic() >= deadline_s:
                    raise self._channel.no_answer("the watch has not caught up in time")
                self._wait(deadline_s)
        finally:
            self._channel.wants_progress = False
        return revision

    def fileno(self) -> int:
        """Return a descriptor for zmq.Poller, select, or a loop's add_reader: readable when there may be something.

        When it is readable, and once before it is first waited for, call `get(timeout=0)` until it raises
        Timeout: what is left unread may not make it readable again. Wait a second at most and do so then, too:
        the watch looks after its connection only in `get`.
        """
        self._check_process()
        if self._closed:
            raise ValueError("the watch is closed")
        if self._descriptor is None:
            self._descriptor = Descriptor()
            self._descriptor.follow(self._channel.socket)
        return self._descriptor.fileno()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ValueError("the watch is closed") if self._closed else RuntimeError(FORKED)

    def _raise_error(self) -> None:
        if self._state.error is not None:
            raise self._state.error

    def _wait(self, deadline_s: float) -> None:
        """Wait for messages or connection events, a moment at most, and look after the connection."""
        try:
            self._look_after(deadline_s)
        finally:
            if self._descriptor is not None:
                self._descriptor.follow(self._channel.socket)

    def _look_after(self, deadline_s: float) -> None:
        now_s = time.monotonic()
        channel = self._channel
        wait_s = max(0.0, min(_TICK_S, deadline_s - now_s))
        if not channel.is_open:
            try:
                resolve_endpoint(channel.endpoints, self._state.lineage, max(wait_s, min(1.0, deadline_s - now_s)))
            except errors.CatalogError:
                time.sleep(min(wait_s, CATALOG_PAUSE_S))
                return
            channel.open(time.monotonic())
        channel.tick(now_s)
        if channel.fail_over(now_s):
            channel.close()
        elif channel.socket is not None:
            channel.socket.wait(wait_s)
            channel.receive_all(time.monotonic())

    @property
    def revision(self) -> int | None:
        """The revision up to which everything was seen: where a later watch can go on, with `epoch`."""
        return self._state.seen

    @property
    def epoch(self) -> str | None:
        """The table's epoch, 32 hexadecimal digits, when this watch last connected; None before."""
        return self._state.epoch

    def __reduce__(self) -> NoReturn:
        raise TypeError("a watch cannot be pickled: pass its revision and epoch, and watch from there")

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Event:
        try:
            return self.get()
        except ValueError:
            if self._closed:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """End the watch: its iteration stops."""
        self._closed = True
        self._state.events.clear()
        if os.getpid() != self._pid:
            return  # the connection is the parent's
        self._channel.close()
        if self._descriptor is not None:
            self._descriptor.close()
            self._descriptor = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kvzmq.Watch at revision {self.revision}{' closed' if self._closed else ''}>"
