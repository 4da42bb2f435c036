"""The bridge: newline-delimited JSON over plain TCP, one reply line for each request line.

All connections hang on one epoll object, whose own descriptor the Poller watches: a Poller with a
thousand descriptors would look at each of them in every step.

No peer can hold up the others or make the server grow. A step's REQUESTS_MAX lines are shared out
among the connections that have some; a line may be as long as the longest request can get in JSON;
who does not read its replies is not read from until it does, and is dropped when nothing has moved for
STALLED_S or when the bridge as a whole holds too much; large replies are encoded when their turn has
come, so many bytes a step. When all places are taken, the connection that has asked for nothing for the
longest time makes room for a new one.

A browser can be made to send any text to any port, as the body of an HTTP request. So a connection
whose first line begins as HTTP does ends there, and nothing that follows is executed. No JSON value
begins with the name of an HTTP method.

A connection is in exactly one of these states, and epoll reports only what ends it:

    reading   waits for bytes
    ready     has whole lines that wait for their turn: in `_ready`, nothing is read
    stuffed   has too many unread replies: waits until it can be written to, nothing is read
    finished  the peer has ended and all its lines were taken: closed once it has had its replies
"""

from __future__ import annotations

import errno
import logging
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import Union, cast

import zmq

from kvzmq import errors
from kvzmq.protocol import jsonl
from kvzmq.protocol.messages import REQUEST_BYTES_MAX, LargeResults, Refusal, Reply, Request, request_line_bytes_max
from kvzmq.server.transport import STEP_BYTES_MAX, STEP_REPLY_BYTES_MAX, STEP_WEIGHT_MAX, Arrival
from kvzmq.server.transport.listen import listen

CONNECTIONS_MAX = 4096
"""How many clients may be connected; for the next one, whoever has asked for nothing the longest must go."""

REQUESTS_MAX = 1024
"""How many requests one step takes in, shared out among the connections; each has one at least."""

LINES_MAX = 64
"""How many requests of one connection a step takes in."""

LINES_FIRST = 4
"""As many at first; then twice as many each step, and one again after too many unread replies."""

UNREAD_BYTES_MAX = 1 << 20
"""Unread replies of one connection beyond which none of its requests is taken in."""

QUEUED_BYTES_MAX = 32 << 20
"""Unread replies of one connection beyond which a further one, to a request already taken in, drops it."""

HELD_BYTES_MAX = 256 << 20
"""What all connections together may have sent or left unread; beyond it the largest is dropped."""

STALLED_S = 10.0
"""How long a connection may leave replies unread before it is dropped."""

_RECEIVE_BYTES = 256 << 10
_BUFFERS_MAX = 64
_ACCEPTS_MAX = 64
_GROWN_BYTES = 32 << 20
"""How much comes in and is queued before what is held is counted again."""

_PAUSE_S = 0.2
"""How long no connection is accepted when descriptors have run out."""

_WARN_S = 60.0
"""How often to say that descriptors have run out."""

_TCP_OPTIONS = (
    (socket.TCP_NODELAY, 1),
    (socket.TCP_KEEPIDLE, 4),
    (socket.TCP_KEEPINTVL, 2),
    (socket.TCP_KEEPCNT, 3),
    (socket.TCP_USER_TIMEOUT, 10_000),  # ms, also for a peer whose window stays closed
)
"""Seconds, seconds, probes, milliseconds: a peer whose machine has gone is noticed within ten seconds."""

_HEAD_BYTES = 8192
"""How much of a first line is looked at for what is no JSON."""

_FOREIGN = re.compile(
    rb"\xff.{8}\x7f|"
    rb"[ \t]*(?:(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI)[ \t]|[A-Za-z]+ [^ \n]+ HTTP/)",
    re.IGNORECASE | re.DOTALL,
)
"""How ZeroMQ begins, whose client would wait; and how HTTP does: a method of RFC 9110, 5789 or 9113 and a space; or any other, its target, and the version."""

