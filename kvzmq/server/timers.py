"""Timers of an event loop, as in Redis's `ae.c`: a callback says in how many seconds it wants to be called again.

A turn of the loop calls every timer that is due once, the one that is due longest first; so a timer that is
late, or always due, or slow, delays the others but takes nobody's turn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Union

Callback = Callable[[], Union[float, None]]
"""Returns in how many seconds it is to be called again, or None for never."""


class _Timer:
    __slots__ = ("callback", "due_s", "wakes")

    def __init__(self, callback: Callback, due_s: float, wakes: bool) -> None:
        self.callback = callback
        self.due_s = due_s
        self.wakes = wakes


class Timers:
    """A few timers; thousands would need a heap.

    Args:
        clock: seconds that only grow
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._timers: list[_Timer] = []
        self._next_s = math.inf  # when the first is due
        self._wake_s = math.inf  # when the first that wakes the loop is due

    def add(self, callback: Callback, first_s: float = 0.0, wakes: bool = True) -> None:
        """Have `callback` called in `first_s` seconds, and then as it says.

        Args:
            wakes: whether an idle loop wakes up for it; otherwise it is called with the next turn
        """
        self._timers.append(_Timer(callback, self._clock() + first_s, wakes))
        self._note_next()

    def _note_next(self) -> None:
        self._next_s = min((timer.due_s for timer in self._timers), default=math.inf)
        self._wake_s = min((timer.due_s for timer in self._timers if timer.wakes), default=math.inf)

    def wait_s(self, timeout_s: float) -> float:
        """Return how long an idle loop may wait, `timeout_s` at most: 0 if a timer that wakes it is late."""
        return timeout_s if self._wake_s == math.inf else min(timeout_s, max(0.0, self._wake_s - self._clock()))

    def run(self) -> None:
        """Call what is due, once each."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        for timer in sorted((timer for timer in self._timers if timer.due_s <= now_s), key=lambda timer: timer.due_s):
            again_s = timer.callback()
            if again_s is None:
                self._timers.remove(timer)
            else:
                timer.due_s = self._clock() + again_s
        self._note_next()
