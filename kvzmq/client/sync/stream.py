"""What a server pushes to the blocking client, as an iterator: the base of watches and monitors."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from kvzmq import errors
from kvzmq.client.core.descriptor import Descriptor
from kvzmq.client.core.push_channel import PushChannel
from kvzmq.client.core.push_state import PushState
from kvzmq.client.core.stream import BaseStream
from kvzmq.client.core.timeouts import check_wait
from kvzmq.client.sync.connection import CATALOG_PAUSE_S, resolve_endpoint

T = TypeVar("T")
S = TypeVar("S", bound="PushState[Any]")
Self = TypeVar("Self", bound="Stream[Any, Any]")

_TICK_S = 0.1
"""How often a stream that waits looks after its connection."""


class Stream(BaseStream[S], Iterator[T], Generic[T, S]):
    """An iterator over what a server pushes, on a connection of its own; for one thread at a time.

    Close it, or use it in a `with` block.
    """

    def __init__(self, channel: PushChannel[S], timeout_s: float) -> None:
        super().__init__(channel, timeout_s)
        self._descriptor: Descriptor | None = None

    def start(self, timeout: float | None = None) -> None:
        """Wait until the server has begun it; the client's method that made this has done so already.

        Raises:
            Timeout: it did not answer
            KvzmqError: it refused
        """
        self._check_process()
        deadline_s = time.monotonic() + (self._timeout_s if timeout is None else check_wait(timeout))
        while not self._state.started:
            self._raise_error()
            if time.monotonic() >= deadline_s:
                raise self._channel.no_answer(f"the {self._kind} has not begun in time")
            self._wait(deadline_s)

    def _get(self, timeout: float | None) -> T:
        self._check_process()
        events: deque[T] = self._state.events
        if events:
            return events.popleft()
        deadline_s = float("inf") if timeout is None else time.monotonic() + check_wait(timeout)
        while True:
            self._check_open()
            self._wait(deadline_s)
            if events:
                return events.popleft()
            self._raise_error()
            if time.monotonic() >= deadline_s and not self._channel.unread:
                raise errors.Timeout(f"no {self._item} within {timeout} seconds")

    def fileno(self) -> int:
        """Return a descriptor for zmq.Poller, select, or a loop's add_reader: readable when there may be something.

        When it is readable, and once before it is first waited for, call `get(timeout=0)` until it raises
        Timeout: what is left unread may not make it readable again. Wait a second at most and do so then, too:
        the connection is looked after only in `get`.
        """
        self._check_process()
        self._check_open()
        if self._descriptor is None:
            self._descriptor = Descriptor()
            self._descriptor.follow(self._channel.socket)
        return self._descriptor.fileno()

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

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

    def __iter__(self: Self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self._get(None)
        except ValueError:
            if self._closed:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """End it: its iteration stops."""
        self._closed = True
        self._state.events.clear()
        if os.getpid() != self._pid:
            return  # the connection is the parent's
        self._channel.close()
        if self._descriptor is not None:
            self._descriptor.close()
            self._descriptor = None

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
