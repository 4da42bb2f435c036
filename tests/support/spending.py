"""The clock that the server measures its phases with, in the test's hand: only what a test spends takes time.

A step that is preempted on a busy machine would otherwise be as slow as one that a test has made slow.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

LOOK_NS = 1000
"""By how much it goes on whenever somebody looks at it."""


class Clock:
    """A clock in nanoseconds."""

    def __init__(self) -> None:
        self._now_ns = time.perf_counter_ns()

    def now_ns(self) -> int:
        self._now_ns += LOOK_NS
        return self._now_ns

    def spend(self, seconds: float) -> None:
        self._now_ns += int(seconds * 1e9)


@contextlib.contextmanager
def clock_in_hand() -> Iterator[Clock]:
    """Have `time.perf_counter_ns` and `time.perf_counter` be a clock of the test's."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.perf_counter_ns", clock.now_ns)
        patch.setattr("time.perf_counter", lambda: clock.now_ns() / 1e9)
        yield clock
