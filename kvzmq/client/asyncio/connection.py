"""How the tasks of one event loop share a channel to the server. No thread, no zmq.asyncio.

What the tasks of one turn of the loop ask for travels as one message, or as a few if it is much. A task
that is cancelled leaves its operation to the server or takes it back unsent; its reply, if one comes,
reaches nobody else.
While nothing waits there is no timer, and nothing runs.
"""

from __future__ import annotations

import asyncio
import math
import os
import selectors
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvzmq import errors
from kvzmq.client.core.base import BaseConnection
from kvzmq.client.core.call import Call
from kvzmq.client.core.endpoints import CATALOG_S, Endpoints, resolve
from kvzmq.client.core.reads import LINEARIZABLE, Reads
from kvzmq.client.core.session_channel import TICK_S, SessionChannel
from kvzmq.client.core.socket import Socket, frames
from kvzmq.client.core.targets import Target
from kvzmq.client.core.timeouts import check_timeout, deadline
from kvzmq.client.core.transports import Opener

FLUSH_CALLS = 512
"""How many calls of one turn of the loop are sent together; those beyond it do not wait for the end of the turn."""

_NONE: Mapping[int, int] = {}


class Wakeups:
    """Has the event loop call back when a socket may have something; see Socket.descriptors.

    Args:
        on_ready: looks at the socket until it is neither readable nor has events, or comes back later
    """

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._followed = _NONE
        self._watched: dict[int, int] = {}

    def start(self, socket: Socket) -> None:
        """Begin with a socket, on the running loop."""
        self._loop = asyncio.get_running_loop()
        socket.on_closing = self._forget
        self.follow(socket)
        self._loop.call_soon(self._on_ready)  # for what came before

    def follow(self, socket: Socket | None) -> None:
        """Watch the descriptors that the socket has now; to be called whenever they may have changed."""
        now = _NONE if socket is None else socket.descriptors
        if now is self._followed:
            return
        loop = self._loop
        if loop is not None and not loop.is_closed():
            for fd in list(self._watched):
                if fd not in now:
                    self._forget(fd)
            for fd, events in now.items():
                before = self._watched.get(fd, 0)
                self._watched[fd] = events
                _watch(events & ~before, fd, loop.add_reader, loop.add_writer, self._on_ready)
                _watch(before & ~events, fd, loop.remove_reader, loop.remove_writer)
        self._followed = now

    def _forget(self, fd: int) -> None:
        """Watch a descriptor no more: before it is closed, and its number somebody else's."""
        events = self._watched.pop(fd, 0)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            _watch(events, fd, loop.remove_reader, loop.remove_writer)

    def stop(self) -> None:
        """End; before the socket is closed."""
        self.follow(None)
        self._loop = None
        self._watched.clear()


def _watch(events: int, fd: int, on_read: Callable[..., Any], on_write: Callable[..., Any], *call: Any) -> None:
    if events & selectors.EVENT_READ:
        on_read(fd, *call)
    if events & selectors.EVENT_WRITE:
        on_write(fd, *call)


async def resolve_endpoint(endpoints: Endpoints, lineage: str | None) -> None:
    """Find out where the URL in use leads, asking a catalog off the loop if need be.

    Args:
        endpoints: of the servers
        lineage: of the table that the client knows: a catalog's servers of others are left out

    Raises:
        CatalogError: the catalog could not say where the server is; the next URL is in use now
    """
    if endpoints.must_resolve:
        try:
            endpoints.resolved(await asyncio.to_thread(resolve, endpoints.url, CATALOG_S, lineage))
        except errors.CatalogError as error:
            if not endpoints.not_resolved(error):
                raise


