"""Indexes: which rows have a subvalue under a subkey, and the keys in order.

They are built from the rows when they are first needed, and are not on the disk. With an index the cost of a query
depends on the number of its matches, not on the size of the table.

Building an index, and applying changes of rows to it, can take long; so both are done in slices, by `work`, between
steps. A change is recorded once for all indexes, and each index applies it later: at the latest when it is queried.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from random import Random
from typing import Any

import msgspec
from msgspec import UNSET
from sortedcontainers import SortedList

from kvzmq.store.equality import comparable

INDEXES_MAX = 16
"""How many subkeys are indexed; beyond that the index unused for the longest time is dropped."""

INDEX_BYTES_MAX = 512 << 20
"""How many bytes the indexes may take together, by estimate; beyond that the one unused for the longest time is
dropped. A single one may be larger."""

CHANGES_MAX = 1_000_000
CHANGES_BYTES_MAX = 64 << 20
"""How many changes, and how many bytes of them, are recorded for indexes that have yet to apply them; an index that is
further behind is dropped, and built again when it is needed."""

LAG_CHANGES_MAX = 1000
LAG_BYTES_MAX = 1 << 20
"""How far an index may be behind and still be queried at once: it catches up within a millisecond or two."""

_SLICE_ROWS = 256
_SLICE_BYTES = 1 << 20
"""How many rows, and how many bytes of them, are read before the clock is read again."""

_PART_KEYS = 4096
"""How many keys a part of the order has when it is built, more or less; sorting them takes 2 ms."""

_SAMPLES = 8
"""How many random keys are sampled for each part: keys chosen by a client must not all fall into one part."""

_TRIM = 4096
"""How many applied changes are kept before they are deleted together."""

_SUBVALUE_BYTES, _KEY_BYTES, _ORDER_BYTES = 200, 100, 12
"""How many bytes a subvalue, a further key with the same subvalue, and a key in order take, roughly."""

_decode = msgspec.msgpack.Decoder().decode


def read_subkey(subkey: str) -> Callable[[bytes], Any]:
    """Return a function from a value's MessagePack to what it holds under `subkey`, or UNSET.

    A Struct of the one field lets the decoder skip all others, three times as fast as decoding them.
    """
    try:
        field = msgspec.defstruct("Field", [("field", Any, UNSET)], rename={"field": subkey}, gc=False)
    except ValueError:  # msgspec does not accept every name for a field
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


class _Changes:
    """The changes that some index has yet to apply, as columns."""

    def __init__(self) -> None:
        self.first = 0
        """The number of the first change that is kept."""
        self.keys: list[str] = []
        self.befores: list[bytes | None] = []
        self.afters: list[bytes | None] = []
        self.bytes = 0

    @property
    def end(self) -> int:
        """The number that the next change will have."""
        return self.first + len(self.keys)

    def add(self, key: str, before: bytes | None, after: bytes | None) -> None:
        self.keys.append(key)
        self.befores.append(before)
        self.afters.append(after)
        self.bytes += len(key) + len(before or b"") + len(after or b"")

    def extend(self, keys: Sequence[str], befores: Sequence[bytes | None], afters: Sequence[bytes | None]) -> None:
        self.keys += keys
        self.befores += befores
        self.afters += afters
        self.bytes += sum(map(len, keys)) + sum(map(len, filter(None, befores))) + sum(map(len, filter(None, afters)))

    def trim(self, position: int) -> None:
        """Delete changes that all indexes have applied: those before number `position`."""
        if position == self.end:
            self.first = position
            self.keys, self.befores, self.afters, self.bytes = [], [], [], 0
        elif position - self.first >= _TRIM:
            applied = position - self.first
            self.bytes -= sum(map(len, self.keys[:applied]))
            for column in (self.befores, self.afters):
                self.bytes -= sum(map(len, filter(None, column[:applied])))
                del column[:applied]
            del self.keys[:applied]
            self.first = position


class _Follower:
    """Base class of indexes: built from the rows in slices, then kept up to date by applying their changes.

    Changes made while the index is built are applied as well. So it may meet the same row twice, once among the rows
    and once as a change: `follow` has to be idempotent.
    """

    def __init__(self, changes: _Changes) -> None:
        self._changes = changes
        self._building: Iterator[None] | None = None
        self.position = changes.end

    @property
    def lag(self) -> int:
        """How many changes it has yet to apply."""
        return self._changes.end - self.position

    @property
    def is_ready(self) -> bool:
        """Whether it is built and so little behind that it can be queried at once."""
        lag = self.lag
        return self._building is None and (not lag or (lag <= LAG_CHANGES_MAX and self._changes.bytes <= LAG_BYTES_MAX))

    def advance(self) -> bool:
        """Build the next slice, or apply the next changes; False when nothing is left to do."""
        if self._building is not None:
            if next(self._building, self) is self:
                self._building = None
            return True
        changes = self._changes
        begin = self.position - changes.first
        slice_bytes = 0
        for at in range(begin, min(begin + _SLICE_ROWS, len(changes.keys))):
            before, after = changes.befores[at], changes.afters[at]
            self.follow(changes.keys[at], before, after)
            self.position += 1
            slice_bytes += len(before or b"") + len(after or b"")
            if slice_bytes > _SLICE_BYTES:
                break
        return self.position < changes.end

    def finish(self) -> None:
        """Build all of it and apply all changes."""
        while self.advance():
            pass

    def follow(self, key: str, before: bytes | None, after: bytes | None) -> None:
        """Apply a change of one row."""
        raise NotImplementedError


class Index(_Follower):
    """An index on one subkey: the keys of the rows whose value is a map, by the subvalue it has under the subkey."""

    def __init__(self, subkey: str, rows: Mapping[str, bytes], changes: _Changes) -> None:
        super().__init__(changes)
        self._read = read_subkey(subkey)
        # A single key, or a dict of several: most subvalues belong to one row.
        self._keys: dict[str | bytes, str | dict[str, None]] = {}
        self._count = 0
        self._building = self._add_all(rows)

    @property
    def kept_bytes(self) -> int:
        """How many bytes it takes, roughly."""
        return _SUBVALUE_BYTES * len(self._keys) + _KEY_BYTES * (self._count - len(self._keys))

    def _add_all(self, rows: Mapping[str, bytes]) -> Iterator[None]:
        keys = iter(list(rows))  # at once, 10 ms for a million: a dict that changes cannot be gone through in slices
        while some := list(islice(keys, _SLICE_ROWS)):
            values = list(map(rows.get, some))  # in C, where the processor fetches the next one meanwhile
            if sum(map(len, filter(None, values))) <= _SLICE_BYTES:
                self._add_rows(some, values)
            else:
                for key in some:
                    self._add_rows([key], [rows.get(key)])
                    yield
            yield

    def _add_rows(self, keys: list[str], values: list[bytes | None]) -> None:
        for key, value in zip(keys, values):
            if value is not None and (subvalue := self._read(value)) is not UNSET:
                self._add(key, comparable(subvalue))

    def follow(self, key: str, before: bytes | None, after: bytes | None) -> None:
        old = UNSET if before is None else self._read(before)
        new = UNSET if after is None else self._read(after)
        if old is not UNSET:
            self._discard(key, comparable(old))
        if new is not UNSET:
            self._add(key, comparable(new))

    def _add(self, key: str, subvalue: str | bytes) -> None:
        present = self._keys.get(subvalue)
        if present is None:
            self._keys[subvalue] = key
            self._count += 1
        elif isinstance(present, dict):
            self._count += key not in present
            present[key] = None
        elif present != key:
            self._keys[subvalue] = {present: None, key: None}
            self._count += 1

    def _discard(self, key: str, subvalue: str | bytes) -> None:
        present = self._keys.get(subvalue)
        if isinstance(present, dict):
            if key in present:
                del present[key]
                self._count -= 1
                if len(present) == 1:
                    self._keys[subvalue] = next(iter(present))
        elif present == key:
            del self._keys[subvalue]
            self._count -= 1

    def count(self, subvalue: Any) -> int:
        """Return how many keys have `subvalue`."""
        present = self._keys.get(comparable(subvalue), ())
        return 1 if isinstance(present, str) else len(present)

    def find(self, subvalue: Any) -> list[str]:
        """Return the keys with `subvalue`, sorted."""
        present = self._keys.get(comparable(subvalue), ())
        return [present] if isinstance(present, str) else sorted(present)


class _Order(_Follower):
    """The keys in code point order, in parts that are sorted one by one."""

    def __init__(self, rows: Mapping[str, bytes], changes: _Changes) -> None:
        super().__init__(changes)
        self._first: list[str] = []  # of every part but the first
        self._parts: list[SortedList[str]] = [SortedList()]
        self._count = 0
        self._building = self._sort(rows)

    @property
    def kept_bytes(self) -> int:
        """How many bytes it takes, roughly."""
        return _ORDER_BYTES * self._count

    def _sort(self, rows: Mapping[str, bytes]) -> Iterator[None]:
        keys = list(rows)
        self._count = len(keys)
        parts = len(keys) // _PART_KEYS
        samples = sorted(Random().choices(keys, k=parts * _SAMPLES)) if parts else []
        self._first = samples[_SAMPLES::_SAMPLES]
        lists: list[list[str]] = [[] for _ in range(len(self._first) + 1)]
        for begin in range(0, len(keys), _SLICE_ROWS):
            for key in keys[begin : begin + _SLICE_ROWS]:
                lists[bisect_right(self._first, key)].append(key)
            yield
        self._parts = []
        for part in lists:
            self._parts.append(SortedList(part))
            yield

    def follow(self, key: str, before: bytes | None, after: bytes | None) -> None:
        if (before is None) is (after is None):
            return
        part = self._parts[bisect_right(self._first, key)]
        if after is None:
            part.remove(key)
            self._count -= 1
        else:
            part.add(key)
            self._count += 1

    def since(self, minimum: str, including: bool) -> Iterator[str]:
        """Yield the keys from `minimum` on, or those after it."""
        at = bisect_right(self._first, minimum)
        within = self._parts[at].irange(minimum=minimum, inclusive=(including, True))
        return chain(within, chain.from_iterable(islice(self._parts, at + 1, None)))


class Indexes:
    """The indexes over one table's rows."""

    def __init__(self, rows: Mapping[str, bytes]) -> None:
        self._rows = rows
        self._changes = _Changes()
        self._by_subkey: dict[str, Index] = {}  # the one used last at the end
        self._order: _Order | None = None
        self._wanted: frozenset[str] = frozenset()
        self.active = False
        """Whether there is an index, which has to apply changes."""

    # ---- changes of rows

    def add(self, key: str, before: bytes | None, after: bytes | None) -> None:
        """Record a change of one row."""
        changes = self._changes
        changes.add(key, before, after)
        if changes.bytes > CHANGES_BYTES_MAX or len(changes.keys) > CHANGES_MAX:
            self._drop_those_behind()

    def extend(self, keys: Sequence[str], befores: Sequence[bytes | None], afters: Sequence[bytes | None]) -> None:
        """Record changes of rows, given as columns."""
        self._changes.extend(keys, befores, afters)
        if self._changes.bytes > CHANGES_BYTES_MAX or len(self._changes.keys) > CHANGES_MAX:
            self._drop_those_behind()

    def _drop_those_behind(self) -> None:
        """Drop the indexes furthest behind, until the recorded changes fit: they are built again when needed."""
        changes = self._changes
        while self.active and (changes.bytes > CHANGES_BYTES_MAX or len(changes.keys) > CHANGES_MAX):
            position = min(follower.position for follower in self._followers())
            for subkey in [subkey for subkey, index in self._by_subkey.items() if index.position == position]:
                del self._by_subkey[subkey]
            if self._order is not None and self._order.position == position:
                self._order = None
            self._trim()

    def _followers(self) -> list[_Follower]:
        followers: list[_Follower] = [] if self._order is None else [self._order]
        followers += [index for subkey, index in self._by_subkey.items() if subkey in self._wanted]
        followers += [index for subkey, index in self._by_subkey.items() if subkey not in self._wanted]
        return followers

    def _trim(self) -> None:
        followers = self._followers()
        self.active = bool(followers)
        self._changes.trim(min([follower.position for follower in followers], default=self._changes.end))

    # ---- queries

    def on(self, subkey: str) -> Index:
        """Return the index on `subkey`, built and up to date."""
        index = self._by_subkey.get(subkey) or self._begin(subkey)
        self._by_subkey[subkey] = self._by_subkey.pop(subkey)
        index.finish()
        self._evict(frozenset((subkey,)))
        return index

    def keys(self, prefix: str, after: str | None) -> Iterator[str]:
        """Yield the keys that begin with `prefix` and sort after `after`, in code point order."""
        order = self._order or self._begin_order()
        order.finish()
        found = order.since(prefix, True) if after is None or after < prefix else order.since(after, False)
        for key in found:
            if not key.startswith(prefix):
                return
            yield key

    def names(self) -> list[str]:
        """Return the indexed subkeys."""
        return list(self._by_subkey)

    @property
    def kept_bytes(self) -> int:
        """How many bytes the indexes take, roughly."""
        order = 0 if self._order is None else self._order.kept_bytes
        return order + self._subkey_bytes() + self._changes.bytes

    def _subkey_bytes(self) -> int:
        return sum(index.kept_bytes for index in self._by_subkey.values())

    # ---- in slices

    def are_ready(self, subkeys: Iterable[str], order: bool) -> bool:
        """Say whether the indexes on `subkeys`, and the order of the keys if wanted, can be queried at once."""
        if order and (self._order is None or not self._order.is_ready):
            return False
        for subkey in subkeys:
            index = self._by_subkey.get(subkey)
            if index is None or not index.is_ready:
                return False
        return True

    def fit(self, subkeys: frozenset[str]) -> bool:
        """Say whether the indexes on `subkeys` may be kept together, as far as they are built."""
        present = [index.kept_bytes for subkey in subkeys if (index := self._by_subkey.get(subkey)) is not None]
        return len(subkeys) == 1 or sum(present) <= INDEX_BYTES_MAX

    def want(self, subkeys: frozenset[str], order: bool) -> None:
        """Set which indexes `work` builds first; they are not dropped before others are wanted."""
        self._wanted = subkeys
        for subkey in subkeys:
            if subkey not in self._by_subkey:
                self._begin(subkey)
            self._by_subkey[subkey] = self._by_subkey.pop(subkey)
        if order and self._order is None:
            self._begin_order()

    def work(self, until_s: float, clock: Callable[[], float] = time.monotonic) -> bool:
        """Build indexes and apply changes until `until_s` on `clock`; False when nothing is left to do."""
        if not self.active:
            return False
        left = False
        for follower in self._followers():
            while follower.advance():
                if clock() >= until_s:
                    left = True
                    break
            if left:
                break
        self._evict(self._wanted)
        self._trim()
        return left

    def _begin(self, subkey: str) -> Index:
        self._by_subkey[subkey] = index = Index(subkey, self._rows, self._changes)
        self.active = True
        self._evict(self._wanted | {subkey})
        return index

    def _begin_order(self) -> _Order:
        self._order = _Order(self._rows, self._changes)
        self.active = True
        return self._order

    def _evict(self, kept: frozenset[str]) -> None:
        """Drop indexes beyond the limits, those first that were unused for the longest time, and none of `kept`."""
        if len(self._by_subkey) <= INDEXES_MAX and self._subkey_bytes() <= INDEX_BYTES_MAX:
            return
        for subkey in [subkey for subkey in self._by_subkey if subkey not in kept]:
            del self._by_subkey[subkey]
            if len(self._by_subkey) <= INDEXES_MAX and self._subkey_bytes() <= INDEX_BYTES_MAX:
                break
        self._trim()
