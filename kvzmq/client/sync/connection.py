"""How threads of one process share a conversation with the server.

There is no thread of its own. The first thread that has something to ask leads: it sends what waits,
its own and others', and reads replies until it has its own; then it hands the lead to one that still
waits. So one thread alone pays nothing for the others, and threads that wait at the same time share
messages.

Who leads is written down in one place, `_Crew.leader`, under the lock. Whatever ends a thread's call,
a KeyboardInterrupt anywhere included, it passes `_leave`, which hands over if it still leads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import zmq

from kvzmq import errors
from kvzmq.client.core.channel import LOOK_S, Conversation
from kvzmq.client.core.session import Call, deadline
from kvzmq.client.core.socket import Link, check_timeout, resolve

_SLICE_MS = int(LOOK_S * 1000)
"""How long the leader reads at most without a look at the connection and the clock."""

_CATALOG_S = 1.0
"""How long to wait for one answer of a catalog."""

CATALOG_PAUSE_S = 0.2
"""How long to wait after a catalog has not helped."""


def open_link(link: Link, timeout_s: float, lineage: str | None) -> None:
    """Find out where the link's URL leads, in `timeout_s` at most, and connect it.

    Args:
        link: not open
        timeout_s: for a catalog
        lineage: of the table that the client knows: a catalog's servers of others are left out

    Raises:
        CatalogError: the catalog could not say where the server is; the link is set to the next URL
        ValueError: ZeroMQ does not take the endpoint
    """
    candidates = link.candidates
    if candidates.due:
        try:
            candidates.found(resolve(link.url, max(0.01, min(_CATALOG_S, timeout_s)), lineage))
        except errors.CatalogError as error:
            if not candidates.not_found(error):
                link.next_server()
                raise
    link.open(link.endpoint)
    link.socket.setsockopt(zmq.RCVTIMEO, _SLICE_MS)


class Connection:
    """A conversation that threads share; a forked child has one of its own.

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
        self._pid = os.getpid()
        self._crews: dict[int, _Crew] = {}

    @property
    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The ZeroMQ context; one that was given to the parent is of no use to a forked child."""
        own = self._context is not None and self._pid == os.getpid()
        return self._context if own and self._context is not None else zmq.Context.instance()

    def _crew(self) -> _Crew:
        pid = os.getpid()
        crew = self._crews.get(pid)
        # setdefault is atomic: no lock, which another thread might have held when the process forked.
        return crew or self._crews.setdefault(pid, _Crew(Conversation(self.urls, self.context, self.lineage)))

    @property
    def lineage(self) -> str | None:
        """The lineage of the table that this client, or the process it was forked from, has asked; or None."""
        return next((lineage for crew in self._crews.values() if (lineage := crew.conversation.session.lineage)), None)

    @property
    def revision(self) -> int:
        """The highest revision any reply has told."""
        return self._crew().conversation.session.revision

    def run(self, call: Call, timeout_s: float | None = None) -> Any:
        """Send a call's operations and return what it makes of the results, or raise its error."""
        if self.closed:
            raise ValueError("the client is closed")
        call.deadline_s = deadline(self.timeout_s if timeout_s is None else check_timeout(timeout_s))
        self._crew().run(call)
        if call.error is None:
            return call.value
        try:
            raise call.error
        finally:
            del call  # the traceback holds this frame: leave no cycle for the garbage collector

    def close(self) -> None:
        """Drop the connection; calls of other threads end with Timeout or OutcomeUnknown."""
        self.closed = True
        self._crew().close()


