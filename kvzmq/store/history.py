"""The latest changes, for those who watch.

They are kept in columns, a chunk of a thousand at a time: a batch of rows goes in and falls out
again without an object for each change, and without a loop over them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from kvzmq import errors
from kvzmq.messages import Change

CHANGES_KEPT = 65_536
BYTES_KEPT = 32 << 20
"""How many of the latest changes are kept, or how many bytes of them, whichever is less; and a chunk or two more.

A change takes the bytes of its values and the characters of its key.
"""

CHUNK_CHANGES = 1024
CHUNK_BYTES = 1 << 20
"""How large a chunk gets; a single change that takes more has one to itself."""


class _Chunk:
    """Consecutive changes, the first of which made revision `after + 1`."""

    __slots__ = ("after", "afters", "befores", "bytes", "keys")

    def __init__(self, after: int) -> None:
        self.after = after
        self.keys: list[str] = []
        self.befores: list[bytes | None] = []
        self.afters: list[bytes | None] = []
        self.bytes = 0

    def since(self, revision: int) -> Iterator[tuple[int, Change]]:
        """Return the changes after `revision`, each with its own."""
        skip = max(0, revision - self.after)
        changes = zip(self.keys[skip:], self.befores[skip:], self.afters[skip:])
        return enumerate(changes, start=self.after + skip + 1)


class History:
    """Changes with consecutive revisions, the last of which is `revision`."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self._open = _Chunk(revision)
        self._chunks = deque([self._open])  # the open one is the last
        self._bytes = 0  # in all the others

    @property
    def first(self) -> int:
        """The revision after which every change is kept."""
        return self._chunks[0].after

    def add(self, key: str, before: bytes | None, after: bytes | None) -> None:
        """Add the change that makes the next revision."""
        size = len(key)
        if before:
            size += len(before)
        if after:
            size += len(after)
        chunk = self._open
        if chunk.bytes + size > CHUNK_BYTES or len(chunk.keys) >= CHUNK_CHANGES:
            chunk = self._open_next()
        self.revision += 1
        chunk.keys.append(key)
        chunk.befores.append(before)
        chunk.afters.append(after)
        chunk.bytes += size

    def extend(self, keys: Sequence[str], befores: Sequence[bytes | None], afters: Sequence[bytes | None]) -> None:
        """Add the changes that make the next revisions, in order, given as columns."""
        for at in range(0, len(keys), CHUNK_CHANGES):
            piece = slice(at, at + CHUNK_CHANGES)
            self._extend(keys[piece], befores[piece], afters[piece])

    def _extend(self, keys: Sequence[str], befores: Sequence[bytes | None], afters: Sequence[bytes | None]) -> None:
        count = len(keys)
        size = sum(map(len, keys)) + sum(map(len, filter(None, befores))) + sum(map(len, filter(None, afters)))
        if size > CHUNK_BYTES and count > 1:
            half = count // 2
            self._extend(keys[:half], befores[:half], afters[:half])
            self._extend(keys[half:], befores[half:], afters[half:])
            return
        chunk = self._open
        if len(chunk.keys) + count > CHUNK_CHANGES or chunk.bytes + size > CHUNK_BYTES:
            chunk = self._open_next()
        self.revision += count
        chunk.keys += keys
        chunk.befores += befores
        chunk.afters += afters
        chunk.bytes += size

    def _open_next(self) -> _Chunk:
        """Close the open chunk, if there is anything in it, and let the oldest ones go when the others are enough."""
        if not self._open.keys:
            return self._open
        chunks = self._chunks
        self._bytes += self._open.bytes
        while self.revision - chunks[0].after - len(chunks[0].keys) >= CHANGES_KEPT or self._bytes - chunks[0].bytes >= BYTES_KEPT:
            self._bytes -= chunks.popleft().bytes
        self._open = _Chunk(self.revision)
        chunks.append(self._open)
        return self._open

    def since(self, revision: int) -> Iterator[tuple[int, Change]]:
        """Yield the changes after `revision`, each with its own revision.

        Raises:
            RevisionGone: they are no longer all kept
        """
        if revision < self.first:
            raise errors.RevisionGone(f"changes are kept since revision {self.first}, not since {revision}")
        wanted: list[_Chunk] = []
        for chunk in reversed(self._chunks):  # most watches are close behind the latest change
            wanted.append(chunk)
            if chunk.after <= revision:
                break
        return chain.from_iterable(chunk.since(revision) for chunk in reversed(wanted))
