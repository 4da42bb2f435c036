"""What an operation declares: the base classes of operations, and the keys that they touch.

An operation is a msgspec Struct that reads and writes as the array `[method, argument, ...]`: the tag is the
method, the fields are the arguments. Beside its fields the class says whether it writes, whom it concerns, which
keys it touches, what it weighs, which of its arguments are values and what else is to be checked. Nothing here knows
a single operation: `operations` declares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from msgspec import Raw, Struct


class Scope(Enum):
    """Whom an operation concerns, and so who executes it."""

    TABLE = "table"
    """The table: `store/table.py`, which does the same whenever the log is replayed."""
    SERVER = "server"
    """The server that is asked: the dispatcher."""
    CONNECTION = "connection"
    """What is pushed on the connection that asks: the dispatcher. Not at the bridge, where nothing can be pushed."""


class Access(NamedTuple):
    """Keys that an operation touches, and how.

    writes  whether it may change their rows; its result may tell of them in either case
    keys    those it names
    prefix  if not None, all keys that begin with it instead: "" for the whole table
    """

    writes: bool
    keys: tuple[str, ...] = ()
    prefix: str | None = None


class Operation(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base class of operations: of those that only read, and that concern the table if nothing else is said.

    The docstring of a subclass says what it does, its payload and its own errors.
    """

    writes: ClassVar[bool] = False
    """Whether it may change the table, and so has to be in the log first."""
    scope: ClassVar[Scope] = Scope.TABLE
    """Whom it concerns."""
    scans: ClassVar[bool] = False
    """Whether it looks through rows: it may have to wait for an index, or for rows that are due to be removed."""
    ordered: ClassVar[bool] = False
    """Whether it asks for the keys in their order, for which there is an index."""
    pushes: ClassVar[bool] = False
    """Whether it begins a watch, whose events are pushed."""
    administers: ClassVar[bool] = False
    """Whether it tells of the server and its clients, or changes what becomes of them: an operator's business."""
    in_transactions: ClassVar[bool] = False
    """Whether a transaction may hold it."""
    from_clients: ClassVar[bool] = True
    """Whether a client may ask for it; otherwise it stands in logs only."""
    mark: ClassVar[str]
    """How `kvzmq trace` draws it, one character: capitals and signs write, small letters read."""

    def accesses(self) -> tuple[Access, ...]:
        """Return which keys it touches; every operation has to say so, and none that it leaves out is protected."""
        raise NotImplementedError(f"{type(self).__name__} does not say which keys it touches")

    def named_keys(self) -> list[str]:
        """Return the keys it names, in the order of its arguments."""
        return [key for access in self.accesses() for key in access.keys]

    def weight(self) -> int:
        """Return how many rows it may read or write."""
        return 1

    def subkey_asked(self) -> str | None:
        """Return the subkey whose index it asks, or None."""
        return None

    def values(self) -> Iterable[Raw]:
        """Return those of its arguments that are values of the table."""
        return ()

    def check(self) -> None:
        """Refuse arguments that no client may send any more, besides values.

        Not in the types of the fields, by which logs are read, too: they may hold what was accepted before there was
        a limit.

        Raises:
            InvalidRequest: an argument is too long, too much or not finite
        """


def method_of(operation: Operation | type[Operation]) -> str:
    """Return the name of an operation's method."""
    return str(operation.__struct_config__.tag)


class Write(Operation):
    """Base class of operations that may change the table."""

    writes: ClassVar[bool] = True


# ---- accesses, each the method of the operations that name it


def no_key(op: Operation) -> tuple[Access, ...]:
    """Return the accesses of an operation that touches no row."""
    return ()


def its_key(op: Any) -> tuple[Access, ...]:
    """Return those of an operation with a `key`."""
    return (Access(op.writes, (op.key,)),)


def its_keys(op: Any) -> tuple[Access, ...]:
    """Return those of an operation with `keys`."""
    return (Access(op.writes, tuple(op.keys)),)


def its_prefix(op: Any) -> tuple[Access, ...]:
    """Return those of an operation on the keys that begin with its `prefix`."""
    return (Access(op.writes, prefix=op.prefix),)


def the_whole_table(op: Operation) -> tuple[Access, ...]:
    """Return those of an operation that may touch any row."""
    return (Access(op.writes, prefix=""),)
