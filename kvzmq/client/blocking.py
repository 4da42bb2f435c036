"""The blocking client: a thin shell around the session, for one thread or many.

There is no thread of its own. The first thread that has something to ask leads: it sends what waits,
its own and others', and reads replies until it has its own; then it hands the lead to one that still
waits. So one thread alone pays nothing for the others, and threads that wait at the same time share
messages.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import Any, TypeVar, overload

import zmq

from kvzmq import errors
from kvzmq.client import operations
from kvzmq.client.link import Link, needs_lookup, parse_urls, resolve
from kvzmq.client.operations import Plan
from kvzmq.client.session import Call, Session, check_size

T = TypeVar("T")

TIMEOUT_S = 5.0
"""How long a call may take, if nothing else was said."""

PAGE_ROWS = 1000

_SLICE_MS = 50
"""How long the leader reads without a look at the connection and the clock."""

_CONNECT_S = 1.0
"""How long to wait for a server before the next one is tried."""


def connect(url: str, timeout: float = TIMEOUT_S, *, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> Client:
    """Return a client of the server at `url`; it connects when it is first used.

    Args:
        url: `tcp://HOST:PORT`, `ipc:///PATH` or `catalog://HOST:PORT/PROJECT`; several, separated by commas, are tried in turn
        timeout: seconds a call may take in all, retries and reconnects included
        context: the ZeroMQ context to use instead of the process's own

    Raises:
        ValueError: the URL is malformed
    """
    return Client(url, timeout, context=context)


class Client(MutableMapping[str, Any]):
    """A durable table on a server, as a mapping and more. May be used from several threads.

    Every method may raise Timeout, if it certainly did not run or only read, OutcomeUnknown, if a
    write was sent and no answer came, StorageError, if the server could not write and did not do it.
    A write has reached the disk when the method returns. Retries and reconnects inside the deadline
    happen by themselves and never repeat a write.
    """

    def __init__(
        self, url: str, timeout: float = TIMEOUT_S, *, context: zmq.Context[zmq.Socket[bytes]] | None = None
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout}: it must be above 0 seconds")
        self._urls = parse_urls(url)
        self._timeout_s = timeout
        self._context = context
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # held for moments: whoever waits for the network does not hold it
        self._session = Session()
        self._link = Link(self._urls, self._context or zmq.Context.instance())
        self._led = False
        self._followers: dict[Call, threading.Event] = {}
        self._opened_s = 0.0

    # ---- the mission's operations

    def insert(self, key: str, value: object, ttl_s: float | None = None, *, timeout: float | None = None) -> None:
        """Set `key` to `value`, for `ttl_s` seconds if given, else for good.

        Raises:
            ValueError: the table could not keep it; the message names the place
        """
        self._run(operations.insert(key, value, ttl_s), timeout)

    @overload
    def lookup(self, key: str, *, timeout: float | None = None) -> Any: ...
    @overload
    def lookup(self, key: str, type: type[T], *, timeout: float | None = None) -> T: ...
    def lookup(self, key: str, type: Any = Any, *, timeout: float | None = None) -> Any:
        """Return the value of `key`, decoded into `type` if one is given (a dataclass, a msgspec Struct ...).

        Raises:
            KeyError: it is absent
            msgspec.ValidationError: the value does not fit the type
        """
        return self._run(operations.lookup(key, type), timeout)

    def remove(self, key: str, *, timeout: float | None = None) -> None:
        """Remove `key`.

        Raises:
            KeyError: it is absent
        """
        self._run(operations.remove(key), timeout)

    def size(self, *, timeout: float | None = None) -> int:
        """Return the number of rows."""
        count: int = self._run(operations.size(), timeout)
        return count

    def query(self, subkey: str, subvalue: object, *, timeout: float | None = None) -> list[tuple[str, Any]]:
        """Return the rows whose value is a map in which `subkey` equals `subvalue`, sorted by key."""
        found: list[tuple[str, Any]] = self._run(operations.query(subkey, subvalue), timeout)
        return found

    # ---- many at once

    def insert_many(
        self, rows: Mapping[str, object] | Iterable[tuple[str, object]], *, timeout: float | None = None
    ) -> None:
        """Set many keys. Up to 1 MiB they are one change, all there or not at all; beyond, one for each MiB."""
        for plan in operations.insert_many(rows):
            self._run(plan, timeout)

    def lookup_many(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]:
        """Return those of `keys` that are there, with their values."""
        found: dict[str, Any] = {}
        for plan in operations.lookup_many(keys):
            found |= self._run(plan, timeout)
        return found

    def remove_many(self, keys: Iterable[str], *, timeout: float | None = None) -> int:
        """Remove those of `keys` that are there, and return how many were."""
        return sum(self._run(plan, timeout) for plan in operations.remove_many(keys))

    # ---- the server

    def ping(self, *, timeout: float | None = None) -> float:
        """Return how long the server took to answer, seconds."""
        began_s = time.perf_counter()
        self._run(operations.ping(), timeout)
        return time.perf_counter() - began_s

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the server says of itself, by name."""
        described: dict[str, Any] = self._run(operations.stats(), timeout)
        return described

    @property
    def revision(self) -> int:
        """The highest revision of the table that a reply has told this client."""
        return self._session.revision

    # ---- a mapping

    def __getitem__(self, key: str) -> Any:
        return self.lookup(key)

    def __setitem__(self, key: str, value: object) -> None:
        self.insert(key, value)

    def __delitem__(self, key: str) -> None:
        self.remove(key)

    def __contains__(self, key: object) -> bool:
        plan = operations.contains(key)
        return plan is not None and bool(self._run(plan, None))

    def __len__(self) -> int:
        return self.size()

    def __iter__(self) -> Iterator[str]:
        """Go through the keys in order, a page at a time; rows written meanwhile may or may not show."""
        after = None
        while page := self._run(operations.keys("", after, PAGE_ROWS), None):
            yield from page
            after = page[-1]

    # ---- the machinery

    def _run(self, plan: Plan, timeout: float | None) -> Any:
        now_s = time.monotonic()
        call = check_size(Call(plan.ops, plan.writes, plan.finish, now_s + (timeout or self._timeout_s)))
        if self._pid != os.getpid():
            self._begin()  # a forked child has a conversation of its own
        with self._lock:
            if self._closed:
                raise ValueError("the client is closed")
            self._session.submit(call)
            if self._led:
                follower = self._followers[call] = threading.Event()
            else:
                self._led, follower = True, None
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
            follower.wait(max(0.0, call.deadline_s - time.monotonic()) + 1.0)
        except BaseException:
            with self._lock:
                if self._followers.pop(call, None) is None and not call.done:
                    self._hand_over()  # the lead had just been handed to this thread
                self._session.abandon(call)
            raise
        with self._lock:
            if self._followers.pop(call, None) is not None and not call.done:
                self._session.expire(call.deadline_s)  # the leader is stuck: give up by ourselves

    def _lead(self, call: Call) -> None:
        """Send and receive for everybody until the call is done."""
        try:
            self._open_link(call)
            while not call.done:
                self._exchange(call)
        except BaseException:
            with self._lock:
                self._session.abandon(call)
            raise
        finally:
            with self._lock:
                self._hand_over()

    def _hand_over(self) -> None:
        """Wake those whose call is done, and have one of the others lead."""
        for call in [call for call in self._followers if call.done]:
            self._followers.pop(call).set()
        successor = next(iter(self._followers), None)
        self._led = successor is not None
        if successor is not None:
            self._followers.pop(successor).set()

    def _exchange(self, call: Call) -> None:
        """Send what waits, and read until something comes or the slice is over."""
        link = self._link
        now_s = time.monotonic()
        with self._lock:
            frames: list[bytes] = []
            if not link.connected and link.news():
                frames += self._session.reconnected(now_s)
            if link.connected:
                frames += self._session.flush(now_s)
        self._send(frames)
        wait_ms = min(_SLICE_MS, int((call.deadline_s - now_s) * 1000) + 1)
        frame = None
        if link.connected:
            frame = self._receive(wait_ms)
        else:
            link.monitor.poll(max(0, wait_ms))
        with self._lock:
            if frame is not None:
                self._session.receive(frame)
            else:
                self._look_around()
            for other in [other for other in self._followers if other.done]:
                self._followers.pop(other).set()

    def _send(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            if not self._link.send(frame):
                return  # no room or no connection: overdue or reconnected sends it again

    def _receive(self, wait_ms: int) -> bytes | None:
        sock = self._link.socket
        try:
            if wait_ms == _SLICE_MS:  # the socket's own timeout spares a poll
                return sock.recv()
            return sock.recv(zmq.NOBLOCK) if sock.poll(max(0, wait_ms)) else None
        except zmq.Again:
            return None

    def _look_around(self) -> None:
        """Nothing came for a slice: see what has become of the connection and of the deadlines."""
        now_s = time.monotonic()
        made = self._link.news()
        if self._link.connected:
            self._opened_s = now_s
            self._send(self._session.reconnected(now_s) if made else self._session.overdue(now_s))
        elif self._link.alternatives and now_s - self._opened_s > _CONNECT_S:
            self._link.next_url()
            self._link.close()
        self._session.expire(now_s)

    def _open_link(self, call: Call) -> None:
        while not self._link.is_open:
            url = self._link.url
            remaining_s = call.deadline_s - time.monotonic()
            try:
                endpoint = resolve(url, max(0.01, remaining_s))
            except errors.CatalogError:
                if time.monotonic() + 0.2 >= call.deadline_s or not needs_lookup(url):
                    raise
                time.sleep(0.2)
                self._link.next_url()
                continue
            self._link.open(endpoint)
            self._link.socket.setsockopt(zmq.RCVTIMEO, _SLICE_MS)
            self._opened_s = time.monotonic()

    def close(self) -> None:
        """Drop the connection; calls of other threads that still wait get Timeout or OutcomeUnknown."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._session.expire(float("inf"))
            for call in list(self._followers):
                self._followers.pop(call).set()
            led = self._led
        if not led:
            self._link.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kvzmq.Client {','.join(self._urls)}{' closed' if self._closed else ''}>"
