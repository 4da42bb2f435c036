"""The client's core: calls in, request frames out, reply frames in, results out. No I/O, no clock.

    submit(call) ──> flush() ──> frames to send          receive(frame) ──> calls done
                                                         expire(now)    ──> calls done, too late
                     reconnected() ──> the unanswered frames once more, byte for byte

Calls that wait at the same time travel as one request. A request keeps its number and its bytes
through every retry, so the server can tell that it has executed it. Before its first write a
session opens itself with `open` as request number 1 and waits for the reply: from then on a session
the server has forgotten is an error, never a second execution.

What a caller is told when its time is over: Timeout if its operations certainly did not run, or only
read; OutcomeUnknown if a write was sent and no answer came.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from kvzmq import codec, errors
from kvzmq.messages import MESSAGE_BYTES_MAX, OPERATIONS_MAX, SESSION_BYTES, Open

IN_FLIGHT_MAX = 32
"""How many requests may be unanswered: fewer than the results a server keeps for a session."""

REQUEST_BYTES_MAX = 1 << 20
"""From this size on waiting calls go into the next request; a single larger call still goes whole."""

RESEND_S = 1.0
RESEND_S_MAX = 8.0
"""When to ask again though the connection seems well: a reply the server could not queue is dropped."""

_FRAME_ROOM = 64
_OPEN = Raw(codec.encode_value(Open()))


class Result(msgspec.Struct, array_like=True, gc=False):
    """One operation's result: a code and a payload, still encoded."""

    code: int
    payload: Raw


class _Reply(msgspec.Struct, array_like=True, gc=False):
    seq: int | None
    revision: int
    rest: Raw


_decode_reply: Callable[[bytes], _Reply] = msgspec.msgpack.Decoder(_Reply).decode
_decode_results: Callable[[Raw], list[Result]] = msgspec.msgpack.Decoder(list[Result]).decode
_decode_text: Callable[[Raw], Any] = msgspec.msgpack.Decoder().decode


class Call:
    """Operations of one caller, executed in order, and what became of them.

    Args:
        ops: encoded operations
        writes: whether any of them writes
        finish: makes the caller's value from the results; may raise
        deadline_s: when the caller gives up, on the shell's clock
    """

    __slots__ = ("alone", "deadline_s", "done", "error", "finish", "on_done", "ops", "revision", "size", "value", "writes")

    def __init__(self, ops: list[Raw], writes: bool, finish: Callable[[list[Result]], Any], deadline_s: float) -> None:
        self.ops = ops
        self.writes = writes
        self.finish = finish
        self.deadline_s = deadline_s
        self.size = sum(map(len, ops))
        self.alone = False
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.revision = 0
        self.on_done: Callable[[Call], None] | None = None


class _Request:
    __slots__ = ("calls", "frame", "resend_at_s", "seq", "sent", "wait_s", "writes")

    def __init__(self, seq: int, frame: bytes, calls: list[Call], writes: bool) -> None:
        self.seq = seq
        self.frame = frame
        self.calls = calls
        self.writes = writes
        self.sent = 0
        self.wait_s = RESEND_S
        self.resend_at_s = 0.0


def check_size(call: Call) -> Call:
    """Refuse a call that no request could carry.

    Raises:
        ValueError: its operations are too large or too many
    """
    if call.size > MESSAGE_BYTES_MAX - _FRAME_ROOM:
        raise errors.InvalidRequest(f"{call.size} bytes do not fit a request of {MESSAGE_BYTES_MAX}: send less at a time")
    if len(call.ops) > OPERATIONS_MAX:
        raise errors.InvalidRequest(f"{len(call.ops)} operations: a request has at most {OPERATIONS_MAX}")
    return call


