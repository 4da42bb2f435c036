"""How the tasks of one event loop share a conversation with the server. No thread, no zmq.asyncio.

What the tasks of one turn of the loop ask for travels as one message, or as a few if it is much. A task
that is cancelled leaves its operation to the server or takes it back unsent; its reply, if one comes,
reaches nobody else.
While nothing waits there is no timer, and nothing runs.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from kvzmq import errors
from kvzmq.client.core.channel import LOOK_S, Conversation, frames
from kvzmq.client.core.session import Call, deadline
from kvzmq.client.core.socket import Link, check_timeout, resolve

_CATALOG_S = 1.0
"""How long to wait for one answer of a catalog."""


SHARE = 512
"""So many calls of one turn of the loop are sent before the turn ends."""


class Wakeups:
    """Has the event loop call back when a link's sockets have something.

    A ZeroMQ socket's descriptor is readable while its mailbox has something that the socket has not
    looked at, and any call on the socket may look: so whoever is called back, or has just sent, must
    go on until `link.readable` says no, or come back.
    """

    def __init__(self, link: Link, on_frames: Callable[[], None], on_news: Callable[[], None]) -> None:
        self._link = link
        self._callbacks = (on_frames, on_news)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: list[int] = []

    def start(self) -> None:
        """Begin, on the running loop; the link is open."""
        self._loop = asyncio.get_running_loop()
        for sock, callback in zip((self._link.socket, self._link.monitor), self._callbacks):
            fd = int(sock.getsockopt(zmq.FD))
            self._loop.add_reader(fd, callback)
            self._watched.append(fd)
            self._loop.call_soon(callback)  # for what came before

    def stop(self) -> None:
        """End; before the link is closed."""
        if self._loop is not None and not self._loop.is_closed():
            for fd in self._watched:
                self._loop.remove_reader(fd)
        self._watched.clear()
        self._loop = None


async def open_link(link: Link, lineage: str | None) -> None:
    """Find out where the link's URL leads, asking a catalog off the loop if need be, and connect it.

    Args:
        link: not open
        lineage: of the table that the client knows: a catalog's servers of others are left out

    Raises:
        CatalogError: the catalog could not say where the server is; the link is set to the next URL
        ValueError: ZeroMQ does not take the endpoint
    """
    candidates = link.candidates
    if candidates.due:
        try:
            candidates.found(await asyncio.to_thread(resolve, link.url, _CATALOG_S, lineage))
        except errors.CatalogError as error:
            if not candidates.not_found(error):
                link.next_server()
                raise
    link.open(link.endpoint)


class AsyncConnection:
    """A conversation that the tasks of one event loop share.

    Args:
        urls: the servers, tried in turn
        timeout_s: how long a call may take unless it says otherwise
        context: the ZeroMQ context, or None for the process's own
    """

    def __init__(self, urls: Sequence[str], timeout_s: float, context: zmq.Context[zmq.Socket[bytes]] | None) -> None:
        self.urls = urls
        self.timeout_s = timeout_s
        self.closed = False
        self._context = context
        self._context_pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin(None)

    def _begin(self, lineage: str | None) -> None:
        self._pid = os.getpid()
        self._conversation = Conversation(self.urls, self.context, lineage)
        self._wakeups = Wakeups(self._conversation.link, self._on_frames, self._on_news)
        self._flushing = False
        self._ticking: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The ZeroMQ context; one that was given to the parent is of no use to a forked child."""
        own = self._context is not None and self._context_pid == os.getpid()
        return self._context if own and self._context is not None else zmq.Context.instance()

    @property
    def lineage(self) -> str | None:
        """The lineage of the table that this client has asked; or None."""
        return self._conversation.session.lineage

    @property
    def revision(self) -> int:
        """The highest revision any reply has told."""
        return self._conversation.session.revision

    async def run(self, call: Call, timeout_s: float | None = None) -> Any:
        """Send a call's operations and return what it makes of the results, or raise its error."""
        if self.closed:
            raise ValueError("the client is closed")
        loop = asyncio.get_running_loop()
        if loop is not self._loop or os.getpid() != self._pid:
            self._move_to(loop)
        call.deadline_s = deadline(self.timeout_s if timeout_s is None else check_timeout(timeout_s))
        future = call.waiter = loop.create_future()
        call.on_done = _settle
        waiting = self._conversation.session.submit(call)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)  # after all the tasks of this turn have asked
        elif waiting % SHARE == 0:
            self._flush_some()  # the server can begin while further tasks ask
        try:
            return await future
        finally:
            if not call.done:
                self._conversation.session.abandon(call)

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve this loop from now on, if the one served before has ended, or was the parent's of this process."""
        if self._pid != os.getpid():
            self._begin(self.lineage)  # and leave the parent's sockets, which the two processes share, alone
        elif self._loop is not None:
            if not self._loop.is_closed():
                raise RuntimeError(
                    "this client belongs to another event loop: make one for each loop with kvzmq.connect_async(url)"
                )
            self._wakeups.stop()
            self._conversation.link.close()
            self._begin(self.lineage)
        self._loop = loop

    # ---- out

    def _flush(self) -> None:
        self._flushing = False
        if self.closed:
            return
        if self._conversation.link.is_open:
            self._send_waiting(time.monotonic())
        else:
            self._open_soon()
        if self._ticking is None:
            self._tick_later()

    def _flush_some(self) -> None:
        if not self.closed and self._conversation.link.connected:
            self._send_waiting(time.monotonic())

    def _send_waiting(self, now_s: float) -> None:
        self._conversation.send_waiting(now_s)
        link = self._conversation.link
        if self._loop is not None and link.readable:  # sending may have taken the descriptor's sign
            self._loop.call_soon(self._on_frames)

    def _open_soon(self) -> None:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        conversation = self._conversation
        try:
            await open_link(conversation.link, conversation.session.lineage)
            if self.closed:
                conversation.link.close()
            else:
                conversation.opened(time.monotonic())
                self._wakeups.start()
        except errors.CatalogError as error:
            conversation.catalog_error = error  # a later tick tries again, until the callers' deadlines
        except (ValueError, zmq.ZMQError) as error:
            conversation.session.fail(error)
        finally:
            self._opening = None

    # ---- in

    def _on_frames(self) -> None:
        """Read what there is, and send what that allows."""
        link = self._conversation.link
        if not link.is_open:
            return
        now_s = time.monotonic()
        for frame in frames(link):
            self._conversation.receive(frame, now_s)
        self._send_waiting(now_s)

    def _on_news(self) -> None:
        """Take note of what became of the connection."""
        if self._conversation.link.is_open:
            now_s = time.monotonic()
            self._conversation.take_news(now_s)
            self._send_waiting(now_s)

    # ---- time

    def _tick_later(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(LOOK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        if self.closed:
            return
        now_s = time.monotonic()
        conversation = self._conversation
        if not conversation.link.is_open:
            conversation.expire(now_s)
        elif conversation.look_around(now_s):
            self._wakeups.stop()
            conversation.link.close()
        else:
            self._send_waiting(now_s)
        if not conversation.session.idle:
            if not conversation.link.is_open:
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
        self._conversation.session.close()
        self._wakeups.stop()
        if self._opening is None:
            self._conversation.link.close()


def _settle(call: Call) -> None:
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
