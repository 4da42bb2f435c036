"""The arguments of operations: their types, and what several operations say of them in the same way.

What is not a type is a weight, a choice of the values or a check: each the method of the operations that name it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import Meta, Raw

from kvzmq import errors
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.limits import KEY_CHARS_MAX, ROWS_MAX, TTL_S_MAX

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
    """Return the weight of an operation with `keys`: how many there are."""
    return len(op.keys)


def a_page(op: Operation) -> int:
    """Return the weight of an operation that finds rows, or is pushed them."""
    return PAGE_WEIGHT


def a_piece(op: Operation) -> int:
    """Return the weight of an operation that reads a piece of a backup."""
    return BACKUP_WEIGHT


def its_limit(op: Any) -> int:
    """Return the weight of an operation with a `limit`: that."""
    return int(op.limit)


def its_value(op: Any) -> Iterable[Raw]:
    """Return the values of an operation with a `value`."""
    return (op.value,)


def its_subvalue(op: Any) -> Iterable[Raw]:
    """Return the values of an operation with a `subvalue`."""
    return (op.subvalue,)


def check_many(of: str, count: int) -> None:
    """Refuse more than ROWS_MAX rows or keys; `of` says which. Raises InvalidRequest."""
    if count > ROWS_MAX:
        raise errors.InvalidRequest(f"more than {ROWS_MAX} {of} in one operation: send several requests")


def check_name(of: str, name: str | None) -> None:
    """Refuse a text of more than KEY_CHARS_MAX code points; `of` says what it is. Raises InvalidRequest."""
    if len(name or "") > KEY_CHARS_MAX:
        raise errors.InvalidRequest(f"{of} is longer than {KEY_CHARS_MAX} code points")


def check_keys(op: Any) -> None:
    """Check the `keys` of an operation; see `check_many`."""
    check_many("keys", len(op.keys))


def check_prefix(op: Any) -> None:
    """Check the `prefix` of an operation; see `check_name`."""
    check_name("prefix", op.prefix)


def check_page(op: Any) -> None:
    """Check `prefix` and `after` of an operation; see `check_name`."""
    check_name("prefix", op.prefix)
    check_name("after", op.after)


def check_subkey(op: Any) -> None:
    """Check the `subkey` of an operation; see `check_name`."""
    check_name("subkey", op.subkey)