class Session:
    """One client's conversation with a server, through any number of connections.

    Args:
        jitter: returns a factor around 1 for waiting times
    """

    def __init__(self, jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25)) -> None:
        self._jitter = jitter
        self._waiting: deque[Call] = deque()
        self._in_flight: dict[int, _Request] = {}
        self.revision = 0
        """The highest revision any reply has told."""
        self._last_seq = 1  # number 1 is for `open`; the others grow through all sessions
        self._begin()

    def _begin(self) -> None:
        self.id = os.urandom(SESSION_BYTES)
        self._opened = False
        self._opening = False

    # ---- out

    def submit(self, call: Call) -> None:
        """Take a call to be sent by one of the next flushes."""
        self._waiting.append(call)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is unanswered."""
        return not self._waiting and not self._in_flight

    def flush(self, now_s: float) -> list[bytes]:
        """Pack what waits into requests and return their frames, to be sent in this order."""
        frames = []
        while self._waiting and len(self._in_flight) < IN_FLIGHT_MAX:
            if self._waiting[0].done:
                self._waiting.popleft()
            elif self._waiting[0].writes and not self._opened:
                if not self._opening:
                    frames.append(self._open(now_s))
                break
            else:
                frames.append(self._pack(now_s))
        return frames

    def _open(self, now_s: float) -> bytes:
        self._opening = True
        request = _Request(1, codec.encode_request(self.id, 1, [_OPEN]), [], writes=True)
        return self._send(request, now_s)

    def _pack(self, now_s: float) -> bytes:
        calls: list[Call] = []
        ops: list[Raw] = []
        size = 0
        writes = False
        waiting = self._waiting
        while waiting:
            call = waiting[0]
            if call.done:
                waiting.popleft()
                continue
            full = size + call.size > REQUEST_BYTES_MAX or len(ops) + len(call.ops) > OPERATIONS_MAX
            if calls and (full or call.alone or calls[0].alone or (call.writes and not self._opened)):
                break
            waiting.popleft()
            calls.append(call)
            ops += call.ops
            size += call.size
            writes = writes or call.writes
        self._last_seq += 1
        frame = codec.encode_request(self.id, self._last_seq, ops)
        return self._send(_Request(self._last_seq, frame, calls, writes), now_s)

    def _send(self, request: _Request, now_s: float) -> bytes:
        self._in_flight[request.seq] = request
        request.sent += 1
        request.resend_at_s = now_s + request.wait_s * self._jitter()
        request.wait_s = min(2 * request.wait_s, RESEND_S_MAX)
        return request.frame

    def reconnected(self, now_s: float) -> list[bytes]:
        """Return every unanswered request once more, for a new connection."""
        return [self._send(request, now_s) for _, request in sorted(self._in_flight.items()) if _wanted(request)]

    def overdue(self, now_s: float) -> list[bytes]:
        """Return the requests to be asked again on a connection that seems well."""
        late = [request for request in self._in_flight.values() if request.resend_at_s <= now_s and _wanted(request)]
        return [self._send(request, now_s) for request in late]

    # ---- in

    def receive(self, frame: bytes) -> None:
        """Take a reply; calls it answers are done when this returns."""
        try:
            reply = _decode_reply(frame)
            request = self._in_flight.pop(reply.seq, None) if reply.seq is not None else None
            if request is None:
                return  # nobody waits for it any more
            results = _decode_results(reply.rest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # not of this protocol: whoever waits is told by the clock
        self.revision = max(self.revision, reply.revision)
        if len(results) == 1 and results[0].code >= errors.REFUSED_MIN:
            self._refused(request, results[0])
        elif not request.calls:
            self._opening, self._opened = False, True
        else:
            self._answered(request, reply.revision, results)

    def _answered(self, request: _Request, revision: int, results: list[Result]) -> None:
        at = 0
        for call in request.calls:
            mine = results[at : at + len(call.ops)]
            at += len(call.ops)
            if call.done:
                continue
            crowded = len(request.calls) > 1 and not call.writes
            if crowded and any(result.code == errors.ResultTooLarge.code for result in mine):
                self._again_alone(call)  # the reply was full of others' results
                continue
            call.revision = revision
            try:
                _finish(call, call.finish(mine), None)
            except Exception as error:
                _finish(call, None, error)

    def _refused(self, request: _Request, result: Result) -> None:
        error = errors.error_of(result.code, _decode_text(result.payload))
        if isinstance(error, errors.SessionExpired):
            self._expired(request)
        elif not request.calls:  # `open` itself, for example on a full disk: ask again when it is needed
            self._opening = False
            self._fail_writes(error)
        else:
            for call in request.calls:
                if call.done:
                    continue
                # One bad operation refuses the whole request: each caller gets a verdict of its own.
                if len(request.calls) > 1 and (not call.writes or not isinstance(error, errors.StorageError)):
                    self._again_alone(call)
                else:
                    _finish(call, None, errors.error_of(result.code, str(error)))

    def _fail_writes(self, error: errors.KvzmqError) -> None:
        for call in self._waiting:
            if call.writes and not call.done:
                _finish(call, None, errors.error_of(error.code, str(error)))

    def _again_alone(self, call: Call) -> None:
        call.alone = True
        self._waiting.appendleft(call)

    def _expired(self, request: _Request) -> None:
        """The server does not know the session. What was sent once was not executed; else nobody knows."""
        if self._opened:
            self._begin()
        for call in reversed(request.calls):
            if call.done:
                continue
            if call.writes and request.sent > 1:
                _finish(call, None, errors.OutcomeUnknown("the server has forgotten this session, and with it whether it executed this"))
            else:
                self._waiting.appendleft(call)

    # ---- time

    def expire(self, now_s: float) -> None:
        """End the calls whose deadline has passed."""
        for call in self._waiting:
            if not call.done and call.deadline_s <= now_s:
                _finish(call, None, errors.Timeout("no answer in time: the request was not sent, the server is not reachable"))
        for request in list(self._in_flight.values()):
            for call in request.calls:
                if not call.done and call.deadline_s <= now_s:
                    _finish(call, None, _too_late(call))
            if request.calls and all(call.done for call in request.calls):
                del self._in_flight[request.seq]
        while self._waiting and self._waiting[0].done:
            self._waiting.popleft()

    def fail(self, error: Exception) -> None:
        """End all calls with an error that no retry can mend."""
        for call in self._calls():
            if not call.done:
                _finish(call, None, error)

    def abandon(self, call: Call) -> None:
        """Forget a call whose caller no longer waits; its reply, if one comes, is dropped."""
        call.done = True

    def next_s(self) -> float | None:
        """Return when `expire` or `overdue` has something to do, or None."""
        times = [call.deadline_s for call in self._calls() if not call.done]
        times += [request.resend_at_s for request in self._in_flight.values()]
        return min(times, default=None)

    def _calls(self) -> Iterator[Call]:
        yield from self._waiting
        for request in self._in_flight.values():
            yield from request.calls


def _finish(call: Call, value: Any, error: BaseException | None) -> None:
    call.value, call.error, call.done = value, error, True
    if call.on_done is not None:
        call.on_done(call)


def _wanted(request: _Request) -> bool:
    """Say whether anybody waits for the request: `open` has no calls, and all writes wait for it."""
    return not request.calls or any(not call.done for call in request.calls)


def _too_late(call: Call) -> errors.KvzmqError:
    if call.writes:
        return errors.OutcomeUnknown("no answer in time: the operation may have been executed")
    return errors.Timeout("no answer in time to a reading operation")
