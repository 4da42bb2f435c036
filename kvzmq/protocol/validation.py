"""What the table takes as a value: whatever is accepted here can be read back everywhere.

What JSON could not say (NaN, infinities, map keys that are no strings, extension types) is refused,
and nesting deeper than DEPTH_MAX. `bytes` are the one exception: MessagePack clients may store them,
and the bridge shows them as base64 strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress, repeat
from operator import is_
from typing import Annotated, Any, Union

import msgspec
from msgspec import Meta, Raw

from kvzmq import errors
from kvzmq.protocol import messages
from kvzmq.protocol.messages import Operation

CONTAINERS_MAX = 131_072
CONTAINER_BYTES = 8
"""How many arrays and maps the values of a request may hold together: CONTAINERS_MAX, or one for CONTAINER_BYTES bytes
of them where that is more.

Each costs 0.2 us to make and to forget whenever the value is decoded; a million of them, empty, fit 1 MiB.
"""

ROWS_MAX = 100_000
"""The most rows or keys in one operation."""

TRANSACTION_MAX = 30_000
"""The most operations in a transaction, where a row and a key of an operation on many counts as one."""

_LOOKED_AT_MAX = 50_000
"""How many items are looked at, or values, to tell the place of what is wrong: it takes 20 ms."""

_decode: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder().decode

_Finite = Annotated[float, Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]  # NaN fails both


def _nested(inner: Any) -> Any:
    return Union[None, bool, int, _Finite, str, list[inner], dict[str, inner]]


_Scalar = Union[None, bool, int, _Finite, str]
_Shallow: Any = _nested(_nested(_nested(_nested(_Scalar))))

# Most values are no deeper than four levels and hold no bytes: those are checked in C, about 150 ns each. What remains
# goes level by level, never item by item in Python: one request may hold a million items.
_check_shallow: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(_Shallow).decode
_check_shallow_rows: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(dict[str, _Shallow]).decode
_check_bytes_rows: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_check_shallow_list: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(list[_Shallow]).decode

_SCALARS = frozenset((type(None), bool, int, float, str, bytes))


def check_value(data: bytes | Raw) -> None:
    """Refuse MessagePack that is not a value of the table.

    Raises:
        InvalidRequest: it is malformed, too deep, holds too many arrays and maps, NaN, an extension type, or a map key
            that is no string
    """
    _check_count(data)
    try:
        _check_shallow(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
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


def _check_values(values: list[Raw]) -> None:
    """Check many values at once: one at a time, those that need a closer look would cost ten times as much."""
    if len(values) < 2:
        for value in values:
            check_value(value)
        return
    data = b"\xdd" + len(values).to_bytes(4, "big") + b"".join(values)
    _check_count(data)
    try:
        _check_shallow_list(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            fault = _find_fault(list(_decode(data)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fault = _MALFORMED
        if fault is not None:
            if len(values) <= _LOOKED_AT_MAX // 10:
                for value in values:
                    check_value(value)
            raise errors.InvalidRequest(f"a value {fault}") from None


# ---- how many arrays and maps

_HEADS = bytes((*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF))
_LENGTHS: dict[int, int] = {0xC4: 1, 0xD9: 1, 0xC5: 2, 0xDA: 2, 0xC6: 4, 0xDB: 4}
"""Of strings and bytes whose length follows: by the first byte, how many bytes it takes."""

_FIXED: dict[int, list[int]] = {
    0: [*range(0x80), 0xA0, 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)],
    **{length: [0xA0 + length] for length in range(1, 32)},
}
for _rest, _firsts in ((1, (0xCC, 0xD0)), (2, (0xCD, 0xD1)), (4, (0xCE, 0xD2, 0xCA)), (8, (0xCF, 0xD3, 0xCB))):
    _FIXED[_rest] += _firsts
"""Of the other scalars: by how many bytes follow, the first bytes."""


def _among(firsts: Iterable[int], rest: int = 0) -> bytes:
    return b"[%b][\\x00-\\xff]{%d}" % (b"".join(b"\\x%02x" % first for first in firsts), rest)


_HEAD = b"(?:%b|%b|%b)" % (_among(_HEADS[:32]), _among((0xDC, 0xDE), 2), _among((0xDD, 0xDF), 4))
_SCALAR = b"(?:%b)" % b"|".join(_among(firsts, rest) for rest, firsts in sorted(_FIXED.items()))
_match_run = re.compile(b"(?:%b|%b){1,16384}" % (_SCALAR, _HEAD)).match
_find_heads = re.compile(b"%b*(%b?)" % (_SCALAR, _HEAD)).findall


def _check_count(data: bytes | Raw) -> None:
    """Refuse a value with too many arrays and maps; strings with longer heads than they need count as such."""
    size = len(memoryview(data))
    if size <= CONTAINERS_MAX:
        return
    most = max(CONTAINERS_MAX, size // CONTAINER_BYTES)
    data = bytes(data)
    if size - len(data.translate(None, _HEADS)) <= most:  # bytes that may be heads, most of them often within strings
        return
    at = count = 0
    while at < size and count <= most:
        run = _match_run(data, at)
        if run is not None:
            count += sum(map(bool, _find_heads(data, at, run.end())))
            at = run.end()
        elif data[at] in _LENGTHS:
            end = at + 1 + _LENGTHS[data[at]]
            length = int.from_bytes(data[at + 1 : end], "big")
            count += length < 32
            at = end + length
        else:
            return  # an extension type, which is refused anyway
    if count > most:
        raise errors.InvalidRequest(f"more than {most} arrays and maps in the values of one request")


# ---- level by level

_MALFORMED = "is not MessagePack"


def _check_deep(data: bytes | Raw) -> None:
    try:
        value = _decode(data)
    except RecursionError:
        raise errors.InvalidRequest(f"value nested deeper than {messages.DEPTH_MAX}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InvalidRequest(f"value is not MessagePack: {error}") from None
    reason = _find_fault([value])
    if reason is None:
        return
    try:
        _look_for_fault(value, 0, iter(range(_LOOKED_AT_MAX)))
    except _Fault as fault:
        # The path is put together only here: a long key above a long array would be copied for every item.
        path = "".join(f"[{_quote(step)}]" for step in reversed(fault.path))
        raise errors.InvalidRequest(f"value{path} {fault.reason}") from None
    raise errors.InvalidRequest(f"value {reason}")


_NOT_FINITE = "is not finite: JSON has no NaN and no infinities"
_TOO_DEEP = f"is nested deeper than {messages.DEPTH_MAX}"


def _find_fault(level: list[Any]) -> str | None:
    """Return what is wrong with one of the values, or None."""
    for depth in range(messages.DEPTH_MAX + 1):
        types = list(map(type, level))
        kinds = set(types)
        if float in kinds and not all(map(math.isfinite, compress(level, map(is_, types, repeat(float))))):
            return _NOT_FINITE
        kinds -= _SCALARS
        if not kinds:
            return None
        if kinds - {list, dict}:
            return _not_supported((kinds - {list, dict}).pop())
        if depth == messages.DEPTH_MAX:
            return _TOO_DEEP
        arrays = compress(level, map(is_, types, repeat(list)))
        maps = list(compress(level, map(is_, types, repeat(dict))))
        if maps and set(map(type, chain.from_iterable(maps))) - {str}:
            return "has a map key that is no string: map keys must be strings"
        level = list(chain(chain.from_iterable(arrays), chain.from_iterable(map(dict.values, maps))))
    return None


def _not_supported(kind: type) -> str:
    return f"has the MessagePack type {kind.__name__}, which is not supported"


class _Fault(Exception):
    """Carry what is wrong and, innermost first, the keys and positions that lead there."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[object] = []


