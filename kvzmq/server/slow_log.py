"""The slow log: the requests that took longest, and the latest that took long, with where their time went.

A step is looked at only if it took as long as the threshold, or answered requests that had waited since an earlier
one; of such a step, the OF_A_STEP_MAX requests that executed longest are kept. What is kept is bounded in number, and
each record in bytes.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Sequence

from kvzmq.protocol.monitoring import MonitoredRequest
from kvzmq.server.answers import AnsweredStep, Names

SLOWER_THAN_S = 0.1
"""From how long on a request is slow, unless the server is told otherwise."""

SLOWEST_MAX = 128
RECENT_MAX = 128
"""How many requests are kept that took longest since the server started, and how many of the latest."""

OF_A_STEP_MAX = 8
"""How many requests of one step are kept: all of them had to wait for the same, so others would say the same."""


class SlowLog:
    """Keeps slow requests.

    Args:
        slower_than_s: from how long on, seconds
    """

    def __init__(self, slower_than_s: float = SLOWER_THAN_S) -> None:
        self.slower_than_s = slower_than_s
        self.slower_than_ns = round(slower_than_s * 1e9)
        self.seen = 0
        """How many slow requests there were."""
        self._names = Names()
        self._kept = 0
        self._slowest: list[tuple[float, int, MonitoredRequest]] = []  # a heap, with the number of each
        self._recent: deque[MonitoredRequest] = deque(maxlen=RECENT_MAX)

    def look(self, step: AnsweredStep) -> None:
        """Keep what was slow of a step that has ended."""
        slow = [answered for answered in step.requests() if answered.took_ns >= self.slower_than_ns]
        self.seen += len(slow)
        for answered in sorted(slow, key=lambda answered: answered.executed_ns, reverse=True)[:OF_A_STEP_MAX]:
            self._keep(answered.record(self._names))
        self._names.forget()

    def _keep(self, record: MonitoredRequest) -> None:
        self._recent.append(record)
        self._kept += 1
        entry = (record.took_s, self._kept, record)
        if len(self._slowest) < SLOWEST_MAX:
            heapq.heappush(self._slowest, entry)
        else:
            heapq.heappushpop(self._slowest, entry)

    def requests(self, limit: int) -> Sequence[MonitoredRequest]:
        """Return at most `limit` of what is kept, the slowest first."""
        kept: dict[Hashable, MonitoredRequest] = {id(record): record for _, _, record in self._slowest}
        kept |= {id(record): record for record in self._recent}
        return sorted(kept.values(), key=lambda record: record.took_s, reverse=True)[:limit]
