"""The table: a deterministic state machine. No I/O, no clock, no randomness.

The same requests at the same times in the same order give the same rows, the same results, the
same revisions. Time comes from outside and never runs back. A row is a key and the value's
MessagePack bytes, as they came; nothing is decoded on the way in or out unless an index, a
comparison or an increment asks for it.

The revision counts the changes of rows ever made: each row written or removed is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from msgspec import Raw

from kvzmq import errors
from kvzmq.protocol import msgpack, operations
from kvzmq.protocol.declaration import Operation, Scope, method_of
from kvzmq.protocol.limits import LARGE_BYTES_MIN
from kvzmq.protocol.messages import LargeResults, Reply, Request
from kvzmq.protocol.operations import KINDS
from kvzmq.store import sections
from kvzmq.store.budget import Budget
from kvzmq.store.epochs import Epochs
from kvzmq.store.equality import ENCODING_RATIO_MAX, are_equal
from kvzmq.store.expiries import Expiries
from kvzmq.store.history import History
from kvzmq.store.indexes import INDEXES_MAX, Indexes
from kvzmq.store.log import SEMANTICS
from kvzmq.store.sessions import CachedReply, Sessions
from kvzmq.store.undo import Undo

EXPIRED_ROWS_MAX = 5000
"""How many rows expire with one group; those left expire with the next ones. Removing them takes 15 ms."""

_DONE = msgpack.encode_results([(errors.OK, None)])
_FOUND = msgpack.encode_results([(errors.OK, Raw(b""))])
"""What stands before its value in the results of a lookup by itself."""

_PONG = "pong"


class Table:
    """Rows, sessions, expiries and indexes, changed by requests alone."""

    def __init__(self) -> None:
        self.clear()
        self.semantics = SEMANTICS
        """The version of what the operations mean; replay sets that of the log."""
        self.budget = Budget()
        """What is left of the limits of the request that is being executed."""
        self.failed: dict[tuple[type[Operation], int], int] = {}
        """How many operations have failed, by class and code: for people to see, nothing is decided by it."""
        self._undo: Undo | None = None
        self._scanning = False  # whether the request scans, so that the bytes it replaces are counted
        # Each by the method of its name: `insert` by `_insert`.
        self._run: dict[type[Operation], Callable[[Any], Any]] = {
            kind: getattr(self, f"_{method_of(kind)}") for kind in KINDS if kind.scope is Scope.TABLE
        }

    def clear(self) -> None:
        """Forget everything: the table is as a new one."""
        self.rows: dict[str, bytes] = {}
        self.revision = 0
        self.time_us = 0
        self._now_us = 0
        self._has_backlog = False  # rows are due that have not been removed
        self.epochs = Epochs()
        self.sessions = Sessions()
        self.expiries = Expiries()
        self.indexes = Indexes(self.rows)
        self.history = History(0)
        self._loaded_bytes = 0  # of the rows that came from a checkpoint

    # ---- time, and requests

    def advance(self, time_us: int) -> None:
        """Set the table's time and remove rows that are due. An earlier time than the table's is ignored.

        No more than EXPIRED_ROWS_MAX rows are removed at once, in the order of their deadlines; the next calls remove
        the others. Until then reads of their keys do not find them, and a write to such a key removes the row first.
        Only scans would find them, so these have to wait while the table `has_expiry_backlog`.
        """
        self.time_us = max(self.time_us, time_us)
        bounded = self.semantics >= 2
        for key in self.expiries.due(self.time_us, EXPIRED_ROWS_MAX if bounded else None):
            self._drop(key)
        self._has_backlog = bounded and self.has_due_rows(self.time_us)
        self._now_us = self.time_us

    @property
    def has_expiry_backlog(self) -> bool:
        """Whether rows are due that have not been removed."""
        return self._has_backlog

    def pass_time(self, time_us: int) -> None:
        """Set the time of reads, at which no row is due. The table's own time stays: only the log sets that."""
        self._now_us = max(self.time_us, time_us)
        self._has_backlog = False  # rows that were due have been written again, without a deadline or with a later one

    def has_due_rows(self, time_us: int) -> bool:
        """Say whether `advance` would remove a row."""
        deadline = self.expiries.next_us()
        return deadline is not None and deadline <= max(time_us, self.time_us)

    def leaves_expiry_backlog(self, time_us: int) -> bool:
        """Say whether `advance` would leave rows that are due, because there are too many for one call."""
        return self.expiries.exceed(EXPIRED_ROWS_MAX, max(time_us, self.time_us))

    def is_ready(self, request: Request) -> bool:
        """Say whether the indexes that a request needs are built and at most slightly behind."""
        return self.indexes.are_ready(*indexes_of(request))

    def find_cached(self, request: Request) -> Reply | None:
        """Return the cached reply of a request that was executed before, which must not be logged again.

        None, too, for a request that would be refused now: an earlier request of the same group may open its session.
        """
        if request.session is None:
            return None
        try:
            cached = self.sessions.find(request.session, request.seq, request.digest)
        except errors.RequestRefused:
            return None
        return None if cached is None else Reply(request.seq, cached.revision, cached.results)

    def execute(self, request: Request) -> Reply:
        """Execute a request, or return the cached reply of a retry."""
        ops = request.ops
        if len(ops) == 1 and type(ops[0]) is operations.Lookup and not self._has_backlog:
            # What most requests are: without the budget, which has room for any row, a fifth of a lookup's bytecodes.
            value = self.rows.get(ops[0].key)
            if value is not None and len(value) < LARGE_BYTES_MIN:
                return Reply(request.seq, self.revision, _FOUND + value)
        session = request.session
        if session is None or not request.writes:
            revision, results = self._run_operations(request)
            return Reply(request.seq, revision, results)
        try:
            cached = self.sessions.find(session, request.seq, request.digest)
        except errors.RequestRefused as error:
            return msgpack.refuse(request.seq, self.revision, error.code, str(error))
        if cached is None:
            cached = CachedReply(request.digest, *self._execute(request))
            self.sessions.add(session, request.seq, cached)
        return Reply(request.seq, cached.revision, cached.results)

    def read(self, op: Operation) -> Any:
        """Execute one reading operation outside a request, and return its payload.

        Raises:
            OperationError: as the operation says
        """
        return self._run[type(op)](op)

    def _run_operations(self, request: Request) -> tuple[int, bytes | LargeResults]:
        before = self.revision
        self._scanning = request.scans
        self.budget.begin(len(request.ops), self.semantics, before)
        ops = request.ops
        results = [self._result(ops[0])] if len(ops) == 1 else [self._result(op) for op in ops]
        if self.revision - before > 1:
            self.history.join(before, self.revision)
        if len(results) == 1 and results[0] == (errors.OK, None):
            return self.revision, _DONE
        return self.revision, self.budget.encode(results)

    def _execute(self, request: Request) -> tuple[int, bytes]:
        """Execute a request whose reply is cached, so encoded at once."""
        revision, results = self._run_operations(request)
        return revision, msgpack.encode_results(results.pairs) if isinstance(results, LargeResults) else results

    def _result(self, op: Operation) -> tuple[int, Any]:
        try:
            return errors.OK, self._run[type(op)](op)
        except errors.OperationError as error:
            self.note_failed(op, error.code)
            return error.code, self.budget.charge_text(str(error))

    def note_failed(self, op: Operation, code: int) -> None:
        """Count an operation that has failed."""
        self.failed[type(op), code] = self.failed.get((type(op), code), 0) + 1

    @property
    def row_bytes(self) -> int:
        """How long all keys (characters) and values (bytes) are together."""
        return self._loaded_bytes + self.history.grown_bytes

    # ---- the only places where a row changes

    def _put(self, key: str, value: bytes, deadline_us: int | None = None) -> None:
        before = self._get_to_write(key) if self._has_backlog else self.rows.get(key)
        self.rows[key] = value
        self._changed(key, before, value, deadline_us)

    def _put_rows(self, rows: dict[str, Raw]) -> None:
        """Put many rows: as columns, unless each has to be recorded for a rollback or checked for being due."""
        if self._undo is not None or self._has_backlog:
            for key, value in rows.items():
                self._put(key, bytes(value))
            return
        # In columns: loops in C, in which the processor fetches the next rows while it waits for the memory of one.
        keys = list(rows)
        befores = list(map(self.rows.get, keys))
        afters = list(map(bytes, rows.values()))
        self.rows.update(zip(keys, afters))
        self.revision += len(keys)
        if self._scanning:
            self.budget.replaced_bytes += sum(map(len, filter(None, befores)))
        self.history.extend(keys, befores, afters)
        if self.expiries:
            self.expiries.forget(keys)
        if self.indexes.active:
            self.indexes.extend(keys, befores, afters)

    def _drop(self, key: str) -> None:
        self._changed(key, self.rows.pop(key), None, None)

    def _changed(self, key: str, before: bytes | None, after: bytes | None, deadline_us: int | None) -> None:
        self.revision += 1
        if self._scanning and before is not None:
            self.budget.replaced_bytes += len(before)
        if self._undo is not None:
            self._undo.append((key, before, after, self.expiries.get(key)))
        else:
            self.history.add(key, before, after)
            if self.indexes.active:
                self.indexes.add(key, before, after)
        if deadline_us is not None or self.expiries:
            self.expiries.set(key, deadline_us)

    def _get_to_write(self, key: str) -> bytes | None:
        """Return the value of a key that is to be written; if the row is due it is removed first."""
        if self._has_backlog and self.expiries.is_past(key, self.time_us):
            self._drop(key)
        return self.rows.get(key)

    def _get(self, key: str) -> bytes | None:
        """Return the value of a key, unless it is due."""
        if self._has_backlog and self.expiries.is_past(key, self.time_us):
            return None
        return self.rows.get(key)

    # ---- writes

    def _deadline(self, ttl_s: float | None) -> int | None:
        return None if ttl_s is None else self.time_us + math.ceil(ttl_s * 1e6)

    def _epoch(self, op: operations.BeginEpoch) -> None:
        if op.lineage is not None and self.epochs.lineage is None:  # of two servers that begin a table, the first one's
            self.epochs.lineage = op.lineage
        self.epochs.begin(op.id, self.revision)

    def _by(self, op: operations.Senders) -> None:
        """Change nothing: who has sent what is for people who read the log."""

    def _open(self, op: operations.Open) -> dict[str, str | None] | None:
        return self.identity() if self.epochs.lineage is not None else None

    def identity(self) -> dict[str, str | None]:
        """Return lineage and epoch as clients see them, 32 hexadecimal digits or None."""
        lineage, epoch = self.epochs.lineage, self.epochs.current
        return {
            "lineage": None if lineage is None else lineage.hex(),
            "epoch": None if epoch is None else epoch.hex(),
        }

    def _insert(self, op: operations.Insert) -> None:
        self._put(op.key, bytes(op.value), self._deadline(op.ttl_s))

    def _remove(self, op: operations.Remove) -> None:
        self._find(op.key)
        self._drop(op.key)

    def _insert_many(self, op: operations.InsertMany) -> None:
        self._put_rows(op.rows)

    def _remove_many(self, op: operations.RemoveMany) -> int:
        removed = 0
        for key in op.keys:
            if self._get_to_write(key) is not None:
                self._drop(key)
                removed += 1
        return removed

    def _compare_and_set(self, op: operations.CompareAndSet) -> bool:
        if not self._holds(op.key, op.expected):
            return False
        if op.value:
            self._put(op.key, bytes(op.value[0]))
        elif self._get_to_write(op.key) is not None:
            self._drop(op.key)
        return True

    def _holds(self, key: str, expected: Sequence[Raw]) -> bool:
        present = self._get(key)
        if present is None or not expected:
            return present is None and not expected
        wanted = bytes(expected[0])
        if present == wanted:
            return True
        if self.semantics >= 2:
            shorter, longer = sorted((len(present), len(wanted)))
            if longer > ENCODING_RATIO_MAX * shorter:
                return False
            self.budget.charge_comparison(longer + shorter)
        return are_equal(present, wanted)

    def _setdefault(self, op: operations.SetDefault) -> Raw:
        present = self._get_to_write(op.key)
        # Before the row is put: an operation that fails changes nothing.
        payload = self.budget.charge(bytes(op.value) if present is None else present)
        if present is None:
            self._put(op.key, bytes(op.value))
        return payload

    def _increment(self, op: operations.Increment) -> int | float:
        present = self._get_to_write(op.key)
        # Decoded only if it may be a number: 100 increments of a row of 130,000 empty arrays took 2.8 s.
        may_be_number = present is None or len(present) <= msgpack.NUMBER_BYTES_MAX
        number: Any = 0 if present is None else msgpack.decode_value(present) if may_be_number else None
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise errors.WrongType(f"the value of {_short(op.key)} is not a number")
        try:
            number += op.by
            fits = math.isfinite(number) and (isinstance(number, float) or -(2**63) <= number < 2**64)
        except OverflowError:
            fits = False
        if not fits:
            raise errors.WrongType(f"{_short(op.key)} would leave the range of numbers")
        self._put(op.key, msgpack.encode_value(number), self.expiries.get(op.key))
        total: int | float = number
        return total

    def _expire(self, op: operations.Expire) -> None:
        self._put(op.key, self._find(op.key), self._deadline(op.ttl_s))

    def _transaction(self, op: operations.Transact) -> list[Any]:
        for key, expected in op.checks:
            if not self._holds(key, expected):
                raise errors.CheckFailed(f"{_short(key)} does not hold what was expected")
        self._undo = undo = Undo()
        revision = self.revision
        try:
            payloads = [self._run[type(each)](each) for each in op.operations]
        except errors.OperationError:
            undo.roll_back(self.rows, self.expiries)
            self.revision = revision
            raise
        finally:
            self._undo = None
        for key, before, after, _ in undo:
            self.history.add(key, before, after)
        if self.indexes.active and undo:
            keys, befores, afters, _ = zip(*undo)
            self.indexes.extend(keys, befores, afters)
        return payloads

    # ---- reads

    def _find(self, key: str) -> bytes:
        value = self._get(key)
        if value is None:
            raise _no_key(key)
        return value

    def _lookup(self, op: operations.Lookup) -> Raw:
        value = self._get(op.key) if self._has_backlog else self.rows.get(op.key)
        if value is None:
            raise _no_key(op.key)
        return self.budget.charge(value)

    def _lookup_many(self, op: operations.LookupMany) -> dict[str, Raw]:
        get = self._get if self._has_backlog else self.rows.get
        found = {key: value for key in op.keys if (value := get(key)) is not None}
        self.budget.charge_rows(found.keys(), found.values())
        return dict(zip(found, map(Raw, found.values())))

    def _size(self, op: operations.Size) -> int:
        return len(self.rows)

    def _query(self, op: operations.Query) -> list[tuple[str, Raw]]:
        self.budget.charge_scan(self.revision)
        self.budget.charge_subkey(op.subkey)
        index = self.indexes.on(op.subkey)
        subvalue = msgpack.decode_value(op.subvalue)
        self.budget.charge_found(index.count(subvalue))
        keys = index.find(subvalue)
        values = list(map(self.rows.__getitem__, keys))
        self.budget.charge_rows(keys, values)
        return list(zip(keys, map(Raw, values)))

    def _keys(self, op: operations.Keys) -> list[str]:
        self.budget.charge_scan(self.revision)
        keys = list(islice(self.indexes.keys(op.prefix, op.after), op.limit))
        self.budget.charge_found(len(keys))
        self.budget.charge_keys(keys)
        return keys

    def _items(self, op: operations.Items) -> list[tuple[str, Raw]]:
        self.budget.charge_scan(self.revision)
        page: list[tuple[str, Raw]] = []
        for key in islice(self.indexes.keys(op.prefix, op.after), op.limit):
            value = self.rows[key]
            if page and not self.budget.has_room(key, value):
                break
            page.append((key, self.budget.charge_row(key, value)))
        self.budget.charge_found(len(page))
        return page

    def _ttl(self, op: operations.Ttl) -> float | None:
        self._find(op.key)
        deadline_us = self.expiries.get(op.key)
        return None if deadline_us is None else max(0, deadline_us - self._now_us) / 1e6

    def _ping(self, op: operations.Ping) -> str:
        return _PONG

    # ---- checkpoints

    def dump(self) -> Iterator[bytes]:
        """Yield the table as sections of a checkpoint; see `sections`."""
        return sections.dump(self._parts, self.revision, self.time_us)

    def load(self, dumped: Iterable[bytes]) -> None:
        """Load the sections that `dump` gave into this table, which must be empty.

        Raises:
            CorruptionError: the counts in the head do not fit the other sections
        """
        self.revision, self.time_us = sections.load(self._parts, dumped)
        self._now_us = self.time_us
        self.history = History(self.revision)
        self._loaded_bytes = sum(map(len, self.rows)) + sum(map(len, self.rows.values()))
        self._has_backlog = self.semantics >= 2 and self.has_due_rows(self.time_us)

    @property
    def _parts(self) -> sections.Parts:
        return sections.Parts(self.epochs, self.rows, self.expiries, self.sessions)


def indexes_of(request: Request) -> tuple[frozenset[str], bool]:
    """Return which subkeys a request queries, the first INDEXES_MAX, and whether it needs the keys in order."""
    if request.needs is None:
        request.needs = _find_indexes(request)
    return request.needs


def _find_indexes(request: Request) -> tuple[frozenset[str], bool]:
    subkeys: dict[str, None] = {}
    order = False
    for op in request.ops:
        subkey = op.subkey_asked()
        if subkey is not None and len(subkeys) < INDEXES_MAX:
            subkeys[subkey] = None
        order = order or op.ordered
    return frozenset(subkeys), order


def _no_key(key: str) -> errors.NoSuchKey:
    return errors.NoSuchKey(f"no key {_short(key)}")


def _short(key: str) -> str:
    return repr(key) if len(key) <= 100 else repr(key[:100]) + "..."
