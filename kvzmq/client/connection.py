"""How threads of one process share a conversation with the server.

There is no thread of its own. The first thread that has something to ask leads: it sends what waits,
its own and others', and reads replies until it has its own; then it hands the lead to one that still
waits. So one thread alone pays nothing for the others, and threads that wait at the same time share
messages.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import zmq

from kvzmq import errors
from kvzmq.client.conversation import Conversation
from kvzmq.client.link import Link, resolve
from kvzmq.client.operations import Plan
from kvzmq.client.session import Call, check_size

_SLICE_MS = 50
"""How long the leader reads without a look at the connection and the clock."""

_CATALOG_PAUSE_S = 0.2


def open_link(link: Link, deadline_s: float) -> None:
    """Find out where the link's URL leads, and connect it if it is not connected yet.

    Raises:
        CatalogError: no catalog could say where the server is, up to the deadline
        ValueError: ZeroMQ does not take the endpoint
    """
    while not link.is_open:
        try:
            endpoint = resolve(link.url, max(0.01, deadline_s - time.monotonic()))
        except errors.CatalogError:
            if time.monotonic() + _CATALOG_PAUSE_S >= deadline_s:
                raise
            time.sleep(_CATALOG_PAUSE_S)
            link.next_url()
        else:
            link.open(endpoint)
            link.socket.setsockopt(zmq.RCVTIMEO, _SLICE_MS)


class Connection:
    """A conversation that threads share.

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
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # held for moments only, never while waiting
        self._conversation = Conversation(self.urls, self.context)
        self._led = False
        self._followers: dict[Call, threading.Event] = {}

    @property
    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The ZeroMQ context."""
        return self._context or zmq.Context.instance()

    @property
    def revision(self) -> int:
        """The highest revision any reply has told."""
        return self._conversation.session.revision

    def run(self, plan: Plan, timeout_s: float | None = None) -> Any:
        """Send a plan's operations and return what it makes of the results, or raise its error."""
        deadline_s = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        call = check_size(Call(plan.ops, plan.writes, plan.finish, deadline_s))
        if self._pid != os.getpid():
            self._begin()  # a forked child has a conversation of its own
        follower = None
        with self._lock:
            if self.closed:
                raise ValueError("the client is closed")
            self._conversation.session.submit(call)
            if self._led:
                follower = self._followers[call] = threading.Event()
            self._led = True
        if follower is not None:
            self._follow(call, follower)
        if not call.done:
            self._lead(call)
        if call.error is not None:
            raise call.error
        return call.value

    def _follow(self, call: Call, follower: threading.Event) -> None:
        """Wait until the call is done, or until it is this thread's turn to lead."""
        try:
            follower.wait(max(0.0, call.deadline_s - time.monotonic()))
        except BaseException:
            self._give_up(call)
            raise
        with self._lock:
            if self._followers.pop(call, None) is not None and not call.done:
                self._conversation.session.expire(call.deadline_s)  # and not the turn to lead

    def _give_up(self, call: Call) -> None:
        """Leave though the call is not done, as when the thread is interrupted."""
        with self._lock:
            self._conversation.session.abandon(call)
            if self._followers.pop(call, None) is None:
                self._hand_over()  # this thread had just been woken, perhaps to lead

    def _lead(self, call: Call) -> None:
        """Send and receive for everybody until the call is done."""
        try:
            while not call.done:
                if not self._conversation.link.is_open:
                    self._open(call.deadline_s)
                self._exchange(call)
        except BaseException:
            with self._lock:
                self._conversation.session.abandon(call)
            raise
        finally:
            with self._lock:
                self._hand_over()

    def _open(self, deadline_s: float) -> None:
        open_link(self._conversation.link, deadline_s)
        self._conversation.opened(time.monotonic())

    def _exchange(self, call: Call) -> None:
        """Send what waits, and read until something comes or the slice is over."""
        conversation = self._conversation
        now_s = time.monotonic()
        with self._lock:
            conversation.send_waiting(now_s)
        frame = self._receive(min(_SLICE_MS, int((call.deadline_s - now_s) * 1000) + 1))
        with self._lock:
            if frame is not None:
                conversation.session.receive(frame)
            elif conversation.look_around(time.monotonic()):
                conversation.link.close()
            if self._followers:
                self._wake_done()

    def _receive(self, wait_ms: int) -> bytes | None:
        link = self._conversation.link
        if not link.connected:
            link.monitor.poll(max(0, wait_ms))
            return None
        try:
            if wait_ms == _SLICE_MS:  # the socket's own timeout spares a poll
                return link.socket.recv()
            return link.socket.recv(zmq.NOBLOCK) if link.socket.poll(max(0, wait_ms)) else None
        except zmq.Again:
            return None

    def _wake_done(self) -> None:
        for call in [call for call in self._followers if call.done]:
            self._followers.pop(call).set()

    def _hand_over(self) -> None:
        """Wake those whose call is done, and have one of the others lead."""
        self._wake_done()
        successor = next(iter(self._followers), None)
        self._led = successor is not None
        if successor is not None:
            self._followers.pop(successor).set()
        elif self.closed:
            self._conversation.link.close()

    def close(self) -> None:
        """Drop the connection; calls of other threads end with Timeout or OutcomeUnknown."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._conversation.session.expire(float("inf"))
            self._wake_done()
            if not self._led:
                self._conversation.link.close()
