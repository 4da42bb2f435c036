"""The latest changes, for those who watch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from kvzmq import errors
from kvzmq.messages import Change

CHANGES_MAX = 65_536
"""How many changes are kept."""

BYTES_MAX = 32 << 20
"""How many bytes of values they may hold."""


class History:
    """A ring of changes with consecutive revisions, the last of which is `revision`."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self._changes: deque[Change] = deque()
        self._bytes = 0

    @property
    def first(self) -> int:
        """The revision after which every change is kept."""
        return self.revision - len(self._changes)

    def add(self, key: str, before: bytes | None, after: bytes | None) -> None:
        """Add the change that makes the next revision."""
        self.revision += 1
        changes = self._changes
        changes.append((key, before, after))
        if before:
            self._bytes += len(before)
        if after:
            self._bytes += len(after)
        if len(changes) > CHANGES_MAX or self._bytes > BYTES_MAX:
            self._trim()

    def extend(self, changes: Sequence[Change]) -> None:
        """Add the changes that make the next revisions, in order: a third of the cost of one by one."""
        self.revision += len(changes)
        self._changes.extend(changes)
        for _, before, after in changes:
            self._bytes += len(before or b"") + len(after or b"")
        self._trim()

    def _trim(self) -> None:
        changes = self._changes
        while len(changes) > CHANGES_MAX or self._bytes > BYTES_MAX:
            _, before, after = changes.popleft()
            self._bytes -= len(before or b"") + len(after or b"")

    def since(self, revision: int) -> Iterator[tuple[int, Change]]:
        """Yield the changes after `revision`, each with its own revision.

        Raises:
            RevisionGone: they are no longer all kept
        """
        if revision < self.first:
            raise errors.RevisionGone(f"changes are kept since revision {self.first}, not since {revision}")
        # A deque is walked from one of its ends, and most watches are close behind the latest change.
        skip = revision - self.first
        count = self.revision - revision
        if skip <= count:
            changes: Iterable[Change] = islice(self._changes, skip, None)
        else:
            changes = reversed(list(islice(reversed(self._changes), count)))
        return enumerate(changes, start=revision + 1)