_log = logging.getLogger(__name__)


class _Connection:
    __slots__ = (
        "address", "asked", "closed", "ended", "events", "finished", "lines_max", "moved_s", "number", "owed", "queued",
        "queued_bytes", "read_at", "received", "searched", "skipping", "socket",
    )  # fmt: skip

    def __init__(self, number: int, sock: socket.socket, address: str, now_s: float) -> None:
        self.number = number  # never used again, as a descriptor would be
        self.socket = sock
        self.address = address
        self.received = bytearray()
        self.searched = 0  # no newline before this offset of `received`
        self.skipping = False  # inside a line that was too long
        self.lines_max = LINES_FIRST
        self.ended = False  # the peer sends no more
        self.finished = False  # and all it sent was taken in
        self.asked = False  # whether a line was taken in
        self.owed = 0  # replies to lines that were taken in: they may come in a later step
        self.queued: deque[Union[bytes, memoryview, Reply]] = deque()  # large replies are encoded in their turn
        self.queued_bytes = 0
        self.read_at = 0  # in the order of all reads
        self.moved_s = now_s  # when replies last moved, or began to wait
        self.events = 0
        self.closed = False

    @property
    def stuffed(self) -> bool:
        return self.queued_bytes > UNREAD_BYTES_MAX

    def has_line(self) -> bool:
        """Say whether a whole line is there, looking at every byte once."""
        end = self.received.find(b"\n", self.searched)
        self.searched = end if end >= 0 else len(self.received)
        return end >= 0

    def has_turn(self, line_bytes_max: int) -> bool:
        """Say whether there is something to take in, or to conclude."""
        return self.has_line() or len(self.received) > line_bytes_max or (self.ended and not self.finished)


class _Room:
    """What the lines taken in for a step have come to."""

    __slots__ = ("bytes", "weight")

    def __init__(self) -> None:
        self.bytes = 0
        self.weight = 0

    @property
    def full(self) -> bool:
        return self.bytes >= STEP_BYTES_MAX or self.weight >= STEP_WEIGHT_MAX


def _encoded(queued: Iterable[Union[bytes, memoryview, Reply]]) -> Iterator[Union[bytes, memoryview]]:
    """Yield the lines up to the first reply that is not encoded yet."""
    for line in queued:
        if isinstance(line, Reply):
            return
        yield line


