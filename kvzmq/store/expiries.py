"""When rows with a time to live are due."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class Expiries:
    """The deadlines of the rows that have one, microseconds of the table's time.

    The heap may still hold deadlines that were changed since; only `deadlines` is authoritative.
    """

    def __init__(self) -> None:
        self.deadlines: dict[str, int] = {}
        """By key, to be read only; empty if no row has one, which each step has to know."""
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self.deadlines)

    def get(self, key: str) -> int | None:
        """Return the deadline of `key`."""
        return self.deadlines.get(key)

    def set(self, key: str, deadline_us: int | None) -> None:
        """Give `key` a deadline, or none."""
        if deadline_us is None:
            self.deadlines.pop(key, None)
            return
        self.deadlines[key] = deadline_us
        heapq.heappush(self._heap, (deadline_us, key))
        if len(self._heap) > 2 * len(self.deadlines) + 1000:
            self._heap = [(deadline, key) for key, deadline in self.deadlines.items()]
            heapq.heapify(self._heap)

    def forget(self, keys: Iterable[str]) -> None:
        """Remove the deadlines of `keys`."""
        deadlines = self.deadlines
        for key in filter(deadlines.__contains__, keys):
            del deadlines[key]

    def next_us(self) -> int | None:
        """Return the earliest deadline."""
        heap = self._heap
        while heap and self.deadlines.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def is_past(self, key: str, time_us: int) -> bool:
        """Say whether the deadline of `key` has come."""
        deadline = self.deadlines.get(key)
        return deadline is not None and deadline <= time_us

    def exceed(self, count: int, time_us: int) -> bool:
        """Say whether more than `count` rows are due at `time_us`; takes time for little more than `count` of them."""
        heap, deadlines = self._heap, self.deadlines
        if len(deadlines) <= count:
            return False
        found = set()
        ahead = [0]
        while ahead:  # in a heap nothing below an entry is due before it
            at = ahead.pop()
            if at < len(heap) and heap[at][0] <= time_us:
                deadline, key = heap[at]
                if deadlines.get(key) == deadline:
                    found.add(key)
                    if len(found) > count:
                        return True
                ahead += (2 * at + 1, 2 * at + 2)
        return False

    def due(self, time_us: int, count: int | None = None) -> list[str]:
        """Remove and return the keys due at `time_us`, by deadline, then by key, the first `count` of them."""
        keys: list[str] = []
        while (count is None or len(keys) < count) and (deadline := self.next_us()) is not None and deadline <= time_us:
            key = heapq.heappop(self._heap)[1]
            del self.deadlines[key]
            keys.append(key)
        return keys

    def items(self) -> Iterable[tuple[str, int]]:
        """Return keys and deadlines."""
        return self.deadlines.items()

    def load(self, deadlines: dict[str, int]) -> None:
        """Add deadlines read from a checkpoint."""
        for key, deadline_us in deadlines.items():
            self.set(key, deadline_us)
