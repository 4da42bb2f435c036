"""The store: a table and the log it is made from.

`recover` builds the table by applying the log. Then, step by step: `begin` writes the changes among
one step's requests to the log as one group, `answer` executes each request, in order, while the
disk works, and `settle` returns when the group is durable: only then may a reply leave.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import Reply, Request
from kvzmq.protocol.operations import TABLE_ID_BYTES, BeginEpoch
from kvzmq.store.log import SEMANTICS, Checkpoint, Log
from kvzmq.store.table import Table

__all__ = ["Store"]


class Store:
    """A table kept by a log.

    Args:
        log: where the groups go, not yet recovered
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.table = Table()
        self.execute: Callable[[Request], Reply] = self.table.execute
        """What executes a request; a trace puts itself around it."""
        self.records = 0
        """Requests in the log since the checkpoint or the last rotation."""
        self.groups = 0
        """Groups this store has committed: each was one sync."""
        self.changes = 0
        """Requests this store has committed."""
        self.trouble: str | None = None
        """Why the latest commit failed, or None."""
        self._beginning: Request | None = None  # the epoch that is to be written with the next group
        self._committing: Iterator[bytes] = iter(())
        self._kept: dict[int, Reply] = {}
        self._refused: set[int] = set()

    def recover(self) -> None:
        """Build the table from the log.

        Raises:
            CorruptionError: a file is not what was written
        """
        collecting = gc.isenabled()
        gc.disable()  # rows are not tracked; the collector would only look through what recovery makes
        try:
            for found in self.log.recover():
                if isinstance(found, Checkpoint):
                    self.table.load(found.sections)
                else:
                    self._replay(found)
        finally:
            self.table.semantics = SEMANTICS
            if collecting:
                gc.enable()

    def _replay(self, group: bytes) -> None:
        time_us, requests = msgpack.decode_group(group)
        self.table.semantics = self.log.semantics
        self.table.advance(time_us)
        for request in requests:
            self.table.execute(request)
        self.records += len(requests)
        self.table.history.trim(self.table.revision, self.table.revision)

    def begin_epoch(self, time_us: int, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        """Begin an epoch, once when the log is started, and durable on return; a table without a lineage gets one.

        When the log cannot be written, on a full disk, the epoch begins with the first change that can:
        until then no revision is made that another start of the same files could make as well.

        Args:
            time_us: when, microseconds since 1970 UTC
            random_bytes: makes the identifiers

        Raises:
            StorageFatal: the disk cannot be trusted: stop
        """
        lineage = random_bytes(TABLE_ID_BYTES) if self.table.epochs.lineage is None else None
        operation = BeginEpoch(random_bytes(TABLE_ID_BYTES), lineage)
        self._beginning = Request(None, 1, [operation], msgpack.encode_request(None, 1, [operation]))
        self._commit([], time_us)
        self.settle()

    def begin(self, requests: Sequence[Request], time_us: int) -> None:
        """Begin a step: put what its requests change into the log, as one group.

        From here to `settle` the requests are executed, each by `answer`, while the disk writes. Nobody may be shown
        a reply before `settle` has returned.

        Args:
            requests: in the order of their arrival
            time_us: when, microseconds since 1970 UTC

        Raises:
            StorageFatal: the disk cannot be trusted: send nothing, stop
        """
        table = self.table
        # What a retried request gets is settled now: it is not logged again, so whatever this step does to its
        # session's kept results, it must not be executed either.
        self._kept.clear()
        self._refused.clear()
        writes: list[Request] = []
        for request in requests:
            if request.writes:
                kept = table.find_cached(request)
                if kept is None:
                    writes.append(request)
                else:
                    self._kept[id(request)] = kept
        if writes or table.is_due(time_us):
            self._commit(writes, time_us)
        else:
            for group in self.log.barrier():
                self._replay(group)
            table.look_at(time_us)

    def _commit(self, writes: list[Request], time_us: int) -> None:
        beginning = self._beginning
        frames = [request.frame for request in writes]
        if beginning is not None:
            frames.insert(0, beginning.frame)
        try:
            self._append(msgpack.encode_group(time_us, frames), len(writes))
        except errors.WriteRejected as error:
            self.trouble = str(error)
            self._refused.update(map(id, writes))
            return
        self.table.advance(time_us)
        if beginning is not None:
            self.table.execute(beginning)
            self._beginning = None

    def _append(self, group: bytes, count: int) -> None:
        committing = self.log.commit(group)
        for committed in committing:
            if committed is group:
                break
            self._replay(committed)
        self._committing = committing
        self.trouble = None
        self.groups += 1
        self.changes += count
        self.records += count

    def answer(self, request: Request) -> Reply:
        """Execute the next request of the step, or give a retried one what it got the first time.

        A change that could not be written gets WriteRejected as its reply and is not executed.
        """
        if self._kept and id(request) in self._kept:
            return self._kept[id(request)]
        if self._refused and id(request) in self._refused:
            return msgpack.refuse(request.seq, self.table.revision, errors.WriteRejected.code, str(self.trouble))
        return self.execute(request)

    def settle(self) -> None:
        """Return when all the step has changed is durable.

        Raises:
            StorageFatal: the disk cannot be trusted: send nothing, stop
        """
        for _ in self._committing:
            raise AssertionError("the log yields something after our own group")

    def close(self) -> None:
        """Release the log."""
        self.log.close()
