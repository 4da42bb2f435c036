"""The methods of the asyncio client that concern rows by their keys: one, many, and batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from typing import Any, TypeVar, overload

from kvzmq.client.asyncio.shell import AsyncShell
from kvzmq.client.core import procedures
from kvzmq.client.core.batch import Pipeline, Transaction
from kvzmq.client.core.calls import RAISE

T = TypeVar("T")


class AsyncRowMethods(AsyncShell):
    """Reads and writes rows by their keys."""

    async def insert(
        self, key: str, value: object, ttl_s: float | None = None, *, timeout: float | None = None
    ) -> None:
        """Set `key` to `value`, for `ttl_s` seconds if given, else for good. Raises ValueError."""
        await self._run(self._calls.insert(key, value, ttl_s), timeout)

    @overload
    async def lookup(self, key: str, *, timeout: float | None = None) -> Any: ...
    @overload
    async def lookup(self, key: str, type: type[T], *, timeout: float | None = None) -> T: ...
    async def lookup(self, key: str, type: Any = Any, *, timeout: float | None = None) -> Any:
        """Return the value of `key`, decoded into `type` if given. Raises KeyError, msgspec.ValidationError."""
        return await self._run(self._calls.lookup(key, type), timeout)

    async def get(self, key: str, default: Any = None, *, timeout: float | None = None) -> Any:
        """Return the value of `key`, or `default` if it is absent."""
        return await self._run(self._calls.get(key, default), timeout)

    async def contains(self, key: str, *, timeout: float | None = None) -> bool:
        """Say whether `key` is there."""
        return bool(await self._run(self._calls.contains(key), timeout))

    async def remove(self, key: str, *, timeout: float | None = None) -> None:
        """Remove `key`. Raises KeyError."""
        await self._run(self._calls.remove(key), timeout)

    async def pop(self, key: str, default: Any = RAISE, *, timeout: float | None = None) -> Any:
        """Remove `key` and return its value; `default` if it is absent, or KeyError without one."""
        return await self._run(self._calls.pop(key, default), timeout)

    async def setdefault(self, key: str, default: Any = None, *, timeout: float | None = None) -> Any:
        """Insert `default` if `key` is absent, and return the value it has then."""
        return await self._run(self._calls.setdefault(key, default), timeout)

    async def compare_and_set(
        self, key: str, expected: object, value: object, ttl_s: float | None = None, *, timeout: float | None = None
    ) -> bool:
        """Set `key` to `value`, for `ttl_s` seconds if given, if it holds `expected`, and say whether it did.

        Either may be ABSENT. Raises ValueError.
        """
        return bool(await self._run(self._calls.compare_and_set(key, expected, value, ttl_s), timeout))

    async def increment(self, key: str, by: float = 1, *, timeout: float | None = None) -> Any:
        """Add `by` to the number at `key`, 0 if absent, and return the new number. Raises TypeError."""
        return await self._run(self._calls.increment(key, by), timeout)

    async def expire(self, key: str, ttl_s: float | None, *, timeout: float | None = None) -> None:
        """Let `key` live `ttl_s` seconds from now, or for good if None. Raises KeyError."""
        await self._run(self._calls.expire(key, ttl_s), timeout)

    async def ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        """Return how many seconds `key` still lives, or None if for good. Raises KeyError."""
        left_s: float | None = await self._run(self._calls.ttl(key), timeout)
        return left_s

    # ---- many rows

    async def insert_many(
        self, rows: Mapping[str, object] | Iterable[tuple[str, object]], *, timeout: float | None = None
    ) -> None:
        """Set many keys. Up to 10,000 rows and 512 KiB are one change; more are several."""
        await self._perform(procedures.insert_many(self._calls, rows), timeout)

    @overload
    async def lookup_many(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]: ...
    @overload
    async def lookup_many(
        self, keys: Iterable[str], type: type[T], *, timeout: float | None = None
    ) -> dict[str, T]: ...
    async def lookup_many(
        self, keys: Iterable[str], type: Any = Any, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return those of `keys` that are there, with their values, decoded into `type` if given."""
        return await self._perform(procedures.lookup_many(self._calls, keys, type), timeout)

    async def remove_many(self, keys: Iterable[str], *, timeout: float | None = None) -> int:
        """Remove those of `keys` that are there, and return how many were."""
        return await self._perform(procedures.remove_many(self._calls, keys), timeout)

    @overload
    async def query(self, subkey: str, subvalue: object, *, timeout: float | None = None) -> list[tuple[str, Any]]: ...
    @overload
    async def query(
        self, subkey: str, subvalue: object, type: type[T], *, timeout: float | None = None
    ) -> list[tuple[str, T]]: ...
    async def query(
        self, subkey: str, subvalue: object, type: Any = Any, *, timeout: float | None = None
    ) -> list[tuple[str, Any]]:
        """Return the rows whose value is a map in which `subkey` equals `subvalue`, sorted by key."""
        found: list[tuple[str, Any]] = await self._run(self._calls.query(subkey, subvalue, type), timeout)
        return found

    async def size(self, *, timeout: float | None = None) -> int:
        """Return the number of rows in the whole table."""
        count: int = await self._run(self._calls.size(), timeout)
        return count

    @asynccontextmanager
    async def pipeline(self, *, timeout: float | None = None) -> AsyncIterator[Pipeline]:
        """Gather operations and send them together when the block ends; see Client.pipeline."""
        batch = Pipeline(self._calls)
        with closing(batch):
            yield batch
        await self._perform(batch.send(), timeout)

    @asynccontextmanager
    async def transaction(
        self, checks: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> AsyncIterator[Transaction]:
        """Gather operations and apply all of them, or nothing; see Client.transaction."""
        batch = Transaction(self._calls, checks or {})
        with closing(batch):
            yield batch
        await self._perform(batch.send(), timeout)