class AsyncConnection(BaseConnection):
    """A connection that the tasks of one event loop share."""

    def __init__(
        self, targets: Sequence[Target], timeout_s: float, open_socket: Opener, reads: Reads = LINEARIZABLE
    ) -> None:
        super().__init__(targets, timeout_s, open_socket, reads)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin(None, 0)

    def _begin(self, lineage: str | None, revision: int) -> None:
        self._pid = os.getpid()
        self._channel = SessionChannel(Endpoints(self.targets), self.open_socket, lineage, self.reads, revision)
        self._wakeups = Wakeups(self._on_ready)
        self._flushing = False
        self._ticking: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def lineage(self) -> str | None:
        """The lineage of the table that this client has asked; or None."""
        return self._channel.session.hello.lineage

    @property
    def revision(self) -> int:
        """The highest revision in any reply, or event of a watch."""
        return self._channel.session.revision

    def note_seen(self, revision: int) -> None:
        """Take note that this client has seen a revision elsewhere: its session reads then see it, too."""
        self._channel.session.revision = max(self.revision, revision)

    async def run(self, call: Call, timeout_s: float | None = None) -> Any:
        """Send a call's operations and return what it makes of the results, or raise its error."""
        if self.closed:
            raise ValueError("the client is closed")
        loop = asyncio.get_running_loop()
        if loop is not self._loop or os.getpid() != self._pid:
            self._move_to(loop)
        call.deadline_s = deadline(time.monotonic(), self.timeout_s if timeout_s is None else check_timeout(timeout_s))
        future = call.waiter = loop.create_future()
        call.on_done = _set_outcome
        waiting = self._channel.session.submit(call)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)  # after all the tasks of this turn have asked
        elif waiting % FLUSH_CALLS == 0:
            self._flush_some()  # the server can begin while further tasks ask
        try:
            return await future
        finally:
            if not call.done:
                self._channel.session.abandon(call)

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve this loop from now on, if the one served before has ended, or was the parent's of this process."""
        if self._pid != os.getpid():
            self._channel.forget()  # the parent's, which the two processes share
            self._begin(self.lineage, self.revision)
        elif self._loop is not None:
            if not self._loop.is_closed():
                raise RuntimeError(
                    "this client belongs to another event loop: make one for each loop with kvzmq.connect_async(url)"
                )
            self._wakeups.stop()
            self._channel.close()
            self._begin(self.lineage, self.revision)
        self._loop = loop

    # ---- out

    def _flush(self) -> None:
        self._flushing = False
        if self.closed:
            return
        if self._channel.is_open:
            self._send_waiting(time.monotonic())
        else:
            self._open_soon()
        if self._ticking is None:
            self._tick_later()

    def _flush_some(self) -> None:
        if not self.closed and self._channel.connected:
            self._send_waiting(time.monotonic())

    def _send_waiting(self, now_s: float) -> None:
        self._channel.send_waiting(now_s)
        socket = self._channel.socket
        if self._loop is not None and socket is not None:
            self._wakeups.follow(socket)
            if socket.readable:  # sending may have cleared the descriptor
                self._loop.call_soon(self._on_ready)

    def _open_soon(self) -> None:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        channel = self._channel
        try:
            await resolve_endpoint(channel.endpoints, channel.session.hello.lineage)
            if not self.closed:
                channel.open(time.monotonic())
                if channel.socket is not None:
                    self._wakeups.start(channel.socket)
        except errors.CatalogError as error:
            channel.catalog_error = error  # a later tick tries again, until the callers' deadlines
        except (ValueError, OSError) as error:
            channel.session.fail(error)
        finally:
            self._opening = None

    # ---- in

    def _on_ready(self) -> None:
        """Take note of what became of the connection, read what there is, and send what that allows."""
        channel = self._channel
        socket = channel.socket
        if socket is None:
            return
        now_s = time.monotonic()
        idle = True
        for frame in frames(socket):
            channel.receive(frame, now_s)
            idle = False
        if idle and socket.has_events:  # else the next callback does: libzmq takes 1 us for it, a lone lookup 45 us
            channel.poll_events(now_s)
        self._send_waiting(now_s)

    # ---- time

    def _tick_later(self) -> None:
        socket = self._channel.socket
        due_s = math.inf if socket is None else socket.due_s - time.monotonic()
        self._ticking = asyncio.get_running_loop().call_later(min(TICK_S, max(0.0, due_s)), self._tick)

    def _tick(self) -> None:
        self._ticking = None
        if self.closed:
            return
        now_s = time.monotonic()
        channel = self._channel
        if not channel.is_open:
            channel.expire(now_s)
        elif channel.tick(now_s):
            self._wakeups.stop()
            channel.close()
        else:
            self._send_waiting(now_s)
        if not channel.session.idle:
            if not channel.is_open:
                self._open_soon()
            self._tick_later()

    def close(self) -> None:
        """Drop the connection; calls that still wait end with Timeout or OutcomeUnknown."""
        if self.closed:
            return
        self.closed = True
        if self._pid != os.getpid():
            return  # the connection is the parent's
        if self._ticking is not None:
            self._ticking.cancel()
        self._channel.session.close()
        self._wakeups.stop()
        self._channel.close()


def _set_outcome(call: Call) -> None:
    future: asyncio.Future[Any] = call.waiter
    if future.done():
        return  # cancelled
    try:
        if call.error is None:
            future.set_result(call.value)
        else:
            future.set_exception(call.error)
    except RuntimeError:
        return  # the loop is closed, and nobody waits any more
