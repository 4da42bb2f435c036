"""A log in memory that several stores share, as they would share one that a cluster keeps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from kvzmq import errors
from kvzmq.store.log import SEMANTICS, Checkpoint


class SharedGroups:
    """The groups, in the one order that all agree on."""

    def __init__(self) -> None:
        self.groups: list[bytes] = []
        self.checkpoint: tuple[int, list[bytes]] | None = None
        self.fails: type[errors.KvzmqError] | None = None
        """What the next append raises."""


class SharedLog:
    """One store's view of the shared groups: what it has not applied yet comes before its own."""

    semantics = SEMANTICS

    def __init__(self, shared: SharedGroups) -> None:
        self._shared = shared
        self._applied = 0

    def recover(self) -> Iterator[Checkpoint | bytes]:
        """Yield the checkpoint and the groups after it."""
        if self._shared.checkpoint is not None:
            self._applied, sections = self._shared.checkpoint
            yield Checkpoint(self._applied, iter(sections))
        yield from self.barrier()

    def commit(self, group: bytes) -> Iterator[bytes]:
        """Append, and yield what the others appended before, then `group`."""
        fails, self._shared.fails = self._shared.fails, None
        if fails is not None:
            raise fails("planted")
        self._shared.groups.append(group)
        others = len(self._shared.groups) - 1
        for other in islice(list(self._shared.groups), self._applied, others):
            self._applied += 1
            yield other
        self._applied += 1
        yield group

    def barrier(self) -> Iterator[bytes]:
        """Yield what the others appended."""
        for group in list(self._shared.groups)[self._applied :]:
            self._applied += 1
            yield group

    def close(self) -> None:
        """Do nothing."""
