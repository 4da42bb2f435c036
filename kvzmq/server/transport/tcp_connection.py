"""One connection of the bridge: bytes in, requests out; replies in, lines out. It reads, writes and polls nothing.

A connection is in one State, which says what it waits for; TRANSITIONS, in the manner of h11's `_state.py`, says which
Event leads from which state to which. An event that a state does not have there is a fault of ours and raises.

      ┌──── NO_INPUT ────┐
      v                  │
    READING ─ INPUT ─> READY ─ END_TAKEN ─> CLOSING ─ CLOSE ─> CLOSED
      │                  │
      └─ OVER_LIMIT ─────┴─> PAUSED, and by INPUT or NO_INPUT back again

A peer that was refused while it may still be sending goes from CLOSING by SHUT to DRAINING before it is closed.

What goes with any state is a field: whether the peer has ended its stream, whether the bytes that come belong to a line
that was too long, how many replies are still to come. The figures of a connection (address, requests, unread bytes)
are fields, too; so is the token, until it has been shown.
"""

from __future__ import annotations

import enum
import hmac
import re
import socket
from collections import deque
from itertools import islice, takewhile
from typing import cast

from kvzmq import errors
from kvzmq.curve import TOKEN_BYTES_MAX
from kvzmq.protocol import jsonl
from kvzmq.protocol.limits import request_line_bytes_max
from kvzmq.protocol.messages import LargeResults, Refusal, Reply, Request
from kvzmq.server.transport import STEP_BYTES_MAX, STEP_WEIGHT_MAX

LINES_MAX = 64
"""How many requests of one connection a step takes in."""

LINES_FIRST = 4
"""As many at first; then twice as many each step, and one again after too many unread replies."""

UNREAD_BYTES_MAX = 1 << 20
"""Unread replies of one connection beyond which none of its requests is taken in."""

_BUFFERS_MAX = 64
"""How many lines one system call sends."""

_HEAD_BYTES = 8192
"""How much of a first line is looked at for what is no JSON."""

_FOREIGN = re.compile(
    rb"(?P<zmtp>\xff.{8}\x7f)|"
    rb"(?P<http>[ \t]*(?:(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI)[ \t]|[A-Za-z]+ [^ \n]+ HTTP/))",
    re.IGNORECASE | re.DOTALL,
)
"""How ZeroMQ begins, whose client would wait; and how HTTP does: a method of RFC 9110, 5789 or 9113 and a space; or any
other, its target, and the version."""


class State(enum.Enum):
    """What a connection waits for."""

    __hash__ = object.__hash__  # Enum's own is a call in Python, 0.1 us for each look at the table

    READING = enum.auto()
    """For bytes. In this state alone it is read from."""

    READY = enum.auto()
    """For its turn: it has whole lines, or has ended, and nothing more is read."""

    PAUSED = enum.auto()
    """For its peer to read: it has more than UNREAD_BYTES_MAX of unread replies, and nothing is read or taken in."""

    CLOSING = enum.auto()
    """For its last replies: the peer has ended and all its lines were taken in."""

    DRAINING = enum.auto()
    """For the end of what its peer still sends, which is thrown away: to close a socket with unread bytes resets the
    connection, and the peer may lose the error that tells it why."""

    CLOSED = enum.auto()
    """For nothing."""


class Event(enum.Enum):
    """What happens to a connection."""

    __hash__ = object.__hash__

    INPUT = enum.auto()
    """Something is there to be taken in: a whole line, one that is too long, or the end of the stream."""

    NO_INPUT = enum.auto()
    """Nothing is there to be taken in."""

    OVER_LIMIT = enum.auto()
    """It has more than UNREAD_BYTES_MAX of unread replies."""

    END_TAKEN = enum.auto()
    """The end of the stream was taken in."""

    SHUT = enum.auto()
    """Its last reply was sent, and nothing more will be."""

    CLOSE = enum.auto()
    """It is closed: by its peer, by a limit, or with the server."""


# By these names: before Python 3.12 to look a member up by its class takes 0.05 us.
READING, READY, PAUSED, CLOSING, DRAINING, CLOSED = State
_INPUT, _NO_INPUT, _OVER_LIMIT, _END_TAKEN, _SHUT, _CLOSE = Event

