"""Whether a server on a log that others append to still hears of them.

A watch waits for changes: it cannot tell a table that rests from a server that is cut off from its log. So the server
asks the log now and then, where no read has, and when it could not for CUT_OFF_S its watches end with Unavailable:
their clients go on at another server, or at this one as soon as it can tell again what is newest.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from kvzmq import errors
from kvzmq.server.watches import Watches
from kvzmq.store.store import Store

ASK_S = 2.0
"""How often the log is asked where nothing else has asked it, seconds."""

CUT_OFF_S = 4.0
"""After how long without an answer watches end: an election of etcd's takes 1.3 to 3 s."""


class Hearing:
    """Asks a shared log whether it can be reached.

    Args:
        store: on the log
        watches: that end when it cannot
        clock_s: seconds that only grow
    """

    def __init__(self, store: Store, watches: Watches, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._watches = watches
        self._clock_s = clock_s

    def look(self) -> float:
        """Ask, if nobody has lately, and end the watches if there is no answer: a timer."""
        silent_s = self._clock_s() - self._store.barrier.heard_s
        if silent_s >= ASK_S and self._store.ask_log():
            return ASK_S
        if silent_s >= CUT_OFF_S and len(self._watches):
            why = self._store.barrier.trouble or self._store.trouble or "it does not answer"
            self._watches.end_all(
                errors.Unavailable(f"this server has heard nothing of its log for {silent_s:.0f} s: {why}")
            )
        return ASK_S / 4 if silent_s >= ASK_S else ASK_S - silent_s
