"""Bytes to messages and back: MessagePack for ROUTER, JSON lines for the bridge. No I/O.

Whatever is accepted here can be read back everywhere: the typed decoder refuses malformed
MessagePack and wrong arguments, and `check_value` refuses what JSON could not say (NaN,
infinities, map keys that are no strings, extension types) and nesting deeper than DEPTH_MAX.
`bytes` are the one exception: MessagePack clients may store them, and the bridge shows them as
base64 strings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Union, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, Struct

from kvzmq import errors, messages
from kvzmq.messages import MESSAGE_BYTES_MAX, Operation, Refusal, Reply, Request

encode_value: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
"""Encode a value as MessagePack; raises TypeError or OverflowError for what it cannot say."""

decode_value: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder().decode
"""Decode a value that `check_value` has accepted."""


# ---- values -------------------------------------------------------------------------------------

_Finite = Annotated[float, Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]  # NaN fails both


def _nested(inner: Any) -> Any:
    return Union[None, bool, int, _Finite, str, list[inner], dict[str, inner]]


_Scalar = Union[None, bool, int, _Finite, str]
_Shallow: Any = _nested(_nested(_nested(_nested(_Scalar))))

# Most values are no deeper than four levels and hold no bytes: those are checked in C, about
# 150 ns each. Only the rest is walked in Python.
_check_shallow_rows: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(dict[str, _Shallow]).decode
_check_shallow: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(_Shallow).decode

# A union holds either strings or bytes. So bytes are told by their first byte, and rows of bytes are
# tried all at once: an exception for each would cost ten times the check.
_BYTES_HEADS = frozenset((0xC4, 0xC5, 0xC6))
_check_bytes: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(bytes).decode
_check_bytes_rows: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_check_bytes_list: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(list[bytes]).decode


def check_value(data: bytes | Raw) -> None:
    """Refuse MessagePack that is not a value of the table.

    Raises:
        InvalidRequest: it is malformed, too deep, holds NaN, an extension type, or a map key that is no string
    """
    try:
        if memoryview(data)[0] in _BYTES_HEADS:
            _check_bytes(data)
        else:
            _check_shallow(data)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        _check_deep(data)


def check_rows(data: bytes | Raw) -> None:
    """Refuse a MessagePack map of keys to values if one of them needs a closer look, or is wrong.

    Raises:
        InvalidRequest: check the values one by one
    """
    try:
        try:
            _check_shallow_rows(data)
        except msgspec.ValidationError:
            _check_bytes_rows(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InvalidRequest(str(error)) from None


def _check_deep(data: bytes | Raw) -> None:
    try:
        value = decode_value(data)
    except RecursionError:
        raise errors.InvalidRequest(f"value nested deeper than {messages.DEPTH_MAX}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InvalidRequest(f"value is not MessagePack: {error}") from None
    find_fault(value, "value")


def find_fault(value: object, place: str) -> None:
    """Refuse a decoded value that JSON and bytes cannot say, naming the place.

    Raises:
        InvalidRequest: with a message such as `value["a"][3] is not finite`
    """
    try:
        _find_fault(value, 0)
    except _Fault as fault:
        # The path is put together only here: a long key above a long array would be copied for every item.
        path = "".join(f"[{_quote(step)}]" for step in reversed(fault.path))
        raise errors.InvalidRequest(f"{place}{path} {fault.reason}") from None


class _Fault(Exception):
    """Carry what is wrong and, innermost first, the keys and positions that lead there."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[object] = []


def _find_fault(value: object, depth: int) -> None:
    if isinstance(value, (str, int, bytes)) or value is None:
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Fault("is not finite: JSON has no NaN and no infinities")
        return
    if not isinstance(value, (list, dict)):
        raise _Fault(f"has the MessagePack type {type(value).__name__}, which is not supported")
    if depth >= messages.DEPTH_MAX:
        raise _Fault(f"is nested deeper than {messages.DEPTH_MAX}")
    for step, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict) and not isinstance(step, str):
            raise _Fault(f"has the map key {_quote(step)}: map keys must be strings")
        try:
            _find_fault(item, depth + 1)
        except _Fault as fault:
            fault.path.append(step)
            raise


def _quote(key: object) -> str:
    return repr(key[:50] + "..." if isinstance(key, str) and len(key) > 50 else key)[:200]


