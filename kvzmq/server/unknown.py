"""The requests that wait while the log cannot say whether it has a group (`AppendUnknown`).

Until it can, nothing is appended and nothing is read linearizably: other servers may have applied the group already,
and their clients may have seen its changes. Requests that need neither log nor table are answered, `ping` and `stats`;
so are reads that only have to see what their client has seen, from the table as it was before the group; and new writes
are refused, as they certainly were not appended. All others wait in their order, and so do the later requests of the
same peer. Linearizable reads wait for LATE_S: then they are refused, and their clients may ask another server. Only
the peers of requests whose own fate is open wait on, since replies keep the order of the requests.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from kvzmq.protocol import operations
from kvzmq.protocol.messages import Request
from kvzmq.server.transport import Arrival, Transport
from kvzmq.store.group import Group

LATE_S = 1.0
"""How long a linearizable read waits for the log, seconds: clients that asked again and again would fill the queue."""

RESOLVE_S = 0.05
"""How often the log is asked again whether it has the group, seconds."""

_Peer = tuple[Transport, Hashable]

WAITING_MAX = 20_000
WAITING_BYTES_MAX = 32 << 20
"""How many requests wait, and how many bytes of them, before the server takes in no more."""


class UnknownGroup:
    """A group that may or may not be in the log, and the requests that wait for it.

    group     its state is UNKNOWN
    arrivals  its own requests
    admitted  requests that were already to be executed after it, in the same step of the loop
    arrived   requests that have arrived since

    Args:
        now_s: when it became unknown, seconds that only grow
    """

    def __init__(self, group: Group, arrivals: Sequence[Arrival], now_s: float) -> None:
        self.group = group
        self.arrivals = list(arrivals)
        self.admitted: list[Arrival] = []
        self.arrived: list[Arrival] = []
        self._arrived_s: list[float] = []  # when each of these did
        self._began_s = self._looked_s = now_s
        self._bytes = 0
        self._peers: set[_Peer] = set()
        self._writes: set[tuple[bytes, int]] = set()
        self._copies: set[tuple[_Peer, bytes, int]] = set()
        self._note(arrivals)

    def __len__(self) -> int:
        return len(self.arrivals) + len(self.admitted) + len(self.arrived)

    @property
    def is_full(self) -> bool:
        """Whether no more requests can wait."""
        return len(self) >= WAITING_MAX or self._bytes >= WAITING_BYTES_MAX

    def blocks(self, arrival: Arrival) -> bool:
        """Say whether a request has to wait: another one of its peer waits, or a copy of it that came earlier does."""
        return (arrival.transport, arrival.peer) in self._peers or _number(arrival) in self._writes

    def repeats(self, arrival: Arrival) -> bool:
        """Say whether the same peer waits for the same request already, and one reply is enough for it."""
        number = _number(arrival)
        return (
            number is not None
            and ((arrival.transport, arrival.peer), *number) in self._copies
            and arrival.transport.can_push(arrival.peer)  # no REQ, and not the bridge: these count their replies
        )

    def admit(self, arrivals: Iterable[Arrival]) -> None:
        """Add requests that were already to be executed after the group."""
        arrivals = list(arrivals)
        self.admitted += arrivals
        self._note(arrivals)

    def add(self, arrival: Arrival, now_s: float) -> None:
        """Add a request that has just arrived."""
        self.arrived.append(arrival)
        self._arrived_s.append(now_s)
        self._note((arrival,))

    def _note(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            peer = arrival.transport, arrival.peer
            self._peers.add(peer)
            self._bytes += arrival.request_bytes
            number = _number(arrival)
            if number is not None:
                self._copies.add((peer, *number))
                if _writes(arrival):
                    self._writes.add(number)

    def take_late(self, now_s: float) -> list[Arrival]:
        """Take out, in their order, the requests that have waited LATE_S, of peers that wait for nothing unknown."""
        late_s = now_s - LATE_S
        if self._looked_s > late_s:
            return []
        self._looked_s += LATE_S / 4
        open_writes = [arrival for arrival in self.arrivals if _writes(arrival)]
        waiting = {(arrival.transport, arrival.peer) for arrival in open_writes}
        numbers = {key for arrival in open_writes if (key := _number(arrival)) is not None}
        late: list[Arrival] = []

        def keeps(arrival: Arrival, arrived_s: float) -> bool:
            peer = arrival.transport, arrival.peer
            if peer not in waiting and _number(arrival) not in numbers and arrived_s <= late_s:
                late.append(arrival)
                return False
            waiting.add(peer)  # what comes after it waits behind it
            return True

        self.arrivals = [arrival for arrival in self.arrivals if keeps(arrival, self._began_s)]
        self.admitted = [arrival for arrival in self.admitted if keeps(arrival, self._began_s)]
        kept = [pair for pair in zip(self.arrived, self._arrived_s) if keeps(*pair)]
        if late:
            self.arrived, self._arrived_s = [pair[0] for pair in kept], [pair[1] for pair in kept]
            self._bytes = 0
            for known in (self._peers, self._writes, self._copies):
                known.clear()
            self._note((*self.arrivals, *self.admitted, *self.arrived))
        return late


def _writes(arrival: Arrival) -> bool:
    return isinstance(arrival.request, Request) and arrival.request.writes


def _number(arrival: Arrival) -> tuple[bytes, int] | None:
    """Return session and number of a request, which its copies have, too; None if it has no session."""
    request = arrival.request
    return (request.session, request.seq) if isinstance(request, Request) and request.session is not None else None


def needs_no_table(request: Request) -> bool:
    """Say whether a request can be answered without reading the table."""
    return all(type(op) in operations.UNORDERED for op in request.ops)
