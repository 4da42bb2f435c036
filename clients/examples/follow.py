"""A copy of a part of the table that is always exact, whatever happens to the connection and the server.

    python follow.py --url tcp://127.0.0.1:5570 robots/

It begins to watch before it reads the rows, so that no change is missed in between. Rows are read a page
at a time, and while others write the pages are of different moments: then the copy is brought to one moment
by the changes that were told meanwhile, before anybody sees it. When the follower was away for so long that
the server no longer keeps the changes it has missed (RevisionGone), it begins again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import kvzmq

Rows = dict[str, Any]


def follow(table: kvzmq.Client, prefix: str = "") -> Iterator[tuple[int, Rows]]:
    """Yield the rows below `prefix` at a revision of the table: at first, and after each request that changes them.

    It is the same dict each time, kept up to date: look at it, and leave it as it is.
    """
    while True:
        try:
            with table.watch(prefix) as changes:  # first begin, then read
                revision, rows = read(table, prefix, changes)
                yield revision, rows
                for change in changes:
                    apply(change, rows)
                    if change.last:  # of a request: what is between its changes nobody else ever saw
                        yield change.revision, rows
        except kvzmq.RevisionGone:
            continue  # changes were missed


def read(table: kvzmq.Client, prefix: str, changes: kvzmq.Watch) -> tuple[int, Rows]:
    """Return the rows of one moment and its revision; `changes` has begun, and what it still tells comes after."""
    rows = dict(table.items(prefix))
    changes.progress()  # all that was changed until here has come
    while True:
        try:
            # It may be older than what was read in that row, but then what was read comes as well.
            apply(changes.get(timeout=0), rows)
        except kvzmq.Timeout:
            return changes.revision or 0, rows


def apply(change: kvzmq.Event, rows: Rows) -> None:
    """Do to the rows what was done to the table."""
    if change.removed:
        rows.pop(change.key, None)
    else:
        rows[change.key] = change.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="tcp://127.0.0.1:5570")
    parser.add_argument("--count", type=int, default=0, help="end after so many lines; 0 for never")
    parser.add_argument("prefix", nargs="?", default="")
    options = parser.parse_args()
    with kvzmq.connect(options.url, timeout=None) as table:
        for number, (revision, rows) in enumerate(follow(table, options.prefix), start=1):
            print(f"revision {revision}: {len(rows)} rows", flush=True)
            if number == options.count:
                return


if __name__ == "__main__":
    main()
