"""A log in memory that several stores share, as they would share one that a cluster keeps.

It fails as told: the next append is refused, or its outcome is unknown, and then the test says what became of it; or
one store is cut off from it, and neither appends nor hears anything.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence

from kvzmq import errors
from kvzmq.store.log import SEMANTICS, Checkpoint


class SharedGroups:
    """The groups, in the one order that all agree on."""

    def __init__(self) -> None:
        self.groups: dict[int, bytes] = {}
        self.last = 0
        self.checkpoint: tuple[int, list[bytes]] | None = None
        self.logs: list[SharedLog] = []
        self.lock = threading.Lock()
        self.fails: type[errors.KvzmqError] | None = None
        """What the next append raises."""
        self.keeps = False
        """Whether a group whose append raises AppendUnknown is in the log all the same."""
        self.answers = True
        """Whether the log tells what became of it."""

    def add(self, group: bytes, by: SharedLog) -> int:
        """Append a group, and wake the others."""
        with self.lock:
            number = self.last + 1
            self.groups[number] = group
            self.last = number
            for log in self.logs:
                if log is not by:
                    log.wake()
        return number

    def close(self) -> None:
        """Close the logs that are open."""
        for log in list(self.logs):
            log.close()


class SharedLog:
    """One store's view of the shared groups: what it has not applied yet comes before its own."""

    semantics = SEMANTICS
    block_s_max = 0.0

    def __init__(self, shared: SharedGroups) -> None:
        self._shared = shared
        self.group = 0
        self.is_cut_off = False
        """Whether this store cannot reach the log."""
        self.barriers = 0
        self._unknown: bytes | None = None
        self._unknown_number: int | None = None  # of the group in the shared log, if it is there
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        with shared.lock:
            shared.logs.append(self)

    def recover(self) -> Iterator[Checkpoint | bytes]:
        if self._shared.checkpoint is not None:
            self.group, sections = self._shared.checkpoint
            yield Checkpoint(self.group, iter(sections))
        yield from self._rest()

    def _before(self, end: int) -> list[bytes]:
        """Hand out the groups that are not applied yet, before the one of number `end`."""
        first, self.group = self.group + 1, end - 1
        missing = [number for number in range(first, end) if number not in self._shared.groups]
        if missing:
            raise errors.StorageFatal(f"group {missing[0]} was truncated before it was applied: start again")
        return [self._shared.groups[number] for number in range(first, end)]

    def append(self, group: bytes) -> Sequence[bytes]:
        assert self._unknown is None, "nothing is appended while the fate of a group is unknown"
        if self.is_cut_off:
            raise errors.WriteRejected("not applied: cut off")
        fails, self._shared.fails = self._shared.fails, None
        if fails is errors.AppendUnknown:
            self._unknown = group
            self._unknown_number = self._shared.add(group, self) if self._shared.keeps else None
        if fails is not None:
            raise fails("planted")
        return self._added(self._shared.add(group, self))

    def _added(self, number: int) -> Sequence[bytes]:
        others = self._before(number)
        self.group = number
        return others

    def resolve(self) -> Sequence[bytes]:
        assert self._unknown is not None
        if not self._shared.answers:
            raise errors.AppendUnknown("planted")
        number, self._unknown, self._unknown_number = self._unknown_number, None, None
        if number is None:
            raise errors.WriteRejected("not applied: planted")
        return self._added(number)

    def sync(self) -> None:
        """Return: every group is as durable as it gets."""

    def barrier(self) -> Sequence[bytes]:
        self.barriers += 1
        if self.is_cut_off:
            raise errors.LogUnreachable("cut off")
        return self._rest()

    def _rest(self) -> Sequence[bytes]:
        number = self._unknown_number
        return self._before(self._shared.last + 1 if number is None else number)

    def wake(self) -> None:
        """Make the descriptor readable."""
        with contextlib.suppress(BlockingIOError):
            self._writer.send(b"!")

    def receive(self) -> Sequence[bytes]:
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)
        return () if self.is_cut_off else self._rest()

    def descriptors(self) -> Sequence[int]:
        return (self._reader.fileno(),)

    def seal(self) -> int:
        return self.group

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._shared.checkpoint = checkpoint.group, list(checkpoint.sections)

    def truncate(self, group: int) -> None:
        for number in [number for number in self._shared.groups if number <= group]:
            del self._shared.groups[number]

    def close(self) -> None:
        with self._shared.lock:
            self._reader.close()
            self._writer.close()
            self._shared.logs.remove(self)
