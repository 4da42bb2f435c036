"""The latest changes of rows, in memory, from which watches are served.

They are kept as columns, in chunks of a thousand changes: a batch of rows is added and dropped again without an
object for each change, and without a loop over them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter

from kvzmq import errors
from kvzmq.protocol.messages import Change

CHANGES_KEPT = 65_536
BYTES_KEPT = 32 << 20
"""How many of the latest changes are kept, or how many bytes of them, whichever is less; and a chunk or two more.

The size of a change is the bytes of its values and the characters of its key.
"""

CHANGES_KEPT_MAX = 4 * CHANGES_KEPT
BYTES_KEPT_MAX = 4 * BYTES_KEPT
"""How many are kept, at most, for watches that are behind and whose clients read; and beyond them those of the latest
large step, while such a watch has a part of it still to be pushed."""

CHUNK_CHANGES = 1024
CHUNK_BYTES = 1 << 20
"""How large a chunk gets; a single larger change has a chunk to itself."""


_SPANS_KEPT = 1000
"""How many spans of requests before the first change are kept before they are deleted together."""

_last = itemgetter(1)


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
        self._large_step = (0, 0, 0)  # the revisions before and after it, and its bytes
        self._step_bytes = 0  # added since the step began
        self.grown_bytes = 0
        """By how much all changes have made keys (characters) and values (bytes) longer together."""
        self._spans: list[tuple[int, int]] = []  # (after, last) of each request that made several changes, in order

    @property
    def first(self) -> int:
        """The revision after which all changes are kept."""
        return self._chunks[0].after

    def add(self, key: str, before: bytes | None, after: bytes | None) -> None:
        """Add the change that makes the next revision."""
        size = len(key)
        grown = len(key)
        if before:
            size += len(before)
            grown = -len(before)
        if after:
            size += len(after)
            grown += len(after)
        elif before:
            grown -= len(key)
        self.grown_bytes += grown
        chunk = self._open
        if chunk.bytes + size > CHUNK_BYTES or len(chunk.keys) >= CHUNK_CHANGES:
            chunk = self._open_next()
        self.revision += 1
        chunk.keys.append(key)
        chunk.befores.append(before)
        chunk.afters.append(after)
        chunk.bytes += size
        self._step_bytes += size

    def extend(self, keys: Sequence[str], befores: Sequence[bytes | None], afters: Sequence[bytes | None]) -> None:
        """Add the changes that make the next revisions, in order, given as columns."""
        for at in range(0, len(keys), CHUNK_CHANGES):
            piece = slice(at, at + CHUNK_CHANGES)
            self._extend(keys[piece], befores[piece], afters[piece])

    def _extend(self, keys: Sequence[str], befores: Sequence[bytes | None], afters: Sequence[bytes | None]) -> None:
        count = len(keys)
        before_bytes, after_bytes = sum(map(len, filter(None, befores))), sum(map(len, filter(None, afters)))
        size = sum(map(len, keys)) + before_bytes + after_bytes
        if size > CHUNK_BYTES and count > 1:
            half = count // 2
            self._extend(keys[:half], befores[:half], afters[:half])
            self._extend(keys[half:], befores[half:], afters[half:])
            return
        chunk = self._open
        if len(chunk.keys) + count > CHUNK_CHANGES or chunk.bytes + size > CHUNK_BYTES:
            chunk = self._open_next()
        self.revision += count
        self.grown_bytes += (
            _chars_of_absent(keys, befores) + after_bytes - _chars_of_absent(keys, afters) - before_bytes
        )
        chunk.keys += keys
        chunk.befores += befores
        chunk.afters += afters
        chunk.bytes += size
        self._step_bytes += size

    @property
    def kept_bytes(self) -> int:
        """How many bytes of changes are kept."""
        return self._bytes + self._open.bytes

    def _open_next(self) -> _Chunk:
        """Close the open chunk, if there is anything in it."""
        if not self._open.keys:
            return self._open
        self._bytes += self._open.bytes
        self._open = _Chunk(self.revision)
        self._chunks.append(self._open)
        return self._open

    def join(self, after: int, last: int) -> None:
        """Record that one request made the changes after revision `after` up to `last`."""
        self._spans.append((after, last))

    def last_of_request(self, revision: int) -> int:
        """Return the last revision of the request that made `revision`."""
        at = bisect_left(self._spans, revision, key=_last)
        if at < len(self._spans):
            after, last = self._spans[at]
            if after < revision:
                return last
        return revision

    def trim(self, step_began: int, needed: int) -> None:
        """Drop the oldest changes, as far as the limits allow.

        Args:
            step_began: the revision at which the latest step began; its changes are kept
            needed: the lowest revision of the watches that are behind and whose clients read; the changes after it are
                kept within the larger limits
        """
        if self.revision - step_began > CHANGES_KEPT or self._step_bytes > BYTES_KEPT:
            self._large_step = (step_began, self.revision, self._step_bytes)
        self._step_bytes = 0
        began, ended, large_bytes = self._large_step
        within = began <= needed < ended
        changes_max = CHANGES_KEPT_MAX + (ended - began if within else 0)
        bytes_max = BYTES_KEPT_MAX + (large_bytes if within else 0)
        chunks = self._chunks
        while len(chunks) > 1:
            oldest = chunks[0]
            end = chunks[1].after
            changes, size = self.revision - end, self._bytes - oldest.bytes
            if end > step_began or (changes < CHANGES_KEPT and size < BYTES_KEPT):
                break
            if end > needed and changes < changes_max and size < bytes_max:
                break
            self._bytes = size
            chunks.popleft()
        if len(self._spans) > _SPANS_KEPT:  # deleting from the front of a list moves all the rest
            dropped = bisect_right(self._spans, self.first, key=_last)
            if dropped > _SPANS_KEPT:
                del self._spans[:dropped]

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


def _chars_of_absent(keys: Sequence[str], values: Sequence[bytes | None]) -> int:
    """Return the length of the keys without a value; mostly none is, or all are, and no value is empty."""
    if all(values):
        return 0
    if not any(values):
        return sum(map(len, keys))
    return sum(len(key) for key, value in zip(keys, values) if value is None)
