"""What travels: operations, requests, replies, events; and how large they may be.

An operation is a msgspec Struct that reads and writes as the array `[method, argument, ...]`.
Values stay MessagePack bytes (`msgspec.Raw`) from the wire to the table, the log and back.
Nothing here does I/O, and nothing here knows how a message is framed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple, Union, get_args
from zlib import crc32

from msgspec import Meta, Raw, Struct

SESSION_BYTES = 16
"""The length of a session's identifier."""

SEQ_MAX = (1 << 63) - 1
"""The highest sequence number of a request; the lowest is 1."""

KEY_CHARS_MAX = 65_536
"""The longest key, code points."""

REQUEST_BYTES_MIN = 1 << 10
"""The least a server may be told to take as a request."""

REQUEST_BYTES_MAX = 1 << 20
"""The largest request a server takes unless it is told otherwise, bytes: decoding and executing one of this
length takes 0.1 s at most, one eight times as long 0.8 to 2.6 s, while everybody waits."""

REQUEST_BYTES_LIMIT = 8 << 20
"""The largest request any server takes or has ever taken, bytes; so no row is larger."""

RESULT_BYTES_MAX = REQUEST_BYTES_LIMIT + 4 * KEY_CHARS_MAX + 1024
"""What the results of one request may take: any row that was ever accepted, with its key, fits alone."""

REPLY_BYTES_MAX = RESULT_BYTES_MAX + 1024
"""The largest reply: the results, and the array around them. Messages of errors may come on top."""

JSON_GROWTH = 7
"""How many bytes of JSON a byte of MessagePack may take: a control character is written as six, and the four of a
check `["", [false]]` as 28."""

_LINE_HEAD_BYTES = 1024
"""What a line has besides its values: the names of members, a session, punctuation."""

REPLY_LINE_BYTES_MAX = JSON_GROWTH * REPLY_BYTES_MAX + _LINE_HEAD_BYTES
"""The longest line with which the bridge answers."""

LARGE_BYTES_MIN = 16 << 10
"""From this length on results are encoded when it is their turn to be sent, so many bytes a step."""


def request_line_bytes_max(request_bytes_max: int) -> int:
    """Return how long a line of the bridge may be: as long as any request of `request_bytes_max` can get."""
    return JSON_GROWTH * request_bytes_max + _LINE_HEAD_BYTES


OPERATIONS_MAX = 50_000
"""The most operations in one request: executing these takes up to 80 ms."""

DEPTH_MAX = 64
"""The deepest nesting of a value: `[]` is 1 deep."""

TTL_S_MAX = 10 * 366 * 86_400.0
"""The longest time to live, seconds: about ten years."""

PAGE_ROWS_MAX = 10_000
"""The most rows in one page of `keys` or `items`."""

TABLE_ID_BYTES = 16
"""The length of a lineage's and of an epoch's identifier."""

HEARTBEAT_S = 3.0
"""How long a connection with watches goes without an event before it is sent a heartbeat, seconds."""

SILENCE_S_MAX = 10.0
"""When a side of a connection with watches that has heard nothing takes the other for gone, seconds."""

Key = Annotated[str, Meta(max_length=KEY_CHARS_MAX)]
TTL = Annotated[float, Meta(gt=0, le=TTL_S_MAX)]
EpochArgument = Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")]
"""An epoch, 32 hexadecimal digits, or the empty string for an argument that was not given."""

Seq = Annotated[int, Meta(ge=1, le=SEQ_MAX)]
Maybe = Annotated[list[Raw], Meta(max_length=1)]
"""A value or its absence: `[value]` or `[]`."""


