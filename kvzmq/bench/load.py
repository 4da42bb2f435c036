"""A load on a server, timed: many connections of one process, each with requests in flight.

`kvzmq bench` and the benchmarks stand on it. It speaks the wire by itself, because fifty whole clients
in one process would measure that process: a connection here is a DEALER socket of libzmq's, also where a client
would take a plain one, a session and a count, and what it sends is what a client sends. It does not retry: a
server that goes away ends the run.
"""

from __future__ import annotations

import math
import os
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
import zmq
from msgspec import Raw, Struct

from kvzmq import errors
from kvzmq.protocol import limits, msgpack

CONNECTIONS_MAX = 4096
IN_FLIGHT_MAX = 100
"""The most unanswered requests of a connection: the server reads no further ahead."""

TRANSPORT = "pyzmq, bare DEALER sockets of libzmq's; no kvzmq client"
"""What a load speaks ZMTP over, as reports name it."""

_PROGRESS_NS = 100_000_000


def operation(method: str, *arguments: Any) -> Raw:
    """Encode one operation, to be put into requests."""
    return Raw(msgpack.encode_value((method, *arguments)))


class Summary(NamedTuple):
    """The distribution of some latencies, milliseconds; NaN where there were none."""

    mean_ms: float
    min_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def percentile(ordered: Sequence[int], percent: float) -> int:
    """Return the least of the sorted values that at least `percent` % of them do not exceed (nearest rank)."""
    # Rounded before it is raised: 99.9 % of 1000 is 999, whatever floating point makes of it.
    return ordered[max(math.ceil(round(len(ordered) * percent / 100, 6)), 1) - 1]


def summarize(latencies_ns: Iterable[int]) -> Summary:
    """Describe latencies given in nanoseconds, in any order."""
    ordered = sorted(latencies_ns)
    if not ordered:
        return Summary(*[math.nan] * len(Summary._fields))
    picked = [sum(ordered) / len(ordered), ordered[0]]
    picked += [percentile(ordered, percent) for percent in (50, 95, 99, 99.9)]
    return Summary(*(ns / 1e6 for ns in (*picked, ordered[-1])))


class Measured(NamedTuple):
    """What a run gave.

    seconds       from the first request to the last reply that counts
    operations    answered in that time
    latencies_ns  of the requests answered in that time
    failed        operations that got an error, by its code: they count as answered
    """

    seconds: float
    operations: int
    latencies_ns: array[int]
    failed: Counter[int]

    @property
    def ops_per_s(self) -> float:
        """Operations per second; NaN when nothing was answered."""
        return self.operations / self.seconds if self.seconds else math.nan


class BadReply(errors.KvzmqError):
    """A server sent something other than the reply to the oldest unanswered request."""


class _Result(Struct, array_like=True, gc=False):
    code: int
    payload: Raw


class _Reply(Struct, array_like=True, gc=False):
    seq: int | None
    revision: int
    results: list[_Result]


_decode_reply: Callable[[bytes], _Reply] = msgspec.msgpack.Decoder(_Reply).decode


class _Connection:
    __slots__ = ("answered", "sent", "seq", "session", "socket")

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self.session = os.urandom(limits.SESSION_BYTES)
        self.seq = 0
        self.answered = 0
        self.sent: deque[tuple[int, int]] = deque()  # when, and how many operations


