"""What each method of a client sends and what it makes of the results: shared by both shells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from msgspec import Raw

from kvzmq import codec, errors, messages
from kvzmq.client import values
from kvzmq.client.session import Result


class _Absent:
    """Stand for "no such key" where a value is expected."""

    _only: _Absent | None = None

    def __new__(cls) -> _Absent:
        cls._only = cls._only or super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "kvzmq.ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT = _Absent()
"""Stands for "no such key" in compare_and_set and in the checks of a transaction."""


class Plan(NamedTuple):
    """Operations to send, whether they write, and what to make of their results."""

    ops: list[Raw]
    writes: bool
    finish: Callable[[list[Result]], Any]


def _raise(result: Result) -> NoReturn:
    raise errors.error_of(result.code, codec.decode_value(result.payload))


def payload_of(result: Result) -> Raw:
    """Return a result's payload.

    Raises:
        KvzmqError: the error the result stands for
    """
    if result.code != errors.OK:
        _raise(result)
    return result.payload


def _plain(results: list[Result]) -> Any:
    return codec.decode_value(payload_of(results[0]))


def _nothing(results: list[Result]) -> None:
    payload_of(results[0])


def _typed(kind: Any) -> Callable[[list[Result]], Any]:
    return _plain if kind is Any else lambda results: values.decode(payload_of(results[0]), kind)


def _plan(method: str, *arguments: Any, finish: Callable[[list[Result]], Any] = _plain) -> Plan:
    try:
        data = codec.encode_value((method, *arguments))
    except UnicodeEncodeError as error:
        raise errors.InvalidRequest(f"{error.object!r} has a lone surrogate: not Unicode text") from None
    except OverflowError as error:
        raise errors.InvalidRequest(str(error)) from None
    return Plan([Raw(data)], messages.OPERATIONS[method].writes, finish)


def _check_ttl(ttl_s: float | None) -> float | None:
    if ttl_s is not None and not 0 < ttl_s <= messages.TTL_S_MAX:
        raise errors.InvalidRequest(f"ttl_s is {ttl_s}: it must be above 0 and at most {messages.TTL_S_MAX:.0f} seconds")
    return ttl_s


def _maybe(value: Any, name: str) -> list[Raw]:
    return [] if value is ABSENT else [values.encode(value, name)]


def _keys(keys: Iterable[str]) -> list[str]:
    if isinstance(keys, str):
        raise TypeError("keys is a string: give a list of keys")
    return [values.check_key(key) for key in keys]


def insert(key: str, value: object, ttl_s: float | None = None) -> Plan:
    arguments = (values.check_key(key), values.encode(value))
    if ttl_s is None:
        return _plan("insert", *arguments, finish=_nothing)
    return _plan("insert", *arguments, _check_ttl(ttl_s), finish=_nothing)


def lookup(key: str, kind: Any = Any) -> Plan:
    return _plan("lookup", values.check_key(key), finish=_typed(kind))


def remove(key: str) -> Plan:
    return _plan("remove", values.check_key(key), finish=_nothing)


def insert_many(rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> list[Plan]:
    """Plan an insert of many rows: one operation for each chunk of REQUEST_BYTES."""
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    plans: list[Plan] = []
    chunk: dict[str, Raw] = {}
    size = 0
    for key, value in pairs:
        raw = values.encode(value, f"the value of {key!r}")
        size += len(raw) + len(values.check_key(key)) + 10
        if chunk and (size > CHUNK_BYTES or len(chunk) >= messages.OPERATIONS_MAX):
            plans.append(_plan("insert_many", chunk, finish=_nothing))
            chunk, size = {}, len(raw) + len(key)
        chunk[key] = raw
    if chunk or not plans:
        plans.append(_plan("insert_many", chunk, finish=_nothing))
    return plans


CHUNK_BYTES = 1 << 20
"""From this size on rows go in another operation of insert_many, and keys in another of lookup_many."""

CHUNK_KEYS = 10_000


def lookup_many(keys: Iterable[str], kind: Any = Any) -> list[Plan]:
    if kind is Any:
        finish = _plain
    else:

        def finish(results: list[Result]) -> Any:
            return values.decode(payload_of(results[0]), dict[str, kind])

    return [_plan("lookup_many", chunk, finish=finish) for chunk in _chunks(_keys(keys))]


def remove_many(keys: Iterable[str]) -> list[Plan]:
    return [_plan("remove_many", chunk) for chunk in _chunks(_keys(keys))]


def _chunks(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[at : at + CHUNK_KEYS] for at in range(0, len(keys), CHUNK_KEYS)]


def compare_and_set(key: str, expected: object, value: object) -> Plan:
    return _plan("compare_and_set", values.check_key(key), _maybe(expected, "expected"), _maybe(value, "value"))


def setdefault(key: str, value: object, kind: Any = Any) -> Plan:
    return _plan("setdefault", values.check_key(key), values.encode(value), finish=_typed(kind))


def increment(key: str, by: float = 1) -> Plan:
    if isinstance(by, bool) or not isinstance(by, (int, float)):
        raise TypeError(f"by is a {type(by).__name__}, not a number")
    return _plan("increment", values.check_key(key), values.encode(by, "by"))


def expire(key: str, ttl_s: float | None) -> Plan:
    return _plan("expire", values.check_key(key), _check_ttl(ttl_s), finish=_nothing)


def ttl(key: str) -> Plan:
    return _plan("ttl", values.check_key(key))


def contains(key: object) -> Plan | None:
    """Plan a test for a key: `ttl` fails without it and sends no value back. None for what cannot be a key."""
    if not isinstance(key, str) or len(key) > messages.KEY_CHARS_MAX:
        return None

    def finish(results: list[Result]) -> bool:
        if results[0].code == errors.NoSuchKey.code:
            return False
        payload_of(results[0])
        return True

    return _plan("ttl", key, finish=finish)


def size() -> Plan:
    return _plan("size")


def ping() -> Plan:
    return _plan("ping", finish=_nothing)


def stats() -> Plan:
    return _plan("stats")


def query(subkey: str, subvalue: object) -> Plan:
    return _plan("query", subkey, values.encode(subvalue, "subvalue"), finish=_pairs)


def keys(prefix: str, after: str | None, limit: int) -> Plan:
    return _plan("keys", prefix, after, limit)


def items(prefix: str, after: str | None, limit: int) -> Plan:
    return _plan("items", prefix, after, limit, finish=_pairs)


def _pairs(results: list[Result]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in _plain(results)]


def transaction(checks: Mapping[str, object], operations: Sequence[Plan]) -> Plan:
    """Plan several writes and lookups that happen all or not at all."""
    encoded = [(values.check_key(key), _maybe(expected, f"the check of {key!r}")) for key, expected in checks.items()]
    steps = [op for plan in operations for op in plan.ops]

    def finish(results: list[Result]) -> list[Any]:
        payloads = values.decode(payload_of(results[0]), list[Raw])
        return [plan.finish([Result(errors.OK, payload)]) for plan, payload in zip(operations, payloads)]

    return _plan("transaction", encoded, steps, finish=finish)