class Operation(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Be one operation: its method is the Struct's tag, its arguments are the fields."""

    writes: ClassVar[bool] = False
    """Whether it may change the table, and so has to be in the log first."""


class Write(Operation):
    """Be an operation that may change the table."""

    writes: ClassVar[bool] = True


class Open(Write, tag="open"):
    """Open the request's session. Payload: null."""


class Insert(Write, tag="insert"):
    """Set `key` to `value`, for `ttl_s` seconds or for good. Payload: null."""

    key: Key
    value: Raw
    ttl_s: TTL | None = None


class Remove(Write, tag="remove"):
    """Remove `key`. Payload: null. NoSuchKey if it is absent."""

    key: Key


class InsertMany(Write, tag="insert_many"):
    """Set each key of `rows` to its value. Payload: null."""

    rows: dict[Key, Raw]


class RemoveMany(Write, tag="remove_many"):
    """Remove those of `keys` that are there. Payload: how many were."""

    keys: list[Key]


class CompareAndSet(Write, tag="compare_and_set"):
    """If `key` holds `expected`, or is absent as expected, set or remove it. Payload: whether."""

    key: Key
    expected: Maybe
    value: Maybe


class SetDefault(Write, tag="setdefault"):
    """Insert `value` if `key` is absent. Payload: the value `key` has now."""

    key: Key
    value: Raw


class Increment(Write, tag="increment"):
    """Add `by` to the number at `key`, 0 if absent. Payload: the new number. WrongType if not a number."""

    key: Key
    by: Union[int, float] = 1


class Expire(Write, tag="expire"):
    """Let `key` live `ttl_s` seconds from now, or for good if null. Payload: null. NoSuchKey."""

    key: Key
    ttl_s: TTL | None = None


class Lookup(Operation, tag="lookup"):
    """Read `key`. Payload: its value. NoSuchKey if it is absent."""

    key: Key


class LookupMany(Operation, tag="lookup_many"):
    """Read `keys`. Payload: a map of those that are there."""

    keys: list[Key]


class Size(Operation, tag="size"):
    """Count the rows. Payload: an integer."""


class Query(Operation, tag="query"):
    """Find the rows whose value is a map in which `subkey` equals `subvalue`.

    Payload: an array of `[key, value]`, sorted by key.
    """

    subkey: str
    subvalue: Raw


class Keys(Operation, tag="keys"):
    """List at most `limit` keys that begin with `prefix` and sort after `after`. Payload: an array."""

    prefix: str = ""
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_ROWS_MAX)] = 1000


class Items(Operation, tag="items"):
    """List rows as `keys` does. Payload: an array of `[key, value]`.

    A page ends early where the reply would grow too large; only an empty page is the last.
    """

    prefix: str = ""
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_ROWS_MAX)] = 1000


class Ttl(Operation, tag="ttl"):
    """Read how long `key` still lives. Payload: seconds, or null for good. NoSuchKey."""

    key: Key


class Ping(Operation, tag="ping"):
    """Do nothing. Payload: the string "pong"."""


class HelloInfo(Struct, gc=False):
    """What a client tells of itself.

    heartbeat_s  while it has watches it sends something at least so often, seconds; when it has not for longer, they end
    """

    heartbeat_s: Annotated[float, Meta(ge=1, le=3600)] | None = None


class Hello(Operation, tag="hello"):
    """Introduce a connection. Payload: a map with `version`, `lineage`, `epoch`, `revision`,
    `request_bytes_max` and `heartbeat_s`; lineage and epoch are 32 hexadecimal digits or null.
    """

    info: HelloInfo | None = None


class Stats(Operation, tag="stats"):
    """Describe the server. Payload: a map of name to number or string."""


class Watch(Operation, tag="watch"):
    """Push an event for every change of a key that begins with `prefix`.

    With `from_revision`, changes after that revision first, which was reached in `epoch`. Payload: the
    watch's number. To who gives an epoch, or null for one, `[number, lineage, epoch]`, and then events
    that say where a request ends.
    RevisionGone if the history does not reach back so far, or is another one. Not at the bridge.
    """

    prefix: str = ""
    from_revision: Annotated[int, Meta(ge=0)] | None = None
    epoch: EpochArgument | None = ""


class WatchQuery(Operation, tag="watch_query"):
    """Push an event for every row that enters, changes within, or leaves a query's matches."""

    subkey: str
    subvalue: Raw
    from_revision: Annotated[int, Meta(ge=0)] | None = None
    epoch: EpochArgument | None = ""


class Progress(Operation, tag="progress"):
    """Have the watch of this number told, by an event without a change, when it has been told everything
    up to the revision of this reply. Payload: whether this connection has such a watch.
    """

    watch: int


class Unwatch(Operation, tag="unwatch"):
    """End the watch of this number. Payload: null."""

    watch: int


Step = Union[Insert, Remove, InsertMany, RemoveMany, SetDefault, Increment, Expire, Lookup, LookupMany]
"""What a transaction may hold."""


class Transaction(Write, tag="transaction"):
    """Apply `operations` if every check holds and none of them fails; else nothing.

    `checks` are pairs of a key and the value it must have, or its absence. Payload: an array of
    the operations' payloads. CheckFailed if a check does not hold, or the error of the operation.
    """

    checks: list[tuple[Key, Maybe]]
    operations: list[Step]


AnyOperation = Union[
    Open, Insert, Remove, InsertMany, RemoveMany, CompareAndSet, SetDefault, Increment, Expire,
    Transaction, Lookup, LookupMany, Size, Query, Keys, Items, Ttl, Ping, Hello, Stats, Watch, WatchQuery,
    Progress, Unwatch,
]  # fmt: skip
"""What a client may ask for."""


class BeginEpoch(Write, tag="epoch"):
    """Begin an epoch of the table, and its lineage if it has none. Only in the log: no client may ask for it."""

    id: Annotated[bytes, Meta(min_length=TABLE_ID_BYTES, max_length=TABLE_ID_BYTES)]
    lineage: Annotated[bytes, Meta(min_length=TABLE_ID_BYTES, max_length=TABLE_ID_BYTES)] | None = None