class Load:
    """Connections to the server at `url`, each with a session of its own, ready to run loads.

    Args:
        url: a ZeroMQ endpoint
        clients: how many connections
        in_flight: unanswered requests of each connection
        timeout_s: how long nothing may come before the run ends with Timeout
        echo: the other side is no server but sends every frame back, to see what the transport alone can do
        prepare: called with every socket before it connects, to give it keys

    Raises:
        Timeout: the server does not answer
    """

    def __init__(
        self,
        url: str,
        clients: int = 1,
        in_flight: int = 1,
        timeout_s: float = 10.0,
        echo: bool = False,
        prepare: Callable[[zmq.Socket[bytes]], None] = lambda socket: None,
    ) -> None:
        if not (1 <= clients <= CONNECTIONS_MAX and 1 <= in_flight <= IN_FLIGHT_MAX):
            raise ValueError(f"clients: 1 to {CONNECTIONS_MAX}, in flight: 1 to {IN_FLIGHT_MAX}")
        self._in_flight = in_flight
        self._prepare = prepare
        self._timeout_ms = int(timeout_s * 1000)
        self._receive = _receive_echo if echo else _receive
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, CONNECTIONS_MAX + 1)
        self._connections: dict[zmq.Socket[bytes], _Connection] = {}
        self._poller = zmq.Poller()
        try:
            for _ in range(clients):
                self._connect(url)
            if not echo:
                self.run([[operation("open")]] * clients, spread=True)
        except BaseException:
            self.close()
            raise

    def _connect(self, url: str) -> None:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        self._prepare(socket)
        socket.connect(url)
        self._connections[socket] = _Connection(socket)
        self._poller.register(socket, zmq.POLLIN)

    def run(
        self,
        requests: Iterable[Sequence[Raw]],
        seconds: float | None = None,
        progress: Callable[[int], None] | None = None,
        spread: bool = False,
    ) -> Measured:
        """Send `requests`, each a list of encoded operations, to their end or for `seconds`.

        Args:
            progress: called now and then with the number of operations that were answered
            spread: one request for each connection, and no more

        Raises:
            Timeout: nothing came for a while
            BadReply: what came is no reply, or another's
        """
        source = iter(requests)
        began_ns = time.perf_counter_ns()
        end_ns = began_ns + int(seconds * 1e9) if seconds is not None else 1 << 62
        waiting = 0
        for _ in range(1 if spread else self._in_flight):
            for connection in self._connections.values():
                waiting += _send(connection, source)
        if spread:
            source = iter(())
        return self._exchange(source, began_ns, end_ns, waiting, progress)

    def _exchange(
        self,
        source: Iterator[Sequence[Raw]],
        began_ns: int,
        end_ns: int,
        waiting: int,
        progress: Callable[[int], None] | None,
    ) -> Measured:
        latencies, failed = array("q"), Counter[int]()
        operations = 0
        last_ns, tell_ns = began_ns, began_ns
        clock = time.perf_counter_ns
        several = range(self._in_flight)
        while waiting:
            ready = self._poller.poll(self._timeout_ms)
            if not ready:
                raise errors.Timeout(f"no reply for {self._timeout_ms / 1000:g} s")
            for socket, _ in ready:
                connection = self._connections[socket]
                for _ in several:
                    try:
                        frame = socket.recv(zmq.NOBLOCK)
                    except zmq.Again:
                        break
                    now_ns = clock()
                    sent_ns, count = self._receive(connection, frame, failed)
                    waiting -= 1
                    if now_ns <= end_ns:
                        last_ns = now_ns
                        latencies.append(now_ns - sent_ns)
                        operations += count
                        waiting += _send(connection, source)
            if progress is not None and last_ns - tell_ns > _PROGRESS_NS:
                tell_ns = last_ns
                progress(operations)
        # A run that was cut off lasted until then; one that came to its end, until the last reply.
        ended_ns = min(end_ns, clock()) if end_ns < clock() else last_ns
        return Measured((ended_ns - began_ns) / 1e9, operations, latencies, failed)

    def close(self) -> None:
        """Drop the connections."""
        for socket in self._connections:
            socket.close(linger=0)
        self._connections.clear()
        self._context.term()

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _send(connection: _Connection, source: Iterator[Sequence[Raw]]) -> int:
    """Send the next request, if there is one. Returns how many were sent."""
    ops = next(source, None)
    if ops is None:
        return 0
    connection.seq += 1
    frame = msgpack.encode_request(connection.session, connection.seq, ops)
    connection.sent.append((time.perf_counter_ns(), len(ops)))
    connection.socket.send(frame)
    return 1


def _receive(connection: _Connection, frame: bytes, failed: Counter[int]) -> tuple[int, int]:
    """Check a reply. Returns when its request was sent, and how many operations that had."""
    connection.answered += 1
    sent_ns, count = connection.sent.popleft()
    try:
        reply = _decode_reply(frame)
    except msgspec.DecodeError as error:
        raise BadReply(f"not a reply: {error}") from None
    if reply.seq != connection.answered:
        raise BadReply(f"a reply to request {reply.seq}, where {connection.answered} was expected")
    for result in reply.results:
        if result.code != errors.OK:
            failed[result.code] += 1
    return sent_ns, count


def _receive_echo(connection: _Connection, frame: bytes, failed: Counter[int]) -> tuple[int, int]:
    return connection.sent.popleft()
