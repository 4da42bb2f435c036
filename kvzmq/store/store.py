"""The store: a table and the log it is made from.

`recover` builds the table by applying the log. Then, again and again, `begin` appends the changes among some
requests to the log as one group; the Group it returns executes each request, in order, while the disk works, and
gives the replies out when it is durable:

    group = store.begin(requests, now_us)
    for request in requests:
        group.execute(request)
    for reply in group.sync():
        ...

The table defines what an operation does, the log stores the groups; the store joins the two.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.limits import TABLE_ID_BYTES
from kvzmq.protocol.messages import Reply, Request
from kvzmq.protocol.operations import BeginEpoch, Senders
from kvzmq.store.barrier import Barrier, needs_newest
from kvzmq.store.group import CUT_OFF, OPEN, REJECTED, UNKNOWN, Group
from kvzmq.store.log import SEMANTICS, Checkpoint, Log
from kvzmq.store.observer import Commit, StoreObserver
from kvzmq.store.table import Table, indexes_of

ROW_BYTES = 10
DEADLINE_BYTES = 50
"""What a checkpoint has for a row beside key and value, two headers of MessagePack, and for one with a time to live:
its key once more and a time."""

_log = logging.getLogger(__name__)


class Store:
    """A table kept by a log.

    Args:
        log: where the groups go, not yet recovered
        monotonic: seconds that only grow
    """

    def __init__(self, log: Log, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.log = log
        self.is_shared = False
        """Whether others append to the log, too: known once it was recovered."""
        self.barrier = Barrier(log, monotonic)
        """Asks the log what others have appended, for linearizable reads."""
        self._monotonic = monotonic
        self.table = Table()
        self.records = 0
        """Requests in the log since the checkpoint, or since it was sealed."""
        self.groups = 0
        """Groups this store has committed: each was one sync."""
        self.changes = 0
        """Requests this store has committed."""
        self.trouble: str | None = None
        """Why the latest append failed, or None."""
        self.observers: list[StoreObserver] = []
        """Called when groups are committed or replayed and rows expire; without any, nothing is timed."""
        self.on_trouble: Callable[[str | None], None] = lambda trouble: None
        """Called with the reason when changes can no longer be written, and with None when they can again."""
        self.commit_times = (0, 0, 0)
        """When the latest commit's append ended, its sync began and ended; nanoseconds, by `perf_counter_ns`. Kept
        only with observers, or if `keeps_times`."""
        self.keeps_times = False
        self.is_unsynced = False
        """Whether something was appended since the last sync."""
        self._beginning: Request | None = None  # the epoch that is to be written with the next group
        self.open_group: Group | None = None
        """The group that has begun and not ended."""
        self._appended = (0, 0, 0, 0, 0)  # by the latest append: time_us, requests, bytes, append_ns, and when it ended

    # ---- recovery, and what others append

    def recover(self) -> None:
        """Build the table from the log.

        Raises:
            CorruptionError: a file is not what was written
        """
        collecting = gc.isenabled()
        gc.disable()  # rows are not tracked; the collector would only traverse what recovery makes
        table = self.table
        try:
            for found in self.log.recover():
                if isinstance(found, Checkpoint):
                    table.load(found.sections)
                else:
                    table.semantics = self.log.semantics
                    self._replay(found)
                    table.history.trim(table.revision, table.revision)
        finally:
            table.semantics = SEMANTICS
            table.failed.clear()  # by another server, in its time
            if collecting:
                gc.enable()
        self.is_shared = bool(self.log.descriptors())

    def _replay(self, group: bytes) -> None:
        time_us, requests = msgpack.decode_group(group)
        self.table.advance(time_us)
        for request in requests:
            self.table.execute(request)
        # The server's own requests, two at most, come first.
        count = len(requests) - sum(not request.ops[0].from_clients for request in requests[:2])
        self.records += count
        for observer in self.observers:
            observer.on_replay(count, self.table.revision)

    def catch_up(self) -> None:
        """Apply the groups of other servers that have arrived; call it between two groups.

        When they are not in the log any more, the table is built anew from a checkpoint that holds them. Nobody is
        served meanwhile, and watches that have not seen them end with RevisionGone.
        """
        try:
            groups = self.log.receive()
        except errors.LogTrimmed as error:
            _log.warning("%s: the table is built anew from the newest checkpoint", error)
            self.table.clear()
            self.recover()
            _log.warning("the table is at revision %d", self.table.revision)
            return
        for group in groups:
            self._replay(group)

    # ---- a group

    def begin(self, requests: Sequence[Request], time_us: int, senders: Sequence[str | None] | None = None) -> Group:
        """Begin a group: append what its requests change to the log.

        Rows that are due are removed with it. A group that changes nothing sees what others had appended, if
        one of its requests is a linearizable read: they share one barrier.

        Args:
            requests: in the order of their arrival
            time_us: when, microseconds since 1970 UTC
            senders: the name of each request's client, or None, for who reads the log; None where nobody has a name

        Raises:
            StorageFatal: the disk cannot be trusted: send nothing, stop
        """
        if self.open_group is not None:
            raise AssertionError("a group begins when the one before it has been synced")
        table = self.table
        # The cached replies of retries are looked up now: a retry is not logged again, so it must not be executed
        # either, even if this group drops the cached replies of its session.
        writes: list[tuple[Request, Reply | None]] = []
        frames: list[bytes] = []
        for request in requests:
            if request.writes:
                cached = table.find_cached(request)
                writes.append((request, cached))
                if cached is None:
                    frames.append(request.frame)
        by = None if senders is None or not frames else _senders_of(requests, senders, writes)
        group = Group(self, writes)
        if frames or (table.expiries.deadlines and table.has_due_rows(time_us)):
            self._commit(group, frames, time_us, by)
        else:
            if self.is_shared:
                self._read_newest(group, requests)
            elif requests:
                self.log.barrier()  # nobody else appends to it: that it can be trusted is all there is to know
            table.pass_time(time_us)
        if group.state is REJECTED and self.is_shared:
            self._read_newest(group, requests)
        self.open_group = group
        return group

    def _read_newest(self, group: Group, requests: Sequence[Request]) -> None:
        """Apply what others have appended, if a request of the group needs that."""
        if any(map(needs_newest, requests)) and (self.barrier.is_resting or not self._ask_log()):
            group.state = CUT_OFF

    def _ask_log(self) -> bool:
        groups = self.barrier.ask()
        for group in groups or ():
            self._replay(group)
        return groups is not None

    def ask_log(self) -> bool:
        """Apply what others have appended until now; False if the log cannot tell. Call it between two groups."""
        return self.open_group is None and self._ask_log()

    def refuse_cut_off(self, request: Request) -> Reply | None:
        """Return the refusal of a read that needs the newest state, as the log cannot tell it; None for any other."""
        if not needs_newest(request):
            return None
        message = f"not executed: this server cannot ask its log what is newest: {self.barrier.trouble or self.trouble}"
        return msgpack.refuse(request.seq, self.revision, errors.Unavailable.code, message)

    def read(self, request: Request) -> Reply:
        """Execute a request that only reads, outside a group: it sees what was executed so far, all of it durable."""
        if request.writes or self.is_unsynced:
            raise AssertionError("between two groups, when all is durable, only reads can be executed")
        return self.table.execute(request)

    def _commit(self, group: Group, frames: list[bytes], time_us: int, by: bytes | None = None) -> None:
        requests = len(frames)
        if by is not None:
            frames = [by, *frames]
        if self._beginning is not None:
            frames = [self._beginning.frame, *frames]
        encoded = msgpack.encode_group(time_us, frames)
        is_timed = bool(self.observers) or self.keeps_times
        began_ns = time.perf_counter_ns() if is_timed else 0
        others: Sequence[bytes] = ()
        try:
            others = self.log.append(encoded)
        except errors.WriteRejected as error:
            self._reject(group, str(error))
            return
        except errors.AppendUnknown as error:
            self._note_trouble(str(error))
            group.state = UNKNOWN
        took_ns = time.perf_counter_ns() - began_ns if is_timed else 0
        self._appended = (time_us, requests, len(encoded), took_ns, began_ns + took_ns)
        if group.state is OPEN:
            self._apply(others)

    def resolve(self, group: Group) -> bool:
        """Ask the log for the fate of a group whose append was AppendUnknown; True when that is known.

        Raises:
            StorageFatal: the log cannot be trusted: send nothing, stop
        """
        try:
            others = self.log.resolve()
        except errors.AppendUnknown as error:
            self._note_trouble(str(error))
            return False
        except errors.WriteRejected as error:
            self._reject(group, str(error))
            return True
        group.state = OPEN
        self._apply(others)
        return True

    def _reject(self, group: Group, why: str) -> None:
        self._note_trouble(why)
        group.state = REJECTED

    def _apply(self, others: Sequence[bytes]) -> None:
        """Apply what the log has before a group's requests: the groups of `others`, then the group's time."""
        if self.is_shared:
            self.barrier.heard_s = self._monotonic()
        for group in others:
            self._replay(group)
        if self.trouble is not None:
            self._note_trouble(None)
        table = self.table
        time_us, requests, _, _, _ = self._appended
        self.is_unsynced = True
        self.groups += 1
        self.changes += requests
        self.records += requests
        before = table.revision
        table.advance(time_us)
        if table.revision != before:
            for observer in self.observers:
                observer.on_expire(table.revision - before, table.revision)
        if self._beginning is not None:
            table.execute(self._beginning)
            self._beginning = None

    def _note_trouble(self, trouble: str | None) -> None:
        began_or_ended = (self.trouble is None) != (trouble is None)
        self.trouble = trouble
        if began_or_ended:
            self.on_trouble(trouble)

    def sync(self) -> None:
        """Return when what was appended is durable. One sync a group: replies wait, so nothing acknowledged is lost."""
        began_ns = time.perf_counter_ns() if self.observers or self.keeps_times else 0
        self.log.sync()
        self.is_unsynced = False
        if began_ns:
            ended_ns = time.perf_counter_ns()
            _, requests, length, append_ns, appended_ns = self._appended
            self.commit_times = (appended_ns, began_ns, ended_ns)
            commit = Commit(requests, length, append_ns, ended_ns - began_ns)
            for observer in self.observers:
                observer.on_commit(commit)

    def begin_epoch(self, time_us: int, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        """Begin an epoch, once when the log is started, and durable on return; a table without a lineage gets one.

        When the log cannot be written, on a full disk, the epoch begins with the first change that can:
        until then no revision is made that another start of the same files could make as well.

        Args:
            time_us: when, microseconds since 1970 UTC
            random_bytes: makes the identifiers

        Raises:
            AppendUnknown: it is not known whether the log has the epoch: start again
            StorageFatal: the disk cannot be trusted: stop
        """
        lineage = random_bytes(TABLE_ID_BYTES) if self.table.epochs.lineage is None else None
        operation = BeginEpoch(random_bytes(TABLE_ID_BYTES), lineage)
        self._beginning = Request(None, 1, [operation], msgpack.encode_request(None, 1, [operation]))
        group = self.open_group = Group(self, ())
        self._commit(group, [], time_us)
        if group.state is UNKNOWN:
            raise errors.AppendUnknown(f"the log does not answer: {self.trouble}")
        group.sync()

    def seal(self) -> int:
        """Return the number of the group as of which the log can be compacted while it goes on; see Log.seal."""
        if self.open_group is not None:
            raise AssertionError("the log is sealed between two groups")
        group = self.log.seal()
        self.records = 0
        return group

    def find_cached(self, request: Request) -> Reply | None:
        """Return the cached reply to a writing request; None if it was not executed before, or would be refused."""
        return self.table.find_cached(request)

    # ---- properties of the table

    @property
    def revision(self) -> int:
        """The table's revision."""
        return self.table.revision

    @property
    def row_count(self) -> int:
        """How many rows the table has."""
        return len(self.table.rows)

    @property
    def dumped_bytes(self) -> int:
        """About how long a checkpoint of the table is. Keys are counted by characters, so it may be longer."""
        table = self.table
        beside_values = ROW_BYTES * len(table.rows) + DEADLINE_BYTES * len(table.expiries)
        return table.row_bytes + beside_values + table.sessions.bytes

    @property
    def session_count(self) -> int:
        """How many sessions the table has."""
        return len(self.table.sessions)

    def failed(self) -> dict[tuple[type[Operation], int], int]:
        """Return how many operations have failed since recovery, by class and code."""
        return self.table.failed

    def identity(self) -> dict[str, str | None]:
        """Return lineage and epoch as clients see them, 32 hexadecimal digits or None."""
        return self.table.identity()

    def describe(self) -> dict[str, Any]:
        """Return what `stats` says of table and log: numbers and strings by name; sizes in bytes."""
        table = self.table
        return {
            "keys": len(table.rows),
            "revision": table.revision,
            **table.identity(),
            "sessions": len(table.sessions),
            "expiring_keys": len(table.expiries),
            "indexes": table.indexes.names(),
            "index_bytes": table.indexes.kept_bytes,
            "row_bytes": table.row_bytes,
            "session_bytes": table.sessions.bytes,
            "history_bytes": table.history.kept_bytes,
            "table_time_s": table.time_us / 1e6,
            "commits": self.groups,
            "requests_committed": self.changes,
            "log_records": self.records,
            "log_shared": self.is_shared,
            "barriers": self.barrier.asked,
            "barrier_trouble": self.barrier.trouble,
            "storage_trouble": self.trouble,
        }

    # ---- rows that are due

    def next_due_us(self) -> int | None:
        """Return when the next row expires, microseconds since 1970 UTC, or None."""
        return self.table.expiries.next_us()

    def has_due_rows(self, time_us: int) -> bool:
        """Say whether a group at `time_us` would remove rows."""
        return self.table.has_due_rows(time_us)

    def pass_time(self, time_us: int) -> None:
        """Set the time of reads, at which no row is due; nothing is logged."""
        self.table.pass_time(time_us)

    @property
    def has_expiry_backlog(self) -> bool:
        """Whether rows are due that the next group can remove; while the log cannot be written, none can."""
        return self.table.has_expiry_backlog and self.trouble is None

    def leaves_expiry_backlog(self, time_us: int) -> bool:
        """Say whether more rows are due at `time_us` than one group removes, and the log can be written."""
        return self.trouble is None and self.table.leaves_expiry_backlog(time_us)

    # ---- indexes

    @property
    def has_indexes(self) -> bool:
        """Whether there are indexes, which have to apply changes."""
        return self.table.indexes.active

    def is_indexed(self, request: Request) -> bool:
        """Say whether the indexes that a request needs are built and at most slightly behind."""
        return self.table.is_ready(request)

    def fit_indexes(self, request: Request) -> bool:
        """Say whether the indexes that a request needs may be kept at the same time."""
        return self.table.indexes.fit(indexes_of(request)[0])

    def build_indexes(self, request: Request | None, until_s: float, clock_s: Callable[[], float]) -> bool:
        """Build indexes and have them apply changes, first those that `request` needs; True if something is left to do.

        Args:
            until_s: when to stop, on `clock_s`
        """
        indexes = self.table.indexes
        indexes.want(*((frozenset(), False) if request is None else indexes_of(request)))
        return indexes.work(until_s, clock_s)

    def close(self) -> None:
        """Release the log."""
        self.log.close()


def _senders_of(
    requests: Sequence[Request], senders: Sequence[str | None], writes: Sequence[tuple[Request, Reply | None]]
) -> bytes | None:
    """Return the server's own request that names the senders of what is logged; None if none has a name."""
    of_writes = [sender for request, sender in zip(requests, senders) if request.writes]
    logged = [sender for sender, (_, cached) in zip(of_writes, writes) if cached is None]
    if not any(logged):
        return None
    runs = [(sender, sum(1 for _ in same)) for sender, same in groupby(logged)]
    return msgpack.encode_request(None, 1, [Senders(runs)])


def compact(log: Log) -> None:
    """Write the table that `log` recovers to as its checkpoint, and drop the groups that the checkpoint holds.

    Args:
        log: not yet recovered; if a server goes on appending meanwhile, one that ends with the group sealed last

    Raises:
        CorruptionError: the log is not what was written; nothing was changed
        OSError: try again: old checkpoint and groups, or the new checkpoint, hold everything
    """
    store = Store(log)
    store.recover()
    log.write_checkpoint(Checkpoint(log.group, store.table.dump()))
    log.truncate(log.group)
