"""The serial dispatcher: many clients' requests in, one at a time through the store, replies out.

Whatever arrived in one step of the loop is one batch. Its changes go to the log together; while the
disk works, its requests are executed in the order of their arrival, each alone; when the changes are
durable the replies leave, in the same order. Nothing here knows a socket or a file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from kvzmq import __version__, errors
from kvzmq.protocol import messages, msgpack, operations
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.messages import Refusal, Reply, Request
from kvzmq.server import watches
from kvzmq.server.deferral import RELEASED_BYTES_MAX, Deferral, refuse_unbuilt
from kvzmq.server.transport import Arrival
from kvzmq.store.store import Store
from kvzmq.tracing.trace import Trace

WAITING_BYTES_MAX = 1 << 20
"""How many bytes of results wait for the disk, and one reply more: a step may ask for a thousand of 8 MiB each."""

_NO_PUSH = "a watch needs a DEALER's single frames: events through an envelope would be taken for replies"


class Dispatcher:
    """Runs batches of arrivals through a store.

    Args:
        store: recovered
        clock: microseconds since 1970 UTC; may jump, the table's own time does not
        describe: what `stats` answers
        group_commit: commit a step's changes together; otherwise each request alone, to measure the difference
        trace: writes down what is executed
        request_bytes_max: what `hello` tells of the transports' limit
        monotonic: seconds that only grow, for heartbeats
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], int],
        describe: Callable[[], dict[str, Any]],
        group_commit: bool = True,
        trace: Trace | None = None,
        request_bytes_max: int = messages.REQUEST_BYTES_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.watches = watches.Watches(store.table, monotonic)
        self.deferral = Deferral(store, monotonic)
        self.steps = 0
        self.requests = 0
        self.operations = 0
        self.refused = 0
        self._clock = clock
        self._monotonic = monotonic
        self._describe = describe
        self._group_commit = group_commit
        self._trace = trace
        self._described: bytes | None = None
        self._request_bytes_max = request_bytes_max
        self._served: dict[type[Operation], Callable[[Arrival, Any], Any]] = {
            operations.Hello: self._hello,
            operations.Stats: self._stats,
            operations.Watch: self._watch,
            operations.WatchQuery: self._watch_query,
            operations.Progress: self._progress,
            operations.Unwatch: self._unwatch,
        }
        if trace is not None:
            store.execute = trace.around(store.execute, lambda: store.table.revision)

    def dispatch(self, arrivals: list[Arrival]) -> None:
        """Execute one step's arrivals and send their replies; none leaves before the step is durable.

        Raises:
            StorageFatal: the disk cannot be trusted: nothing that is not durable was sent; stop
        """
        self.steps += 1
        self.watches.hear(arrivals)
        began_s = self._monotonic() if self.deferral else 0.0
        if self.store.table.expiries and self.store.table.is_due(self._clock()):
            self._run([], self._clock())  # first: who looks through rows is admitted knowing how many have changed
        if self.deferral:
            self._run_waiting()
        while arrivals:
            count = self._count_together(arrivals) if len(arrivals) > 1 else 1
            together, arrivals = (arrivals, []) if count == len(arrivals) else (arrivals[:count], arrivals[count:])
            time_us = self._clock()
            self._run_all(self.deferral.admit(together, time_us), time_us)
        if self.deferral.has_work:
            self.deferral.work(self._monotonic() - began_s if began_s else 0.0)
        self.watches.pump()

    def tick(self) -> None:
        """Let time pass without a request: expire rows, build indexes, tell watchers."""
        if self.deferral:
            self._run_waiting()
        self._run([], self._clock())
        self.deferral.work()
        self.watches.pump()

    def _count_together(self, arrivals: Sequence[Arrival]) -> int:
        """Return how many of the first arrivals may be executed before indexes are looked at again.

        Whoever looks through rows has to follow what was written before at once, so that must not be much; and what
        such a request writes itself is a group of its own, so that replay finds it in the same place.
        """
        written = 0
        for count, arrival in enumerate(arrivals):
            request = arrival.request
            if isinstance(request, Refusal):
                continue
            if written and request.scans and (request.writes or written > RELEASED_BYTES_MAX):
                return count
            if request.writes:
                written += len(request.frame)
        return len(arrivals)

    def _run_waiting(self) -> None:
        time_us = self._clock()
        waiting = self.deferral.release(time_us)
        while waiting:
            count = self._count_together(waiting)
            self._run_all(waiting[:count], time_us)
            waiting = waiting[count:]

    def _run_all(self, arrivals: Sequence[Arrival], time_us: int) -> None:
        if self._group_commit or not arrivals:
            self._run(arrivals, time_us)  # without any, too: rows that are due go on being removed
        else:
            for arrival in arrivals:
                self._run([arrival], time_us)

    def _run(self, arrivals: Sequence[Arrival], time_us: int) -> None:
        self.store.begin(
            [request for arrival in arrivals if isinstance(request := arrival.request, Request) and not request.served],
            time_us,
        )
        held: list[tuple[Arrival, Reply]] = []
        held_bytes = 0
        for arrival in arrivals:
            reply = self._answer(arrival)
            if self._trace is not None:
                self._trace.write(self.steps, arrival)
            held.append((arrival, reply))
            held_bytes += len(reply.results)
            if held_bytes > WAITING_BYTES_MAX:
                self._release(held)
                held_bytes = 0
        self._release(held)

    def _release(self, held: list[tuple[Arrival, Reply]]) -> None:
        """Send replies, as soon as the step is durable."""
        self.store.settle()
        for arrival, reply in held:
            arrival.transport.send(arrival.peer, reply)
        held.clear()

    def _answer(self, arrival: Arrival) -> Reply:
        request = arrival.request
        if not isinstance(request, Refusal) and request.served:
            request = self._admit(arrival, request)
        if isinstance(request, Refusal):
            self.refused += 1
            return msgpack.refuse(request.seq, self.store.table.revision, request.code, request.message)
        self.requests += 1
        self.operations += len(request.ops)
        if request.scans and not request.writes and not self.deferral.is_still_ready(request):
            refusal = refuse_unbuilt(request)  # what this step has written before is too much to follow at once
            return msgpack.refuse(refusal.seq, self.store.table.revision, refusal.code, refusal.message)
        return self._serve(arrival, request) if request.served else self.store.answer(request)

    def _admit(self, arrival: Arrival, request: Request) -> Request | Refusal:
        """Refuse, in the arrival itself, a watch by a peer that could not tell its events from replies."""
        if not operations.PUSHED.isdisjoint(map(type, request.ops)) and not arrival.transport.can_push(arrival.peer):
            arrival.request = Refusal(request.seq, errors.InvalidRequest.code, _NO_PUSH)
        return arrival.request

    # ---- operations that concern the server or the connection

    def _serve(self, arrival: Arrival, request: Request) -> Reply:
        results: list[tuple[int, Any]] = []
        table, budget = self.store.table, self.store.table.budget
        budget.begin(len(request.ops), table.semantics, table.revision)
        self._described = None
        for op in request.ops:
            try:
                serve = self._served.get(type(op))
                results.append((errors.OK, serve(arrival, op) if serve is not None else table.read(op)))
            except errors.OperationError as error:
                results.append((error.code, budget.charge_text(str(error))))
        self.watches.forget(arrival)
        return Reply(request.seq, table.revision, budget.encode(results))

    def _stats(self, arrival: Arrival, op: operations.Stats) -> Raw:
        if self._described is None:  # once for a request: it takes 50 us, and there may be 100,000 of it
            self._described = msgpack.encode_value(self._describe())
        return self.store.table.budget.charge(self._described)

    def _hello(self, arrival: Arrival, op: operations.Hello) -> dict[str, Any]:
        if op.info is not None and op.info.heartbeat_s is not None:
            self.watches.promise(arrival, op.info.heartbeat_s)
        table = self.store.table
        return {
            "version": __version__,
            **table.identity(),
            "revision": table.revision,
            "request_bytes_max": self._request_bytes_max,
            "heartbeat_s": messages.HEARTBEAT_S,
        }

    def _watch(self, arrival: Arrival, op: operations.Watch) -> Any:
        return self._start_watch(arrival, watches.by_prefix(op.prefix), op)

    def _watch_query(self, arrival: Arrival, op: operations.WatchQuery) -> Any:
        return self._start_watch(arrival, watches.by_query(op.subkey, op.subvalue), op)

    def _start_watch(
        self, arrival: Arrival, payload: watches.Filter, op: operations.Watch | operations.WatchQuery
    ) -> int | list[Any]:
        number = self.watches.add(arrival, payload, op.from_revision, op.epoch, marks=op.epoch != "")
        identity = self.store.table.identity()
        return number if op.epoch == "" else [number, identity["lineage"], identity["epoch"]]

    def _progress(self, arrival: Arrival, op: operations.Progress) -> bool:
        return self.watches.ask_progress(arrival, op.watch)

    def _unwatch(self, arrival: Arrival, op: operations.Unwatch) -> None:
        self.watches.remove(arrival, op.watch)
