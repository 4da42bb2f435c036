"""The views of a blocking client: `keys()`, `items()` and `values()`, read a page at a time."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvzmq.client.blocking import Client

class _Pages:
    """Goes through the keys or rows below a prefix."""

    def __init__(self, table: Client, prefix: str, type: Any = Any) -> None:
        super().__init__(table)  # type: ignore[call-arg]  # of the view this is mixed into
        self._table = table
        self._calls = table._calls
        self._prefix = prefix
        self._type = type

    def _pages_of_keys(self) -> Iterator[list[str]]:
        after = None
        while page := self._table._run(self._calls.keys(self._prefix, after), None):
            yield page
            after = page[-1]

    def _pages_of_items(self) -> Iterator[list[tuple[str, Any]]]:
        after = None
        while page := self._table._run(self._calls.items(self._prefix, after, kind=self._type), None):
            yield page
            after = page[-1][0]

    def __len__(self) -> int:
        return sum(map(len, self._pages_of_keys()))

    def __repr__(self) -> str:
        below = f" below {self._prefix!r}" if self._prefix else ""
        return f"<{type(self).__name__.lower()}{below} of {self._table!r}>"


class Keys(_Pages, KeysView[str]):
    """The keys of a table, in order."""

    def __iter__(self) -> Iterator[str]:
        for page in self._pages_of_keys():
            yield from page

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.startswith(self._prefix) and key in self._table


class Items(_Pages, ItemsView[str, Any]):
    """The rows of a table, in the order of their keys."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for page in self._pages_of_items():
            yield from page

    def __contains__(self, item: object) -> bool:
        if not (isinstance(item, tuple) and len(item) == 2):
            return False
        key, value = item
        if not (isinstance(key, str) and key.startswith(self._prefix)):
            return False
        found = self._table._run(self._calls.lookup_many([key], self._type)[0], None)
        return key in found and bool(found[key] == value)


class Values(_Pages, ValuesView[Any]):
    """The values of a table, in the order of their keys."""

    def __iter__(self) -> Iterator[Any]:
        for page in self._pages_of_items():
            for _, value in page:
                yield value

    def __contains__(self, value: object) -> bool:
        return any(found == value for found in self)
