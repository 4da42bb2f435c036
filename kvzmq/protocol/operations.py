"""The operations: each declared once, in one class.

`declaration` says what a class declares. The decoders of both encodings, the sets below, the checks, the keys of the
audit trail and of an access check, the table's dispatch and the trace's marks are derived from the declarations.
CONTRIBUTING.md has the steps of adding one.

Values stay MessagePack bytes (`msgspec.Raw`) from the wire to the table, the log and back. No operation is executed
here, and how messages are encoded is in `msgpack` and `jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Union

from msgspec import Meta, Raw, Struct

from kvzmq import errors
from kvzmq.protocol.declaration import (
    Access,
    Operation,
    Scope,
    Write,
    its_key,
    its_key_twice,
    its_keys,
    its_prefix,
    method_of,
    no_key,
    the_whole_table,
)

KEY_CHARS_MAX = 65_536
"""The longest key, code points."""

TTL_S_MAX = 10 * 366 * 86_400.0
"""The longest time to live, seconds: about ten years."""

PAGE_ROWS_MAX = 10_000
"""The most rows in one page of `keys` or `items`."""

CLIENTS_PAGE_MAX = 1000
"""The most clients in one page of `clients`: the kernel is asked of each, which takes 6 us."""

NAME_CHARS_MAX = 1000
"""The longest name of a client."""

SLOW_REQUESTS_MAX = 256
"""The most records in one answer to `slow_requests`."""

SAMPLE_MAX = 1_000_000
"""The thinnest sample of a monitor: one request of so many."""

ROWS_MAX = 100_000
"""The most rows or keys in one operation."""

TRANSACTION_MAX = 30_000
"""The most operations in a transaction, where a row and a key of an operation on many counts as one."""

TABLE_ID_BYTES = 16
"""The length of a lineage's and of an epoch's identifier."""

BACKUP_CHUNK_BYTES = 256 << 10
"""How much of a backup a reply holds at most."""

BACKUP_WEIGHT = 5000
"""What a piece of a backup counts for among a step's operations: a transport takes in four of them a step, 1 MiB."""

PAGE_WEIGHT = 1000
"""The weight of an operation of which it is not known beforehand how many rows it will find."""

Key = Annotated[str, Meta(max_length=KEY_CHARS_MAX)]
TTL = Annotated[float, Meta(gt=0, le=TTL_S_MAX)]
EpochArgument = Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")]
"""An epoch, 32 hexadecimal digits, or the empty string for an argument that was not given."""

BackupId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
"""What a client calls a backup: 32 hexadecimal digits, at random."""

Maybe = Annotated[list[Raw], Meta(max_length=1)]
"""A value or its absence: `[value]` or `[]`."""


# ---- weights, values and checks, each the method of the operations that name it


def _many_keys(op: Any) -> int:
    return len(op.keys)


def _a_page(op: Operation) -> int:
    return PAGE_WEIGHT


def _a_piece(op: Operation) -> int:
    return BACKUP_WEIGHT


def _its_limit(op: Any) -> int:
    return int(op.limit)


def _its_value(op: Any) -> Iterable[Raw]:
    return (op.value,)


def _its_subvalue(op: Any) -> Iterable[Raw]:
    return (op.subvalue,)


def _check_many(of: str, count: int) -> None:
    if count > ROWS_MAX:
        raise errors.InvalidRequest(f"more than {ROWS_MAX} {of} in one operation: send several requests")


def _check_name(of: str, name: str | None) -> None:
    if len(name or "") > KEY_CHARS_MAX:
        raise errors.InvalidRequest(f"{of} is longer than {KEY_CHARS_MAX} code points")


def _check_keys(op: Any) -> None:
    _check_many("keys", len(op.keys))


def _check_prefix(op: Any) -> None:
    _check_name("prefix", op.prefix)


def _check_page(op: Any) -> None:
    _check_name("prefix", op.prefix)
    _check_name("after", op.after)


