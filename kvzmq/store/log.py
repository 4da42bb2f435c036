"""The log: an ordered, durable sequence of groups, and what keeps one.

A group is what one step of the server changes: the time of the step and the requests, as bytes
that the log does not look into. The table is what comes out when the groups are applied in order,
so recovery, compaction and replicas are all "apply the log".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

SEMANTICS = 2
"""The version of what the operations mean. A log names the one it was written under, so that newer
code can replay it as that version did; a version that is not known is refused.

Part of it are the limits that decide what an operation gives: of sessions and cached replies, of keys,
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
    """An ordered, durable sequence of groups, numbered from 1.

    One owner at a time calls it, from one thread:

        recover ──> append ──> sync ──> append ──> sync ...     and between them barrier, receive, seal
                      └──> AppendUnknown ──> resolve, until it tells ──> sync ...

    Several logs, in several processes, may append to one sequence. Then each is handed what the others have
    appended, in the order of the sequence: by `append` and `resolve` what comes before its own group, by `barrier`
    and `receive` the rest. Whatever is handed out has to be applied before the next call.
    """

    semantics: int
    """While it is being recovered, the version under which the group just yielded was written."""

    group: int
    """The number of the last group that was handed out or appended."""

    block_s_max: float
    """How long `append`, `sync`, `barrier` and `resolve` block at most, seconds; infinite where only the disk knows.
    Nobody is served meanwhile, so a log behind a network stays well below HEARTBEAT_S and ends with AppendUnknown."""

    def recover(self) -> Iterator[Checkpoint | bytes]:
        """Yield the checkpoint, if there is one, then the groups after it; then be ready to append.

        Raises:
            CorruptionError: a file is not what was written; nothing was changed
        """

    def append(self, group: bytes) -> Sequence[bytes]:
        """Append `group`; return what others have appended before it. It is durable when `sync` has returned.

        Until then the disk may work while the caller applies it, and keeps to itself what it has applied.

        Raises:
            WriteRejected: it could not be written, is not there, and will not be
            AppendUnknown: it may be there, or come to be there: only `resolve` tells
            StorageFatal: nobody can tell what is on the disk: stop without a word
        """

    def resolve(self) -> Sequence[bytes]:
        """Find out what became of the group whose `append` has raised AppendUnknown; outcomes as those of `append`.

        Until it has returned, or raised WriteRejected, the log refuses to append, and hands out nothing that
        may come after that group.
        """

    def sync(self) -> None:
        """Return when what was appended is durable.

        Raises:
            StorageFatal: nobody can tell what is on the disk: stop without a word
        """

    def barrier(self) -> Sequence[bytes]:
        """Return what a linearizable read has to see first: nothing, if nobody else appends."""

    def receive(self) -> Sequence[bytes]:
        """Return what others have appended as far as it has arrived here, without waiting."""

    def descriptors(self) -> Sequence[int]:
        """Return the descriptors that become readable when `receive` has something: none, if nobody else appends."""

    def seal(self) -> int:
        """Return the number of a group as of which a checkpoint may be written while the log goes on: the last one.

        Raises:
            WriteRejected: not now; nothing has changed
            StorageFatal: nobody can tell what is on the disk
        """

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint, durably and at once: a recovery finds the old one or the new one.

        Raises:
            OSError: try again: the old one is in place, or the new one is
        """

    def truncate(self, group: int) -> None:
        """Let go groups up to `group`, which the checkpoint holds; the log may keep some of them.

        Raises:
            OSError: try again; every group after the checkpoint is there
        """

    def close(self) -> None:
        """Release files and connections."""
