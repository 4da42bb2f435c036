"""Requests that wait until what they ask for is built, or until rows that are due have been removed.

Building an index over a million rows takes a fifth of a second and more. So a request that looks
through rows and lacks an index is set aside, before anything of it is logged, and the index is
built in slices between steps. To keep the order of replies, the later requests of the same peer
wait behind it. When all is there they are executed ahead of newer ones.

What waits is bounded: a peer that sends too much meanwhile has everything executed at once, and
what still lacks something is refused in its place. A peer that leaves costs nothing more than the
execution of what it had sent.
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
"""How much of a step's time counts for how long its indexes are worked on."""

FOLLOW_S = 0.05
"""How long a request waits within its step until an index has followed what the step has changed."""

AT_ONCE_S = 0.02
"""How long a step may build for requests that have just come, before it sets them aside."""

WAITING_OF_ONE_MAX = 1024
WAITING_BYTES_OF_ONE_MAX = 1 << 20
"""How many requests of one peer wait, and how many bytes of them; beyond either all are executed at once. The one that
waits for an index may be larger."""

WAITING_MAX = 20_000
WAITING_BYTES_MAX = 32 << 20
"""How many requests wait in all, and how many bytes of them; beyond either the peer that has waited longest goes."""

RELEASED_BYTES_MAX = 16 << 10
"""How many bytes of writes are executed before a request that looks through rows, which has to follow them at once."""

RELEASED_SCANS_MAX = 16
"""How many of those that waited, and look through rows, go with one step."""

LINES_LOOKED_AT_MAX = 256
"""How many peers that wait are looked at in a step."""

BEING_BUILT = "an index is being built: ask again"


def refuse_unbuilt(request: Request) -> Refusal:
    """Return the refusal of a request that lacks an index."""
    code = errors.ResultTooLarge.code if len(request.ops) == 1 else errors.InvalidRequest.code
    return Refusal(request.seq, code, BEING_BUILT)


def _size(arrival: Arrival) -> int:
    return len(arrival.request.frame) if isinstance(arrival.request, Request) else 0


def _weight(arrival: Arrival) -> int:
    return arrival.request.weight if isinstance(arrival.request, Request) else 1


class _Line:
    """The requests of one peer that wait, the first because it lacks something."""

    __slots__ = ("arrivals", "bytes")

    def __init__(self) -> None:
        self.arrivals: deque[Arrival] = deque()
        self.bytes = 0


