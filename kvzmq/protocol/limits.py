"""How much of everything there may be in what travels: in the arguments of operations, and in messages. No I/O.

A client imports this module and not the operations: to declare all of them takes as many instructions as a fifth of
what it needs besides.
"""

from __future__ import annotations

# ---- arguments

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

# ---- messages

SESSION_BYTES = 16
"""The length of a session's identifier."""

SEQ_MAX = (1 << 63) - 1
"""The highest sequence number of a request; the lowest is 1."""

REQUEST_BYTES_MIN = 1 << 10
"""The least that the limit of a server's requests may be set to, bytes."""

REQUEST_BYTES_MAX = 1 << 20
"""The largest request that a server accepts by default, bytes: decoding and executing one of this length takes 0.1 s
at most, one eight times as long 0.8 to 2.6 s, while every client waits."""

REQUEST_BYTES_LIMIT = 8 << 20
"""The largest request that any server accepts or has ever accepted, bytes; so no row is larger."""

RESULT_BYTES_MAX = REQUEST_BYTES_LIMIT + 4 * KEY_CHARS_MAX + 1024
"""How many bytes the results of one request may take: any single row that was ever accepted, with its key, fits."""

REPLY_BYTES_MAX = RESULT_BYTES_MAX + 1024
"""The largest reply, bytes: the results, and room for the array around them and messages of errors."""

JSON_GROWTH = 7
"""How many bytes of JSON a byte of MessagePack may take: a control character is written as six, and the four of a
check `["", [false]]` as 28."""

_LINE_HEAD_BYTES = 1024
"""How many bytes a line may have besides its values: the names of members, a session, punctuation."""

REPLY_LINE_BYTES_MAX = JSON_GROWTH * REPLY_BYTES_MAX + _LINE_HEAD_BYTES
"""The longest line with which the bridge answers."""

LARGE_BYTES_MIN = 16 << 10
"""Results of at least this length are encoded when they are sent, a limited number of bytes a step."""


def request_line_bytes_max(request_bytes_max: int) -> int:
    """Return how long a line of the bridge may be: as long as any request of `request_bytes_max` can get."""
    return JSON_GROWTH * request_bytes_max + _LINE_HEAD_BYTES


OPERATIONS_MAX = 50_000
"""The most operations in one request: executing these takes up to 80 ms."""

QUICK_WEIGHT_MAX = 64
"""Up to how many rows a request is quick: it executes in 0.3 ms, and it is not worth it to measure how long it took."""

HEARTBEAT_S = 3.0
"""How long a connection with watches goes without an event before it is sent a heartbeat, seconds."""

SILENCE_S_MAX = 10.0
"""How long a side of a connection with watches receives nothing before it takes the other for dead, seconds."""
