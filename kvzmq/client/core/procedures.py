"""What takes a client several calls, as procedures that both shells run. No I/O, no waiting.

A procedure is a generator: it yields a call, and is sent its value or thrown its error. What it returns is the result
of the client's method.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Mapping
from typing import Any, TypeVar

from kvzmq import errors
from kvzmq.client.core.call import Call
from kvzmq.client.core.calls import Calls

T = TypeVar("T")

Procedure = Generator[Call, Any, T]

BACKUP_POLL_S = 0.05
"""How often a client asks whether its backup can be read."""


def insert_many(calls: Calls, rows: Mapping[str, object] | Iterable[tuple[str, object]]) -> Procedure[None]:
    """Set many keys, in as few calls as carry them."""
    for call in calls.insert_many(rows):  # noqa: UP028, as the iterator of a list can be sent nothing
        yield call


def lookup_many(calls: Calls, keys: Iterable[str], kind: Any = Any) -> Procedure[dict[str, Any]]:
    """Return those of `keys` that are there, with their values."""
    found: dict[str, Any] = {}
    for call in calls.lookup_many(keys, kind):
        found |= yield call
    return found


def remove_many(calls: Calls, keys: Iterable[str]) -> Procedure[int]:
    """Remove those of `keys` that are there, and return how many were."""
    removed = 0
    for call in calls.remove_many(keys):
        removed += yield call
    return removed


def popitem(calls: Calls) -> Procedure[tuple[str, Any]]:
    """Remove the first row and return it.

    Raises:
        NoSuchKey: the table is empty
    """
    while page := (yield calls.keys(limit=1)):
        try:
            return page[0], (yield calls.pop(page[0]))
        except errors.NoSuchKey:
            continue  # somebody was faster
    raise errors.NoSuchKey("the table is empty")


def clear(calls: Calls) -> Procedure[None]:
    """Remove all rows, a page at a time."""
    while page := (yield calls.keys()):
        yield from remove_many(calls, page)


def all_clients(calls: Calls) -> Procedure[list[dict[str, Any]]]:
    """Return what the server knows of each client that is connected, by name."""
    found: list[dict[str, Any]] = []
    while page := (yield calls.clients(found[-1]["name"] if found else "")):
        found += page
    return found


class BackupReading:
    """One backup that is being made and read."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._name = os.urandom(16).hex()
        self._length: int | None = None
        self._offset = 0

    def begin(self) -> Procedure[bool]:
        """Have it made, and return whether it can be read; ask again every BACKUP_POLL_S until then."""
        self._length = yield self._calls.backup(self._name)
        return self._length is not None

    def next_piece(self) -> Procedure[bytes]:
        """Return the next piece, or b"" after the last.

        Raises:
            BackupFailed: the server's file ended before the backup did
        """
        call = self._calls.backup(self._name, self._offset)
        if self._offset == self._length:
            with contextlib.suppress(errors.KvzmqError):  # what is read is whole; the server lets it go in any case
                yield call
            return b""
        piece: bytes = yield call
        if not piece:
            raise errors.BackupFailed("the server's file ended before the backup did: begin again")
        self._offset += len(piece)
        return piece
