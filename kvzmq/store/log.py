"""The log: an ordered, durable sequence of groups, and what keeps one.

A group is what one step of the server changes: the time of the step and the requests, as bytes
that the log does not look into. The table is what comes out when the groups are applied in order,
so recovery, compaction and replicas are all "apply the log".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

SEMANTICS = 2
"""The version of what the operations mean. A log names the one it was written under, so that newer
code can replay it as that version did; a version that is not known is refused.

Part of it are the limits that decide what an operation gives: of sessions and kept results, of keys,
and of a request's results. Change one of them, or a message of an OperationError, and this number with it.

    1   the first
    2   epochs and lineages; the results of a request may take as much as the largest row
"""

READABLE = frozenset((1, SEMANTICS))
"""The versions that can be replayed."""


class Checkpoint(NamedTuple):
    """The table as it was after a group.

    group      the number of the last group it holds
    sections   the table's own sections, in order, as bytes
    """

    group: int
    sections: Iterator[bytes]


class Log(Protocol):
    """An ordered, durable sequence of groups."""

    semantics: int
    """While it is being recovered, the version under which the group just yielded was written."""

    def recover(self) -> Iterator[Checkpoint | bytes]:
        """Yield the checkpoint, if there is one, then the groups after it; then be ready to commit.

        Raises:
            CorruptionError: a file is not what was written; nothing was changed
        """

    def commit(self, group: bytes) -> Iterator[bytes]:
        """Append `group`; yield what is not yet applied, in order, `group` itself last; end when it is durable.

        Between `group` and the end the disk may work while the caller applies it, and keeps that to itself.

        Raises:
            WriteRejected: it could not be written, and is not there
            StorageFatal: nobody can tell what is on the disk: stop without a word
        """

    def barrier(self) -> Iterator[bytes]:
        """Yield what a linearizable read has to see first: nothing, if nobody else appends."""

    def close(self) -> None:
        """Release the files."""
