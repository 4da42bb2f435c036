"""The arguments of operations: their limits and types, and what several operations say of them in the same way.

What is not a type is a weight, a choice of the values or a check: each the method of the operations that name it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import Meta, Raw

from kvzmq import errors
from kvzmq.protocol.declaration import Operation

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


def many_keys(op: Any) -> int:
    return len(op.keys)


def a_page(op: Operation) -> int:
    return PAGE_WEIGHT


def a_piece(op: Operation) -> int:
    return BACKUP_WEIGHT


def its_limit(op: Any) -> int:
    return int(op.limit)


def its_value(op: Any) -> Iterable[Raw]:
    return (op.value,)


def its_subvalue(op: Any) -> Iterable[Raw]:
    return (op.subvalue,)


def check_many(of: str, count: int) -> None:
    if count > ROWS_MAX:
        raise errors.InvalidRequest(f"more than {ROWS_MAX} {of} in one operation: send several requests")


def check_name(of: str, name: str | None) -> None:
    if len(name or "") > KEY_CHARS_MAX:
        raise errors.InvalidRequest(f"{of} is longer than {KEY_CHARS_MAX} code points")


def check_keys(op: Any) -> None:
    check_many("keys", len(op.keys))


def check_prefix(op: Any) -> None:
    check_name("prefix", op.prefix)


def check_page(op: Any) -> None:
    check_name("prefix", op.prefix)
    check_name("after", op.after)


def check_subkey(op: Any) -> None:
    check_name("subkey", op.subkey)
