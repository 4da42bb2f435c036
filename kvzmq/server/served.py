"""The operations that the server answers itself, not the table: `operations.SERVED`, each a method, in one table.

They tell of the server, or concern the watches and monitors of the connection that asks. None is logged, and none
changes a row. The dispatcher decides when they are answered, and when their replies leave.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from kvzmq import __version__, errors
from kvzmq.protocol import limits, msgpack, operations
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.messages import Reply, Request
from kvzmq.server.backups import Backups
from kvzmq.server.known_clients import KnownClients
from kvzmq.server.monitors import Monitors
from kvzmq.server.slow_log import SlowLog
from kvzmq.server.transport import Arrival, Transport
from kvzmq.server.watch_filters import Filter, by_prefix, by_query
from kvzmq.server.watches import Watches
from kvzmq.store.store import Store

_log = logging.getLogger(__name__)


class ServedOperations:
    """Answers the requests of which an operation concerns the server or the connection.

    Args:
        store: whose table the other operations of such a request read
        watches, monitors: that are begun and ended here
        slow_log: whose requests are shown, or None
        backups: that are read here
        describe: what `stats` answers
        request_bytes_max: the transports' limit, which `hello` reports
        transports: whose clients `clients` lists
    """

    def __init__(
        self,
        store: Store,
        watches: Watches,
        monitors: Monitors,
        slow_log: SlowLog | None,
        backups: Backups,
        describe: Callable[[], dict[str, Any]],
        request_bytes_max: int,
        transports: Sequence[Transport],
    ) -> None:
        self._store = store
        self._watches = watches
        self._monitors = monitors
        self._slow_log = slow_log
        self.backups = backups
        self._describe = describe
        self._described: bytes | None = None  # what was looked up for the request that is answered
        self._known: KnownClients | None = None
        self._request_bytes_max = request_bytes_max
        self._transports = transports
        self._step = 0
        self.methods: dict[type[Operation], Callable[[Arrival, Any], Any]] = {
            operations.Hello: self._hello,
            operations.Stats: self._stats,
            operations.SlowRequests: self._slow_requests,
            operations.Backup: self._backup,
            operations.Clients: self._clients,
            operations.Kick: self._kick,
            operations.Watch: self._watch,
            operations.WatchQuery: self._watch_query,
            operations.Monitor: self._monitor,
            operations.Progress: self._progress,
            operations.Unwatch: self._unwatch,
        }
        """What answers each operation: called with the arrival and the operation, it returns the payload."""

    def answer(self, arrival: Arrival, request: Request, step: int) -> Reply:
        """Answer a request; the operations of the table that it holds besides read the table.

        Args:
            step: the number of the loop's step that it is answered in
        """
        results: list[tuple[int, Any]] = []
        table, budget = self._store.table, self._store.table.budget
        budget.begin(len(request.ops), table.semantics, table.revision)
        self._step = step
        self._described = self._known = None
        for op in request.ops:
            try:
                method = self.methods.get(type(op))
                results.append((errors.OK, method(arrival, op) if method is not None else table.read(op)))
            except errors.OperationError as error:
                table.note_failed(op, error.code)
                results.append((error.code, budget.charge_text(str(error))))
        self._watches.forget(arrival)
        return Reply(request.seq, table.revision, budget.encode(results))

    # ---- the server

    def _hello(self, arrival: Arrival, op: operations.Hello) -> dict[str, Any]:
        if op.info is not None and op.info.heartbeat_s is not None:
            self._watches.expect_heartbeats(arrival, op.info.heartbeat_s)
        return {
            "version": __version__,
            **self._store.identity(),
            "revision": self._store.revision,
            "request_bytes_max": self._request_bytes_max,
            "heartbeat_s": limits.HEARTBEAT_S,
            "seen": True,
            "shared": self._store.is_shared,
        }

    def _stats(self, arrival: Arrival, op: operations.Stats) -> Raw:
        if self._described is None:  # once for a request: it takes 50 us, and there may be 100,000 of it
            self._described = msgpack.encode_value(self._describe())
        return self._store.table.budget.charge(self._described)

    def _slow_requests(self, arrival: Arrival, op: operations.SlowRequests) -> Raw:
        budget = self._store.table.budget
        budget.check()  # before they are sorted and encoded
        found = () if self._slow_log is None else self._slow_log.requests(op.limit)
        return budget.charge(msgpack.encode_value(found))

    def _backup(self, arrival: Arrival, op: operations.Backup) -> int | Raw | None:
        if isinstance(arrival.request, Request) and len(arrival.request.ops) > 1:
            raise errors.BackupFailed(
                "backup goes in a request of its own: reading more than a piece would hold others up"
            )
        if op.offset is None:
            return self.backups.begin(op.id)
        return self._store.table.budget.charge(msgpack.encode_value(self.backups.read(op.id, op.offset)))

    def _clients(self, arrival: Arrival, op: operations.Clients) -> Raw:
        budget = self._store.table.budget
        budget.check()  # before the kernel is asked of each
        return budget.charge(msgpack.encode_value(self._known_clients().describe(op.after, op.limit)))

    def _known_clients(self) -> KnownClients:
        if self._known is None:
            self._known = KnownClients(self._transports, self._watches.count_by_client())
        return self._known

    def _kick(self, arrival: Arrival, op: operations.Kick) -> bool:
        if not self._known_clients().kick(op.name):
            return False
        _log.info("%s was kicked by %s", op.name, arrival.transport.name(arrival.peer))
        return True

    # ---- the connection's watches and monitors

    def _watch(self, arrival: Arrival, op: operations.Watch) -> Any:
        return self._start_watch(arrival, by_prefix(op.prefix), op)

    def _watch_query(self, arrival: Arrival, op: operations.WatchQuery) -> Any:
        return self._start_watch(arrival, by_query(op.subkey, op.subvalue), op)

    def _start_watch(
        self, arrival: Arrival, filter_: Filter, op: operations.Watch | operations.WatchQuery
    ) -> int | list[Any]:
        number = self._watches.add(arrival, filter_, op.from_revision, op.epoch, boundaries=op.epoch != "")
        identity = self._store.identity()
        return number if op.epoch == "" else [number, identity["lineage"], identity["epoch"]]

    def _monitor(self, arrival: Arrival, op: operations.Monitor) -> int:
        number = self._watches.take_number()
        self._monitors.add(arrival, number, op, self._step)
        self._store.keeps_times = True
        return number

    def _progress(self, arrival: Arrival, op: operations.Progress) -> bool:
        return self._watches.ask_progress(arrival, op.watch) or self._monitors.note_heartbeat(arrival, op.watch)

    def _unwatch(self, arrival: Arrival, op: operations.Unwatch) -> None:
        self._watches.remove(arrival, op.watch)
        self._monitors.remove(arrival, op.watch)
