"""The requests that wait while the log cannot say whether it has the group of a step (`AppendUnknown`).

Until it can, nothing is appended and nothing reads the table: other servers may have applied the group already, and
their clients may have seen its changes. Requests that need neither log nor table are answered, `ping` and `stats`, and
new writes are refused, as they certainly were not appended. All others wait in their order, and so do the later
requests of the same peer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from kvzmq.protocol import operations
from kvzmq.protocol.messages import Request
from kvzmq.server.transport import Arrival, Transport
from kvzmq.store.store import Step

RESOLVE_S = 0.05
"""How often the log is asked again whether it has the group, seconds."""

WAITING_MAX = 20_000
WAITING_BYTES_MAX = 32 << 20
"""How many requests wait, and how many bytes of them, before the server takes in no more."""

_NEED_NO_TABLE = frozenset(
    (operations.Ping, operations.Stats, operations.Hello, operations.Unwatch, operations.Progress),
)


class UnknownStep:
    """A step whose group may or may not be in the log, and the requests that wait for it.

    step      the step; its state is UNKNOWN
    arrivals  its own requests
    admitted  requests that were already to be executed after it, in the same step of the loop
    arrived   requests that have arrived since
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
        """Say whether a request has to wait: another one of its peer waits, or a copy of it that came earlier does."""
        request = arrival.request
        return (arrival.transport, arrival.peer) in self._peers or (
            isinstance(request, Request) and (request.session, request.seq) in self._writes
        )

    def admit(self, arrivals: Iterable[Arrival]) -> None:
        """Add requests that were already to be executed after the step."""
        arrivals = list(arrivals)
        self.admitted += arrivals
        self._note(arrivals)

    def add(self, arrivals: Iterable[Arrival]) -> None:
        """Add requests that have just arrived."""
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
    """Say whether a request can be answered without reading the table."""
    return all(type(op) in _NEED_NO_TABLE for op in request.ops)
