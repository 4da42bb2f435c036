"""How the threads of one process share a channel to the server, and take turns at reading from it.

There is no thread of its own. The first thread that has something to ask is the reader: it sends what waits,
its own and others', and reads replies until it has its own; then it passes the turn to one that still
waits. So one thread alone pays nothing for the others, and threads that wait at the same time share
messages.

Whose turn it is is written down in one place, `_SharedChannel.reader`, under the lock. Whatever ends a thread's call,
a KeyboardInterrupt anywhere included, it passes `_abandon`, which passes the turn if the thread still has it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from kvzmq import errors
from kvzmq.client.core.base import BaseConnection
from kvzmq.client.core.call import Call
from kvzmq.client.core.endpoints import CATALOG_S, Endpoints, resolve
from kvzmq.client.core.reads import LINEARIZABLE, Reads
from kvzmq.client.core.session_channel import TICK_S, SessionChannel
from kvzmq.client.core.targets import Target
from kvzmq.client.core.timeouts import check_timeout, deadline
from kvzmq.client.core.transports import Opener

CATALOG_PAUSE_S = 0.2
"""How long to wait after a catalog has not helped."""


def resolve_endpoint(endpoints: Endpoints, lineage: str | None, timeout_s: float) -> None:
    """Find out where the URL in use leads, asking a catalog if need be, for `timeout_s` at most.

    Args:
        endpoints: of the servers
        lineage: of the table that the client knows: a catalog's servers of others are left out
        timeout_s: for the catalog

    Raises:
        CatalogError: the catalog could not say where the server is; the next URL is in use now
    """
    if endpoints.must_resolve:
        try:
            endpoints.resolved(resolve(endpoints.url, max(0.01, min(CATALOG_S, timeout_s)), lineage))
        except errors.CatalogError as error:
            if not endpoints.not_resolved(error):
                raise


class Connection(BaseConnection):
    """A connection that threads share; a forked child has one of its own."""

    def __init__(
        self, targets: Sequence[Target], timeout_s: float, open_socket: Opener, reads: Reads = LINEARIZABLE
    ) -> None:
        super().__init__(targets, timeout_s, open_socket, reads)
        self._time_s = deadline(0.0, timeout_s)  # with its bound, so that not each call has to look
        self._channels: dict[int, _SharedChannel] = {}  # one a process

    def _shared(self) -> _SharedChannel:
        pid = os.getpid()
        shared = self._channels.get(pid)
        if shared is None:
            seen = max((each.channel.session.revision for each in self._channels.values()), default=0)
            channel = SessionChannel(Endpoints(self.targets), self.open_socket, self.lineage, self.reads, seen)
            # setdefault is atomic: no lock, which another thread might have held when the process forked.
            shared = self._channels.setdefault(pid, _SharedChannel(channel))
            for owner, inherited in list(self._channels.items()):
                if owner != pid:
                    inherited.channel.forget()
        return shared

    @property
    def lineage(self) -> str | None:
        """The lineage of the table that this client, or the process it was forked from, has asked; or None."""
        return next(
            (lineage for each in self._channels.values() if (lineage := each.channel.session.hello.lineage)), None
        )

    @property
    def revision(self) -> int:
        """The highest revision in any reply, or event of a watch."""
        return self._shared().channel.session.revision

    def note_seen(self, revision: int) -> None:
        """Take note that this client has seen a revision elsewhere: its session reads then see it, too."""
        self._shared().note_seen(revision)

    def run(self, call: Call, timeout_s: float | None = None) -> Any:
        """Send a call's operations and return what it makes of the results, or raise its error."""
        if self.closed:
            raise ValueError("the client is closed")
        now_s = time.monotonic()
        call.deadline_s = now_s + self._time_s if timeout_s is None else deadline(now_s, check_timeout(timeout_s))
        (self._channels.get(os.getpid()) or self._shared()).run(call, now_s)
        if call.error is None:
            return call.value
        try:
            raise call.error
        finally:
            del call  # the traceback holds this frame: leave no cycle for the garbage collector

    def close(self) -> None:
        """Drop the connection; calls of other threads end with Timeout or OutcomeUnknown."""
        self.closed = True
        self._shared().close()


