"""Values of Python to MessagePack and back, refusing what the table could not keep.

What JSON can say, and bytes. Tuples come back as lists. Whatever msgspec encodes as such types is
taken too: dataclasses and msgspec Structs (as maps), enumerations, UUIDs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from kvzmq import checks, codec, errors
from kvzmq.messages import DEPTH_MAX, KEY_CHARS_MAX

T = TypeVar("T")

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1

_GOOD_ONCE_ENCODED = frozenset((bytes, str, int, bool, type(None)))
"""The types whose values the encoder refuses where the table would."""


def encode(value: object, name: str = "value") -> Raw:
    """Encode a value.

    Args:
        name: what to call it in an error

    Raises:
        ValueError: the table could not keep it; the message names the place, such as `value["a"][3]`
        TypeError: it holds an object of a type that is not supported
    """
    try:
        data = codec.encode_value(value)
        if type(value) not in _GOOD_ONCE_ENCODED:
            checks.check_value(data)
    except (errors.InvalidRequest, ValueError, OverflowError, RecursionError, TypeError) as error:
        _find_fault(value, name, ())
        raise errors.InvalidRequest(f"{name}: {error}") from None
    return Raw(data)


def encode_rows(rows: Mapping[str, object]) -> Raw:
    """Encode a map of keys to values, all at once: half the cost of one by one.

    Raises:
        ValueError, TypeError: as `encode` does, naming the row
    """
    try:
        data = codec.encode_value(rows)
        if not _GOOD_ONCE_ENCODED.issuperset(map(type, rows.values())):
            checks.check_rows(data)
    except (errors.InvalidRequest, ValueError, OverflowError, RecursionError, TypeError):
        for key in rows:
            check_text(key, "a key")
        return Raw(codec.encode_value({key: encode(value, f"the value of {key!r}") for key, value in rows.items()}))
    return Raw(data)


def _find_fault(value: object, place: str, parents: tuple[int, ...]) -> None:
    """Raise for the first thing in `value` that is not supported; return if none is found."""
    if value is None or isinstance(value, (bool, bytes)):
        return
    if isinstance(value, str):
        check_text(value, place)
    elif isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise errors.InvalidRequest(f"{place} is {value}: integers go from -2**63 to 2**64-1")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise errors.InvalidRequest(f"{place} is {value}: JSON has no NaN and no infinities")
    elif id(value) in parents:
        raise errors.InvalidRequest(f"{place} contains itself")
    elif len(parents) >= DEPTH_MAX:
        raise errors.InvalidRequest(f"{place} is nested deeper than {DEPTH_MAX}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise errors.InvalidRequest(f"{place} has the key {key!r}: the keys of a map must be strings")
            check_text(key, f"a key of {place}")
            _find_fault(item, f"{place}[{_quote(key)}]", (*parents, id(value)))
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            _find_fault(item, f"{place}[{position}]", (*parents, id(value)))
    else:
        _check_object(value, place, parents)


def _quote(key: str) -> str:
    return json.dumps(key if len(key) <= 50 else key[:50] + "...", ensure_ascii=False)


def _check_object(value: object, place: str, parents: tuple[int, ...]) -> None:
    try:
        plain = msgspec.to_builtins(value, builtin_types=(bytes,))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{place} is a {type(value).__name__}: {error}") from None
    if not isinstance(plain, type(value)):
        _find_fault(plain, place, (*parents, id(value)))


def check_text(text: str, place: str) -> None:
    """Refuse a string that is not Unicode.

    Raises:
        ValueError: it holds a lone surrogate
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise errors.InvalidRequest(f"{place} has a lone surrogate at {error.start}: not Unicode text") from None


def check_key(key: object, prefix: str = "") -> str:
    """Return `prefix + key`, and refuse what is not a key.

    Raises:
        TypeError: it is no string
        ValueError: it is too long
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    whole = prefix + key
    if len(whole) > KEY_CHARS_MAX:
        raise errors.InvalidRequest(f"a key has at most {KEY_CHARS_MAX} characters, not {len(whole)}")
    return whole


def check_keys(keys: list[Any], prefix: str = "") -> list[str]:
    """Return `prefix + key` for all keys, at a fifth of the cost of one by one.

    Raises:
        TypeError, ValueError: as `check_key` does
    """
    if {str}.issuperset(map(type, keys)) and max(map(len, keys), default=0) + len(prefix) <= KEY_CHARS_MAX:
        return [prefix + key for key in keys] if prefix else keys
    return [check_key(key, prefix) for key in keys]


def check_subkey(subkey: object) -> str:
    """Refuse what cannot be a key of a map.

    Raises:
        TypeError: it is no string
    """
    if not isinstance(subkey, str):
        raise TypeError(f"a subkey is a str, not {type(subkey).__name__}")
    return subkey


def decode(payload: Raw, type: Any = Any) -> Any:
    """Decode a value, into `type` if one is given.

    Raises:
        msgspec.ValidationError: it does not fit the type
    """
    if type is Any:
        return codec.decode_value(payload)
    return msgspec.msgpack.decode(payload, type=type)
