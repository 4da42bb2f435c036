"""The encoding in MessagePack: of the ROUTER's frames, and of the groups in the log. No I/O.

The typed decoder refuses malformed MessagePack and wrong arguments; `validation` refuses values that the
table does not take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from kvzmq import errors
from kvzmq.protocol import limits, messages, operations, validation
from kvzmq.protocol.encoding import NUMBER_BYTES_MAX as NUMBER_BYTES_MAX
from kvzmq.protocol.encoding import decode_value as decode_value
from kvzmq.protocol.encoding import encode_request as encode_request
from kvzmq.protocol.encoding import encode_value as encode_value
from kvzmq.protocol.limits import LARGE_BYTES_MIN
from kvzmq.protocol.messages import LargeResults, Refusal, Reply, Request, SeenRequest


class _WireRequest(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    session: Annotated[bytes, Meta(min_length=limits.SESSION_BYTES, max_length=limits.SESSION_BYTES)] | None
    seq: messages.Seq
    ops: Annotated[list[operations.AnyOperation], Meta(min_length=1, max_length=limits.OPERATIONS_MAX)]
    seen: Annotated[int, Meta(ge=0, le=limits.SEQ_MAX)] | None = None


class _LoggedRequest(Struct, array_like=True, gc=False):
    session: bytes | None
    seq: int
    ops: list[operations.LoggedOperation]


class _WireEnvelope(Struct, array_like=True, gc=False):
    """A request whose operations are skipped, not decoded: to read the number of one whose operations are wrong."""

    session: Raw
    seq: int
    ops: Raw


_decode_request: Callable[[bytes], _WireRequest] = msgspec.msgpack.Decoder(_WireRequest).decode
_decode_logged: Callable[[bytes], _LoggedRequest] = msgspec.msgpack.Decoder(_LoggedRequest).decode
_decode_envelope: Callable[[bytes], _WireEnvelope] = msgspec.msgpack.Decoder(_WireEnvelope).decode
_decode_raws: Callable[[bytes | Raw], list[Raw]] = msgspec.msgpack.Decoder(list[Raw]).decode
_decode_method: Callable[[bytes | Raw], str] = msgspec.msgpack.Decoder(str).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_request(frame: bytes) -> Request | Refusal:
    """Decode a request, or return a Refusal for a bad one, which takes its place among the requests."""
    try:
        wire = _decode_request(frame)
    except _UNREADABLE as error:
        return _explain(frame, error)
    try:
        validation.check_operations(wire.ops)
    except errors.InvalidRequest as error:
        return Refusal(wire.seq, error.code, str(error)[:EXPLANATION_CHARS_MAX])
    if wire.seen is None:
        request = Request(wire.session, wire.seq, wire.ops, frame)
    else:
        request = SeenRequest(wire.session, wire.seq, wire.ops, frame, wire.seen)
        if request.writes:
            return Refusal(wire.seq, errors.InvalidRequest.code, _SEEN_WRITES)
    if request.served and request.writes:
        return Refusal(wire.seq, errors.InvalidRequest.code, "hello, stats and watches go in a request without writes")
    return request


_SEEN_WRITES = "a revision that was seen goes in a request that only reads: leave it out"

_SEQ_AT_HEAD = re.compile(
    rb"(?:\x93|[\x94-\x9f]|\xdc..|\xdd....)(?:\xc0|\xc4\x10.{16}|\xc5\0\x10.{16}|\xc6\0\0\0\x10.{16})"
    rb"(?P<seq>[\0-\x7f]|\xcc.|\xcd..|\xce....|\xcf........)",
    re.DOTALL,
)
"""The beginning of a request: an array of three or more, a session or nil, the number."""

_EXPLAINED_MAX = 1000
"""How many operations of a bad request are searched for a method that does not exist."""

EXPLANATION_CHARS_MAX = 1000
"""The longest message of a refusal, which may quote what was sent."""


def _explain(frame: bytes, error: Exception) -> Refusal:
    seq = _read_seq(frame)
    method = _strange_method(frame)
    if method is not None:
        return Refusal(seq, errors.InvalidMethod.code, f"no operation {method[:100]!r}")
    prefix = "not a request [session, seq, ops]: " if seq is None else ""
    return Refusal(seq, errors.InvalidRequest.code, f"{prefix}{error}"[:EXPLANATION_CHARS_MAX])


def _read_seq(frame: bytes) -> int | None:
    """Read the number of a request even if nothing else of it can be decoded; None if it has none."""
    try:
        seq = _decode_envelope(frame).seq
    except _UNREADABLE:
        head = _SEQ_AT_HEAD.match(frame)  # the rest is cut off, or nested deeper than the decoder goes
        if head is None:
            return None
        seq = decode_value(head["seq"])
    return seq if 1 <= seq <= limits.SEQ_MAX else None  # 0 is for events


def _strange_method(frame: bytes) -> str | None:
    """Return the first method that does not exist, or None; operations after an unreadable one are not searched."""
    try:
        for op in islice(_decode_raws(_decode_envelope(frame).ops), _EXPLAINED_MAX):
            method = _decode_method(_decode_raws(op)[0])
            if method not in operations.OPERATIONS:
                return method
    except (*_UNREADABLE, IndexError):
        pass
    return None


def encode_reply(reply: Reply) -> bytes:
    """Encode `[seq, revision, results]`."""
    results = reply.results
    encoded = results.pairs if isinstance(results, LargeResults) else Raw(results)
    return encode_value((reply.seq, reply.revision, encoded))


def results_of(pairs: list[tuple[int, Any]], length: int) -> bytes | LargeResults:
    """Encode a reply's results, about `length` bytes; large ones are left to be encoded when they are sent."""
    return encode_value(pairs) if length < LARGE_BYTES_MIN else LargeResults(pairs, length)


