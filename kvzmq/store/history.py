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

CHANGES_MAX = 65_536
"""How many changes are kept, and a few more: they go a chunk at a time."""

BYTES_MAX = 32 << 20
"""How many bytes of values they may hold."""

CHUNK_CHANGES = 1024
CHUNK_BYTES = 1 << 20
"""How large a chunk gets: so many changes, or so many bytes of values and one change more."""


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
        self.revision += 1
        chunk = self._open
        chunk.keys.append(key)
        chunk.befores.append(before)
        chunk.afters.append(after)
        if before:
            chunk.bytes += len(before)
        if after:
            chunk.bytes += len(after)
        if len(chunk.keys) >= CHUNK_CHANGES or chunk.bytes >= CHUNK_BYTES:
            self._open_next()

    def extend(self, keys: Sequence[str], befores: Sequence[bytes | None], afters: Sequence[bytes | None]) -> None:
        """Add the changes that make the next revisions, in order, given as columns."""
        for at in range(0, len(keys), CHUNK_CHANGES):
            piece = slice(at, at + CHUNK_CHANGES)
            self._extend(keys[piece], befores[piece], afters[piece])

    def _extend(self, keys: Sequence[str], befores: Sequence[bytes | None], afters: Sequence[bytes | None]) -> None:
        count = len(keys)
        size = sum(map(len, filter(None, befores))) + sum(map(len, filter(None, afters)))
        if size > CHUNK_BYTES and count > 1:
            half = count // 2
            self._extend(keys[:half], befores[:half], afters[:half])
            self._extend(keys[half:], befores[half:], afters[half:])
            return
        chunk = self._open
        if chunk.keys and (len(chunk.keys) + count > CHUNK_CHANGES or chunk.bytes + size > CHUNK_BYTES):
            self._open_next()
            chunk = self._open
        self.revision += count
        chunk.keys += keys
        chunk.befores += befores
        chunk.afters += afters
        chunk.bytes += size
        if chunk.bytes >= CHUNK_BYTES:
            self._open_next()

    def _open_next(self) -> None:
        """Close the open chunk, and let the oldest ones go that are no longer needed or too much."""
        chunks = self._chunks
        self._bytes += self._open.bytes
        self._open = _Chunk(self.revision)
        chunks.append(self._open)
        while len(chunks) > 1 and (
            self.revision - chunks[1].after >= CHANGES_MAX or self._bytes > BYTES_MAX - CHUNK_BYTES
        ):
            self._bytes -= chunks.popleft().bytes

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
