"""When two values are equal: by their decoded contents, not by their encoding.

Numbers are equal by value, 1 and 1.0 alike; true is not a number, although it is in Python; the order of a map's
entries does not matter. A value is processed level by level, each with a few calls into C, and never element by
element in Python: the sender of a value chooses how many elements it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import chain, compress, repeat
from operator import is_
from typing import Any

import msgspec

_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode

_SHORT = 64
"""How long a stand-in may be; a longer one is replaced by its digest."""

_DIGEST = b"\xc1"
"""The first byte of a digest; no MessagePack begins with it."""

_NODES: defaultdict[type, int] = defaultdict(int, {list: 1, dict: 2})
_node = _NODES.__getitem__

ENCODING_RATIO_MAX = 9
"""How many times as long as the shortest encoding of a value another one may be: 1 takes one byte, as a float nine."""


def comparable(value: Any) -> str | bytes:
    """Return a stand-in for a decoded value that is equal for equal values.

    It is text or bytes, whose hashes depend on a secret of the process; numbers can be chosen to collide.
    """
    kind = type(value)
    if kind is str:
        return value if len(value) <= _SHORT else _digest(_encode(value))
    if kind is list or kind is dict:
        return _fingerprint(value)
    data = _encode(_whole(value) if kind is float else value)
    return data if len(data) <= _SHORT else _digest(data)


def _digest(data: bytes) -> bytes:
    return _DIGEST + blake2b(data, digest_size=32).digest()


def _whole(number: float) -> int | float:
    return int(number) if number.is_integer() and -(2**63) <= number < 2**64 else number


def _fingerprint(value: Any) -> bytes:
    """Digest an array or a map, level by level: the kinds of the items, the scalars, the arrays' lengths, the keys."""
    digest = blake2b(digest_size=32)
    level: list[Any] = [value]
    while level:
        types = list(map(type, level))
        kinds = set(types)
        nodes = bytes(map(_node, types))
        scalars: list[Any] = []
        arrays: list[list[Any]] = []
        maps: list[dict[str, Any]] = []
        if kinds - {list, dict}:
            scalars = list(compress(level, map((0).__eq__, nodes)))
            if float in kinds:
                scalars = [_whole(item) if type(item) is float else item for item in scalars]
        if list in kinds:
            arrays = list(compress(level, map(is_, types, repeat(list))))
        if dict in kinds:
            maps = list(compress(level, map(is_, types, repeat(dict))))
        names = [sorted(item) if len(item) > 1 else list(item) for item in maps]
        digest.update(_encode((nodes, scalars, list(map(len, arrays)), names)))
        level = list(chain(chain.from_iterable(arrays), chain.from_iterable(map(_values, maps, names))))
    return _DIGEST + digest.digest()


def _values(item: dict[str, Any], names: Iterable[str]) -> Iterable[Any]:
    return map(item.__getitem__, names)


def are_equal(one: bytes, other: bytes) -> bool:
    """Say whether two values, as MessagePack, are equal."""
    if one == other:
        return True
    decoded, wanted = _decode(one), _decode(other)
    if decoded != wanted:  # Python's equality is the coarser one: for it 1 is true
        return False
    if not (_may_hold_booleans(one) or _may_hold_booleans(other)):
        return True
    return _same_booleans(decoded, wanted)


def _same_booleans(one: Any, other: Any) -> bool:
    """Say whether two values that Python takes for equal have booleans in the same places."""
    level, beside = [one], [other]
    while level:
        types, types_beside = list(map(type, level)), list(map(type, beside))
        if types != types_beside and list(map(is_, types, repeat(bool))) != list(map(is_, types_beside, repeat(bool))):
            return False
        kinds = set(types)
        arrays: list[list[list[Any]]] = [[], []]
        maps: list[list[dict[str, Any]]] = [[], []]
        if list in kinds:
            arrays = [list(compress(items, map(is_, types, repeat(list)))) for items in (level, beside)]
        if dict in kinds:
            maps = [list(compress(items, map(is_, types, repeat(dict)))) for items in (level, beside)]
        level, beside = (
            list(chain(chain.from_iterable(lists), chain.from_iterable(map(_values, dicts, maps[0]))))
            for lists, dicts in zip(arrays, maps)
        )
    return True


def _may_hold_booleans(data: bytes) -> bool:
    return b"\xc2" in data or b"\xc3" in data
