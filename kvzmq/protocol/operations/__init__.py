"""The operations: each declared once, in one class.

`declaration` says what a class declares. The decoders of both encodings, the sets below, the checks, the keys of the
audit trail and of an access check, the table's dispatch and the trace's marks are derived from the declarations.
CONTRIBUTING.md has the steps of adding one.

    rows          one row or many, by their keys
    scans         all rows, or those below a prefix
    transactions  operations that are all applied, or none of them
    logged        what the log holds besides changes of rows
    server        the server itself
    pushes        watches and monitors
    arguments     what these take: types, weights, checks

Values stay MessagePack bytes (`msgspec.Raw`) from the wire to the table, the log and back. No operation is executed
here, and how messages are encoded is in `msgpack` and `jsonl`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Union

from msgspec import Raw

from kvzmq.protocol.declaration import Operation, Scope, declared, method_of

# All names of the families are names of this package: for an operation a class is all there is to add.
from kvzmq.protocol.operations.arguments import *  # noqa: F403
from kvzmq.protocol.operations.logged import *  # noqa: F403
from kvzmq.protocol.operations.pushes import *  # noqa: F403
from kvzmq.protocol.operations.rows import *  # noqa: F403
from kvzmq.protocol.operations.scans import *  # noqa: F403
from kvzmq.protocol.operations.server import *  # noqa: F403
from kvzmq.protocol.operations.transactions import *  # noqa: F403

KINDS = declared()
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
else:
    AnyOperation = Union[tuple(OPERATIONS.values())]
    LoggedOperation = Union[KINDS]

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