TRANSITIONS: dict[State, dict[Event, State]] = {
    READING: {
        Event.INPUT: READY,
        Event.NO_INPUT: READING,
        Event.OVER_LIMIT: PAUSED,  # replies may come in a later step than their requests
        Event.CLOSE: CLOSED,
    },
    READY: {
        Event.INPUT: READY,
        Event.NO_INPUT: READING,
        Event.OVER_LIMIT: PAUSED,
        Event.END_TAKEN: CLOSING,
        Event.CLOSE: CLOSED,
    },
    PAUSED: {
        Event.INPUT: READY,
        Event.NO_INPUT: READING,
        Event.OVER_LIMIT: PAUSED,
        Event.CLOSE: CLOSED,
    },
    CLOSING: {
        Event.NO_INPUT: CLOSING,
        Event.OVER_LIMIT: CLOSING,
        Event.SHUT: DRAINING,
        Event.CLOSE: CLOSED,
    },
    DRAINING: {
        Event.NO_INPUT: DRAINING,
        Event.CLOSE: CLOSED,
    },
    CLOSED: {},
}
"""Which event leads from which state to which; any other event is a fault of ours."""


class StepInput:
    """What the lines taken in for a step have come to, of all connections."""

    __slots__ = ("bytes", "weight")

    def __init__(self) -> None:
        self.bytes = 0
        self.weight = 0

    @property
    def is_full(self) -> bool:
        return self.bytes >= STEP_BYTES_MAX or self.weight >= STEP_WEIGHT_MAX


