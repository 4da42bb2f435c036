"""The blocking client: methods over a Connection, the whole of a mapping, batches, watches."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Sequence,
    ValuesView,
)
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from kvzmq import errors
from kvzmq.client.core.batch import Pipeline, Transaction, sent
from kvzmq.client.core.call import Call
from kvzmq.client.core.calls import BACKUP_ENDED, BACKUP_POLL_S, RAISE, SLOW_REQUESTS, Calls
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.reads import LINEARIZABLE, Reads, check_reads
from kvzmq.client.core.targets import Target, parse_targets
from kvzmq.client.core.timeouts import TIMEOUT_S, check_timeout
from kvzmq.client.core.transports import Opener, check_transport
from kvzmq.client.core.values import check_prefix
from kvzmq.client.sync.connection import Connection
from kvzmq.client.sync.views import Copies, Copy, Items, Keys, Values

if TYPE_CHECKING:
    from kvzmq.client.core.monitor_state import MonitoredRequest
    from kvzmq.client.core.pyzmq_socket import Context
    from kvzmq.client.sync.monitor import Monitor
    from kvzmq.client.sync.watch import Watch

T = TypeVar("T")


def connect(
    url: str | None = None,
    timeout: float | None = TIMEOUT_S,
    *,
    transport: str | None = None,
    curve_key: str | os.PathLike[str] | None = None,
    server_key: str | None = None,
    context: Context | None = None,
    reads: Reads | None = None,
) -> Client:
    """Return a client of the server at `url`; it connects when it is first used.

    Args:
        url: `tcp://HOST:PORT`, `ipc:///PATH` or `catalog://HOST:PORT/PROJECT`; several, separated by
            commas, are tried in turn. Each may say the keys for it, `?server_key=KEY&curve_key=FILE`, with what is
            special in URLs percent-encoded. None stands for the environment's KVZMQ_URL, or where that is
            not set for tcp://127.0.0.1:5570
        timeout: seconds a call may take in all, retries and reconnects included; None for no limit
        transport: `plain`, sockets of kvzmq's own for tcp:// and ipc://; `pyzmq`, sockets of libzmq; None for the
            environment's KVZMQ_TRANSPORT, or where that is not set `plain` wherever the URL allows
        curve_key: for a server with CURVE, the file NAME.key_secret that `kvzmq keygen NAME` has made; what the URL
            says counts before it. None stands for the environment's KVZMQ_CURVE_KEY, or where that is not set for a
            connection in plain. Asks for `pyzmq`
        server_key: the public key of that server, 40 characters; what the URL says counts before it. None stands for
            the environment's KVZMQ_SERVER_KEY
        context: the ZeroMQ context to use instead of the process's own; asks for `pyzmq`
        reads: how new what is read has to be, where several servers serve one table: `linearizable`, everything that
            any of them has acknowledged; `session`, everything that this client has seen, its own writes included;
            `local`, whatever the server has. None stands for the environment's KVZMQ_READS, or where that is not set
            for `linearizable`. A request that also writes is always linearizable

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
) -> Client:
    """Return a client with a connection of its own: a new one, or one that was pickled."""
    return Client(Connection(targets, timeout_s, Opener(transport, context), reads), prefix)


