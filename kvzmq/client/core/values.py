"""Values of Python to MessagePack and back, refusing what the table could not keep.

What JSON can say, and bytes, go in as they are. Other types go in as the nearest of those, and come out as
themselves when asked for by `type=`: dataclasses, msgspec Structs, pydantic models and mappings as maps; sets,
tuples and deques as lists; dates, times, UUIDs and Decimals as strings; members of an enumeration as their
values; numpy's scalars as numbers. No library is imported for that: types are known by what they can do.
"""

from __future__ import annotations

import datetime
import enum
import functools
import math
import numbers
import re
from collections import deque
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from kvzmq import errors
from kvzmq.protocol import encoding
from kvzmq.protocol.limits import KEY_CHARS_MAX

T = TypeVar("T")

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1

_GOOD_ONCE_ENCODED = frozenset((bytes, str, int, bool, type(None)))
"""The types whose values the encoder refuses where the table would."""


_ENCODED_AS: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes),
    (datetime.datetime, datetime.datetime.isoformat),
    (datetime.date, datetime.date.isoformat),
    (Mapping, dict),
    (deque, list),
)
"""By type, what the encoder is given instead: of some types it takes no subclass, and others it does not know."""

_ADVICE: tuple[tuple[str, str], ...] = (
    ("to_pydatetime", "store its to_pydatetime(), a datetime"),
    ("to_dict", "store its to_dict(), or its rows with insert_many"),
    ("tobytes", "store its tolist(), or its tobytes() beside its dtype and shape"),
    ("tolist", "store its tolist()"),
    ("__fspath__", "store it as a string, str(path)"),
    ("as_integer_ratio", "store it as a float, or as a string"),
    ("__anext__", "gather what it yields in a list, and store that"),
    ("__next__", "gather what it yields in a list, and store that"),
    ("__iter__", "store it as a list, list(...)"),
)
"""What to store instead of an object that is refused, by an attribute that its type has."""

_ADVICE_FOR_ANY = "store a dict, a dataclass, a msgspec Struct or a pydantic model of what it holds"


def _plain(value: Any) -> object:
    """Return what the encoder is to encode in place of an object it does not know.

    Raises:
        TypeError: it is of no supported type; the message names what to store instead
    """
    kind = type(value)
    dump = getattr(kind, "model_dump", None)  # of a pydantic model
    if dump is not None:
        return dump(value)
    if kind.__module__ == "numpy" and hasattr(kind, "item"):
        return _plain_scalar(value)
    if not hasattr(kind, "to_pydatetime"):  # a pandas Timestamp has nanoseconds, which a datetime would drop silently
        for base, convert in _ENCODED_AS:
            if isinstance(value, base):
                return convert(value)
    raise TypeError(_advice(kind))