def _check_subkey(op: Any) -> None:
    _check_name("subkey", op.subkey)


# ---- writes


class Open(Write, tag="open"):
    """Open the request's session. Payload: a map with `lineage` and `epoch`, or null for a table without."""

    mark = "O"
    accesses = no_key


class Insert(Write, tag="insert"):
    """Set `key` to `value`, for `ttl_s` seconds or for good. Payload: null."""

    key: Key
    value: Raw
    ttl_s: TTL | None = None

    mark = "I"
    in_transactions = True
    accesses = its_key
    values = _its_value


class Remove(Write, tag="remove"):
    """Remove `key`. Payload: null. NoSuchKey if it is absent."""

    key: Key

    mark = "R"
    in_transactions = True
    accesses = its_key


class InsertMany(Write, tag="insert_many"):
    """Set each key of `rows` to its value. Payload: null."""

    rows: dict[Key, Raw]

    mark = "M"
    in_transactions = True

    def accesses(self) -> tuple[Access, ...]:
        return (Access(True, tuple(self.rows)),)

    def weight(self) -> int:
        return len(self.rows)

    def values(self) -> Iterable[Raw]:
        return self.rows.values()

    def check(self) -> None:
        _check_many("rows", len(self.rows))


class RemoveMany(Write, tag="remove_many"):
    """Remove those of `keys` that are there. Payload: how many were."""

    keys: list[Key]

    mark = "X"
    in_transactions = True
    accesses = its_keys
    weight = _many_keys
    check = _check_keys


class CompareAndSet(Write, tag="compare_and_set"):
    """If `key` holds `expected`, or is absent as expected, set or remove it. Payload: whether that was done."""

    key: Key
    expected: Maybe
    value: Maybe

    mark = "C"
    accesses = its_key_twice

    def values(self) -> Iterable[Raw]:
        return (*self.expected, *self.value)


class SetDefault(Write, tag="setdefault"):
    """Insert `value` if `key` is absent. Payload: the value `key` has now."""

    key: Key
    value: Raw

    mark = "D"
    in_transactions = True
    accesses = its_key_twice
    values = _its_value


class Increment(Write, tag="increment"):
    """Add `by` to the number at `key`, 0 if absent. Payload: the new number. WrongType if not a number."""

    key: Key
    by: Union[int, float] = 1

    mark = "+"
    in_transactions = True
    accesses = its_key_twice

    def check(self) -> None:
        if not math.isfinite(self.by):
            raise errors.InvalidRequest("by is not finite")


class Expire(Write, tag="expire"):
    """Set the time to live of `key`: `ttl_s` seconds from now, or no limit if null. Payload: null. NoSuchKey."""

    key: Key
    ttl_s: TTL | None = None

    mark = "E"
    in_transactions = True
    accesses = its_key


class Transact(Write, tag="transaction"):
    """Apply `operations` if every check holds and none of them fails; else nothing.

    `checks` are pairs of a key and the value it must have, or its absence. Payload: an array of
    the operations' payloads. CheckFailed if a check does not hold, or the error of the operation.
    """

    checks: list[tuple[Key, Maybe]]
    operations: list[TransactionOperation]

    mark = "T"

    def accesses(self) -> tuple[Access, ...]:
        checked = Access(False, tuple(key for key, _ in self.checks))
        return (checked, *chain.from_iterable(op.accesses() for op in self.operations))

    def weight(self) -> int:
        return len(self.checks) + sum(map(weight_of, self.operations))

    def values(self) -> Iterable[Raw]:
        return (*chain.from_iterable(expected for _, expected in self.checks), *values_of(self.operations))

    def check(self) -> None:
        size = len(self.checks)
        for op in self.operations:
            size += max(1, weight_of(op))
        if size > TRANSACTION_MAX:
            raise errors.InvalidRequest(f"a transaction of more than {TRANSACTION_MAX} checks and changes")
        check_arguments(self.operations)


