"""What waits while the log cannot tell whether it has the group of a step.

Until it can, nothing is appended and nothing reads the table: others may have seen what the step has changed. What
needs neither is answered: `ping`, `stats`, and a change that certainly was not appended, which is refused.
Everything else waits, in its order, and whoever has a request waiting waits with all that follows it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from kvzmq.protocol import operations
from kvzmq.protocol.messages import Request
from kvzmq.server.transport import Arrival, Transport
from kvzmq.store.store import Step

RESOLVE_S = 0.05
"""How often the log is asked what became of the group, seconds."""

WAITING_MAX = 20_000
WAITING_BYTES_MAX = 32 << 20
"""How many requests wait, and how many bytes of them, before the server takes in no more."""

_NEED_NO_TABLE = frozenset(
    (operations.Ping, operations.Stats, operations.Hello, operations.Unwatch, operations.Progress),
)


class UnknownStep:
    """A step whose fate is unknown, and the requests that wait for it.

    step      of which the log cannot tell
    arrivals  the step's
    admitted  those that had been admitted to later steps
    arrived   those that have come since
    """

    def __init__(self, step: Step, arrivals: Sequence[Arrival]) -> None:
        self.step = step
        self.arrivals = arrivals
        self.admitted: list[Arrival] = []
        self.arrived: list[Arrival] = []
        self._bytes = 0
        self._peers: set[tuple[Transport, Hashable]] = set()
        self._writes: set[tuple[bytes, int]] = set()
        self._note(arrivals)

    def __len__(self) -> int:
        return len(self.arrivals) + len(self.admitted) + len(self.arrived)

    @property
    def is_full(self) -> bool:
        """Whether no more requests can wait."""
        return len(self) >= WAITING_MAX or self._bytes >= WAITING_BYTES_MAX

    def blocks(self, arrival: Arrival) -> bool:
        """Say whether this peer has something waiting, or a copy of this very request is."""
        request = arrival.request
        return (arrival.transport, arrival.peer) in self._peers or (
            isinstance(request, Request) and (request.session, request.seq) in self._writes
        )

    def admit(self, arrivals: Iterable[Arrival]) -> None:
        """Have requests that were admitted to a later step wait."""
        arrivals = list(arrivals)
        self.admitted += arrivals
        self._note(arrivals)

    def add(self, arrivals: Iterable[Arrival]) -> None:
        """Have requests wait that have just come."""
        arrivals = list(arrivals)
        self.arrived += arrivals
        self._note(arrivals)

    def _note(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            self._peers.add((arrival.transport, arrival.peer))
            request = arrival.request
            if isinstance(request, Request):
                self._bytes += len(request.frame)
                if request.writes and request.session is not None:
                    self._writes.add((request.session, request.seq))


def needs_no_table(request: Request) -> bool:
    """Say whether a request can be answered without looking at a row."""
    return all(type(op) in _NEED_NO_TABLE for op in request.ops)