class Deferral:
    """Sets requests aside, and gives them back when they can be executed.

    Args:
        store: whose table is asked
        clock_s: seconds that only grow
    """

    def __init__(self, store: Store, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock_s = clock_s
        self._lines: dict[tuple[Transport, Hashable], _Line] = {}  # the one that has waited longest first
        self._bytes = 0
        self._count = 0
        self._working = False
        self._looked_at = (0, -1, True)
        self._overdue = False

    def __len__(self) -> int:
        return self._count

    def blocks(self, arrival: Arrival) -> bool:
        """Say whether a request has to wait because an earlier one of its peer does."""
        return (arrival.transport, arrival.peer) in self._lines

    @property
    def is_busy(self) -> bool:
        """Whether there is work for a step even when nothing arrives."""
        return self._working or bool(self._lines)

    def is_ready(self, request: Request, time_us: int) -> bool:
        """Say whether a request that looks through rows can be executed at `time_us`."""
        return not self._is_overdue(time_us) and self._store.is_indexed(request)

    def _is_overdue(self, time_us: int) -> bool:
        """Say whether too many rows are due, looking once for a time and state of the table."""
        at = (time_us, self._store.revision, self._store.trouble is None)
        if self._looked_at != at:
            self._looked_at, self._overdue = at, self._store.is_overdue(time_us)
        return self._overdue

    def is_still_ready(self, request: Request) -> bool:
        """Say so again within the step, after others of it were executed; follow what they have changed, if need be."""
        store = self._store
        if store.is_late:
            return False
        if not store.is_indexed(request):
            store.build_indexes(request, self._clock_s() + FOLLOW_S, self._clock_s)
        return store.is_indexed(request)

    def release(self, time_us: int) -> list[Arrival]:
        """Return those that waited and can be executed now, in their order."""
        released: list[Arrival] = []
        left = RELEASED_SCANS_MAX
        weight = taken_bytes = 0
        for peer in list(islice(self._lines, LINES_LOOKED_AT_MAX)):
            line = self._lines[peer]
            overdue = (
                len(line.arrivals) > WAITING_OF_ONE_MAX
                or line.bytes > WAITING_BYTES_OF_ONE_MAX + _size(line.arrivals[0])
                or self._count > WAITING_MAX
                or self._bytes > WAITING_BYTES_MAX
            )
            if overdue:
                self._refuse_unready(line, time_us)
                left += len(line.arrivals)
            before = len(released)
            self._take(line, left, time_us, released)
            left -= sum(arrival.request.scans for arrival in released[before:])
            weight += sum(map(_weight, released[before:]))
            taken_bytes += sum(map(_size, released[before:]))
            if not line.arrivals:
                del self._lines[peer]
            if left <= 0 or weight >= STEP_WEIGHT_MAX or taken_bytes >= STEP_BYTES_MAX:
                break
        return released

    def _refuse_unready(self, line: _Line, time_us: int) -> None:
        for arrival in line.arrivals:
            request = arrival.request
            if isinstance(request, Request) and request.scans and not self.is_ready(request, time_us):
                self._replace(line, arrival, refuse_unbuilt(request))

    def _replace(self, line: _Line, arrival: Arrival, refusal: Refusal) -> None:
        line.bytes -= _size(arrival)
        self._bytes -= _size(arrival)
        arrival.request = refusal

    def _take(self, line: _Line, scans_max: int, time_us: int, released: list[Arrival]) -> None:
        """Take what can be executed from the front of a line, to a request that lacks something, or a step's worth."""
        written = weight = 0
        while line.arrivals and weight < STEP_WEIGHT_MAX:
            request = line.arrivals[0].request
            if isinstance(request, Request):
                if request.scans:
                    if scans_max <= 0 or written > RELEASED_BYTES_MAX or not self.is_ready(request, time_us):
                        return
                    scans_max -= 1
                if request.writes:
                    written += len(request.frame)
            arrival = line.arrivals.popleft()
            weight += _weight(arrival)
            line.bytes -= _size(arrival)
            self._bytes -= _size(arrival)
            self._count -= 1
            released.append(arrival)

    def admit(self, arrivals: Sequence[Arrival], time_us: int) -> list[Arrival]:
        """Return those that can be executed now; set the others aside, and who comes behind them."""
        admitted: list[Arrival] = []
        tried = False
        for arrival in arrivals:
            request = arrival.request
            peer = (arrival.transport, arrival.peer)
            if self._lines and peer in self._lines:
                self._set_aside(peer, arrival)
                continue
            ready = not isinstance(request, Request) or not request.scans or self.is_ready(request, time_us)
            if not ready and not tried and not self._lines and isinstance(request, Request):
                tried = True
                ready = self._build_at_once(request) and self.is_ready(request, time_us)
            if ready:
                admitted.append(arrival)
            else:
                self._set_aside(peer, arrival)
        return admitted

    def _build_at_once(self, request: Request) -> bool:
        """Build what can be built in no time, which is not worth a wait; say whether nothing is left to build."""
        return not self._store.build_indexes(request, self._clock_s() + AT_ONCE_S, self._clock_s)

    def _set_aside(self, peer: tuple[Transport, Hashable], arrival: Arrival) -> None:
        line = self._lines.get(peer)
        if line is None:
            line = self._lines[peer] = _Line()
        line.arrivals.append(arrival)
        line.bytes += _size(arrival)
        self._bytes += _size(arrival)
        self._count += 1

    def work(self, executed_s: float = 0.0) -> None:
        """Build for a while; the line that has waited longest says what comes first.

        Args:
            executed_s: how long the step has executed requests. While somebody waits twice as long is spent on the
                indexes: who writes in bulk would else change more in each step than is followed after it.
        """
        wanted = None
        if self._lines:
            wanted = self._find_wanted(next(iter(self._lines.values())))
        elif not self._store.has_indexes:
            self._working = False
            return
        slice_s = SLICE_S + (2 * min(executed_s, EXECUTED_S_MAX) if self._lines else 0.0)
        self._working = self._store.build_indexes(wanted, self._clock_s() + slice_s, self._clock_s)

    def _find_wanted(self, line: _Line) -> Request | None:
        """Return the request whose indexes are built next; one whose indexes are too large together is refused."""
        request = line.arrivals[0].request
        if not isinstance(request, Request):
            return None
        if self._store.fit_indexes(request):
            return request
        message = f"the indexes on these subkeys take more than {INDEX_BYTES_MAX} bytes: query one at a time"
        self._replace(line, line.arrivals[0], Refusal(request.seq, errors.InvalidRequest.code, message))
        return None
