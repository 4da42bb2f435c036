"""The messages that a server logs while it runs, to standard error. "Log" here is Python's logging; the table's
durable log is `store.log`.

At `info` and above: start, stop, storage trouble when it begins and ends, requests that are refused, clients that
do not read or are dropped. At `debug`: once a second at most, by how much each counter has grown.

However often an event happens, it is logged once, and then once in EVERY_S with how often it has happened
meanwhile: no peer can fill the disk with log lines. Not by changes of two lengths either, on a disk that has room for
the short ones alone: trouble that comes again within EVERY_S is logged when it has lasted LASTING_S.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from kvzmq.protocol.messages import Refusal
from kvzmq.server.transport import Arrival, Transport
from kvzmq.units import duration

EVERY_S = 60.0
"""The least time between two messages on the same kind of event."""

LOOK_S = 1.0
"""How often the counters are read, and a line written at debug."""

LASTING_S = 5.0
"""How long trouble with the disk that has come again lasts before it is logged sooner than after EVERY_S."""

_WARNED_WORDS = ("_dropped_", "_failed")
"""A transport's counter whose name contains one of these is worth a warning when it grows."""

_NOT_WARNED = "_dropped_disconnected"
"""Except one whose name ends so: it grows whenever a client disconnects before its last reply, which is normal."""

_REASON_CHARS = 200

_log = logging.getLogger(__name__)


class _RateLimit:
    """The rate limit of the messages on one kind of event."""

    def __init__(self) -> None:
        self._held = 0
        self._next_s = float("-inf")

    def count(self, times: int, now_s: float) -> int:
        """Count events; return how many there were since the last message if one is due now, else 0."""
        self._held += times
        if not self._held or now_s < self._next_s:
            return 0
        self._next_s = now_s + EVERY_S
        held, self._held = self._held, 0
        return held


class Journal:
    """Logs what happens to a server, at a limited rate.

    Args:
        transports: the server's
        counts: the server's counters, by name, for debug; each only grows
        clock: seconds that only grow
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        counts: Callable[[], dict[str, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transports = transports
        self._counts = counts
        self._clock = clock
        self._began_s = clock()
        self._trouble_s = 0.0
        self._trouble: str | None = None
        self._trouble_told = False
        self._trouble_limit = _RateLimit()
        self._warned = self._counts_to_warn_of()
        self._counted = counts()
        self._refused = _RateLimit()
        self._dropped = {name: _RateLimit() for name in self._warned}

    def stopped(self, why: str, requests: int) -> None:
        """Log that the server stops."""
        uptime_s = self._clock() - self._began_s
        _log.info(
            "stopped by %s after %s and %s requests", why, duration(uptime_s), f"{requests:,}",
            extra={"event": "stopped", "why": why, "uptime_s": round(uptime_s, 3), "requests": requests},
        )  # fmt: skip

    def refused(self, arrivals: Sequence[Arrival]) -> None:
        """Log which peer's requests were refused, and why: those of `arrivals` that could not be read."""
        found = [(arrival, arrival.request) for arrival in arrivals if isinstance(arrival.request, Refusal)]
        if not found:
            return  # the refused ones had been deferred: they arrived in an earlier step
        times = self._refused.count(len(found), self._clock())
        if times:
            arrival, refusal = found[-1]
            peer, reason = arrival.transport.name(arrival.peer), refusal.message[:_REASON_CHARS]
            _log.warning(
                "refused %s, the latest from %s: %s",
                "a request" if times == 1 else f"{times:,} requests",
                peer,
                reason,
                extra={"event": "requests_refused", "requests": times, "peer": peer, "reason": reason},
            )

    def look(self) -> float:
        """Log which counters have grown; a timer, which returns in how many seconds to call it again."""
        now_s = self._clock()
        self._warn_of_counts(now_s)
        if self._trouble is not None and not self._trouble_told:
            self._log_trouble(self._trouble_limit.count(0, now_s) or now_s - self._trouble_s >= LASTING_S)
        if _log.isEnabledFor(logging.DEBUG):
            self._log_counts()
        return LOOK_S

    def trouble(self, why: str | None) -> None:
        """Log that trouble with the disk has begun, and why; or, with None, that it has ended."""
        now_s = self._clock()
        was_told, self._trouble_told = self._trouble_told, False
        self._trouble = None if why is None else why.removeprefix("not applied: ")
        if why is not None:
            self._trouble_s = now_s
            self._log_trouble(self._trouble_limit.count(1, now_s))
        elif was_told:
            lasted_s = now_s - self._trouble_s
            _log.warning(
                "can write again, after %s", duration(lasted_s),
                extra={"event": "storage_recovered", "lasted_s": round(lasted_s, 3)},
            )  # fmt: skip

    def _log_trouble(self, due: object) -> None:
        """Log the trouble that there is, if that is due."""
        if due:
            self._trouble_told = True
            _log.error(
                "cannot write: %s. Changes are refused, reads go on; every change tries again", self._trouble,
                extra={"event": "storage_trouble", "reason": self._trouble},
            )  # fmt: skip

    def _counts_to_warn_of(self) -> dict[str, int]:
        """Return those counters of the transports whose growth is worth a warning."""
        found: dict[str, Any] = {}
        for transport in self._transports:
            found |= transport.stats()
        return {
            name: count
            for name, count in found.items()
            if any(word in name for word in _WARNED_WORDS) and not name.endswith(_NOT_WARNED)
        }

    def _warn_of_counts(self, now_s: float) -> None:
        """Log which of these counters have grown."""
        found = self._counts_to_warn_of()
        for name, count in found.items():
            limit = self._dropped.setdefault(name, _RateLimit())
            times = limit.count(count - self._warned.get(name, 0), now_s)
            if times:
                _log.warning(
                    "clients in trouble: %s %s more, %s in all", name, f"{times:,}", f"{count:,}",
                    extra={"event": "clients_in_trouble", "counter": name, "grown": times, "total": count},
                )  # fmt: skip
        self._warned = found

    def _log_counts(self) -> None:
        found = self._counts()
        grown = {name: count - self._counted.get(name, 0) for name, count in found.items()}
        self._counted = found
        if any(grown.values()):
            grown = {name: count for name, count in grown.items() if count}
            text = ", ".join(f"{name} {count:+,}" for name, count in grown.items())
            _log.debug("%s", text, extra={"event": "counts", **grown})
