"""The methods of the blocking client that concern rows by their keys: one, many, and batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeVar, overload

from kvzmq.client.core import procedures
from kvzmq.client.core.batch import Pipeline, Transaction
from kvzmq.client.core.calls import RAISE
from kvzmq.client.sync.shell import Shell

T = TypeVar("T")


class RowMethods(Shell):
    """Reads and writes rows by their keys."""

    def insert(self, key: str, value: object, ttl_s: float | None = None, *, timeout: float | None = None) -> None:
        """Set `key` to `value`, for `ttl_s` seconds if given, else for good.

        Raises:
            ValueError: the table could not keep it; the message names the place
        """
        self._run(self._calls.insert(key, value, ttl_s), timeout)

    @overload
    def lookup(self, key: str, *, timeout: float | None = None) -> Any: ...
    @overload
    def lookup(self, key: str, type: type[T], *, timeout: float | None = None) -> T: ...
    def lookup(self, key: str, type: Any = Any, *, timeout: float | None = None) -> Any:
        """Return the value of `key`, decoded into `type` if one is given (a dataclass, a msgspec Struct ...).

        Raises:
            KeyError: it is absent
            msgspec.ValidationError: the value does not fit the type
        """
        return self._run(self._calls.lookup(key, type), timeout)

    def get(self, key: str, default: Any = None, *, timeout: float | None = None) -> Any:
        """Return the value of `key`, or `default` if it is absent."""
        return self._run(self._calls.get(key, default), timeout)

    def contains(self, key: str, *, timeout: float | None = None) -> bool:
        """Say whether `key` is there: `key in table`, with a timeout."""
        return bool(self._run(self._calls.contains(key), timeout))

    def remove(self, key: str, *, timeout: float | None = None) -> None:
        """Remove `key`.

        Raises:
            KeyError: it is absent
        """
        self._run(self._calls.remove(key), timeout)

    def pop(self, key: str, default: Any = RAISE, *, timeout: float | None = None) -> Any:
        """Remove `key` and return its value, with nothing in between; `default` if it is absent.

        Raises:
            KeyError: it is absent, and no default was given
        """
        return self._run(self._calls.pop(key, default), timeout)

    def setdefault(self, key: str, default: Any = None, *, timeout: float | None = None) -> Any:
        """Insert `default` if `key` is absent, and return the value it has then."""
        return self._run(self._calls.setdefault(key, default), timeout)

    def compare_and_set(
        self, key: str, expected: object, value: object, ttl_s: float | None = None, *, timeout: float | None = None
    ) -> bool:
        """Set `key` to `value` if it holds `expected`, for `ttl_s` seconds or for good, and say whether it did.

        Either may be ABSENT: to insert only what is not there, to remove only what is as expected.

        Raises:
            ValueError: the table could not keep it; or a time to live was given for ABSENT
        """
        return bool(self._run(self._calls.compare_and_set(key, expected, value, ttl_s), timeout))

    def increment(self, key: str, by: float = 1, *, timeout: float | None = None) -> Any:
        """Add `by` to the number at `key`, 0 if absent, and return the new number.

        Raises:
            TypeError: the value is no number, or would leave the range of numbers
        """
        return self._run(self._calls.increment(key, by), timeout)

    def expire(self, key: str, ttl_s: float | None, *, timeout: float | None = None) -> None:
        """Let `key` live `ttl_s` seconds from now, or for good if None.

        Raises:
            KeyError: it is absent
        """
        self._run(self._calls.expire(key, ttl_s), timeout)

    def ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        """Return how many seconds `key` still lives, or None if for good.

        Raises:
            KeyError: it is absent
        """
        left_s: float | None = self._run(self._calls.ttl(key), timeout)
        return left_s

    # ---- many rows

    def insert_many(
        self, rows: Mapping[str, object] | Iterable[tuple[str, object]], *, timeout: float | None = None
    ) -> None:
        """Set many keys. Up to 10,000 rows and 512 KiB are one change, all there or not at all; more are several."""
        self._perform(procedures.insert_many(self._calls, rows), timeout)

    @overload
    def lookup_many(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]: ...
    @overload
    def lookup_many(self, keys: Iterable[str], type: type[T], *, timeout: float | None = None) -> dict[str, T]: ...
    def lookup_many(self, keys: Iterable[str], type: Any = Any, *, timeout: float | None = None) -> dict[str, Any]:
        """Return those of `keys` that are there, with their values, decoded into `type` if given.

        Up to 10,000 keys are read at one moment, more in several steps.
        """
        return self._perform(procedures.lookup_many(self._calls, keys, type), timeout)

    def remove_many(self, keys: Iterable[str], *, timeout: float | None = None) -> int:
        """Remove those of `keys` that are there, and return how many were."""
        return self._perform(procedures.remove_many(self._calls, keys), timeout)

    @overload
    def query(self, subkey: str, subvalue: object, *, timeout: float | None = None) -> list[tuple[str, Any]]: ...
    @overload
    def query(
        self, subkey: str, subvalue: object, type: type[T], *, timeout: float | None = None
    ) -> list[tuple[str, T]]: ...
    def query(
        self, subkey: str, subvalue: object, type: Any = Any, *, timeout: float | None = None
    ) -> list[tuple[str, Any]]:
        """Return the rows whose value is a map in which `subkey` equals `subvalue`, sorted by key.

        The first query for a `subkey` builds an index; from then on a query costs its matches.

        Raises:
            ResultTooLarge: the rows do not fit one reply of 8 MiB
        """
        found: list[tuple[str, Any]] = self._run(self._calls.query(subkey, subvalue, type), timeout)
        return found

    def size(self, *, timeout: float | None = None) -> int:
        """Return the number of rows in the whole table."""
        count: int = self._run(self._calls.size(), timeout)
        return count

    @contextmanager
    def pipeline(self, *, timeout: float | None = None) -> Iterator[Pipeline]:
        """Gather operations and send them together when the block ends.

        with table.pipeline() as p:
            p.insert("a", 1)
            count = p.increment("n")
        count.result()
        """
        batch = Pipeline(self._calls)
        with closing(batch):
            yield batch
        self._perform(batch.send(), timeout)

    @contextmanager
    def transaction(
        self, checks: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> Iterator[Transaction]:
        """Gather operations and apply all of them, or nothing, when the block ends.

        Args:
            checks: the values keys must have, or ABSENT

        Raises:
            CheckFailed: a check did not hold
            KeyError, TypeError: an operation failed
        """
        batch = Transaction(self._calls, checks or {})
        with closing(batch):
            yield batch
        self._perform(batch.send(), timeout)