def _look_for_fault(value: object, depth: int, looks: Iterator[int]) -> None:
    if type(value) in _SCALARS:
        if isinstance(value, float) and not math.isfinite(value):
            raise _Fault(_NOT_FINITE)
        return
    if not isinstance(value, (list, dict)):
        raise _Fault(_not_supported(type(value)))
    if depth >= messages.DEPTH_MAX:
        raise _Fault(_TOO_DEEP)
    for step, item in value.items() if isinstance(value, dict) else enumerate(value):
        if next(looks, None) is None:
            return
        if isinstance(value, dict) and not isinstance(step, str):
            raise _Fault(f"has the map key {_quote(step)}: map keys must be strings")
        try:
            _look_for_fault(item, depth + 1, looks)
        except _Fault as fault:
            fault.path.append(step)
            raise


def _quote(key: object) -> str:
    return repr(key[:50] + "..." if isinstance(key, str) and len(key) > 50 else key)[:200]


# ---- operations


def _check_increment(op: messages.Increment) -> None:
    if not math.isfinite(op.by):
        raise errors.InvalidRequest("by is not finite")


def _check_many(of: str) -> Callable[[Any], None]:
    def check(op: Any) -> None:
        if len(getattr(op, of)) > ROWS_MAX:
            raise errors.InvalidRequest(f"more than {ROWS_MAX} {of} in one operation: send several requests")

    return check


