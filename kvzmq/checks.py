"""What the table takes as a value: whatever is accepted here can be read back everywhere.

What JSON could not say (NaN, infinities, map keys that are no strings, extension types) is refused,
and nesting deeper than DEPTH_MAX. `bytes` are the one exception: MessagePack clients may store them,
and the bridge shows them as base64 strings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Union

import msgspec
from msgspec import Meta, Raw

from kvzmq import errors, messages
from kvzmq.messages import Operation

_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder().decode

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
        value = _decode(data)
    except RecursionError:
        raise errors.InvalidRequest(f"value nested deeper than {messages.DEPTH_MAX}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InvalidRequest(f"value is not MessagePack: {error}") from None
    try:
        _find_fault(value, 0)
    except _Fault as fault:
        # The path is put together only here: a long key above a long array would be copied for every item.
        path = "".join(f"[{_quote(step)}]" for step in reversed(fault.path))
        raise errors.InvalidRequest(f"value{path} {fault.reason}") from None


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


def _check_insert_many(op: messages.InsertMany) -> None:
    values = list(op.rows.values())
    try:
        for raw in values:
            _check_shallow(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            _check_bytes_list(_encode(values))
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
    check_operations(op.operations)


_CHECKS: dict[type[Operation], Callable[[Any], None]] = {
    messages.Insert: lambda op: check_value(op.value),
    messages.SetDefault: lambda op: check_value(op.value),
    messages.InsertMany: _check_insert_many,
    messages.CompareAndSet: _check_compare_and_set,
    messages.Increment: _check_increment,
    messages.Transaction: _check_transaction,
    messages.Query: lambda op: check_value(op.subvalue),
    messages.WatchQuery: lambda op: check_value(op.subvalue),
}


def check_operations(ops: Iterable[Operation]) -> None:
    """Refuse operations of which a value or a number is not one for the table.

    Raises:
        InvalidRequest: naming the place
    """
    for op in ops:
        check = _CHECKS.get(type(op))
        if check is not None:
            check(op)
