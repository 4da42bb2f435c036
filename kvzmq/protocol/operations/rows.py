"""Operations on rows by their keys: one row, or many. A transaction may hold most of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Union

from msgspec import Raw

from kvzmq import errors
from kvzmq.protocol.declaration import Access, Operation, Write, its_key, its_key_twice, its_keys
from kvzmq.protocol.operations.arguments import TTL, Key, Maybe, check_keys, check_many, its_value, many_keys


class Lookup(Operation, tag="lookup"):
    """Read `key`. Payload: its value. NoSuchKey if it is absent."""

    key: Key

    mark = "l"
    in_transactions = True
    accesses = its_key


class LookupMany(Operation, tag="lookup_many"):
    """Read `keys`. Payload: a map of those that are there."""

    keys: list[Key]

    mark = "m"
    in_transactions = True
    accesses = its_keys
    weight = many_keys
    check = check_keys


class Ttl(Operation, tag="ttl"):
    """Read the time to live of `key`. Payload: seconds left, or null for no limit. NoSuchKey."""

    key: Key

    mark = "t"
    accesses = its_key


class Insert(Write, tag="insert"):
    """Set `key` to `value`, for `ttl_s` seconds or for good. Payload: null."""

    key: Key
    value: Raw
    ttl_s: TTL | None = None

    mark = "I"
    in_transactions = True
    accesses = its_key
    values = its_value


class InsertMany(Write, tag="insert_many"):
    """Set each key of `rows` to its value. Payload: null."""

    rows: dict[Key, Raw]

    mark = "M"
    in_transactions = True

    def accesses(self) -> tuple[Access, ...]:
        return (Access(True, tuple(self.rows)),)

    def weight(self) -> int:
        return len(self.rows)

    def values(self) -> Iterable[Raw]:
        return self.rows.values()

    def check(self) -> None:
        check_many("rows", len(self.rows))


class Remove(Write, tag="remove"):
    """Remove `key`. Payload: null. NoSuchKey if it is absent."""

    key: Key

    mark = "R"
    in_transactions = True
    accesses = its_key


class RemoveMany(Write, tag="remove_many"):
    """Remove those of `keys` that are there. Payload: how many were."""

    keys: list[Key]

    mark = "X"
    in_transactions = True
    accesses = its_keys
    weight = many_keys
    check = check_keys


class CompareAndSet(Write, tag="compare_and_set"):
    """If `key` holds `expected`, or is absent as expected, set or remove it. Payload: whether that was done."""

    key: Key
    expected: Maybe
    value: Maybe

    mark = "C"
    accesses = its_key_twice

    def values(self) -> Iterable[Raw]:
        return (*self.expected, *self.value)


class SetDefault(Write, tag="setdefault"):
    """Insert `value` if `key` is absent. Payload: the value `key` has now."""

    key: Key
    value: Raw

    mark = "D"
    in_transactions = True
    accesses = its_key_twice
    values = its_value


class Increment(Write, tag="increment"):
    """Add `by` to the number at `key`, 0 if absent. Payload: the new number. WrongType if not a number."""

    key: Key
    by: Union[int, float] = 1

    mark = "+"
    in_transactions = True
    accesses = its_key_twice

    def check(self) -> None:
        if not math.isfinite(self.by):
            raise errors.InvalidRequest("by is not finite")


class Expire(Write, tag="expire"):
    """Set the time to live of `key`: `ttl_s` seconds from now, or no limit if null. Payload: null. NoSuchKey."""

    key: Key
    ttl_s: TTL | None = None

    mark = "E"
    in_transactions = True
    accesses = its_key
