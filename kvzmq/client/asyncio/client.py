"""The asyncio client: the methods of the blocking one, to await."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from kvzmq import errors
from kvzmq.client.asyncio.connection import AsyncConnection
from kvzmq.client.asyncio.monitor import AsyncMonitor
from kvzmq.client.asyncio.watch import AsyncWatch
from kvzmq.client.core.batch import Pipeline, Transaction, sent
from kvzmq.client.core.call import Call
from kvzmq.client.core.calls import BACKUP_ENDED, BACKUP_POLL_S, RAISE, SLOW_REQUESTS, Calls
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.monitor_state import MonitoredRequest, MonitorState
from kvzmq.client.core.push_channel import PushChannel
from kvzmq.client.core.reads import LINEARIZABLE, Reads, check_reads
from kvzmq.client.core.targets import Target, parse_targets
from kvzmq.client.core.timeouts import TIMEOUT_S, check_timeout
from kvzmq.client.core.transports import Opener, check_transport
from kvzmq.client.core.values import check_prefix
from kvzmq.client.core.watch_state import WatchState

if TYPE_CHECKING:
    from kvzmq.client.core.pyzmq_socket import Context

T = TypeVar("T")


def connect_async(
    url: str | None = None,
    timeout: float | None = TIMEOUT_S,
    *,
    transport: str | None = None,
    curve_key: str | os.PathLike[str] | None = None,
    server_key: str | None = None,
    context: Context | None = None,
    reads: Reads | None = None,
) -> AsyncClient:
    """Return an asyncio client of the server at `url`; see `connect`. Use it in an `async with` block.

    Raises:
        ValueError: the URL is malformed, the timeout not above 0, the transport none for it, a key cannot be used, or
            there is no such kind of reads
        TypeError: one of them is of another type
    """
    targets = parse_targets(url, curve_key, server_key)
    timeout_s = math.inf if timeout is None else check_timeout(timeout)
    transport = check_transport(transport, context, targets)
    return open_client(targets, timeout_s, "", transport, context, check_reads(reads))


def open_client(
    targets: Sequence[Target],
    timeout_s: float,
    prefix: str = "",
    transport: str | None = None,
    context: Context | None = None,
    reads: Reads = LINEARIZABLE,
) -> AsyncClient:
    """Return a client with a connection of its own: a new one, or one that was pickled."""
    return AsyncClient(AsyncConnection(targets, timeout_s, Opener(transport, context), reads), prefix)


class AsyncClient:
    """A durable table on a server, for the tasks of one event loop.

    The methods are those of Client, to await; what is said there of durability, errors and retries
    holds here. Tasks that ask in the same turn of the loop share a message.
    """

    def __init__(self, connection: AsyncConnection, prefix: str = "", *, owner: bool = True) -> None:
        self._connection = connection
        self._run = connection.run
        self._calls = Calls(prefix)
        self._owner = owner
        """Whether closing this closes the connection."""
        self._released = False

    def namespace(self, prefix: str) -> AsyncClient:
        """Return this client for the keys that begin with `prefix`, which is left out of them.

        It shares the connection, which closing the namespace leaves open and closing this client closes.
        """
        prefix = check_prefix(prefix)
        return AsyncClient(self._connection, self._calls.prefix + prefix, owner=False)

    # ---- one row

    async def insert(
        self, key: str, value: object, ttl_s: float | None = None, *, timeout: float | None = None
    ) -> None:
        """Set `key` to `value`, for `ttl_s` seconds if given, else for good. Raises ValueError."""
        await self._run(self._calls.insert(key, value, ttl_s), timeout)

    @overload
    async def lookup(self, key: str, *, timeout: float | None = None) -> Any: ...
    @overload
    async def lookup(self, key: str, type: type[T], *, timeout: float | None = None) -> T: ...
    async def lookup(self, key: str, type: Any = Any, *, timeout: float | None = None) -> Any:
        """Return the value of `key`, decoded into `type` if given. Raises KeyError, msgspec.ValidationError."""
        return await self._run(self._calls.lookup(key, type), timeout)

    async def remove(self, key: str, *, timeout: float | None = None) -> None:
        """Remove `key`. Raises KeyError."""
        await self._run(self._calls.remove(key), timeout)

    async def compare_and_set(self, key: str, expected: object, value: object, *, timeout: float | None = None) -> bool:
        """Set `key` to `value` if it holds `expected`; either may be ABSENT. Returns whether it did."""
        return bool(await self._run(self._calls.compare_and_set(key, expected, value), timeout))

    async def increment(self, key: str, by: float = 1, *, timeout: float | None = None) -> Any:
        """Add `by` to the number at `key`, 0 if absent, and return the new number. Raises TypeError."""
        return await self._run(self._calls.increment(key, by), timeout)

    async def expire(self, key: str, ttl_s: float | None, *, timeout: float | None = None) -> None:
        """Let `key` live `ttl_s` seconds from now, or for good if None. Raises KeyError."""
        await self._run(self._calls.expire(key, ttl_s), timeout)

    async def ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        """Return how many seconds `key` still lives, or None if for good. Raises KeyError."""
        left_s: float | None = await self._run(self._calls.ttl(key), timeout)
        return left_s

    async def contains(self, key: str, *, timeout: float | None = None) -> bool:
        """Say whether `key` is there."""
        return bool(await self._run(self._calls.contains(key), timeout))

    async def setdefault(self, key: str, default: Any = None, *, timeout: float | None = None) -> Any:
        """Insert `default` if `key` is absent, and return the value it has then."""
        return await self._run(self._calls.setdefault(key, default), timeout)

    async def pop(self, key: str, default: Any = RAISE, *, timeout: float | None = None) -> Any:
        """Remove `key` and return its value; `default` if it is absent, or KeyError without one."""
        try:
            return await self._run(self._calls.pop(key), timeout)
        except errors.NoSuchKey:
            if default is RAISE:
                raise
            return default

    async def get(self, key: str, default: Any = None, *, timeout: float | None = None) -> Any:
        """Return the value of `key`, or `default` if it is absent."""
        try:
            return await self._run(self._calls.lookup(key), timeout)
        except errors.NoSuchKey:
            return default

    # ---- many rows

    async def insert_many(
        self, rows: Mapping[str, object] | Iterable[tuple[str, object]], *, timeout: float | None = None
    ) -> None:
        """Set many keys. Up to 10,000 rows and 512 KiB are one change; more are several."""
        for call in self._calls.insert_many(rows):
            await self._run(call, timeout)

    @overload
    async def lookup_many(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]: ...
    @overload
    async def lookup_many(
        self, keys: Iterable[str], type: type[T], *, timeout: float | None = None
    ) -> dict[str, T]: ...
    async def lookup_many(
        self, keys: Iterable[str], type: Any = Any, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return those of `keys` that are there, with their values, decoded into `type` if given."""
        found: dict[str, Any] = {}
        for call in self._calls.lookup_many(keys, type):
            found |= await self._run(call, timeout)
        return found

    async def remove_many(self, keys: Iterable[str], *, timeout: float | None = None) -> int:
        """Remove those of `keys` that are there, and return how many were."""
        return sum([await self._run(call, timeout) for call in self._calls.remove_many(keys)])

    @overload
    async def query(self, subkey: str, subvalue: object, *, timeout: float | None = None) -> list[tuple[str, Any]]: ...
    @overload
    async def query(
        self, subkey: str, subvalue: object, type: type[T], *, timeout: float | None = None
    ) -> list[tuple[str, T]]: ...
    async def query(
        self, subkey: str, subvalue: object, type: Any = Any, *, timeout: float | None = None
    ) -> list[tuple[str, Any]]:
        """Return the rows whose value is a map in which `subkey` equals `subvalue`, sorted by key."""
        found: list[tuple[str, Any]] = await self._run(self._calls.query(subkey, subvalue, type), timeout)
        return found

    async def size(self, *, timeout: float | None = None) -> int:
        """Return the number of rows in the whole table."""
        count: int = await self._run(self._calls.size(), timeout)
        return count

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Go through the keys that begin with `prefix`, in order, a page at a time.

        Rows that others write meanwhile may or may not show; no row shows twice, none that stays is missed.
        """
        after = None
        while page := await self._run(self._calls.keys(prefix, after), None):
            for after in page:
                yield after

    @overload
    def items(self, prefix: str = "") -> AsyncIterator[tuple[str, Any]]: ...
    @overload
    def items(self, prefix: str = "", *, type: type[T]) -> AsyncIterator[tuple[str, T]]: ...
    async def items(self, prefix: str = "", *, type: Any = Any) -> AsyncIterator[tuple[str, Any]]:
        """Go through keys and values, as `keys` does, the values decoded into `type` if given."""
        after = None
        while page := await self._run(self._calls.items(prefix, after, kind=type), None):
            for after, value in page:
                yield after, value

    @overload
    def values(self, prefix: str = "") -> AsyncIterator[Any]: ...
    @overload
    def values(self, prefix: str = "", *, type: type[T]) -> AsyncIterator[T]: ...
    async def values(self, prefix: str = "", *, type: Any = Any) -> AsyncIterator[Any]:
        """Go through the values, as `keys` does, decoded into `type` if given."""
        async for _, value in self.items(prefix, type=type):
            yield value

    def __aiter__(self) -> AsyncIterator[str]:
        return self.keys()

    async def popitem(self) -> tuple[str, Any]:
        """Remove the first row and return it. Raises KeyError if there is none."""
        while page := await self._run(self._calls.keys(limit=1), None):
            try:
                return page[0], await self.pop(page[0])
            except errors.NoSuchKey:
                continue  # somebody was faster
        raise errors.NoSuchKey("the table is empty")

    async def update(self, *others: Any, **rows: object) -> None:
        """Set many keys, from mappings, pairs and keywords, as one batch; see insert_many."""
        gathered: dict[str, object] = {}
        gathered.update(*others, **rows)
        await self.insert_many(gathered)

    async def clear(self) -> None:
        """Remove all rows, a page at a time."""
        while page := await self._run(self._calls.keys(), None):
            await self.remove_many(page)

    @asynccontextmanager
    async def pipeline(self, *, timeout: float | None = None) -> AsyncIterator[Pipeline]:
        """Gather operations and send them together when the block ends; see Client.pipeline."""
        gathered = Pipeline(self._calls)
        with gathered.gathering():
            yield gathered
        with sent(gathered):
            for call in gathered.requests():
                await self._run(call, timeout)

    @asynccontextmanager
    async def transaction(
        self, checks: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> AsyncIterator[Transaction]:
        """Gather operations and apply all of them, or nothing; see Client.transaction."""
        gathered = Transaction(self._calls, checks or {})
        with gathered.gathering():
            yield gathered
        with sent(gathered):
            await self._run(gathered.request(), timeout)

    # ---- watching

    def watch(
        self,
        prefix: str = "",
        from_revision: int | None = None,
        *,
        epoch: str | None = None,
        timeout: float | None = None,
    ) -> AsyncWatch:
        """Return an asynchronous iterator over the changes of keys that begin with `prefix`; see Client.watch.

        It begins when it is first asked for a change, or at once with `async with table.watch(...) as events`;
        the server has `timeout` seconds for that.
        """
        return self._watch(lambda *place: self._calls.watch(prefix, *place), from_revision, epoch, timeout)

    def watch_query(
        self,
        subkey: str,
        subvalue: object,
        from_revision: int | None = None,
        *,
        epoch: str | None = None,
        timeout: float | None = None,
    ) -> AsyncWatch:
        """Return an asynchronous iterator over the changes of the rows that `query` finds; see Client.watch_query."""
        return self._watch(
            lambda *place: self._calls.watch_query(subkey, subvalue, *place), from_revision, epoch, timeout
        )

    def _watch(
        self,
        make_call: Callable[[int | None, str | None], Call],
        from_revision: int | None,
        epoch: str | None,
        timeout: float | None,
    ) -> AsyncWatch:
        connection = self._connection
        if self._closed:
            raise ValueError(f"the {self._kind} is closed")
        make_call(from_revision, epoch)  # bad arguments are refused here, not when a connection is there
        state = WatchState(make_call, self._calls.prefix, from_revision, epoch, connection.lineage)
        channel = PushChannel(state, Endpoints(connection.targets), connection.open_socket, connection.note_seen)
        return AsyncWatch(channel, connection.timeout_s if timeout is None else check_timeout(timeout))

    # ---- the server

    async def ping(self, *, timeout: float | None = None) -> float:
        """Return how long the server took to answer, seconds."""
        began_s = time.perf_counter()
        await self._run(self._calls.ping(), timeout)
        return time.perf_counter() - began_s

    async def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the server says of itself, by name."""
        described: dict[str, Any] = await self._run(self._calls.stats(), timeout)
        return described

    async def clients(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """Return what the server knows of each client that is connected, by name."""
        found: list[dict[str, Any]] = []
        while page := await self._run(self._calls.clients(found[-1]["name"] if found else ""), timeout):
            found += page
        return found

    async def kick(self, name: str, *, timeout: float | None = None) -> bool:
        """End the connection of the client that `clients` calls so; False if there is none. Ours connect again."""
        ended: bool = await self._run(self._calls.kick(name), timeout)
        return ended

    def monitor(
        self,
        client: str = "",
        op: str = "",
        prefix: str = "",
        slower_than_s: float = 0.0,
        sample: int = 1,
        *,
        timeout: float | None = None,
    ) -> AsyncMonitor:
        """Return an asynchronous iterator over the requests that the server answers; see Client.monitor.

        It begins when it is first asked for one, or at once with `async with table.monitor(...) as requests`.
        """
        connection = self._connection
        if self._closed:
            raise ValueError(f"the {self._kind} is closed")
        state = MonitorState(self._calls.monitor(client, op, prefix, slower_than_s, sample), connection.lineage)
        channel = PushChannel(state, Endpoints(connection.targets), connection.open_socket)
        monitor = AsyncMonitor(channel, connection.timeout_s if timeout is None else check_timeout(timeout))
        return monitor

    async def slow_requests(
        self, limit: int = SLOW_REQUESTS, *, timeout: float | None = None
    ) -> list[MonitoredRequest]:
        """Return at most `limit` of the requests that took longest, the slowest first, as the server keeps them."""
        found: list[MonitoredRequest] = await self._run(self._calls.slow_requests(limit), timeout)
        return found

    async def backup(self, *, timeout: float | None = None) -> AsyncIterator[bytes]:
        """Yield a backup of the whole table in pieces; see Client.backup."""
        name = os.urandom(16).hex()
        while (length := await self._run(self._calls.backup(name), timeout)) is None:
            await asyncio.sleep(BACKUP_POLL_S)
        offset = 0
        while offset < length:
            piece: bytes = await self._run(self._calls.backup(name, offset), timeout)
            if not piece:
                raise errors.BackupFailed(BACKUP_ENDED)
            yield piece
            offset += len(piece)
        with contextlib.suppress(errors.KvzmqError):  # what is read is whole; the server lets it go in any case
            await self._run(self._calls.backup(name, length), timeout)

    @property
    def transport(self) -> str:
        """How this client reaches its server: `plain` or `pyzmq`; or both, comma-separated, where its URLs differ."""
        return self._connection.open_socket.describe(self._connection.targets)

    @property
    def revision(self) -> int:
        """The highest revision of the table in any reply to this client."""
        return self._connection.revision

    @property
    def lineage(self) -> str | None:
        """Which table this client asks, 32 hexadecimal digits: of any other it asks nothing. None before an answer."""
        return self._connection.lineage

    # ---- life

    async def close(self) -> None:
        """Drop the connection, also of the namespaces; calls that still wait end with an error.

        A namespace, or a copy, only ends itself: the client it was made from and its connection go on.
        """
        self._released = True
        self._run = self._refuse
        if self._owner:
            self._connection.close()

    async def _refuse(self, call: Call, timeout_s: float | None = None) -> NoReturn:
        raise ValueError(f"the {self._kind} is closed")

    @property
    def _closed(self) -> bool:
        return self._released or self._connection.closed

    @property
    def _kind(self) -> str:
        return "client" if self._owner or not self._calls.prefix else "namespace"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __copy__(self) -> AsyncClient:
        return self.namespace("")

    def __deepcopy__(self, memo: object) -> AsyncClient:
        return self.namespace("")

    def __reduce__(self) -> tuple[Any, ...]:
        connection = self._connection
        transport, prefix = connection.open_socket.transport, self._calls.prefix
        return open_client, (connection.targets, connection.timeout_s, prefix, transport, None, connection.reads)

    def __repr__(self) -> str:
        connection = self._connection
        place = f" below {self._calls.prefix!r}" if self._calls.prefix else ""
        state = " closed" if self._closed else ""
        urls = ",".join(target.url for target in connection.targets)
        return f"<kvzmq.AsyncClient {urls} transport={self.transport}{place}{state}>"
