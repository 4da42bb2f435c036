"""The bridge's encoding: lines of JSON to requests, replies to lines of JSON. No I/O.

A line is converted to the request that the same operation would be in MessagePack, so the rest of the server, the log
included, handles one kind of request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

import msgspec
from msgspec import UNSET, Raw, Struct

from kvzmq import errors
from kvzmq.protocol import limits, messages, msgpack, operations, validation
from kvzmq.protocol.declaration import Operation, Scope, method_of
from kvzmq.protocol.limits import REQUEST_BYTES_MAX
from kvzmq.protocol.messages import LargeResults, Refusal, Reply, Request
from kvzmq.protocol.operations import OPERATIONS


def _json_type(wire_type: Any) -> Any:
    """Return the type of a field in JSON, given its type in MessagePack: decoded values instead of raw bytes."""
    replaced = {Raw: Any, operations.Maybe: Any, dict[operations.Key, Raw]: dict[operations.Key, Any]}
    return replaced.get(wire_type, wire_type)


def _json_struct(kind: type[Operation]) -> type[Struct]:
    """Define the Struct that decodes an operation in JSON, `{"method": ..., field: ...}`."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        if field.encode_name == "operations":
            fields.append((field.name, list[_JsonInTransaction]))
        elif field.encode_name == "checks":
            fields.append((field.name, list[_JsonCheck]))
        elif field.type is operations.Maybe or field.type == operations.Maybe:
            fields.append((field.name, Any, UNSET))
        elif field.required:
            fields.append((field.name, _json_type(field.type)))
        else:
            fields.append((field.name, _json_type(field.type), field.default))
    fields.append(("session", Union[str, None], None))
    fields.append(("seq", Union[messages.Seq, None], None))
    return msgspec.defstruct(
        f"Json{kind.__name__}", fields, tag_field="method", tag=method_of(kind), kw_only=True, gc=False
    )


class _JsonCheck(Struct, gc=False):
    key: operations.Key
    expected: Any = UNSET


def _is_at_bridge(kind: type[Operation]) -> bool:
    """Say whether an operation is available at the bridge, where no events can be pushed."""
    return kind.scope is not Scope.CONNECTION


_JSON_STRUCTS: dict[type[Operation], type[Struct]] = {
    kind: _json_struct(kind) for kind in OPERATIONS.values() if kind.in_transactions
}
_JsonInTransaction: Any = Union[tuple(_JSON_STRUCTS.values())]
_JSON_STRUCTS.update(
    (kind, _json_struct(kind)) for kind in OPERATIONS.values() if not kind.in_transactions and _is_at_bridge(kind)
)
_KINDS: dict[type[Struct], type[Operation]] = {struct: kind for kind, struct in _JSON_STRUCTS.items()}


def _raw(value: Any) -> Raw:
    return Raw(msgpack.encode_value(value))


def _maybe(value: Any) -> list[Raw]:
    return [] if value is UNSET else [_raw(value)]


_FROM_JSON: dict[Any, Callable[[Any], Any]] = {
    Raw: _raw,
    operations.Maybe: _maybe,
    dict[operations.Key, Raw]: lambda rows: {key: _raw(value) for key, value in rows.items()},
    list[operations.TransactionOperation]: lambda decoded: [_from_json(each) for each in decoded],
    list[tuple[operations.Key, operations.Maybe]]: lambda pairs: [(pair.key, _maybe(pair.expected)) for pair in pairs],
}

_PLANS: dict[type[Struct], tuple[type[Operation], list[tuple[str, Callable[[Any], Any] | None]]]] = {
    struct: (kind, [(field.name, _FROM_JSON.get(field.type)) for field in msgspec.structs.fields(kind)])
    for struct, kind in _KINDS.items()
}
"""What to make of a decoded Struct: which operation, and from each field its argument, None for as it is."""


def _from_json(decoded: Struct) -> Operation:
    """Return the operation that was decoded from JSON, with its values as MessagePack."""
    kind, plan = _PLANS[type(decoded)]
    return kind(*[
        convert(getattr(decoded, name)) if convert is not None else getattr(decoded, name)
        for name, convert in plan
    ])  # fmt: skip


