"""The client's core: calls in, request frames out, reply frames in, results out. No I/O.

    submit(call) ──> flush() ──> requests to send        receive(frame) ──> calls done
                        unsent() <── those that did not go      expire(now) ──> calls done, too late
                     reconnected() ──> the unanswered requests once more, byte for byte

Calls that wait at the same time travel as one request. A request keeps its number and its bytes
through every retry, so the server can tell that it has executed it. Before its first write a
session opens itself with `open` as request number 1 and waits for the reply: from then on a session
the server has forgotten is an error, never a second execution.

What a caller is told when its time is over: Timeout if its operations certainly did not run, or only
read; OutcomeUnknown if a write was sent and no answer came. A server of a table that others serve, too, may refuse
for now: Unavailable, WriteRejected. Then the same bytes go to another one, or to this one later, until that time is
over; the error is the caller's only if every copy was refused.

A new connection begins with `hello`, whose reply says which table is there. A session that has asked a
table before waits for it: if it is another table now, nothing is sent to it.

A thread may be interrupted anywhere in here, and others go on with what it leaves: so an answered
request is forgotten only after its calls are done, and `end` ends a call that got lost on the way.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec import Raw

from kvzmq import errors
from kvzmq.client.core.call import Call, Result
from kvzmq.client.core.hello import Hello
from kvzmq.client.core.outgoing import RESEND_S, OutgoingRequest, copy_of
from kvzmq.client.core.reads import LINEARIZABLE, LOCAL, Reads
from kvzmq.protocol.encoding import encode_request, encode_seen_request, encode_value
from kvzmq.protocol.limits import OPERATIONS_MAX, SESSION_BYTES

IN_FLIGHT_MAX = 32
"""How many requests may be unanswered."""

AHEAD_MAX = 96
"""How far numbers may run ahead of an unanswered write: the server caches 128 replies of a session,
and a write whose reply is no longer cached cannot be retried."""

SHARED_BYTES_MAX = 1 << 19
"""From this size on waiting calls go into the next request; a single larger call still goes whole."""

_HEAD_BYTES_MAX = 64
"""What a request takes beside its operations, at most."""

_TOO_LARGE = errors.ResultTooLarge.code
_REFUSED_MIN = errors.REFUSED_MIN
_OPEN = Raw(encode_value(("open",)))


class _Reply(msgspec.Struct, array_like=True, gc=False):
    seq: int
    revision: int
    results: list[Result]


_decode_reply: Callable[[bytes], _Reply] = msgspec.msgpack.Decoder(_Reply).decode


def _not_sent() -> errors.KvzmqError:
    return errors.Timeout("no answer in time: nothing was sent, the server cannot be reached")


class ClientSession:
    """One client's requests and what is answered, through any number of connections.

    Args:
        lineage: of the table that is expected, 32 hexadecimal digits, or None for whichever answers first
        jitter: returns a factor around 1 for waiting times
        reads: how new what is read has to be
        revision: the highest that this client has seen before
    """

    def __init__(
        self,
        lineage: str | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25),
        reads: Reads = LINEARIZABLE,
        revision: int = 0,
    ) -> None:
        self._jitter = jitter
        self._newest = reads == LINEARIZABLE
        self._any = reads == LOCAL
        self.hello = Hello(lineage, not self._newest)
        self.refused_here = False
        """Whether the server of this connection has refused something for now."""
        self.refusing = 0
        """On how many connections in a row that has happened."""
        self._waiting: deque[Call] = deque()
        self._in_flight: dict[int, OutgoingRequest] = {}
        self.revision = revision
        """The highest revision in any reply, or event of a watch."""
        self._last_seq = 1  # number 1 is for `open`; the others grow through all sessions
        self._begin()

    def _begin(self) -> None:
        self.id = os.urandom(SESSION_BYTES)
        self._opened = False
        self._opening = False

    # ---- out

    def submit(self, call: Call) -> int:
        """Take a call to be sent by one of the next flushes; return how many wait."""
        self._waiting.append(call)
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is unanswered."""
        return not self._waiting and not self._in_flight

    @property
    def waiting(self) -> bool:
        """Whether a call waits to be sent."""
        return bool(self._waiting)

    @property
    def asking(self) -> bool:
        """Whether a request is unanswered."""
        return bool(self._in_flight)

    def say_hello(self, now_s: float) -> bytes:
        """Return the frame that begins a new connection."""
        self.refused_here = False
        self._last_seq += 1
        return self.hello.request(self._last_seq, now_s)

    def flush_alone(self, call: Call, now_s: float) -> OutgoingRequest | None:
        """Pack a call as `submit` and `flush` would, or return None, and leave it, where they have more to look at.

        They have not while nothing waits or is unanswered, `hello` included, and the call fits this server.
        """
        hello = self.hello
        if (
            self._waiting
            or self._in_flight
            or hello.held
            or hello.seq
            or (call.writes and not self._opened)
            or call.size + _HEAD_BYTES_MAX > hello.request_bytes_max
        ):
            return None
        # As `_send` does, which would be one frame more on the way of nearly every call.
        self._last_seq = seq = self._last_seq + 1
        ops = call.ops
        frame = encode_value((self.id, seq, ops)) if self._newest else self._encode(seq, ops, call.writes)
        request = OutgoingRequest(self.id, seq, frame, len(ops), [call], call.writes, now_s + RESEND_S)
        self._in_flight[seq] = request
        return request

    def flush(self, now_s: float) -> list[OutgoingRequest]:
        """Pack what waits into requests, to be sent in this order."""
        requests: list[OutgoingRequest] = []
        waiting = self._waiting
        while waiting and not self.hello.held:
            call = waiting[0]
            if call.done:
                waiting.popleft()
            elif call.size + _HEAD_BYTES_MAX > self.hello.request_bytes_max:
                if self.hello.seq:
                    break  # this server may take more than others
                waiting.popleft()
                call.fail(errors.InvalidRequest(
                    f"{call.size} bytes do not fit a request: "
                    f"this server takes {self.hello.request_bytes_max} bytes at most. "
                    "Send less at a time, or start it with a larger --request-max"
                ))  # fmt: skip
            elif self._in_flight and self._full():
                break
            elif call.writes and not self._opened:
                if not self._opening:
                    requests.append(self._open(now_s))
                break
            else:
                requests.append(self._pack(now_s))
        return requests

    def _full(self) -> bool:
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            return True
        oldest = next((seq for seq, request in self._in_flight.items() if request.writes and seq > 1), self._last_seq)
        return self._last_seq - oldest >= AHEAD_MAX

    def _open(self, now_s: float) -> OutgoingRequest:
        self._opening = True
        return self._send(1, [_OPEN], [], True, now_s)

    def _pack(self, now_s: float) -> OutgoingRequest:
        waiting = self._waiting
        first = waiting.popleft()
        calls = [first]
        ops = first.ops
        writes = first.writes
        if waiting and not first.alone:
            ops = list(ops)
            size = first.size
            bytes_max = min(SHARED_BYTES_MAX, self.hello.request_bytes_max - _HEAD_BYTES_MAX)
            while waiting:
                call = waiting[0]
                if call.done:
                    waiting.popleft()
                    continue
                full = size + call.size > bytes_max or len(ops) + len(call.ops) > OPERATIONS_MAX
                if full or call.alone or (call.writes and not self._opened):
                    break
                waiting.popleft()
                calls.append(call)
                ops += call.ops
                size += call.size
                writes = writes or call.writes
        self._last_seq += 1
        return self._send(self._last_seq, ops, calls, writes, now_s)

    def _send(self, seq: int, ops: list[Raw], calls: list[Call], writes: bool, now_s: float) -> OutgoingRequest:
        frame = self._encode(seq, ops, writes)
        request = OutgoingRequest(self.id, seq, frame, len(ops), calls, writes, now_s + RESEND_S)
        self._in_flight[seq] = request
        return request

    def _encode(self, seq: int, ops: list[Raw], writes: bool) -> bytes:
        if self._newest or writes or not self.hello.knows_seen:
            return encode_request(self.id, seq, ops)
        return encode_seen_request(self.id, seq, ops, 0 if self._any else self.revision)

    def _send_again(self, request: OutgoingRequest, now_s: float) -> OutgoingRequest:
        self._in_flight[request.seq] = request
        request.note_sent_again(now_s, self._jitter)
        return request

    def unsent(self, requests: Sequence[OutgoingRequest]) -> None:
        """Take back requests that the connection did not take.

        One that was never sent is taken apart: its calls wait again, each until its own deadline. Else a call
        could end, as certainly not executed, and leave later in the request it shared with others.
        """
        for request in reversed(requests):
            request.sent -= 1
            if request.sent:
                request.wait_s = RESEND_S
                request.resend_at_s = 0.0
            else:
                self._take_apart(request)
                if not request.calls and request.session == self.id:
                    self._opening = False

    def _take_apart(self, request: OutgoingRequest) -> None:
        """Have the calls of a request that was certainly not executed wait again, for requests of their own."""
        del self._in_flight[request.seq]
        self._waiting.extendleft(reversed(request.calls))

    def resend_soon(self) -> None:
        """Make every unanswered request overdue: a thread was interrupted, perhaps between socket and session."""
        for request in self._in_flight.values():
            request.resend_at_s = 0.0

    def reconnected(self, now_s: float) -> list[OutgoingRequest]:
        """Return every unanswered request once more, for a new connection."""
        if self.hello.held:
            return []
        return [self._send_again(request, now_s) for _, request in sorted(self._in_flight.items()) if request.wanted]

    def overdue(self, now_s: float) -> list[OutgoingRequest]:
        """Return the requests to be asked again on a connection that seems well."""
        if self.hello.held:
            return []
        late = [request for request in self._in_flight.values() if request.resend_at_s <= now_s and request.wanted]
        return [self._send_again(request, now_s) for request in late]

    # ---- in

    def receive(self, frame: bytes, now_s: float = 0.0) -> bool:
        """Take a reply; calls it answers are done when this returns.

        Returns:
            what Hello.receive does, if it was the reply to `hello`
        """
        try:
            reply = _decode_reply(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False  # not of this protocol: the calls end at their deadlines
        seq, revision, results = reply.seq, reply.revision, reply.results
        request = self._in_flight.get(seq)
        if request is None:
            return seq == self.hello.seq and self.hello.receive(results)  # or nobody waits for it any more
        count = len(results)
        if count == 1 and results[0].code >= _REFUSED_MIN:
            if self._is_for_now(results[0].code):
                self._note_refusing()
                request.note_refused(results[0].error(), now_s, self._jitter)
                return False
            del self._in_flight[seq]
            self._refused(request, results[0])
        elif count == request.count:
            calls = request.calls
            if request.refused:
                self.refused_here, self.refusing = False, 0
            if len(calls) == 1:
                (call,) = calls
                if not call.done:
                    call.answer(revision, results)
            elif calls:
                self._answered(calls, revision, results)
            else:
                self._opening, self._opened = False, True
            del self._in_flight[seq]
        else:
            return False  # a reply to something else: as above
        if revision > self.revision:
            self.revision = revision
        return False

    def fail_table_changed(self) -> None:
        """End all calls, as another table answers; those that the former one may have executed as unknown."""
        for call in self._waiting:
            if not call.done:
                call.fail(self.hello.table_changed())
        for request in self._in_flight.values():
            for call in request.calls:
                if not call.done:
                    call.fail(errors.OutcomeUnknown(
                        f"{self.hello.table_changed()}. The table before may have executed this, once"
                    ) if call.writes else self.hello.table_changed())  # fmt: skip
        self._waiting.clear()
        self._in_flight.clear()
        self._opening = False

    def _answered(self, calls: Sequence[Call], revision: int, results: list[Result]) -> None:
        at = 0
        too_large = []
        for call in calls:
            end = at + len(call.ops)
            mine = results[at:end]
            at = end
            if call.done:
                continue
            # The reply may have been full of others' results. One that failed for it has changed nothing.
            if len(mine) == 1:
                again = mine[0].code == _TOO_LARGE
            else:
                again = not call.writes and any(result.code == _TOO_LARGE for result in mine)
            if again:
                too_large.append(call)
            else:
                call.answer(revision, mine)
        self._again_alone(too_large)

    def _note_refusing(self) -> None:
        if not self.refused_here:
            self.refused_here = True
            self.refusing += 1

    def _is_for_now(self, code: int) -> bool:
        """Say whether another server, or this one later, may well execute what was refused so."""
        return code == errors.Unavailable.code or (code == errors.WriteRejected.code and self.hello.is_shared)

    def _refused(self, request: OutgoingRequest, result: Result) -> None:
        error = result.error()
        if isinstance(error, errors.SessionExpired):
            self._expired(request)
        elif not request.calls:  # `open` itself, for example on a full disk: ask again when it is needed
            self._opening = False
            self._fail_writes(error)
        else:
            # Of two copies one may have been executed before, or may still find room on the disk.
            certain = request.sent == request.refused + 1
            shared = len(request.calls) > 1
            again = []
            for call in request.calls:
                if call.done:
                    continue
                if call.writes and not certain:
                    call.fail(errors.OutcomeUnknown(
                        f"asked more than once, the server refused once ({error}), and may have executed another copy"
                    ))  # fmt: skip
                elif shared and (not call.writes or not isinstance(error, errors.WriteRejected)):
                    again.append(call)  # one bad operation refuses them all: each call is sent once more by itself
                else:
                    call.fail(errors.error_of(result.code, str(error)))
            self._again_alone(again)

    def _fail_writes(self, error: errors.KvzmqError) -> None:
        for call in self._waiting:
            if call.writes and not call.done:
                call.fail(errors.error_of(error.code, str(error)))

    def _again_alone(self, calls: Sequence[Call]) -> None:
        for call in calls:
            call.alone = True
        self._waiting.extendleft(reversed(calls))

    def _expired(self, request: OutgoingRequest) -> None:
        """The server does not know the session. What was sent once was not executed; of others it is unknown."""
        if request.session == self.id:
            self._begin()
        again = []
        for call in request.calls:
            if call.done:
                continue
            if call.writes and request.sent > request.refused + 1:
                call.fail(errors.OutcomeUnknown(
                    "the server has forgotten this session, and with it whether it executed this"
                ))  # fmt: skip
            else:
                again.append(call)
        self._waiting.extendleft(reversed(again))

    # ---- time

    def expire(
        self, now_s: float, not_sent: Callable[[], errors.KvzmqError] = _not_sent, reachable: bool = True
    ) -> None:
        """End the calls whose deadline has passed.

        A request of which a write ends as certainly not executed is never sent again, with that write in it: the
        others leave in another one.

        Args:
            not_sent: makes the error for operations that certainly never reached a server
            reachable: whether what was sent may still be answered; else reads end with that error, too, which says more
        """
        waiting = self._waiting
        opening = self._in_flight.get(1)
        for call in waiting:
            if call.deadline_s <= now_s and not call.done:
                refusal = None if opening is None or not call.writes else opening.refusal
                call.fail(not_sent() if refusal is None else copy_of(refusal))
        while waiting and waiting[0].done:
            waiting.popleft()
        for request in list(self._in_flight.values()):
            has_ended_write = False
            for call in request.calls:
                if call.deadline_s <= now_s and not call.done:
                    call.fail(request.too_late(call) if reachable or call.writes else not_sent())
                    has_ended_write = has_ended_write or call.writes
            if request.calls and not request.wanted:
                del self._in_flight[request.seq]
            elif has_ended_write and request.certain:
                self._take_apart(request)

    def end(self, call: Call) -> None:
        """End a call that `expire` did not know: an interrupted thread has lost it on the way."""
        if not call.done:
            call.fail(call.too_late())

    def close(self) -> None:
        """End all calls, as the client is being closed."""
        for call in self._waiting:
            if not call.done:
                call.fail(errors.Timeout("the client was closed: nothing was sent"))
        for request in self._in_flight.values():
            for call in request.calls:
                if not call.done:
                    closed = errors.OutcomeUnknown if call.writes else errors.Timeout
                    call.fail(closed("the client was closed before the answer came"))
        self._waiting.clear()
        self._in_flight.clear()

    def fail(self, error: Exception) -> None:
        """End all calls with an error that no retry can mend."""
        for call in self._calls():
            if not call.done:
                call.fail(error)

    def abandon(self, call: Call) -> None:
        """Forget a call whose caller no longer waits; its reply, if one comes, is dropped."""
        call.done = True

    def _calls(self) -> Iterator[Call]:
        yield from self._waiting
        for request in self._in_flight.values():
            yield from request.calls
