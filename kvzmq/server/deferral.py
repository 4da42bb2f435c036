"""Requests that are deferred: until the indexes they need are built, and until rows that are due have been removed.

Building an index over a million rows takes a fifth of a second and more. So a scan whose index is not built is
deferred, before anything of it is logged, and the index is built in slices between steps. To keep the order of
replies, the later requests of the same peer wait in a queue behind it. When the index is built they are executed
ahead of newer requests.

The queues are bounded: when a peer has too much in its queue, all of it is executed at once, and those of its scans
that are still not ready are refused, each in its place. When a peer disconnects its queue stays: what it had sent is
executed all the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import islice

from kvzmq import errors
from kvzmq.protocol.messages import Refusal, Request
from kvzmq.server.transport import STEP_BYTES_MAX, STEP_WEIGHT_MAX, Arrival, Transport
from kvzmq.store.indexes import INDEX_BYTES_MAX
from kvzmq.store.store import Store

SLICE_S = 0.01
"""How long a step builds indexes, seconds."""

EXECUTED_S_MAX = 0.03
"""How much of the time for which a step has executed requests is counted when the time for its indexes is set."""

FOLLOW_S = 0.05
"""How long a scan waits within its step until its index has applied the changes made earlier in the step."""

AT_ONCE_S = 0.02
"""How long a step may build indexes for requests that have just come, before it defers them."""

WAITING_OF_ONE_MAX = 1024
WAITING_BYTES_OF_ONE_MAX = 1 << 20
"""How many requests of one peer wait, and how many bytes of them; beyond either all are executed at once. The first
one, for which the others wait, may be larger."""

WAITING_MAX = 20_000
WAITING_BYTES_MAX = 32 << 20
"""How many requests wait in all, and how many bytes of them; beyond either, all requests of the peer that has waited
longest are executed."""

RELEASED_BYTES_MAX = 16 << 10
"""How many bytes of writes may be executed before a scan in the same group: its index has to apply them at once."""

RELEASED_SCANS_MAX = 16
"""How many deferred scans are executed in one step."""

QUEUES_A_STEP_MAX = 256
"""How many queues are examined in a step."""

BEING_BUILT = "an index is being built: ask again"
"""The message of a refusal for want of an index."""


def refuse_unbuilt(request: Request) -> Refusal:
    """Return the refusal of a request whose index is not built."""
    code = errors.ResultTooLarge.code if len(request.ops) == 1 else errors.InvalidRequest.code
    return Refusal(request.seq, code, BEING_BUILT)


def count_together(arrivals: Sequence[Arrival]) -> int:
    """Return how many of the first arrivals go into one group.

    The indexes of a scan have to apply at once what was written before it in its group, so a group ends before a
    scan when much was written. A request that writes and scans begins a group if anything was written before it,
    so that its result does not depend on the other requests of its step, and replay gives the same.
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


def _weight(arrival: Arrival) -> int:
    return arrival.request.weight if isinstance(arrival.request, Request) else 1


class _Queue:
    """The deferred requests of one peer: the first is a scan that is not ready, the others wait behind it."""

    __slots__ = ("arrivals", "bytes")

    def __init__(self) -> None:
        self.arrivals: deque[Arrival] = deque()
        self.bytes = 0


