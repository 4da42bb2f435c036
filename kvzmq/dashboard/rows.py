"""The table's rows for the page: a page of them by prefix, those of a query, one of them whole, and its history.

What a row was is known from two places. The server keeps its latest changes for watches, and tells what a key was set
to and at which revision, but not when nor by whom. The log on disk has that, as far back as the last compaction; it is
read where the dashboard was told the table's directory, on the same machine.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from kvzmq import errors
from kvzmq.dashboard.reader import Reader
from kvzmq.dashboard.shown import PREVIEW_CHARS_MAX, WHOLE_CHARS_MAX, kind_of, printable, text_of
from kvzmq.dashboard.turns import Turns
from kvzmq.store.offline.audit import AuditEntry, AuditFilter, entries
from kvzmq.store.offline.reading import Reading

PAGE_ROWS_MAX = 100
QUERY_ROWS_MAX = 500
"""How many rows are shown of a page by prefix, and of a query."""

CHANGES_MAX = 200
"""How many changes of a row are shown, the latest."""

_KEPT_SINCE = re.compile(r"kept since revision (\d+)")
LOOK_S_MAX = 5.0
"""How long the server's changes are looked through for those of a row."""

COSTLY_MAX = 2
"""How many queries and histories are asked for at a time: each may concern a large part of the table."""

COSTLY_WAITING_MAX = 16
"""How many more may wait for their turn."""

SESSION_DIGITS = 8
"""How much of a session is told: whoever knows all of it can ask for the replies that are kept for it."""

_PAUSE_S = 0.2


class Shown(msgspec.Struct):
    """A row for the page.

    key    as the page names it when it asks again
    name   the key as text
    kind   what the value is
    text   the value, or its beginning
    whole  whether that is all of it
    """

    key: str
    name: str
    kind: str
    text: str
    whole: bool


class Change(msgspec.Struct):
    """A change of a row.

    operation  what was asked for; from the log alone
    text       what it was set to, or the arguments; None if it was removed
    revision   the table's after it, as the server tells
    time_s     since 1970, session (its first digits, hexadecimal), seq, group: as the log tells
    """

    operation: str
    text: str | None
    whole: bool = True
    revision: int | None = None
    time_s: float | None = None
    session: str | None = None
    seq: int | None = None
    group: int | None = None


class History(msgspec.Struct):
    """The changes of a row, the latest first, and how far back they reach.

    source  where they are from: log or server
    since   how far back that goes, in words
    """

    source: str
    since: str
    changes: list[Change]
    more: bool = False


