"""The methods of the asyncio client that go through the whole of a table, as those of a mapping do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar, overload

from kvzmq.client.asyncio.rows import AsyncRowMethods
from kvzmq.client.core import procedures

T = TypeVar("T")


class AsyncMappingMethods(AsyncRowMethods):
    """Goes through rows, a page at a time."""

    def __aiter__(self) -> AsyncIterator[str]:
        return self.keys()

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Go through the keys that begin with `prefix`, in order, a page at a time.

        Rows that others write meanwhile may or may not show; no row shows twice, none that stays is missed.
        """
        after = None
        while page := await self._run(self._calls.keys(prefix, after), None):
            for after in page:
                yield after

    @overload
    def items(self, prefix: str = "") -> AsyncIterator[tuple[str, Any]]: ...
    @overload
    def items(self, prefix: str = "", *, type: type[T]) -> AsyncIterator[tuple[str, T]]: ...
    async def items(self, prefix: str = "", *, type: Any = Any) -> AsyncIterator[tuple[str, Any]]:
        """Go through keys and values, as `keys` does, the values decoded into `type` if given."""
        after = None
        while page := await self._run(self._calls.items(prefix, after, kind=type), None):
            for after, value in page:
                yield after, value

    @overload
    def values(self, prefix: str = "") -> AsyncIterator[Any]: ...
    @overload
    def values(self, prefix: str = "", *, type: type[T]) -> AsyncIterator[T]: ...
    async def values(self, prefix: str = "", *, type: Any = Any) -> AsyncIterator[Any]:
        """Go through the values, as `keys` does, decoded into `type` if given."""
        async for _, value in self.items(prefix, type=type):
            yield value

    async def popitem(self) -> tuple[str, Any]:
        """Remove the first row and return it. Raises KeyError if there is none."""
        return await self._perform(procedures.popitem(self._calls))

    async def clear(self) -> None:
        """Remove all rows, a page at a time."""
        await self._perform(procedures.clear(self._calls))

    async def update(self, *others: Any, **rows: object) -> None:
        """Set many keys, from mappings, pairs and keywords, as one batch; see insert_many."""
        gathered: dict[str, object] = {}
        gathered.update(*others, **rows)
        await self.insert_many(gathered)