def _check_rows(op: messages.InsertMany) -> None:
    values = list(op.rows.values())
    try:
        for raw in values:
            _check_shallow(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            _check_bytes_list(encode_value(values))
        except (msgspec.DecodeError, UnicodeDecodeError):
            for raw in values:
                check_value(raw)


def _check_maybe(values: list[Raw]) -> None:
    for raw in values:
        check_value(raw)


def _check_compare_and_set(op: messages.CompareAndSet) -> None:
    _check_maybe(op.expected)
    _check_maybe(op.value)


def _check_increment(op: messages.Increment) -> None:
    if not math.isfinite(op.by):
        raise errors.InvalidRequest("by is not finite")


def _check_transaction(op: messages.Transaction) -> None:
    for _, expected in op.checks:
        _check_maybe(expected)
    _check_operations(op.operations)


_CHECKS: dict[type[Operation], Callable[[Any], None]] = {
    messages.Insert: lambda op: check_value(op.value),
    messages.SetDefault: lambda op: check_value(op.value),
    messages.InsertMany: _check_rows,
    messages.CompareAndSet: _check_compare_and_set,
    messages.Increment: _check_increment,
    messages.Transaction: _check_transaction,
    messages.Query: lambda op: check_value(op.subvalue),
    messages.WatchQuery: lambda op: check_value(op.subvalue),
}


def _check_operations(ops: Iterable[Operation]) -> None:
    for op in ops:
        check = _CHECKS.get(type(op))
        if check is not None:
            check(op)


# ---- MessagePack: the ROUTER's frames and the log's records ---------------------------------------


class _WireRequest(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    session: Annotated[bytes, Meta(min_length=messages.SESSION_BYTES, max_length=messages.SESSION_BYTES)] | None
    seq: messages.Seq
    ops: Annotated[list[messages.AnyOperation], Meta(min_length=1, max_length=messages.OPERATIONS_MAX)]


class _WireEnvelope(Struct, array_like=True, gc=False):
    """What can still be learnt of a request whose operations are wrong."""

    session: Any
    seq: int
    ops: Any


_decode_request: Callable[[bytes], _WireRequest] = msgspec.msgpack.Decoder(_WireRequest).decode
_decode_envelope: Callable[[bytes], _WireEnvelope] = msgspec.msgpack.Decoder(_WireEnvelope).decode


def decode_request(frame: bytes) -> Request | Refusal:
    """Read a request; a bad one comes back as a Refusal, so that its error keeps its place in the line."""
    try:
        wire = _decode_request(frame)
        _check_operations(wire.ops)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, errors.InvalidRequest) as error:
        return _explain(frame, error)
    request = Request(wire.session, wire.seq, wire.ops, frame)
    if request.served and request.writes:
        return Refusal(wire.seq, errors.InvalidRequest.code, "stats and watches go in a request without writes")
    return request


_EXPLANATION_CHARS_MAX = 1000
"""The longest message of a refusal; what is wrong may quote what was sent."""


def _explain(frame: bytes, error: Exception) -> Refusal:
    try:
        envelope = _decode_envelope(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = f"not a request [session, seq, ops]: {error}"
        return Refusal(None, errors.InvalidRequest.code, message[:_EXPLANATION_CHARS_MAX])
    seq = envelope.seq if 1 <= envelope.seq <= messages.SEQ_MAX else None  # 0 is for events
    if isinstance(envelope.ops, list):
        for op in envelope.ops:
            if isinstance(op, list) and op and isinstance(op[0], str) and op[0] not in messages.OPERATIONS:
                return Refusal(seq, errors.InvalidMethod.code, f"no operation {op[0][:100]!r}")
    return Refusal(seq, errors.InvalidRequest.code, str(error)[:_EXPLANATION_CHARS_MAX])


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


def encode_event(revision: int, watch: int, code: int, payload: Any) -> bytes:
    """Encode `[0, revision, [watch, code, payload]]`; a code other than 0 ends the watch."""
    return encode_value((0, revision, (watch, code, payload)))


def encode_sign_of_life(revision: int) -> bytes:
    """Encode `[0, revision, nil]`: a watching client is not forgotten, there is only no news."""
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
        request = _decode_request(frame)
        requests.append(Request(request.session, request.seq, request.ops, frame))
    return wire.time_us, requests


# ---- JSON lines: the bridge -----------------------------------------------------------------------


def _json_type(wire_type: Any) -> Any:
    """Return what stands in JSON for a field of the wire: decoded values instead of raw bytes."""
    replaced = {Raw: Any, messages.Maybe: Any, dict[messages.Key, Raw]: dict[messages.Key, Any]}
    return replaced.get(wire_type, wire_type)


def _json_twin(kind: type[Operation]) -> type[Struct]:
    """Define the Struct that reads `{"method": ..., field: ...}` for an operation of the wire."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        if field.encode_name == "operations":
            fields.append((field.name, list[_JsonStep]))
        elif field.encode_name == "checks":
            fields.append((field.name, list[_JsonCheck]))
        elif field.type is messages.Maybe or field.type == messages.Maybe:
            fields.append((field.name, Any, UNSET))
        elif field.required:
            fields.append((field.name, _json_type(field.type)))
        else:
            fields.append((field.name, _json_type(field.type), field.default))
    fields.append(("session", Union[str, None], None))
    fields.append(("seq", Union[messages.Seq, None], None))
    return msgspec.defstruct(
        f"Json{kind.__name__}", fields, tag_field="method", tag=kind.__struct_config__.tag, kw_only=True, gc=False
    )


class _JsonCheck(Struct, gc=False):
    key: messages.Key
    expected: Any = UNSET


_STREAMED = (messages.Watch, messages.WatchQuery, messages.Unwatch)
"""Not at the bridge: a line of the dialect answers a request, it cannot push."""

_TWINS: dict[type[Operation], type[Struct]] = {
    kind: _json_twin(kind) for kind in get_args(messages.Step)
}
_JsonStep: Any = Union[tuple(_TWINS.values())]
_TWINS.update(
    (kind, _json_twin(kind))
    for kind in messages.OPERATIONS.values()
    if kind not in _TWINS and kind not in _STREAMED
)
_KINDS: dict[type[Struct], type[Operation]] = {twin: kind for kind, twin in _TWINS.items()}


def _raw(value: Any) -> Raw:
    data = encode_value(value)
    check_value(data)
    return Raw(data)


def _maybe(value: Any) -> list[Raw]:
    return [] if value is UNSET else [_raw(value)]


_FROM_JSON: dict[Any, Callable[[Any], Any]] = {
    Raw: _raw,
    messages.Maybe: _maybe,
    dict[messages.Key, Raw]: lambda rows: {key: _raw(value) for key, value in rows.items()},
    list[messages.Step]: lambda steps: [_from_json(step) for step in steps],
    list[tuple[messages.Key, messages.Maybe]]: lambda checks: [(c.key, _maybe(c.expected)) for c in checks],
}

_PLANS: dict[type[Struct], tuple[type[Operation], list[tuple[str, Callable[[Any], Any] | None]]]] = {
    twin: (kind, [(field.name, _FROM_JSON.get(field.type)) for field in msgspec.structs.fields(kind)])
    for twin, kind in _KINDS.items()
}


def _from_json(twin: Struct) -> Operation:
    kind, plan = _PLANS[type(twin)]
    return kind(*[
        convert(getattr(twin, name)) if convert is not None else getattr(twin, name)
        for name, convert in plan
    ])  # fmt: skip


_decode_line: Callable[[bytes], Any] = msgspec.json.Decoder(Union[tuple(_KINDS)]).decode
_decode_json: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_encode_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def decode_line(line: bytes) -> Request | Refusal:
    """Read one request of the bridge, a JSON object without its newline."""
    try:
        twin = _decode_line(line)
        session = _session_of(twin)
        ops = [_from_json(twin)]
        frame = encode_request(session, twin.seq or 1, ops)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, errors.InvalidRequest) as error:
        return _explain_line(line, error)
    if len(frame) > MESSAGE_BYTES_MAX:
        return Refusal(None, errors.InvalidRequest.code, f"request larger than {MESSAGE_BYTES_MAX} bytes")
    return Request(session, twin.seq or 1, ops, frame)


def _session_of(twin: Any) -> bytes | None:
    if twin.session is None:
        return None
    try:
        session = bytes.fromhex(twin.session)
    except ValueError:
        session = b""
    if len(session) != messages.SESSION_BYTES:
        raise errors.InvalidRequest("session must be 32 hexadecimal digits")
    if twin.seq is None:
        raise errors.InvalidRequest("a request with a session needs a seq")
    return session


def _explain_line(line: bytes, error: Exception) -> Refusal:
    try:
        request = _decode_json(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as unreadable:
        return Refusal(None, errors.InvalidRequest.code, f"not a line of JSON: {unreadable}")
    if isinstance(request, dict) and "method" in request:
        method = request["method"]
        if not (isinstance(method, str) and method in messages.OPERATIONS):
            named = method[:100] if isinstance(method, str) else type(method).__name__
            return Refusal(None, errors.InvalidMethod.code, f"no method {named!r}")
        if messages.OPERATIONS[method] in _STREAMED:
            return Refusal(None, errors.InvalidMethod.code, f"{method} needs a ZeroMQ client: a line cannot push")
    return Refusal(None, errors.InvalidRequest.code, str(error)[:_EXPLANATION_CHARS_MAX])


class _WireResult(Struct, array_like=True, gc=False):
    code: int
    payload: Any


_decode_results: Callable[[bytes], list[_WireResult]] = msgspec.msgpack.Decoder(list[_WireResult]).decode

_TYPE_NAMES = {code: error.__name__ for code, error in errors.BY_CODE.items()} | {errors.NoSuchKey.code: "KeyError"}
_DONE_RESULTS = encode_results([(errors.OK, None)])
_DONE_LINE = b'{"status":"OK","result":null}\n'


def encode_line(reply: Reply) -> bytes:
    """Encode a reply of one result as a line of the dialect, newline included."""
    if reply.results == _DONE_RESULTS:
        return _DONE_LINE
    result = _decode_results(reply.results)[0]
    if result.code == errors.OK:
        return _encode_json({"status": "OK", "result": result.payload}) + b"\n"
    kind = _TYPE_NAMES.get(result.code, "Error")
    return _encode_json({"status": "exception", "type": kind, "message": str(result.payload)}) + b"\n"