class TcpTransport:
    """The bridge's listening socket and its connections.

    Args:
        host, port: where to listen; port 0 takes a free one
        clock: seconds that only grow
        request_bytes_max: the longest request, in MessagePack; a longer one is refused

    Raises:
        CannotListen: the port is in use or the host is not of this machine
    """

    def __init__(
        self,
        host: str,
        port: int,
        clock: Callable[[], float] = time.monotonic,
        request_bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        self._clock = clock
        self._request_bytes_max = request_bytes_max
        self.line_bytes_max = request_line_bytes_max(request_bytes_max)
        """The longest line; a longer one is refused and skipped up to its end."""
        self._listener = listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        self.endpoints = [f"port {self.port}"]
        self._selector = selectors.EpollSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._accepting = True
        self._accept_again_s = 0.0
        self._warn_again_s = clock()
        self._last_number = 0
        self._connections: dict[int, _Connection] = {}
        self._ready: dict[int, _Connection] = {}  # those whose turn it is in the next step
        self._dirty: dict[int, _Connection] = {}  # those with something for flush to do
        self._unencoded: dict[int, _Connection] = {}  # those whose next reply waits for its turn to be encoded
        self._quiet: dict[int, _Connection] = {}  # all, the one that has asked for nothing for the longest time first
        self._encode_bytes = STEP_REPLY_BYTES_MAX  # of large replies that this step may still encode
        self._crowded = False
        self._reads = 0
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))  # malloc may give a new one back to the system each time
        self._grown_bytes = 0
        self._swept_s = clock()
        self._counts = {
            "connections_accepted": 0,
            "connections_dropped_stalled": 0,
            "connections_dropped_backpressure": 0,
            "connections_dropped_memory": 0,
            "connections_dropped_idle": 0,
            "connections_dropped_http": 0,
            "accepts_failed": 0,
        }

    def register(self, poller: zmq.Poller) -> object:
        poller.register(self._selector.fileno(), zmq.POLLIN)
        return self._selector.fileno()

    # ---- in

    def drain(self) -> list[Arrival]:
        self._read_and_write()
        arrivals = self._take_turns()
        self._sweep()
        return arrivals

    def _read_and_write(self) -> None:
        events = self._selector.select(0)
        if self._crowded:  # the last step had to leave some unread: who was read longest ago comes first
            events.sort(key=lambda event: 0 if event[0].data is None else event[0].data.read_at)
        self._crowded = False
        received_bytes = 0
        for key, mask in events:
            connection = cast("_Connection | None", key.data)
            if connection is None:
                self._accept()
                continue
            if mask & selectors.EVENT_WRITE:
                self._write(connection)
                self._settle(connection)
            if mask & selectors.EVENT_READ and not connection.closed:
                if received_bytes >= STEP_BYTES_MAX:
                    self._crowded = True
                else:
                    received_bytes += self._receive(connection)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_MAX):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._counts["accepts_failed"] += 1
                    self._warn(
                        f"cannot accept connections: {error.strerror}; raise the limit of open files (ulimit -n)"
                    )
                    return self._pause_accepting()
                continue  # the peer has gone before it was accepted
            if len(self._connections) >= CONNECTIONS_MAX:
                self._counts["connections_dropped_idle"] += 1
                self._close(next(iter(self._quiet.values())))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _TCP_OPTIONS:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            self._last_number += 1
            connection = _Connection(self._last_number, sock, f"{address[0]}:{address[1]}", self._clock())
            self._connections[connection.number] = self._quiet[connection.number] = connection
            self._counts["connections_accepted"] += 1
            self._watch(connection)
        return None

    def _warn(self, message: str) -> None:
        now_s = self._clock()
        if now_s >= self._warn_again_s:
            self._warn_again_s = now_s + _WARN_S
            _log.warning("%s", message)

    def _pause_accepting(self) -> None:
        self._accepting = False
        self._accept_again_s = self._clock() + _PAUSE_S
        self._selector.unregister(self._listener)

    def _receive(self, connection: _Connection) -> int:
        try:
            received_bytes = connection.socket.recv_into(self._buffer)
        except BlockingIOError:
            return 0
        except OSError:
            self._close(connection)
            return 0
        self._reads += 1
        connection.read_at = self._reads
        connection.ended = not received_bytes
        self._grown_bytes += received_bytes
        if connection.skipping:
            _, newline, rest = bytes(self._buffer[:received_bytes]).partition(b"\n")
            connection.skipping = not newline
            connection.received += rest
        else:
            connection.received += self._buffer[:received_bytes]
        begun = not connection.asked and len(connection.received) - received_bytes < _HEAD_BYTES
        if begun and _FOREIGN.match(connection.received[:_HEAD_BYTES]):
            self._counts["connections_dropped_http"] += connection.received[:1] != b"\xff"
            self._close(connection)
            return received_bytes
        if connection.has_turn(
            self.line_bytes_max
        ):  # what epoll has to report is settled after the turn: most lines are taken in at once
            self._ready[connection.number] = connection
        return received_bytes

    def _take_turns(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        turn, self._ready = self._ready, {}
        if not turn:
            return arrivals
        left: dict[int, _Connection] = {}
        share = max(1, min(LINES_MAX, REQUESTS_MAX // len(turn)))
        room = _Room()
        for number, connection in turn.items():
            if len(arrivals) >= REQUESTS_MAX or room.full:
                left[number] = connection
                self._watch(connection)
            else:
                self._take_lines(connection, share, arrivals, room)
        self._ready = left | self._ready  # whoever had no turn comes first in the next step
        return arrivals

    def _take_lines(self, connection: _Connection, share: int, arrivals: list[Arrival], room: _Room) -> None:
        """Take in up to `share` lines, as long as the step has room."""
        received = connection.received
        begin, before = 0, len(arrivals)
        for _ in range(min(share, connection.lines_max)):
            if room.full or not connection.has_line():
                break
            end = connection.searched
            if end - begin > self.line_bytes_max:
                arrivals.append(self._refuse_length(connection))
            else:
                line = bytes(memoryview(received)[begin:end])
                request = jsonl.decode_line(line, self._request_bytes_max)
                arrivals.append(Arrival(self, connection.number, request))
                room.weight += request.weight if isinstance(request, Request) else 1
            room.bytes += end + 1 - begin
            begin = connection.searched = end + 1
        connection.lines_max = min(2 * connection.lines_max, LINES_MAX)
        if begin:
            connection.asked = True
            self._quiet[connection.number] = self._quiet.pop(connection.number)
            del received[:begin]
            connection.searched -= begin
        if not connection.has_line():
            self._look_at_rest(connection, arrivals)
        connection.owed += len(arrivals) - before
        self._watch(connection)

    def _look_at_rest(self, connection: _Connection, arrivals: list[Arrival]) -> None:
        """Judge what is left of a line that has not ended."""
        if len(connection.received) > self.line_bytes_max:
            arrivals.append(self._refuse_length(connection))
            connection.skipping = True
            connection.received.clear()
            connection.searched = 0
        if connection.ended:
            connection.received.clear()  # half a request is no request
            connection.searched = 0
            connection.finished = True
            self._dirty[connection.number] = connection  # flush closes it, after its last replies

    def _refuse_length(self, connection: _Connection) -> Arrival:
        refusal = Refusal(None, errors.InvalidRequest.code, f"a line is at most {self.line_bytes_max} bytes long")
        return Arrival(self, connection.number, refusal)

    def pending(self) -> bool:
        return bool(self._ready or self._unencoded)

    # ---- out

    def send(self, peer: Hashable, reply: Reply) -> None:
        connection = self._connections.get(cast(int, peer))
        if connection is None:
            return
        connection.owed -= 1
        if connection.queued_bytes > QUEUED_BYTES_MAX:
            self._counts["connections_dropped_backpressure"] += 1
            self._close(connection)
            return
        large = isinstance(reply.results, LargeResults)
        waiting = reply if large else jsonl.encode_line(reply)
        length = len(reply.results) if isinstance(waiting, Reply) else len(waiting)
        if not connection.queued:
            connection.moved_s = self._clock()
        connection.queued.append(waiting)
        connection.queued_bytes += length
        self._grown_bytes += length
        self._dirty[connection.number] = connection
        if connection.stuffed:
            connection.lines_max = 1
            self._write(connection)
            self._bound_memory()

    def can_push(self, peer: Hashable) -> bool:
        return False

    def push(self, peer: Hashable, event: bytes) -> bool:
        raise errors.PeerGone("a line of the bridge cannot push")

    def flush(self) -> None:
        self._encode_bytes = STEP_REPLY_BYTES_MAX
        waiting, self._unencoded = self._unencoded, {}
        dirty, self._dirty = self._dirty, {}
        for connection in (waiting | dirty).values():  # whoever had to wait in the last step comes first
            self._write(connection)
            self._settle(connection)

    def _write(self, connection: _Connection) -> None:
        """Hand over to the kernel what it takes; it copies nothing but that."""
        queued = connection.queued
        while queued:
            if isinstance(queued[0], Reply) and not self._encode(connection, queued[0]):
                return
            try:
                lines = list(_encoded(islice(queued, _BUFFERS_MAX)))
                sent = connection.socket.send(lines[0]) if len(lines) == 1 else connection.socket.sendmsg(lines)
            except BlockingIOError:
                return
            except OSError:
                return self._close(connection)
            connection.moved_s = self._clock()
            connection.queued_bytes -= sent
            for line in lines:
                if sent < len(line):
                    queued[0] = memoryview(line)[sent:]
                    break
                sent -= len(line)
                queued.popleft()

    def _encode(self, connection: _Connection, reply: Reply) -> bool:
        """Encode a large reply whose turn it is to be sent; False if the step has encoded enough already."""
        if self._encode_bytes <= 0:
            self._unencoded[connection.number] = connection
            return False
        line = jsonl.encode_line(reply)
        self._encode_bytes -= len(line)
        connection.queued[0] = line
        connection.queued_bytes += len(line) - len(reply.results)
        self._grown_bytes += len(line)
        return True

    def _settle(self, connection: _Connection) -> None:
        """Close a connection that has had its last reply; else have epoll report what it waits for now."""
        if connection.finished and not connection.queued and not connection.owed:
            self._close(connection)
        elif not connection.closed:
            self._watch(connection)

    # ---- housekeeping

    def _watch(self, connection: _Connection) -> None:
        """Have epoll report what the connection waits for: nothing else, or the loop would spin."""
        has_turn = connection.has_turn(self.line_bytes_max)
        if has_turn and not connection.stuffed:
            self._ready[connection.number] = connection
        else:
            self._ready.pop(connection.number, None)
        events = 0
        if connection.queued and connection.number not in self._unencoded:
            events |= selectors.EVENT_WRITE
        if not (connection.ended or connection.stuffed or has_turn):
            events |= selectors.EVENT_READ
        if events == connection.events:
            return
        if not events:
            self._selector.unregister(connection.socket)
        elif connection.events:
            self._selector.modify(connection.socket, events, connection)
        else:
            self._selector.register(connection.socket, events, connection)
        connection.events = events

    def _sweep(self) -> None:
        now_s = self._clock()
        if not self._accepting and now_s >= self._accept_again_s:
            self._accepting = True
            self._selector.register(self._listener, selectors.EVENT_READ)
        self._bound_memory()
        if now_s - self._swept_s < 1.0:
            return
        self._swept_s = now_s
        for connection in list(self._connections.values()):
            if connection.queued and now_s - connection.moved_s > STALLED_S:
                self._counts["connections_dropped_stalled"] += 1
                self._close(connection)

    def _bound_memory(self) -> None:
        """Drop the largest connections when all hold too much together; counted now and then, not at every byte."""
        if self._grown_bytes < _GROWN_BYTES:
            return
        self._grown_bytes = 0
        held = {
            connection.number: len(connection.received) + connection.queued_bytes
            for connection in self._connections.values()
        }
        total = sum(held.values())
        while total > HELD_BYTES_MAX:
            largest = max(held, key=held.__getitem__)
            total -= held.pop(largest)
            self._counts["connections_dropped_memory"] += 1
            self._close(self._connections[largest])

    def _close(self, connection: _Connection) -> None:
        if connection.closed:
            return
        if connection.events:
            self._selector.unregister(connection.socket)
        for registry in (self._connections, self._ready, self._dirty, self._unencoded, self._quiet):
            registry.pop(connection.number, None)
        connection.closed = True
        connection.received.clear()
        connection.queued.clear()
        connection.socket.close()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def name(self, peer: Hashable) -> str:
        connection = self._connections.get(cast(int, peer))
        return f"tcp:{connection.address}" if connection is not None else f"tcp:gone-{peer}"

    def stats(self) -> dict[str, int]:
        counts = {f"tcp_{name}": count for name, count in self._counts.items()}
        return counts | {"tcp_connections": len(self._connections)}

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection)
        self._selector.close()
        self._listener.close()
