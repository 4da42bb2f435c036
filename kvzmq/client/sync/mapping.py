"""The blocking client as a mapping: `table[key]`, and going through the whole of a table."""

from __future__ import annotations

import sys
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any, TypeVar, overload

from kvzmq.client.core import procedures
from kvzmq.client.sync.connection import Connection
from kvzmq.client.sync.rows import RowMethods
from kvzmq.client.sync.views import Copies, Copy, Items, Keys, Values

T = TypeVar("T")
Self = TypeVar("Self", bound="MappingMethods")


class MappingMethods(RowMethods, MutableMapping[str, Any]):
    """Has the whole of a mapping."""

    def __init__(self, connection: Connection, prefix: str = "", *, owner: bool = True) -> None:
        super().__init__(connection, prefix, owner=owner)
        self._copies = Copies()

    def __getitem__(self, key: str) -> Any:
        if self._copies and (found := self._copies.take(key, sys._getframe(1))):
            return found[0]
        return self.lookup(key)

    def __setitem__(self, key: str, value: object) -> None:
        self.insert(key, value)

    def __delitem__(self, key: str) -> None:
        self.remove(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.contains(key)

    def __len__(self) -> int:
        return len(self.keys()) if self._calls.prefix else self.size()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self, prefix: str = "") -> KeysView[str]:
        """Return a view of the keys that begin with `prefix`, in order, read a page at a time.

        Rows that others write meanwhile may or may not show; no row shows twice, none that stays is missed.
        """
        return Keys(self, prefix, None if prefix else Copy(sys._getframe(1)))

    @overload
    def items(self, prefix: str = "") -> ItemsView[str, Any]: ...
    @overload
    def items(self, prefix: str = "", *, type: type[T]) -> ItemsView[str, T]: ...
    def items(self, prefix: str = "", *, type: Any = Any) -> ItemsView[str, Any]:
        """Return a view of keys and values, as `keys` does; the values decoded into `type` if given.

        `dict(table.items())` reads the table in few messages, and so do `dict(table)` and `{**table}`.
        """
        return Items(self, prefix, type)

    @overload
    def values(self, prefix: str = "") -> ValuesView[Any]: ...
    @overload
    def values(self, prefix: str = "", *, type: type[T]) -> ValuesView[T]: ...
    def values(self, prefix: str = "", *, type: Any = Any) -> ValuesView[Any]:
        """Return a view of the values, as `keys` does, decoded into `type` if given."""
        return Values(self, prefix, type)

    def popitem(self) -> tuple[str, Any]:
        """Remove the first row and return it.

        Raises:
            KeyError: the table is empty
        """
        return self._perform(procedures.popitem(self._calls))

    def clear(self) -> None:
        """Remove all rows, a page at a time."""
        self._perform(procedures.clear(self._calls))

    def update(self, *others: Any, **rows: object) -> None:
        """Set many keys, from mappings, pairs and keywords, as one batch; see insert_many."""
        gathered: dict[str, object] = {}
        gathered.update(*others, **rows)
        self.insert_many(gathered)

    def __ior__(self: Self, other: Mapping[str, object] | Iterable[tuple[str, object]]) -> Self:
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MappingMethods):
            return self is other  # clients are hashable: to compare two tables, compare their items
        return dict(self.items()) == dict(other.items()) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return id(self)
