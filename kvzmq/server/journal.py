"""What a server writes to its log while it runs, so that one can find out afterwards what happened.

At `info` and above: start, stop, storage trouble when it begins and ends, requests that are refused,
clients that do not read or are dropped. At `debug`: once a second at most, what has been going on.

However fast something happens, it is said once and then again when EVERY_S has passed, with how
often it happened meanwhile: no peer can fill the disk with log lines.
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
"""How often the same kind of thing is said at most."""

LOOK_S = 1.0
"""How often the counters are looked at, and a line written at debug."""

_WARNED_WORDS = ("_dropped_", "_failed")
"""What the name of a transport's counter has in it if an operator wants to know that it grows."""

_NOT_WARNED = "_dropped_disconnected"
"""How the name of one ends that grows whenever a client stops before its last reply, which is nobody's trouble."""

_REASON_CHARS = 200

_log = logging.getLogger(__name__)


class _Occasion:
    """Something that may happen often, and is said now and then."""

    def __init__(self) -> None:
        self._held = 0
        self._next_s = float("-inf")

    def happened(self, times: int, now_s: float) -> int:
        """Return how often it has happened since it was last said if it is to be said now, else 0."""
        self._held += times
        if not self._held or now_s < self._next_s:
            return 0
        self._next_s = now_s + EVERY_S
        held, self._held = self._held, 0
        return held


class Journal:
    """Writes a server's log.

    Args:
        transports: the server's
        counts: what has been going on, by name, for debug; each only grows
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
        self._troubled = self._troubles()
        self._counted = counts()
        self._refused = _Occasion()
        self._dropped = {name: _Occasion() for name in self._troubled}

    def stopped(self, why: str, requests: int) -> None:
        """Say that the server stops."""
        uptime_s = self._clock() - self._began_s
        _log.info(
            "stopped by %s after %s and %s requests", why, duration(uptime_s), f"{requests:,}",
            extra={"event": "stopped", "why": why, "uptime_s": round(uptime_s, 3), "requests": requests},
        )  # fmt: skip

    def refused(self, arrivals: Sequence[Arrival]) -> None:
        """Say which peer's requests were refused, and why: those of `arrivals` that could not be read."""
        found = [(arrival, arrival.request) for arrival in arrivals if isinstance(arrival.request, Refusal)]
        if not found:
            return  # those refused had waited: they came with an earlier step
        times = self._refused.happened(len(found), self._clock())
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
        """Say what the counters tell; a timer. Returns in how many seconds to look again."""
        self._look_at_troubles(self._clock())
        if _log.isEnabledFor(logging.DEBUG):
            self._look_at_counts()
        return LOOK_S

    def trouble(self, why: str | None) -> None:
        """Say that trouble with the disk has begun, and why; or, with None, that it has ended."""
        now_s = self._clock()
        if why is not None:
            self._trouble_s = now_s
            reason = why.removeprefix("not applied: ")
            _log.error(
                "cannot write: %s. Changes are refused, reads go on; every change tries again",
                reason,
                extra={"event": "storage_trouble", "reason": reason},
            )
        else:
            lasted_s = now_s - self._trouble_s
            _log.warning(
                "can write again, after %s", duration(lasted_s),
                extra={"event": "storage_recovered", "lasted_s": round(lasted_s, 3)},
            )  # fmt: skip

    def _troubles(self) -> dict[str, int]:
        found: dict[str, Any] = {}
        for transport in self._transports:
            found |= transport.stats()
        return {
            name: count
            for name, count in found.items()
            if any(word in name for word in _WARNED_WORDS) and not name.endswith(_NOT_WARNED)
        }

    def _look_at_troubles(self, now_s: float) -> None:
        found = self._troubles()
        for name, count in found.items():
            occasion = self._dropped.setdefault(name, _Occasion())
            times = occasion.happened(count - self._troubled.get(name, 0), now_s)
            if times:
                _log.warning(
                    "clients in trouble: %s %s more, %s in all", name, f"{times:,}", f"{count:,}",
                    extra={"event": "clients_in_trouble", "counter": name, "grown": times, "total": count},
                )  # fmt: skip
        self._troubled = found

    def _look_at_counts(self) -> None:
        found = self._counts()
        grown = {name: count - self._counted.get(name, 0) for name, count in found.items()}
        self._counted = found
        if any(grown.values()):
            grown = {name: count for name, count in grown.items() if count}
            text = ", ".join(f"{name} {count:+,}" for name, count in grown.items())
            _log.debug("%s", text, extra={"event": "counts", **grown})
