"""The views of a blocking client: `keys()`, `items()` and `values()`, read a page at a time; and copies by `dict`.

`dict(table)` asks a mapping for all its keys, and then for the value of each by itself: a message a row. It does so
within one instruction of the interpreter, whose caller cannot tell when, within it, a value was read. So the values
are read with the keys, in pages, and given out to that instruction alone; `table[key]` anywhere else asks the server.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvzmq.client.sync.mapping import MappingMethods


class Copy:
    """The rows that one instruction of one thread has read, such as the call of `dict` in `dict(table)`.

    Args:
        frame: where the instruction is being executed
    """

    __slots__ = ("_at", "_code", "_thread", "rows")

    def __init__(self, frame: FrameType) -> None:
        self._code = frame.f_code
        self._at = frame.f_lasti
        self._thread = threading.get_ident()
        self.rows: dict[str, Any] = {}
        """What has been read and not been given out."""

    def is_by(self, frame: FrameType) -> bool:
        """Say whether it is this instruction that is being executed there."""
        return frame.f_lasti == self._at and frame.f_code is self._code and threading.get_ident() == self._thread


class Copies:
    """The copies of a table that are being made, one a thread at most."""

    def __init__(self) -> None:
        self._of_thread: dict[int, Copy] = {}

    def __bool__(self) -> bool:
        return bool(self._of_thread)

    def begin(self, copy: Copy) -> None:
        """Keep what is read for a copy, until it is given out."""
        self._of_thread[threading.get_ident()] = copy

    def take(self, key: str, frame: FrameType) -> list[Any]:
        """Return the value of `key` in a list, if it was read by the instruction that asks for it; else []."""
        copy = self._of_thread.get(threading.get_ident())
        if copy is None:
            return []
        found = [copy.rows.pop(key)] if copy.is_by(frame) and key in copy.rows else []
        if not found or not copy.rows:
            del self._of_thread[threading.get_ident()]  # all given out, or the copy was given up
        return found


class _Pages:
    """Goes through the keys or rows below a prefix."""

    def __init__(self, table: MappingMethods, prefix: str, type: Any = Any) -> None:
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
    """The keys of a table, in order.

    Args:
        copy: of the instruction that has called `keys()`, where it may be about to copy the table
    """

    def __init__(self, table: MappingMethods, prefix: str, copy: Copy | None = None) -> None:
        super().__init__(table, prefix)
        self._copy = copy

    def __iter__(self) -> Iterator[str]:
        copy, self._copy = self._copy, None
        if copy is not None and copy.is_by(sys._getframe(1)):
            return self._keys_of_copy(copy)
        return self._keys()

    def _keys(self) -> Iterator[str]:
        for page in self._pages_of_keys():
            yield from page

    def _keys_of_copy(self, copy: Copy) -> Iterator[str]:
        for page in self._pages_of_items():
            copy.rows.update(page)
            yield from [key for key, _ in page]
        # Only now: `dict` takes all keys before it asks for the first value. What goes through the keys one by one and
        # asks for each value in between may have been told of a change meanwhile.
        if copy.rows:
            self._table._copies.begin(copy)

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
