"""What each method of a client sends and what it makes of the results: shared by both shells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from msgspec import Raw

from kvzmq import errors
from kvzmq.client.core import values
from kvzmq.client.core.call import Call, Result
from kvzmq.errors import OK
from kvzmq.protocol import limits
from kvzmq.protocol.encoding import decode_value, encode_value


class _Absent:
    """The type of ABSENT, which is its only instance."""

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


RAISE: Any = object()
"""Stands for "raise KeyError" where a default may be given."""

OPERATIONS_BYTES_MAX = limits.REQUEST_BYTES_LIMIT - 64
"""What the largest request that any server takes has room for besides its head; most take less."""

SLOW_REQUESTS = limits.SLOW_REQUESTS_MAX
"""How many slow requests a client asks for unless told otherwise: all that a server tells."""

PAGE_ROWS = 1000
"""How many rows a client asks for at a time when it goes through the table."""

_PAGE_CLIENTS = 200
"""How many clients of the server are asked for at a time."""

_NO_SUCH_KEY = errors.NoSuchKey.code

_REASONS = {
    _NO_SUCH_KEY: "no such key",
    errors.ResultTooLarge.code: "the results do not fit one reply: ask for less at a time",
}
"""What an error says for which the reply had no room."""


def _raise(result: Result) -> NoReturn:
    reason = decode_value(result.payload) or _REASONS.get(result.code, "the server gave no reason")
    raise errors.error_of(result.code, reason)


def payload_of(result: Result) -> Raw:
    """Return a result's payload.

    Raises:
        KvzmqError: the error the result stands for
    """
    if result.code != OK:
        _raise(result)
    return result.payload


def _plain(results: list[Result]) -> Any:
    result = results[0]
    if result.code != OK:
        _raise(result)
    return decode_value(result.payload)


def _nothing(results: list[Result]) -> None:
    if results[0].code != OK:
        _raise(results[0])


def _typed(kind: Any) -> Callable[[list[Result]], Any]:
    return _plain if kind is Any else lambda results: values.decode(payload_of(results[0]), kind)


WRITES = frozenset((
    "insert", "insert_many", "remove", "remove_many", "compare_and_set", "setdefault", "increment", "expire",
    "transaction",
))  # fmt: skip
"""The methods that write, as far as clients call them; as declared in `protocol`, which is not imported here."""


def _call(operation: tuple[Any, ...], finish: Callable[[list[Result]], Any] = _plain) -> Call:
    try:
        data = encode_value(operation)
    except UnicodeEncodeError as error:
        raise errors.InvalidRequest(f"{_short(error.object)} has a lone surrogate: not Unicode text") from None
    except OverflowError as error:
        raise errors.InvalidRequest(str(error)) from None
    size = len(data)
    if size > OPERATIONS_BYTES_MAX:
        raise errors.InvalidRequest(
            f"{size} bytes do not fit a request of {limits.REQUEST_BYTES_LIMIT}: send less at a time"
        )
    return Call([Raw(data)], operation[0] in WRITES, finish, size)


def _short(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 100 else shown[:100] + "..."


def _check_ttl(ttl_s: float | None) -> float | None:
    if ttl_s is None:
        return None
    if isinstance(ttl_s, timedelta):
        raise TypeError("ttl_s is a timedelta: give seconds, its total_seconds()")
    ttl_s = values.check_number(ttl_s, "ttl_s", "not a number of seconds, or None for good")
    if not 0 < ttl_s <= limits.TTL_S_MAX:
        raise errors.InvalidRequest(f"ttl_s is {ttl_s}: it must be above 0 and at most {limits.TTL_S_MAX:.0f} seconds")
    return ttl_s


def _maybe(value: Any, name: str) -> list[Raw]:
    """Encode a value or its absence as the wire has it: `[value]` or `[]`."""
    return [] if value is ABSENT else [values.encode(value, name)]


CHUNK_ROWS = 10_000
"""How many rows or keys one operation of insert_many, lookup_many or remove_many carries at most."""

CHUNK_BYTES = limits.REQUEST_BYTES_MAX // 2
"""How many bytes of rows one insert_many carries at most; a larger single row goes by itself."""


class Calls:
    """Builds what the methods of a client send, for keys below a prefix.

    Args:
        prefix: put before every key that goes out, and taken off every key that comes in
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def _key(self, key: object) -> str:
        return values.check_key(key, self.prefix)

    def _keys(self, keys: Iterable[str]) -> list[str]:
        if isinstance(keys, str):
            raise TypeError("keys is a string: give a list of keys")
        return values.check_keys(list(keys), self.prefix)

    def _below(self, prefix: str) -> str:
        return self.prefix + values.check_prefix(prefix)

    def _strip(self, key: str) -> str:
        return key[len(self.prefix) :]

    # ---- writes

    def insert(self, key: str, value: object, ttl_s: float | None = None) -> Call:
        key, encoded = values.check_key(key, self.prefix), values.encode(value)
        if ttl_s is None:
            return _call(("insert", key, encoded), _nothing)
        return _call(("insert", key, encoded, _check_ttl(ttl_s)), _nothing)

    def remove(self, key: str) -> Call:
        return _call(("remove", self._key(key)), _nothing)

    def insert_many(self, rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> list[Call]:
        # Gone through once: a mapping may change meanwhile, a pair may be an iterator.
        try:
            seen = rows.copy() if type(rows) is dict else dict(rows.items() if isinstance(rows, Mapping) else rows)
        except (TypeError, ValueError) as error:
            raise TypeError(f"rows is a mapping, or pairs of a key and a value: {error}") from None
        keys, contents = values.check_keys(list(seen), self.prefix), list(seen.values())
        chunks = range(0, len(keys), CHUNK_ROWS) or [0]
        return [
            call for at in chunks for call in _insert_rows(keys[at : at + CHUNK_ROWS], contents[at : at + CHUNK_ROWS])
        ]

    def remove_many(self, keys: Iterable[str]) -> list[Call]:
        return [_call(("remove_many", chunk)) for chunk in _chunks(self._keys(keys))]

    def write_rows(self, rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> Call:
        """Build insert_many as one, for a batch."""
        return together(self.insert_many(rows), lambda parts: None)

    def remove_keys(self, keys: Iterable[str]) -> Call:
        """Build remove_many as one, for a batch."""
        return together(self.remove_many(keys), sum)

    def lookup_keys(self, keys: Iterable[str], kind: Any = Any) -> Call:
        """Build lookup_many as one, for a batch."""
        return together(self.lookup_many(keys, kind), lambda parts: {k: v for part in parts for k, v in part.items()})

    def compare_and_set(self, key: str, expected: object, value: object, ttl_s: float | None = None) -> Call:
        key, wanted, new = self._key(key), _maybe(expected, "expected"), _maybe(value, "value")
        if ttl_s is None:
            return _call(("compare_and_set", key, wanted, new))
        if not new:
            raise errors.InvalidRequest("ttl_s goes with a value: kvzmq.ABSENT removes the key")

        def finish(results: list[Result]) -> bool:
            if results[0].code == errors.CheckFailed.code:
                return False
            payload_of(results[0])
            return True

        # The operation has no time to live. As a transaction it has one at every server, also of earlier versions.
        insert = ("insert", key, new[0], _check_ttl(ttl_s))
        return _call(("transaction", [(key, wanted)], [insert]), finish)

    def setdefault(self, key: str, value: object) -> Call:
        return _call(("setdefault", self._key(key), values.encode(value)))

    def increment(self, key: str, by: float = 1) -> Call:
        return _call(("increment", self._key(key), values.encode(values.check_number(by, "by"), "by")))

    def expire(self, key: str, ttl_s: float | None) -> Call:
        return _call(("expire", self._key(key), _check_ttl(ttl_s)), _nothing)

    def transaction(self, checks: Mapping[str, object], calls: Sequence[Call]) -> Call:
        """Build writes and lookups that happen all or not at all, from calls built here, for keys below this prefix."""
        if not isinstance(checks, Mapping):
            raise TypeError(
                f"checks is a {type(checks).__name__}: it is a mapping of keys to the values they must have, "
                "or kvzmq.ABSENT"
            )
        encoded = [(self._key(key), _maybe(expected, f"the check of {key!r}")) for key, expected in checks.items()]

        def finish(results: list[Result]) -> list[Any]:
            payloads = iter(values.decode(payload_of(results[0]), list[Raw]))
            return [call.finish([Result(OK, next(payloads)) for _ in call.ops]) for call in calls]

        return _call(("transaction", encoded, [op for call in calls for op in call.ops]), finish)

    def pop(self, key: str, default: Any = RAISE) -> Call:
        """Build a lookup and a removal with nothing in between, which give `default` if the key is absent."""
        call = self.transaction({}, [self.lookup(key), self.remove(key)])
        both = call.finish

        def finish(results: list[Result]) -> Any:
            if results[0].code == _NO_SUCH_KEY and default is not RAISE:
                return default
            return both(results)[0]

        call.finish = finish
        return call

    # ---- reads

    def lookup(self, key: str, kind: Any = Any) -> Call:
        return _call(("lookup", values.check_key(key, self.prefix)), _plain if kind is Any else _typed(kind))

    def get(self, key: str, default: Any) -> Call:
        """Build a lookup that gives `default` if the key is absent."""

        def finish(results: list[Result]) -> Any:
            return default if results[0].code == _NO_SUCH_KEY else _plain(results)

        return _call(("lookup", values.check_key(key, self.prefix)), finish)

    def lookup_many(self, keys: Iterable[str], kind: Any = Any) -> list[Call]:
        def finish(results: list[Result]) -> dict[str, Any]:
            found: dict[str, Any] = values.decode_rows(payload_of(results[0]), kind)
            return {self._strip(key): value for key, value in found.items()} if self.prefix else found

        return [_call(("lookup_many", chunk), finish) for chunk in _chunks(self._keys(keys))]

    def contains(self, key: str) -> Call:
        """Build a test for a key: `ttl` fails without it, and sends no value back."""

        def finish(results: list[Result]) -> bool:
            if results[0].code != _NO_SUCH_KEY:
                payload_of(results[0])
            return results[0].code == OK

        return _call(("ttl", self._key(key)), finish)

    def ttl(self, key: str) -> Call:
        return _call(("ttl", self._key(key)))

    def size(self) -> Call:
        """Build a count of the whole table's rows, whatever the prefix."""
        return _call(("size",))

    def query(self, subkey: str, subvalue: object, kind: Any = Any) -> Call:
        return _call(("query", values.check_subkey(subkey), values.encode(subvalue, "subvalue")), self._pairs(kind))

    def keys(self, prefix: str = "", after: str | None = None, limit: int = PAGE_ROWS) -> Call:
        def finish(results: list[Result]) -> list[str]:
            return [self._strip(key) for key in _plain(results)]

        return _call(("keys", self._below(prefix), self._after(after), limit), finish)

    def items(self, prefix: str = "", after: str | None = None, limit: int = PAGE_ROWS, kind: Any = Any) -> Call:
        return _call(("items", self._below(prefix), self._after(after), limit), self._pairs(kind))

    def _after(self, after: str | None) -> str | None:
        return None if after is None else self.prefix + after

    def _pairs(self, kind: Any) -> Callable[[list[Result]], list[tuple[str, Any]]]:
        def finish(results: list[Result]) -> list[tuple[str, Any]]:
            pairs: list[tuple[str, Raw]] = values.decode(payload_of(results[0]), list[tuple[str, Raw]])
            return [
                (self._strip(key), values.decode_of(key, raw, kind))
                for key, raw in pairs
                if key.startswith(self.prefix)
            ]

        def finish_plain(results: list[Result]) -> list[tuple[str, Any]]:
            return [(self._strip(key), value) for key, value in _plain(results) if key.startswith(self.prefix)]

        return finish_plain if kind is Any else finish

    # ---- the server and the connection

    def ping(self) -> Call:
        return _call(("ping",), _nothing)

    def stats(self) -> Call:
        """Build a question to the server, which it takes in no request that writes."""
        call = _call(("stats",))
        call.alone = True
        return call

    def backup(self, id: str, offset: int | None = None) -> Call:
        """Build the beginning of a backup, or the reading of a piece."""
        call = _call(("backup", id, offset))
        call.alone = True
        return call

    def clients(self, after: str) -> Call:
        call = _call(("clients", after, _PAGE_CLIENTS))
        call.alone = True
        return call

    def kick(self, name: str) -> Call:
        call = _call(("kick", name))
        call.alone = True
        return call

    def monitor(self, client: str, op: str, prefix: str, slower_than_s: float, sample: int) -> Call:
        """Build what begins a monitor; the records' keys are whole, whatever the prefix of this client."""
        slower_than_s = values.check_number(slower_than_s, "slower_than_s", "not a number of seconds")
        return _call(("monitor", client, op, self._below(prefix), slower_than_s, sample))

    def slow_requests(self, limit: int) -> Call:
        """Build the question for the slow log."""
        from kvzmq.protocol.monitoring import decode_requests  # whose decoders others need not wait for

        call = _call(("slow_requests", limit), lambda results: decode_requests(payload_of(results[0])))
        call.alone = True
        return call

    def watch(self, prefix: str, from_revision: int | None, epoch: str | None) -> Call:
        return _call(("watch", self._below(prefix), values.check_revision(from_revision), values.check_epoch(epoch)))

    def watch_query(self, subkey: str, subvalue: object, from_revision: int | None, epoch: str | None) -> Call:
        what = values.check_subkey(subkey), values.encode(subvalue, "subvalue")
        return _call(("watch_query", *what, values.check_revision(from_revision), values.check_epoch(epoch)))


def together(calls: Sequence[Call], combine: Callable[[list[Any]], Any]) -> Call:
    """Build several calls as one, whose value `combine` makes of theirs.

    Raises:
        ValueError: no request could carry them
    """
    if len(calls) == 1:
        return calls[0]

    def finish(results: list[Result]) -> Any:
        parts, at = [], 0
        for call in calls:
            parts.append(call.finish(results[at : at + len(call.ops)]))
            at += len(call.ops)
        return combine(parts)

    ops = [op for call in calls for op in call.ops]
    size = sum(call.size for call in calls)
    if size > OPERATIONS_BYTES_MAX or len(ops) > limits.OPERATIONS_MAX:
        raise errors.InvalidRequest(f"{len(ops)} operations of {size} bytes do not fit a request: send less at a time")
    return Call(ops, any(call.writes for call in calls), finish, size)


def _insert_rows(keys: list[str], contents: list[object]) -> list[Call]:
    rows = values.encode_rows(dict(zip(keys, contents, strict=True)))
    if len(rows) > CHUNK_BYTES and len(keys) > 1:
        middle = len(keys) // 2
        return _insert_rows(keys[:middle], contents[:middle]) + _insert_rows(keys[middle:], contents[middle:])
    return [_call(("insert_many", rows), _nothing)]


def _chunks(keys: list[str]) -> list[list[str]]:
    if len(keys) <= CHUNK_ROWS:
        return [keys]
    return [keys[at : at + CHUNK_ROWS] for at in range(0, len(keys), CHUNK_ROWS)]