class BeginEpoch(Write, tag="epoch"):
    """Begin an epoch of the table, and its lineage if it has none."""

    id: Annotated[bytes, Meta(min_length=TABLE_ID_BYTES, max_length=TABLE_ID_BYTES)]
    lineage: Annotated[bytes, Meta(min_length=TABLE_ID_BYTES, max_length=TABLE_ID_BYTES)] | None = None

    mark = "B"
    from_clients = False
    accesses = no_key


class Senders(Write, tag="by"):
    """Say who has sent the requests that follow in the group: clients' names, None for who has none, each with how many
    requests in a row. The server's own, like `epoch`; it changes no row."""

    runs: list[tuple[str | None, int]]

    mark = "N"
    from_clients = False
    accesses = no_key


# ---- reads


class Lookup(Operation, tag="lookup"):
    """Read `key`. Payload: its value. NoSuchKey if it is absent."""

    key: Key

    mark = "l"
    in_transactions = True
    accesses = its_key


class LookupMany(Operation, tag="lookup_many"):
    """Read `keys`. Payload: a map of those that are there."""

    keys: list[Key]

    mark = "m"
    in_transactions = True
    accesses = its_keys
    weight = _many_keys
    check = _check_keys


class Size(Operation, tag="size"):
    """Count the rows. Payload: an integer."""

    mark = "s"
    scans = True
    accesses = the_whole_table


class Query(Operation, tag="query"):
    """Find the rows whose value is a map in which `subkey` equals `subvalue`.

    Payload: an array of `[key, value]`, sorted by key.
    """

    subkey: str
    subvalue: Raw

    mark = "q"
    scans = True
    accesses = the_whole_table
    weight = _a_page
    values = _its_subvalue
    check = _check_subkey

    def subkey_asked(self) -> str | None:
        return self.subkey


class Keys(Operation, tag="keys"):
    """List at most `limit` keys that begin with `prefix` and sort after `after`. Payload: an array."""

    prefix: str = ""
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_ROWS_MAX)] = 1000

    mark = "k"
    scans = True
    ordered = True
    accesses = its_prefix
    weight = _its_limit
    check = _check_page


class Items(Operation, tag="items"):
    """List rows as `keys` does. Payload: an array of `[key, value]`.

    A page ends early where the reply would grow too large; only an empty page is the last.
    """

    prefix: str = ""
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_ROWS_MAX)] = 1000

    mark = "i"
    scans = True
    ordered = True
    accesses = its_prefix
    weight = _its_limit
    check = _check_page


class Ttl(Operation, tag="ttl"):
    """Read the time to live of `key`. Payload: seconds left, or null for no limit. NoSuchKey."""

    key: Key

    mark = "t"
    accesses = its_key


class Ping(Operation, tag="ping"):
    """Do nothing. Payload: the string "pong"."""

    mark = "p"
    ordered_by_log = False
    accesses = no_key


# ---- about the server or the connection


class HelloInfo(Struct, gc=False):
    """What a client declares about itself.

    heartbeat_s  a promise to send something at least so often while it has watches, seconds; if it breaks the promise
                 its watches end
    """

    heartbeat_s: Annotated[float, Meta(ge=1, le=3600)] | None = None


class Hello(Operation, tag="hello"):
    """Introduce a connection. Payload: a map with `version`, `lineage`, `epoch`, `revision`,
    `request_bytes_max` and `heartbeat_s`; lineage and epoch are 32 hexadecimal digits or null.
    """

    info: HelloInfo | None = None

    mark = "h"
    ordered_by_log = False
    scope = Scope.SERVER
    accesses = no_key


class Stats(Operation, tag="stats"):
    """Describe the server. Payload: a map of name to number or string."""

    mark = "?"
    ordered_by_log = False
    scope = Scope.SERVER
    administers = True
    accesses = no_key


