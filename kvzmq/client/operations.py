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


PAGE_ROWS = 1000
"""How many rows a client asks for at a time when it goes through the table."""


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


CHUNK_ROWS = 10_000
"""How many rows or keys one operation of insert_many, lookup_many or remove_many carries at most."""

CHUNK_BYTES = 1 << 20
"""How many bytes of rows one insert_many carries at most; a larger single row goes by itself."""


class Plans:
    """Builds what the methods of a client send, for keys below a prefix.

    Args:
        prefix: put before every key that goes out, and taken off every key that comes in
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def _key(self, key: object) -> str:
        return self.prefix + values.check_key(key)

    def _keys(self, keys: Iterable[str]) -> list[str]:
        if isinstance(keys, str):
            raise TypeError("keys is a string: give a list of keys")
        return [self._key(key) for key in keys]

    def _strip(self, key: str) -> str:
        return key[len(self.prefix) :]

    # ---- writes

    def insert(self, key: str, value: object, ttl_s: float | None = None) -> Plan:
        arguments = (self._key(key), values.encode(value))
        if ttl_s is None:
            return _plan("insert", *arguments, finish=_nothing)
        return _plan("insert", *arguments, _check_ttl(ttl_s), finish=_nothing)

    def remove(self, key: str) -> Plan:
        return _plan("remove", self._key(key), finish=_nothing)

    def insert_many(self, rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> list[Plan]:
        pairs = list(rows.items() if isinstance(rows, Mapping) else rows)
        chunks = [pairs[at : at + CHUNK_ROWS] for at in range(0, len(pairs), CHUNK_ROWS)] or [[]]
        return [plan for chunk in chunks for plan in self._insert_rows(chunk)]

    def _insert_rows(self, pairs: list[tuple[str, object]]) -> list[Plan]:
        rows = values.encode_rows({self._key(key): value for key, value in pairs})
        if len(rows) > CHUNK_BYTES and len(pairs) > 1:
            middle = len(pairs) // 2
            return self._insert_rows(pairs[:middle]) + self._insert_rows(pairs[middle:])
        return [_plan("insert_many", rows, finish=_nothing)]

    def remove_many(self, keys: Iterable[str]) -> list[Plan]:
        return [_plan("remove_many", chunk) for chunk in _chunks(self._keys(keys))]

    def compare_and_set(self, key: str, expected: object, value: object) -> Plan:
        return _plan("compare_and_set", self._key(key), _maybe(expected, "expected"), _maybe(value, "value"))

    def setdefault(self, key: str, value: object, kind: Any = Any) -> Plan:
        return _plan("setdefault", self._key(key), values.encode(value), finish=_typed(kind))

    def increment(self, key: str, by: float = 1) -> Plan:
        if isinstance(by, bool) or not isinstance(by, (int, float)):
            raise TypeError(f"by is a {type(by).__name__}, not a number")
        return _plan("increment", self._key(key), values.encode(by, "by"))

    def expire(self, key: str, ttl_s: float | None) -> Plan:
        return _plan("expire", self._key(key), _check_ttl(ttl_s), finish=_nothing)

    def transaction(self, checks: Mapping[str, object], steps: Sequence[Plan]) -> Plan:
        """Plan writes and lookups that happen all or not at all; `steps` are of this prefix already."""
        encoded = [(self._key(key), _maybe(expected, f"the check of {key!r}")) for key, expected in checks.items()]

        def finish(results: list[Result]) -> list[Any]:
            payloads = values.decode(payload_of(results[0]), list[Raw])
            return [step.finish([Result(errors.OK, payload)]) for step, payload in zip(steps, payloads)]

        return _plan("transaction", encoded, [op for step in steps for op in step.ops], finish=finish)

    def pop(self, key: str) -> Plan:
        """Plan a lookup and a removal with nothing in between."""
        plan = self.transaction({}, [self.lookup(key), self.remove(key)])
        return plan._replace(finish=lambda results: plan.finish(results)[0])

    # ---- reads

    def lookup(self, key: str, kind: Any = Any) -> Plan:
        return _plan("lookup", self._key(key), finish=_typed(kind))

    def lookup_many(self, keys: Iterable[str], kind: Any = Any) -> list[Plan]:
        def finish(results: list[Result]) -> dict[str, Any]:
            found = values.decode(payload_of(results[0]), Any if kind is Any else dict[str, kind])
            return {self._strip(key): value for key, value in found.items()}

        return [_plan("lookup_many", chunk, finish=finish) for chunk in _chunks(self._keys(keys))]

    def contains(self, key: str) -> Plan:
        """Plan a test for a key: `ttl` fails without it, and sends no value back."""

        def finish(results: list[Result]) -> bool:
            if results[0].code != errors.NoSuchKey.code:
                payload_of(results[0])
            return results[0].code == errors.OK

        return _plan("ttl", self._key(key), finish=finish)

    def ttl(self, key: str) -> Plan:
        return _plan("ttl", self._key(key))

    def size(self) -> Plan:
        """Plan a count of the whole table's rows, whatever the prefix."""
        return _plan("size")

    def query(self, subkey: str, subvalue: object) -> Plan:
        return _plan("query", subkey, values.encode(subvalue, "subvalue"), finish=self._pairs)

    def keys(self, prefix: str = "", after: str | None = None, limit: int = PAGE_ROWS) -> Plan:
        def finish(results: list[Result]) -> list[str]:
            return [self._strip(key) for key in _plain(results)]

        return _plan("keys", self.prefix + prefix, self._after(after), limit, finish=finish)

    def items(self, prefix: str = "", after: str | None = None, limit: int = PAGE_ROWS) -> Plan:
        return _plan("items", self.prefix + prefix, self._after(after), limit, finish=self._pairs)

    def _after(self, after: str | None) -> str | None:
        return None if after is None else self.prefix + after

    def _pairs(self, results: list[Result]) -> list[tuple[str, Any]]:
        return [(self._strip(key), value) for key, value in _plain(results) if key.startswith(self.prefix)]

    # ---- the server and the connection

    def ping(self) -> Plan:
        return _plan("ping", finish=_nothing)

    def stats(self) -> Plan:
        return _plan("stats")

    def watch(self, prefix: str, from_revision: int | None) -> Plan:
        return _plan("watch", self.prefix + prefix, from_revision)

    def watch_query(self, subkey: str, subvalue: object, from_revision: int | None) -> Plan:
        return _plan("watch_query", subkey, values.encode(subvalue, "subvalue"), from_revision)


def _chunks(keys: list[str]) -> list[list[str]]:
    return [keys[at : at + CHUNK_ROWS] for at in range(0, len(keys), CHUNK_ROWS)]
