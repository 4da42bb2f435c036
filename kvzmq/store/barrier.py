"""The barrier: what a log that others append to is asked for, before a read that has to see what they have appended.

Such a read is executed on a table to which every group is applied that was acknowledged before the read came, by
whichever server. `Log.barrier` returns those that are missing. Each time a log cannot tell it may hold all clients up
for as long as it blocks; so it is left alone for a moment then, and these reads are refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kvzmq import errors
from kvzmq.protocol.messages import Request
from kvzmq.protocol.operations import UNORDERED
from kvzmq.store.log import Log

AGAIN_S = 0.25
"""How long the log is not asked again after it could not be asked, seconds."""


def needs_newest(request: Request) -> bool:
    """Say whether a request that reads has to see everything acknowledged before, by whichever server."""
    return request.seen is None and not request.writes and not all(type(op) in UNORDERED for op in request.ops)


class Barrier:
    """Asks a shared log what others have appended.

    Args:
        log: which others append to
        monotonic: seconds that only grow
    """

    def __init__(self, log: Log, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._monotonic = monotonic
        self._again_s = 0.0
        self.asked = 0
        """How often the log was asked."""
        self.trouble: str | None = None
        """Why the log could not be asked the last time, or None."""
        self.heard_s = monotonic()
        """When the log was last known to be within reach, on the clock."""

    @property
    def is_resting(self) -> bool:
        """Whether the log is left alone, as it could not be asked a moment ago."""
        return self._monotonic() < self._again_s

    def ask(self) -> Sequence[bytes] | None:
        """Return the groups that others have appended until now, to be applied; None if the log cannot tell."""
        self.asked += 1
        try:
            groups = self._log.barrier()
        except errors.LogUnreachable as error:
            self.trouble = str(error)
            self._again_s = self._monotonic() + AGAIN_S
            return None
        self.trouble = None
        self.heard_s = self._monotonic()
        return groups