class Connection:
    """A peer of the bridge, for as long as it is connected.

    Args:
        number: never used again, as a descriptor would be
        sock: the transport's to read and to write; here only kept
        address: the peer's, HOST:PORT
        now_s: seconds that only grow
        request_bytes_max: the longest request, in MessagePack; a longer one is refused
        token: what its first line has to be, or None if it may begin with a request
    """

    __slots__ = (
        "address", "began_s", "ended", "line_bytes_max", "lines_max", "moved_s", "number", "owed", "polled", "queued",
        "queued_bytes", "read_at", "received", "received_bytes", "refused", "request_bytes_max", "requests", "searched",
        "sent_bytes", "skipping", "socket", "state", "token",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        sock: socket.socket,
        address: str,
        now_s: float,
        request_bytes_max: int,
        token: bytes | None = None,
    ) -> None:
        self.number = number
        self.socket = sock
        self.address = address
        self.request_bytes_max = request_bytes_max
        # Of who has not shown the token, nothing longer is kept than one can be, and a carriage return.
        self.line_bytes_max = request_line_bytes_max(request_bytes_max) if token is None else TOKEN_BYTES_MAX + 1
        self.state = READING
        self.polled = 0  # what the transport has epoll report
        self.read_at = 0  # in the order of all reads
        self.began_s = now_s
        self.moved_s = now_s  # when replies last moved, or began to wait
        # in
        self.received = bytearray()
        self.received_bytes = 0  # in all
        self.searched = 0  # no newline before this offset of `received`
        self.skipping = False  # inside a line that was too long
        self.ended = False  # the peer sends no more
        self.token = token  # until it has been shown
        self.refused = False  # for its first line: what else it sends is thrown away
        self.requests = 0  # lines that were taken in
        self.lines_max = LINES_FIRST
        # out
        self.owed = 0  # replies to requests that were taken in: they may come in a later step
        self.queued: deque[bytes | memoryview | Reply] = deque()  # large replies are encoded in their turn
        self.queued_bytes = 0
        self.sent_bytes = 0  # in all: given to the kernel

    # ---- state

    def handle(self, event: Event) -> None:
        """Go to the state that the event leads to.

        Raises:
            RuntimeError: it leads nowhere from here: a fault of the caller
        """
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise RuntimeError(
                f"connection {self.number} is {self.state.name}: {event.name} cannot happen to it"
            ) from None

    def update(self) -> None:
        """Go to the state that the bytes received and the replies queued ask for by now."""
        if self.queued_bytes > UNREAD_BYTES_MAX:
            self.handle(_OVER_LIMIT)
        else:
            self.handle(_INPUT if self.has_input() else _NO_INPUT)

    @property
    def is_over_limit(self) -> bool:
        return self.queued_bytes > UNREAD_BYTES_MAX

    @property
    def is_served(self) -> bool:
        """Whether the peer has ended and has had all its replies."""
        return self.state is CLOSING and not self.queued and not self.owed

    def shut(self) -> None:
        """Send nothing more; what comes is thrown away from here on."""
        self.handle(_SHUT)

    def close(self) -> None:
        """Forget what came and what was queued."""
        self.handle(_CLOSE)
        self.received.clear()
        self.queued.clear()

    # ---- in

    def receive(self, data: memoryview) -> None:
        """Take bytes that came from the peer; none mean that it sends no more."""
        self.ended = not data
        self.received_bytes += len(data)
        if self.skipping:
            _, newline, rest = bytes(data).partition(b"\n")
            self.skipping = not newline
            self.received += rest
        else:
            self.received += data

    def foreign_protocol(self, received_bytes: int) -> str | None:
        """Return the name of what the peer speaks instead of lines of JSON; asked until it has sent a whole line.

        Args:
            received_bytes: how many have come last; those before have been looked at
        """
        if len(self.received) - received_bytes >= _HEAD_BYTES:
            return None
        found = _FOREIGN.match(self.received[:_HEAD_BYTES])
        return found.lastgroup if found else None

    def has_line(self) -> bool:
        """Say whether a whole line is there, looking at every byte once."""
        end = self.received.find(b"\n", self.searched)
        self.searched = end if end >= 0 else len(self.received)
        return end >= 0

    def has_input(self) -> bool:
        """Say whether there is something to take in."""
        if self.has_line() or len(self.received) > self.line_bytes_max:
            return True
        return self.ended and self.state is not CLOSING and self.state is not DRAINING

    def take_in(self, lines_max: int, step: StepInput) -> list[Request | Refusal]:
        """Return the requests of up to `lines_max` lines, as long as the step has room, and add them to it."""
        taken: list[Request | Refusal] = []
        begin = 0
        is_whole = True  # whether another line may be there: each look costs as much as a tenth of decoding one
        for _ in range(min(lines_max, self.lines_max)):
            if step.is_full:
                break
            is_whole = self.has_line()
            if not is_whole:
                break
            end = self.searched
            if self.token is not None:
                if not hmac.compare_digest(bytes(self.received[begin:end]).rstrip(b"\r"), self.token):
                    taken.append(self._refuse_token())
                    begin = 0
                    break
                self.token = None
                self.line_bytes_max = request_line_bytes_max(self.request_bytes_max)
            elif end - begin > self.line_bytes_max:
                taken.append(self._refuse_length())
            else:
                line = bytes(memoryview(self.received)[begin:end])
                request = jsonl.decode_line(line, self.request_bytes_max)
                taken.append(request)
                step.weight += request.weight if isinstance(request, Request) else 1
            step.bytes += end + 1 - begin
            begin = self.searched = end + 1
            self.requests += 1
        self.lines_max = min(2 * self.lines_max, LINES_MAX)
        if begin:
            del self.received[:begin]
            self.searched -= begin
        if not (is_whole and self.has_line()):
            self._take_rest(taken)
        self.owed += len(taken)
        return taken

    def _take_rest(self, taken: list[Request | Refusal]) -> None:
        """Judge what is left of a line that has not ended."""
        if self.token is not None and len(self.received) > self.line_bytes_max:
            taken.append(self._refuse_token())
        elif len(self.received) > self.line_bytes_max:
            taken.append(self._refuse_length())
            self.skipping = True
            self._forget_received()
        if self.ended:
            self._forget_received()  # half a request is no request
            self.handle(_END_TAKEN)

    def _refuse_token(self) -> Refusal:
        """End a connection that does not begin with the token; what else it has sent is not looked at."""
        self._forget_received()
        self.ended = self.refused = True
        return Refusal(None, errors.NotAllowed.code, "the first line has to be the token of the bridge")

    def _forget_received(self) -> None:
        self.received.clear()
        self.searched = 0

    def _refuse_length(self) -> Refusal:
        return Refusal(None, errors.InvalidRequest.code, f"a line is at most {self.line_bytes_max} bytes long")

    # ---- out

    def queue(self, reply: Reply) -> int:
        """Queue a reply behind the others; returns its length as far as it is known before it is encoded."""
        if isinstance(reply.results, LargeResults):
            self.queued.append(reply)
            length = len(reply.results)
        else:
            line = jsonl.encode_line(reply)
            self.queued.append(line)
            length = len(line)
        self.queued_bytes += length
        return length

    def encode(self, reply: Reply) -> int:
        """Encode the large reply that comes next; returns its length."""
        line = jsonl.encode_line(reply)
        self.queued[0] = line
        self.queued_bytes += len(line) - len(reply.results)
        return len(line)

    def lines(self) -> list[bytes | memoryview]:
        """Return what one system call may send, up to the first reply that is not encoded yet: it is not the first."""
        if len(self.queued) == 1:
            return [cast("bytes | memoryview", self.queued[0])]
        encoded = takewhile(lambda line: not isinstance(line, Reply), islice(self.queued, _BUFFERS_MAX))
        return cast("list[bytes | memoryview]", list(encoded))

    def sent(self, lines: list[bytes | memoryview], sent_bytes: int) -> None:
        """Take so many bytes off the queue, of the lines that it begins with."""
        self.sent_bytes += sent_bytes
        if len(lines) == 1 and sent_bytes == len(lines[0]):  # nearly always
            self.queued_bytes -= sent_bytes
            self.queued.popleft()
            return
        self.queued_bytes -= sent_bytes
        for line in lines:
            if sent_bytes < len(line):
                self.queued[0] = memoryview(line)[sent_bytes:]
                break
            sent_bytes -= len(line)
            self.queued.popleft()