def encode_results(results: Iterable[tuple[int, Any]]) -> bytes:
    """Encode pairs of a code and a payload as a reply's results."""
    return encode_value(results)


def refuse(seq: int | None, revision: int, code: int, message: str) -> Reply:
    """Build the reply to a request of which nothing was executed."""
    return Reply(seq, revision, encode_results([(code, message)]))


def encode_epoch(revision: int, watch: int, more: bool, epoch: bytes) -> bytes:
    """Encode `[0, revision, [watch, 0, nil, more, epoch]]`: the table is in this epoch now."""
    return encode_value((0, revision, (watch, errors.OK, None, more, epoch.hex())))


def encode_event(revision: int, watch: int, code: int, payload: Any, more: bool = False) -> bytes:
    """Encode `[0, revision, [watch, code, payload]]`; a code other than 0 ends the watch.

    With `more`, a fourth element, true, means that the request which made this change has made others after it.
    """
    return encode_value((0, revision, (watch, code, payload, True) if more else (watch, code, payload)))


def encode_heartbeat(revision: int) -> bytes:
    """Encode `[0, revision, nil]`: there are no events, but the connection works."""
    return encode_value((0, revision, None))


class _WireGroup(Struct, array_like=True, gc=False):
    time_us: int
    requests: list[Raw]


_decode_group: Callable[[bytes], _WireGroup] = msgspec.msgpack.Decoder(_WireGroup).decode


def encode_group(time_us: int, frames: Iterable[bytes]) -> bytes:
    """Encode what one step commits, `[time_us, [request, ...]]`, from the requests' own bytes."""
    return encode_value((time_us, [Raw(frame) for frame in frames]))


def decode_group(group: bytes) -> tuple[int, list[Request]]:
    """Decode a group. Its requests are not checked again: they were before they were logged."""
    wire = _decode_group(group)
    requests = []
    for raw in wire.requests:
        frame = bytes(raw)
        logged = _decode_logged(frame)
        requests.append(Request(logged.session, logged.seq, logged.ops, frame))
    return wire.time_us, requests