class Backup(Operation, tag="backup"):
    """Read a checkpoint that holds everything acknowledged before it was first asked for, piece by piece.

    Without `offset` the backup begins, unless it has begun already. Payload: its length in bytes, or null while the
    checkpoint is being written. With `offset`: up to BACKUP_CHUNK_BYTES bytes from there; at its end none, and the
    server lets it go. In a request of its own. BackupFailed.
    """

    id: BackupId
    offset: Annotated[int, Meta(ge=0)] | None = None

    mark = "b"
    scope = Scope.SERVER
    administers = True
    accesses = the_whole_table
    weight = _a_piece


class Clients(Operation, tag="clients"):
    """List at most `limit` connected clients whose names sort after `after`. Payload: an array of maps, by name."""

    after: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""
    limit: Annotated[int, Meta(ge=1, le=CLIENTS_PAGE_MAX)] = 100

    mark = "c"
    ordered_by_log = False
    scope = Scope.SERVER
    administers = True
    accesses = no_key
    weight = _its_limit


class Kick(Operation, tag="kick"):
    """End the connection of the client of this name. Payload: whether there was one that could be ended."""

    name: Annotated[str, Meta(max_length=NAME_CHARS_MAX)]

    mark = "!"
    ordered_by_log = False
    scope = Scope.SERVER
    administers = True
    accesses = no_key


class Watch(Operation, tag="watch"):
    """Push an event for every change of a key that begins with `prefix`.

    With `from_revision`, a revision reached in `epoch`, the changes after it come first. Payload: the watch's number.
    If `epoch` is given, be it null, the payload is `[number, lineage, epoch]` instead, and events say where a request
    ends. RevisionGone if the history does not reach back so far, or is another one. Not available at the bridge.
    """

    prefix: str = ""
    from_revision: Annotated[int, Meta(ge=0)] | None = None
    epoch: EpochArgument | None = ""

    mark = "w"
    scope = Scope.CONNECTION
    pushes = True
    accesses = its_prefix
    weight = _a_page
    check = _check_prefix


class WatchQuery(Operation, tag="watch_query"):
    """Push an event for every row that enters, changes within, or leaves a query's matches."""

    subkey: str
    subvalue: Raw
    from_revision: Annotated[int, Meta(ge=0)] | None = None
    epoch: EpochArgument | None = ""

    mark = "w"
    scope = Scope.CONNECTION
    pushes = True
    accesses = the_whole_table
    weight = _a_page
    values = _its_subvalue
    check = _check_subkey


class SlowRequests(Operation, tag="slow_requests"):
    """List at most `limit` of the requests that took longest. Payload: an array of records, the slowest first."""

    limit: Annotated[int, Meta(ge=1, le=SLOW_REQUESTS_MAX)] = SLOW_REQUESTS_MAX

    mark = "z"
    ordered_by_log = False
    scope = Scope.SERVER
    administers = True
    accesses = the_whole_table
    weight = _its_limit


class Monitor(Operation, tag="monitor"):
    """Push records of the requests that are answered, as far as they pass the filters. Payload: the monitor's number.

    A request passes if the name of its client begins with `client`, if one of its operations is `op` and touches a key
    that begins with `prefix`, each unless it is "", and if it took `slower_than_s` or longer. Of those that pass, one
    of `sample` is told.
    """

    client: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""
    op: str = ""
    prefix: str = ""
    slower_than_s: Annotated[float, Meta(ge=0)] = 0.0
    sample: Annotated[int, Meta(ge=1, le=SAMPLE_MAX)] = 1

    mark = "v"
    ordered_by_log = False
    scope = Scope.CONNECTION
    pushes = True
    administers = True
    accesses = its_prefix

    def check(self) -> None:
        _check_name("prefix", self.prefix)
        if self.op and self.op not in OPERATIONS:
            raise errors.InvalidRequest(f"there is no operation {self.op[:100]!r} that a monitor could show")


class Progress(Operation, tag="progress"):
    """Ask for an event without a change, to be sent when every event of the watch up to the revision of this reply was.

    Payload: whether this connection has a watch of this number, or a monitor: of that it is the heartbeat.
    """

    watch: int

    mark = "g"
    scope = Scope.CONNECTION
    accesses = no_key


