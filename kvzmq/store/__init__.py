"""The store: a table and the log it is made from.

`recover` builds the table by applying the log; `apply` takes one step's requests, makes the
changes among them durable as one group by one sync, and only then executes all of them, in order.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

from kvzmq import codec, errors
from kvzmq.messages import Reply, Request
from kvzmq.store.log import Checkpoint, Log
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

    def recover(self) -> None:
        """Build the table from the log.

        Raises:
            Damaged: a file is not what was written
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
            if collecting:
                gc.enable()

    def _replay(self, group: bytes) -> None:
        time_us, requests = codec.decode_group(group)
        self.table.advance(time_us)
        for request in requests:
            self.table.execute(request)
        self.records += len(requests)

    def apply(self, requests: Sequence[Request], time_us: int) -> Iterator[Reply]:
        """Execute one step's requests in order; all they change is durable before the first reply.

        Replies come one at a time, so that large ones can leave one by one: consume them all. A
        change that could not be written gets StorageError as its reply and was not executed.

        Args:
            requests: in the order of their arrival
            time_us: when, microseconds since 1970 UTC

        Raises:
            StorageFailed: the disk cannot be trusted: send nothing, stop
        """
        table = self.table
        # What a retried request gets is settled now: it is not logged again, so whatever this step does to its
        # session's kept results, it must not be executed either.
        first: dict[int, Reply] = {}
        writes: list[Request] = []
        for request in requests:
            if request.writes:
                kept = table.find_kept(request)
                if kept is None:
                    writes.append(request)
                else:
                    first[id(request)] = kept
        refused: set[int] = set()
        if writes or table.is_due(time_us):
            try:
                self._commit(codec.encode_group(time_us, [request.frame for request in writes]), len(writes))
                table.advance(time_us)
            except errors.StorageError as error:
                self.trouble = str(error)
                refused.update(map(id, writes))
        else:
            for group in self.log.barrier():
                self._replay(group)
            table.look_at(time_us)
        for request in requests:
            kept = first.get(id(request)) if first else None
            if kept is not None:
                yield kept
            elif refused and id(request) in refused:
                yield codec.refuse(request.seq, table.revision, errors.StorageError.code, str(self.trouble))
            else:
                yield self.execute(request)

    def _commit(self, group: bytes, count: int) -> None:
        for committed in self.log.commit(group):
            if committed is not group:
                self._replay(committed)
        self.trouble = None
        self.groups += 1
        self.changes += count
        self.records += count

    def close(self) -> None:
        """Release the log."""
        self.log.close()