def _check_transaction(op: messages.Transaction) -> None:
    size = len(op.checks)
    for step in op.operations:
        many: Any = getattr(step, "rows", None) or getattr(step, "keys", ())
        size += max(1, len(many))
    if size > TRANSACTION_MAX:
        raise errors.InvalidRequest(f"a transaction of more than {TRANSACTION_MAX} checks and changes")
    _check_arguments(op.operations)


def _check_name(of: str) -> Callable[[Any], None]:
    def check(op: Any) -> None:
        if len(getattr(op, of) or "") > messages.KEY_CHARS_MAX:
            raise errors.InvalidRequest(f"{of} is longer than {messages.KEY_CHARS_MAX} code points")

    return check


def _check_page(op: Any) -> None:
    _check_prefix(op)
    _check_after(op)


_check_prefix, _check_after, _check_subkey = _check_name("prefix"), _check_name("after"), _check_name("subkey")

_CHECKS: dict[type[Operation], Callable[[Any], None]] = {
    messages.InsertMany: _check_many("rows"),
    messages.RemoveMany: _check_many("keys"),
    messages.LookupMany: _check_many("keys"),
    messages.Increment: _check_increment,
    messages.Transaction: _check_transaction,
    messages.Query: _check_subkey,
    messages.Keys: _check_page,
    messages.Items: _check_page,
    messages.Watch: _check_prefix,
    messages.WatchQuery: _check_subkey,
}
"""What is to be checked of an operation besides its values. Not in the types of `messages`, by which logs are read, too:
they may hold what was accepted before there was a limit."""

_VALUES: dict[type[Operation], Callable[[Any], Iterable[Raw]]] = {
    messages.Insert: lambda op: (op.value,),
    messages.SetDefault: lambda op: (op.value,),
    messages.InsertMany: lambda op: op.rows.values(),
    messages.CompareAndSet: lambda op: (*op.expected, *op.value),
    messages.Transaction: lambda op: (*(chain.from_iterable(map(_second, op.checks))), *_values_of(op.operations)),
    messages.Query: lambda op: (op.subvalue,),
    messages.WatchQuery: lambda op: (op.subvalue,),
}
"""The values of an operation."""


def _second(pair: tuple[str, list[Raw]]) -> list[Raw]:
    return pair[1]


def _values_of(ops: Iterable[Operation]) -> list[Raw]:
    values: list[Raw] = []
    for op in ops:
        of = _VALUES.get(type(op))
        if of is not None:
            values += of(op)
    return values


def _check_arguments(ops: Iterable[Operation]) -> None:
    for op in ops:
        check = _CHECKS.get(type(op))
        if check is not None:
            check(op)


def check_operations(ops: Iterable[Operation]) -> None:
    """Refuse operations of which a value, a number or a name is not one for the table.

    Raises:
        InvalidRequest: saying what is wrong, and of values that are not too large where
    """
    _check_arguments(ops)
    _check_values(_values_of(ops))