LoggedOperation = Union[AnyOperation, BeginEpoch]
"""What may stand in a log."""

OPERATIONS: dict[str, type[Operation]] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyOperation)}
"""Every operation by its method's name."""

WRITES = frozenset(kind for kind in get_args(LoggedOperation) if kind.writes)
"""The operations that have to be in the log before they are executed."""

SERVED = frozenset((Hello, Stats, Watch, WatchQuery, Progress, Unwatch))
"""The operations that concern the server or the connection, not the table."""

SCANS = frozenset((Query, Keys, Items, Size))
"""The operations that look through rows: they may have to wait for an index, or for rows that are due to be removed."""


PAGE_WEIGHT = 1000
"""What a query counts for among a step's operations: nobody knows beforehand what it will find."""

_WEIGHTS: dict[type[Operation], Callable[[Any], int]] = {
    InsertMany: lambda op: len(op.rows),
    RemoveMany: lambda op: len(op.keys),
    LookupMany: lambda op: len(op.keys),
    Transaction: lambda op: len(op.checks) + sum(map(_weight, op.operations)),
    Keys: lambda op: op.limit,
    Items: lambda op: op.limit,
    Query: lambda op: PAGE_WEIGHT,
    Watch: lambda op: PAGE_WEIGHT,
    WatchQuery: lambda op: PAGE_WEIGHT,
}


def _weight(op: Operation) -> int:
    weigh = _WEIGHTS.get(type(op))
    return 1 if weigh is None else weigh(op)


_TRAITS: dict[type[Operation], tuple[bool, bool, bool, Callable[[Any], int] | None]] = {
    kind: (kind in WRITES, kind in SERVED, kind in SCANS, _WEIGHTS.get(kind)) for kind in get_args(LoggedOperation)
}
"""Of each operation: whether it writes, is served, looks through rows; and what it weighs, if not 1."""


class Request:
    """Hold one request: operations of one client, executed in order with nothing in between.

    session  16 bytes chosen by the client, or None for one that does not want retries recognised
    seq      the request's number within its session
    ops      the operations
    frame    the request's bytes as the wire and the log have them, `[session, seq, ops]`
    writes   whether any operation may change the table
    served   whether any operation concerns the server or the connection
    scans    whether any operation looks through rows
    needs    which indexes these ask: the subkeys, and whether the order of the keys; None until somebody has looked
    digest   CRC-32 of `frame` if the request writes within a session, else 0
    weight   how many rows it may read or write, at the least one for each operation
    """

    __slots__ = ("digest", "frame", "needs", "ops", "scans", "seq", "served", "session", "weight", "writes")

    def __init__(self, session: bytes | None, seq: int, ops: list[Any], frame: bytes) -> None:
        self.session = session
        self.seq = seq
        self.ops = ops
        self.frame = frame
        if len(ops) == 1:
            self.writes, self.served, self.scans, weigh = _TRAITS[type(ops[0])]  # one look, not four: most are alone
            self.weight = 1 if weigh is None else weigh(ops[0])
        else:
            kinds = set(map(type, ops))
            self.writes = not WRITES.isdisjoint(kinds)
            self.served = not SERVED.isdisjoint(kinds)
            self.scans = not SCANS.isdisjoint(kinds)
            self.weight = len(ops) if _WEIGHTS.keys().isdisjoint(kinds) else sum(map(_weight, ops))
        self.needs: tuple[frozenset[str], bool] | None = None
        self.digest = crc32(frame) if self.writes and session is not None else 0


class Refusal(NamedTuple):
    """Stand for a request that could not be read: an error that waits for its turn to be sent."""

    seq: int | None
    code: int
    message: str

    @property
    def scans(self) -> bool:
        """Whether it looks through rows: no refusal does."""
        return False


class LargeResults:
    """Hold results that are not encoded yet: pairs of a code and a payload, of about `length` bytes encoded.

    A row's value in them is the table's own bytes, so that a reply which waits for its turn takes no room.
    """

    __slots__ = ("length", "pairs")

    def __init__(self, pairs: list[tuple[int, Any]], length: int) -> None:
        self.pairs = pairs
        self.length = length

    def __len__(self) -> int:
        return self.length


class Reply(NamedTuple):
    """Answer one request.

    seq       the request's number
    revision  the table's, when the request had executed
    results   MessagePack: one `[code, payload]` per operation, or exactly one if refused; large ones not yet encoded
    """

    seq: int | None
    revision: int
    results: Union[bytes, LargeResults]


Change = tuple[str, Union[bytes, None], Union[bytes, None]]
"""What one write did to one row: the key, its MessagePack value before, and after; None is absence."""