class Rows:
    """Reads a table for the page.

    Args:
        table: gives the client that is in use
        data: the table's directory, if it is on this machine and its log may be read
    """

    def __init__(self, table: Callable[[], Reader], data: Path | None = None) -> None:
        self._table = table
        self._data = data
        self._reads_log = asyncio.Lock()  # one at a time: a log may be long
        self._costly = Turns("queries and histories", COSTLY_MAX, COSTLY_WAITING_MAX)

    async def page(self, prefix: str, after: str | None) -> dict[str, Any]:
        """Return the rows below a prefix, from the key `after` on, and whether there are more."""
        found = await self._table().page(prefix, after, PAGE_ROWS_MAX + 1)
        return {"rows": [shown(*row) for row in found[:PAGE_ROWS_MAX]], "more": len(found) > PAGE_ROWS_MAX}

    async def query(self, subkey: str, subvalue: str) -> dict[str, Any]:
        """Return the rows whose value is a map in which `subkey` is `subvalue`: JSON, or else a text."""
        try:
            wanted = msgspec.json.decode(subvalue)
        except (msgspec.DecodeError, RecursionError):
            wanted = subvalue
        async with self._costly.one():
            found = await self._table().query(subkey, wanted)
        return {
            "rows": [shown(*row) for row in islice(found, QUERY_ROWS_MAX)],
            "more": False,
            "count": len(found),
        }

    async def whole(self, key: str) -> dict[str, Any]:
        """Return one row, as much of it as may be shown. Raises KeyError."""
        table = self._table()
        value = await table.lookup(key)
        return {"row": shown(key, value, WHOLE_CHARS_MAX, indent=True), "ttl_s": await self._ttl_s(key)}

    async def _ttl_s(self, key: str) -> float | None:
        try:
            return await self._table().ttl(key)
        except errors.NoSuchKey:  # it has expired meanwhile
            return None

    async def history(self, key: str) -> dict[str, list[History]]:
        """Return what is known of a row's changes by source: the log if it may be read, the server if it has more."""
        async with self._costly.one():
            told = await self._from_server(key)
        if self._data is None:
            return {"parts": [told]}
        async with self._reads_log:
            logged = await asyncio.to_thread(_from_log, self._data, key)
        return {"parts": [logged] if len(logged.changes) >= len(told.changes) else [logged, told]}

    async def _from_server(self, key: str) -> History:
        table = self._table()
        await table.ping()
        upto, since = table.revision, 0
        while True:
            try:
                changes, count = await self._watched(key, since, upto)
            except errors.RevisionGone as error:
                kept = _KEPT_SINCE.search(str(error))
                if kept is None or int(kept[1]) <= since:
                    raise
                since = int(kept[1])
            else:
                return History("server", f"after revision {since:,}", list(reversed(changes)), count > CHANGES_MAX)

    async def _watched(self, key: str, since: int, upto: int) -> tuple[Sequence[Change], int]:
        """Return the latest changes of a key between two revisions, and how many there were.

        The watch is of all keys that begin so: they are read one by one, and never kept.
        """
        changes: deque[Change] = deque(maxlen=CHANGES_MAX)
        count, caught_up, until_s = 0, False, time.monotonic() + LOOK_S_MAX
        watch = self._table().watch(key, from_revision=since)
        try:
            await watch.start(LOOK_S_MAX)
            while time.monotonic() < until_s:
                try:
                    event = await watch.get(0 if caught_up else _PAUSE_S)
                except errors.Timeout:
                    if caught_up:
                        break
                    await watch.progress(LOOK_S_MAX)
                    caught_up = True
                    continue
                if event.revision > upto:
                    break
                if event.key == key:
                    count += 1
                    text, whole = (None, True) if event.removed else text_of(event.value)
                    changes.append(Change("removed" if event.removed else "set", text, whole, event.revision))
        finally:
            await watch.close()
        return changes, count


def shown(key: str, value: Any, chars_max: int = PREVIEW_CHARS_MAX, indent: bool = False) -> Shown:
    """Return a row as the page shows it."""
    text, whole = text_of(value, chars_max, indent)
    return Shown(key, printable(key), kind_of(value), text, whole)


def _from_log(data: Path, key: str) -> History:
    """Read the changes of a key from the files of the table.

    Raises:
        OSError, KvzmqError: they cannot be read
    """
    latest: deque[AuditEntry] = deque(maxlen=CHANGES_MAX)
    count = 0
    gaps: list[str] = []
    with Reading(data) as reading:
        for entry in entries(reading, AuditFilter((key,)), gaps):
            latest.append(entry)
            count += 1
    since = "since the last compaction"
    if gaps:
        since += f"; {len(gaps)} places of the log cannot be read, `kvzmq check {data}` says more"
    return History("log", since, [_of_log(entry, key) for entry in reversed(latest)], count > CHANGES_MAX)


def _of_log(entry: AuditEntry, key: str) -> Change:
    text, whole = _what(entry, key)
    return Change(
        entry.operation,
        text,
        whole,
        time_s=entry.time_us / 1e6,
        session=None if entry.session is None else entry.session.hex()[:SESSION_DIGITS],
        seq=entry.seq,
        group=entry.group,
    )


def _what(entry: AuditEntry, key: str) -> tuple[str | None, bool]:
    """Return what an operation says of one of its keys: the value, None if it removes it, or else all arguments."""
    arguments = entry.arguments()
    match entry.operation:
        case "insert":
            return text_of(arguments[1])
        case "insert_many" if isinstance(arguments[0], dict) and key in arguments[0]:
            return text_of(arguments[0][key])
        case "remove" | "remove_many":
            return None, True
    return text_of(arguments)
