"""The base classes of operations: what an operation's class declares.

An operation is a msgspec Struct that is encoded as the array `[method, argument, ...]`: the tag is the method, the
fields are the arguments. Beside its fields the class declares whether it writes, which part of the server executes
it (`scope`), which keys it accesses, how many rows it may read or write (`weight`), which of its arguments are values,
and what else is to be checked. The operations themselves are in `operations`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from msgspec import Raw, Struct


class Scope(Enum):
    """What an operation is about, which determines the part of the server that executes it."""

    TABLE = "table"
    """The table: executed by `store/table.py`, with the same result whenever the log is replayed."""
    SERVER = "server"
    """The server itself: answered by `server/served.py`."""
    CONNECTION = "connection"
    """The watches and monitors of the client's connection: answered by `server/served.py`. Not available at the
    bridge, which cannot push events."""


class Access(NamedTuple):
    """Keys that an operation accesses, and how.

    writes  whether it may change their rows; if not, its result may depend on them
    keys    the keys it names
    prefix  if not None, all keys that begin with it instead: "" for the whole table
    """

    writes: bool
    keys: tuple[str, ...] = ()
    prefix: str | None = None


class Operation(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base class of operations. By default an operation only reads, and its scope is the table.

    The docstring of a subclass describes the operation, its payload and its own errors.
    """

    writes: ClassVar[bool] = False
    """Whether it may change the table, and so has to be logged before it is executed."""
    scope: ClassVar[Scope] = Scope.TABLE
    """What it is about."""
    scans: ClassVar[bool] = False
    """Whether its result depends on all rows, or all of a prefix: it may have to wait until an index is built, or until
    rows that are due are removed."""
    ordered: ClassVar[bool] = False
    """Whether it needs the keys in order, for which there is an index."""
    pushes: ClassVar[bool] = False
    """Whether it begins a watch or a monitor, whose events are pushed."""
    administers: ClassVar[bool] = False
    """Whether it tells of the server and its clients, or changes what becomes of them: an operator's business."""
    ordered_by_log: ClassVar[bool] = True
    """Whether it has to see everything acknowledged before it, by whichever server, unless its request says otherwise.
    False for what only this server or connection knows."""
    in_transactions: ClassVar[bool] = False
    """Whether a transaction may hold it."""
    from_clients: ClassVar[bool] = True
    """Whether a client may request it; otherwise it occurs only in logs."""
    mark: ClassVar[str]
    """How `kvzmq trace` draws it, one character: capitals and signs write, small letters read."""

    def accesses(self) -> tuple[Access, ...]:
        """Return which keys it accesses. Every operation has to declare all of them: access checks rely on that."""
        raise NotImplementedError(f"{type(self).__name__} does not say which keys it touches")

    def named_keys(self) -> list[str]:
        """Return the keys it names, in the order of its arguments."""
        return list(dict.fromkeys(key for access in self.accesses() for key in access.keys))

    def weight(self) -> int:
        """Return how many rows it may read or write."""
        return 1

    def subkey_asked(self) -> str | None:
        """Return the subkey whose index it needs, or None."""
        return None

    def values(self) -> Iterable[Raw]:
        """Return those of its arguments that are values of the table."""
        return ()

    def check(self) -> None:
        """Refuse arguments that are not values and that clients may not send.

        These limits are not in the types of the fields, because logs are decoded by those, too, and may hold what was
        accepted before there was the limit.

        Raises:
            InvalidRequest: an argument is too long, too much or not finite
        """


class Write(Operation):
    """Base class of operations that may change the table."""

    writes: ClassVar[bool] = True


def method_of(operation: Operation | type[Operation]) -> str:
    """Return the name of an operation's method."""
    return str(operation.__struct_config__.tag)


def declared() -> tuple[type[Operation], ...]:
    """Return every operation that has been declared, in the modules that are loaded: in `operations` all there are."""
    return tuple(kind for base in (Write, Operation) for kind in base.__subclasses__() if kind is not Write)


# ---- accesses, each the method of the operations that name it


def no_key(op: Operation) -> tuple[Access, ...]:
    """Return the accesses of an operation that accesses no row."""
    return ()


def its_key(op: Any) -> tuple[Access, ...]:
    """Return those of an operation with a `key`."""
    return (Access(op.writes, (op.key,)),)


def its_key_twice(op: Any) -> tuple[Access, ...]:
    """Return those of a write with a `key` that is told what the row holds: whoever may only write may not have it."""
    return (Access(False, (op.key,)), Access(True, (op.key,)))


def its_keys(op: Any) -> tuple[Access, ...]:
    """Return those of an operation with `keys`."""
    return (Access(op.writes, tuple(op.keys)),)


def its_prefix(op: Any) -> tuple[Access, ...]:
    """Return those of an operation on the keys that begin with its `prefix`."""
    return (Access(op.writes, prefix=op.prefix),)


def the_whole_table(op: Operation) -> tuple[Access, ...]:
    """Return those of an operation that may access any row."""
    return (Access(op.writes, prefix=""),)