class _Crew:
    """The threads of one process that wait for answers, and the conversation they share."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.leader: Call | None = None
        """Whose thread sends and receives; set and read under the lock."""
        self._lock = threading.Lock()  # held for moments only, never while waiting
        self._followers: dict[Call, threading.Lock] = {}  # each a lock that is released to wake the thread, once
        self._look_s = 0.0
        self._closed = False

    def run(self, call: Call) -> None:
        """Return when the call is done."""
        try:
            turn = self._join(call)
            if turn is not None:
                self._follow(call, turn)
            if self.leader is call:
                self._lead(call)
        except BaseException:
            self._leave(call)
            raise

    def _join(self, call: Call) -> threading.Lock | None:
        with self._lock:
            if self._closed:
                raise ValueError("the client is closed")
            self.conversation.session.submit(call)
            if self.leader is None:
                self.leader = call
                return None
            turn = self._followers[call] = threading.Lock()
            turn.acquire()
            call.on_done = self._wake
            return turn

    def _wake(self, call: Call) -> None:
        turn = self._followers.pop(call, None)
        if turn is not None:
            turn.release()

    def _follow(self, call: Call, turn: threading.Lock) -> None:
        """Wait until the call is done, or until it is this thread's turn to lead."""
        turn.acquire(timeout=max(0.0, call.deadline_s - time.monotonic()))
        if call.done or self.leader is call:
            return
        with self._lock:
            self._followers.pop(call, None)
            if self.leader is not call:
                self.conversation.expire(max(call.deadline_s, time.monotonic()))
                self.conversation.session.end(call)

    def _lead(self, call: Call) -> None:
        """Send and receive for everybody until the call is done, and hand over."""
        conversation = self.conversation
        link = conversation.link
        now_s = time.monotonic()
        while self.leader is call:
            if not link.is_open:
                self._open(call)
            with self._lock:
                if link.is_open:
                    conversation.send_waiting(now_s)
                if call.done:  # refused before it was sent
                    self._hand_over()
                    break
            frame = _receive(link, call.deadline_s - now_s)
            now_s = time.monotonic()
            with self._lock:
                if frame is not None:
                    conversation.receive(frame, now_s)
                if frame is None or now_s >= self._look_s or now_s >= call.deadline_s:
                    self._look_around(now_s)
                if call.done:
                    self._hand_over()

    def _look_around(self, now_s: float) -> None:
        self._look_s = now_s + LOOK_S
        if not self.conversation.link.is_open:
            self.conversation.expire(now_s)
        elif self.conversation.look_around(now_s):
            self.conversation.link.close()

    def _open(self, call: Call) -> None:
        try:
            conversation = self.conversation
            open_link(conversation.link, call.deadline_s - time.monotonic(), conversation.session.lineage)
        except errors.CatalogError as error:
            self.conversation.catalog_error = error
            time.sleep(max(0.0, min(CATALOG_PAUSE_S, call.deadline_s - time.monotonic())))
        else:
            self.conversation.opened(time.monotonic())

    def _leave(self, call: Call) -> None:
        """Go before the call is done, or in the midst of handing over, as when the thread is interrupted."""
        with self._lock:
            self.conversation.session.abandon(call)
            self._followers.pop(call, None)
            if self.leader is call:
                self.conversation.session.resend_soon()
                self._look_s = 0.0
                self._hand_over()
            elif self.leader in self._followers:
                self._wake(self.leader)

    def _hand_over(self) -> None:
        """Have one of those who wait lead."""
        self.leader = next(iter(self._followers), None)
        if self.leader is not None:
            self._wake(self.leader)
        elif self._closed:
            self.conversation.link.close()

    def close(self) -> None:
        """End all calls, and drop the connection as soon as nobody reads from it."""
        with self._lock:
            self._closed = True
            self.conversation.session.close()
            if self.leader is None:
                self.conversation.link.close()


def _receive(link: Link, left_s: float) -> bytes | None:
    """Wait for a frame, _SLICE_MS or `left_s` at most, or for news of a connection that is not there."""
    wait_ms = _SLICE_MS if left_s >= LOOK_S else max(0, int(left_s * 1000) + 1)
    if not link.is_open:
        return None
    try:
        if not link.connected:
            if not link.readable:  # the last words of a server that has gone
                link.monitor.poll(wait_ms)
                return None
        elif wait_ms == _SLICE_MS:
            return link.socket.recv()  # the socket's own timeout spares a poll
        elif not link.socket.poll(wait_ms):
            return None
        return link.socket.recv(zmq.NOBLOCK)
    except zmq.Again:
        return None
