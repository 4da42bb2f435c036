"""The asyncio client: the same methods to await, on the event loop's own readiness. No thread, no zmq.asyncio.

What the tasks of one turn of the loop ask for travels as one message. A task that is cancelled leaves
its operation to the server or takes it back unsent; its reply, if one comes, reaches nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar, overload

import zmq

from kvzmq import errors
from kvzmq.client.batch import Pipeline, Transaction
from kvzmq.client.blocking import TIMEOUT_S
from kvzmq.client.conversation import CONNECT_S, Conversation
from kvzmq.client.link import Link, needs_lookup, parse_urls, resolve
from kvzmq.client.operations import Plan, Plans
from kvzmq.client.session import Call, check_size
from kvzmq.client.watching import Event, Watching

T = TypeVar("T")

_RAISE: Any = object()
_CATALOG_S = 1.0
"""How long to wait for one answer of a catalog."""

_WATCH_S = 0.5
"""How often a watch that hears nothing looks after its connection."""

_TICK_S = 0.05
"""How often connection and deadlines are looked at while a call waits."""


def connect_async(
    url: str, timeout: float = TIMEOUT_S, *, context: zmq.Context[zmq.Socket[bytes]] | None = None
) -> AsyncClient:
    """Return an asyncio client of the server at `url`; see `connect`. Use it in an `async with` block.

    Raises:
        ValueError: the URL is malformed
    """
    if not timeout > 0:
        raise ValueError(f"timeout is {timeout}: it must be above 0 seconds")
    return AsyncClient(_AsyncConnection(parse_urls(url), timeout, context))


class _Wakeups:
    """Has the event loop call back when a link's sockets have something.

    A ZeroMQ socket's descriptor tells of changes, not of states, and any call on the socket may take
    the change in: so `on_ready` must read until there is nothing, also after sending.
    """

    def __init__(self, link: Link, on_ready: Callable[[], None]) -> None:
        self._link = link
        self._on_ready = on_ready
        self._watched: list[int] = []

    def start(self) -> None:
        """Begin; the link is open."""
        loop = asyncio.get_running_loop()
        for sock in (self._link.socket, self._link.monitor):
            fd = int(sock.getsockopt(zmq.FD))
            loop.add_reader(fd, self._on_ready)
            self._watched.append(fd)
        loop.call_soon(self._on_ready)

    def stop(self) -> None:
        """End; before the link is closed."""
        with contextlib.suppress(RuntimeError):  # the loop has gone
            loop = asyncio.get_running_loop()
            for fd in self._watched:
                loop.remove_reader(fd)
        self._watched.clear()


class _AsyncConnection:
    """A conversation that the tasks of one event loop share."""

    def __init__(self, urls: list[str], timeout_s: float, context: zmq.Context[zmq.Socket[bytes]] | None) -> None:
        self.urls = urls
        self.timeout_s = timeout_s
        self.closed = False
        self.context = context or zmq.Context.instance()
        self.conversation = Conversation(urls, self.context)
        self._wakeups = _Wakeups(self.conversation.link, self._on_ready)
        self._flushing = False
        self._ticking: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None

    async def run(self, plan: Plan, timeout_s: float | None = None) -> Any:
        """Send a plan's operations and return what it makes of the results, or raise its error."""
        if self.closed:
            raise ValueError("the client is closed")
        deadline_s = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        call = check_size(Call(plan.ops, plan.writes, plan.finish, deadline_s))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        call.on_done = lambda done: _settle(future, done)
        self.conversation.session.submit(call)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)  # after all the tasks of this turn have asked
        try:
            return await future
        except asyncio.CancelledError:
            self.conversation.session.abandon(call)
            raise

    def _flush(self) -> None:
        self._flushing = False
        if self.closed:
            return
        if self.conversation.link.is_open:
            self.conversation.send_waiting(time.monotonic())
            self._on_ready()
        else:
            self._open_soon()
        if self._ticking is None:
            self._tick_later()

    def _open_soon(self) -> None:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        """Connect, asking a catalog off the loop if need be."""
        link = self.conversation.link
        try:
            endpoint = link.url
            if needs_lookup(endpoint):
                endpoint = await asyncio.to_thread(resolve, endpoint, _CATALOG_S)
            if not self.closed:
                link.open(endpoint)
                self.conversation.opened(time.monotonic())
                self._wakeups.start()
        except errors.CatalogError:
            link.next_url()  # a later tick tries again, until the callers' deadlines
        except ValueError as error:
            self.conversation.session.fail(error)
        finally:
            self._opening = None

    def _on_ready(self) -> None:
        """Read all there is, send what that allows, and come back if more came meanwhile."""
        link = self.conversation.link
        if not link.is_open:
            return
        now_s = time.monotonic()
        self.conversation.take_news(now_s)
        for frame in _frames(link):
            self.conversation.session.receive(frame)
        self.conversation.send_waiting(now_s)
        if int(link.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            asyncio.get_running_loop().call_soon(self._on_ready)

    def _tick_later(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        if self.closed:
            return
        if self.conversation.link.is_open:
            if self.conversation.look_around(time.monotonic()):
                self._wakeups.stop()
                self.conversation.link.close()
            self._on_ready()
        else:
            self.conversation.session.expire(time.monotonic())
        if not self.conversation.session.idle:
            if not self.conversation.link.is_open:
                self._open_soon()
            self._tick_later()

    def close(self) -> None:
        """Drop the connection; calls that still wait end with Timeout or OutcomeUnknown."""
        if self.closed:
            return
        self.closed = True
        if self._ticking is not None:
            self._ticking.cancel()
        self.conversation.session.expire(float("inf"))
        self._wakeups.stop()
        self.conversation.link.close()


def _frames(link: Link) -> Iterator[bytes]:
    while True:
        try:
            yield link.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return


def _settle(future: asyncio.Future[Any], call: Call) -> None:
    if future.done():
        return  # cancelled
    if call.error is not None:
        future.set_exception(call.error)
    else:
        future.set_result(call.value)


class AsyncClient:
    """A durable table on a server, for the tasks of one event loop.

    The methods are those of Client, to await; what is said there of durability, errors and retries
    holds here. Tasks that ask in the same turn of the loop share a message.
    """

    def __init__(self, connection: _AsyncConnection, prefix: str = "") -> None:
        self._connection = connection
        self._plans = Plans(prefix)

    def namespace(self, prefix: str) -> AsyncClient:
        """Return this client for the keys that begin with `prefix`, which is left out of them."""
        return AsyncClient(self._connection, self._plans.prefix + prefix)

    # ---- one row

    async def insert(
        self, key: str, value: object, ttl_s: float | None = None, *, timeout: float | None = None
    ) -> None:
        """Set `key` to `value`, for `ttl_s` seconds if given, else for good. Raises ValueError."""
        await self._run(self._plans.insert(key, value, ttl_s), timeout)

    @overload
    async def lookup(self, key: str, *, timeout: float | None = None) -> Any: ...
    @overload
    async def lookup(self, key: str, type: type[T], *, timeout: float | None = None) -> T: ...
    async def lookup(self, key: str, type: Any = Any, *, timeout: float | None = None) -> Any:
        """Return the value of `key`, decoded into `type` if given. Raises KeyError, msgspec.ValidationError."""
        return await self._run(self._plans.lookup(key, type), timeout)

    async def remove(self, key: str, *, timeout: float | None = None) -> None:
        """Remove `key`. Raises KeyError."""
        await self._run(self._plans.remove(key), timeout)

    async def compare_and_set(
        self, key: str, expected: object, value: object, *, timeout: float | None = None
    ) -> bool:
        """Set `key` to `value` if it holds `expected`; either may be ABSENT. Returns whether it did."""
        return bool(await self._run(self._plans.compare_and_set(key, expected, value), timeout))

    async def increment(self, key: str, by: float = 1, *, timeout: float | None = None) -> Any:
        """Add `by` to the number at `key`, 0 if absent, and return the new number. Raises TypeError."""
        return await self._run(self._plans.increment(key, by), timeout)

    async def expire(self, key: str, ttl_s: float | None, *, timeout: float | None = None) -> None:
        """Let `key` live `ttl_s` seconds from now, or for good if None. Raises KeyError."""
        await self._run(self._plans.expire(key, ttl_s), timeout)

    async def ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        """Return how many seconds `key` still lives, or None if for good. Raises KeyError."""
        left_s: float | None = await self._run(self._plans.ttl(key), timeout)
        return left_s

    async def contains(self, key: str, *, timeout: float | None = None) -> bool:
        """Say whether `key` is there."""
        return bool(await self._run(self._plans.contains(key), timeout))

    async def setdefault(self, key: str, default: Any = None, *, timeout: float | None = None) -> Any:
        """Insert `default` if `key` is absent, and return the value it has then."""
        return await self._run(self._plans.setdefault(key, default), timeout)

    async def pop(self, key: str, default: Any = _RAISE, *, timeout: float | None = None) -> Any:
        """Remove `key` and return its value; `default` if it is absent, or KeyError without one."""
        try:
            return await self._run(self._plans.pop(key), timeout)
        except errors.NoSuchKey:
            if default is _RAISE:
                raise
            return default

    # ---- many rows

    async def insert_many(
        self, rows: Mapping[str, object] | Iterable[tuple[str, object]], *, timeout: float | None = None
    ) -> None:
        """Set many keys. Up to 10,000 rows and 1 MiB are one change; more are several."""
        for plan in self._plans.insert_many(rows):
            await self._run(plan, timeout)

    async def lookup_many(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]:
        """Return those of `keys` that are there, with their values."""
        found: dict[str, Any] = {}
        for plan in self._plans.lookup_many(keys):
            found |= await self._run(plan, timeout)
        return found

    async def remove_many(self, keys: Iterable[str], *, timeout: float | None = None) -> int:
        """Remove those of `keys` that are there, and return how many were."""
        return sum([await self._run(plan, timeout) for plan in self._plans.remove_many(keys)])

    async def query(self, subkey: str, subvalue: object, *, timeout: float | None = None) -> list[tuple[str, Any]]:
        """Return the rows whose value is a map in which `subkey` equals `subvalue`, sorted by key."""
        found: list[tuple[str, Any]] = await self._run(self._plans.query(subkey, subvalue), timeout)
        return found

    async def size(self, *, timeout: float | None = None) -> int:
        """Return the number of rows in the whole table."""
        count: int = await self._run(self._plans.size(), timeout)
        return count

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Go through the keys that begin with `prefix`, in order, a page at a time."""
        after = None
        while page := await self._run(self._plans.keys(prefix, after), None):
            for after in page:
                yield after

    async def items(self, prefix: str = "") -> AsyncIterator[tuple[str, Any]]:
        """Go through keys and values, as `keys` does."""
        after = None
        while page := await self._run(self._plans.items(prefix, after), None):
            for after, value in page:
                yield after, value

    async def values(self, prefix: str = "") -> AsyncIterator[Any]:
        """Go through the values, as `keys` does."""
        async for _, value in self.items(prefix):
            yield value

    async def update(self, rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> None:
        """Set many keys; see insert_many."""
        await self.insert_many(rows)

    async def clear(self) -> None:
        """Remove all rows, a page at a time."""
        while page := await self._run(self._plans.keys(), None):
            await self.remove_many(page)

    @asynccontextmanager
    async def pipeline(self, *, timeout: float | None = None) -> AsyncIterator[Pipeline]:
        """Gather operations and send them together when the block ends; see Client.pipeline."""
        gathered = Pipeline(self._plans)
        yield gathered
        for plan in gathered.requests():
            await self._run(plan, timeout)

    @asynccontextmanager
    async def transaction(
        self, checks: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> AsyncIterator[Transaction]:
        """Gather operations and apply all of them, or nothing; see Client.transaction."""
        gathered = Transaction(self._plans, checks or {})
        yield gathered
        await self._run(gathered.request(), timeout)

    # ---- watching

    def watch(self, prefix: str = "", from_revision: int | None = None) -> AsyncWatch:
        """Return an asynchronous iterator over the changes of keys that begin with `prefix`; see Client.watch.

        It begins when it is first awaited, or at once with `async with table.watch(...) as events`.
        """
        return self._watch(lambda revision: self._plans.watch(prefix, revision), from_revision)

    def watch_query(self, subkey: str, subvalue: object, from_revision: int | None = None) -> AsyncWatch:
        """Return an asynchronous iterator over the changes of the rows that `query` finds."""
        return self._watch(lambda revision: self._plans.watch_query(subkey, subvalue, revision), from_revision)

    def _watch(self, plan: Callable[[int | None], Plan], from_revision: int | None) -> AsyncWatch:
        connection = self._connection
        watching = Watching(plan, self._plans.prefix, from_revision)
        return AsyncWatch(watching, Link(connection.urls, connection.context), connection.timeout_s)

    # ---- the server

    async def ping(self, *, timeout: float | None = None) -> float:
        """Return how long the server took to answer, seconds."""
        began_s = time.perf_counter()
        await self._run(self._plans.ping(), timeout)
        return time.perf_counter() - began_s

    async def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the server says of itself, by name."""
        described: dict[str, Any] = await self._run(self._plans.stats(), timeout)
        return described

    @property
    def revision(self) -> int:
        """The highest revision of the table that a reply has told this client."""
        return self._connection.conversation.session.revision

    # ---- life

    async def _run(self, plan: Plan, timeout: float | None) -> Any:
        return await self._connection.run(plan, timeout)

    async def close(self) -> None:
        """Drop the connection; calls that still wait end with an error."""
        self._connection.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        place = f" {self._plans.prefix!r}" if self._plans.prefix else ""
        return f"<kvzmq.AsyncClient {','.join(self._connection.urls)}{place}{' closed' if self._connection.closed else ''}>"


class AsyncWatch:
    """An asynchronous iterator over changes, on a connection of its own; for one task at a time."""

    def __init__(self, watching: Watching, link: Link, timeout_s: float) -> None:
        self._watching = watching
        self._link = link
        self._timeout_s = timeout_s
        self._wakeups = _Wakeups(link, self._on_ready)
        self._changed = asyncio.Event()
        self._open_s = 0.0
        self._closed = False

    async def start(self) -> None:
        """Wait until the server has begun the watch. Raises Timeout, RevisionGone."""
        await self._until(lambda: self._watching.started, time.monotonic() + self._timeout_s, "the watch has not begun")

    async def get(self, timeout: float | None = None) -> Event:
        """Return the next change. Raises Timeout if none comes in `timeout` seconds, RevisionGone."""
        if not self._watching.started and not self._watching.events and self._watching.position is None:
            await self.start()
        deadline_s = float("inf") if timeout is None else time.monotonic() + timeout
        await self._until(lambda: bool(self._watching.events), deadline_s, "no change in time")
        return self._watching.events.popleft()

    async def _until(self, reached: Callable[[], bool], deadline_s: float, late: str) -> None:
        while not reached():
            if self._closed:
                raise ValueError("the watch is closed")
            if self._watching.error is not None:
                raise self._watching.error
            if time.monotonic() >= deadline_s:
                raise errors.Timeout(f"no answer in time: {late}")
            await self._keep_up()
            self._changed.clear()
            if not reached() and self._watching.error is None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min(_WATCH_S, max(0.0, deadline_s - time.monotonic())))

    async def _keep_up(self) -> None:
        """Open the link if it is closed, turn to another server if this one is silent, ask again if need be."""
        now_s = time.monotonic()
        if not self._link.is_open:
            with contextlib.suppress(errors.CatalogError):
                endpoint = self._link.url
                if needs_lookup(endpoint):
                    endpoint = await asyncio.to_thread(resolve, endpoint, _CATALOG_S)
                self._link.open(endpoint)
                self._open_s = now_s
                self._wakeups.start()
        elif not self._link.connected and self._link.alternatives and now_s - self._open_s > CONNECT_S:
            self._link.next_url()
            self._wakeups.stop()
            self._link.close()
        elif self._link.connected and self._watching.overdue(now_s):
            self._link.send(self._watching.request(now_s))

    def _on_ready(self) -> None:
        if not self._link.is_open:
            return
        if self._link.news():
            self._link.send(self._watching.request(time.monotonic()))
        for frame in _frames(self._link):
            self._watching.receive(frame)
        if self._watching.events or self._watching.error or self._watching.started:
            self._changed.set()
        if int(self._link.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            asyncio.get_running_loop().call_soon(self._on_ready)

    @property
    def revision(self) -> int | None:
        """The revision up to which everything was seen: where a later watch can go on."""
        return self._watching.position

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> Event:
        return await self.get()

    async def close(self) -> None:
        """End the watch."""
        self._closed = True
        self._wakeups.stop()
        self._link.close()

    async def __aenter__(self) -> AsyncWatch:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
