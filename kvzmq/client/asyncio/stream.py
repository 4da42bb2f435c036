"""What a server pushes to the asyncio client, as an asynchronous iterator: the base of watches and monitors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from kvzmq import errors
from kvzmq.client.asyncio.connection import Wakeups, resolve_endpoint
from kvzmq.client.core.push_channel import PushChannel
from kvzmq.client.core.push_state import PushState
from kvzmq.client.core.stream import BaseStream
from kvzmq.client.core.timeouts import check_wait

T = TypeVar("T")
S = TypeVar("S", bound="PushState[Any]")
Self = TypeVar("Self", bound="AsyncStream[Any, Any]")

_TICK_S = 0.5
"""How often a stream that waits looks after its connection."""

EVENTS_MAX = 1000
"""From how many unread events on nothing more is read: the server keeps the rest, as long as it can."""


class AsyncStream(BaseStream[S], Generic[T, S]):
    """An asynchronous iterator over what a server pushes, on a connection of its own; for one task at a time.

    It begins when it is first asked for something, or at once with `async with`.
    """

    def __init__(self, channel: PushChannel[S], timeout_s: float) -> None:
        super().__init__(channel, timeout_s)
        self._wakeups = Wakeups(self._on_ready)
        self._waiter: asyncio.Future[None] | None = None
        self._begun = False

    async def start(self, timeout: float | None = None) -> None:
        """Wait until the server has begun it, as long as a call of the client may take if not said otherwise.

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
            await self._wait(deadline_s, lambda: self._state.started)
        self._begun = True

    async def _get(self, timeout: float | None) -> T:
        self._check_process()
        events: deque[T] = self._state.events
        if events:
            return events.popleft()
        if not self._begun:
            await self.start(timeout)
        deadline_s = float("inf") if timeout is None else time.monotonic() + check_wait(timeout)
        while True:
            self._on_ready()  # what was left unread
            if events:
                return events.popleft()
            self._raise_error()
            if time.monotonic() >= deadline_s:
                raise errors.Timeout(f"no {self._item} within {timeout} seconds")
            await self._wait(deadline_s, lambda: bool(events))

    def _raise_error(self) -> None:
        if self._state.error is not None:
            raise self._state.error
        if self._closed:
            raise self._closed_error()

    async def _wait(self, deadline_s: float, reached: Callable[[], bool]) -> None:
        """Look after the connection, then wait until something comes, a moment at most."""
        now_s = time.monotonic()
        if not self._channel.is_open:
            with contextlib.suppress(errors.CatalogError):
                await resolve_endpoint(self._channel.endpoints, self._state.lineage)
                if self._closed:
                    return
                self._channel.open(time.monotonic())
                if self._channel.socket is not None:
                    self._wakeups.start(self._channel.socket)
        else:
            self._on_ready()  # and ask again if no answer came
            if self._channel.fail_over(now_s):
                self._drop()
                return
        if reached() or self._state.error is not None:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        socket = self._channel.socket
        due_s = deadline_s if socket is None else min(deadline_s, socket.due_s)
        timer = loop.call_later(max(0.0, min(_TICK_S, due_s - now_s)), self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    @property
    def _reads(self) -> bool:
        return len(self._state.events) < EVENTS_MAX

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _on_ready(self) -> None:
        socket = self._channel.socket
        if socket is None:
            return
        self._channel.tick(time.monotonic())
        if self._reads:
            self._channel.receive_all(time.monotonic())
        if self._state.events or self._state.error is not None or self._state.started:
            self._wake()
        # Always looked at, or the descriptor would call back without end; what is not read now, the next `get` reads.
        self._wakeups.follow(socket)
        if socket.readable and self._reads:
            asyncio.get_running_loop().call_soon(self._on_ready)

    def __aiter__(self: Self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._get(None)
        except ValueError:
            if self._closed:
                raise StopAsyncIteration from None
            raise

    def _drop(self) -> None:
        self._wakeups.stop()
        self._channel.close()

    async def close(self) -> None:
        """End it: its iteration stops."""
        self._closed = True
        self._state.events.clear()
        if os.getpid() != self._pid:
            return  # the connection is the parent's
        self._drop()
        self._wake()

    async def __aenter__(self: Self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
