"""Checks of values: every value that is accepted here can be read by every client.

Refused are values that JSON cannot represent (NaN, infinities, map keys that are not strings, extension types), and
nesting deeper than DEPTH_MAX. `bytes` are the one exception: MessagePack clients may store them, and the bridge shows
them as base64 strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, compress, repeat
from operator import is_
from typing import Annotated, Any, Union

import msgspec
from msgspec import Meta, Raw

from kvzmq import errors
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.operations import UNCHECKED, check_arguments, values_of

CONTAINERS_MAX = 131_072
CONTAINER_BYTES = 8
"""How many arrays and maps the values of a request may hold together: CONTAINERS_MAX, or one for CONTAINER_BYTES bytes
of them where that is more.

Each takes 0.2 us to make and to free whenever the value is decoded; a million of them, empty, fit 1 MiB.
"""

DEPTH_MAX = 64
"""The deepest nesting of a value: `[]` is 1 deep."""

_LOOKED_AT_MAX = 50_000
"""How many items, or values, are searched for the place of a fault, which takes 20 ms."""

_decode: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder().decode

_Finite = Annotated[float, Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]  # NaN fails both


def _nested(inner: Any) -> Any:
    return Union[None, bool, int, _Finite, str, list[inner], dict[str, inner]]


_Scalar = Union[None, bool, int, _Finite, str]
_Shallow: Any = _nested(_nested(_nested(_nested(_Scalar))))

# Most values are no deeper than four levels and hold no bytes: those are checked in C, about 150 ns each. The others
# are checked level by level, never item by item in Python: one request may hold a million items.
_check_shallow: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(_Shallow).decode
_check_shallow_rows: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(dict[str, _Shallow]).decode
_check_bytes_rows: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_check_shallow_list: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(list[_Shallow]).decode

# msgspec takes no union of str and bytes. So values that are bytes have a check of their own: the others refuse them
# with an exception, and then they are searched for a fault.
_BYTES_HEADS = frozenset((0xC4, 0xC5, 0xC6))
_LIST_HEAD_BYTES = 5
_check_bytes: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(bytes).decode
_check_bytes_list: Callable[[bytes | Raw], Any] = msgspec.msgpack.Decoder(list[bytes]).decode

_SCALARS = frozenset((type(None), bool, int, float, str, bytes))


def check_value(data: bytes | Raw) -> None:
    """Refuse MessagePack that is not a value of the table.

    Raises:
        InvalidRequest: it is malformed, too deep, holds too many arrays and maps, NaN, an extension type, or a map key
            that is no string
    """
    try:
        if memoryview(data)[0] in _BYTES_HEADS:
            _check_bytes(data)
        else:
            _check_count(data)
            _check_shallow(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError):
        _check_deep(data)


def check_rows(data: bytes | Raw) -> None:
    """Check a MessagePack map of keys to values with the fast checks alone.

    Raises:
        InvalidRequest: a value is wrong, or the fast checks cannot decide: check the values one by one
    """
    try:
        try:
            _check_shallow_rows(data)
        except msgspec.ValidationError:
            _check_bytes_rows(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InvalidRequest(str(error)) from None


def _check_values(values: list[Raw]) -> None:
    """Check many values together: those that the fast check cannot decide would take ten times as long singly."""
    if len(values) < 2:
        for value in values:
            check_value(value)
        return
    data = b"\xdd" + len(values).to_bytes(4, "big") + b"".join(values)
    _check_count(data)
    check = _check_bytes_list if data[_LIST_HEAD_BYTES] in _BYTES_HEADS else _check_shallow_list
    try:
        check(data)
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
    """Refuse values with too many arrays and maps; a string with a longer head than it needs counts as one, too."""
    size = len(memoryview(data))
    if size <= CONTAINERS_MAX:
        return
    most = max(CONTAINERS_MAX, size // CONTAINER_BYTES)
    data = bytes(data)
    if size - len(data.translate(None, _HEADS)) <= most:  # the bytes that may be heads; some may be parts of strings
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
        raise errors.InvalidRequest(f"value nested deeper than {DEPTH_MAX}") from None
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
_TOO_DEEP = f"is nested deeper than {DEPTH_MAX}"


def _find_fault(level: list[Any]) -> str | None:
    """Return what is wrong with one of the values, or None."""
    for depth in range(DEPTH_MAX + 1):
        types = list(map(type, level))
        kinds = set(types)
        if float in kinds and not all(map(math.isfinite, compress(level, map(is_, types, repeat(float))))):
            return _NOT_FINITE
        kinds -= _SCALARS
        if not kinds:
            return None
        if kinds - {list, dict}:
            return _not_supported((kinds - {list, dict}).pop())
        if depth == DEPTH_MAX:
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
    """What is wrong, and the path to it: the keys and positions, innermost first."""

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
    if depth >= DEPTH_MAX:
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


def check_operations(ops: Sequence[Operation]) -> None:
    """Refuse operations with an argument that no client may send.

    Raises:
        InvalidRequest: says what is wrong and, in values that are not too large, where
    """
    if len(ops) == 1 and type(ops[0]) in UNCHECKED:  # spares a lone lookup 0.2 us
        return
    check_arguments(ops)
    _check_values(values_of(ops))