class Client(MutableMapping[str, Any]):
    """A durable table on a server, as a mapping and more. May be used from several threads.

    A write has reached the disk when the method returns. Every method may raise Timeout, if it
    certainly did not run or only read; OutcomeUnknown, if a write was sent and no answer came;
    WriteRejected, if the server could not write and did not do it. Retries and reconnects inside the
    deadline happen by themselves and never repeat a write. `timeout` overrides the client's, seconds;
    None means the client's, math.inf no limit.

    Namespaces and copies share the connection; what was pickled gets one of its own.
    """

    def __init__(self, connection: Connection, prefix: str = "", *, owner: bool = True) -> None:
        self._connection = connection
        self._run = connection.run
        self._calls = Calls(prefix)
        self._owner = owner
        """Whether closing this closes the connection."""
        self._released = False
        self._copies = Copies()

    def namespace(self, prefix: str) -> Client:
        """Return this client for the keys that begin with `prefix`, which is left out of them.

        It shares the connection, which closing the namespace leaves open and closing this client
        closes. `size` still counts the whole table, `len` the namespace.
        """
        prefix = check_prefix(prefix)
        return Client(self._connection, self._calls.prefix + prefix, owner=False)

    # ---- one row

    def insert(self, key: str, value: object, ttl_s: float | None = None, *, timeout: float | None = None) -> None:
        """Set `key` to `value`, for `ttl_s` seconds if given, else for good.

        Raises:
            ValueError: the table could not keep it; the message names the place
        """
        self._run(self._calls.insert(key, value, ttl_s), timeout)

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
        return self._run(self._calls.lookup(key, type), timeout)

    def remove(self, key: str, *, timeout: float | None = None) -> None:
        """Remove `key`.

        Raises:
            KeyError: it is absent
        """
        self._run(self._calls.remove(key), timeout)

    def compare_and_set(self, key: str, expected: object, value: object, *, timeout: float | None = None) -> bool:
        """Set `key` to `value` if it holds `expected`, and say whether it did.

        Either may be ABSENT: to insert only what is not there, to remove only what is as expected.
        """
        return bool(self._run(self._calls.compare_and_set(key, expected, value), timeout))

    def increment(self, key: str, by: float = 1, *, timeout: float | None = None) -> Any:
        """Add `by` to the number at `key`, 0 if absent, and return the new number.

        Raises:
            TypeError: the value is no number, or would leave the range of numbers
        """
        return self._run(self._calls.increment(key, by), timeout)

    def expire(self, key: str, ttl_s: float | None, *, timeout: float | None = None) -> None:
        """Let `key` live `ttl_s` seconds from now, or for good if None.

        Raises:
            KeyError: it is absent
        """
        self._run(self._calls.expire(key, ttl_s), timeout)

    def ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        """Return how many seconds `key` still lives, or None if for good.

        Raises:
            KeyError: it is absent
        """
        left_s: float | None = self._run(self._calls.ttl(key), timeout)
        return left_s

    def get(self, key: str, default: Any = None, *, timeout: float | None = None) -> Any:
        """Return the value of `key`, or `default` if it is absent."""
        try:
            return self._run(self._calls.lookup(key), timeout)
        except errors.NoSuchKey:
            return default

    # ---- many rows

    def insert_many(
        self, rows: Mapping[str, object] | Iterable[tuple[str, object]], *, timeout: float | None = None
    ) -> None:
        """Set many keys. Up to 10,000 rows and 512 KiB are one change, all there or not at all; more are several."""
        for call in self._calls.insert_many(rows):
            self._run(call, timeout)

    @overload
    def lookup_many(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]: ...
    @overload
    def lookup_many(self, keys: Iterable[str], type: type[T], *, timeout: float | None = None) -> dict[str, T]: ...
    def lookup_many(self, keys: Iterable[str], type: Any = Any, *, timeout: float | None = None) -> dict[str, Any]:
        """Return those of `keys` that are there, with their values, decoded into `type` if given.

        Up to 10,000 keys are read at one moment, more in several steps.
        """
        found: dict[str, Any] = {}
        for call in self._calls.lookup_many(keys, type):
            found |= self._run(call, timeout)
        return found

    def remove_many(self, keys: Iterable[str], *, timeout: float | None = None) -> int:
        """Remove those of `keys` that are there, and return how many were."""
        return sum(self._run(call, timeout) for call in self._calls.remove_many(keys))

    @overload
    def query(self, subkey: str, subvalue: object, *, timeout: float | None = None) -> list[tuple[str, Any]]: ...
    @overload
    def query(
        self, subkey: str, subvalue: object, type: type[T], *, timeout: float | None = None
    ) -> list[tuple[str, T]]: ...
    def query(
        self, subkey: str, subvalue: object, type: Any = Any, *, timeout: float | None = None
    ) -> list[tuple[str, Any]]:
        """Return the rows whose value is a map in which `subkey` equals `subvalue`, sorted by key.

        The first query for a `subkey` builds an index; from then on a query costs its matches.

        Raises:
            ResultTooLarge: the rows do not fit one reply of 8 MiB
        """
        found: list[tuple[str, Any]] = self._run(self._calls.query(subkey, subvalue, type), timeout)
        return found

    def size(self, *, timeout: float | None = None) -> int:
        """Return the number of rows in the whole table."""
        count: int = self._run(self._calls.size(), timeout)
        return count

    @contextmanager
    def pipeline(self, *, timeout: float | None = None) -> Iterator[Pipeline]:
        """Gather operations and send them together when the block ends.

        with table.pipeline() as p:
            p.insert("a", 1)
            count = p.increment("n")
        count.result()
        """
        gathered = Pipeline(self._calls)
        with gathered.gathering():
            yield gathered
        with sent(gathered):
            for call in gathered.requests():
                self._run(call, timeout)

    @contextmanager
    def transaction(
        self, checks: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> Iterator[Transaction]:
        """Gather operations and apply all of them, or nothing, when the block ends.

        Args:
            checks: the values keys must have, or ABSENT

        Raises:
            CheckFailed: a check did not hold
            KeyError, TypeError: an operation failed
        """
        gathered = Transaction(self._calls, checks or {})
        with gathered.gathering():
            yield gathered
        with sent(gathered):
            self._run(gathered.request(), timeout)

    # ---- watching

    def watch(
        self,
        prefix: str = "",
        from_revision: int | None = None,
        *,
        epoch: str | None = None,
        timeout: float | None = None,
    ) -> Watch:
        """Return an iterator over the changes of the keys that begin with `prefix`.

        It has begun when this returns: a change made after that is seen. With `from_revision` it
        begins with the changes after that revision; with the `epoch` of the watch that had come so far, too, it is
        refused where this table went on from an older copy that did not hold them. It goes on through reconnects and
        restarts without gaps or repeats.

        Raises:
            RevisionGone: now or while iterating: the server no longer keeps the changes from there on
            Timeout: the server did not answer
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
    ) -> Watch:
        """Return an iterator over the changes of the rows that `query` finds, those that cease to match as removed."""
        return self._watch(
            lambda *place: self._calls.watch_query(subkey, subvalue, *place), from_revision, epoch, timeout
        )

    def _watch(
        self,
        make_call: Callable[[int | None, str | None], Call],
        from_revision: int | None,
        epoch: str | None,
        timeout: float | None,
    ) -> Watch:
        connection = self._connection
        if self._closed:
            raise ValueError(f"the {self._kind} is closed")
        make_call(from_revision, epoch)  # bad arguments are refused here, not when a connection is there
        # Here, as most programs watch nothing: a twentieth of the instructions from Python's start to a first answer.
        from kvzmq.client.core.push_channel import PushChannel
        from kvzmq.client.core.watch_state import WatchState
        from kvzmq.client.sync.watch import Watch

        state = WatchState(make_call, self._calls.prefix, from_revision, epoch, connection.lineage)
        channel = PushChannel(state, Endpoints(connection.targets), connection.open_socket, connection.note_seen)
        watch = Watch(channel, connection.timeout_s if timeout is None else check_timeout(timeout))
        try:
            watch.start()
        except BaseException:
            watch.close()
            raise
        return watch

    # ---- the server

    def ping(self, *, timeout: float | None = None) -> float:
        """Return how long the server took to answer, seconds."""
        began_s = time.perf_counter()
        self._run(self._calls.ping(), timeout)
        return time.perf_counter() - began_s

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the server says of itself, by name."""
        described: dict[str, Any] = self._run(self._calls.stats(), timeout)
        return described

    def clients(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """Return what the server knows of each client that is connected, by name."""
        found: list[dict[str, Any]] = []
        while page := self._run(self._calls.clients(found[-1]["name"] if found else ""), timeout):
            found += page
        return found

    def kick(self, name: str, *, timeout: float | None = None) -> bool:
        """End the connection of the client that `clients` calls so; False if there is none. Ours connect again."""
        ended: bool = self._run(self._calls.kick(name), timeout)
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
    ) -> Monitor:
        """Return an iterator over the requests that the server answers from now on; see MonitoredRequest.

        The server never waits for it: requests that it has no time or no room to tell of are counted as dropped. It
        tells names and keys, and no values.

        Args:
            client: only those of clients whose name begins so
            op: only requests with this operation
            prefix: only requests that touch keys which begin so; no other operations of theirs are shown then
            slower_than_s: only those that took so long, from their arrival until their reply was handed over
            sample: one of so many of these
            timeout: how long the server may take to begin, seconds

        Raises:
            NotAllowed: this client has not the rights `admin` and `read`
            ResultTooLarge: there are monitors enough
            Timeout: the server did not answer
        """
        connection = self._connection
        if self._closed:
            raise ValueError(f"the {self._kind} is closed")
        from kvzmq.client.core.monitor_state import MonitorState
        from kvzmq.client.core.push_channel import PushChannel
        from kvzmq.client.sync.monitor import Monitor

        state = MonitorState(self._calls.monitor(client, op, prefix, slower_than_s, sample), connection.lineage)
        channel = PushChannel(state, Endpoints(connection.targets), connection.open_socket)
        monitor = Monitor(channel, connection.timeout_s if timeout is None else check_timeout(timeout))
        try:
            monitor.start()
        except BaseException:
            monitor.close()
            raise
        return monitor

    def slow_requests(self, limit: int = SLOW_REQUESTS, *, timeout: float | None = None) -> list[MonitoredRequest]:
        """Return at most `limit` of the requests that took longest, the slowest first, as the server keeps them."""
        found: list[MonitoredRequest] = self._run(self._calls.slow_requests(limit), timeout)
        return found

    def backup(self, *, timeout: float | None = None) -> Iterator[bytes]:
        """Yield a backup of the whole table, whatever the prefix, in pieces of up to 256 KiB; see `kvzmq backup`.

        It holds everything that was acknowledged before. The server first writes a checkpoint, and goes on serving. It
        is whole when the iterator ends without an error: an end marker is in it, and checksums.

        Args:
            timeout: for each piece, seconds

        Raises:
            BackupFailed: it cannot be made, or was not read on for a minute, or the server was started anew
        """
        name = os.urandom(16).hex()
        while (length := self._run(self._calls.backup(name), timeout)) is None:
            time.sleep(BACKUP_POLL_S)
        offset = 0
        while offset < length:
            piece: bytes = self._run(self._calls.backup(name, offset), timeout)
            if not piece:
                raise errors.BackupFailed(BACKUP_ENDED)
            yield piece
            offset += len(piece)
        with contextlib.suppress(errors.KvzmqError):  # what is read is whole; the server lets it go in any case
            self._run(self._calls.backup(name, length), timeout)

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

    # ---- a mapping

    def __getitem__(self, key: str) -> Any:
        if self._copies and (found := self._copies.take(key, sys._getframe(1))):
            return found[0]
        return self.lookup(key)

    def __setitem__(self, key: str, value: object) -> None:
        self.insert(key, value)

    def __delitem__(self, key: str) -> None:
        self.remove(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.contains(key)

    def __len__(self) -> int:
        return len(self.keys()) if self._calls.prefix else self.size()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self, prefix: str = "") -> KeysView[str]:
        """Return a view of the keys that begin with `prefix`, in order, read a page at a time.

        Rows that others write meanwhile may or may not show; no row shows twice, none that stays is missed.
        """
        return Keys(self, prefix, None if prefix else Copy(sys._getframe(1)))

    @overload
    def items(self, prefix: str = "") -> ItemsView[str, Any]: ...
    @overload
    def items(self, prefix: str = "", *, type: type[T]) -> ItemsView[str, T]: ...
    def items(self, prefix: str = "", *, type: Any = Any) -> ItemsView[str, Any]:
        """Return a view of keys and values, as `keys` does; the values decoded into `type` if given.

        `dict(table.items())` reads the table in few messages, and so do `dict(table)` and `{**table}`.
        """
        return Items(self, prefix, type)

    @overload
    def values(self, prefix: str = "") -> ValuesView[Any]: ...
    @overload
    def values(self, prefix: str = "", *, type: type[T]) -> ValuesView[T]: ...
    def values(self, prefix: str = "", *, type: Any = Any) -> ValuesView[Any]:
        """Return a view of the values, as `keys` does, decoded into `type` if given."""
        return Values(self, prefix, type)

    def contains(self, key: str, *, timeout: float | None = None) -> bool:
        """Say whether `key` is there: `key in table`, with a timeout."""
        return bool(self._run(self._calls.contains(key), timeout))

    def setdefault(self, key: str, default: Any = None, *, timeout: float | None = None) -> Any:
        """Insert `default` if `key` is absent, and return the value it has then."""
        return self._run(self._calls.setdefault(key, default), timeout)

    def pop(self, key: str, default: Any = RAISE, *, timeout: float | None = None) -> Any:
        """Remove `key` and return its value, with nothing in between; `default` if it is absent.

        Raises:
            KeyError: it is absent, and no default was given
        """
        try:
            return self._run(self._calls.pop(key), timeout)
        except errors.NoSuchKey:
            if default is RAISE:
                raise
            return default

    def popitem(self) -> tuple[str, Any]:
        """Remove the first row and return it.

        Raises:
            KeyError: the table is empty
        """
        while page := self._run(self._calls.keys(limit=1), None):
            try:
                return page[0], self.pop(page[0])
            except errors.NoSuchKey:
                continue  # somebody was faster
        raise errors.NoSuchKey("the table is empty")

    def clear(self) -> None:
        """Remove all rows, a page at a time."""
        while page := self._run(self._calls.keys(), None):
            self.remove_many(page)

    def update(self, *others: Any, **rows: object) -> None:
        """Set many keys, from mappings, pairs and keywords, as one batch; see insert_many."""
        gathered: dict[str, object] = {}
        gathered.update(*others, **rows)
        self.insert_many(gathered)

    def __ior__(self, other: Mapping[str, object] | Iterable[tuple[str, object]]) -> Client:
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Client):
            return self is other  # clients are hashable: to compare two tables, compare their items
        return dict(self.items()) == dict(other.items()) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return id(self)

    # ---- life

    def close(self) -> None:
        """Drop the connection, also of the namespaces; calls of other threads end with an error.

        A namespace, or a copy, only ends itself: the client it was made from and its connection go on.
        """
        self._released = True
        self._run = self._refuse
        if self._owner:
            self._connection.close()

    def _refuse(self, call: Call, timeout_s: float | None = None) -> NoReturn:
        raise ValueError(f"the {self._kind} is closed")

    @property
    def _closed(self) -> bool:
        return self._released or self._connection.closed

    @property
    def _kind(self) -> str:
        return "client" if self._owner or not self._calls.prefix else "namespace"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __copy__(self) -> Client:
        return self.namespace("")

    def __deepcopy__(self, memo: object) -> Client:
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
        return f"<kvzmq.Client {urls} transport={self.transport}{place}{state}>"