class _SharedChannel:
    """The channel that the threads of one process share, and who of them reads from it."""

    def __init__(self, channel: SessionChannel) -> None:
        self.channel = channel
        self.reader: Call | None = None
        """Whose thread sends and receives; set and read under the lock."""
        self._lock = threading.Lock()  # held for moments only, never while waiting
        self._waiting: dict[Call, threading.Lock] = {}  # each a lock that is released to wake the thread, once
        self._tick_s = 0.0  # when the next tick is due
        self._now_s = 0.0  # the reader's time
        self._closed = False

    def run(self, call: Call, now_s: float) -> None:
        """Return when the call is done."""
        turn: threading.Lock | None = None
        try:
            with self._lock:
                if self._closed:
                    raise ValueError("the client is closed")
                if self.reader is not None:
                    turn = self._queue(call)
                else:
                    self.reader = call
                    if self.channel.send_alone(call, now_s):
                        self._now_s = now_s
                        self._tick_s = now_s + TICK_S  # nothing was under way that it could be due for
                    else:
                        self.channel.session.submit(call)
                        self._send_waiting(now_s)
            if turn is not None:
                self._wait_for_turn(call, turn)
            while self.reader is call:
                self._read(call)
        except BaseException:
            self._abandon(call)
            raise

    def note_seen(self, revision: int) -> None:
        """Take note of a revision that was seen elsewhere."""
        with self._lock:
            session = self.channel.session
            session.revision = max(session.revision, revision)

    def _queue(self, call: Call) -> threading.Lock:
        """Take a call that the reader sends, and return what its thread has to wait for."""
        self.channel.session.submit(call)
        turn = self._waiting[call] = threading.Lock()
        turn.acquire()
        call.on_done = self._wake
        return turn

    def _wake(self, call: Call) -> None:
        turn = self._waiting.pop(call, None)
        if turn is not None:
            turn.release()

    def _wait_for_turn(self, call: Call, turn: threading.Lock) -> None:
        """Wait until the call is done, or until it is this thread's turn to read."""
        turn.acquire(timeout=max(0.0, call.deadline_s - time.monotonic()))
        if call.done:
            return
        with self._lock:
            self._waiting.pop(call, None)
            if self.reader is call:
                self._send_waiting(time.monotonic())
            else:
                self.channel.expire(max(call.deadline_s, time.monotonic()))
                self.channel.session.end(call)

    def _send_waiting(self, now_s: float) -> None:
        """Send for everybody, and pass the turn if the reader's call was refused before it was sent."""
        self._now_s = now_s
        self.channel.send_waiting(now_s)
        if self.reader is not None and self.reader.done:
            self._pass_turn()

    def _read(self, call: Call) -> None:
        """Receive for everybody, and send what has come to wait meanwhile; pass the turn when the call is done."""
        channel = self.channel
        socket = channel.socket
        if socket is None:
            self._open(call)
            frame = None
        else:
            frame = socket.receive(call.deadline_s - self._now_s)
        now_s = time.monotonic()
        with self._lock:
            if frame is not None:
                channel.receive(frame, now_s)
            if frame is None or now_s >= self._tick_s or now_s >= call.deadline_s:
                self._tick(now_s)
            if not call.done:
                self._send_waiting(now_s)
            elif self._waiting or self._closed:
                self._pass_turn()
            else:
                self.reader = None

    def _tick(self, now_s: float) -> None:
        self._tick_s = now_s + TICK_S
        if not self.channel.is_open:
            self.channel.expire(now_s)
        elif self.channel.tick(now_s):
            self.channel.close()

    def _open(self, call: Call) -> None:
        try:
            resolve_endpoint(
                self.channel.endpoints, self.channel.session.hello.lineage, call.deadline_s - time.monotonic()
            )
        except errors.CatalogError as error:
            self.channel.catalog_error = error
            time.sleep(max(0.0, min(CATALOG_PAUSE_S, call.deadline_s - time.monotonic())))
        else:
            self.channel.open(time.monotonic())

    def _abandon(self, call: Call) -> None:
        """Go before the call is done, or in the midst of passing the turn, as when the thread is interrupted."""
        with self._lock:
            self.channel.session.abandon(call)
            self._waiting.pop(call, None)
            if self.reader is call:
                self.channel.session.resend_soon()
                self._tick_s = 0.0
                self._pass_turn()
            elif self.reader in self._waiting:
                self._wake(self.reader)

    def _pass_turn(self) -> None:
        """Have one of those who wait read."""
        self.reader = next(iter(self._waiting), None)
        if self.reader is not None:
            self._wake(self.reader)
        elif self._closed:
            self.channel.close()

    def close(self) -> None:
        """End all calls, and drop the connection as soon as nobody reads from it."""
        with self._lock:
            self._closed = True
            self.channel.session.close()
            if self.reader is None:
                self.channel.close()
