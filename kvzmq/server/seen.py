"""Requests that wait until this server has applied what their clients have seen.

A client of several servers may have seen a revision at one of them that another has not applied yet. Its reads there
(`SeenRequest`) wait for it: for milliseconds most often, and for SEEN_S at most; then they are refused, so that the
client asks another server. To keep the order of replies, the later requests of the same peer wait behind them.

The queues are bounded: when a peer has too much in its queue, or has waited longest where all together have too much,
all of it is returned at once, and what would still have to wait is refused, each in its place. When a peer disconnects
its queue stays: what it had sent is executed all the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from kvzmq import errors
from kvzmq.protocol.messages import Refusal
from kvzmq.server.transport import Arrival, Transport
from kvzmq.store.store import Store

SEEN_S = 1.0
"""How long a request waits, seconds: a server that follows its log is milliseconds behind, one that is cut off stays
so, and its client has other servers to ask before its deadline."""

WAITING_OF_ONE_MAX = 256
WAITING_BYTES_OF_ONE_MAX = 1 << 20
"""How many requests of one peer wait, and how many bytes of them."""

WAITING_MAX = 4096
WAITING_BYTES_MAX = 32 << 20
"""How many requests wait in all, and how many bytes of them."""

_Peer = tuple[Transport, Hashable]


class _Queue:
    """The waiting requests of one peer: the first is ahead of the table, the others wait behind it."""

    __slots__ = ("arrivals", "bytes", "due_s")

    def __init__(self, due_s: float) -> None:
        self.arrivals: deque[Arrival] = deque()
        self.bytes = 0
        self.due_s = due_s


class SeenQueue:
    """Holds requests until the table has the revisions they wait for, and returns them then, or as refusals.

    Args:
        store: whose table the requests are for
        clock_s: seconds that only grow
    """

    def __init__(self, store: Store, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock_s = clock_s
        self.queues: dict[_Peer, _Queue] = {}
        """The waiting requests of each peer, the one that has waited longest first; empty where nothing waits."""
        self._count = 0
        self._bytes = 0
        self._revision = 0  # at the last release

    def __len__(self) -> int:
        return self._count

    def wait_s(self, timeout_s: float) -> float:
        """Return how long the loop may wait, `timeout_s` at most, before `release` has to be called."""
        if not self.queues:
            return timeout_s
        if self._store.revision != self._revision:
            return 0.0
        due_s = min(queue.due_s for queue in self.queues.values())
        return min(timeout_s, max(0.0, due_s - self._clock_s()))

    def admit(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Return the requests that need not wait; keep the others, and what their peers have sent after them."""
        admitted: list[Arrival] = []
        for arrival in arrivals:
            peer = arrival.transport, arrival.peer
            queue = self.queues.get(peer)
            if queue is None:
                if not self._is_ahead(arrival):
                    admitted.append(arrival)
                    continue
                if not self._store.is_shared:  # nobody else will bring it
                    self._refuse(arrival)
                    admitted.append(arrival)
                    continue
                queue = self.queues[peer] = _Queue(self._clock_s() + SEEN_S)
            queue.arrivals.append(arrival)
            self._account(queue, arrival, 1)
            if len(queue.arrivals) > WAITING_OF_ONE_MAX or queue.bytes > WAITING_BYTES_OF_ONE_MAX:
                admitted += self._end(peer)
            elif self._count > WAITING_MAX or self._bytes > WAITING_BYTES_MAX:
                admitted += self._end(next(iter(self.queues)))
        return admitted

    def release(self) -> list[Arrival]:
        """Return the requests that need not wait any more, those that have waited too long as refusals."""
        now_s = self._clock_s()
        moved = self._store.revision != self._revision
        self._revision = self._store.revision
        released: list[Arrival] = []
        for peer, queue in list(self.queues.items()):
            if moved or queue.due_s <= now_s:
                self._take(peer, queue, now_s, released)
        return released

    def _take(self, peer: _Peer, queue: _Queue, now_s: float, released: list[Arrival]) -> None:
        while queue.arrivals:
            arrival = queue.arrivals[0]
            if self._is_ahead(arrival):
                if queue.due_s > now_s:
                    return
                self._refuse(arrival)
                queue.due_s = now_s  # of those behind it, too: they have waited, or would all wait in turn
            self._account(queue, arrival, -1)
            released.append(queue.arrivals.popleft())
        del self.queues[peer]

    def _end(self, peer: _Peer) -> list[Arrival]:
        """Return all requests of a peer that has too many, those that would have to wait as refusals."""
        queue = self.queues.pop(peer)
        for arrival in queue.arrivals:
            self._account(queue, arrival, -1)
            if self._is_ahead(arrival):
                self._refuse(arrival)
        return list(queue.arrivals)

    def _account(self, queue: _Queue, arrival: Arrival, count: int) -> None:
        size = count * arrival.request_bytes
        queue.bytes += size
        self._bytes += size
        self._count += count

    def _is_ahead(self, arrival: Arrival) -> bool:
        seen = arrival.request.seen
        return seen is not None and seen > self._store.revision

    def _refuse(self, arrival: Arrival) -> None:
        request, revision = arrival.request, self._store.revision
        message = f"not executed: this server is at revision {revision}, the client has seen {request.seen}: " + (
            "ask another one, or again"
            if self._store.is_shared
            else "the table was put back from an older copy. Connect anew to go on with it"
        )
        arrival.request = Refusal(request.seq, errors.Unavailable.code, message)
