"""Indexes: which rows have a subvalue under a subkey, and the keys in order.

Built at first use from the rows, kept up from then on, and never written down: they follow from
the rows. A query then costs its matches, not the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET
from sortedcontainers import SortedList

INDEXES_MAX = 16
"""How many subkeys are indexed; then the index unused for the longest time goes."""

_encode_sorted = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder().decode


def comparable(value: Any) -> Any:
    """Return a hashable stand-in that is equal for equal values of JSON.

    Numbers are equal by what they are worth, 1 and 1.0 alike; true is no number, although Python
    says so; the order of a map's entries does not matter.
    """
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, (list, dict)):
        return (type(value), _encode_sorted(_whole(value)))
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and -(2**63) <= value < 2**64:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value


def read_subkey(subkey: str) -> Callable[[bytes], Any]:
    """Return a function from a value's MessagePack to what it holds under `subkey`, or UNSET.

    A Struct of the one field lets the decoder skip all others, three times as fast as decoding them.
    """
    try:
        field = msgspec.defstruct("Field", [("field", Any, UNSET)], rename={"field": subkey}, gc=False)
    except ValueError:  # msgspec does not take every name for a field
        decode_map = _decode

        def read(value: bytes) -> Any:
            return decode_map(value).get(subkey, UNSET)
    else:
        decode_field: Callable[[bytes], Any] = msgspec.msgpack.Decoder(field).decode

        def read(value: bytes) -> Any:
            return decode_field(value).field

    def read_map(value: bytes) -> Any:
        first = value[0]
        is_map = 0x80 <= first <= 0x8F or first == 0xDE or first == 0xDF
        return read(value) if is_map else UNSET

    return read_map


class Index:
    """The keys of the rows whose value is a map, by what it holds under one subkey."""

    def __init__(self, subkey: str, rows: Mapping[str, bytes]) -> None:
        self._read = read_subkey(subkey)
        # One key stands for itself, several for a dict: most subvalues belong to one row.
        self._keys: dict[Any, str | dict[str, None]] = {}
        for key, value in rows.items():
            self._add(key, self._read(value))

    def subvalue(self, value: bytes) -> Any:
        """Return the comparable form of what `value` holds under the subkey, or UNSET."""
        return comparable(self._read(value))

    def update(self, key: str, before: bytes | None, after: bytes | None) -> None:
        """Follow a change of one row."""
        old = UNSET if before is None else self._read(before)
        new = UNSET if after is None else self._read(after)
        if old is not UNSET:
            self._discard(key, comparable(old))
        self._add(key, new)

    def _add(self, key: str, subvalue: Any) -> None:
        if subvalue is UNSET:
            return
        subvalue = comparable(subvalue)
        present = self._keys.setdefault(subvalue, key)
        if isinstance(present, dict):
            present[key] = None
        elif present != key:
            self._keys[subvalue] = {present: None, key: None}

    def _discard(self, key: str, subvalue: Any) -> None:
        present = self._keys[subvalue]
        if isinstance(present, dict):
            del present[key]
            if len(present) == 1:
                self._keys[subvalue] = next(iter(present))
        else:
            del self._keys[subvalue]

    def find(self, subvalue: Any) -> list[str]:
        """Return the keys with `subvalue`, sorted."""
        present = self._keys.get(comparable(subvalue), ())
        return [present] if isinstance(present, str) else sorted(present)


class Indexes:
    """The indexes over one table's rows."""

    def __init__(self, rows: Mapping[str, bytes]) -> None:
        self._rows = rows
        self._by_subkey: dict[str, Index] = {}
        self._sorted: SortedList[str] | None = None
        self.active = False
        """Whether there is anything to keep up."""

    def on(self, subkey: str) -> Index:
        """Return the index on `subkey`, built if need be."""
        index = self._by_subkey.pop(subkey, None) or Index(subkey, self._rows)
        self._by_subkey[subkey] = index
        if len(self._by_subkey) > INDEXES_MAX:
            del self._by_subkey[next(iter(self._by_subkey))]
        self.active = True
        return index

    def names(self) -> list[str]:
        """Return the indexed subkeys."""
        return list(self._by_subkey)

    def update(self, key: str, before: bytes | None, after: bytes | None) -> None:
        """Follow a change of one row."""
        for index in self._by_subkey.values():
            index.update(key, before, after)
        if self._sorted is not None:
            if before is None:
                self._sorted.add(key)
            elif after is None:
                self._sorted.remove(key)

    def keys(self, prefix: str, after: str | None) -> Iterator[str]:
        """Yield the keys that begin with `prefix` and sort after `after`, in code point order."""
        if self._sorted is None:
            self._sorted = SortedList(self._rows)
            self.active = True
        if after is None or after < prefix:
            found: Iterable[str] = self._sorted.irange(minimum=prefix)
        else:
            found = self._sorted.irange(minimum=after, inclusive=(False, True))
        for key in found:
            if not key.startswith(prefix):
                return
            yield key