class Deferral:
    """Defers requests, and returns them when they can be executed.

    Args:
        store: whose table the requests are for
        clock_s: seconds that only grow
    """

    def __init__(self, store: Store, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock_s = clock_s
        self._queues: dict[tuple[Transport, Hashable], _Queue] = {}  # the one that has waited longest first
        self._bytes = 0
        self._count = 0
        self._working = False
        self._asked_at = (0, -1, True)
        self._backlog_left = False

    def __len__(self) -> int:
        return self._count

    def blocks(self, arrival: Arrival) -> bool:
        """Say whether a request has to wait because an earlier one of its peer does."""
        return (arrival.transport, arrival.peer) in self._queues

    @property
    def is_busy(self) -> bool:
        """Whether there is work for a step even when nothing arrives."""
        return self._working or bool(self._queues)

    def is_ready(self, request: Request, time_us: int) -> bool:
        """Say whether a scan can be executed at `time_us`."""
        return not self._leaves_backlog(time_us) and self._store.is_indexed(request)

    def _leaves_backlog(self, time_us: int) -> bool:
        """Say whether more rows are due than one group removes; found out once for a time and state of the table."""
        at = (time_us, self._store.revision, self._store.trouble is None)
        if self._asked_at != at:
            self._asked_at, self._backlog_left = at, self._store.leaves_expiry_backlog(time_us)
        return self._backlog_left

    def is_still_ready(self, request: Request) -> bool:
        """Say whether a scan can still be executed after others of its step were; its indexes catch up if need be."""
        store = self._store
        if store.has_expiry_backlog:
            return False
        if not store.is_indexed(request):
            store.build_indexes(request, self._clock_s() + FOLLOW_S, self._clock_s)
        return store.is_indexed(request)

    def release(self, time_us: int) -> list[Arrival]:
        """Return the deferred requests that can be executed now, in their order."""
        released: list[Arrival] = []
        left = RELEASED_SCANS_MAX
        weight = taken_bytes = 0
        for peer in list(islice(self._queues, QUEUES_A_STEP_MAX)):
            queue = self._queues[peer]
            is_over_limit = (
                len(queue.arrivals) > WAITING_OF_ONE_MAX
                or queue.bytes > WAITING_BYTES_OF_ONE_MAX + queue.arrivals[0].request_bytes
                or self._count > WAITING_MAX
                or self._bytes > WAITING_BYTES_MAX
            )
            if is_over_limit:
                self._refuse_unready(queue, time_us)
                left += len(queue.arrivals)
            before = len(released)
            self._take(queue, left, time_us, released)
            left -= sum(arrival.request.scans for arrival in released[before:])
            weight += sum(map(_weight, released[before:]))
            taken_bytes += sum(arrival.request_bytes for arrival in released[before:])
            if not queue.arrivals:
                del self._queues[peer]
            if left <= 0 or weight >= STEP_WEIGHT_MAX or taken_bytes >= STEP_BYTES_MAX:
                break
        return released

    def _refuse_unready(self, queue: _Queue, time_us: int) -> None:
        for arrival in queue.arrivals:
            request = arrival.request
            if isinstance(request, Request) and request.scans and not self.is_ready(request, time_us):
                self._replace(queue, arrival, refuse_unbuilt(request))

    def _replace(self, queue: _Queue, arrival: Arrival, refusal: Refusal) -> None:
        queue.bytes -= arrival.request_bytes
        self._bytes -= arrival.request_bytes
        arrival.request = refusal

    def _take(self, queue: _Queue, scans_max: int, time_us: int, released: list[Arrival]) -> None:
        """Take requests from the front of a queue, up to one that is not ready, or as many as one step executes."""
        written = weight = 0
        while queue.arrivals and weight < STEP_WEIGHT_MAX:
            request = queue.arrivals[0].request
            if isinstance(request, Request):
                if request.scans:
                    if scans_max <= 0 or written > RELEASED_BYTES_MAX or not self.is_ready(request, time_us):
                        return
                    scans_max -= 1
                if request.writes:
                    written += len(request.frame)
            arrival = queue.arrivals.popleft()
            weight += _weight(arrival)
            queue.bytes -= arrival.request_bytes
            self._bytes -= arrival.request_bytes
            self._count -= 1
            released.append(arrival)

    def admit(self, arrivals: Sequence[Arrival], time_us: int) -> list[Arrival]:
        """Return the requests that can be executed now; defer the others, and what their peers have sent after them."""
        admitted: list[Arrival] = []
        tried = False
        for arrival in arrivals:
            request = arrival.request
            peer = (arrival.transport, arrival.peer)
            if self._queues and peer in self._queues:
                self._defer(peer, arrival)
                continue
            ready = not isinstance(request, Request) or not request.scans or self.is_ready(request, time_us)
            if not ready and not tried and not self._queues and isinstance(request, Request):
                tried = True
                ready = self._build_at_once(request) and self.is_ready(request, time_us)
            if ready:
                admitted.append(arrival)
            else:
                self._defer(peer, arrival)
        return admitted

    def _build_at_once(self, request: Request) -> bool:
        """Build the indexes of a request for AT_ONCE_S; say whether nothing is left to build."""
        return not self._store.build_indexes(request, self._clock_s() + AT_ONCE_S, self._clock_s)

    def _defer(self, peer: tuple[Transport, Hashable], arrival: Arrival) -> None:
        queue = self._queues.get(peer)
        if queue is None:
            queue = self._queues[peer] = _Queue()
        queue.arrivals.append(arrival)
        queue.bytes += arrival.request_bytes
        self._bytes += arrival.request_bytes
        self._count += 1

    def work(self, executed_s: float = 0.0) -> None:
        """Build indexes for a while, first those that the queue which has waited longest needs.

        Args:
            executed_s: how long the step has executed requests. While requests are deferred, twice that time is spent
                on the indexes: otherwise bulk writes could change more in each step than the indexes apply after it.
        """
        wanted = None
        if self._queues:
            wanted = self._find_wanted(next(iter(self._queues.values())))
        elif not self._store.has_indexes:
            self._working = False
            return
        slice_s = SLICE_S + (2 * min(executed_s, EXECUTED_S_MAX) if self._queues else 0.0)
        self._working = self._store.build_indexes(wanted, self._clock_s() + slice_s, self._clock_s)

    def _find_wanted(self, queue: _Queue) -> Request | None:
        """Return the request whose indexes are built next; it is refused if they are too large together."""
        request = queue.arrivals[0].request
        if not isinstance(request, Request):
            return None
        if self._store.fit_indexes(request):
            return request
        message = f"the indexes on these subkeys take more than {INDEX_BYTES_MAX} bytes: query one at a time"
        self._replace(queue, queue.arrivals[0], Refusal(request.seq, errors.InvalidRequest.code, message))
        return None
