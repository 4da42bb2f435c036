"""Bytes to messages and back, in MessagePack: the ROUTER's frames and the log's records. No I/O.

The typed decoder refuses malformed MessagePack and wrong arguments; `checks` refuses values that the
table does not take.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from kvzmq import checks, errors, messages
from kvzmq.messages import Operation, Refusal, Reply, Request

encode_value: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
"""Encode a value as MessagePack; raises TypeError or OverflowError for what it cannot say."""

decode_value: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder().decode
"""Decode a value that `checks.check_value` has accepted."""


class _WireRequest(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    session: Annotated[bytes, Meta(min_length=messages.SESSION_BYTES, max_length=messages.SESSION_BYTES)] | None
    seq: messages.Seq
    ops: Annotated[list[messages.AnyOperation], Meta(min_length=1, max_length=messages.OPERATIONS_MAX)]


class _LoggedRequest(Struct, array_like=True, gc=False):
    session: bytes | None
    seq: int
    ops: list[messages.LoggedOperation]


class _WireEnvelope(Struct, array_like=True, gc=False):
    """What can still be learnt of a request whose operations are wrong; these are skipped, not decoded."""

    session: Raw
    seq: int
    ops: Raw


class _WireName(Struct, array_like=True, gc=False):
    """An operation's method, the arguments skipped."""

    method: str


_decode_request: Callable[[bytes], _WireRequest] = msgspec.msgpack.Decoder(_WireRequest).decode
_decode_logged: Callable[[bytes], _LoggedRequest] = msgspec.msgpack.Decoder(_LoggedRequest).decode
_decode_envelope: Callable[[bytes], _WireEnvelope] = msgspec.msgpack.Decoder(_WireEnvelope).decode
_decode_names: Callable[[Raw], list[_WireName]] = msgspec.msgpack.Decoder(list[_WireName]).decode


def decode_request(frame: bytes) -> Request | Refusal:
    """Read a request; a bad one comes back as a Refusal, so that its error keeps its place in the line."""
    try:
        wire = _decode_request(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _explain(frame, error)
    try:
        checks.check_operations(wire.ops)
    except errors.InvalidRequest as error:
        return Refusal(wire.seq, error.code, str(error)[:EXPLANATION_CHARS_MAX])
    request = Request(wire.session, wire.seq, wire.ops, frame)
    if request.served and request.writes:
        return Refusal(wire.seq, errors.InvalidRequest.code, "hello, stats and watches go in a request without writes")
    return request


EXPLANATION_CHARS_MAX = 1000
"""The longest message of a refusal; what is wrong may quote what was sent."""


def _explain(frame: bytes, error: Exception) -> Refusal:
    try:
        envelope = _decode_envelope(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = f"not a request [session, seq, ops]: {error}"
        return Refusal(None, errors.InvalidRequest.code, message[:EXPLANATION_CHARS_MAX])
    seq = envelope.seq if 1 <= envelope.seq <= messages.SEQ_MAX else None  # 0 is for events
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        for op in _decode_names(envelope.ops):
            if op.method not in messages.OPERATIONS:
                return Refusal(seq, errors.InvalidMethod.code, f"no operation {op.method[:100]!r}")
    return Refusal(seq, errors.InvalidRequest.code, str(error)[:EXPLANATION_CHARS_MAX])


def encode_request(session: bytes | None, seq: int, ops: Iterable[Operation | Raw]) -> bytes:
    """Encode `[session, seq, ops]`."""
    return encode_value((session, seq, ops))


def encode_reply(reply: Reply) -> bytes:
    """Encode `[seq, revision, results]`."""
    return encode_value((reply.seq, reply.revision, Raw(reply.results)))


def encode_results(results: Iterable[tuple[int, Any]]) -> bytes:
    """Encode pairs of a code and a payload as a reply's results."""
    return encode_value(results)


def refuse(seq: int | None, revision: int, code: int, message: str) -> Reply:
    """Build the reply to a request of which nothing was executed."""
    return Reply(seq, revision, encode_results([(code, message)]))


def encode_event(revision: int, watch: int, code: int, payload: Any, more: bool = False) -> bytes:
    """Encode `[0, revision, [watch, code, payload]]`; a code other than 0 ends the watch.

    With `more` a fourth element, true, says that the request which made this change has made others after it.
    """
    return encode_value((0, revision, (watch, code, payload, True) if more else (watch, code, payload)))


def encode_heartbeat(revision: int) -> bytes:
    """Encode `[0, revision, nil]`: the connection of a watch is well, there is only nothing to tell."""
    return encode_value((0, revision, None))


class _WireGroup(Struct, array_like=True, gc=False):
    time_us: int
    requests: list[Raw]


_decode_group: Callable[[bytes], _WireGroup] = msgspec.msgpack.Decoder(_WireGroup).decode


def encode_group(time_us: int, frames: Iterable[bytes]) -> bytes:
    """Encode what one step commits, `[time_us, [request, ...]]`, from the requests' own bytes."""
    return encode_value((time_us, [Raw(frame) for frame in frames]))


def decode_group(group: bytes) -> tuple[int, list[Request]]:
    """Read a group back; what the log's checksums let through was checked before it was written."""
    wire = _decode_group(group)
    requests = []
    for raw in wire.requests:
        frame = bytes(raw)
        logged = _decode_logged(frame)
        requests.append(Request(logged.session, logged.seq, logged.ops, frame))
    return wire.time_us, requests