def _plain_scalar(value: Any) -> object:
    """Return a number of numpy's as Python's. Arrays are refused: a list would come back, slowly."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    scalar = value.item() if getattr(value, "shape", None) == () else None
    if type(scalar) in (bool, int, float) and value.dtype.kind in "biuf":
        return scalar
    if value.dtype.kind in "mM":
        raise TypeError('store its astype("datetime64[us]").item() or astype("timedelta64[us]").item()')
    raise TypeError(_advice(type(value)))


def _advice(kind: type) -> str:
    """Return what to store instead of an object of this type."""
    return next((advice for attribute, advice in _ADVICE if hasattr(kind, attribute)), _ADVICE_FOR_ANY)


_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(enc_hook=_plain).encode

_BYTES = (bytes, bytearray, memoryview)


@functools.cache
def _validation() -> ModuleType:
    """Return the checks of values, which take 3 ms to import: a program that only looks up does not need them."""
    from kvzmq.protocol import validation

    return validation


def _encode_checked(value: object, check: Callable[[bytes], None]) -> bytes:
    """Encode what the table will take; a datetime with a time zone, an extension type to msgspec, as its ISO string."""
    data = _encode(value)
    try:
        check(data)
    except errors.InvalidRequest:
        data = _encode(msgspec.to_builtins(value, builtin_types=_BYTES, enc_hook=_plain))
        check(data)
    return data


_REFUSED = (errors.InvalidRequest, ValueError, OverflowError, RecursionError, TypeError)


def encode(value: object, name: str = "value") -> Raw:
    """Encode a value.

    Args:
        name: what to call it in an error

    Raises:
        ValueError: the table could not keep it; the message names the place, such as `value["a"][3]`
        TypeError: it holds an object of a type that is not supported; the message names what to store instead
    """
    try:
        if type(value) in _GOOD_ONCE_ENCODED:
            return Raw(_encode(value))
        return Raw(_encode_checked(value, _validation().check_value))
    except _REFUSED as error:
        _find_fault(value, name, ())
        raise errors.InvalidRequest(f"{name}: {error}") from None


def encode_rows(rows: Mapping[str, object]) -> Raw:
    """Encode a map of keys to values, all at once: half the cost of one by one.

    Raises:
        ValueError, TypeError: as `encode` does, naming the row
    """
    try:
        if _GOOD_ONCE_ENCODED.issuperset(map(type, rows.values())):
            return Raw(_encode(rows))
        return Raw(_encode_checked(rows, _validation().check_rows))
    except _REFUSED:
        for key in rows:
            check_text(key, "a key")
        return Raw(encoding.encode_value({key: encode(value, f"the value of {key!r}") for key, value in rows.items()}))


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
    elif len(parents) >= _validation().DEPTH_MAX:
        raise errors.InvalidRequest(f"{place} is nested deeper than {_validation().DEPTH_MAX}")
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
    import json  # for an error only

    return json.dumps(key if len(key) <= 50 else key[:50] + "...", ensure_ascii=False)


def _check_object(value: object, place: str, parents: tuple[int, ...]) -> None:
    inside = (*parents, id(value))
    parts = _parts(value)
    if parts is not None:
        return _find_fault(parts, place, inside)
    try:
        plain = msgspec.to_builtins(value, builtin_types=_BYTES, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{place} is {_article(type(value))}, which is not supported: {error}") from None
    if not isinstance(plain, type(value)):
        _find_fault(plain, place, inside)


def _parts(value: Any) -> object:
    """Return the outermost level of a composed object, so that an error can name the place within; None of a leaf."""
    import dataclasses  # for an error only

    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (set, frozenset, deque)):
        return list(value)
    if isinstance(value, enum.Enum):
        return value.value
    return _plain(value) if hasattr(type(value), "model_dump") else None


def _article(kind: type) -> str:
    module = kind.__module__
    name = kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


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
    return str.__str__(subkey)


def check_prefix(prefix: object) -> str:
    """Refuse what cannot be the beginning of a key.

    Raises:
        TypeError: it is no string
    """
    if not isinstance(prefix, str):
        raise TypeError(f"a prefix is a str, not {type(prefix).__name__}")
    return str.__str__(prefix)


def check_epoch(epoch: object) -> str | None:
    """Refuse what is no epoch of a table; None stands for one that is not known.

    Raises:
        TypeError: it is no string
        ValueError: it is not 32 hexadecimal digits
    """
    if epoch is None:
        return None
    if not isinstance(epoch, str):
        raise TypeError(f"epoch is {_article(type(epoch))}: it is a string, a watch's epoch or that of stats()")
    if re.fullmatch("[0-9a-f]{32}", epoch) is None:
        raise errors.InvalidRequest(f"epoch is {epoch[:50]!r}: it has 32 hexadecimal digits")
    return epoch


def check_revision(revision: object) -> int | None:
    """Return a revision to watch from, None for now.

    Raises:
        TypeError: it is no integer
        ValueError: it is below 0
    """
    if revision is None:
        return None
    if isinstance(revision, bool) or not isinstance(revision, numbers.Integral):
        raise TypeError(
            f"from_revision is {_article(type(revision))}: it is an integer, a watch's or an event's revision"
        )
    if revision < 0:
        raise errors.InvalidRequest(f"from_revision is {revision}: revisions begin at 0")
    return int(revision)


def check_number(value: Any, name: str, what: str = "not an integer or a float") -> Any:
    """Return a number, numpy's as Python's.

    Raises:
        TypeError: it is something else
    """
    if type(value) in (int, float):
        return value
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {_article(type(value))}, {what}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def decode(payload: Raw, type: Any = Any) -> Any:
    """Decode a value, into `type` if one is given.

    Raises:
        msgspec.ValidationError: it does not fit the type
    """
    if type is Any:
        return encoding.decode_value(payload)
    return msgspec.msgpack.decode(payload, type=type, dec_hook=_construct)


def decode_of(key: str, payload: Raw, kind: Any) -> Any:
    """Decode the value of `key` into a type.

    Raises:
        msgspec.ValidationError: it does not fit the type; the message names the key
    """
    try:
        return decode(payload, kind)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"the value of {key!r}: {error}") from None


def decode_rows(payload: Raw, kind: Any = Any) -> dict[str, Any]:
    """Decode a map of keys to values, these into a type if one is given.

    Raises:
        msgspec.ValidationError: as `decode_of` does
    """
    try:
        rows: dict[str, Any] = decode(payload, kind if kind is Any else dict[str, kind])
    except msgspec.ValidationError:
        return {key: decode_of(key, raw, kind) for key, raw in decode(payload, dict[str, Raw]).items()}
    return rows


def _construct(kind: Any, plain: Any) -> Any:
    """Make an object of a type that msgspec does not know: a pydantic model."""
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(plain)
    if isinstance(kind, type) and isinstance(plain, kind):
        return plain
    raise TypeError(
        f"cannot make {kind!r} of a {type(plain).__name__}: type= is a type that msgspec knows, or a pydantic model"
    )