class Unwatch(Operation, tag="unwatch"):
    """End the watch, or the monitor, of this number. Payload: null."""

    watch: int

    mark = "u"
    ordered_by_log = False
    scope = Scope.CONNECTION
    accesses = no_key


# ---- what follows from the declarations


def _declared(base: type[Operation]) -> Iterator[type[Operation]]:
    for kind in base.__subclasses__():
        if kind.__struct_config__.tag is not None:
            yield kind
        yield from _declared(kind)


KINDS = tuple(_declared(Operation))
"""Every operation there is."""

OPERATIONS = {method_of(kind): kind for kind in KINDS if kind.from_clients}
"""The operations that a client may request, by the method's name."""

WRITES = frozenset(kind for kind in KINDS if kind.writes)
"""The operations that have to be logged before they are executed."""

SERVED = frozenset(kind for kind in KINDS if kind.scope is not Scope.TABLE)
"""The operations that the dispatcher executes, as they are about the server or the connection, not the table."""

PUSHED = frozenset(kind for kind in KINDS if kind.pushes)
"""The operations that begin a watch or a monitor, whose events are pushed."""

UNORDERED = frozenset(kind for kind in KINDS if not kind.ordered_by_log)
"""The operations that read nothing which the log decides."""

SCANS = frozenset(kind for kind in KINDS if kind.scans)
"""The operations that scan."""

# For the decoders, which are made when the program starts. To a type checker each is any operation.
if TYPE_CHECKING:
    AnyOperation = Operation
    LoggedOperation = Operation
    TransactionOperation = Operation
else:
    AnyOperation = Union[tuple(OPERATIONS.values())]
    LoggedOperation = Union[KINDS]
    TransactionOperation = Union[tuple(kind for kind in KINDS if kind.in_transactions)]

# Only of operations that override the method: a lookup here takes less time than a call of the base class's.
WEIGHTS: dict[type[Operation], Callable[[Any], int]] = {
    kind: kind.weight for kind in KINDS if kind.weight is not Operation.weight
}
"""The weight of an operation, as a function, where it is not 1."""

_VALUES: dict[type[Operation], Callable[[Any], Iterable[Raw]]] = {
    kind: kind.values for kind in KINDS if kind.values is not Operation.values
}
_CHECKS: dict[type[Operation], Callable[[Any], None]] = {
    kind: kind.check for kind in KINDS if kind.check is not Operation.check
}
UNCHECKED = frozenset(KINDS) - _VALUES.keys() - _CHECKS.keys()
"""The operations of which the types of their arguments say all."""


TRAITS: dict[type[Operation], tuple[bool, bool, bool, bool, Callable[[Any], int] | None]] = {
    kind: (kind in WRITES, kind in SERVED, kind in SCANS, kind not in SERVED | SCANS, WEIGHTS.get(kind))
    for kind in KINDS
}
"""Of each operation whether it writes, is in SERVED, scans, is neither in SERVED nor scans; and its function in
WEIGHTS. Plain tuples: a named one takes a seventh longer to unpack, for every request."""


def weight_of(op: Operation) -> int:
    """Return how many rows an operation may read or write, 1 unless it says otherwise."""
    weigh = WEIGHTS.get(type(op))
    return 1 if weigh is None else weigh(op)


def values_of(ops: Iterable[Operation]) -> list[Raw]:
    """Return the values among the arguments of operations."""
    values: list[Raw] = []
    for op in ops:
        of = _VALUES.get(type(op))
        if of is not None:
            values += of(op)
    return values


def check_arguments(ops: Iterable[Operation]) -> None:
    """Refuse operations with an argument that no client may send; values are not checked here.

    Raises:
        InvalidRequest: saying what is wrong
    """
    for op in ops:
        check = _CHECKS.get(type(op))
        if check is not None:
            check(op)
