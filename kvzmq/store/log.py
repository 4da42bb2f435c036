"""The log: an ordered, durable sequence of groups, and the protocol of a class that stores one.

A group is what requests that were executed together change: their time and the requests, as bytes that the log does
not interpret. The table is the result of applying the groups in order, so recovery, compaction and replicas are all
"apply the log".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

SEMANTICS = 3
"""The version of what the operations mean. A log names the one it was written under, so that newer
code can replay it as that version did; a version that is not known is refused.

The semantics include the limits on which an operation's result depends: of sessions and cached replies, of keys,
and of a request's results. A change of one of them, or of a message of an OperationError, needs a new number.

    1   the first
    2   epochs and lineages; the results of a request may take as much as the largest row
    3   groups may say who has sent their requests
"""

READABLE = frozenset((1, 2, SEMANTICS))
"""The versions that can be replayed."""


class Checkpoint(NamedTuple):
    """The table as it was after a group.

    group      the number of the last group it holds
    sections   the table's own sections, in order, as bytes
    """

    group: int
    sections: Iterator[bytes]


class Log(Protocol):
    """An ordered, durable sequence of groups, numbered from 1.

    One owner at a time calls it, from one thread:

        recover ──> append ──> sync ──> append ──> sync ...     and between them barrier, receive, seal
                      └──> AppendUnknown ──> resolve, until it succeeds ──> sync ...

    Several Log objects, in several processes, may append to one sequence. Then each returns the groups that the others
    have appended, in the order of the sequence: `append` and `resolve` those before its own group, `barrier` and
    `receive` the rest. The caller has to apply the groups that a call returns before the next call.
    """

    semantics: int
    """While it is being recovered, the version under which the group just yielded was written."""

    group: int
    """The number of the last group that was returned or appended."""

    block_s_max: float
    """How long `append`, `sync`, `barrier` and `resolve` block at most, seconds; infinite where a disk decides. The
    server serves no client meanwhile, so a log behind a network keeps this well below HEARTBEAT_S and then raises
    AppendUnknown."""

    def recover(self) -> Iterator[Checkpoint | bytes]:
        """Yield the checkpoint, if there is one, then the groups after it; then be ready to append.

        Raises:
            CorruptionError: a file is not what was written; nothing was changed
        """

    def append(self, group: bytes) -> Sequence[bytes]:
        """Append `group`; return what others have appended before it. It is durable when `sync` has returned.

        Until then the disk may work while the caller applies the group, and must not show anyone what it has applied.

        Raises:
            WriteRejected: it could not be written, is not in the log, and never will be
            AppendUnknown: it is in the log, or will be, or will never be: call `resolve` to find out
            StorageFatal: what is on the disk is not known: stop without sending a reply
        """

    def resolve(self) -> Sequence[bytes]:
        """Find out whether the group whose `append` raised AppendUnknown is in the log; returns and raises as `append`.

        Until it has returned, or raised WriteRejected, the log refuses to append, and returns no group that may
        come after that one.
        """

    def sync(self) -> None:
        """Return when what was appended is durable.

        Raises:
            StorageFatal: what is on the disk is not known: stop without sending a reply
        """

    def barrier(self) -> Sequence[bytes]:
        """Return the groups that a linearizable read has to see: none, if no other process appends.

        Raises:
            LogUnreachable: it could not be asked in time; ask again later
            StorageFatal: what is on the disk is not known: stop without sending a reply
        """

    def receive(self) -> Sequence[bytes]:
        """Return the groups of other processes that have arrived here, without waiting.

        Raises:
            LogTrimmed: the next ones are not in the log any more, but in a checkpoint: `recover` once more, which may
                be done as often as this is raised
            StorageFatal: the log is not what was written
        """

    def descriptors(self) -> Sequence[int]:
        """Return the descriptors that become readable when `receive` has groups: none, if no other process appends."""

    def seal(self) -> int:
        """Return the number of a group as of which a checkpoint may be written while the log goes on: the last one.

        Raises:
            WriteRejected: it cannot be done now; nothing has changed
            StorageFatal: what is on the disk is not known
        """

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint, durably and atomically: a recovery finds the old one or the new one.

        Raises:
            OSError: try again: either the old one or the new one is in place
        """

    def truncate(self, group: int) -> None:
        """Drop the groups up to `group`, which the checkpoint holds; the log may keep some of them.

        Raises:
            OSError: try again; every group after the checkpoint is still in the log
        """

    def close(self) -> None:
        """Release files and connections."""