_decode_line: Callable[[bytes], Any] = msgspec.json.Decoder(Union[tuple(_KINDS)]).decode
_decode_json: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_encode_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode


_STRUCTURAL = (b",", b":", b"[", b"{")


def decode_line(line: bytes, request_bytes_max: int = REQUEST_BYTES_MAX) -> Request | Refusal:
    """Read one request of the bridge, a JSON object without its newline.

    Its length is limited as encoded in MessagePack, in which form it is logged.
    """
    # Each of these characters is a byte of a string, or belongs to a value of its own, which takes a byte at least. So
    # a line that is certainly too long is refused before it is decoded: 7 MB of empty arrays would take 0.3 s.
    if len(line) > request_bytes_max and max(map(line.count, _STRUCTURAL)) > request_bytes_max:
        return _too_long(request_bytes_max)
    try:
        decoded = _decode_line(line)
        session = _session_of(decoded)
        ops = [_from_json(decoded)]
        validation.check_operations(ops)
        frame = msgpack.encode_request(session, decoded.seq or 1, ops)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, errors.InvalidRequest) as error:
        return _explain_line(line, error)
    if len(frame) > request_bytes_max:
        return _too_long(request_bytes_max)
    return Request(session, decoded.seq or 1, ops, frame)


def _too_long(request_bytes_max: int) -> Refusal:
    message = f"the request takes more than {request_bytes_max} bytes in MessagePack: send less at a time"
    return Refusal(None, errors.InvalidRequest.code, message)


def _session_of(decoded: Any) -> bytes | None:
    if decoded.session is None:
        return None
    try:
        session = bytes.fromhex(decoded.session)
    except ValueError:
        session = b""
    if len(session) != limits.SESSION_BYTES:
        raise errors.InvalidRequest("session must be 32 hexadecimal digits")
    if decoded.seq is None:
        raise errors.InvalidRequest("a request with a session needs a seq")
    return session


def _explain_line(line: bytes, error: Exception) -> Refusal:
    try:
        request = _decode_json(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as unreadable:
        return Refusal(None, errors.InvalidRequest.code, f"not a line of JSON: {unreadable}")
    if isinstance(request, dict) and "method" in request:
        method = request["method"]
        if not (isinstance(method, str) and method in OPERATIONS):
            named = method[:100] if isinstance(method, str) else type(method).__name__
            return Refusal(None, errors.InvalidMethod.code, f"no method {named!r}")
        if not _is_at_bridge(OPERATIONS[method]):
            return Refusal(None, errors.InvalidMethod.code, f"{method} needs a ZeroMQ client: a line cannot push")
    return Refusal(None, errors.InvalidRequest.code, str(error)[: msgpack.EXPLANATION_CHARS_MAX])


class _WireResult(Struct, array_like=True, gc=False):
    code: int
    payload: Any


_decode_results: Callable[[bytes], list[_WireResult]] = msgspec.msgpack.Decoder(list[_WireResult]).decode

_TYPE_NAMES = {code: error.__name__ for code, error in errors.BY_CODE.items()} | {errors.NoSuchKey.code: "KeyError"}
_DONE_RESULTS = msgpack.encode_results([(errors.OK, None)])
_DONE_LINE = b'{"status":"OK","result":null}\n'


def encode_line(reply: Reply) -> bytes:
    """Encode a reply of one result as a line of JSON, newline included."""
    results = reply.results
    if results == _DONE_RESULTS:
        return _DONE_LINE
    encoded = msgpack.encode_results(results.pairs) if isinstance(results, LargeResults) else results
    result = _decode_results(encoded)[0]
    if result.code == errors.OK:
        return _encode_json({"status": "OK", "result": result.payload}) + b"\n"
    kind = _TYPE_NAMES.get(result.code, "Error")
    return _encode_json({"status": "exception", "type": kind, "message": str(result.payload)}) + b"\n"
